// @ts-check
/** Numbers and times as a person reads them. */

/** @param {number} count @param {string} one @param {string} [many] */
export const plural = (count, one, many = `${one}s`) => `${count} ${count === 1 ? one : many}`;

/** @param {number} unix seconds */
export function ago(unix) {
  const seconds = Math.max(0, Date.now() / 1000 - unix);
  if (seconds < 60) return "just now";
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return new Date(unix * 1000).toLocaleDateString();
}

/** @param {number} revision */
export const revisionName = (revision) => (revision === 0 ? "the base" : `revision ${revision}`);

/** The same at the start of a line. @param {number} revision */
export const titleOf = (revision) => (revision === 0 ? "Base" : `Revision ${revision}`);

/** @param {any} value @returns {string} */
export function shortValue(value) {
  if (typeof value === "number") {
    if (Number.isInteger(value)) return String(value);
    return Math.abs(value) >= 0.001 ? String(Number(value.toPrecision(3))) : value.toExponential(1);
  }
  if (Array.isArray(value)) return value.map(shortValue).join(", ");
  if (value && typeof value === "object") {
    return Object.entries(value)
      .map(([k, v]) => `${k} ${shortValue(v)}`)
      .join(", ");
  }
  return String(value);
}

/** The loss of an update, before and after where both are told. @param {Record<string, any>} report */
function lossOf({ loss, loss_first: first, loss_last: last }) {
  if (typeof first === "number" && typeof last === "number") {
    return `${shortValue(first)} → ${shortValue(last)}`;
  }
  return typeof loss === "number" ? shortValue(loss) : "";
}

/** One line on what an update did. @param {Record<string, any>} report */
export function updateLine(report) {
  const parts = [];
  if (typeof report.samples === "number") parts.push(plural(report.samples, "image"));
  if (typeof report.steps === "number") parts.push(plural(report.steps, "step"));
  if (typeof report.seconds === "number") parts.push(`${shortValue(report.seconds)} s`);
  const loss = lossOf(report);
  if (loss) parts.push(`loss ${loss}`);
  return parts.join(" · ");
}

const MANY = 128;

/** A number of questions as far as the server looks ahead. @param {number} count */
export const questionsAhead = (count) => (count >= MANY ? `over ${MANY}` : `about ${count}`);

/** "+0.83" or "−1.20". @param {number} value */
export const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}`;

/** @param {number} value */
export const bits = (value) => `${value.toFixed(1)} bits`;

/** What an effect in nats means for a choice. @param {number} effect */
export function likelier(effect) {
  const factor = Math.exp(Math.abs(effect)).toFixed(1);
  return `${factor} times ${effect < 0 ? "less" : "more"} often than`;
}

/** @type {Record<string, string>} */
const NAMES = {
  samples: "Images learnt from",
  drift: "Drift from the base",
  seconds: "Seconds",
  rolled_back: "Not kept because",
};

/** An update in full, as names and values. @param {Record<string, any>} report @returns {[string, string][]} */
export function reportRows(report) {
  const { loss, loss_first, loss_last, ...rest } = report;
  const rows = Object.entries(rest)
    .filter(([, value]) => value !== null && value !== false)
    .map(
      ([name, value]) =>
        /** @type {[string, string]} */ ([NAMES[name] ?? inWords(name), shortValue(value)]),
    );
  const change = lossOf(report);
  return change ? [...rows, ["Loss", change]] : rows;
}

/** "gradient_norm" as "Gradient norm". @param {string} name */
function inWords(name) {
  const words = name.replaceAll("_", " ");
  return words[0].toUpperCase() + words.slice(1);
}
