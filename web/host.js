// @ts-check
/** The only file that knows ComfyUI's frontend. Everything else asks this one. */

// @ts-ignore served by ComfyUI
import { app } from "../../scripts/app.js";
// @ts-ignore served by ComfyUI
import { api } from "../../scripts/api.js";

/** @typedef {typeof host} Host */

const TAB = "palate";
const QUERY_NODE = "PalatePreferenceQuery";
const TASTE_NODE = "PalateTasteProfile";
const MUTED = [2, 4]; // node modes: never, bypass

/** @param {Response} response */
async function read(response) {
  const data = await response.json().catch(() => null);
  if (response.ok && data !== null) return data;
  throw new Error(data?.error ?? `The server answered ${response.status} ${response.statusText}.`);
}

/** @param {string} path @param {RequestInit} [options] */
async function request(path, options) {
  let response;
  try {
    response = await api.fetchApi(path, { cache: "no-store", ...options });
  } catch {
    throw new Error("ComfyUI does not answer. The panel goes on when it is back.");
  }
  return read(response);
}

export const host = {
  /** @param {string} path @returns {Promise<any>} */
  get: (path) => request(path),

  /** @param {string} path @param {object} body @returns {Promise<any>} */
  post: (path, body) =>
    request(path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    }),

  /** The address of a route. @param {string} path @returns {string} */
  url: (path) => api.apiURL(path),

  /** Something in ComfyUI's queue runs or waits. @returns {Promise<boolean>} */
  async isRunning() {
    const status = await request("/prompt");
    return status.exec_info.queue_remaining > 0;
  },

  /** @param {string} event @param {(detail: any) => void} listener */
  on(event, listener) {
    api.addEventListener(event, (/** @type {CustomEvent} */ e) => listener(e.detail));
  },

  /** @param {(remaining: number) => void} listener */
  onStatus(listener) {
    host.on("status", (detail) => {
      const remaining = detail?.exec_info?.queue_remaining;
      if (typeof remaining === "number") listener(remaining);
    });
  },

  /** A run failed or was interrupted. @param {() => void} listener */
  onStopped(listener) {
    host.on("execution_error", listener);
    host.on("execution_interrupted", listener);
  },

  /** @param {(connected: boolean) => void} listener */
  onConnection(listener) {
    host.on("reconnecting", () => listener(false));
    host.on("reconnected", () => listener(true));
  },

  /** @param {string} id */
  setting: (id) => app.extensionManager.setting.get(id),

  /** @param {string} id @param {any} value */
  setSetting: (id, value) => app.extensionManager.setting.set(id, value),

  /** Kept for this tab only. @param {string} key @returns {string | null} */
  recall: (key) => sessionStorage.getItem(key),

  /** @param {string} key @param {string | null} value */
  remember(key, value) {
    if (value === null) sessionStorage.removeItem(key);
    else sessionStorage.setItem(key, value);
  },

  /** The open graph can ask a person, and does not run by itself already. */
  canAsk() {
    const asks = app.graph.nodes.some(
      (/** @type {any} */ node) => node.comfyClass === QUERY_NODE && node.mode === 0,
    );
    const mode = app.extensionManager.queueSettings?.mode ?? "disabled";
    return asks && mode === "disabled";
  },

  /** Queues the open graph as the Run button does. */
  async run() {
    await app.extensionManager.command.execute("Comfy.QueuePrompt");
  },

  /**
   * The open graph changed, or another was opened: as the page tells, or, since it does not tell of
   * every way to open one, within a second. @param {() => void} listener
   */
  onGraph(listener) {
    host.on("graphChanged", listener);
    setInterval(() => document.hidden || listener(), 1000);
  },

  /**
   * The strength of a taste in the Taste Profile nodes of the open graph, the one place where it
   * is kept.
   * @param {string} name @returns {import("./panel/types.js").Strength}
   */
  strength(name) {
    const widgets = tasteNodes(name).map(freeStrength);
    const values = widgets.flatMap((widget) => (widget ? [widget.value] : []));
    return { values, wired: widgets.length - values.length };
  },

  /** Sets it wherever it does not come over a wire. @param {string} name @param {number} value */
  setStrength(name, value) {
    for (const node of tasteNodes(name)) {
      const widget = freeStrength(node);
      if (!widget) continue;
      widget.value = value;
      widget.callback?.(value, app.canvas, node);
    }
    app.canvas.setDirty(true, true);
  },

  /** What was set since the last note becomes one step of ComfyUI's own undo. */
  noteChange() {
    app.canvas.emitBeforeChange();
    app.canvas.emitAfterChange();
  },

  /** Opens the panel's tab for a question, unless another tab is in use or the artist says no. */
  reveal() {
    const { sidebarTab } = app.extensionManager;
    if (!host.setting("Palate.OpenPanel") || !sidebarTab || sidebarTab.activeSidebarTabId) return;
    sidebarTab.toggleSidebarTab(TAB);
  },

  /** Opens the panel's tab whatever is open now. */
  openTab() {
    const { sidebarTab } = app.extensionManager;
    if (sidebarTab && sidebarTab.activeSidebarTabId !== TAB) sidebarTab.toggleSidebarTab(TAB);
  },

  /** The number on the tab's icon. @param {number} count */
  badge(count) {
    const tab = app.extensionManager.getSidebarTabs().find((/** @type {any} */ t) => t.id === TAB);
    if (tab) tab.iconBadge = count ? String(count) : null;
  },

  /** @param {{render: (container: HTMLElement) => void, destroy: () => void}} view */
  addTab({ render, destroy }) {
    app.extensionManager.registerSidebarTab({
      id: TAB,
      title: "Palate",
      tooltip: "Palate: rate images",
      icon: "pi pi-palette",
      type: "custom",
      render(/** @type {HTMLElement} */ container) {
        container.style.height = "100%";
        render(container);
      },
      destroy,
    });
  },

  /**
   * Registers the extension; `onNode` gets each Preference Query node's element to draw in and
   * returns how to stop.
   * @param {{settings: object[], commands: object[], keybindings: object[], setup: () => void,
   *   onNode: (element: HTMLElement, nodeId: () => string) => () => void}} extension
   */
  register({ onNode, ...extension }) {
    app.registerExtension({
      name: "palate.panel",
      ...extension,
      nodeCreated(/** @type {any} */ node) {
        if (node.comfyClass === QUERY_NODE) addNodeView(node, onNode);
      },
    });
  },
};

