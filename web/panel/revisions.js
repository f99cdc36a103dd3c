// @ts-check
/** Going back and forth between the revisions of a taste. Nothing is ever deleted. */

import { revisionName } from "./words.js";

/** A quick second Z still means the marks: it does not go back a revision by accident. */
const PAUSE = 700;

/**
 * @param {import("../host.js").Host} host @param {import("./store.js").Store} store
 * @param {import("./reading.js").Reading} reading @param {import("./answering.js").Answering} answering
 */
export function createRevisions(host, { state, set, attempt }, { refresh }, { unmark }) {
  let lastUnmark = 0;

  /** Takes the last mark back; with nothing marked, goes back to the revision before. */
  async function undo() {
    if (unmark()) {
      lastUnmark = Date.now();
      return;
    }
    const { profile } = state;
    if (!profile || state.busy || Date.now() - lastUnmark < PAUSE) return;
    if (state.progress) return say("The model is learning. Undo when it is done, or stop the run.");
    const active = profile.revisions.find((r) => r.revision === profile.active);
    if (!active || active.parent === null) {
      return say("This is the base model already: there is nothing to go back to.");
    }
    await use(active.parent);
  }

  /** @param {string} text */
  const say = (text) => set({ note: { text } });

  /** Makes a revision the active one. @param {number} revision */
  const use = (revision) =>
    attempt(async () => {
      const { profile, progress } = state;
      if (!profile || state.busy || revision === profile.active) return;
      if (progress?.profile === profile.name && progress.stage === "learning") {
        return say("The model is learning. Go back when it is done, or stop the run.");
      }
      const from = profile.active;
      set({ busy: true, error: null });
      try {
        const path = `/palate/profiles/${encodeURIComponent(profile.name)}/revision`;
        await host.post(path, { revision });
      } finally {
        set({ busy: false });
      }
      await refresh();
      const label = `Return to ${revisionName(from)}`;
      set({
        note: {
          text: `“${profile.name}” now uses ${revisionName(revision)}. Nothing was deleted.`,
          button: { label, action: "revision", value: String(from) },
        },
      });
    });

  return { undo, use };
}
