"""The history of a taste in the real frontend: timeline, comparison, going back, strength."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlencode

import pytest
from selenium.webdriver.common.keys import Keys

pytestmark = [pytest.mark.browser, pytest.mark.comfyui]

HISTORY = "[data-fold=history]"
SLIDER = f"{HISTORY} input[type=range]"
STRENGTH = (
    "app.graph.nodes.find((n) => n.comfyClass === 'PalateTasteProfile')"
    ".widgets.find((w) => w.name === 'strength')"
)


@pytest.fixture
def drawing(page: Any, graph: dict[str, Any]) -> dict[str, Any]:
    """The loop, each revision drawing two previews; it runs only when the test says so."""
    graph["9"]["inputs"].update({"vae": ["1", 2], "previews": 2, "preview_steps": 2})
    page.load(graph)
    page.toggle_tab()
    page.click("[data-change=keep]")
    yield graph
    page.setting("Palate.KeepAsking", True)
    page.setting("Comfy.ColorPalette", "dark")


def learn(page: Any, server: Any, profile: str, revision: int) -> None:
    """One round: the first image is the best one."""
    page.run()
    page.question()
    page.focus_question()
    page.press("1", Keys.ENTER)
    page_module().until(
        f"revision {revision}",
        lambda: taste(server, profile)["active"] == revision,
    )
    page_module().until(
        "the run's end", lambda: not server.get("/prompt")["exec_info"]["queue_remaining"]
    )


def taste(server: Any, profile: str) -> dict[str, Any]:
    return dict(server.get(f"/palate/profiles/{quote(profile)}"))


def draw(server: Any, graph: dict[str, Any]) -> list[bytes]:
    """What the model draws now, at the graph's seed, without asking anything."""
    nodes = {id: node for id, node in graph.items() if int(id) <= 7}
    nodes["12"] = {"class_type": "PreviewImage", "inputs": {"images": ["7", 0]}}
    images = server.wait(server.queue(nodes))["outputs"]["12"]["images"]
    return [server.fetch(f"/view?{urlencode(image)}") for image in images]


def rows(page: Any) -> list[dict[str, Any]]:
    """The timeline as it is seen, once its pictures are loaded."""
    return page.js(
        "const rows = [...document.querySelectorAll(arguments[0])].map((li) => {"
        "  const image = li.querySelector('.palate-looks .is-shown');"
        "  return { text: li.innerText, active: li.getAttribute('aria-current') === 'true',"
        "    joins: li.querySelectorAll('.is-joining').length,"
        "    image: image?.naturalWidth ? new URL(image.src).pathname : null } });"
        "return rows.every((row) => row.image) ? rows : []",
        f"{page.panel} .palate-revision",
    )


def pair(page: Any) -> list[str]:
    """The paths of the two images that are compared, once they are loaded."""
    return page.js(
        "const all = [...document.querySelectorAll(arguments[0])];"
        "const ready = all.every((i) => i.complete && i.naturalWidth > 0);"
        "return ready ? all.map((i) => new URL(i.src).pathname) : []",
        f"{page.panel} .palate-side img",
    )


def place(profile: str, revision: int, seed: int) -> str:
    return f"/api/palate/profiles/{quote(profile)}/revisions/{revision}/preview/{seed}"


def wait_pair(page: Any, profile: str, a: int, b: int, seed: int) -> None:
    expected = [place(profile, a, seed), place(profile, b, seed)]
    page_module().until(f"{a} beside {b} at seed {seed}", lambda: pair(page) == expected)


