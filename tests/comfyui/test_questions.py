"""Questions and answers on a running ComfyUI: waiting, stopping, being late, being wrong."""

from __future__ import annotations

import itertools
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from launch.client import HTTPFailure, PromptFailed

pytestmark = pytest.mark.comfyui

PICK = {"kind": "pick", "winner": 0}


@pytest.fixture
def color() -> Iterator[int]:
    """A colour that no question had: equal questions are asked once."""
    return next(_colors)


_colors = itertools.count(0x100)


def refused(call: Any, *arguments: Any) -> tuple[int, str]:
    """Status and text of a call that must be refused."""
    with pytest.raises(HTTPFailure) as caught:
        call(*arguments)
    return caught.value.status, caught.value.text


# Asking now ---------------------------------------------------------------------------------------


def test_the_run_waits_for_the_answer_and_goes_on_at_once(lab: Any, flow: Any, color: int) -> None:
    prompt = lab.server.queue(flow.plain_question("asked", color).nodes)
    query = lab.wait_for_question("asked")
    assert query["state"] == "pending"
    assert query["kinds"] == ["pick", "rank", "rate", "skip"]
    assert [c["prompt"] for c in query["candidates"]] == [f"a cat {color}"] * 2
    assert not lab.server.get(f"/history/{prompt}")
    lab.answer(query["id"], PICK)
    began = time.monotonic()
    lab.finish(prompt)
    took = time.monotonic() - began
    assert took < flow.soon(lab)
    assert lab.query(query["id"])["state"] == "answered"


def test_the_page_is_told_of_its_question_and_of_what_is_learnt(lab: Any, flow: Any) -> None:
    with flow.Events(lab.server.url) as events:
        run = lab.run(flow.whole_round("told", 1, rater="dark", steps=2))
        told = {"profile": "told", "total": 2, "stage": "learning"}
        for done in (0, 1, 2):
            assert events.wait("palate.progress", 10, **told)["done"] == done
        assert events.wait("palate.revision", 10, profile="told")["revision"] == 1
    assert lab.query(run.asked)["used_by"] == 1


def test_the_page_is_told_why_an_update_was_taken_back(lab: Any, flow: Any) -> None:
    graph = flow.whole_round("taken back", 1, mode=flow.LATER)
    graph.add("broken", "ProbeBrokenPrompt", conditioning=["positive", 0])
    graph.set("query", conditioning=["broken", 0])
    graph.add("report", "PreviewAny", source=["update", 1])
    lab.answer(lab.run(graph).asked, PICK)
    with flow.Events(lab.server.url) as events:
        run = lab.run(graph)
        told = events.wait("palate.revision", 10, profile="taken back")
    assert told["revision"] == 0
    assert told["rolled_back"] in run.outputs["report"]["text"][0]
    assert lab.profile("taken back")["waiting"] == 1


def test_interrupting_a_waiting_run_ends_it_and_keeps_the_question(
    lab: Any, flow: Any, color: int
) -> None:
    graph = flow.plain_question("stopped", color)
    prompt = lab.server.queue(graph.nodes)
    query = lab.wait_for_question("stopped")
    began = time.monotonic()
    lab.server.interrupt()
    with pytest.raises(PromptFailed, match="Interrupted in PalatePreferenceQuery"):
        lab.finish(prompt)
    took = time.monotonic() - began
    assert took < flow.soon(lab)
    assert lab.query(query["id"])["state"] == "pending"
    # The same graph waits for the same question; its answer may come from anywhere.
    prompt = lab.server.queue(graph.nodes)
    lab.answer(query["id"], {"kind": "rate", "ratings": [1, -1]})
    assert lab.finish(prompt).asked == query["id"]


def test_an_interrupted_update_changes_nothing_and_is_made_up_for(lab: Any, flow: Any) -> None:
    graph = flow.whole_round("halfway", 1, steps=400, timesteps=32)
    with flow.Events(lab.server.url) as events:
        prompt = lab.server.queue(graph.nodes)
        query = lab.wait_for_question("halfway")
        lab.answer(query["id"], PICK)
        events.wait("palate.progress", profile="halfway", done=2)
        began = time.monotonic()
        lab.server.interrupt()
        with pytest.raises(PromptFailed, match="Interrupted in PalatePAPAUpdate"):
            lab.finish(prompt)
        took = time.monotonic() - began
    assert took < flow.soon(lab)
    assert lab.query(query["id"])["state"] == "answered"
    profile = lab.profile("halfway")
    assert (profile["active"], profile["waiting"]) == (0, 1)
    assert flow.same(lab.sample(name="halfway"), lab.sample())
    learnt = lab.run(graph.set("update", steps=2, timesteps=2))
    assert learnt.asked == query["id"]
    assert lab.query(query["id"])["state"] == "used"
    assert not flow.same(learnt.latent("after"), learnt.latent("question"))


