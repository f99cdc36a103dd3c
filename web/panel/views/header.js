// @ts-check
/** Whose taste this is and how far it has come. */

import { h } from "../dom.js";
import { questionsAhead, revisionName, updateLine } from "../words.js";

/** @typedef {import("../types.js").State} State */

/** @param {State} state */
export function header(state) {
  const { profile } = state;
  if (!profile) return h("header", { class: "palate-header" }, h("h2", {}, "Palate"));
  const active = profile.revisions.find((r) => r.revision === profile.active);
  const last = active && updateLine(active.report ?? {});
  return h(
    "header",
    { class: "palate-header" },
    profileName(state),
    h(
      "p",
      { class: "palate-facts" },
      profile.active === 0
        ? h("span", { title: "The model as it was loaded, before any learning" }, "base model")
        : h(
            "span",
            { title: "The revision of the adapter in use" },
            "revision ",
            h("b", {}, profile.active),
          ),
      fact(profile.ratings, "rating"),
      fact(profile.rounds, "round"),
      labelsLeft(profile.budget),
      advice(profile.learnt),
    ),
    last &&
      h("p", { class: "palate-last", title: "What the last update did" }, `Last update: ${last}`),
    state.connected
      ? null
      : h("p", { class: "palate-offline" }, "Connection lost. Waiting for ComfyUI…"),
  );
}

/** @param {State} state */
function profileName(state) {
  const name = state.profileName ?? "";
  if (state.profiles.length < 2) return h("h2", { title: name }, name);
  const options = state.profiles.map((p) =>
    h(
      "option",
      { value: p.name, selected: p.name === name, disabled: p.ratings === null, title: p.error },
      p.busy ? `${p.name} (in use elsewhere)` : p.error ? `${p.name} (cannot be opened)` : p.name,
    ),
  );
  return h(
    "select",
    {
      class: "palate-profile",
      "data-change": "profile",
      "aria-label": "Taste profile",
      title: "Taste profile",
    },
    options,
  );
}

/** @param {number} count @param {string} noun */
const fact = (count, noun) =>
  h("span", {}, h("b", {}, count), ` ${count === 1 ? noun : `${noun}s`}`);

/** @param {import("../types.js").Budget | null} budget */
function labelsLeft(budget) {
  if (!budget) return null;
  const title = `Of the ${budget.total} ratings that FKC Particles was given as a budget`;
  if (!budget.left) return h("span", { title }, "budget spent");
  return h("span", { title }, h("b", {}, budget.left), " left of the budget");
}

/** @param {import("../types.js").Learnt | null} learnt */
function advice(learnt) {
  if (!learnt || learnt.advised === null) return null;
  const title = "What ED Query Designer expects to gain by asking on";
  if (!learnt.advised) return h("span", { title }, "enough is known");
  return h("span", { title }, `${questionsAhead(learnt.advised)} more advised`);
}

/** What was done, or went wrong, with a way on. @param {State} state */
export function notices(state) {
  const { note, error } = state;
  return h(
    "div",
    { class: "palate-notices" },
    h(
      "div",
      { role: "status", "aria-live": "polite", "data-key": "status" },
      note &&
        h(
          "div",
          { class: "palate-note" },
          h("span", {}, note.text),
          note.button && button(note.button.label, note.button.action, note.button.value),
          closeButton(),
        ),
    ),
    h(
      "div",
      { role: "alert", "data-key": "alert" },
      error &&
        h(
          "div",
          { class: "palate-note is-error" },
          h("span", {}, error),
          button("Try again", "retry", ""),
          closeButton(),
        ),
    ),
  );
}

/** @param {string} label @param {string} action @param {string} value */
const button = (label, action, value) =>
  h(
    "button",
    { type: "button", class: "palate-link", "data-do": action, "data-value": value },
    label,
  );

const closeButton = () =>
  h(
    "button",
    {
      type: "button",
      class: "palate-close",
      "data-do": "dismiss",
      "aria-label": "Close this note",
      title: "Close",
    },
    "×",
  );

/** The undo button: says what Z would do now. @param {State} state */
export function undoLabel(state) {
  if (state.undo.length) return { text: "Undo", title: "Take the last mark back (Z)", can: true };
  const { profile } = state;
  const parent = profile?.revisions.find((r) => r.revision === profile.active)?.parent ?? null;
  if (parent === null || state.progress) {
    return { text: "Undo", title: "Nothing to undo yet (Z)", can: false };
  }
  return {
    text: parent === 0 ? "Back to base" : `Back to ${parent}`,
    title: `Go back to ${revisionName(parent)}; ratings are kept, nothing is deleted (Z)`,
    can: true,
  };
}
