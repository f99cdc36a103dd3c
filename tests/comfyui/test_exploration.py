"""Finding the words of a taste on a running ComfyUI: designer, picker and best prompts."""

from __future__ import annotations

import json
import urllib.parse
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from launch.client import PromptFailed
from launch.workflow import api_format

pytestmark = pytest.mark.comfyui

PICK = {"kind": "pick", "winner": 0}
WORKFLOWS = Path(__file__).resolve().parents[2] / "example_workflows"
WORDS = """
template: a {palette} {subject} {light}
[subject]
house
fish
cat
[palette]
-
crimson
cobalt
emerald
[light]
-
at night
at noon
"""


def exploration(flow: Any, name: str, *, words: str = WORDS, best: bool = False, **o: Any) -> Any:
    """Designer → two images drawn → a question to be rated later; "said" shows the prompts."""
    graph = flow.starter(flow.Graph())
    flow.taste(graph, name)
    settings = {
        "vocabulary": "the text below", "slots": words, "mode": "adaptive", "arms": 2,
        "criterion": "automatic", "seed": 0, "prefix": "", "suffix": "", **o,
    }  # fmt: skip
    graph.add("design", "PalateEDQueryDesigner", taste=["taste", 1], clip=["starter", 1],
              **settings)  # fmt: skip
    flow.prompts(graph, ["design", 0], count=1)
    graph.add("said", "PreviewAny", source=["design", 0])
    flow.sampler(graph, "question", ["taste", 0], 1, steps=1)
    flow.question(graph, ["question", 0], mode=flow.LATER, plan=["design", 1])
    if best:
        graph.add("best", "PalateBestPrompts", taste=["taste", 1], count=3, feedback=["query", 0])
        graph.add("top", "PreviewAny", source=["best", 0])
        graph.add("scores", "PreviewAny", source=["best", 1])
    return graph


def said(run: Any) -> list[str]:
    return list(run.outputs["said"]["text"])


def test_an_answer_brings_new_prompts_and_nothing_new_runs_nothing(lab: Any, flow: Any) -> None:
    graph = exploration(flow, "explorer")
    first = lab.run(graph)
    query = lab.query(first.asked)
    prompts = {c["index"]: c["prompt"] for c in query["candidates"]}
    assert [prompts[0], prompts[1]] == said(first)
    again = lab.run(graph)
    assert again.cached == set(graph.nodes)
    lab.answer(first.asked, PICK)
    second = lab.run(graph)
    assert {"starter", "taste", "negative", "empty"} <= second.cached
    assert said(second) != said(first)
    assert second.asked != first.asked
    assert lab.run(graph).cached == set(graph.nodes)
    learnt = lab.profile("explorer")["learnt"]
    assert learnt["questions"] == 1
    assert learnt["information"] > 0
    assert {word["word"] for word in learnt["words"]} >= {"house", "crimson", "at night"}


def test_a_skipped_question_brings_another_one_and_teaches_nothing(lab: Any, flow: Any) -> None:
    graph = exploration(flow, "skipper", mode="random")
    first = lab.run(graph)
    lab.answer(first.asked, {"kind": "skip"})
    assert lab.run(graph).asked != first.asked
    assert lab.profile("skipper")["learnt"]["questions"] == 0


def test_a_waiting_question_keeps_its_prompts_whatever_is_drawn(lab: Any, flow: Any) -> None:
    graph = exploration(flow, "patient")
    first = lab.run(graph)
    drawn_anew = lab.run(graph.set("question", seed=2).again("design"))
    assert said(drawn_anew) == said(first)
    assert drawn_anew.asked != first.asked


def test_the_posterior_can_be_fitted_again_from_the_log(lab: Any, flow: Any) -> None:
    graph = exploration(flow, "log")
    run = lab.run(graph)
    lab.answer(run.asked, {"kind": "pick", "winner": 1})
    lab.run(graph)
    features = lab.tensors(run.asked, "log")["plan.features"].double()
    assert features.shape[0] == 2
    kept = load_file(Path(lab.server.base) / "user" / "palate" / "log" / "utility.safetensors")
    margin = (features[1] - features[0]) @ kept["theta"]
    gradient = kept["theta"] - (features[1] - features[0]) * torch.sigmoid(-margin)
    assert margin > 0
    assert float(gradient.norm()) < 1e-6  # θ is the optimum for this very answer


def test_best_prompts_come_after_the_first_answer_with_their_scores(lab: Any, flow: Any) -> None:
    graph = exploration(flow, "judge", best=True)
    before = lab.run(graph)
    assert "top" not in before.outputs
    lab.answer(before.asked, PICK)
    after = lab.run(graph)
    top = after.outputs["top"]["text"]
    assert len(set(top)) == 3
    scores = [float(score) for score in after.outputs["scores"]["text"]]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 0


def test_lists_of_single_images_can_be_learnt_from_by_the_adapter_too(lab: Any, flow: Any) -> None:
    graph = exploration(flow, "both", arms=3)
    asked = lab.run(graph)
    lab.answer(asked.asked, {"kind": "rate", "ratings": [1, -1, None]})
    graph.set("query", mode=flow.LATER)
    flow.update(graph, steps=1, timesteps=1)
    lab.run(graph)
    assert lab.query(asked.asked)["used_by"] == 1
    assert lab.profile("both")["learnt"]["questions"] == 1