/** Taste Profile nodes that a run would use. @param {string} name @returns {any[]} */
const tasteNodes = (name) =>
  usedNodes(app.graph?.rootGraph ?? app.graph).filter(
    (node) => node.comfyClass === TASTE_NODE && widgetOf(node, "name")?.value === name,
  );

/** The nodes of a graph and of the subgraphs in it, without the muted ones. @param {any} graph @returns {any[]} */
const usedNodes = (graph) =>
  (graph?.nodes ?? [])
    .filter((/** @type {any} */ node) => !MUTED.includes(node.mode))
    .flatMap((/** @type {any} */ node) =>
      node.subgraph ? [node, ...usedNodes(node.subgraph)] : [node],
    );

/** @param {any} node @param {string} name */
const widgetOf = (node, name) =>
  node.widgets?.find((/** @type {any} */ widget) => widget.name === name);

/** The widget of the strength, unless a wire is in its place. @param {any} node */
function freeStrength(node) {
  const isWired = node.inputs?.some(
    (/** @type {any} */ input) => input.widget?.name === "strength" && input.link != null,
  );
  return isWired ? null : widgetOf(node, "strength");
}

/** @param {any} node @param {(element: HTMLElement, nodeId: () => string) => () => void} onNode */
function addNodeView(node, onNode) {
  const element = document.createElement("div");
  const widget = node.addDOMWidget("palate", "palate", element, {
    serialize: false,
    hideOnZoom: false,
    getMinHeight: () => 460,
  });
  widget.serialize = false;
  const [width, height] = node.size;
  node.setSize([Math.max(width, 420), height]);
  passToCanvas(element);
  const stop = onNode(element, () => String(node.id));
  const removed = node.onRemoved;
  node.onRemoved = function () {
    stop();
    return removed?.apply(this, arguments);
  };
}

/** The wheel zooms and the middle button pans over the node's view as they do beside it. */
function passToCanvas(/** @type {HTMLElement} */ element) {
  const isOverlay = () => element.closest(".dom-widget") !== null;
  element.addEventListener("wheel", (event) => {
    if (isOverlay()) app.canvas.processMouseWheel(event);
  });
  element.addEventListener("pointerdown", (event) => {
    if (isOverlay() && event.button === 1) app.canvas.processMouseDown(event);
  });
  element.addEventListener("pointermove", (event) => {
    if (isOverlay() && (event.buttons & 4) === 4) app.canvas.processMouseMove(event);
  });
  element.addEventListener("pointerup", (event) => {
    if (isOverlay() && event.button === 1) app.canvas.processMouseUp(event);
  });
}
