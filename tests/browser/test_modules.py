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


def revisions(
    parents: list[int | None], drawn: tuple[int, ...] | range = ()
) -> list[dict[str, Any]]:
    """Revisions 0, 1, … of these parents; those in ``drawn`` have two previews."""
    return [
        {
            "revision": i,
            "parent": parent,
            "created": 1e9 + i,
            "ratings": i,
            "report": {"samples": 4, "drift": 0.1},
            "previews": [f"/{i}/0", f"/{i}/1"] if i in drawn else [],
            "thumbnail": f"/{i}/0" if i in drawn else None,
        }
        for i, parent in enumerate(parents)
    ]


# One line; a branch off 1 after going back; two branches off the base; a branch within a branch.
TREES = [
    [None, 0, 1, 2],
    [None, 0, 1, 2, 1, 4],
    [None, 0, 0, 0],
    [None, 0, 1, 1, 3, 2, 0, 5],
]


@pytest.mark.parametrize("parents", TREES, ids=str)
def test_the_rails_join_each_revision_to_its_parent_and_to_no_other(
    run: Run, parents: list[int | None]
) -> None:
    """Follows each line downwards, as the eye does, and compares where it ends with the parent."""
    newest_first = revisions(parents)[::-1]
    rails = run("panel/branches.js", "return m.rails(args[0], new Set())", newest_first)
    found: dict[int, int] = {}
    for start, rail in enumerate(rails):
        if rail["below"] is None:
            continue
        lane = rail["below"]["lane"]
        for row in range(start + 1, len(rails)):
            if lane in [line["lane"] for line in rails[row]["passing"]]:
                continue
            ends = [*rails[row]["joining"], *filter(None, [rails[row]["above"]])]
            assert lane in [line["lane"] for line in ends]
            found[newest_first[start]["revision"]] = newest_first[row]["revision"]
            break
    assert found == {i: parent for i, parent in enumerate(parents) if parent is not None}
    for rail in rails:  # nothing is drawn over anything else
        lanes = [rail["lane"], *[line["lane"] for line in rail["passing"] + rail["joining"]]]
        assert len(set(lanes)) == len(lanes)


def test_only_the_line_from_the_base_to_the_active_revision_is_lit(run: Run) -> None:
    parents = [None, 0, 1, 1, 3, 2]
    body = "return [...m.lineage(args[0], 4)].sort()"
    assert run("panel/branches.js", body, revisions(parents)) == [0, 1, 3, 4]
    body = "return m.rails(args[0], m.lineage(args[0], 4)).map((rail) => rail.below?.isLit)"
    lit = run("panel/branches.js", body, revisions(parents)[::-1])
    assert lit == [False, True, True, False, True, None]  # of 5, 4, 3, 2, 1 and the base


@pytest.mark.parametrize(
    ("drawn", "active", "chosen", "shown"),
    [
        (range(5), 4, (None, None), (0, 4)),
        (range(5), 2, (None, None), (0, 2)),
        (range(5), 0, (None, None), (0, 4)),  # two different ones, whatever is in use
        (range(2, 5), 4, (None, None), (2, 4)),  # the earliest that was drawn
        (range(2, 4), 2, (None, None), (2, 3)),
        ((), 4, (None, None), (0, 4)),
        ((), 0, (None, None), (0, 4)),
        (range(5), 4, (3, None), (3, 4)),
        (range(5), 4, (4, None), (4, 3)),
        (range(5), 4, (None, 0), (1, 0)),
        (range(5), 4, (3, 1), (3, 1)),
        (range(5), 4, (9, 9), (0, 4)),  # of another taste
    ],
)
def test_what_is_compared_unless_the_artist_chooses(
    run: Run, drawn: Any, active: int, chosen: tuple[int | None, ...], shown: tuple[int, int]
) -> None:
    profile = {"revisions": revisions([None, 0, 1, 2, 3], drawn), "active": active}
    pair = {"a": chosen[0], "b": chosen[1]}
    compared = run("panel/comparing.js", "return m.comparedPair(args[0], args[1])", profile, pair)
    assert (compared["a"], compared["b"]) == shown


def test_choosing_what_the_other_side_shows_changes_the_sides(run: Run) -> None:
    body = "return ['a', 'b'].map((side) => m.withSide({ a: 1, b: 2 }, side, args[0]))"
    for revision, expected in [
        (3, [{"a": 3, "b": 2}, {"a": 1, "b": 3}]),
        (2, [{"a": 2, "b": 1}, {"a": 1, "b": 2}]),
    ]:
        assert run("panel/comparing.js", body, revision) == expected


