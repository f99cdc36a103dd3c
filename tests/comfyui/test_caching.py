"""Only what depends on a new rating or revision runs again."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.comfyui

BEFORE_THE_ANSWER = {
    "starter", "taste", "positive", "negative", "empty", "question", "pixels", "question file",
}  # fmt: skip


def pick(run: Any) -> tuple[str, dict[str, Any]]:
    return run.asked, {"kind": "pick", "winner": 0}


def test_with_nothing_new_nothing_runs(lab: Any, flow: Any) -> None:
    graph = flow.whole_round("idle", 1, mode=flow.LATER)
    first = lab.run(graph)
    again = lab.run(graph)
    assert again.cached == set(graph.nodes)
    assert again.asked == first.asked
    assert len(lab.pending("idle")) == 1


def test_a_late_answer_reruns_only_what_depends_on_it(lab: Any, flow: Any) -> None:
    graph = flow.whole_round("late", 2, mode=flow.LATER)
    asked = lab.run(graph)
    lab.answer(*pick(asked))
    learnt = lab.run(graph)
    assert learnt.cached == BEFORE_THE_ANSWER
    assert lab.query(asked.asked)["state"] == "used"
    assert lab.profile("late")["active"] == 1
    # The new revision makes a new question; after that there is nothing new again.
    asked_anew = lab.run(graph)
    assert asked_anew.cached == {"starter", "positive", "negative", "empty"}
    assert asked_anew.asked != asked.asked
    assert flow.same(asked_anew.latent("question"), learnt.latent("after"))
    assert lab.run(graph).cached == set(graph.nodes)


def test_undo_and_redo_bring_each_revisions_images_back(lab: Any, flow: Any) -> None:
    graph = flow.starter(flow.Graph())
    model = flow.taste(graph, "back and forth")
    flow.prompts(graph, "a crimson cat")
    flow.sampler(graph, "drawn", model, 3)
    graph.save("drawn")
    seen = [lab.run(graph).latent("drawn")]
    for round in (1, 2):
        lab.teach("back and forth", seed=600 + round)
        run = lab.run(graph)
        assert "drawn" not in run.cached
        seen.append(run.latent("drawn"))
    assert not any(flow.same(seen[i], seen[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    for revision in (1, 0, 2, 1):
        lab.activate("back and forth", revision)
        assert flow.same(lab.run(graph).latent("drawn"), seen[revision]), revision
    assert lab.run(graph).cached == set(graph.nodes)


def test_an_update_that_is_undone_at_once_does_not_show_in_the_next_image(
    lab: Any, flow: Any
) -> None:
    """Taste Profile's earlier result is as good as new then, and is taken from the cache."""
    graph = flow.whole_round("undone", 620, mode=flow.LATER)
    asked = lab.run(graph)
    lab.answer(*pick(asked))
    lab.run(graph)
    lab.activate("undone", 0)
    again = lab.run(graph.again("question"))
    assert "taste" in again.cached
    assert flow.same(again.latent("question"), asked.latent("question"))


def test_learning_after_an_undo_goes_on_from_there(lab: Any, flow: Any) -> None:
    lab.teach("branch", rounds=2, seed=700)
    lab.activate("branch", 1)
    lab.teach("branch", seed=710)
    revisions = {r["revision"]: r["parent"] for r in lab.profile("branch")["revisions"]}
    assert revisions == {0: None, 1: 0, 2: 1, 3: 1}
    assert lab.profile("branch")["active"] == 3


def test_a_name_that_comes_over_a_wire_follows_the_revision_too(lab: Any, flow: Any) -> None:
    graph = flow.starter(flow.Graph())
    name = graph.add("name", "PrimitiveString", value="wired")
    model = flow.taste(graph, name)
    flow.prompts(graph, "a crimson cat")
    flow.sampler(graph, "drawn", model, 3)
    graph.save("drawn")
    base = lab.run(graph).latent("drawn")
    assert lab.run(graph).cached == set(graph.nodes)
    lab.teach("wired", seed=800)
    taught = lab.run(graph).latent("drawn")
    assert not flow.same(taught, base)
    lab.activate("wired", 0)
    assert flow.same(lab.run(graph).latent("drawn"), base)


def test_a_new_prompt_reruns_no_loader(lab: Any, flow: Any) -> None:
    graph = flow.whole_round("texts", 4, mode=flow.LATER)
    lab.run(graph)
    run = lab.run(graph.set("positive", text="a cobalt fish"))
    assert run.cached == {"starter", "taste", "negative", "empty"}
