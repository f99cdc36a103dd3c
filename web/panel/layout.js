// @ts-check
/** How many columns make the images largest. */

const GAP = 8;
const SMALLEST = 112;
const SCROLLED = 140;

/**
 * The number of columns, and the width of one, that show `count` images of `aspect` (width over
 * height) largest inside width × height; `extra` is what a card needs below its image. When even
 * that is too small to judge, the column scrolls instead.
 * @param {{width: number, height: number, count: number, aspect: number, extra: number}} space
 * @returns {{columns: number, size: number}}
 */
export function largestGrid({ width, height, count, aspect, extra }) {
  let best = { columns: 1, size: 0 };
  for (let columns = 1; columns <= count; columns += 1) {
    const rows = Math.ceil(count / columns);
    const byWidth = (width - GAP * (columns - 1)) / columns;
    const byHeight = ((height - GAP * (rows - 1)) / rows - extra) * aspect;
    const size = Math.floor(Math.min(byWidth, byHeight));
    if (size > best.size) best = { columns, size };
  }
  if (best.size >= Math.min(SMALLEST, width)) return best;
  const columns = Math.max(1, Math.min(count, Math.floor((width + GAP) / (SCROLLED + GAP))));
  return { columns, size: Math.floor((width - GAP * (columns - 1)) / columns) };
}
