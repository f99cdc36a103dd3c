// @ts-check
/** The open question: images to compare, a mark on each, and what to do with the marks. */

import { h, icon } from "../dom.js";
import { BACK, CROSS, EXPAND, HEART, STAR } from "../icons.js";
import * as marking from "../marks.js";
import { undoLabel } from "./header.js";

/** @typedef {import("../types.js").State} State */
/** @typedef {import("../types.js").Query} Query */
/** @typedef {import("../types.js").Candidate} Candidate */

/** @param {State} state @param {Query} query @param {(path: string) => string} url */
export function question(state, query, url) {
  const prompts = new Set(query.candidates.map((c) => c.prompt.trim()));
  const shared = prompts.size === 1 ? [...prompts][0] : "";
  return h(
    "section",
    {
      class: "palate-question",
      "data-key": "question",
      "aria-label": `Question, round ${query.round}`,
    },
    h(
      "div",
      { class: "palate-ask" },
      h("span", { class: "palate-round" }, `Round ${query.round}`),
      h(
        "p",
        { "aria-live": "polite" },
        state.sendsIn ? "Best marked. Z takes it back." : marking.hint(query, state.marks),
      ),
    ),
    shared && h("p", { class: "palate-prompt", title: shared }, shared),
    h(
      "div",
      {
        class: state.zoom ? "palate-grid is-zoomed" : "palate-grid",
        role: "group",
        "aria-label": "Images to compare",
        "data-count": state.zoom ? 1 : query.candidates.length,
        "data-extra": prompts.size > 1 ? 38 : 0,
      },
      query.candidates.map((candidate, position) =>
        card({ state, query, candidate, position, url, caption: prompts.size > 1 }),
      ),
    ),
    controls(state, query),
    legend(query),
  );
}

/**
 * @param {{state: State, query: Query, candidate: Candidate, position: number,
 *   url: (path: string) => string, caption: boolean}} view
 */
function card({ state, query, candidate, position, url, caption }) {
  const { index, prompt } = candidate;
  const { marks } = state;
  const rating = marks.ratings[index] ?? 0;
  const rank = marks.ranking.indexOf(index) + 1;
  const isHere = position === state.focus;
  const classes = ["palate-card"];
  if (marks.best === index) classes.push("is-best");
  if (rating > 0) classes.push("is-liked");
  if (rating < 0) classes.push("is-disliked");
  if (isHere) classes.push("is-here");
  if (marks.best !== null && marks.best !== index) classes.push("is-other");
  const number = position + 1;
  const meaning = marking.clickMeaning(query, marks);
  const verb = { best: "mark as the best", like: "like", rank: "next in order" }[meaning];
  const isMarked = { best: marks.best === index, like: rating > 0, rank: rank > 0 }[meaning];
  return h(
    "figure",
    {
      class: classes.join(" "),
      "data-key": `${query.id}/${index}`,
      "data-position": position,
      hidden: state.zoom && !isHere,
    },
    h(
      "button",
      {
        type: "button",
        class: "palate-image",
        "data-do": "pick",
        "data-value": index,
        tabindex: isHere ? 0 : -1,
        "aria-pressed": String(isMarked),
        "aria-label": `Image ${number}: ${verb}. ${prompt}`,
        "aria-disabled": state.busy && "true",
        title: meaning === "best" ? `This one is the best (${number})` : `Image ${number}: ${verb}`,
      },
      h("img", {
        src: url(candidate.image_url),
        alt: prompt || `Image ${number}`,
        draggable: "false",
        decoding: "async",
      }),
    ),
    h("span", { class: "palate-number", "aria-hidden": "true" }, number),
    marks.best === index && h("span", { class: "palate-badge" }, icon(STAR), "Best"),
    rank > 0 && h("span", { class: "palate-badge" }, `#${rank}`),
    h(
      "div",
      { class: "palate-marks" },
      marking.takes(query, "rate") && [
        markButton({
          kind: "like",
          path: HEART,
          label: "Like",
          key: "L",
          index,
          number,
          isOn: rating > 0,
          isHere,
        }),
        markButton({
          kind: "dislike",
          path: CROSS,
          label: "Dislike",
          key: "D",
          index,
          number,
          isOn: rating < 0,
          isHere,
        }),
      ],
      h(
        "button",
        {
          type: "button",
          class: "palate-mark is-zoom",
          "data-do": "zoom",
          "data-value": index,
          tabindex: isHere ? 0 : -1,
          "aria-pressed": String(state.zoom),
          "aria-label": `Image ${number}: ${state.zoom ? "show all images" : "show large"}`,
          title: state.zoom ? "Show all images (F)" : "Show large (F)",
        },
        icon(EXPAND),
      ),
    ),
    caption && h("figcaption", { title: prompt }, prompt),
  );
}

