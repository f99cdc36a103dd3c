"""Steered questions in the real frontend: the bundled budget and the flagship graph, end to end."""

from __future__ import annotations

from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys

pytestmark = [pytest.mark.browser, pytest.mark.comfyui]


def test_the_budget_is_counted_down_in_the_panel(page: Any, profile: str) -> None:
    page.open_bundled("label_budget", profile)
    page.run()
    first = page.question()
    page.wait_text("48 left of the budget", ".palate-header")
    page.focus_question()
    page.press("2", Keys.ENTER)
    page.question(other_than=first)
    page.wait_text("44 left of the budget", ".palate-header")
    _picture(page, "budget", 0.78, (110, 190))


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
    _picture(page, "flagship", 0.66, (130, 220))


def _picture(page: Any, name: str, scale: float, offset: tuple[int, int]) -> None:
    page.sidebar_width(460)
    page.screenshot(f"{name}-panel")
    page.toggle_tab()
    page.graph_screenshot(f"{name}-graph", scale, offset, (2000, 1020))
