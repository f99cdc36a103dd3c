"""Finding words in the real frontend: the bundled exploration, and what was learnt in the panel."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from selenium.webdriver.common.keys import Keys

pytestmark = [pytest.mark.browser, pytest.mark.comfyui]

WORDS = "[data-fold=learnt] .palate-bar"


def bars(page: Any) -> list[dict[str, Any]]:
    """Each word's name for a screen reader, and where its bar lies along its track, 0 to 1."""
    return page.js(
        "return [...document.querySelectorAll(arguments[0])].map((bar) => {"
        "  const box = (s) => bar.querySelector(s).getBoundingClientRect();"
        "  const [track, fill] = [box('.palate-track'), box('.palate-fill')];"
        "  return { name: bar.innerText + bar.querySelector('.palate-hidden').textContent,"
        "    from: (fill.left - track.left) / track.width,"
        "    to: (fill.right - track.left) / track.width, width: track.width } })",
        f"{page.panel} {WORDS}",
    )


def test_a_round_of_the_bundled_exploration_shows_the_words_that_matter(
    page: Any, server: Any, profile: str
) -> None:
    until = _page_module().until
    page.open_bundled("prompt_exploration", profile)
    page.run()
    first = page.question()
    page.sidebar_width(460)
    asked = server.get(f"/palate/queries/{first}")
    prompts = [candidate["prompt"] for candidate in asked["candidates"]]
    assert len(set(prompts)) == 4
    captions = page.js(
        "return [...document.querySelectorAll(arguments[0])].map((c) => c.textContent)",
        f"{page.panel} figcaption",
    )
    assert captions == prompts
    page.click("[data-fold=learnt] summary")
    page.wait_text("No question of ED Query Designer is answered yet", "[data-fold=learnt]")

    page.focus_question()
    page.press("2", Keys.ENTER)
    second = page.question(other_than=first)
    assert [c["prompt"] for c in server.get(f"/palate/queries/{second}")["candidates"]] != prompts
    page.wait_text("1 question answered", "[data-fold=learnt]")
    page.wait_text("advised", ".palate-header")
    shown = until("the words", lambda: bars(page))
    words = server.get(f"/palate/profiles/{quote(profile)}")["learnt"]["words"]
    assert len(shown) == len(words)
    for bar, word in zip(shown, words, strict=True):
        assert word["word"] in bar["name"]
        assert "± " in bar["name"]  # the uncertainty is told, not only drawn
        middle = (bar["from"] + bar["to"]) / 2
        assert abs(middle - 0.5) < 0.01 or (middle > 0.5) == (word["effect"] > 0)
    page.js("document.querySelector(arguments[0]).scrollIntoView()", f"{page.panel} .palate-words")
    page.screenshot("words-panel")
    page.toggle_tab()
    page.graph_screenshot("words-graph", 0.74, (60, 110))


def test_the_words_fit_their_column_in_both_themes(
    page: Any, graph: dict[str, Any], profile: str
) -> None:
    until = _page_module().until
    _designed(graph)
    page.load(graph)
    page.run()
    first = page.question()
    page.focus_question()
    page.press("1", Keys.ENTER)
    page.question(other_than=first)
    page.click("[data-fold=learnt] summary")
    until("the words", lambda: bars(page))
    overflow = (
        "const p = document.querySelector(arguments[0]); return p.scrollWidth - p.clientWidth"
    )
    try:
        for theme, width in (("dark", 320), ("dark", 900), ("light", 900), ("light", 320)):
            page.setting("Comfy.ColorPalette", theme)
            page.sidebar_width(width)
            until(
                f"bars at {width} px",
                lambda: all(bar["width"] > 60 for bar in bars(page)),
            )
            assert page.js(overflow, page.panel) <= 0
            page.screenshot(f"words-{theme}-{width}")
    finally:
        page.setting("Comfy.ColorPalette", "dark")


def test_the_checkpoint_workflow_opens_without_an_error(page: Any, profile: str) -> None:
    page.driver.get_log("browser")
    workflow = page.open_bundled("prompt_exploration_checkpoint", profile)
    kinds = {node["type"] for node in workflow["nodes"]}
    known = "return arguments[0].filter((kind) => !(kind in LiteGraph.registered_node_types))"
    assert page.js(known, sorted(kinds - {"MarkdownNote"})) == []
    widgets = page.js(
        "const node = app.graph.nodes.find((n) => n.comfyClass === 'PalateEDQueryDesigner');"
        "return Object.fromEntries(node.widgets.map((w) => [w.name, w.value]))"
    )
    assert (widgets["vocabulary"], widgets["arms"], widgets["seed"]) == ("six_slots", 4, 0)
    assert "template:" in widgets["slots"]
    page.graph_screenshot("words-checkpoint-graph", 0.74, (60, 110))
    errors = [entry for entry in page.driver.get_log("browser") if "/palate" in entry["message"]]
    assert [entry for entry in errors if entry["level"] == "SEVERE"] == []


def test_an_update_that_was_taken_back_is_told_in_the_panel(page: Any, server: Any) -> None:
    """The event that PAPA Update sends, as the page receives it."""
    page.toggle_tab()
    page.js(
        "const detail = { profile: 'any', revision: 0, rolled_back: 'the loss was not finite' };"
        "window.app.api.dispatchCustomEvent('palate.revision', detail)"
    )
    page.wait_text("Nothing changed: the loss was not finite", ".palate-note")
    page.wait_text("Your ratings are kept", ".palate-note")


def _designed(graph: dict[str, Any]) -> None:
    """Puts ED Query Designer in place of the prompt, and takes the update out."""
    words = "[subject]\nhouse\nfish\ncat\n[palette]\n-\ncrimson\ncobalt\nemerald\n"
    settings = {"mode": "random", "arms": 2, "criterion": "automatic", "seed": 0}
    texts = {"vocabulary": "the text below", "slots": words, "prefix": "", "suffix": ""}
    graph["11"] = {
        "class_type": "PalateEDQueryDesigner",
        "inputs": {"taste": ["2", 1], "clip": ["1", 1], **settings, **texts},
    }
    graph["3"]["inputs"]["text"] = ["11", 0]
    graph["5"]["inputs"]["batch_size"] = 1
    graph["6"]["inputs"]["steps"] = 1
    graph["8"]["inputs"].update({"plan": ["11", 1], "mode": "rate later"})
    del graph["9"], graph["10"]


def _page_module() -> Any:
    import sys

    return sys.modules["palate_tests_page"]