def test_an_artist_looks_back_compares_and_goes_back(
    page: Any, server: Any, drawing: dict[str, Any], profile: str
) -> None:
    until = page_module().until
    base = draw(server, drawing)
    learn(page, server, profile, 1)
    taught = draw(server, drawing)
    assert taught != base
    page.sidebar_width(460)
    page.click(f"{HISTORY} summary")
    drawn = [place(profile, revision, 0) for revision in (1, 0)]
    until("the timeline's pictures", lambda: [row["image"] for row in rows(page)] == drawn)
    shown = rows(page)
    assert [(row["text"].split("\n")[0], row["active"]) for row in shown] == [
        ("Revision 1", True),
        ("Base", False),
    ]
    assert "images" in shown[0]["text"]
    assert "drift" in shown[0]["text"]

    # the base beside the revision in use, at the same seed; then at the other one
    wait_pair(page, profile, 0, 1, seed=0)
    before, after = (server.fetch(path) for path in pair(page))
    assert before != after
    page.wait_text("Seed 1 of 2", HISTORY)
    page.click(f"{HISTORY} [aria-label='Next seed']")
    wait_pair(page, profile, 0, 1, seed=1)
    assert "Seed 2 of 2" in page.text(HISTORY)
    assert page.focused() == "Next seed"  # a redraw leaves the focus where it is
    page.press(",")
    wait_pair(page, profile, 0, 1, seed=0)
    page.press(".", ".")
    wait_pair(page, profile, 0, 1, seed=0)

    # back to the base, and on from there: a branch
    page.click("[data-key=revision-0] [data-do=revision]")
    page.wait_text("now uses the base", ".palate-note")
    assert taste(server, profile)["active"] == 0
    assert draw(server, drawing) == base
    until("the mark", lambda: [row["active"] for row in rows(page)] == [False, True])
    assert page.focused() == "Base is in use"
    learn(page, server, profile, 2)
    until("the branch", lambda: len(rows(page)) == 3)
    shown = rows(page)
    assert "branched off the base" in shown[0]["text"]
    assert "branched" not in shown[1]["text"]
    assert [row["joins"] for row in shown] == [0, 0, 1]

    # any two, chosen in the timeline or by name; and from there one of them
    wait_pair(page, profile, 0, 2, seed=0)
    page.click("[data-key=revision-1] [data-do=compare-a]")
    wait_pair(page, profile, 1, 2, seed=0)
    assert page.focused() == "Compare: revision 1 as A"
    page.find("[data-change=compare-b]").send_keys("Base")
    wait_pair(page, profile, 1, 0, seed=0)
    page.click("[data-key=revision-2] .palate-looks .is-shown")
    wait_pair(page, profile, 2, 0, seed=0)
    page.click("[data-key=revision-1] .palate-looks .is-shown")
    page.click("[data-key=side-a] [data-do=revision]")
    until("revision 1 in use", lambda: taste(server, profile)["active"] == 1)
    assert draw(server, drawing) == taught
    _check_looks(page)


