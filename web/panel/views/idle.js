// @ts-check
/** What stands where the question stands while there is none: progress, or the way to the next one. */

import { h, icon } from "../dom.js";
import { PLAY } from "../icons.js";
import { plural } from "../words.js";
import { undoLabel } from "./header.js";
import { undoButton } from "./question.js";

/** @typedef {import("../types.js").State} State */

/** @param {State} state @param {(path: string) => string} url @param {boolean} canAsk */
export function idle(state, url, canAsk) {
  if (!state.loaded)
    return place(
      "loading",
      h("p", { class: "palate-lead" }, state.error ? "Not connected" : "Loading…"),
    );
  if (state.progress) return learning(state.progress);
  if (state.sent && state.running) return afterAnswer(state.sent);
  if (state.pending.length) return waiting(state, url);
  if (state.running)
    return atWork("Working", "Your question appears here when its images are ready.");
  return state.profile ? between(state, canAsk) : newcomer(canAsk);
}

/** @param {string} key @param {...any} children */
const place = (key, ...children) =>
  h("section", { class: "palate-idle", "data-key": key }, ...children);

/** @param {import("../types.js").Progress} progress */
function learning({ done, total, stage }) {
  const title = stage ? stage[0].toUpperCase() + stage.slice(1) : "Learning";
  const share = total > 0 ? Math.min(1, done / total) : 0;
  const percent = Math.round(100 * share);
  return place(
    "learning",
    h("p", { class: "palate-lead", role: "status" }, title),
    h(
      "div",
      {
        class: "palate-progress",
        role: "progressbar",
        "aria-label": title,
        "aria-valuemin": 0,
        "aria-valuemax": 100,
        "aria-valuenow": percent,
      },
      h("div", { style: { transform: `scaleX(${share})` } }),
    ),
    h("p", { class: "palate-sub" }, total > 0 ? `${done} of ${total}` : ""),
  );
}

/** @param {string} lead @param {string} text */
const atWork = (lead, text) =>
  place(
    "work",
    h("p", { class: "palate-lead", role: "status" }, lead),
    h(
      "div",
      { class: "palate-progress is-unknown", role: "progressbar", "aria-label": text },
      h("div"),
    ),
    h("p", { class: "palate-sub" }, text),
  );

/** @param {import("../types.js").Query} sent */
const afterAnswer = ({ answer }) =>
  answer?.kind === "skip"
    ? atWork("Skipped", "Nothing is learnt from this question.")
    : atWork("Thank you", "The model learns from your answer next.");

/** @param {State} state @param {(path: string) => string} url */
function waiting(state, url) {
  const [oldest] = state.pending;
  return place(
    "waiting",
    h(
      "p",
      { class: "palate-lead" },
      `${plural(state.pending.length, "question is", "questions are")} waiting`,
    ),
    h(
      "button",
      {
        type: "button",
        class: "palate-preview",
        "data-do": "open",
        "data-value": oldest.id,
        "aria-label": "Open the oldest question",
        title: "Open the oldest question",
      },
      oldest.candidates.map((c) => h("img", { src: url(c.image_url), alt: "", loading: "lazy" })),
    ),
    h(
      "button",
      {
        type: "button",
        class: "palate-button is-primary",
        "data-do": "open",
        "data-value": oldest.id,
      },
      "Answer it",
    ),
  );
}

/** @param {State} state @param {boolean} canAsk */
function between(state, canAsk) {
  const { profile } = state;
  if (!profile) return newcomer(canAsk);
  const learnsWords = profile.learnt !== null && profile.revisions.length === 1;
  const unused = profile.waiting && !learnsWords
    ? `${plural(profile.waiting, "answer is", "answers are")} ready to be learnt from. `
    : "";
  const lead = unused
    ? "Saved"
    : profile.ratings
      ? "Ready for the next round"
      : "Ready for the first round";
  return place(
    "between",
    h("p", { class: "palate-lead", role: "status" }, lead),
    h(
      "p",
      { class: "palate-sub" },
      unused + (canAsk ? "Run the graph to get new images." : missingNode),
    ),
    h(
      "div",
      { class: "palate-controls" },
      canAsk && runButton("Next images"),
      undoButton(undoLabel(state), state.busy),
    ),
  );
}

const missingNode = "Open a graph with a Preference Query node to be asked again.";

/** @param {boolean} canAsk */
function newcomer(canAsk) {
  return place(
    "newcomer",
    h("p", { class: "palate-lead" }, "Teach the model your taste"),
    h(
      "ol",
      { class: "palate-steps" },
      step(
        canAsk ? "The open graph is ready." : "Open the Palate workflow.",
        canAsk
          ? "It has a Preference Query node."
          : "You find it among the templates, under Extensions.",
      ),
      step("Run it.", "It makes a few images and asks which you like."),
      step(
        "Click the best one here.",
        "The model learns from it, and asks again. A few rounds are enough to see a change.",
      ),
    ),
    canAsk && h("div", { class: "palate-controls" }, runButton("Run")),
  );
}

/** @param {string} title @param {string} text */
const step = (title, text) => h("li", {}, h("b", {}, title), " ", text);

/** @param {string} label */
const runButton = (label) =>
  h(
    "button",
    {
      type: "button",
      class: "palate-button is-primary",
      "data-do": "run",
      title: "Run the open graph",
    },
    icon(PLAY),
    h("span", {}, label),
  );
