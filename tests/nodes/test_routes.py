"""The panel's HTTP API, over a real profile store on disk."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
from collections.abc import Awaitable, Callable
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import torch
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from filelock import FileLock
from palate.core.profile import ProfileStore, Query
from palate.core.words.lexicon import FILE, Lexicon
from palate.core.words.plan import Plan
from palate.core.words.vocabulary import parse_vocabulary
from palate.nodes.routes import MAX_BODY, register
from PIL import Image

JSON = {"Content-Type": "application/json"}
HOSTILE_IDS = ["..", "%2e%2e", "..%2f..%2fetc%2fpasswd", "a%00b", "x" * 300, "%F0%9F%8E%A8", "'--"]


class ServerDouble:
    """Stands in for ComfyUI's server object: a route table and a record of the events sent."""

    def __init__(self) -> None:
        self.routes = web.RouteTableDef()
        self.events: list[tuple[str, dict[str, Any], str | None]] = []

    def send_sync(self, event: str, data: dict[str, Any], sid: str | None = None) -> None:
        self.events.append((event, data, sid))


class Panel:
    """What a test sees: the store, a client of the routes, the events, and who was woken."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = ProfileStore(root)
        self.server = ServerDouble()
        self.woken: list[str] = []
        register(self.server, self.store, on_answer=self.woken.append)
        self.client: TestClient[Any, Any]

    def ask(self, seed: int = 0, profile: str = "warm", count: int = 3, **options: Any) -> Query:
        generator = torch.Generator().manual_seed(seed)
        images = torch.rand(count, 8, 8, 3, generator=generator)
        latents = {"latent": torch.rand(count, 4, 2, 2, generator=generator)}
        prompts = [f"prompt {i}" for i in range(count)]
        taste = self.store.open(profile)
        return taste.ask(images, latents, prompts, generator=generator, **options)

    def learn(self, profile: str = "warm") -> int:
        taste = self.store.open(profile)
        used = [query.id for query in taste.waiting()]
        weights = {"a": torch.ones(1)}
        return taste.commit_revision(
            weights, {}, used=used, report={"loss": 0.5}, metadata={}
        ).number

    async def get(self, path: str, status: int = 200) -> dict[str, Any]:
        response = await self.client.get(path)
        return await self._checked(response, status)

    async def post(
        self, path: str, body: object, status: int = 200, headers: dict[str, str] | None = None
    ) -> dict[str, Any]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        response = await self.client.post(path, data=data, headers={**JSON, **(headers or {})})
        return await self._checked(response, status)

    async def answer(self, query: Query, body: object, status: int = 200) -> dict[str, Any]:
        return await self.post(f"/palate/queries/{query.id}/answer", body, status)

    @staticmethod
    async def _checked(response: Any, status: int) -> dict[str, Any]:
        text = await response.text()
        assert response.status == status, text
        assert response.content_type == "application/json"
        data = json.loads(text)
        if status >= 400:
            assert set(data) == {"error"}
            assert isinstance(data["error"], str)
            assert data["error"]
        return data


def with_panel(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Runs an async test over a fresh panel whose profiles lie in ``tmp_path``."""

    @wraps(test)
    def run(tmp_path: Path, **arguments: Any) -> None:
        async def scenario() -> None:
            panel = Panel(tmp_path / "palate")
            app = web.Application(client_max_size=10 * MAX_BODY)
            app.add_routes(panel.server.routes)
            async with TestClient(TestServer(app)) as panel.client:
                await test(panel, **arguments)
            panel.store.close()

        asyncio.run(scenario())

    del run.__wrapped__  # pytest is to see tmp_path, not panel
    return run


