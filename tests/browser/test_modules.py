"""The panel's modules one by one, in Chromium but without ComfyUI's frontend around them."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.comfyui]

WEB = Path(__file__).resolve().parents[2] / "web"
PURE = sorted(path.relative_to(WEB).as_posix() for path in (WEB / "panel").rglob("*.js"))
Run = Callable[..., Any]


@pytest.fixture(scope="module")
def run(server: Any, browser: Any) -> Iterator[Run]:
    """``run(module, body, *arguments)``: evaluates ``body`` with the module as ``m``."""
    browser.get(f"{server.url}/extensions/palate/panel.css")  # any page of this origin

    def call(module: str, body: str, *arguments: Any) -> Any:
        script = (
            "const [path, body, args, done] = arguments;"
            "import(path).then((m) => new Function('m', 'args', body)(m, args))"
            "  .then((value) => done({ value }), (error) => done({ error: String(error) }));"
        )
        path = f"/extensions/palate/{module}"
        result = browser.execute_async_script(script, path, body, list(arguments))
        assert "error" not in result, result["error"]
        return result.get("value")

    yield call
    browser.get("about:blank")


def question(count: int = 3, kinds: tuple[str, ...] = ("pick", "rate", "skip")) -> dict[str, Any]:
    candidates = [{"index": i, "image_url": f"/{i}", "prompt": ""} for i in range(count)]
    return {"id": "q", "kinds": list(kinds), "candidates": candidates[::-1]}


def marks(**given: Any) -> dict[str, Any]:
    return {"best": None, "ratings": {}, "ranking": [], **given}


@pytest.mark.parametrize("module", PURE)
def test_every_module_but_the_entry_loads_without_side_effects(run: Run, module: str) -> None:
    before = run("panel/types.js", "return document.documentElement.outerHTML")
    run(module, "return null")
    assert run("panel/types.js", "return document.documentElement.outerHTML") == before


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        (marks(), None),
        (marks(best=2), {"kind": "pick", "winner": 2}),
        (marks(best=0), {"kind": "pick", "winner": 0}),
        (marks(ratings={"0": 1}), {"kind": "rate", "ratings": [1, None, None]}),
        (marks(ratings={"2": -1, "1": 1}), {"kind": "rate", "ratings": [None, 1, -1]}),
    ],
)
def test_marks_make_an_answer(run: Run, given: Any, answer: Any) -> None:
    body = "return m.answerOf(args[0], args[1])"
    assert run("panel/marks.js", body, question(), given) == answer


def test_a_question_that_asks_for_an_order_takes_clicks_in_order(run: Run) -> None:
    asked = question(3, ("rank", "skip"))
    body = (
        "let marks = m.noMarks(); const seen = [];"
        "for (const i of args[1]) { marks = m.toggleRank(marks, i);"
        "  seen.push([m.clickMeaning(args[0], marks), m.answerOf(args[0], marks)]); }"
        "return seen"
    )
    seen = run("panel/marks.js", body, asked, [2, 0])
    assert seen == [["rank", None], ["rank", {"kind": "rank", "order": [2, 0, 1]}]]


@pytest.mark.parametrize(
    ("kinds", "given", "meaning"),
    [
        (("pick", "rate"), marks(), "best"),
        (("pick", "rate"), marks(best=1), "best"),
        (("pick", "rate"), marks(ratings={"1": -1}), "like"),
        (("pick",), marks(), "best"),
        (("rate",), marks(), "like"),
        (("rank",), marks(), "rank"),
        (("pick", "rank", "rate", "skip"), marks(), "best"),
    ],
)
def test_a_click_means_what_the_question_takes(
    run: Run, kinds: tuple[str, ...], given: Any, meaning: str
) -> None:
    body = "return m.clickMeaning(args[0], args[1])"
    assert run("panel/marks.js", body, question(3, kinds), given) == meaning


def test_rating_an_image_twice_takes_the_rating_back(run: Run) -> None:
    body = (
        "let marks = m.noMarks(); const seen = [];"
        "for (const [i, v] of args[0]) { marks = m.toggleRating(marks, i, v); seen.push(marks); }"
        "return seen.map((marks) => marks.ratings)"
    )
    steps = [[0, 1], [0, -1], [1, 1], [0, -1]]
    expected = [{"0": 1}, {"0": -1}, {"0": -1, "1": 1}, {"1": 1}]
    assert run("panel/marks.js", body, steps) == expected


def test_the_grid_shows_the_images_as_large_as_the_space_allows(run: Run) -> None:
    choose = random.Random(0)
    spaces = [
        {
            "width": choose.randint(200, 1600),
            "height": choose.randint(150, 1400),
            "count": choose.randint(1, 9),
            "aspect": choose.choice([0.5, 0.75, 1, 1.5, 2]),
            "extra": choose.choice([0, 38]),
        }
        for _ in range(300)
    ]
    grids = run("panel/layout.js", "return args[0].map(m.largestGrid)", spaces)
    gap, smallest, fitting = 8, 112, 0

    def size(space: dict[str, Any], columns: int) -> int:
        rows = -(-space["count"] // columns)
        across = (space["width"] - gap * (columns - 1)) / columns
        down = ((space["height"] - gap * (rows - 1)) / rows - space["extra"]) * space["aspect"]
        return int(min(across, down) // 1)

    for space, grid in zip(spaces, grids, strict=True):
        assert grid["columns"] * grid["size"] + gap * (grid["columns"] - 1) <= space["width"]
        largest = max(size(space, columns) for columns in range(1, space["count"] + 1))
        if largest >= smallest:
            fitting += 1
            assert grid["size"] == largest == size(space, grid["columns"])
        else:  # too small to judge: the column scrolls instead
            assert grid["size"] >= smallest
    assert 100 < fitting < 300


def test_text_is_never_read_as_markup(run: Run) -> None:
    body = (
        "const p = m.h('p', { title: args[0] }, args[0]);"
        "return [p.children.length, p.textContent, p.title]"
    )
    text = "<img src=x onerror=alert(1)>"
    assert run("panel/dom.js", body, text) == [0, text, text]


def test_redrawing_keeps_the_elements_it_can(run: Run) -> None:
    body = """
      const { h, morphChildren } = m;
      const root = document.body.appendChild(document.createElement('div'));
      const draw = (keys, label) => morphChildren(root, [...keys].map((key) =>
        h('button', { 'data-key': key, title: label }, label, key)));
      const elements = () => new Map([...root.children].map((e) => [e.dataset.key, e]));
      draw(['a', 'b', 'c'], 'one');
      const seen = [];
      for (const keys of args[0]) {
        const before = elements();
        draw(keys, 'two');
        seen.push([...root.children].map((e) => e.dataset.key).join(''));
        seen.push([...elements()].every(([key, e]) => (before.get(key) ?? e) === e));
      }
      draw(['b'], '');
      const text = root.textContent;
      root.remove();
      return { seen, text };
    """
    orders = ["".join(order) for n in (1, 2, 3) for order in itertools.permutations("bcd", n)]
    orders = [order for order in orders if "b" in order]
    result = run("panel/dom.js", body, orders)
    assert result["seen"] == [item for order in orders for item in (order, True)]
    assert result["text"] == "b"


def test_redrawing_what_stands_before_keeps_focus_and_scrolling(run: Run) -> None:
    body = """
      const { h, morphChildren } = m;
      const root = document.body.appendChild(document.createElement('div'));
      const draw = (first) => morphChildren(root, [
        ...first.map((key) => h('section', { 'data-key': key }, key)),
        h('div', { 'data-key': 'below', style: { height: '50px', overflow: 'auto' } },
          h('button', {}, 'go on'), h('p', { style: { height: '500px' } }, 'long'))]);
      draw(['a']);
      root.querySelector('button').focus();
      root.lastChild.scrollTop = 120;
      const seen = [];
      for (const first of args[0]) {
        draw(first);
        seen.push([document.activeElement.textContent, root.lastChild.scrollTop]);
      }
      root.remove();
      return seen;
    """
    firsts = [["b"], ["a", "b"], ["b", "c"], [], ["d", "a", "c"]]
    assert run("panel/dom.js", body, firsts) == [["go on", 120]] * len(firsts)


@pytest.mark.parametrize(
    ("key", "held", "target", "taken"),
    [
        ("z", "", "button", True),
        ("z", "ctrlKey", "button", False),
        ("s", "metaKey", "button", False),
        ("1", "altKey", "button", False),
        ("z", "", "input", False),
        ("l", "", "textarea", False),
        ("s", "", "select", False),
        ("q", "", "button", False),
        ("Tab", "", "button", False),
        ("7", "", "button", False),  # there are three images
        ("3", "", "button", True),
        ("ArrowLeft", "", "button", True),
        ("Escape", "", "button", False),
    ],
)
def test_only_the_panels_own_keys_are_taken(
    run: Run, key: str, held: str, target: str, taken: bool
) -> None:
    body = """
      const [key, held, tag, query, marks] = args;
      const element = document.createElement(tag);
      const event = new KeyboardEvent('keydown', { key, ...(held ? { [held]: true } : {}) });
      element.dispatchEvent(event);
      const nothing = () => {};
      const controller = { state: { query, marks, focus: 0, zoom: false }, undo: nothing,
        skip: nothing, rate: nothing, pick: nothing, focus: nothing, submit: nothing,
        toggleZoom: nothing };
      return m.handleKey(controller, event, 2);
    """
    assert run("panel/keys.js", body, key, held, target, question(), marks()) is taken


def test_only_host_js_knows_the_frontend() -> None:
    for path in [*(WEB / "panel").rglob("*.js"), WEB / "palate.js"]:
        source = path.read_text(encoding="utf-8")
        assert "scripts/app.js" not in source, path
        assert "scripts/api.js" not in source, path
        assert "innerHTML" not in source, path
        assert source.startswith("// @ts-check"), path


def test_each_node_has_its_help_and_its_names(server: Any) -> None:
    locales = WEB.parent / "locales" / "en"
    definitions = json.loads((locales / "nodeDefs.json").read_text(encoding="utf-8"))
    nodes = {k: v for k, v in server.object_info().items() if k.startswith("Palate")}
    assert set(definitions) <= set(nodes)
    for name, node in nodes.items():
        help_page = WEB / "docs" / f"{name}.md"
        assert help_page.is_file(), f"{name} has no help page"
        text = help_page.read_text(encoding="utf-8")
        assert text.startswith(f"# {node['display_name']}\n")
        inputs = [*node["input"].get("required", {}), *node["input"].get("optional", {})]
        for word in [*inputs, *node["output_name"]]:
            assert word in text, f"{help_page.name} does not explain {word!r}"
        given = definitions[name]
        assert given["display_name"] == node["display_name"]
        assert set(given.get("inputs", {})) <= set(inputs)
        assert [o["name"] for o in given["outputs"].values()] == node["output_name"]


def test_settings_and_commands_have_their_names() -> None:
    locales = WEB.parent / "locales" / "en"
    source = (WEB / "palate.js").read_text(encoding="utf-8")
    for file in ("settings", "commands"):
        for key in json.loads((locales / f"{file}.json").read_text(encoding="utf-8")):
            assert f'id: "{key.replace("_", ".")}"' in source
