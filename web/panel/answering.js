// @ts-check
/** Opening a question, marking images, sending the answer, and going on to the next question. */

import * as marking from "./marks.js";
import { reason } from "./store.js";

/** @typedef {import("./types.js").Query} Query */
/** @typedef {ReturnType<typeof createAnswering>} Answering */

const GRACE = 1600;
const REMEMBER = "palate.open";

/**
 * @param {import("../host.js").Host} host @param {import("./store.js").Store} store
 * @param {import("./reading.js").Reading} reading
 */
export function createAnswering(host, { state, set, attempt }, { refresh, readProfile }) {
  let wantsNext = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let grace;

  /** Puts a question on the panel, or none. @param {Query | null} query */
  function show(query) {
    cancelGrace();
    host.remember(REMEMBER, query?.id ?? null);
    set({ query, marks: marking.noMarks(), undo: [], focus: 0, zoom: false });
  }

  /** Opens a pending question. @param {string} id */
  const open = (id) =>
    attempt(async () => {
      const query = await host.get(`/palate/queries/${encodeURIComponent(id)}`);
      if (query.state !== "pending") {
        set({ note: { text: "This question has been answered already." } });
        return refresh();
      }
      show(query);
      set({ note: null, error: null, sent: null, progress: null, profileName: query.profile });
      if (!state.pending.some((other) => other.id === id)) {
        set({ pending: [...state.pending, query] });
      }
      await readProfile(query.profile);
    });

  /** Opens again what was open before the page was reloaded. */
  async function reopen() {
    const id = host.recall(REMEMBER);
    if (!state.query && id && isPending(id)) await open(id);
  }

  /** @param {string} id */
  const isPending = (id) => state.pending.some((query) => query.id === id);

  /** The oldest question that was queued in this tab and still waits. */
  const nextOwn = () => state.pending.find((query) => state.own.includes(query.id));

  /** Takes the question away if it is no longer pending: answered in another tab, or on a phone. */
  function closeIfAnsweredElsewhere() {
    if (!state.query || state.busy || isPending(state.query.id)) return;
    wantsNext ||= state.own.includes(state.query.id);
    show(null);
    set({ note: { text: "This question was answered somewhere else." } });
  }

  // -- marks ----------------------------------------------------------------------------------

  /** Marks an image as a click on it does. @param {number} index */
  function pick(index) {
    const { query, marks } = state;
    if (!query || state.busy) return;
    const meaning = marking.clickMeaning(query, marks);
    if (meaning === "like") return rate(index, 1);
    if (meaning === "rank") return mark(marking.toggleRank(marks, index));
    mark(marking.toggleBest(marks, index));
    if (state.marks.best !== null) startGrace();
  }

  /** Likes (1) or dislikes (−1) an image. @param {number} index @param {number} value */
  function rate(index, value) {
    const { query } = state;
    if (!query || state.busy || !marking.takes(query, "rate")) return;
    mark(marking.toggleRating(state.marks, index, value));
  }

  /** @param {import("./types.js").Marks} marks */
  function mark(marks) {
    cancelGrace();
    set({ undo: [...state.undo, state.marks], marks, note: null, error: null });
  }

  /** Takes the last mark back; false when there is none. */
  function unmark() {
    const previous = state.undo.at(-1);
    if (!previous || state.busy) return false;
    cancelGrace();
    set({ marks: previous, undo: state.undo.slice(0, -1) });
    return true;
  }

  /** A picked best is sent after a moment in which Z or any other mark takes it back. */
  function startGrace() {
    const when = host.setting("Palate.SendBest");
    if (when === "enter") return;
    if (when === "now") return void submit();
    set({ sendsIn: GRACE });
    grace = setTimeout(submit, GRACE);
  }

  function cancelGrace() {
    clearTimeout(grace);
    if (state.sendsIn) set({ sendsIn: 0 });
  }

  // -- sending --------------------------------------------------------------------------------

  function submit() {
    const { query, marks } = state;
    if (!query) return;
    const answer = marking.answerOf(query, marks);
    if (answer) return send(query, answer);
    set({ note: { text: `Nothing to send yet. ${marking.hint(query, marks)}` } });
  }

  function skip() {
    const { query } = state;
    if (query && marking.takes(query, "skip")) return send(query, { kind: "skip" });
  }

  /** @param {Query} query @param {Record<string, any>} answer */
  async function send(query, answer) {
    if (state.busy) return;
    cancelGrace();
    set({ busy: true, error: null, note: null });
    try {
      const path = `/palate/queries/${encodeURIComponent(query.id)}/answer`;
      const answered = await host.post(path, answer);
      wantsNext ||= state.own.includes(query.id);
      show(null);
      set({ sent: answered, pending: state.pending.filter((other) => other.id !== query.id) });
    } catch (error) {
      set({ busy: false });
      await refresh();
      closeIfAnsweredElsewhere();
      return set({ note: null, error: reason(error) });
    }
    set({ busy: false });
    const next = nextOwn();
    if (next) await open(next.id);
    await refresh();
    await askNext();
  }

  // -- the next question ----------------------------------------------------------------------

  /** Runs the graph again once an answer from this tab is dealt with, if the artist wants that. */
  async function askNext() {
    if (!wantsNext || state.running || state.query || nextOwn()) return;
    wantsNext = false;
    if (state.keepAsking && host.canAsk()) await run();
  }

  async function run() {
    set({ sent: null, note: null, running: true });
    await attempt(() => host.run());
  }

  /** After a run that failed or was stopped, nothing runs by itself; its question may still be answered. */
  function stopAsking() {
    wantsNext = false;
    set({ own: [] });
  }

  /** Images must not change under the cursor: the open question gives way only if it is an old one. */
  const givesWay = () =>
    !state.query || (!state.own.includes(state.query.id) && marking.isEmpty(state.marks));

  return {
    open,
    reopen,
    nextOwn,
    isPending,
    closeIfAnsweredElsewhere,
    show,
    pick,
    rate,
    unmark,
    submit,
    skip,
    run,
    askNext,
    stopAsking,
    givesWay,
  };
}