@pytest.mark.parametrize("lines", ["a cat\na fish at night\nhouse", "a cat\n(a fish:1.4)\nhouse"])
def test_words_read_together_are_what_each_is_alone(lab: Any, flow: Any, lines: str) -> None:
    graph = flow.starter(flow.Graph())
    graph.add("probe", "ProbeTextFeatures", clip=["starter", 1], lines=lines)
    seen = lab.run(graph).outputs["probe"]
    assert seen["difference"][0] < 1e-5 * max(1.0, seen["size"][0])


def test_emphasis_reaches_the_text_encoder_and_changes_the_feature(lab: Any, flow: Any) -> None:
    graph = exploration(flow, "loud", words="[subject]\nfish\n(fish:1.4)\ncat", mode="random")
    run = lab.run(graph)
    features = lab.tensors(run.asked, "loud")["plan.features"]
    assert float((features[0] - features[1]).norm()) > 1e-3


def test_a_file_of_ones_own_is_offered_and_a_change_of_it_is_noticed(lab: Any, flow: Any) -> None:
    folder = Path(lab.server.base) / "user" / "palate_vocabularies"
    folder.mkdir(exist_ok=True)
    (folder / "mine.txt").write_text("[subject]\nhouse\nfish\n", "utf-8")
    offered = lab.server.object_info()["PalateEDQueryDesigner"]["input"]["required"]["vocabulary"]
    assert "mine" in offered[1]["options"]
    graph = exploration(flow, "own words", vocabulary="mine")
    assert set(said(lab.run(graph))) == {"house", "fish"}
    assert lab.run(graph).cached == set(graph.nodes)
    (folder / "mine.txt").write_text("[subject]\ncat\nstar\n", "utf-8")
    assert set(said(lab.run(graph))) == {"cat", "star"}


def test_reading_can_be_stopped_and_what_was_read_is_kept(lab: Any, flow: Any) -> None:
    graph = exploration(flow, "reader", vocabulary="six_slots", mode="random")
    with flow.Events(lab.server.url) as events:
        prompt = lab.server.queue(graph.nodes)
        events.wait("palate.progress", profile="reader", stage="reading words")
        lab.server.interrupt()
        with pytest.raises(PromptFailed, match="Interrupted"):
            lab.finish(prompt)
    kept = (Path(lab.server.base) / "user" / "palate_features").glob("*.safetensors")
    assert max(len(load_file(path)["features"]) for path in kept) > 20
    assert len(set(said(lab.run(graph)))) == 2


# Refusals -----------------------------------------------------------------------------------------


def test_a_bad_vocabulary_is_refused_before_anything_runs(lab: Any, flow: Any) -> None:
    cases = [
        ({"words": "[subject]\nhouse\n[palette]\n"}, "line 3: the slot"),
        ({"words": "[subject]\nhouse\nHouse"}, "line 3: 'House' stands in line 2"),
        ({"words": "[subject]\nhouse"}, "makes 1 different prompts, but 2"),
        ({"vocabulary": "../../secrets"}, "There is no vocabulary"),
        ({"mode": "static", "criterion": "thompson"}, "builds on answers"),
        ({"arms": 99}, "arms must be 2 to 16"),
    ]
    for changed, said_why in cases:
        graph = exploration(flow, "never begun", **changed)
        with pytest.raises(PromptFailed, match="refused") as caught:
            lab.server.queue(graph.nodes)
        assert said_why in str(caught.value)
    names = [profile["name"] for profile in lab.server.get("/palate/profiles")["profiles"]]
    assert "never begun" not in names


def test_images_that_are_not_the_plans_are_refused(lab: Any, flow: Any) -> None:
    graph = exploration(flow, "strict")
    graph.set("empty", batch_size=2)
    with pytest.raises(PromptFailed, match="has 2 prompts, but Preference Query got 4 images"):
        lab.run(graph)
    graph = exploration(flow, "strict")
    graph.set("positive", text="a house").set("empty", batch_size=2)
    with pytest.raises(PromptFailed, match="Image 2 was not drawn with its prompt"):
        lab.run(graph)


# Picking from a pool ------------------------------------------------------------------------------


def pool(flow: Any, name: str, count: int = 6, **o: Any) -> Any:
    graph = flow.starter(flow.Graph())
    flow.taste(graph, name)
    flow.prompts(graph, "a crimson cat", count)
    flow.sampler(graph, "pool", ["taste", 0], 5, steps=1)
    graph.add("pick", "PalateEDCandidatePicker", taste=["taste", 1], latents=["pool", 0],
              conditioning=["positive", 0], count=3, criterion="D", **o)  # fmt: skip
    graph.add("indices", "PreviewAny", source=["pick", 4])
    return graph


def chosen(run: Any) -> list[int]:
    return [int(text) for text in run.outputs["indices"]["text"]]