# Timeouts -----------------------------------------------------------------------------------------


def with_results(graph: Any) -> Any:
    """Images that the question passes on, each saved if there are any."""
    for index, name in enumerate(("liked", "disliked", "best"), 1):
        inputs = {"images": ["query", index], "filename_prefix": f"t/{name}"}
        graph.add(name, "SaveImage", **inputs)
    return graph


def test_stop_blocks_the_branch_and_keeps_the_question(lab: Any, flow: Any) -> None:
    graph = with_results(flow.whole_round("stops", 1).set("query", timeout=1))
    run = lab.run(graph)
    assert not {"after file", "liked", "disliked", "best"} & set(run.outputs)
    assert "question file" in run.outputs
    assert lab.query(run.asked)["state"] == "pending"
    lab.answer(run.asked, PICK)
    learnt = lab.run(graph)
    assert {"after file", "liked", "disliked", "best"} <= set(learnt.outputs)
    assert lab.query(run.asked)["state"] == "used"


def test_skip_closes_the_question_without_influence(lab: Any, flow: Any) -> None:
    graph = with_results(flow.whole_round("skips", 1))
    run = lab.run(graph.set("query", timeout=1, on_timeout="skip"))
    assert lab.query(run.asked)["state"] == "skipped"
    assert flow.same(run.latent("after"), run.latent("question"))
    assert not {"liked", "disliked", "best"} & set(run.outputs)
    profile = lab.profile("skips")
    assert (profile["ratings"], profile["rounds"], profile["active"]) == (0, 0, 0)


def test_a_persons_skip_has_no_influence_either(lab: Any, flow: Any) -> None:
    lab.teach("shrugs", seed=900)
    graph = flow.whole_round("shrugs", 901)
    prompt = lab.server.queue(graph.nodes)
    lab.answer(lab.wait_for_question("shrugs")["id"], {"kind": "skip"})
    run = lab.finish(prompt)
    assert flow.same(run.latent("after"), run.latent("question"))
    profile = lab.profile("shrugs")
    assert (profile["ratings"], profile["active"], profile["pending"]) == (2, 1, 0)


def test_best_guess_follows_the_answers_so_far_and_learns_nothing(lab: Any, flow: Any) -> None:
    """After three questions in which the brightest image won, the guess is the brightest."""
    for color in (0x101010, 0x202020, 0x303030):
        run = lab.run(two_shades(flow, "guesses", color, color * 5, mode=flow.LATER))
        lab.answer(run.asked, {"kind": "pick", "winner": 1})
    graph = two_shades(flow, "guesses", 0x252525, 0x252525 * 5, timeout=1, on_timeout="best guess")
    graph.add("best", "SaveImage", images=["query", 3], filename_prefix="t/best")
    run = lab.run(graph)
    shown = np.asarray(Image.open(run.path("best", "images")).convert("RGB"))
    assert (shown == 0x25 * 5).all()
    assert lab.query(run.asked)["state"] == "pending"
    assert lab.profile("guesses")["ratings"] == 6


def two_shades(flow: Any, name: str, first: int, second: int, **o: Any) -> Any:
    graph = flow.plain_question(name, first, **o)
    graph.set("plain", batch_size=1)
    graph.add("second", "EmptyImage", width=16, height=16, batch_size=1, color=second)
    graph.add("both", "ImageBatch", image1=["plain", 0], image2=["second", 0])
    return graph.set("query", images=["both", 0])


def test_what_is_liked_disliked_and_best_is_passed_on(lab: Any, flow: Any) -> None:
    graph = with_results(two_shades(flow, "sorted", 0x101010, 0xE0E0E0))
    prompt = lab.server.queue(graph.nodes)
    query = lab.wait_for_question("sorted")
    lab.answer(query["id"], {"kind": "rate", "ratings": [-0.5, 0.5]})
    run = lab.finish(prompt)
    shades = {}
    for name in ("liked", "disliked", "best"):
        assert len(run.outputs[name]["images"]) == 1
        shades[name] = int(np.asarray(Image.open(run.path(name, "images")))[0, 0, 0])
    assert shades == {"liked": 0xE0, "disliked": 0x10, "best": 0xE0}