def test_the_strength_is_that_of_the_open_graph(
    page: Any, server: Any, drawing: dict[str, Any], profile: str
) -> None:
    until = page_module().until
    begins = {**{id: drawing[id] for id in ("1", "2")}, **_shown(["2", 1])}
    server.wait(server.queue(begins))
    until("the taste", lambda: _choose(page, profile))
    page.click(f"{HISTORY} summary")
    page.wait_text("1.00", HISTORY)

    def value() -> float:
        return float(page.js(f"return {STRENGTH}.value"))

    page.js("document.querySelector(arguments[0]).focus()", f"{page.panel} {SLIDER}")
    page.press(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    until("0.90 in the node", lambda: abs(value() - 0.9) < 1e-6)
    page.wait_text("0.90", HISTORY)
    page.press(Keys.END)
    until("2.00 in the node", lambda: value() == 2.0)
    assert page.js("return document.activeElement.type") == "range"
    page.run()
    sent = until("the run", lambda: _prompts(server, profile))
    assert sent[-1]["2"]["inputs"]["strength"] == 2.0

    # what is changed in the node shows in the panel
    page.js(
        f"const w = {STRENGTH}; w.setValue(0.35, {{ e: {{}}, node: w.node, canvas: app.canvas }});"
        "window.dispatchEvent(new MouseEvent('mouseup'))"
    )
    page.wait_text("0.35", HISTORY)
    assert page.find(SLIDER).get_attribute("value") == "0.35"

    # in a subgraph it is the same; but a muted one does not run
    page.js(
        "const taste = app.graph.nodes.find((n) => n.comfyClass === 'PalateTasteProfile');"
        "window.outer = app.graph.convertToSubgraph(new Set([taste])).node;"
    )
    page.js("document.querySelector(arguments[0]).focus()", f"{page.panel} {SLIDER}")
    page.press(Keys.ARROW_RIGHT)
    page.wait_text("0.40", HISTORY)
    queued = "return app.graphToPrompt().then(({ output }) => Object.values(output)"
    queued += ".find((n) => n.class_type === 'PalateTasteProfile').inputs.strength)"
    assert abs(page.js(queued) - 0.4) < 1e-6
    page.js("window.outer.mode = 2; window.dispatchEvent(new MouseEvent('mouseup'))")
    page.wait_text("no Taste Profile node", HISTORY)
    page.load(drawing)
    page.wait_text("1.00", HISTORY)

    # a wire, or no node at all, is told
    page.js(
        "const value = LiteGraph.createNode('PrimitiveFloat'); app.graph.add(value);"
        "const taste = app.graph.nodes.find((n) => n.comfyClass === 'PalateTasteProfile');"
        "value.connect(0, taste, taste.inputs.findIndex((i) => i.name === 'strength'));"
        "window.dispatchEvent(new MouseEvent('mouseup'))"
    )
    page.wait_text("over a wire", HISTORY)
    assert not page.find(SLIDER).is_enabled()
    page.js("app.graph.clear(); window.dispatchEvent(new MouseEvent('mouseup'))")
    page.wait_text("no Taste Profile node", HISTORY)
    assert not page.find(SLIDER).is_enabled()


def _shown(wire: list[Any]) -> dict[str, Any]:
    return {"12": {"class_type": "PreviewAny", "inputs": {"source": wire}}}


def _choose(page: Any, profile: str) -> bool:
    """Whether the panel shows that taste; it is chosen if there are several."""
    return bool(
        page.js(
            "const list = document.querySelector(arguments[0]);"
            "if (!list?.options) return list?.textContent === arguments[1];"
            "const isThere = [...list.options].some((option) => option.value === arguments[1]);"
            "if (!isThere || list.value === arguments[1]) return isThere;"
            "list.value = arguments[1];"
            "list.dispatchEvent(new Event('change', { bubbles: true }));",
            f"{page.panel} :is(h2, .palate-profile)",
            profile,
        )
    )


def _prompts(server: Any, profile: str) -> list[dict[str, Any]]:
    """The graphs of that taste that the server runs or ran, as they were queued."""
    queue = server.get("/queue")
    entries = [*queue["queue_running"], *queue["queue_pending"]]
    entries += [entry["prompt"] for entry in server.get("/history").values()]
    graphs = [entry[2] for entry in sorted(entries, key=lambda entry: entry[0])]
    return [g for g in graphs if "8" in g and g["2"]["inputs"]["name"] == profile]


def _check_looks(page: Any) -> None:
    """Every control is named and within the panel, at each width and in both themes."""
    for theme, width in (
        ("dark", 280),
        ("dark", 320),
        ("dark", 460),
        ("light", 320),
        ("light", 1300),
    ):
        page.setting("Comfy.ColorPalette", theme)
        page.sidebar_width(width)
        page.js("document.querySelector(arguments[0]).scrollIntoView()", f"{page.panel} {HISTORY}")
        page_module().until("the timeline", lambda: rows(page))
        page.screenshot(f"timeline-{theme}-{width}")
        problems = page.js(
            "const panel = document.querySelector(arguments[0]);"
            "const all = `${arguments[1]} :is(button, select, input, img)`;"
            "const out = [...panel.querySelectorAll(all)].filter((e) => e.offsetWidth)"
            ".filter((e) => { const r = e.getBoundingClientRect();"
            "    const { left, right } = (e.closest('ol') ?? panel).getBoundingClientRect();"
            "    const isClipped = e.closest('.palate-thumbs');"
            "    return !isClipped && (r.left < left || r.right > right + 0.5) });"
            "const name = (e) => e.getAttribute('aria-label') || e.innerText ||"
            "  e.closest('label')?.innerText;"
            "const tip = (e) => e.title || e.closest('label')?.title;"
            "const bare = [...panel.querySelectorAll(`${arguments[1]} :is(button, select, input)`)]"
            "  .filter((e) => !name(e) || !tip(e));"
            "return [...out, ...bare].map((e) => e.outerHTML)",
            page.panel,
            HISTORY,
        )
        assert problems == [], (theme, width)
        overflow = (
            "const p = document.querySelector(arguments[0]); return p.scrollWidth - p.clientWidth"
        )
        assert page.js(overflow, page.panel) <= 0


def page_module() -> Any:
    import sys

    return sys.modules["palate_tests_page"]
