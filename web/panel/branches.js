// @ts-check
/** How revisions descend from each other, as lanes beside the timeline. Pure functions. */

/** @typedef {import("./types.js").Revision} Revision */
/** @typedef {{lane: number, isLit: boolean}} Line */

/**
 * @typedef {object} Rail what is drawn beside one row
 * @property {number} lane where the row's own dot lies
 * @property {Line | null} above the line from the dot up to a later revision that learnt on from it
 * @property {Line | null} below the line from the dot down to its parent
 * @property {Line[]} passing lines of other revisions that pass the row by
 * @property {Line[]} joining lines of further revisions that learnt on from it
 */

/** The active revision and all that it was learnt from. @param {Revision[]} revisions @param {number} active */
export function lineage(revisions, active) {
  const parents = new Map(revisions.map((r) => [r.revision, r.parent]));
  /** @type {Set<number>} */
  const found = new Set();
  for (
    let /** @type {number | null | undefined} */ at = active;
    typeof at === "number" && !found.has(at);
    at = parents.get(at)
  ) {
    found.add(at);
  }
  return found;
}

/** A revision that did not learn on from the one before it. @param {Revision} revision */
export const isBranch = ({ revision, parent }) => parent !== null && parent !== revision - 1;

/**
 * The rails of revisions that come newest first; lines that lead to the active revision are lit.
 * @param {Revision[]} revisions @param {Set<number>} lit @returns {Rail[]}
 */
export function rails(revisions, lit) {
  /** @type {({to: number, isLit: boolean} | null)[]} */
  const lanes = [];
  return revisions.map(({ revision, parent }) => {
    const ending = lanes.flatMap((line, lane) => (line?.to === revision ? [lane] : []));
    const free = lanes.indexOf(null);
    const lane = ending[0] ?? (free < 0 ? lanes.length : free);
    const line = (/** @type {number} */ at) => ({ lane: at, isLit: Boolean(lanes[at]?.isLit) });
    const rail = {
      lane,
      above: ending.length ? line(lane) : null,
      below: parent === null ? null : { lane, isLit: lit.has(revision) },
      passing: lanes.flatMap((l, at) => (l && l.to !== revision ? [line(at)] : [])),
      joining: ending.slice(1).map(line),
    };
    for (const at of ending) lanes[at] = null;
    lanes[lane] = parent === null ? null : { to: parent, isLit: lit.has(revision) };
    return rail;
  });
}
