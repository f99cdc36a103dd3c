// @ts-check
/** The folded sections below the question: what was learnt, history, pending questions. */

import { h } from "../dom.js";
import { ago, plural, revisionName, updateLine } from "../words.js";
import { learnt } from "./learnt.js";

/** @typedef {import("../types.js").State} State */
/** @typedef {import("../types.js").Query} Query */
/** @typedef {import("../types.js").Profile} Profile */
/** @typedef {import("../types.js").Revision} Revision */

/** @param {State} state @param {(path: string) => string} url */
export function folds(state, url) {
  const { profile } = state;
  return h(
    "div",
    { class: "palate-folds" },
    h(
      "label",
      {
        class: "palate-keep",
        title: "Run the open graph again after each answer that you give here",
      },
      h("input", { type: "checkbox", "data-change": "keep", checked: state.keepAsking }),
      h("span", {}, "Keep asking: run again after each answer"),
    ),
    profile && fold(state, "learnt", "What was learnt", null, () => learnt(profile)),
    profile &&
      fold(state, "history", "History", profile.revisions.length - 1, () =>
        history(state, profile, url),
      ),
    fold(state, "pending", "Pending", state.pending.length, () => pending(state, url)),
  );
}

/**
 * @param {State} state @param {string} name @param {string} title @param {number | null} count
 * @param {() => Node} body
 */
function fold(state, name, title, count, body) {
  const isOpen = Boolean(state.folds[name]);
  return h(
    "details",
    { "data-fold": name, "data-key": name, open: isOpen },
    h(
      "summary",
      {},
      h("span", {}, title),
      count ? h("span", { class: "palate-count" }, count) : null,
    ),
    isOpen && h("div", { class: "palate-fold" }, body()),
  );
}

/** @param {string} text */
const nothing = (text) => h("p", { class: "palate-sub" }, text);

/** @param {State} state @param {Profile} profile @param {(path: string) => string} url */
function history(state, profile, url) {
  const revisions = [...profile.revisions].reverse();
  return h(
    "ol",
    { class: "palate-list" },
    revisions.map((revision) => {
      const used = state.past.filter((query) => query.used_by === revision.revision);
      return revisionRow({
        revision,
        isActive: revision.revision === profile.active,
        used,
        url,
        busy: state.busy,
      });
    }),
  );
}

/**
 * @param {{revision: Revision, isActive: boolean, used: Query[], url: (path: string) => string,
 *   busy: boolean}} row
 */
function revisionRow({ revision, isActive, used, url, busy }) {
  const name = revisionName(revision.revision);
  const title = name[0].toUpperCase() + name.slice(1);
  const line = historyLine(revision);
  return h(
    "li",
    { "data-key": `revision-${revision.revision}`, class: isActive ? "is-active" : null },
    h(
      "div",
      { class: "palate-row" },
      h("b", {}, title),
      h(
        "span",
        { class: "palate-when" },
        revision.created && revision.revision ? ago(revision.created) : "",
      ),
      isActive
        ? h("span", { class: "palate-tag" }, "in use")
        : h(
            "button",
            {
              type: "button",
              class: "palate-link",
              "data-do": "revision",
              "data-value": revision.revision,
              "aria-disabled": busy && "true",
              "aria-label": `Use ${name}`,
              title: `Use ${name}; nothing is deleted`,
            },
            "Use",
          ),
    ),
    line && h("p", { class: "palate-sub" }, line),
    used.length > 0 &&
      h(
        "div",
        { class: "palate-thumbs" },
        used.flatMap((query) => thumbs(query, url)),
      ),
  );
}

/** What made a revision, and where it branched off. @param {Revision} revision */
function historyLine({ revision, parent, report }) {
  if (revision === 0) return "before any learning";
  const branch = parent !== null && parent !== revision - 1 ? `from ${revisionName(parent)}` : "";
  return [branch, updateLine(report ?? {})].filter(Boolean).join(" · ");
}

/** Small images of a question, with the answer that was given. @param {Query} query @param {(path: string) => string} url */
function thumbs(query, url) {
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

/** @param {State} state @param {(path: string) => string} url */
function pending(state, url) {
  if (!state.pending.length) return nothing("No question is waiting.");
  return h(
    "ol",
    { class: "palate-list" },
    state.pending.map((query) =>
      h(
        "li",
        {
          "data-key": `pending-${query.id}`,
          class: query.id === state.query?.id ? "is-active" : null,
        },
        h(
          "div",
          { class: "palate-row" },
          h("b", {}, query.profile),
          h("span", { class: "palate-when" }, `round ${query.round} · ${ago(query.created)}`),
          query.id === state.query?.id
            ? h("span", { class: "palate-tag" }, "open")
            : h(
                "button",
                {
                  type: "button",
                  class: "palate-link",
                  "data-do": "open",
                  "data-value": query.id,
                  "aria-label": `Open the question of round ${query.round}, ${plural(query.candidates.length, "image")}`,
                  title: "Open this question",
                },
                "Open",
              ),
        ),
        h("div", { class: "palate-thumbs" }, thumbs(query, url)),
      ),
    ),
  );
}