def test_hundreds_of_revisions_are_drawn_thirty_at_a_time_and_redrawn_in_place(run: Run) -> None:
    body = """
      const [revisions, path] = args;
      return import(path).then(({ h, morphChildren }) => {
        const root = document.body.appendChild(h('div', { style: { overflow: 'auto' } }));
        root.style.height = '300px';
        const state = { busy: false, past: [], seed: 0, pair: { a: null, b: null }, older: 30 };
        const profile = (count) => ({ revisions: revisions.slice(0, count), active: count - 1 });
        const draw = (count) =>
          morphChildren(root, [m.timeline(state, profile(count), (path) => path)]);
        const rows = () => root.querySelectorAll('.palate-revision');
        draw(500);
        const first = { rows: rows().length, lazy: [...root.querySelectorAll('img')]
          .every((image) => image.loading === 'lazy'), text: root.innerText };
        const button = root.querySelector('[data-key=revision-490] [data-do=revision]');
        button.focus();
        const kept = rows()[5];
        draw(501);
        const began = performance.now();
        for (let i = 0; i < 20; i += 1) draw(501);
        const took = (performance.now() - began) / 20;
        const second = { focus: document.activeElement === button, moved: rows()[6] === kept };
        state.older += 30;
        draw(501);
        const third = rows().length;
        root.remove();
        return { first, second, third, took };
      });
    """
    parents = [None, *range(600)]
    seen = run(
        "panel/views/timeline.js",
        body,
        revisions(parents, range(600)),
        "/extensions/palate/panel/dom.js",
    )
    assert seen["first"]["rows"] == 30
    assert seen["first"]["lazy"]
    assert "Show older (470)" in seen["first"]["text"]
    assert seen["second"] == {"focus": True, "moved": True}
    assert seen["third"] == 60
    assert seen["took"] < 200  # milliseconds, on a machine that is busy with other things


@pytest.mark.parametrize(
    ("drawn", "seed", "sides"),
    [
        ((2, 2), 1, ["/0/1", "/1/1"]),
        ((2, 2), 5, ["/0/1", "/1/1"]),  # as many seeds as there are, round and round
        ((2, 1), 1, ["/0/1", "No preview at this seed."]),
        ((2, 0), 0, ["/0/0", "No previews. Connect a VAE to PAPA Update to have previews drawn."]),
        ((0, 0), 0, ["Nothing is drawn yet. Connect a VAE to PAPA Update to have previews drawn."]),
    ],
)
def test_what_is_compared_is_at_one_seed_or_said_to_be_missing(
    run: Run, drawn: tuple[int, int], seed: int, sides: list[str]
) -> None:
    body = """
      const [revisions, seed] = args;
      const state = { pair: { a: 0, b: 1 }, seed, busy: false };
      const view = m.compare(state, { revisions, active: 1 }, (path) => path);
      return [...view.querySelectorAll('img, .palate-empty')]
        .map((e) => e.getAttribute('src') ?? e.textContent);
    """
    both = revisions([None, 0])
    for line, count in zip(both, drawn, strict=True):
        line["previews"] = [f"/{line['revision']}/{i}" for i in range(count)]
    assert run("panel/views/compare.js", body, both, seed) == sides


@pytest.mark.parametrize(
    ("values", "wired", "shown", "says"),
    [
        ([1], 0, "1.00", "Takes effect at the next run."),
        ([1, 1], 0, "1.00", "Takes effect at the next run."),
        ([1.5, 0], 1, "1.50", "The open graph has 1.50 and 0.00 for this taste"),
        ([-0.5], 0, "-0.50", "Takes effect at the next run."),  # the node goes below the slider
        ([], 2, "–", "over a wire"),
        ([], 0, "–", "no Taste Profile node for “<b>”"),
    ],
)
def test_the_strength_tells_where_it_comes_from(
    run: Run, values: list[float], wired: int, shown: str, says: str
) -> None:
    body = """
      const view = m.strength({ values: args[0], wired: args[1] }, '<b>');
      return [view.querySelector('output').textContent, view.querySelector('p').textContent,
        view.querySelector('input').disabled];
    """
    output, text, disabled = run("panel/views/strength.js", body, values, wired)
    assert output == shown
    assert says in text
    assert disabled == (not values)


@pytest.mark.parametrize(
    ("progress", "posted"),
    [
        (None, [["/palate/profiles/warm%20one/revision", {"revision": 1}]]),
        ({"profile": "warm one", "done": 1, "total": 6, "stage": "learning"}, []),
        (
            {"profile": "another", "done": 1, "total": 6, "stage": "learning"},
            [["/palate/profiles/warm%20one/revision", {"revision": 1}]],
        ),
    ],
)
def test_a_revision_is_not_changed_under_an_update_that_would_change_it_again(
    run: Run, progress: Any, posted: list[Any]
) -> None:
    body = """
      const [progress, revisions] = args;
      const profile = { name: 'warm one', revisions, active: 2, learnt: null, budget: null };
      const posted = [];
      const host = {
        get: async (path) => path.includes('profiles/') ? profile :
          { queries: [], profiles: [{ name: 'warm one', ratings: 1 }] },
        post: async (path, body) => void posted.push([path, body]),
        isRunning: async () => true, recall: () => null, remember: () => {},
        strength: () => ({ values: [1], wired: 0 }),
      };
      const controller = m.createController(host);
      return controller.refresh().then(() => {
        controller.state.progress = progress;
        return controller.useRevision(1);
      }).then(() => ({ posted, note: controller.state.note.text }));
    """
    seen = run("panel/controller.js", body, progress, revisions([None, 0, 1]))
    assert seen["posted"] == posted
    assert ("learning" in seen["note"]) == (not posted)


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