def test_latents_are_picked_before_they_are_decoded_and_then_asked_about(
    lab: Any, flow: Any
) -> None:
    graph = pool(flow, "latent pool").save("pool")
    flow.question(graph, ["pick", 1], mode=flow.LATER, conditioning=["pick", 2], plan=["pick", 3])
    run = lab.run(graph)
    picked = chosen(run)
    assert len(set(picked)) == 3
    tensors = lab.tensors(run.asked, "latent pool")
    assert flow.same(tensors["latents"], run.latent("pool")[picked])
    assert tensors["plan.features"].shape[0] == 3
    lab.answer(run.asked, {"kind": "pick", "winner": 2})
    after = lab.run(graph)
    assert "pool" in after.cached
    assert "pick" not in after.cached


def test_images_are_passed_on_with_their_latents(lab: Any, flow: Any) -> None:
    graph = pool(flow, "image pool")
    graph.add("all", "VAEDecode", samples=["pool", 0], vae=["starter", 2])
    graph.set("pick", images=["all", 0])
    flow.question(
        graph, ["pick", 1], mode=flow.LATER, conditioning=["pick", 2], plan=["pick", 3],
        images=["pick", 0],
    )  # fmt: skip
    run = lab.run(graph)
    assert len(lab.query(run.asked)["candidates"]) == 3


def test_a_pool_of_designed_prompts_stays_a_question_about_words(lab: Any, flow: Any) -> None:
    graph = exploration(flow, "many", arms=5, mode="random")
    graph.add("pick", "PalateEDCandidatePicker", taste=["taste", 1], latents=["question", 0],
              conditioning=["positive", 0], count=2, criterion="V", plan=["design", 1])  # fmt: skip
    graph.set("pixels", samples=["pick", 1])
    graph.set("query", latents=["pick", 1], conditioning=["pick", 2], plan=["pick", 3])
    run = lab.run(graph)
    shown = {candidate["prompt"] for candidate in lab.query(run.asked)["candidates"]}
    assert len(shown) == 2
    assert shown < set(said(run))
    lab.answer(run.asked, PICK)
    assert lab.profile("many")["learnt"]["questions"] == 1


def test_too_small_a_pool_is_refused(lab: Any, flow: Any) -> None:
    with pytest.raises(PromptFailed, match="is to pick 3 of 2 candidates"):
        lab.run(pool(flow, "tiny pool", count=2))


# The bundled workflows ----------------------------------------------------------------------------


def test_the_bundled_exploration_runs_to_its_end(lab: Any) -> None:
    workflow = json.loads((WORKFLOWS / "prompt_exploration.json").read_text("utf-8"))
    graph = api_format(workflow, lab.server.object_info())
    by_type: dict[str, list[dict[str, Any]]] = {}
    for node in graph.values():
        by_type.setdefault(node["class_type"], []).append(node["inputs"])
    by_type["PalateTasteProfile"][0]["name"] = "bundled words"
    for sampler in by_type["KSampler"]:
        sampler["steps"] = 1
    prompt = lab.server.queue(graph)
    query = lab.wait_for_question("bundled words")
    assert len({c["prompt"] for c in query["candidates"]}) == 4
    lab.answer(query["id"], PICK)
    outputs = lab.server.wait(prompt)["outputs"]
    shown = next(out for out in outputs.values() if "images" in out)
    assert len(shown["images"]) == 4


def test_the_checkpoint_workflow_names_only_nodes_and_choices_that_exist(lab: Any) -> None:
    info = lab.server.object_info()
    workflow = json.loads((WORKFLOWS / "prompt_exploration_checkpoint.json").read_text("utf-8"))
    graph = api_format(workflow, info)
    kinds = {node["class_type"] for node in graph.values()}
    assert {"CheckpointLoaderSimple", "PalateEDQueryDesigner", "PalateBestPrompts"} <= kinds
    for node in graph.values():
        spec = info[node["class_type"]]["input"]
        for name, value in node["inputs"].items():
            kind, *options = {**spec.get("required", {}), **spec.get("optional", {})}[name]
            more = options[0] if options else {}
            offered = kind if isinstance(kind, list) else more.get("options")
            if offered and not isinstance(value, list) and name != "ckpt_name":
                assert value in offered, (node["class_type"], name)


# A server of its own ------------------------------------------------------------------------------


def test_a_restart_changes_neither_prompts_nor_what_was_learnt(
    new_comfy: Any, flow: Any, tmp_path: Path
) -> None:
    server = new_comfy(tmp_path / "base")
    server.start()
    lab = flow.Lab(server)
    graph = exploration(flow, "durable")
    lab.answer(lab.run(graph).asked, PICK)
    waiting = lab.run(graph)
    learnt = lab.profile("durable")["learnt"]
    server.kill9()
    server.start()
    assert lab.profile("durable")["learnt"] == learnt
    again = lab.run(graph)
    assert said(again) == said(waiting)
    assert again.asked == waiting.asked
    path = f"/palate/profiles/{urllib.parse.quote('durable')}"
    assert server.get(path)["pending"] == 1
