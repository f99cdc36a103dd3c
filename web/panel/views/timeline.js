// @ts-check
/** Every revision, newest first: what it draws, what it learnt from, and where it branched off. */

import { isBranch, lineage, rails } from "../branches.js";
import { comparedPair, isDrawn, seedCount } from "../comparing.js";
import { h } from "../dom.js";
import { ago, plural, revisionName, shortValue, titleOf, updateLine } from "../words.js";
import { thumbs } from "./thumbs.js";

/** @typedef {import("../types.js").State} State */
/** @typedef {import("../types.js").Profile} Profile */
/** @typedef {import("../types.js").Revision} Revision */
/** @typedef {import("../branches.js").Rail} Rail */

const LANES = 4; // further ones are told in words only
const PICKS = 8;

/** @param {State} state @param {Profile} profile @param {(path: string) => string} url */
export function timeline(state, profile, url) {
  const newestFirst = [...profile.revisions].reverse();
  const lit = lineage(profile.revisions, profile.active);
  const beside = rails(newestFirst, lit);
  const rows = newestFirst.slice(0, state.older);
  const lanes = Math.min(LANES, 1 + Math.max(...beside.slice(0, rows.length).map((r) => r.lane)));
  const pair = isDrawn(profile) ? comparedPair(profile, state.pair) : null;
  const count = pair ? seedCount(profile, pair) : 0;
  const left = newestFirst.length - rows.length;
  return h(
    "section",
    { "data-key": "timeline", "aria-label": "Timeline" },
    h("h3", {}, "Timeline"),
    h(
      "ol",
      { class: "palate-list palate-timeline", style: { "--palate-lanes": lanes } },
      rows.map((revision, i) =>
        row({
          state,
          profile,
          revision,
          rail: beside[i],
          isLit: lit.has(revision.revision),
          pair,
          seed: count ? state.seed % count : 0,
          url,
        }),
      ),
      left > 0 &&
        h(
          "li",
          { "data-key": "older", class: "palate-older" },
          h(
            "button",
            {
              type: "button",
              class: "palate-link",
              "data-do": "older",
              title: "Show revisions from longer ago",
            },
            `Show older (${left})`,
          ),
        ),
    ),
  );
}

/**
 * @param {{state: State, profile: Profile, revision: Revision, rail: Rail, isLit: boolean,
 *   pair: {a: number, b: number} | null, seed: number, url: (path: string) => string}} view
 */
function row({ state, profile, revision, rail, isLit, pair, seed, url }) {
  const number = revision.revision;
  const isActive = number === profile.active;
  const classes = ["palate-revision"];
  if (isActive) classes.push("is-active");
  if (!isLit) classes.push("is-aside");
  return h(
    "li",
    {
      "data-key": `revision-${number}`,
      class: classes.join(" "),
      "aria-current": isActive && "true",
    },
    railBeside(rail),
    looks(revision, seed, url),
    h(
      "div",
      { class: "palate-told" },
      h(
        "div",
        { class: "palate-row" },
        h("b", {}, titleOf(number)),
        pair &&
          h(
            "span",
            { class: "palate-sides" },
            sideButton("a", number, pair.a),
            sideButton("b", number, pair.b),
          ),
      ),
      h("p", { class: "palate-sub", title: details(revision) }, told(revision)),
      h(
        "div",
        { class: "palate-row" },
        picked(state, number, url),
        h(
          "button",
          {
            type: "button",
            class: "palate-link",
            "data-do": "revision",
            "data-value": number,
            "aria-disabled": (isActive || state.busy) && "true",
            "aria-label": isActive ? `${titleOf(number)} is in use` : `Use ${revisionName(number)}`,
            title: isActive
              ? "In use: the next image is drawn with it"
              : `Go back to ${revisionName(number)}; nothing is deleted`,
          },
          isActive ? "In use" : "Use this",
        ),
      ),
    ),
  );
}

/** What made a revision, where it branched off, and when. @param {Revision} revision */
function told(revision) {
  if (revision.revision === 0) return "before any learning";
  const { samples, drift } = revision.report;
  const parts = [
    isBranch(revision) && `branched off ${revisionName(revision.parent ?? 0)}`,
    typeof samples === "number" && plural(samples, "image"),
    typeof drift === "number" && `drift ${shortValue(drift)}`,
    ago(revision.created),
  ].filter(Boolean);
  const last = parts.length - 1;
  return parts.flatMap((part, i) => [h("span", {}, part, i < last && " ·"), " "]);
}

/** All that its update told, and when it was. @param {Revision} revision */
const details = ({ created, report }) =>
  [updateLine(report), new Date(created * 1000).toLocaleString()].filter(Boolean).join(" · ");

/** One preview at the seed that is compared; all of them where there is room. @param {Revision} revision @param {number} seed @param {(path: string) => string} url */
function looks({ revision, previews, thumbnail }, seed, url) {
  const name = titleOf(revision);
  const shown = seed < previews.length ? seed : 0;
  return h(
    "div",
    { class: "palate-looks" },
    previews.map((path, i) =>
      // a click does what the button A does for the keyboard
      small(url(path), `${name} at seed ${i + 1}`, {
        class: i === shown ? "is-shown" : null,
        "data-do": "look",
        "data-value": `${revision}/${i}`,
      }),
    ),
    !previews.length && (thumbnail ? standIn(url(thumbnail), name) : blank()),
  );
}

/** @param {string} src @param {string} name */
const standIn = (src, name) =>
  small(src, `${name}: the image liked best of those it learnt from`, { class: "is-shown" });

const blank = () => h("span", { class: "palate-blank" });

/** @param {string} src @param {string} alt @param {Record<string, any>} attributes */
const small = (src, alt, attributes) =>
  h("img", { src, alt, title: alt, loading: "lazy", decoding: "async", ...attributes });

/** The questions that a revision learnt from. @param {State} state @param {number} number @param {(path: string) => string} url */
function picked({ past }, number, url) {
  const images = past
    .filter((query) => query.used_by === number)
    .flatMap((query) => thumbs(query, url));
  if (!images.length) return null;
  const more = images.length - PICKS;
  return h(
    "div",
    { class: "palate-thumbs", role: "group", "aria-label": "Learnt from" },
    images.slice(0, PICKS),
    more > 0 && h("span", { class: "palate-when" }, `+${more}`),
  );
}

/** @param {"a" | "b"} side @param {number} number @param {number} shown */
function sideButton(side, number, shown) {
  const letter = side.toUpperCase();
  return h(
    "button",
    {
      type: "button",
      class: "palate-choose",
      "data-do": `compare-${side}`,
      "data-value": number,
      "aria-pressed": String(number === shown),
      "aria-label": `Compare: ${revisionName(number)} as ${letter}`,
      title: `Compare: show ${revisionName(number)} as ${letter}`,
    },
    letter,
  );
}

/** @param {Rail} rail */
function railBeside({ lane, above, below, passing, joining }) {
  const line = (/** @type {string} */ kind, /** @type {import("../branches.js").Line} */ at) =>
    at.lane < LANES &&
    h("i", {
      class: `is-${kind}${at.isLit ? " is-lit" : ""}`,
      style: { "--at": at.lane, "--to": lane },
    });
  return h(
    "span",
    { class: "palate-rail", "aria-hidden": "true" },
    passing.map((at) => line("passing", at)),
    joining.map((at) => line("joining", at)),
    above && line("above", above),
    below && line("below", below),
    h("i", { class: "is-dot", style: { "--at": Math.min(lane, LANES - 1) } }),
  );
}
