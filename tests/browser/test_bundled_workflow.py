"""The bundled workflow as a newcomer meets it: run, answer, and the images follow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys

pytestmark = [pytest.mark.browser, pytest.mark.comfyui]

BUNDLED = Path(__file__).resolve().parents[2] / "example_workflows" / "first_taste.json"
FIT = "const c = app.canvas; c.ds.scale = 0.68; c.ds.offset = [130, 260]; c.draw(true, true)"


def test_the_bundled_workflow_runs_and_learns(page: Any, server: Any, profile: str) -> None:
    workflow = json.loads(BUNDLED.read_text("utf-8"))
    node = next(n for n in workflow["nodes"] if n["type"] == "PalateTasteProfile")
    node["widgets_values"][0] = profile
    page.js("return app.loadGraphData(arguments[0], true, true)", workflow)
    assert page.js("return app.graph.nodes.length") == len(workflow["nodes"])
    page.run()
    first = page.question()
    page.sidebar_width(460)
    page.screenshot("bundled-panel")
    page.focus_question()
    page.press("2", Keys.ENTER)
    page.wait_text("revision 1", ".palate-header")
    asked = server.get(f"/palate/queries/{first}")
    assert asked["answer"]["winner"] == asked["candidates"][1]["index"]
    assert "{" not in asked["candidates"][0]["prompt"]  # the page drew one word of each brace

    second = page.question(other_than=first)
    again = server.get(f"/palate/queries/{second}")
    assert again["round"] == 2
    page.toggle_tab()
    size = page.driver.get_window_size()
    page.driver.set_window_size(1960, 1000)
    try:
        page.js(FIT)
        page.screenshot("bundled-graph")
    finally:
        page.driver.set_window_size(size["width"], size["height"])
