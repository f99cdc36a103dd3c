// @ts-check
/** Draws the panel into an element and passes on what the person does there. */

import { h, morphChildren } from "./dom.js";
import { handleKey } from "./keys.js";
import { largestGrid } from "./layout.js";
import { folds } from "./views/folds.js";
import { header, notices } from "./views/header.js";
import { idle } from "./views/idle.js";
import { question } from "./views/question.js";

/** @typedef {import("./controller.js").Controller} Controller */

/**
 * @typedef {object} Options
 * @property {() => string} [nodeId] set for the view inside a node: it shows its own questions only
 * @property {() => boolean} canAsk the open graph can ask a person
 * @property {() => boolean} [fillsHeight] the element has a height of its own
 */

/**
 * @param {HTMLElement} container @param {Controller} controller @param {Options} options
 * @returns {() => void} takes the panel out again
 */
export function mount(container, controller, options) {
  const root = h("div", { class: "palate", tabindex: -1, role: "region", "aria-label": "Palate" });
  if (options.nodeId) root.classList.add("is-node");
  container.append(root);
  let columns = 1;
  let aspect = 1;
  let movesFocus = false;

  function render() {
    const hadFocus = root.contains(document.activeElement);
    morphChildren(root, view(controller, options));
    fit();
    if (hadFocus) keepFocus();
  }

  /** The keys go on working when what had the focus is gone; the arrows move the focus itself. */
  function keepFocus() {
    const isLost = !root.contains(document.activeElement) || document.activeElement === root;
    if (!isLost && !movesFocus) return;
    const image = /** @type {HTMLElement | null} */ (root.querySelector(".is-here .palate-image"));
    (image ?? root).focus({ preventScroll: !movesFocus });
    movesFocus = false;
  }

  /** Gives the images the space that everything else leaves, with a glimpse of what is below. */
  function fit() {
    const grid = part(".palate-grid");
    const question = part(".palate-question");
    if (!grid || !question || !root.clientWidth) return;
    const { count, extra } = grid.dataset;
    const width = grid.clientWidth;
    const around = question.offsetTop + question.offsetHeight - grid.offsetHeight;
    const below = options.nodeId ? 8 : 48;
    const isBound = options.fillsHeight?.() ?? true;
    const height = isBound ? root.clientHeight - around - below : width * 1.25;
    const best = largestGrid({ width, height, count: Number(count), aspect, extra: Number(extra) });
    columns = best.columns;
    grid.style.setProperty("--palate-columns", String(best.columns));
    grid.style.setProperty("--palate-size", `${best.size}px`);
  }

  /** @param {string} selector @returns {HTMLElement | null} */
  const part = (selector) => root.querySelector(selector);

  /** @param {HTMLElement} element */
  function act(element) {
    const { do: action, value = "" } = element.dataset;
    const number = Number(value);
    switch (action) {
      case "pick":
        return controller.pick(number);
      case "like":
        return controller.rate(number, 1);
      case "dislike":
        return controller.rate(number, -1);
      case "zoom":
        return controller.toggleZoom();
      case "submit":
        return controller.submit();
      case "skip":
        return controller.skip();
      case "undo":
        return controller.undo();
      case "open":
        return controller.open(value);
      case "revision":
        return controller.useRevision(number);
      case "compare-a":
        return controller.compare("a", number);
      case "compare-b":
        return controller.compare("b", number);
      case "look": {
        const [revision, seed] = value.split("/").map(Number);
        return controller.look(revision, seed);
      }
      case "seed":
        return controller.turnSeed(number);
      case "older":
        return controller.showOlder();
      case "run":
        return controller.run();
      case "retry":
        return controller.refresh();
      case "dismiss":
        return controller.dismiss();
    }
  }

  root.addEventListener("click", (event) => {
    const target = /** @type {HTMLElement} */ (event.target);
    const element = /** @type {HTMLElement | null} */ (target.closest("[data-do]"));
    if (element && element.getAttribute("aria-disabled") !== "true") act(element);
  });
  root.addEventListener("focusin", (event) => {
    const card = /** @type {HTMLElement} */ (event.target).closest("[data-position]");
    if (card) controller.focus(Number(card.getAttribute("data-position")));
  });
  root.addEventListener("change", (event) => {
    const field = /** @type {HTMLInputElement} */ (event.target);
    if (field.dataset.change === "keep") controller.keepAsking(field.checked);
    if (field.dataset.change === "profile") controller.chooseProfile(field.value);
    if (field.dataset.change === "compare-a") controller.compare("a", Number(field.value));
    if (field.dataset.change === "compare-b") controller.compare("b", Number(field.value));
    if (field.dataset.change === "strength") controller.keepStrength();
  });
  root.addEventListener("input", (event) => {
    const field = /** @type {HTMLInputElement} */ (event.target);
    if (field.dataset.change === "strength") controller.setStrength(Number(field.value));
  });
  root.addEventListener(
    "toggle",
    (event) => {
      const details = /** @type {HTMLDetailsElement} */ (event.target);
      if (details.dataset.fold) controller.fold(details.dataset.fold, details.open);
    },
    true,
  );
  root.addEventListener(
    "load",
    (event) => {
      const image = event.target;
      if (!(image instanceof HTMLImageElement && image.closest(".palate-grid"))) return;
      aspect = image.naturalWidth / image.naturalHeight || 1;
      fit();
    },
    true,
  );
  root.addEventListener("keydown", (event) => {
    movesFocus = true;
    const isOurs = handleKey(controller, event, columns);
    if (!isOurs) return void (movesFocus = false);
    event.preventDefault();
    event.stopPropagation();
  });

  const observer = new ResizeObserver(fit);
  observer.observe(root);
  const unsubscribe = controller.subscribe(render);
  render();

  return () => {
    observer.disconnect();
    unsubscribe();
    root.remove();
  };
}

/** @param {Controller} controller @param {Options} options @returns {Node[]} */
function view(controller, options) {
  const { state, imageUrl } = controller;
  const { query } = state;
  const node = options.nodeId?.();
  const isElsewhere =
    node !== undefined && query !== null && !isAskedBy(state.nodes[query.id], node);
  const middle =
    query && !isElsewhere
      ? question(state, query, imageUrl)
      : idle(state, imageUrl, options.canAsk());
  const parts = [header(state), notices(state), middle];
  return node === undefined ? [...parts, folds(state, imageUrl)] : parts;
}

/**
 * A question from a node inside a subgraph names the path to it ("12:3").
 * @param {string | undefined} asking @param {string} node
 */
const isAskedBy = (asking, node) => !asking || asking === node || asking.endsWith(`:${node}`);
