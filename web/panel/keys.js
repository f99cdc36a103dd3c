// @ts-check
/** What each key does while the panel has the focus. */

import { clickMeaning } from "./marks.js";

/** @typedef {import("./controller.js").Controller} Controller */

/**
 * Carries out a key; true when it meant something here. Keys held with Ctrl, Alt or Meta, and keys
 * typed into a field, are never taken.
 * @param {Controller} controller @param {KeyboardEvent} event @param {number} columns
 */
export function handleKey(controller, event, columns) {
  if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing) return false;
  const target = /** @type {HTMLElement} */ (event.target);
  if (target.closest("input, select, textarea, [contenteditable]")) return false;
  const { state } = controller;
  const name = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (event.repeat && !name.startsWith("Arrow")) return state.query !== null;
  if (name === "z") return done(controller.undo);
  if (state.folds?.history && name === ",") return done(() => controller.turnSeed(-1));
  if (state.folds?.history && name === ".") return done(() => controller.turnSeed(1));
  if (!state.query) return false;
  const here = state.query.candidates[state.focus];
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
  if (name in steps) {
    const step = steps[/** @type {keyof typeof steps} */ (name)];
    const position = state.focus + step;
    if (position >= 0 && position < state.query.candidates.length) controller.focus(position);
    return true;
  }
  if (/^[1-9]$/.test(name)) return pickNumber(controller, Number(name) - 1);
  if (name === "l") return done(() => controller.rate(here.index, 1));
  if (name === "d") return done(() => controller.rate(here.index, -1));
  if (name === "s") return done(controller.skip);
  if (name === "f") return done(controller.toggleZoom);
  if (name === "Escape" && state.zoom) return done(controller.toggleZoom);
  if (name === "Enter" && !isOtherButton(target)) return done(controller.submit);
  return false;
}

/** Enter on any button but an image presses that button. @param {HTMLElement} target */
const isOtherButton = (target) => target.closest("button:not(.palate-image), summary, a") !== null;

/** @param {Controller} controller @param {number} position */
function pickNumber({ state, pick, focus }, position) {
  const candidate = state.query?.candidates[position];
  if (!state.query || !candidate) return false;
  focus(position);
  if (clickMeaning(state.query, state.marks) !== "like") pick(candidate.index);
  return true;
}

/** @param {() => unknown} action */
function done(action) {
  action();
  return true;
}
