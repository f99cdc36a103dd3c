// @ts-check
/** Looking through the revisions: older ones, two side by side, and how strongly the taste shows. */

import { comparedPair, noPair, seedCount, withSide } from "./comparing.js";
import { ROWS } from "./store.js";

/**
 * @param {import("../host.js").Host} host @param {import("./store.js").Store} store
 * @param {import("./reading.js").Reading} reading
 */
export function createHistory(host, { state, set }, { readStrength }) {
  /** Puts a revision on one side of the comparison. @param {"a" | "b"} side @param {number} revision */
  function compare(side, revision) {
    const { profile, pair } = state;
    if (profile) set({ pair: withSide(comparedPair(profile, pair), side, revision) });
  }

  /** Compares a revision, as A, at one of the seeds. @param {number} revision @param {number} seed */
  function look(revision, seed) {
    compare("a", revision);
    set({ seed });
  }

  /** Goes to another of the seeds, round and round. @param {number} step */
  function turnSeed(step) {
    const { profile, pair, seed } = state;
    const count = profile ? seedCount(profile, comparedPair(profile, pair)) : 0;
    if (count) set({ seed: ((seed % count) + step + count) % count });
  }

  /** Sets how strongly the taste shows in the next run. @param {number} strength */
  function setStrength(strength) {
    if (state.profileName === null) return;
    host.setStrength(state.profileName, strength);
    readStrength();
  }

  return {
    compare,
    look,
    turnSeed,
    setStrength,
    keepStrength: host.noteChange,
    showOlder: () => set({ older: state.older + ROWS }),
    /** Another taste has other revisions. */
    forget: () => set({ past: [], pastOf: "", older: ROWS, pair: noPair() }),
  };
}
