"""The panel in the real frontend: an artist's rounds by keyboard and by mouse."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

pytestmark = [pytest.mark.browser, pytest.mark.comfyui]


def ask(page: Any, graph: dict[str, Any]) -> str:
    """Queues the graph in the page and waits for its question in the sidebar."""
    page.load(graph)
    page.run()
    return str(page.question())


def shown(server: Any, query: str) -> dict[str, Any]:
    return dict(server.get(f"/palate/queries/{query}"))


def taste(server: Any, profile: str) -> dict[str, Any]:
    return dict(server.get(f"/palate/profiles/{quote(profile)}"))


def test_a_complete_round_by_keyboard(
    page: Any, server: Any, graph: dict[str, Any], profile: str
) -> None:
    first = ask(page, graph)
    record = shown(server, first)
    assert record["profile"] == profile
    assert page.images() == ["/api" + c["image_url"] for c in record["candidates"]]
    assert "base model" in page.text()
    page.sidebar_width(430)
    page.screenshot("panel-question")

    page.focus_question()
    assert page.focused().startswith("Image 1")
    page.press("l", Keys.ARROW_RIGHT, Keys.ARROW_DOWN, "d")
    assert page.marks() == ["liked", "", "", "disliked"]
    assert page.focused().startswith("Image 4")
    page.screenshot("panel-rated")
    page.press(Keys.ENTER)

    second = page.question(other_than=first)
    indices = [candidate["index"] for candidate in record["candidates"]]
    ratings: list[float | None] = [None] * 4
    ratings[indices[0]], ratings[indices[3]] = 1.0, -1.0
    record = shown(server, first)
    assert record["answer"] == {"kind": "rate", "ratings": ratings}
    assert record["used_by"] == 1
    page.wait_text("revision 1", ".palate-header")
    page.wait_text("2 ratings", ".palate-header")
    assert "Last update" in page.text(".palate-last")
    assert shown(server, second)["state"] == "pending"
    assert page.focused().startswith("Image 1")  # the keyboard goes on where it was
    page.press("3", Keys.ENTER)
    page.question(other_than=second)
    assert (
        shown(server, second)["answer"]["winner"] == shown(server, second)["candidates"][2]["index"]
    )
    page.wait_text("revision 2", ".palate-header")
    page.screenshot("panel-second-round")


def test_the_model_learns_in_place_of_the_question(
    page: Any, server: Any, graph: dict[str, Any]
) -> None:
    graph["9"]["inputs"].update({"steps": 6})
    ask(page, graph)
    page.focus_question()
    page.press("1", Keys.ENTER)
    until = page_module().until
    until("progress", lambda: page.all(f"{page.panel} [role=progressbar][aria-valuenow]"))
    assert "Learning" in page.text(".palate-idle")
    assert not page.images()
    page.screenshot("panel-learning")
    until("the update", lambda: "revision 1" in page.text())


def test_a_question_never_takes_the_focus(page: Any, graph: dict[str, Any]) -> None:
    page.load(graph)
    page.toggle_tab()  # there is a panel that could take it
    page.js(
        "window.taken = []; document.addEventListener('focusin', (event) => {"
        "  if (event.target.closest('.palate')) window.taken.push(event.target.outerHTML); });"
    )
    page.run()
    query = page.question()
    page.driver.execute_async_script(
        "const [done] = arguments; requestAnimationFrame(() => requestAnimationFrame(() => done()))"
    )
    assert page.js("return window.taken") == []
    page.image(1).click()  # a click gives it
    assert page.has_focus()
    assert page.js("return window.taken.length") > 0
    page.question(other_than=query)


def test_the_panel_opens_by_itself_unless_another_tab_is_in_use(
    page: Any, graph: dict[str, Any]
) -> None:
    query = ask(page, graph)
    assert page.open_tab() == "palate"
    page.toggle_tab("queue")
    page.panel = page_module().NODE
    page.js(
        "const node = app.graph.nodes.find((n) => n.comfyClass === 'PalatePreferenceQuery');"
        "app.canvas.centerOnNode(node)"
    )
    page_module().until("the node's view", page.images)
    page.image(1).click()
    page.question(other_than=query)
    assert page.open_tab() == "queue"


def test_keys_typed_elsewhere_are_left_alone(page: Any, graph: dict[str, Any]) -> None:
    ask(page, graph)
    field = page.js(
        "const field = document.createElement('textarea'); document.body.append(field);"
        "field.style.cssText = 'position: fixed; z-index: 9999; top: 0; left: 50%';"
        "field.focus(); return field"
    )
    field.send_keys("1 l d s z f")
    assert field.get_attribute("value") == "1 l d s z f"
    assert page.marks() == ["", "", "", ""]
    page.js("arguments[0].remove()", field)
    page.driver.find_element(By.TAG_NAME, "body").send_keys("1")
    assert page.marks() == ["", "", "", ""]


def test_a_click_marks_the_best_and_z_takes_it_back_before_it_is_sent(
    page: Any, server: Any, graph: dict[str, Any]
) -> None:
    query = ask(page, graph)
    page.image(2).click()
    assert page.marks() == ["", "best", "", ""]
    assert "Z takes it back" in page.text(".palate-ask")
    page.press("z")
    assert page.marks() == ["", "", "", ""]
    assert "Sending" not in page.text(".palate-controls")
    page.image(3).click()
    page.question(other_than=query)
    record = shown(server, query)
    assert record["answer"] == {"kind": "pick", "winner": record["candidates"][2]["index"]}


def test_a_best_that_is_followed_by_a_rating_becomes_a_like(
    page: Any, server: Any, graph: dict[str, Any]
) -> None:
    query = ask(page, graph)
    page.setting("Palate.SendBest", "enter")
    try:
        page.image(1).click()
        page.click("figure:nth-child(4) .is-dislike")
        assert page.marks() == ["liked", "", "", "disliked"]
        page.image(2).click()
        assert page.marks() == ["liked", "liked", "", "disliked"]
        page.click("[data-do=undo]")
        assert page.marks() == ["liked", "", "", "disliked"]
        page.click("[data-do=submit]")
        page.question(other_than=query)
    finally:
        page.setting("Palate.SendBest", "moment")
    record = shown(server, query)
    by_position = [record["answer"]["ratings"][c["index"]] for c in record["candidates"]]
    assert by_position == [1.0, None, None, -1.0]


def test_skip_has_no_influence(page: Any, server: Any, graph: dict[str, Any], profile: str) -> None:
    query = ask(page, graph)
    page.focus_question()
    page.press("s")
    page.question(other_than=query)
    assert shown(server, query)["state"] == "skipped"
    assert taste(server, profile)["ratings"] == 0
    assert taste(server, profile)["active"] == 0


def test_z_without_marks_goes_back_a_revision_and_says_so(
    page: Any, server: Any, graph: dict[str, Any], profile: str
) -> None:
    first = ask(page, graph)
    page.focus_question()
    page.press("1", Keys.ENTER)
    page.question(other_than=first)
    page.wait_text("revision 1", ".palate-header")
    page.press("z")
    page.wait_text("now uses the base", ".palate-note")
    page.wait_text("base model", ".palate-header")
    assert taste(server, profile)["active"] == 0
    assert taste(server, profile)["ratings"] == 4  # ratings are kept
    page.screenshot("panel-undone")
    page.click(".palate-note [data-do=revision]")
    page.wait_text("revision 1", ".palate-header")
    assert taste(server, profile)["active"] == 1


def test_history_shows_what_was_picked_and_leads_back(
    page: Any, server: Any, graph: dict[str, Any], profile: str
) -> None:
    first = ask(page, graph)
    page.focus_question()
    page.press("2", Keys.ENTER)
    page.question(other_than=first)
    page.wait_text("revision 1", ".palate-header")
    page.click("[data-fold=learnt] summary")
    page.wait_text("Steps", "[data-fold=learnt]")
    page.click("[data-fold=history] summary")
    page.wait_text("Revision 1", "[data-fold=history]")
    liked = page_module().until("thumbnails", lambda: page.all(f"{page.panel} img.is-liked"))
    record = shown(server, first)
    assert liked[0].get_attribute("src").endswith(record["candidates"][1]["image_url"])
    # without a VAE on PAPA Update the liked image stands for the revision, and compare says why
    stand_in = page.find("[data-key=revision-1] .palate-looks img").get_attribute("src")
    assert stand_in.endswith(record["candidates"][1]["image_url"])
    assert "Connect a VAE to PAPA Update" in page.text(".palate-compare")
    page.screenshot("panel-history")
    page.click("[data-fold=history] [data-do=revision][data-value='0']")
    page.wait_text("now uses the base", ".palate-note")
    assert taste(server, profile)["active"] == 0


def test_a_question_opens_in_its_own_tab_only_and_is_listed_in_the_others(
    page: Any, server: Any, graph: dict[str, Any]
) -> None:
    query = ask(page, graph)
    with page.other_tab() as other:
        until = page_module().until
        other.toggle_tab()
        other.wait_text("waiting", ".palate-idle")
        assert other.images() == []
        assert other.badge() == "1"
        other.click("[data-fold=pending] summary")
        other.click(f"[data-fold=pending] [data-value='{query}']")
        assert other.question() == query
        other.image(1).click()
        until("the answer", lambda: shown(server, query)["state"] != "pending")
    assert page.question(other_than=query)  # its own tab went on by itself


def test_an_answer_from_somewhere_else_is_told_with_the_servers_reason(
    page: Any, server: Any, graph: dict[str, Any]
) -> None:
    graph["8"]["inputs"]["mode"] = "rate later"
    query = ask(page, graph)
    page.setting("Palate.KeepAsking", False)
    try:
        page.focus_question()
        page.press("l")
        server.post(f"/palate/queries/{query}/answer", {"kind": "skip"})
        page.press(Keys.ENTER)
        page.wait_text("answer", ".is-error")
        assert not page.images()
        assert shown(server, query)["state"] == "skipped"
        assert page.has_focus()
    finally:
        page.setting("Palate.KeepAsking", True)


def test_a_reload_loses_nothing(page: Any, server: Any, graph: dict[str, Any]) -> None:
    query = ask(page, graph)
    page.open()
    if page.open_tab() != "palate":
        page.toggle_tab()
    assert page.question() == query
    page.image(4).click()
    page_module().until("the answer", lambda: shown(server, query)["state"] != "pending")


def test_a_question_outlives_the_server(page: Any, server: Any, graph: dict[str, Any]) -> None:
    graph["8"]["inputs"]["mode"] = "rate later"
    query = ask(page, graph)
    page.focus_question()
    page.press("l")
    server.kill9()
    page.wait_text("Connection lost", ".palate-header")
    page.press(Keys.ENTER)
    page.wait_text("does not answer", ".is-error")
    assert page.marks()[0] == "liked"  # nothing that was marked is lost
    server.start()
    page_module().until("the way back", lambda: "Connection lost" not in page.text())
    page.press(Keys.ENTER)
    page_module().until("the answer", lambda: shown(server, query)["state"] != "pending")
    record = shown(server, query)
    assert record["answer"]["ratings"][record["candidates"][0]["index"]] == 1


def test_a_stopped_run_leaves_its_question_open(
    page: Any, server: Any, graph: dict[str, Any]
) -> None:
    query = ask(page, graph)
    server.interrupt()
    until = page_module().until
    until("the run's end", lambda: not server.get("/prompt")["exec_info"]["queue_remaining"])
    page.focus_question()
    page.press("1", Keys.ENTER)
    until("the answer", lambda: shown(server, query)["state"] == "answered")
    page.wait_text("ready to be learnt from", ".palate-idle")
    page.click(".palate-idle [data-do=run]")
    assert page.question(other_than=query)


def test_rate_later_ends_the_run_and_the_next_one_learns(
    page: Any, server: Any, graph: dict[str, Any], profile: str
) -> None:
    graph["8"]["inputs"]["mode"] = "rate later"
    query = ask(page, graph)
    until = page_module().until
    until("the run's end", lambda: not server.get("/prompt")["exec_info"]["queue_remaining"])
    assert shown(server, query)["state"] == "pending"
    page.focus_question()
    page.press("1", Keys.ENTER)
    assert page.question(other_than=query)  # the panel ran the graph again
    until("the update", lambda: taste(server, profile)["active"] == 1)


@pytest.mark.parametrize("renderer", ["canvas", "vue"])
def test_the_node_shows_the_same_question(
    page: Any, server: Any, graph: dict[str, Any], renderer: str
) -> None:
    page.setting("Palate.OpenPanel", False)
    page.load(graph)
    page.setting("Comfy.VueNodes.Enabled", renderer == "vue")
    try:
        page.panel = page_module().NODE
        page.js(
            "const node = app.graph.nodes.find((n) => n.comfyClass === 'PalatePreferenceQuery');"
            "app.canvas.ds.scale = 0.9; app.canvas.centerOnNode(node);"
        )
        page.run()
        query = page.question()
        assert page.open_tab() is None
        page.screenshot(f"node-{renderer}")
        page.image(2).click()
        assert page.marks() == ["", "best", "", ""]
        assert page.has_focus()
        page.press("z", "4", Keys.ENTER)
        page_module().until("the answer", lambda: shown(server, query)["answer"])
        record = shown(server, query)
        assert record["answer"]["winner"] == record["candidates"][3]["index"]
        assert page.question(other_than=query)
    finally:
        page.setting("Palate.OpenPanel", True)
        page.setting("Comfy.VueNodes.Enabled", False)


def _boxes(page: Any) -> dict[str, Any]:
    """Left, top, right, bottom and width of the panel, its images and its buttons."""
    return page.js(
        "const box = (e) => { const r = e.getBoundingClientRect();"
        "  return [r.left, r.top, r.right, r.bottom, r.width]; };"
        "const panel = document.querySelector(arguments[0]);"
        "return { panel: box(panel), overflow: panel.scrollWidth - panel.clientWidth,"
        "  images: [...panel.querySelectorAll('.palate-image')].map(box),"
        "  controls: [...panel.querySelectorAll('button')].map(box) }",
        page.panel,
    )


def _is_filled(boxes: dict[str, Any]) -> bool:
    """Whether the images are as large as the panel allows; the page lays out a frame later."""
    left, top, right, bottom, _ = boxes["panel"]
    images = boxes["images"]
    across = sum(abs(box[1] - images[0][1]) < 1 for box in images)
    return across * images[0][4] >= 0.75 * min(right - left, 2.2 * (bottom - top))


@pytest.mark.parametrize("theme", ["dark", "light"])
@pytest.mark.parametrize("width", [320, 420, 1300])
def test_the_panel_fits_its_column(
    page: Any, graph: dict[str, Any], theme: str, width: int
) -> None:
    page.setting("Comfy.ColorPalette", theme)
    try:
        ask(page, graph)
        page.sidebar_width(width)
        page_module().until("the images at their size", lambda: _is_filled(_boxes(page)))
        page.screenshot(f"panel-{theme}-{width}")
        boxes = _boxes(page)
        left, top, right, bottom, _ = boxes["panel"]
        assert boxes["overflow"] <= 0
        for box in boxes["images"] + boxes["controls"]:
            assert left <= box[0]
            assert box[2] <= right + 0.5
        for box in boxes["images"]:  # all four are seen at once
            assert top <= box[1]
            assert box[3] <= bottom
    finally:
        page.setting("Comfy.ColorPalette", "dark")


def test_every_control_has_a_name_and_a_tooltip(page: Any, graph: dict[str, Any]) -> None:
    ask(page, graph)
    bare = page.js(
        "const controls = document.querySelectorAll(`${arguments[0]} :is(button, select, input)`);"
        "const name = (e) => e.getAttribute('aria-label') || e.innerText ||"
        "  e.closest('label')?.innerText;"
        "const tip = (e) => e.title || e.closest('label')?.title;"
        "return [...controls].filter((e) => !name(e) || !tip(e)).map((e) => e.outerHTML)",
        page.panel,
    )
    assert bare == []


def test_the_page_reports_no_error_of_the_panel(page: Any, graph: dict[str, Any]) -> None:
    page.driver.get_log("browser")
    markup = "a <b>fish</b> <img src=x onerror=document.title='broken'>"
    graph["3"]["inputs"]["text"] = markup
    query = ask(page, graph)
    assert page.text(".palate-prompt") == markup
    assert page.js("return document.title") != "broken"
    page.focus_question()
    page.press("f", "f", "1", Keys.ENTER)
    page.question(other_than=query)
    ours = [
        entry["message"]
        for entry in page.driver.get_log("browser")
        if entry["level"] == "SEVERE" and "/palate" in entry["message"]
    ]
    assert ours == []


def test_a_newcomer_is_told_what_to_do(page: Any) -> None:
    page.js("app.graph.clear()")
    page.toggle_tab()
    page_module().until("words", lambda: page.text(".palate-idle"))
    assert page.text(".palate-idle").strip()
    page.screenshot("panel-newcomer")


def page_module() -> Any:
    import sys

    return sys.modules["palate_tests_page"]
