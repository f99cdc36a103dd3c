"""ComfyUI's page in a real Chromium, and Palate's panel on it, as the tests speak of them."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from selenium import webdriver
from selenium.common.exceptions import (
    JavascriptException,
    NoSuchElementException,
    StaleElementReferenceException,
)
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

BUNDLED = Path(__file__).resolve().parents[2] / "example_workflows"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 180.0  # seconds; the update trains on whatever cores are free
SIDEBAR, NODE = ".palate:not(.is-node)", ".palate.is-node"
T = TypeVar("T")


def find_browser() -> tuple[str, str] | None:
    """The paths of Chromium and its driver, or None if one of them is missing."""
    browser = next((path for name in CHROMIUM if (path := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


def start_browser(profile: Path, width: int = 1500, height: int = 1000) -> webdriver.Chrome:
    """A headless Chromium with a fresh profile that talks to nobody but the server."""
    found = find_browser()
    assert found is not None
    options = webdriver.ChromeOptions()
    options.binary_location = found[0]
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--no-first-run",
        f"--user-data-dir={profile}",
        f"--window-size={width},{height}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=Service(found[1]))


def until(what: str, probe: Callable[[], T], patience: float = PATIENCE) -> T:
    """Waits until ``probe`` gives something true, and returns it."""
    deadline = time.monotonic() + patience
    problem: Exception | None = None
    while time.monotonic() < deadline:
        try:
            value = probe()
        except (JavascriptException, NoSuchElementException, StaleElementReferenceException) as e:
            problem = e
        else:
            if value:
                return value
        time.sleep(0.1)
    raise AssertionError(f"Waited {patience:.0f} s for: {what}. {problem or ''}")


class Page:
    """One browser tab on ComfyUI; ``panel`` is the selector of the view that is looked at."""

    def __init__(self, driver: webdriver.Chrome, url: str) -> None:
        self.driver = driver
        self.url = url
        self.panel = SIDEBAR

    # -- the host ------------------------------------------------------------------------------

    def open(self) -> None:
        """Loads the page and closes the Templates dialog that a fresh user is shown."""
        self.driver.get(self.url)
        until("the frontend", lambda: self.js("return Boolean(window.app?.extensionManager)"))
        until("the canvas", lambda: self.js("return Boolean(app.canvas && app.graph)"))
        until("Palate's tab", lambda: self.js(f"return {_TAB} !== undefined"))
        is_new = self.js("return !app.extensionManager.setting.get('Comfy.TutorialCompleted')")
        if is_new or self.all(".p-dialog"):
            until("the Templates dialog", lambda: self.all(".p-dialog"))
            until("the dialog to close", self._close_dialog)

    def _close_dialog(self) -> bool:
        self.js(
            "document.querySelectorAll(arguments[0]).forEach((button) => button.click())", _CLOSE
        )
        return not self.all(".p-dialog")

    def load(self, graph: dict[str, Any]) -> None:
        """Puts a graph in API format on the canvas."""
        self.js("return app.loadApiJson(arguments[0], 'palate')", graph)
        until("the nodes", lambda: self.js("return app.graph.nodes.length") == len(graph))

    def open_bundled(self, name: str, profile: str) -> dict[str, Any]:
        """Puts a workflow that comes with the pack on the canvas, with a taste of that name."""
        workflow: dict[str, Any] = json.loads((BUNDLED / f"{name}.json").read_text("utf-8"))
        node = next(n for n in workflow["nodes"] if n["type"] == "PalateTasteProfile")
        node["widgets_values"][0] = profile
        self.js("return app.loadGraphData(arguments[0], true, true)", workflow)
        assert self.js("return app.graph.nodes.length") == len(workflow["nodes"])
        return workflow

    def run(self) -> None:
        """Queues the graph with ComfyUI's own keys, from the canvas."""
        self.js("document.activeElement.blur()")
        keys = webdriver.ActionChains(self.driver)
        keys.key_down(Keys.CONTROL).send_keys(Keys.ENTER).key_up(Keys.CONTROL).perform()

    def setting(self, name: str, value: Any) -> None:
        self.js("return app.extensionManager.setting.set(arguments[0], arguments[1])", name, value)

    def toggle_tab(self, tab: str = "palate") -> None:
        self.js("app.extensionManager.sidebarTab.toggleSidebarTab(arguments[0])", tab)

    def open_tab(self) -> str | None:
        """The id of the sidebar tab that is open."""
        return self.js("return app.extensionManager.sidebarTab.activeSidebarTabId")

    def sidebar_width(self, width: int) -> None:
        until("the sidebar", lambda: self.all(".side-bar-panel"))
        self.js(
            "const panel = document.querySelector('.side-bar-panel');"
            "panel.style.flex = `0 0 ${arguments[0]}px`; panel.style.minWidth = 'auto';",
            width,
        )
        until(
            f"{width} px",
            lambda: (
                abs(self.js("return document.querySelector('.side-bar-panel').offsetWidth") - width)
                < 2
            ),
        )

    def badge(self) -> str | None:
        return self.js(f"return {_TAB}?.iconBadge")

    def js(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    @contextmanager
    def other_tab(self) -> Iterator[Page]:
        """A second browser tab with the same page."""
        first = self.driver.current_window_handle
        self.driver.switch_to.new_window("tab")
        try:
            page = Page(self.driver, self.url)
            page.open()
            yield page
        finally:
            self.driver.close()
            self.driver.switch_to.window(first)

    # -- the panel -----------------------------------------------------------------------------

    def find(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, f"{self.panel} {selector}")

    def text(self, selector: str = "") -> str:
        """The text that is seen in that part of the panel, empty if there is no such part."""
        script = "return document.querySelector(arguments[0])?.innerText ?? ''"
        return str(self.js(script, f"{self.panel} {selector}".strip()))

    def wait_text(self, words: str, selector: str = "") -> None:
        until(f"“{words}” in {selector or 'the panel'}", lambda: words in self.text(selector))

    def click(self, selector: str) -> None:
        until(selector, lambda: self.find(selector).is_displayed())
        self.find(selector).click()

    def image(self, number: int) -> WebElement:
        return self.find(f"figure:nth-child({number}) .palate-image")

    def images(self) -> list[str]:
        """The paths of the question's images in the order shown, once all are loaded."""
        return list(
            self.js(
                "const all = [...document.querySelectorAll(arguments[0])];"
                "const ready = all.every((i) => i.complete && i.naturalWidth > 0);"
                "return ready ? all.map((i) => new URL(i.src).pathname) : []",
                f"{self.panel} .palate-grid img",
            )
        )

    def question(self, other_than: str | None = None) -> str:
        """Waits for a question with its images; returns its id."""

        def shown() -> str | None:
            images = self.images()
            found = images[0].split("/queries/")[1].split("/")[0] if images else None
            return found if found != other_than else None

        return str(until("a question", shown))

    def focus_question(self) -> None:
        """The documented shortcut that gives the keyboard to the question."""
        webdriver.ActionChains(self.driver).key_down(Keys.ALT).send_keys("p").key_up(
            Keys.ALT
        ).perform()
        until("the focus", lambda: self.focused().startswith("Image"))

    def focused(self) -> str:
        """What has the focus, by its accessible name."""
        return str(self.js("return document.activeElement.getAttribute('aria-label') ?? ''"))

    def has_focus(self) -> bool:
        script = "return document.querySelector(arguments[0])?.contains(document.activeElement)"
        return bool(self.js(script, self.panel))

    def press(self, *keys: str) -> None:
        """Types into whatever has the focus, also if it was drawn anew a moment ago."""
        for key in keys:
            webdriver.ActionChains(self.driver).send_keys(key).perform()

    def marks(self) -> list[str]:
        """What is marked on each image in the order shown: best, liked, disliked, or nothing."""
        classes = self.js(
            "return [...document.querySelectorAll(arguments[0])].map((f) => f.className)",
            f"{self.panel} .palate-card",
        )
        words = ("best", "liked", "disliked")
        return [next((w for w in words if f"is-{w}" in c.split()), "") for c in classes]

    def screenshot(self, name: str) -> None:
        """Kept in the folder PALATE_SCREENSHOTS, if that is set."""
        folder = os.environ.get("PALATE_SCREENSHOTS")
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.driver.save_screenshot(str(Path(folder) / f"{name}.png"))

    def graph_screenshot(
        self,
        name: str,
        scale: float,
        offset: tuple[int, int],
        window: tuple[int, int] = (1960, 1000),
    ) -> None:
        """The canvas at that zoom and place, in a window of its own size."""
        size = self.driver.get_window_size()
        self.driver.set_window_size(*window)
        try:
            self.js(
                "app.canvas.ds.scale = arguments[0]; app.canvas.ds.offset = arguments[1];"
                "app.canvas.draw(true, true)",
                scale,
                list(offset),
            )
            self.screenshot(name)
        finally:
            self.driver.set_window_size(size["width"], size["height"])


_TAB = "app.extensionManager.getSidebarTabs().find((tab) => tab.id === 'palate')"
_CLOSE = ".p-dialog-close-button, .p-dialog button:has(.pi-times, [class*='lucide--x'])"
