// @ts-check
/** The images of a question, small, with the answer that was given. */

import { h } from "../dom.js";

/** @typedef {import("../types.js").Query} Query */

/** @param {Query} query @param {(path: string) => string} url */
export function thumbs(query, url) {
  return query.candidates.map(({ index, image_url, prompt }) => {
    const value = answeredValue(query, index);
    const word = value > 0 ? "liked" : value < 0 ? "disliked" : "";
    return h("img", {
      src: url(image_url),
      alt: [prompt, word].filter(Boolean).join(", "),
      title: [prompt, word].filter(Boolean).join(", "),
      class: word ? `is-${word}` : null,
      loading: "lazy",
    });
  });
}

/** @param {Query} query @param {number} index @returns {number} */
function answeredValue({ answer }, index) {
  if (answer?.kind === "pick") return answer.winner === index ? 1 : 0;
  if (answer?.kind === "rank") return answer.order[0] === index ? 1 : 0;
  if (answer?.kind === "rate") return answer.ratings[index] ?? 0;
  return 0;
}