# Several prompts in one question ------------------------------------------------------------------


def test_every_image_keeps_its_own_prompt(lab: Any, flow: Any) -> None:
    """A list of prompts makes as many batches of one image, and one question of all of them."""
    texts = ["a crimson cat", "a cobalt fish"]
    graph = flow.whole_round("own prompts", 1, mode=flow.LATER)
    graph.add("texts", "ProbeLines", lines="\n".join(texts))
    graph.set("positive", text=["texts", 0]).set("empty", batch_size=1)
    asked = lab.run(graph).asked
    kept = lab.tensors(asked, "own prompts")
    assert len(kept["latents"]) == 2
    embeddings = [kept[f"conditioning.{i}.embedding"] for i in range(2)]
    assert not flow.same(*embeddings)
    alone = [
        lab.tensors(lab.run(flow.plain_question("alone", i, mode=flow.LATER)
                            .set("positive", text=text)).asked, "alone")
        for i, text in enumerate(texts)
    ]  # fmt: skip
    for embedding, single in zip(embeddings, alone, strict=True):
        assert flow.same(embedding, single["conditioning.0.embedding"])
    lab.answer(asked, PICK)
    lab.run(graph)
    assert lab.query(asked)["state"] == "used"


def test_several_batches_share_or_have_their_prompts(lab: Any, flow: Any) -> None:
    graph = flow.whole_round("batches", 1, mode=flow.LATER, count=3)
    graph.add("split", "RebatchLatents", latents=["question", 0], batch_size=1)
    graph.set("pixels", samples=["split", 0]).set("query", latents=["split", 0])
    run = lab.run(graph)
    kept = lab.tensors(run.asked, "batches")
    assert flow.same(kept["latents"], run.latent("question"))
    assert flow.same(kept["conditioning.0.embedding"], kept["conditioning.2.embedding"])


# Mistakes in the graph ----------------------------------------------------------------------------


def error_of(lab: Any, graph: Any) -> str:
    with pytest.raises(PromptFailed) as caught:
        lab.run(graph)
    return str(caught.value)


def test_images_that_are_not_those_of_the_latents_are_refused(
    lab: Any, flow: Any, color: int
) -> None:
    graph = flow.plain_question("wrong", color).set("plain", batch_size=3)
    assert "got 3 images and 2 latents" in error_of(lab, graph)
    graph = flow.plain_question("wrong", color, count=1)
    assert "needs at least two images" in error_of(lab, graph)
    assert not lab.pending("wrong")


def test_conditionings_must_be_one_for_all_or_one_each(lab: Any, flow: Any, color: int) -> None:
    graph = flow.plain_question("wrong", color)
    graph.add("texts", "ProbeLines", lines="a cat\na dog\na fish")
    graph.set("positive", text=["texts", 0])
    assert "got 3 conditionings for 2 images" in error_of(lab, graph)


def test_two_tastes_must_not_be_crossed(lab: Any, flow: Any) -> None:
    crossed = flow.whole_round("mine", 1, rater="dark")
    flow.taste(crossed, "yours", id="other")
    crossed.set("query", taste=["other", 1])
    assert "belongs to the taste 'yours', not to 'mine'" in error_of(lab, crossed)
    bare = flow.whole_round("mine", 2, rater="dark").set("update", model=["starter", 0])
    assert "does not carry the TASTE beside it" in error_of(lab, bare)
    twice = flow.whole_round("mine", 3, rater="dark")
    flow.taste(twice, "yours", model=["taste", 0], id="other")
    twice.set("question", model=["other", 0])
    assert "already carries a taste" in error_of(lab, twice)


def test_a_taste_keeps_its_rank_and_its_base_model(lab: Any, flow: Any) -> None:
    lab.teach("settled", seed=950)
    graph = flow.starter(flow.Graph())
    flow.prompts(graph, "a crimson cat")
    flow.sampler(graph, "drawn", flow.taste(graph, "settled", rank=8), 1)
    graph.save("drawn")
    assert "begun with rank 4, not 8" in error_of(lab, graph)
    graph.set("taste", rank=flow.RANK)
    assert lab.run(graph).latent("drawn").isfinite().all()
    graph.add("foreign", "ProbeOtherBase")
    graph.set("taste", model=["foreign", 0])
    assert "was taught on another base model" in error_of(lab, graph)
    graph.set("taste", name="at home here")
    assert lab.run(graph).latent("drawn").isfinite().all()


