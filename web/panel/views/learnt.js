// @ts-check
/** What was learnt: the words that matter, with effect and uncertainty, and the last update. */

import { h } from "../dom.js";
import { bits, likelier, plural, questionsAhead, reportRows, signed } from "../words.js";

/** @typedef {import("../types.js").Profile} Profile */
/** @typedef {import("../types.js").Learnt} Learnt */
/** @typedef {import("../types.js").WordEffect} WordEffect */

/** @param {Profile} profile */
export function learnt(profile) {
  const active = profile.revisions.find((r) => r.revision === profile.active);
  const rows = reportRows(active?.report ?? {});
  const known = profile.learnt;
  if (!rows.length && !known) {
    return h(
      "p",
      { class: "palate-sub" },
      "Nothing yet. After your first answers, the last update is described here.",
    );
  }
  return h(
    "div",
    { class: "palate-learnt" },
    known && words(known),
    rows.length > 0 && update(rows, known !== null),
  );
}

/** @param {[string, string][]} rows @param {boolean} isSecond */
const update = (rows, isSecond) =>
  h(
    "div",
    { "data-key": "update" },
    isSecond && h("h3", {}, "Last update of the adapter"),
    h(
      "dl",
      { class: "palate-report" },
      rows.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))),
    ),
  );

/** @param {Learnt} known */
function words(known) {
  return h(
    "section",
    { class: "palate-words", "data-key": "words", "aria-label": "Words that matter" },
    h("p", { class: "palate-sub" }, summary(known)),
    known.words.length > 0 && [
      h(
        "div",
        { class: "palate-axis", "aria-hidden": "true" },
        h("span", {}, "less often"),
        h("span", {}, "more often"),
      ),
      h("ul", { class: "palate-bars" }, bars(known.words)),
    ],
  );
}

/** How far the answers have brought it, in a sentence or two. @param {Learnt} known */
function summary({ questions, information, advised }) {
  if (!questions) return "No question of ED Query Designer is answered yet.";
  const so = `${plural(questions, "question")} answered, ${bits(information)} learnt.`;
  if (advised === null) return so;
  if (!advised) return `${so} More would change little.`;
  const ahead = questionsAhead(advised);
  return `${so} ${ahead[0].toUpperCase()}${ahead.slice(1)} more are advised.`;
}

/** @param {WordEffect[]} effects best first */
function bars(effects) {
  const reach = Math.max(...effects.map(({ effect, std }) => Math.abs(effect) + std), 0.01);
  return effects.map((effect) => bar(effect, reach));
}

/** One word: its bar from the middle, and a whisker of one standard deviation to either side. */
function bar(/** @type {WordEffect} */ { slot, word, effect, std }, /** @type {number} */ reach) {
  const place = (/** @type {number} */ value) => 50 + (50 * value) / reach;
  const [from, to] = [place(Math.min(0, effect)), place(Math.max(0, effect))];
  const [low, high] = [place(effect - std), place(effect + std)];
  const isSure = Math.abs(effect) > std;
  const meaning = `${word} (${slot}): ${signed(effect)} ± ${std.toFixed(2)}, chosen ${likelier(effect)} an average ${slot}`;
  return h(
    "li",
    {
      "data-key": `${slot}/${word}`,
      class: `palate-bar ${effect < 0 ? "is-less" : "is-more"}${isSure ? "" : " is-unsure"}`,
      title: meaning,
    },
    h("span", { class: "palate-word" }, h("b", {}, word), " ", h("small", {}, slot)),
    h(
      "span",
      { class: "palate-track", "aria-hidden": "true" },
      h("i", { class: "palate-fill", style: { left: `${from}%`, width: `${to - from}%` } }),
      h("i", { class: "palate-whisker", style: { left: `${low}%`, width: `${high - low}%` } }),
    ),
    h(
      "span",
      { class: "palate-effect" },
      h("span", { "aria-hidden": "true" }, signed(effect)),
      h("span", { class: "palate-hidden" }, meaning),
    ),
  );
}
