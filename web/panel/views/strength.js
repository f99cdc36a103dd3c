// @ts-check
/** How strongly the taste shows: the strength of its Taste Profile node in the open graph. */

import { h } from "../dom.js";

/** @typedef {import("../types.js").Strength} Strength */

/** @param {Strength} strength @param {string} profile */
export function strength(strength, profile) {
  const { values } = strength;
  const value = values[0] ?? 1;
  const isSet = values.length > 0;
  return h(
    "div",
    { class: "palate-strength", "data-key": "strength" },
    h(
      "label",
      {
        class: isSet ? null : "is-off",
        title:
          "How strongly the taste shows: 0 is the model without it, 1 is as learnt (arrow keys). " +
          "It is kept in the graph's Taste Profile node.",
      },
      h("span", {}, "Strength"),
      h("input", {
        type: "range",
        min: 0,
        max: 2,
        step: 0.05,
        value,
        disabled: !isSet,
        "data-change": "strength",
        "aria-describedby": "palate-strength-says",
      }),
      h("output", {}, isSet ? value.toFixed(2) : "–"),
    ),
    h("p", { class: "palate-sub", id: "palate-strength-says" }, says(strength, profile)),
  );
}

/** Where the value comes from, or why it cannot be set here. @param {Strength} strength @param {string} profile */
function says({ values, wired }, profile) {
  if (values.length) {
    const differ = new Set(values).size > 1;
    const all = values.map((value) => value.toFixed(2)).join(" and ");
    return differ
      ? `The open graph has ${all} for this taste; the slider sets them all.`
      : "Takes effect at the next run.";
  }
  if (wired) return "It comes over a wire into Taste Profile: change it where it comes from.";
  return `The open graph has no Taste Profile node for “${profile}” to set it in.`;
}