def with_panel_over(name: str, values: list[Any]) -> Callable[..., Any]:
    """The same, once for each value of one argument."""

    def decorate(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
        run = with_panel(test)

        @pytest.mark.parametrize("value", values, ids=lambda value: ascii(value)[:40])
        def each(tmp_path: Path, value: Any) -> None:
            run(tmp_path, **{name: value})

        each.__name__ = test.__name__
        each.__doc__ = test.__doc__
        return each

    return decorate


def files_below(root: Path) -> dict[str, int]:
    return {
        str(path.relative_to(root)): path.stat().st_mtime_ns
        for path in root.rglob("*")
        if path.is_file()
    }


# -- reading -----------------------------------------------------------------------------------


@with_panel
async def test_an_empty_store_lists_nothing_and_stays_unwritten(panel: Panel) -> None:
    assert await panel.get("/palate/queries") == {"queries": []}
    assert await panel.get("/palate/profiles") == {"profiles": []}
    assert not panel.root.exists()


@with_panel
async def test_pending_queries_come_oldest_first_from_every_profile(panel: Panel) -> None:
    asked = [panel.ask(0, "warm"), panel.ask(1, "dark"), panel.ask(2, "warm")]
    listed = (await panel.get("/palate/queries?state=pending"))["queries"]
    assert [query["id"] for query in listed] == [query.id for query in asked]
    assert (await panel.get("/palate/queries"))["queries"] == listed
    await panel.answer(asked[0], {"kind": "skip"})
    left = (await panel.get("/palate/queries"))["queries"]
    assert [query["id"] for query in left] == [asked[1].id, asked[2].id]


@with_panel
async def test_a_query_shows_its_candidates_in_the_recorded_order(panel: Panel) -> None:
    orders = set()
    for seed in range(6):
        query = panel.ask(seed, count=4)
        shown = await panel.get(f"/palate/queries/{query.id}")
        indices = [candidate["index"] for candidate in shown["candidates"]]
        assert indices == list(query.order)
        assert [c["prompt"] for c in shown["candidates"]] == [f"prompt {i}" for i in indices]
        orders.add(tuple(indices))
    assert len(orders) > 1  # shuffled, or the comparison above would prove nothing


@with_panel
async def test_a_query_has_the_fields_of_the_contract(panel: Panel) -> None:
    query = panel.ask()
    shown = await panel.get(f"/palate/queries/{query.id}")
    expected = {"id", "profile", "round", "state", "kinds", "candidates", "answer", "created"}
    assert set(shown) == expected | {"used_by"}
    assert (shown["profile"], shown["round"], shown["state"]) == ("warm", 1, "pending")
    assert set(shown["kinds"]) == {"pick", "rate", "skip"}
    assert shown["answer"] is None
    assert shown["used_by"] is None
    await panel.answer(query, {"kind": "pick", "winner": 2})
    number = panel.learn()
    shown = await panel.get(f"/palate/queries/{query.id}")
    assert shown["answer"] == {"kind": "pick", "winner": 2}
    assert (shown["state"], shown["used_by"]) == ("used", number)


@with_panel
async def test_used_queries_of_one_profile_can_be_listed_for_its_history(panel: Panel) -> None:
    used, other = panel.ask(0), panel.ask(1, "dark")
    await panel.answer(used, {"kind": "pick", "winner": 0})
    await panel.answer(other, {"kind": "pick", "winner": 0})
    panel.learn()
    listed = (await panel.get("/palate/queries?state=used&profile=warm"))["queries"]
    assert [query["id"] for query in listed] == [used.id]
    everything = (await panel.get("/palate/queries?state=all&profile=dark"))["queries"]
    assert [query["id"] for query in everything] == [other.id]


@with_panel_over(
    "query",
    ["state=everything", "state=used", "state=", "state=pending%00", "state=used&profile=..%2fx"],
)
async def test_a_listing_that_makes_no_sense_is_refused(panel: Panel, query: str) -> None:
    panel.ask()
    await panel.get(f"/palate/queries?{query}", 400)


@with_panel
async def test_profiles_are_listed_with_their_numbers(panel: Panel) -> None:
    await panel.answer(panel.ask(0), {"kind": "pick", "winner": 1})
    panel.learn()
    panel.ask(1)
    panel.ask(2, "dark")
    listed = (await panel.get("/palate/profiles"))["profiles"]
    nothing_wrong = {"busy": False, "error": None}
    dark = {"name": "dark", "ratings": 0, "rounds": 0, "revision": 0, "pending": 1}
    warm = {"name": "warm", "ratings": 3, "rounds": 1, "revision": 1, "pending": 1}
    assert listed == [{**dark, **nothing_wrong}, {**warm, **nothing_wrong}]


@with_panel
async def test_one_profile_tells_its_revisions(panel: Panel) -> None:
    await panel.answer(panel.ask(0), {"kind": "pick", "winner": 1})
    panel.learn()
    shown = await panel.get("/palate/profiles/warm")
    assert (shown["name"], shown["ratings"], shown["rounds"]) == ("warm", 3, 1)
    assert shown["active"] == 1
    assert [(r["revision"], r["parent"]) for r in shown["revisions"]] == [(0, None), (1, 0)]
    assert shown["revisions"][1]["report"] == {"loss": 0.5}
    assert "learnt" in shown


@with_panel
async def test_a_damaged_profile_does_not_hide_the_others(panel: Panel) -> None:
    panel.ask(0, "good")
    panel.ask(1, "bad")
    panel.store.close()
    (panel.root / "bad" / "profile.sqlite").write_bytes(b"not a database" * 100)
    listed = {line["name"]: line for line in (await panel.get("/palate/profiles"))["profiles"]}
    assert listed["good"]["pending"] == 1
    assert listed["bad"]["pending"] is None
    assert listed["bad"]["error"]
    await panel.get("/palate/profiles/bad", 500)
    assert len((await panel.get("/palate/queries"))["queries"]) == 1


@with_panel
async def test_reading_writes_nothing(panel: Panel) -> None:
    query = panel.ask()
    before = files_below(panel.root)
    shown = await panel.get(f"/palate/queries/{query.id}")
    await panel.get("/palate/queries")
    await panel.get("/palate/profiles")
    await panel.get("/palate/profiles/warm")
    for candidate in shown["candidates"]:
        assert (await panel.client.get(candidate["image_url"])).status == 200
    assert files_below(panel.root) == before
    assert panel.server.events == []
    assert panel.woken == []


@with_panel
async def test_looking_does_not_keep_a_profile_from_another_comfyui(panel: Panel) -> None:
    query = panel.ask()
    panel.store.close()
    await panel.get("/palate/queries")
    for candidate in (await panel.get(f"/palate/queries/{query.id}"))["candidates"]:
        assert (await panel.client.get(candidate["image_url"])).status == 200
    await panel.get("/palate/profiles/warm")
    await panel.answer(query, {"kind": "skip"})
    with FileLock(panel.root / "warm" / "profile.lock", timeout=0):
        listed = (await panel.get("/palate/profiles"))["profiles"]
    assert [(line["name"], line["busy"]) for line in listed] == [("warm", True)]


@with_panel
async def test_a_profile_in_use_elsewhere_is_409_with_the_reason(panel: Panel) -> None:
    query = panel.ask()
    assert len((await panel.get("/palate/queries"))["queries"]) == 1
    panel.store.close()
    with FileLock(panel.root / "warm" / "profile.lock", timeout=0):
        await panel.get("/palate/profiles/warm", 409)
        await panel.answer(query, {"kind": "skip"}, 409)
        await panel.post("/palate/profiles/warm/revision", {"revision": 0}, 409)
        assert (await panel.get("/palate/queries"))["queries"] == []
    await panel.answer(query, {"kind": "skip"})


# -- images --------------------------------------------------------------------------------------


@with_panel
async def test_images_are_the_candidates_own_pngs(panel: Panel) -> None:
    query = panel.ask()
    for candidate in (await panel.get(f"/palate/queries/{query.id}"))["candidates"]:
        response = await panel.client.get(candidate["image_url"])
        assert response.status == 200
        assert response.content_type == "image/png"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert "immutable" in response.headers["Cache-Control"]
        body = await response.read()
        assert body == query.candidates[candidate["index"]].image.read_bytes()
        assert Image.open(io.BytesIO(body)).size == (8, 8)


@with_panel_over("index", ["3", "-1", "00", "0.png", "1e0", "..", "%2e%2e%2fprofile.sqlite", "x"])
async def test_an_image_that_is_not_there_is_404(panel: Panel, index: str) -> None:
    query = panel.ask()
    response = await panel.client.get(f"/palate/queries/{query.id}/image/{index}")
    assert response.status == 404


@with_panel
async def test_an_image_whose_file_was_removed_is_404_with_the_reason(panel: Panel) -> None:
    query = panel.ask()
    query.candidates[1].image.unlink()
    await panel.get(f"/palate/queries/{query.id}/image/1", 404)


# -- answers -------------------------------------------------------------------------------------


@with_panel_over(
    "answer",
    [
        {"kind": "pick", "winner": 2},
        {"kind": "rank", "order": [2, 0, 1]},
        {"kind": "rate", "ratings": [1, None, -0.5]},
        {"kind": "skip"},
    ],
)
async def test_an_answer_is_on_disk_when_it_is_acknowledged(
    panel: Panel, answer: dict[str, Any]
) -> None:
    query = panel.ask(kinds=("pick", "rank", "rate", "skip"))
    answered = await panel.answer(query, answer)
    assert answered["answer"] == answer
    assert answered["state"] == ("skipped" if answer["kind"] == "skip" else "answered")
    assert panel.woken == [query.id]
    panel.store.close()  # read again from the files alone
    assert panel.store.open("warm", create=False).query(query.id).answer == answer


@with_panel
async def test_the_same_answer_again_is_fine_and_another_is_a_conflict(panel: Panel) -> None:
    query = panel.ask()
    first = await panel.answer(query, {"kind": "pick", "winner": 0})
    assert await panel.answer(query, {"kind": "pick", "winner": 0}) == first
    await panel.answer(query, {"kind": "pick", "winner": 1}, 409)
    await panel.answer(query, {"kind": "skip"}, 409)
    assert (await panel.get(f"/palate/queries/{query.id}"))["answer"]["winner"] == 0
    assert panel.store.open("warm").ratings == 3


@with_panel
async def test_of_many_answers_at_once_exactly_one_wins(panel: Panel) -> None:
    query = panel.ask(count=8)
    path = f"/palate/queries/{query.id}/answer"

    async def pick(winner: int) -> tuple[int, int]:
        body = json.dumps({"kind": "pick", "winner": winner}).encode()
        return winner, (await panel.client.post(path, data=body, headers=JSON)).status

    results = await asyncio.gather(*[pick(winner) for winner in range(8)])
    won = [winner for winner, status in results if status == 200]
    assert len(won) == 1
    assert [status for _, status in results].count(409) == 7
    assert panel.store.open("warm").query(query.id).answer == {"kind": "pick", "winner": won[0]}
    assert panel.woken == [query.id]


@with_panel
async def test_the_same_answer_many_times_at_once_counts_once(panel: Panel) -> None:
    query = panel.ask()
    answers = [panel.answer(query, {"kind": "pick", "winner": 1}) for _ in range(8)]
    await asyncio.gather(*answers)
    assert panel.store.open("warm").ratings == 3
    assert panel.store.open("warm").rounds == 1


@with_panel_over(
    "answer",
    [
        {},
        {"kind": "pick"},
        {"kind": "pick", "winner": 3},
        {"kind": "pick", "winner": -1},
        {"kind": "pick", "winner": True},
        {"kind": "pick", "winner": 1.0},
        {"kind": "pick", "winner": "1"},
        {"kind": "pick", "winner": 1, "extra": 1},
        {"kind": "rate", "ratings": [1, None]},
        {"kind": "rate", "ratings": [None, None, None]},
        {"kind": "rate", "ratings": [2, None, None]},
        {"kind": "rate", "ratings": [True, None, None]},
        {"kind": "rank", "order": [0, 1, 2]},  # not asked for
        {"kind": "delete"},
        {"kind": None},
        {"kind": ["pick"]},
        b'{"kind": "rate", "ratings": [NaN, null, null]}',
        b'{"kind": "rate", "ratings": [Infinity, null, null]}',
        b'{"kind": "rate", "ratings": [1e999, null, null]}',
        b'{"kind": "pick", "winner": ' + b"1" * 5000 + b"}",
        b"",
        b"{",
        b"[]",
        b"null",
        b'"skip"',
        b"\xff\xfe",
        b"[" * 60_000,
        b'{"a":' * 12_000,
    ],
)
async def test_a_malformed_answer_is_400_and_changes_nothing(panel: Panel, answer: object) -> None:
    query = panel.ask()
    await panel.answer(query, answer, 400)
    assert panel.store.open("warm").query(query.id).state == "pending"
    assert panel.woken == []


@with_panel
async def test_an_answer_to_an_unknown_question_is_404(panel: Panel) -> None:
    panel.ask()
    await panel.post(f"/palate/queries/{'0' * 32}/answer", {"kind": "skip"}, 404)
    await panel.get(f"/palate/queries/{'0' * 32}", 404)
    assert panel.woken == []


@with_panel
async def test_an_answer_outlives_a_restart_of_the_server(panel: Panel) -> None:
    query = panel.ask()
    panel.store.close()
    assert [q["id"] for q in (await panel.get("/palate/queries"))["queries"]] == [query.id]
    await panel.answer(query, {"kind": "pick", "winner": 1})


# -- revisions -----------------------------------------------------------------------------------


@with_panel
async def test_going_back_keeps_everything_and_tells_every_page(panel: Panel) -> None:
    await panel.answer(panel.ask(0), {"kind": "pick", "winner": 0})
    panel.learn()
    await panel.answer(panel.ask(1), {"kind": "pick", "winner": 0})
    panel.learn()
    assert await panel.post("/palate/profiles/warm/revision", {"revision": 1}) == {
        "profile": "warm",
        "revision": 1,
    }
    shown = await panel.get("/palate/profiles/warm")
    assert shown["active"] == 1
    assert [r["revision"] for r in shown["revisions"]] == [0, 1, 2]
    assert shown["ratings"] == 6
    event = ("palate.revision", {"profile": "warm", "revision": 1}, None)
    assert panel.server.events == [event]
    await panel.post("/palate/profiles/warm/revision", {"revision": 2})
    assert (await panel.get("/palate/profiles/warm"))["active"] == 2


@with_panel
async def test_an_unknown_revision_or_profile_is_404(panel: Panel) -> None:
    panel.ask()
    await panel.post("/palate/profiles/warm/revision", {"revision": 7}, 404)
    await panel.post("/palate/profiles/warm/revision", {"revision": 2**70}, 404)
    await panel.post("/palate/profiles/nobody/revision", {"revision": 0}, 404)
    await panel.get("/palate/profiles/nobody", 404)
    assert not (panel.root / "nobody").exists()
    assert panel.server.events == []


@with_panel_over(
    "body",
    [
        {},
        [0],
        {"revision": -1},
        {"revision": True},
        {"revision": "0"},
        {"revision": 0.0},
        {"revision": None},
        {"revision": 0, "force": True},
    ],
)
async def test_a_malformed_revision_is_400(panel: Panel, body: object) -> None:
    panel.ask()
    await panel.post("/palate/profiles/warm/revision", body, 400)
    assert panel.server.events == []


# -- pictures of revisions -------------------------------------------------------------------------


def pictures(count: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 8, 8, 3, generator=torch.Generator().manual_seed(seed))


async def revisions_of(panel: Panel, profile: str = "warm") -> list[dict[str, Any]]:
    return list((await panel.get(f"/palate/profiles/{profile}"))["revisions"])


@with_panel
async def test_previews_are_served_in_the_order_of_their_seeds(panel: Panel) -> None:
    await panel.answer(panel.ask(0, "w a.r-m_"), {"kind": "pick", "winner": 0})
    number = panel.learn("w a.r-m_")
    taste = panel.store.open("w a.r-m_")
    assert [line["previews"] for line in await revisions_of(panel, "w a.r-m_")] == [[], []]
    taste.keep_previews(0, pictures(2))
    taste.keep_previews(number, pictures(3, seed=1))
    shown = await revisions_of(panel, "w a.r-m_")
    assert [len(line["previews"]) for line in shown] == [2, 3]
    assert [line["thumbnail"] for line in shown] == [line["previews"][0] for line in shown]
    for line in shown:
        files = taste.previews(line["revision"])
        for url, path in zip(line["previews"], files, strict=True):
            response = await panel.client.get(url)
            assert response.status == 200
            assert response.content_type == "image/png"
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert "immutable" in response.headers["Cache-Control"]
            assert await response.read() == path.read_bytes()


@with_panel
async def test_another_taste_of_the_same_name_is_not_shown_from_a_cache(panel: Panel) -> None:
    panel.store.open("warm").keep_previews(0, pictures(1))
    before = (await revisions_of(panel))[0]["previews"]
    panel.store.close()
    shutil.rmtree(panel.root / "warm")
    panel.store.open("warm")
    assert (await revisions_of(panel))[0]["previews"] == []
    panel.store.open("warm").keep_previews(0, pictures(1, seed=1))
    after = (await revisions_of(panel))[0]["previews"]
    assert after
    assert set(after).isdisjoint(before)


@with_panel
async def test_without_previews_the_best_liked_image_stands_for_a_revision(panel: Panel) -> None:
    lessons: list[tuple[list[dict[str, Any]], tuple[int, int] | None]] = [
        ([{"kind": "pick", "winner": 2}], (0, 2)),
        ([{"kind": "rate", "ratings": [-1, 0.25, 0.75]}], (0, 2)),
        ([{"kind": "rate", "ratings": [None, 0.25, None]}, {"kind": "pick", "winner": 1}], (1, 1)),
        ([{"kind": "rate", "ratings": [-1, None, -0.5]}], None),  # nothing was liked
    ]
    expected: list[str | None] = [None]
    seed = 0
    for answers, best in lessons:
        asked = []
        for answer in answers:
            seed += 1
            asked.append(panel.ask(seed))
            await panel.answer(asked[-1], answer)
        panel.learn()
        expected.append(best and f"/palate/queries/{asked[best[0]].id}/image/{best[1]}")
    shown = await revisions_of(panel)
    assert [line["thumbnail"] for line in shown] == expected
    assert (await panel.client.get(shown[1]["thumbnail"])).status == 200
    panel.store.open("warm").keep_previews(1, pictures(1))
    shown = await revisions_of(panel)
    assert shown[1]["thumbnail"] == shown[1]["previews"][0]
    assert [line["thumbnail"] for line in shown[2:]] == expected[2:]


@with_panel
async def test_a_revision_tells_what_its_update_did_and_where_it_branched_off(panel: Panel) -> None:
    await panel.answer(panel.ask(0), {"kind": "pick", "winner": 0})
    panel.learn()
    await panel.post("/palate/profiles/warm/revision", {"revision": 0})
    await panel.answer(panel.ask(1), {"kind": "pick", "winner": 0})
    panel.learn()
    shown = await revisions_of(panel)
    assert [(line["revision"], line["parent"]) for line in shown] == [(0, None), (1, 0), (2, 0)]
    assert [line["report"] for line in shown[1:]] == [{"loss": 0.5}, {"loss": 0.5}]


@with_panel
async def test_reading_previews_writes_nothing(panel: Panel) -> None:
    panel.store.open("warm").keep_previews(0, pictures(2))
    before = files_below(panel.root)
    for url in (await revisions_of(panel))[0]["previews"]:
        assert (await panel.client.get(url)).status == 200
    await panel.get("/palate/profiles/warm/revisions/0/preview/7", 404)
    assert files_below(panel.root) == before
    assert panel.server.events == []


@with_panel_over(
    "place",
    ["0/preview/2", "1/preview/0", "7/preview/0", "-1/preview/0", "00/preview/0", "+0/preview/0",
     "0/preview/-1", "0/preview/00", "0/preview/0.png", "0/preview/1e0", "1e0/preview/0",
     f"{10**9}/preview/0", f"0/preview/{10**9}", f"{2**40}/preview/0", "0/preview/%30%2e%70ng",
     "0/preview/..", "0/preview/%2e%2e%2fprofile.sqlite", "..%2f..%2f/preview/0",
     "%2e%2e/preview/0", "0%00/preview/0", "\u0660/preview/0"],
)  # fmt: skip
async def test_a_preview_that_is_not_there_is_404(panel: Panel, place: str) -> None:
    await panel.answer(panel.ask(0), {"kind": "pick", "winner": 0})
    panel.learn()
    panel.store.open("warm").keep_previews(0, pictures(2))
    response = await panel.client.get(f"/palate/profiles/warm/revisions/{place}")
    assert response.status == 404
    assert b"PNG" not in await response.read()


# -- who may write, and how much -------------------------------------------------------------------


@with_panel_over(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "x"],
)
async def test_a_post_that_a_foreign_form_could_send_is_415(
    panel: Panel, content_type: str
) -> None:
    query = panel.ask()
    headers = {"Content-Type": content_type}
    body = {"kind": "pick", "winner": 0}
    await panel.post(f"/palate/queries/{query.id}/answer", body, 415, headers)
    await panel.post("/palate/profiles/warm/revision", {"revision": 0}, 415, headers)
    assert panel.store.open("warm").query(query.id).state == "pending"


