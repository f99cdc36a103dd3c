"""Steered questions in the real frontend: the bundled budget and the flagship graph, end to end."""

from __future__ import annotations

from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys

pytestmark = [pytest.mark.browser, pytest.mark.comfyui]

FIT = "const c = app.canvas; c.ds.scale = 0.78; c.ds.offset = [110, 190]; c.draw(true, true)"
FIT_ALL = "const c = app.canvas; c.ds.scale = 0.66; c.ds.offset = [130, 220]; c.draw(true, true)"


def test_the_budget_is_counted_down_in_the_panel(page: Any, profile: str) -> None:
    page.open_bundled("label_budget", profile)
    page.run()
    first = page.question()
    page.wait_text("48 left of the budget", ".palate-header")
    page.focus_question()
    page.press("2", Keys.ENTER)
    page.question(other_than=first)
    page.wait_text("44 left of the budget", ".palate-header")
    _picture(page, "budget", FIT)


def test_the_flagship_designs_steers_and_learns(page: Any, server: Any, profile: str) -> None:
    page.open_bundled("flagship", profile)
    page.run()
    first = page.question()
    prompts = [c["prompt"] for c in server.get(f"/palate/queries/{first}")["candidates"]]
    assert len(set(prompts)) == 4
    page.focus_question()
    page.press("2", Keys.ENTER)
    page.wait_text("revision 1", ".palate-header")
    second = page.question(other_than=first)
    again = server.get(f"/palate/queries/{second}")
    assert [c["prompt"] for c in again["candidates"]] != prompts
    page.wait_text("56 left of the budget", ".palate-header")
    page.wait_text("advised", ".palate-header")
    _picture(page, "flagship", FIT_ALL)


def _picture(page: Any, name: str, fit: str) -> None:
    size = page.driver.get_window_size()
    page.sidebar_width(460)
    page.screenshot(f"{name}-panel")
    page.toggle_tab()
    page.driver.set_window_size(2000, 1020)
    try:
        page.js(fit)
        page.screenshot(f"{name}-graph")
    finally:
        page.driver.set_window_size(size["width"], size["height"])
