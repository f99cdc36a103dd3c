// @ts-check
/** Two revisions side by side, at the same prompt and seed. */

import { comparedPair, isDrawn, seedCount } from "../comparing.js";
import { h, icon } from "../dom.js";
import { NEXT, PREVIOUS } from "../icons.js";
import { revisionName, titleOf } from "../words.js";

/** @typedef {import("../types.js").State} State */
/** @typedef {import("../types.js").Profile} Profile */
/** @typedef {import("../types.js").Revision} Revision */

/** @param {State} state @param {Profile} profile @param {(path: string) => string} url */
export function compare(state, profile, url) {
  const pair = comparedPair(profile, state.pair);
  if (!isDrawn(profile)) {
    const nothing = h("p", { class: "palate-empty" }, `Nothing is drawn yet. ${HOW}`);
    return section(h("h3", {}, "Compare"), nothing);
  }
  const count = seedCount(profile, pair);
  const seed = count ? state.seed % count : 0;
  return section(
    h("div", { class: "palate-row" }, h("h3", {}, "Compare"), count > 1 && seeds(seed, count)),
    h(
      "div",
      { class: "palate-pair" },
      side({ name: "a", number: pair.a, state, profile, seed, url }),
      side({ name: "b", number: pair.b, state, profile, seed, url }),
    ),
  );
}

/** @param {...Node} children */
const section = (...children) =>
  h(
    "section",
    { class: "palate-compare", "data-key": "compare", "aria-label": "Compare two revisions" },
    ...children,
  );

const HOW = "Connect a VAE to PAPA Update to have previews drawn.";

/** @param {number} seed @param {number} count */
const seeds = (seed, count) =>
  h(
    "span",
    { class: "palate-seeds", role: "group", "aria-label": "Seed" },
    turn(-1, "Previous seed (,)", PREVIOUS),
    h("span", { "aria-live": "polite" }, `Seed ${seed + 1} of ${count}`),
    turn(1, "Next seed (.)", NEXT),
  );

/** @param {number} step @param {string} title @param {string} path */
const turn = (step, title, path) =>
  h(
    "button",
    {
      type: "button",
      class: "palate-turn",
      "data-do": "seed",
      "data-value": step,
      "aria-label": title.slice(0, -4),
      "aria-keyshortcuts": step < 0 ? "," : ".",
      title,
    },
    icon(path),
  );

/**
 * @param {{name: "a" | "b", number: number, state: State, profile: Profile, seed: number,
 *   url: (path: string) => string}} view
 */
function side({ name, number, state, profile, seed, url }) {
  const revision = profile.revisions.find((r) => r.revision === number);
  const letter = name.toUpperCase();
  const inUse = number === profile.active;
  return h(
    "figure",
    { class: inUse ? "palate-side is-active" : "palate-side", "data-key": `side-${name}` },
    picture(revision, seed, letter, url),
    h(
      "figcaption",
      {},
      h("b", { "aria-hidden": "true" }, letter),
      h(
        "select",
        {
          "data-change": `compare-${name}`,
          "aria-label": `Revision to show as ${letter}`,
          title: `Revision to show as ${letter}`,
        },
        [...profile.revisions].reverse().map((r) =>
          h(
            "option",
            { value: r.revision, selected: r.revision === number },
            titleOf(r.revision),
          ),
        ),
      ),
      h(
        "button",
        {
          type: "button",
          class: "palate-button",
          "data-do": "revision",
          "data-value": number,
          "aria-disabled": (inUse || state.busy) && "true",
          title: inUse
            ? `${titleOf(number)} is in use`
            : `Use ${revisionName(number)} from now on; nothing is deleted`,
        },
        inUse ? "In use" : `Use ${letter}`,
      ),
    ),
  );
}

/** @param {Revision | undefined} revision @param {number} seed @param {string} letter @param {(path: string) => string} url */
function picture(revision, seed, letter, url) {
  const path = revision?.previews[seed];
  if (revision && path) {
    const alt = `${letter}: ${titleOf(revision.revision)} at seed ${seed + 1}`;
    return h("img", { src: url(path), alt, title: alt, decoding: "async", draggable: "false" });
  }
  const missing = revision?.previews.length ? "No preview at this seed." : `No previews. ${HOW}`;
  return h("p", { class: "palate-empty" }, missing);
}
