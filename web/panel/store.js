// @ts-check
/** The panel's one state object. Views read it; only `set` changes it. */

import { noPair } from "./comparing.js";
import { noMarks } from "./marks.js";

/** @typedef {import("./types.js").State} State */
/** @typedef {ReturnType<typeof createStore>} Store */

/** Rows of the timeline that are shown, and those that "older" adds. */
export const ROWS = 30;

/** @returns {State} */
const initialState = () => ({
  loaded: false,
  connected: true,
  running: false,
  profiles: [],
  profileName: null,
  profile: null,
  pending: [],
  query: null,
  nodes: {},
  own: [],
  marks: noMarks(),
  undo: [],
  focus: 0,
  zoom: false,
  sendsIn: 0,
  busy: false,
  sent: null,
  progress: null,
  note: null,
  error: null,
  folds: {},
  past: [],
  pastOf: "",
  older: ROWS,
  pair: noPair(),
  seed: 0,
  strength: { values: [], wired: 0 },
  keepAsking: true,
});

export function createStore() {
  const state = initialState();
  /** @type {Set<() => void>} */
  const listeners = new Set();
  let isScheduled = false;

  /** Changes the state; listeners hear of it once all changes of this moment are made. @param {Partial<State>} change */
  function set(change) {
    Object.assign(state, change);
    if (isScheduled) return;
    isScheduled = true;
    queueMicrotask(() => {
      isScheduled = false;
      for (const listener of listeners) listener();
    });
  }

  /** Runs `work`; what fails is shown inline with the server's reason. @param {() => Promise<void>} work */
  async function attempt(work) {
    try {
      await work();
    } catch (error) {
      set({ error: reason(error) });
    }
  }

  /** Calls `listener` after each change; returns how to stop. @param {() => void} listener */
  function subscribe(listener) {
    listeners.add(listener);
    return () => void listeners.delete(listener);
  }

  return { state, set, attempt, subscribe };
}

/** @param {unknown} error */
export const reason = (error) => (error instanceof Error ? error.message : String(error));
