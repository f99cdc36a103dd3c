// @ts-check
/** The folded sections below the question: what was learnt, history, pending questions. */

import { h } from "../dom.js";
import { ago, plural } from "../words.js";
import { history } from "./history.js";
import { learnt } from "./learnt.js";
import { thumbs } from "./thumbs.js";

/** @typedef {import("../types.js").State} State */

/** @param {State} state @param {(path: string) => string} url */
export function folds(state, url) {
  const { profile } = state;
  return h(
    "div",
    { class: "palate-folds", "data-key": "folds" },
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