/**
 * @param {{kind: string, path: string, label: string, key: string, index: number, number: number,
 *   isOn: boolean, isHere: boolean}} mark
 */
const markButton = ({ kind, path, label, key, index, number, isOn, isHere }) =>
  h(
    "button",
    {
      type: "button",
      class: `palate-mark is-${kind}`,
      "data-do": kind,
      "data-value": index,
      tabindex: isHere ? 0 : -1,
      "aria-pressed": String(isOn),
      "aria-label": `Image ${number}: ${label.toLowerCase()}`,
      title: `${label} (${key})`,
    },
    icon(path),
  );

/** @param {State} state @param {Query} query */
function controls(state, query) {
  const canSend = marking.answerOf(query, state.marks) !== null && !state.busy;
  const undo = undoLabel(state);
  const isCounting = state.sendsIn > 0;
  return h(
    "div",
    { class: "palate-controls" },
    h(
      "button",
      {
        type: "button",
        class: isCounting ? "palate-button is-primary is-counting" : "palate-button is-primary",
        "data-do": "submit",
        style: isCounting ? { "--palate-grace": `${state.sendsIn}ms` } : {},
        "aria-disabled": !canSend && "true",
        title: isCounting ? "Send now (Enter), or take it back (Z)" : "Send the answer (Enter)",
      },
      h("span", {}, state.busy || isCounting ? "Sending…" : "Send"),
      key("⏎"),
    ),
    marking.takes(query, "skip") &&
      h(
        "button",
        {
          type: "button",
          class: "palate-button",
          "data-do": "skip",
          "aria-disabled": state.busy && "true",
          title: "Can't tell: go on without learning from this question (S)",
        },
        h("span", {}, "Can't tell"),
        key("S"),
      ),
    undoButton(undo, state.busy),
  );
}

/** @param {ReturnType<typeof undoLabel>} undo @param {boolean} busy */
export const undoButton = (undo, busy) =>
  h(
    "button",
    {
      type: "button",
      class: "palate-button is-quiet",
      "data-do": "undo",
      "aria-disabled": (busy || !undo.can) && "true",
      title: undo.title,
    },
    icon(BACK),
    h("span", {}, undo.text),
    key("Z"),
  );

/** @param {string} name */
const key = (name) => h("kbd", { "aria-hidden": "true" }, name);

/** Every key; those that stand on the buttons only where there is no room for them. @param {Query} query */
function legend(query) {
  const numbers = `1–${Math.min(9, query.candidates.length)}`;
  const keys = [
    marking.takes(query, "pick") && [numbers, "best"],
    marking.isRanking(query) && [numbers, "next"],
    marking.takes(query, "rate") && ["L", "like"],
    marking.takes(query, "rate") && ["D", "dislike"],
    ["← →", "move"],
    ["F", "large"],
  ];
  const onButtons = [
    ["⏎", "send"],
    marking.takes(query, "skip") && ["S", "can't tell"],
    ["Z", "undo"],
  ];
  return h(
    "p",
    { class: "palate-legend", "aria-hidden": "true" },
    keys.map((entry) => entry && h("span", {}, key(entry[0]), ` ${entry[1]}`)),
    onButtons.map(
      (entry) => entry && h("span", { class: "is-on-button" }, key(entry[0]), ` ${entry[1]}`),
    ),
  );
}
