// @ts-check
/** Palate's panel: the sidebar tab, the view inside Preference Query nodes, settings and commands. */

import { host } from "./host.js";
import { createController } from "./panel/controller.js";
import { mount } from "./panel/mount.js";

const controller = createController(host);
/** @type {Map<HTMLElement, () => void>} */
const tabs = new Map();

const style = document.createElement("link");
style.rel = "stylesheet";
style.href = new URL("./panel.css", import.meta.url).href;
document.head.append(style);

/** @param {HTMLElement} container */
function openTab(container) {
  if (tabs.has(container)) return;
  closeTab();
  tabs.set(container, mount(container, controller, { canAsk: host.canAsk }));
  controller.refresh();
}

function closeTab() {
  for (const unmount of tabs.values()) unmount();
  tabs.clear();
}

/** Gives the keyboard to the question: in the tab, which opens if it is closed. */
function focusQuestion() {
  host.openTab();
  requestAnimationFrame(() => {
    const panel = document.querySelector(".palate:not(.is-node)");
    const image = panel?.querySelector(".is-here .palate-image");
    /** @type {HTMLElement | null} */ (image ?? panel)?.focus();
  });
}

host.register({
  settings: [
    {
      id: "Palate.SendBest",
      category: ["Palate", "Panel", "SendBest"],
      name: "Send the answer when I pick the best image",
      tooltip: "After a moment: Z or any other mark takes it back before it is sent.",
      type: "combo",
      options: [
        { text: "After a moment", value: "moment" },
        { text: "At once", value: "now" },
        { text: "Only with Enter", value: "enter" },
      ],
      defaultValue: "moment",
    },
    {
      id: "Palate.KeepAsking",
      category: ["Palate", "Panel", "KeepAsking"],
      name: "Keep asking: run the graph again after each answer",
      type: "boolean",
      defaultValue: true,
    },
    {
      id: "Palate.OpenPanel",
      category: ["Palate", "Panel", "OpenPanel"],
      name: "Open the panel when a question arrives",
      tooltip:
        "Only in the browser tab that queued the run, and only while no other sidebar tab is open.",
      type: "boolean",
      defaultValue: true,
    },
  ],
  commands: [
    {
      id: "Palate.FocusQuestion",
      label: "Palate: focus the question",
      icon: "pi pi-palette",
      function: focusQuestion,
    },
  ],
  keybindings: [{ commandId: "Palate.FocusQuestion", combo: { key: "p", alt: true } }],
  setup() {
    host.addTab({ render: openTab, destroy: closeTab });
    controller.subscribe(() => host.badge(controller.state.pending.length));
    controller.start();
  },
  onNode: (element, nodeId) =>
    mount(element, controller, {
      nodeId,
      canAsk: host.canAsk,
      fillsHeight: () => element.closest(".dom-widget") !== null,
    }),
});
