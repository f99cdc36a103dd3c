// @ts-check
/** Puts the panel's parts together and listens to the server. */

import { createAnswering } from "./answering.js";
import { createHistory } from "./history.js";
import { createReading } from "./reading.js";
import { createRevisions } from "./revisions.js";
import { createStore } from "./store.js";

/** @typedef {ReturnType<typeof createController>} Controller */

/** @param {import("../host.js").Host} host */
export function createController(host) {
  const store = createStore();
  const { state, set, attempt, subscribe } = store;
  const reading = createReading(host, store);
  const answering = createAnswering(host, store, reading);
  const revisions = createRevisions(host, store, reading, answering);
  const history = createHistory(host, store, reading);

  async function refresh() {
    await reading.refresh();
    answering.closeIfAnsweredElsewhere();
  }

  // -- events from the server -----------------------------------------------------------------

  /** A run of this tab asks. @param {{query: string, node?: string | number}} event */
  async function onQuery({ query: id, node }) {
    set({ nodes: { ...state.nodes, [id]: String(node ?? "") }, own: [...state.own, id] });
    await refresh();
    if (!answering.isPending(id)) return; // a rater was quicker
    if (answering.givesWay()) await answering.open(id);
    else if (state.query?.id !== id) {
      return set({ note: { text: "Another question has arrived; it comes next." } });
    }
    host.reveal();
  }

  /** An update ends with its revision; other work ends by itself. @param {import("./types.js").Progress} progress */
  function onProgress(progress) {
    const isOver = progress.done >= progress.total && progress.stage !== "learning";
    set({ progress: isOver ? null : progress });
  }

  /** An update was kept, or taken back. @param {{profile: string, rolled_back?: string}} event */
  async function onRevision({ profile, rolled_back: reason }) {
    if (state.progress?.profile === profile) set({ progress: null });
    await refresh();
    if (reason) set({ note: { text: `Nothing changed: ${reason}. Your ratings are kept.` } });
  }

  /** The length of ComfyUI's queue changed. @param {number} remaining */
  async function onStatus(remaining) {
    const wasRunning = state.running;
    set({ running: remaining > 0 });
    if (remaining > 0) return;
    set({ progress: null });
    if (wasRunning) await refresh();
    await answering.askNext();
  }

  function onStopped() {
    answering.stopAsking();
    const isOurs = state.progress !== null || state.sent !== null;
    set({ progress: null, sent: null });
    if (isOurs) set({ note: { text: "The run stopped. Every answer you gave is kept." } });
  }

  /** @param {boolean} connected */
  function onConnection(connected) {
    set({ connected });
    if (connected) refresh();
  }

  async function start() {
    set({ keepAsking: host.setting("Palate.KeepAsking") !== false });
    host.on("palate.query", onQuery);
    host.on("palate.progress", onProgress);
    host.on("palate.revision", onRevision);
    host.onStatus(onStatus);
    host.onStopped(onStopped);
    host.onConnection(onConnection);
    host.onGraph(reading.readStrength);
    await refresh();
    await answering.reopen();
  }

  // -- small changes --------------------------------------------------------------------------

  /** The image that the keys act on. @param {number} position */
  function focus(position) {
    const count = state.query?.candidates.length ?? 0;
    const within = Math.max(0, Math.min(count - 1, position));
    if (within !== state.focus) set({ focus: within });
  }

  /** @param {string} name @param {boolean} isOpen */
  function fold(name, isOpen) {
    if (Boolean(state.folds[name]) === isOpen) return;
    set({ folds: { ...state.folds, [name]: isOpen } });
    if (isOpen && name === "history") {
      reading.readStrength();
      attempt(reading.readPast);
    }
    if (isOpen && name === "pending") refresh();
  }

  /** @param {string} name */
  function chooseProfile(name) {
    if (state.query && state.query.profile !== name) answering.show(null);
    history.forget();
    set({ profileName: name, note: null, sent: null });
    return refresh();
  }

  /** @param {boolean} on */
  function keepAsking(on) {
    host.setSetting("Palate.KeepAsking", on);
    set({ keepAsking: on });
  }

  const { open, pick, rate, submit, skip, run } = answering;
  return {
    state,
    subscribe,
    start,
    refresh,
    open,
    pick,
    rate,
    submit,
    skip,
    run,
    undo: revisions.undo,
    useRevision: revisions.use,
    compare: history.compare,
    look: history.look,
    turnSeed: history.turnSeed,
    showOlder: history.showOlder,
    setStrength: history.setStrength,
    keepStrength: history.keepStrength,
    focus,
    fold,
    chooseProfile,
    keepAsking,
    toggleZoom: () => set({ zoom: !state.zoom }),
    dismiss: () => set({ note: null, error: null }),
    /** @param {string} path */
    imageUrl: (path) => host.url(path),
  };
}
