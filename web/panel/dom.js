// @ts-check
/** Building elements and bringing a live tree into line with a new one, keeping focus and state. */

const SVG = "http://www.w3.org/2000/svg";

/** @typedef {Node | string | number | null | undefined | false} Child */

/**
 * An element. Attributes that are null, undefined or false are left out; `style` is an object of
 * CSS properties. Text goes in as text nodes only.
 * @param {string} tag
 * @param {Record<string, any>} [attributes]
 * @param {...(Child | Child[])} children
 * @returns {HTMLElement}
 */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  apply(element, attributes);
  element.append(...children.flat().filter(isShown).map(toNode));
  return element;
}

/**
 * A 24 × 24 icon drawn with one path.
 * @param {string} path @param {Record<string, any>} [attributes]
 */
export function icon(path, attributes = {}) {
  const svg = document.createElementNS(SVG, "svg");
  apply(svg, { viewBox: "0 0 24 24", "aria-hidden": "true", class: "palate-icon", ...attributes });
  const shape = document.createElementNS(SVG, "path");
  shape.setAttribute("d", path);
  svg.append(shape);
  return svg;
}

/** @param {Child} child */
const isShown = (child) => child !== null && child !== undefined && child !== false;

/** @param {any} child @returns {Node} */
const toNode = (child) => (child instanceof Node ? child : document.createTextNode(String(child)));

/** @param {Element} element @param {Record<string, any>} attributes */
function apply(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "style") {
      for (const [property, v] of Object.entries(value)) {
        /** @type {HTMLElement} */ (element).style.setProperty(property, String(v));
      }
    } else element.setAttribute(name, value === true ? "" : String(value));
  }
}

/**
 * Makes the children of `parent` look like `wanted`, reusing elements of the same tag and `data-key`
 * so that focus, scrolling and loaded images stay.
 * @param {Element} parent @param {Node[]} wanted
 */
export function morphChildren(parent, wanted) {
  const kept = new Set(wanted.map(keyOf));
  const keyed = new Map();
  for (const child of [...parent.children]) {
    const key = keyOf(child);
    if (key && kept.has(key)) keyed.set(key, child);
    else if (key) child.remove(); // first, so that what stays need not move: moving loses the focus
  }
  /** @type {ChildNode | null} */
  let cursor = parent.firstChild;
  for (const next of wanted) {
    const key = keyOf(next);
    const match = key ? keyed.get(key) : cursor;
    if (match && isSameKind(match, next)) {
      if (match === cursor) cursor = match.nextSibling;
      else parent.insertBefore(match, cursor);
      morph(match, next);
    } else parent.insertBefore(next, cursor);
  }
  while (cursor) {
    const rest = cursor.nextSibling;
    cursor.remove();
    cursor = rest;
  }
}

/** @param {Node} node */
const keyOf = (node) => (node instanceof Element ? node.getAttribute("data-key") : null);

/** @param {Node} a @param {Node} b */
function isSameKind(a, b) {
  if (a.nodeName !== b.nodeName) return false;
  if (!(a instanceof Element && b instanceof Element)) return true;
  return keyOf(a) === keyOf(b);
}

/** @param {Node} target @param {Node} source */
function morph(target, source) {
  if (!(target instanceof Element && source instanceof Element)) {
    if (target.nodeValue !== source.nodeValue) target.nodeValue = source.nodeValue;
    return;
  }
  for (const { name } of [...target.attributes]) {
    if (name !== "style" && !source.hasAttribute(name)) target.removeAttribute(name);
  }
  for (const { name, value } of source.attributes) {
    if (name !== "style" && target.getAttribute(name) !== value) target.setAttribute(name, value);
  }
  const [style, wanted] = [target, source].map((e) => /** @type {HTMLElement} */ (e).style);
  if (style.cssText !== wanted.cssText) style.cssText = wanted.cssText;
  morphChildren(target, [...source.childNodes]);
  if (target instanceof HTMLInputElement) {
    target.checked = source.hasAttribute("checked");
    const value = source.getAttribute("value") ?? "";
    if (target.type === "range" && target.value !== value) target.value = value;
  }
  if (target instanceof HTMLSelectElement) {
    target.value = /** @type {HTMLSelectElement} */ (source).value;
  }
}
