"""The bundled workflow as a newcomer meets it: run, answer, and the images follow."""

from __future__ import annotations

from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys

pytestmark = [pytest.mark.browser, pytest.mark.comfyui]

FIT = "const c = app.canvas; c.ds.scale = 0.68; c.ds.offset = [130, 260]; c.draw(true, true)"


def test_the_bundled_workflow_runs_and_learns(page: Any, server: Any, profile: str) -> None:
    page.open_bundled("first_taste", profile)
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
