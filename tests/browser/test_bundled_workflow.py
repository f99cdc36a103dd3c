"""The bundled workflow as a newcomer meets it: run, answer, and the images follow."""

from __future__ import annotations

from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys

pytestmark = [pytest.mark.browser, pytest.mark.comfyui]


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
    page.graph_screenshot("bundled-graph", 0.68, (130, 260))