@with_panel
async def test_the_charset_of_the_content_type_does_not_matter(panel: Panel) -> None:
    headers = {"Content-Type": "application/json; charset=utf-8"}
    query = panel.ask()
    await panel.post(f"/palate/queries/{query.id}/answer", {"kind": "skip"}, 200, headers)


@with_panel
async def test_a_body_up_to_64_kib_is_read_and_one_byte_more_is_413(panel: Panel) -> None:
    query = panel.ask()
    path = f"/palate/queries/{query.id}/answer"
    answer = b'{"kind": "skip"}'
    await panel.post(path, answer + b" " * (64 * 1024 + 1 - len(answer)), 413)
    assert panel.store.open("warm").query(query.id).state == "pending"
    await panel.post(path, answer + b" " * (64 * 1024 - len(answer)))


@with_panel
async def test_a_large_body_without_a_length_is_413(panel: Panel) -> None:
    query = panel.ask()

    async def endless() -> Any:
        for _ in range(20):
            yield b" " * 16_384

    response = await panel.client.post(
        f"/palate/queries/{query.id}/answer", data=endless(), headers=JSON
    )
    assert response.status == 413


@with_panel_over(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
async def test_a_post_from_a_foreign_page_is_403(panel: Panel, headers: dict[str, str]) -> None:
    query = panel.ask()
    path = f"/palate/queries/{query.id}/answer"
    await panel.post(path, {"kind": "skip"}, 403, headers)
    assert panel.store.open("warm").query(query.id).state == "pending"


@with_panel
async def test_the_page_itself_may_post(panel: Panel) -> None:
    origin = str(panel.client.make_url("/")).rstrip("/")
    for seed, headers in enumerate([{"Origin": origin}, {"Sec-Fetch-Site": "same-origin"}]):
        query = panel.ask(seed)
        await panel.post(f"/palate/queries/{query.id}/answer", {"kind": "skip"}, 200, headers)


# -- paths -----------------------------------------------------------------------------------------


@with_panel_over("query_id", HOSTILE_IDS)
async def test_an_id_is_never_a_path(panel: Panel, query_id: str) -> None:
    panel.ask()
    looked_up: list[str] = []
    panel.store.find_query = looked_up.append  # type: ignore[assignment,method-assign]
    secret = panel.root.parent / "secret"
    secret.mkdir()
    shutil.copy(next(panel.root.rglob("0.png")), secret / "0.png")
    for path in ("", "/image/0", "/image/..%2f..%2fprofile.sqlite"):
        response = await panel.client.get(f"/palate/queries/{query_id}{path}")
        assert response.status == 404
        assert b"PNG" not in await response.read()
    response = await panel.client.post(
        f"/palate/queries/{query_id}/answer", data=b'{"kind": "skip"}', headers=JSON
    )
    assert response.status in (404, 405)
    del panel.store.find_query
    assert looked_up == []


@with_panel_over("name", ["%2e%2e", "..%2f..%2fetc", "%2fetc", "a%00b", "x" * 65, "con", ".git"])
async def test_a_profile_name_is_never_a_path(panel: Panel, name: str) -> None:
    panel.ask()
    before = files_below(panel.root.parent)
    for response in (
        await panel.client.get(f"/palate/profiles/{name}"),
        await panel.client.get(f"/palate/profiles/{name}/revisions/0/preview/0"),
        await panel.client.post(
            f"/palate/profiles/{name}/revision", data=b'{"revision": 0}', headers=JSON
        ),
    ):
        assert response.status in (400, 404, 405)
    assert files_below(panel.root.parent) == before


@with_panel
async def test_a_profile_name_with_spaces_and_dots_works(panel: Panel) -> None:
    panel.ask(0, "Warm colours v1.2")
    shown = await panel.get("/palate/profiles/Warm%20colours%20v1.2")
    assert shown["name"] == "Warm colours v1.2"


@with_panel
async def test_a_slow_disk_does_not_stall_the_event_loop(panel: Panel) -> None:
    query = panel.ask()
    release = asyncio.Event()
    loop = asyncio.get_running_loop()
    entered = asyncio.Event()
    find_query = panel.store.find_query

    def slowly(query_id: str) -> Any:
        loop.call_soon_threadsafe(entered.set)
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result(timeout=30)
        return find_query(query_id)

    panel.store.find_query = slowly  # type: ignore[method-assign]
    try:
        reading = asyncio.create_task(panel.get(f"/palate/queries/{query.id}"))
        await asyncio.wait_for(entered.wait(), 30)  # the loop still runs while the disk is busy
        assert (await panel.get("/palate/profiles"))["profiles"]
        release.set()
        assert (await reading)["id"] == query.id
    finally:
        del panel.store.find_query


@with_panel
async def test_what_was_learnt_is_told_and_reading_it_writes_nothing(panel: Panel) -> None:
    query = panel.ask(plan={"encoder": "e", "scale": 1.0, "key": "k", "prompts": []})
    assert (await panel.get("/palate/profiles/warm"))["learnt"] is None
    vocabulary = parse_vocabulary("[subject]\nhouse\nfish\n[light]\n-\nnoon\nnight")
    words = {word: torch.rand(5) for word in ("house", "fish", "noon", "night")}
    lexicon = Lexicon.of(vocabulary, words, torch.rand(4, 5), "Fake")
    taste = panel.store.open("warm")
    taste.keep(FILE, *lexicon.to_tensors())
    await panel.answer(query, {"kind": "pick", "winner": 1})  # asked in another feature space
    before = {path: path.stat().st_mtime_ns for path in taste.folder.rglob("*")}
    learnt = (await panel.get("/palate/profiles/warm"))["learnt"]
    assert learnt == {"questions": 0, "information": 0.0, "advised": None, "words": []}
    features = {"plan.features": lexicon.prompt_features([[0, 1], [1, 2]])}
    plan = Plan(lexicon.encoder, 1.0, "k", ("a", "b"), features["plan.features"])
    asked = taste.ask(
        torch.rand(2, 8, 8, 3), features, ["a", "b"], plan=plan.to_json(),
        generator=torch.Generator(),
    )  # fmt: skip
    await panel.answer(asked, {"kind": "pick", "winner": 1})
    learnt = (await panel.get("/palate/profiles/warm"))["learnt"]
    assert learnt["questions"] == 1
    assert learnt["words"][0]["word"] in ("fish", "night")
    kept = {path: stamp for path, stamp in before.items() if path.suffix == ".safetensors"}
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert not (taste.folder / "utility.safetensors").exists()
