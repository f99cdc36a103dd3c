// @ts-check
/** What the person has marked, and the answer it makes. Pure functions; nothing here keeps state. */

/** @typedef {import("./types.js").Query} Query */
/** @typedef {import("./types.js").Marks} Marks */

/** @returns {Marks} */
export const noMarks = () => ({ best: null, ratings: {}, ranking: [] });

/** @param {Marks} marks */
export function isEmpty(marks) {
  return marks.best === null && !hasRatings(marks) && marks.ranking.length === 0;
}

/** @param {Marks} marks */
export const hasRatings = (marks) => Object.keys(marks.ratings).length > 0;

/** @param {Query} query @param {string} kind */
export const takes = (query, kind) => query.kinds.includes(kind);

/** A question that takes nothing but an order. @param {Query} query */
export const isRanking = (query) =>
  takes(query, "rank") && !takes(query, "pick") && !takes(query, "rate");

/**
 * What a click on an image, or its number key, means now: "best" until something is rated,
 * "like" afterwards, the next "rank" where only an order is asked for.
 * @param {Query} query @param {Marks} marks @returns {"best" | "like" | "rank"}
 */
export function clickMeaning(query, marks) {
  if (isRanking(query)) return "rank";
  return takes(query, "pick") && !hasRatings(marks) ? "best" : "like";
}

/** Marks the best, or takes the mark back. @param {Marks} marks @param {number} index @returns {Marks} */
export function toggleBest(marks, index) {
  return { ...noMarks(), best: marks.best === index ? null : index };
}

/**
 * Likes (1) or dislikes (−1) an image, or takes that back. A best that was marked before becomes a
 * like, so that nothing the person said is lost.
 * @param {Marks} marks @param {number} index @param {number} value @returns {Marks}
 */
export function toggleRating(marks, index, value) {
  const ratings = { ...marks.ratings };
  if (marks.best !== null) ratings[marks.best] = 1;
  if (ratings[index] === value && marks.best !== index) delete ratings[index];
  else ratings[index] = value;
  return { ...noMarks(), ratings };
}

/** Gives an image the next rank, or takes its rank back. @param {Marks} marks @param {number} index @returns {Marks} */
export function toggleRank(marks, index) {
  const ranking = marks.ranking.includes(index)
    ? marks.ranking.filter((other) => other !== index)
    : [...marks.ranking, index];
  return { ...noMarks(), ranking };
}

/**
 * The answer that the marks make, or null while they do not make one.
 * @param {Query} query @param {Marks} marks @returns {Record<string, any> | null}
 */
export function answerOf(query, marks) {
  if (hasRatings(marks)) {
    const ratings = Array(query.candidates.length).fill(null);
    for (const [index, value] of Object.entries(marks.ratings)) ratings[Number(index)] = value;
    return { kind: "rate", ratings };
  }
  if (marks.best !== null) return { kind: "pick", winner: marks.best };
  const rest = query.candidates.map((c) => c.index).filter((i) => !marks.ranking.includes(i));
  if (isRanking(query) && rest.length <= 1)
    return { kind: "rank", order: [...marks.ranking, ...rest] };
  return null;
}

/** What to do next, in words. @param {Query} query @param {Marks} marks */
export function hint(query, marks) {
  if (isRanking(query)) {
    const left = query.candidates.length - marks.ranking.length;
    return left <= 1 ? "Enter sends this order." : `Click in order of preference: ${left} to go.`;
  }
  const liked = Object.values(marks.ratings).filter((value) => value > 0).length;
  const disliked = Object.keys(marks.ratings).length - liked;
  if (hasRatings(marks)) {
    const parts = [liked && `${liked} liked`, disliked && `${disliked} disliked`].filter(Boolean);
    return `${parts.join(", ")}. Enter sends.`;
  }
  if (marks.best !== null) return "Best marked. Enter sends.";
  if (!takes(query, "rate")) return "Click the one you like best.";
  if (!takes(query, "pick")) return "Like or dislike each; leave out what you can't judge.";
  return "Click the best, or like and dislike each.";
}