@pytest.mark.parametrize("name", ["../outside", "a/b", "", ".hidden", "con"])
def test_a_name_that_is_no_folders_name_is_refused(lab: Any, flow: Any, name: str) -> None:
    graph = flow.plain_question(name, 1, mode=flow.LATER)
    assert "cannot name a profile" in error_of(lab, graph)


# Answers that are late, repeated, foreign or empty ------------------------------------------------


def test_answers_are_taken_once(lab: Any, flow: Any, color: int) -> None:
    graph = flow.plain_question("once", color, mode=flow.LATER)
    asked = lab.run(graph).asked
    assert refused(lab.answer, asked, {"kind": "pick", "winner": 2})[0] == 400
    assert refused(lab.answer, asked, {"kind": "like"})[0] == 400
    assert lab.query(asked)["state"] == "pending"
    first = lab.answer(asked, PICK)
    assert lab.answer(asked, PICK) == first
    status, text = refused(lab.answer, asked, {"kind": "pick", "winner": 1})
    assert (status, "has another answer already" in text) == (409, True)
    assert refused(lab.answer, asked, {"kind": "skip"})[0] == 409
    assert lab.query(asked)["answer"] == PICK


def test_an_answer_to_a_question_that_was_learnt_from_stays(lab: Any, flow: Any) -> None:
    asked = lab.teach("learnt", seed=970).asked
    kept = lab.query(asked)
    assert kept["state"] == "used"
    assert lab.answer(asked, kept["answer"])["state"] == "used"
    assert refused(lab.answer, asked, {"kind": "skip"})[0] == 409


def test_foreign_ids_and_foreign_pages_are_refused(lab: Any, flow: Any, color: int) -> None:
    assert refused(lab.answer, "0" * 32, PICK)[0] == 404
    assert refused(lab.query, "no-such-question")[0] == 404
    assert refused(lab.profile, "nobody")[0] == 404
    asked = lab.run(flow.plain_question("foreign", color, mode=flow.LATER)).asked
    request = urllib.request.Request(
        f"{lab.server.url}/palate/queries/{asked}/answer",
        b'{"kind": "pick", "winner": 0}',
        {"Content-Type": "application/json", "Origin": "http://evil.example"},
    )
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with pytest.raises(urllib.error.HTTPError) as caught:
        direct.open(request, timeout=30)
    assert caught.value.code == 403
    assert lab.query(asked)["state"] == "pending"


def test_ratings_that_like_and_dislike_nothing_do_no_harm(lab: Any, flow: Any) -> None:
    """All zeros: an answer, but nothing to learn from, alone or beside a real one."""
    graph = flow.whole_round("neutral", 1, mode=flow.LATER)
    asked = lab.run(graph).asked
    lab.answer(asked, {"kind": "rate", "ratings": [0, 0]})
    run = lab.run(graph)
    assert flow.same(run.latent("after"), run.latent("question"))
    assert lab.profile("neutral")["active"] == 0
    learnt = lab.teach("neutral", seed=980)
    assert lab.profile("neutral")["active"] == 1
    assert not flow.same(learnt.latent("after"), learnt.latent("question"))


def test_questions_of_two_sizes_are_both_learnt_from(lab: Any, flow: Any) -> None:
    """Rate later, twice, with another image size: neither answer may block the other."""
    small = flow.whole_round("two sizes", 1, mode=flow.LATER)
    large = flow.whole_round("two sizes", 2, mode=flow.LATER)
    large.set("empty", width=96)
    asked = [lab.run(graph).asked for graph in (small, large)]
    for id in asked:
        lab.answer(id, PICK)
    for _ in range(2):
        lab.run(large)
    assert [lab.query(id)["state"] for id in asked] == ["used", "used"]


def test_an_image_of_a_question_is_a_picture_with_its_prompt(
    lab: Any, flow: Any, color: int
) -> None:
    asked = lab.run(flow.plain_question("shown", color, count=3, mode=flow.LATER)).asked
    candidates = lab.query(asked)["candidates"]
    assert sorted(c["index"] for c in candidates) == [0, 1, 2]
    for candidate in candidates:
        assert lab.server.fetch(candidate["image_url"])[:8] == b"\x89PNG\r\n\x1a\n"
        assert re.fullmatch(rf"/palate/queries/{asked}/image/\d", candidate["image_url"])
    assert torch.equal(lab.tensors(asked, "shown")["latents"], torch.zeros(3, 4, 8, 8))
