// @ts-check
/** The history of a taste: how strongly it shows, two revisions side by side, and all of them. */

import { h } from "../dom.js";
import { compare } from "./compare.js";
import { strength } from "./strength.js";
import { timeline } from "./timeline.js";

/**
 * @param {import("../types.js").State} state @param {import("../types.js").Profile} profile
 * @param {(path: string) => string} url
 */
export const history = (state, profile, url) =>
  h(
    "div",
    { class: "palate-history" },
    strength(state.strength, profile.name),
    profile.revisions.length > 1 && compare(state, profile, url),
    timeline(state, profile, url),
  );
