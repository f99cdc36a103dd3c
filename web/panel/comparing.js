// @ts-check
/** Which two revisions are compared, and at which seed. Pure functions. */

/** @typedef {import("./types.js").Profile} Profile */
/** @typedef {import("./types.js").Pair} Pair */

/** Nothing chosen: the base and the revision in use. @returns {Pair} */
export const noPair = () => ({ a: null, b: null });

/**
 * The revisions to compare. What the artist did not choose is, for A, the earliest that has
 * previews (the base, as a rule), and for B the one in use, or the newest where that is A already.
 * @param {Profile} profile @param {Pair} chosen @returns {{a: number, b: number}}
 */
export function comparedPair({ revisions, active }, chosen) {
  const known = (/** @type {number | null} */ n) => revisions.some((r) => r.revision === n);
  const drawn = revisions.filter((r) => r.previews.length).map((r) => r.revision);
  const a = chosen.a !== null && known(chosen.a) ? chosen.a : null;
  const b = chosen.b !== null && known(chosen.b) ? chosen.b : null;
  const first = a ?? [...drawn, 0].find((n) => n !== b) ?? 0;
  const newest = drawn.findLast((n) => n !== first) ?? revisions[revisions.length - 1].revision;
  return { a: first, b: b ?? (active === first ? newest : active) };
}

/**
 * The pair with one side chosen anew; choosing what the other side shows changes the sides.
 * @param {{a: number, b: number}} shown @param {"a" | "b"} side @param {number} revision
 * @returns {{a: number, b: number}}
 */
export function withSide(shown, side, revision) {
  const other = side === "a" ? "b" : "a";
  const next = { ...shown, [side]: revision };
  if (shown[other] === revision) next[other] = shown[side];
  return next;
}

/** Any of the revisions has previews. @param {Profile} profile */
export const isDrawn = ({ revisions }) => revisions.some((r) => r.previews.length > 0);

/** How many seeds the two have previews at. @param {Profile} profile @param {{a: number, b: number}} pair */
export function seedCount({ revisions }, { a, b }) {
  const counts = revisions
    .filter((r) => r.revision === a || r.revision === b)
    .map((r) => r.previews.length);
  return Math.max(0, ...counts);
}
