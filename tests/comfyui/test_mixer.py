"""Taste Mixer on a real ComfyUI: exact with stock samplers, live, and one ordinary LoRA file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from safetensors import safe_open
from torch import Tensor

from launch.client import PromptFailed

pytestmark = pytest.mark.comfyui

WARM, DARK = "mix warm", "mix dark"
RANKS = {WARM: 4, DARK: 2}


@pytest.fixture(scope="module", autouse=True)
def taught(lab: Any, flow: Any) -> None:
    """Two tastes of different rank that show."""
    for seed, (name, rater) in enumerate(((WARM, "warm colours"), (DARK, "dark"))):
        graph = flow.whole_round(name, 5000 + seed, rater=rater, steps=3)
        lab.run(graph.set("taste", rank=RANKS[name]))


Mix = Callable[..., Any]


@pytest.fixture
def mix(flow: Any) -> Mix:
    """``mix(warm=weight, dark=weight)``: a graph with the mixer; ``of`` are settings by taste."""

    def make(warm: float, dark: float, of: dict[str, Any] | None = None, **o: Any) -> Any:
        graph = flow.starter(flow.Graph())
        for name, rank in RANKS.items():
            flow.taste(graph, name, id=name, rank=rank, **(of or {}).get(name, {}))
        graph.add(
            "mixer", "PalateTasteMixer",
            **{"model": ["starter", 0], "taste_a": [WARM, 1], "weight_a": warm,
               "taste_b": [DARK, 1], "weight_b": dark, **o},
        )  # fmt: skip
        flow.prompts(graph, "a crimson cat")
        return graph

    return make


def drawn(lab: Any, flow: Any, graph: Any) -> Tensor:
    flow.sampler(graph, "drawn", ["mixer", 0], 7)
    latents: Tensor = lab.run(graph.save("drawn").again("drawn")).latent("drawn")
    return latents


def test_a_taste_alone_in_the_mix_draws_what_it_draws_alone(lab: Any, flow: Any, mix: Mix) -> None:
    base = lab.sample()
    warm, dark = (lab.sample(name=name, rank=rank) for name, rank in RANKS.items())
    assert flow.same(drawn(lab, flow, mix(1.0, 0.0)), warm)
    assert flow.same(drawn(lab, flow, mix(0.0, 1.0)), dark)
    assert flow.same(drawn(lab, flow, mix(0.0, 0.0)), base)
    both = drawn(lab, flow, mix(0.5, 0.5))
    assert not any(flow.same(both, one) for one in (base, warm, dark))
    assert flow.same(lab.sample(), base)


def test_strength_and_boundary_are_those_of_each_taste_profile(
    lab: Any, flow: Any, mix: Mix
) -> None:
    strong = mix(0.5, -1.0)
    weak = mix(1.0, -2.0, {WARM: {"strength": 0.5}, DARK: {"strength": 0.5}})
    assert flow.same(drawn(lab, flow, strong), drawn(lab, flow, weak))
    alone = lab.sample(name=WARM, boundary=0.5)
    assert flow.same(drawn(lab, flow, mix(1.0, 0.0, {WARM: {"boundary": 0.5}})), alone)
    assert not flow.same(alone, lab.sample(name=WARM))


def test_below_the_boundary_of_one_the_others_go_on(lab: Any, flow: Any, mix: Mix) -> None:
    """The first of four steps with both, the other three with the one that has no boundary."""
    graph = mix(1.0, 1.0, {WARM: {"boundary": 0.9}})
    flow.sampler(graph, "whole", ["mixer", 0], 7)
    ungated = {"name": WARM, "rank": RANKS[WARM], "strength": 1.0, "boundary": 0.0}
    graph.add("ungated", "PalateTasteProfile", model=["starter", 0], **ungated)
    graph.add(
        "both", "PalateTasteMixer", model=["starter", 0], taste_a=["ungated", 1], weight_a=1.0,
        taste_b=[DARK, 1], weight_b=1.0,
    )  # fmt: skip
    common = {
        "positive": ["positive", 0], "negative": ["negative", 0], "noise_seed": 7, "steps": 4,
        "cfg": 3.0, "sampler_name": "euler", "scheduler": "normal",
    }  # fmt: skip
    graph.add(
        "first", "KSamplerAdvanced", model=["both", 0], add_noise="enable", start_at_step=0,
        end_at_step=1, return_with_leftover_noise="enable", latent_image=["empty", 0], **common,
    )  # fmt: skip
    graph.add(
        "rest", "KSamplerAdvanced", model=[DARK, 0], add_noise="disable", start_at_step=1,
        end_at_step=4, return_with_leftover_noise="disable", latent_image=["first", 0], **common,
    )  # fmt: skip
    run = lab.run(graph.save("whole").save("rest"))
    assert flow.largest_difference(run.latent("whole"), run.latent("rest")) < 1e-4


def test_the_file_of_a_mix_is_the_mix_and_each_mix_is_a_file_of_its_own(
    lab: Any, flow: Any, mix: Mix
) -> None:
    names = []
    for warm, dark in ((0.7, -0.4), (1.0, 1.0)):
        graph = mix(warm, dark, filename_prefix="my mix")
        flow.sampler(graph, "drawn", ["mixer", 0], 7)
        run = lab.run(graph.save("drawn"))
        names.append(run.outputs["mixer"]["text"][0])
        filed = lab.sample(lora=(names[-1], 1.0))
        assert flow.largest_difference(filed, run.latent("drawn")) <= 1e-3
        assert flow.largest_difference(filed, lab.sample()) > 1e-2
    assert names[0] != names[1]
    with safe_open(lab.lora_path(names[0]), "pt") as file:
        said = file.metadata()
    assert said["palate.mix"] == f"{WARM} (revision 1) x 0.7; {DARK} (revision 1) x -0.4"
    assert said["ss_network_dim"] == str(sum(RANKS.values()))


def test_tastes_from_another_loader_of_the_same_model_mix_too(
    lab: Any, flow: Any, mix: Mix
) -> None:
    graph = mix(0.5, 0.5)
    expected = drawn(lab, flow, graph)
    other = mix(0.5, 0.5).set("starter", fresh="another")
    other.add("second loader", "PalateStarterModel", fresh="second")
    other.set(DARK, model=["second loader", 0])
    assert flow.same(drawn(lab, flow, other), expected)


def test_three_tastes_and_what_one_learns_or_unlearns_shows(lab: Any, flow: Any, mix: Mix) -> None:
    def three() -> Any:
        graph = mix(0.25, 0.25, taste_c=["third", 1], weight_c=1.0)
        flow.taste(graph, "mix third", id="third")
        return graph

    before = drawn(lab, flow, three())
    assert flow.same(before, drawn(lab, flow, mix(0.25, 0.25)))  # the third is still new
    round = flow.whole_round("mix third", 5010, mode=flow.LATER, steps=3)
    lab.answer(lab.run(round).asked, {"kind": "pick", "winner": 0})
    lab.run(round)
    after = drawn(lab, flow, three())
    assert not flow.same(after, before)
    lab.activate("mix third", 0)
    assert flow.same(drawn(lab, flow, three()), before)
    lab.activate("mix third", 1)
    assert flow.same(drawn(lab, flow, three()), after)


def test_a_taste_of_another_base_model_is_refused_by_its_input(
    lab: Any, flow: Any, mix: Mix
) -> None:
    graph = mix(0.5, 0.5)
    graph.add("other", "ProbeOtherBase")
    flow.taste(graph, "mix other", id="foreign", model=["other", 0])
    graph.set("mixer", taste_b=["foreign", 1])
    with pytest.raises(PromptFailed, match="taste_b of Taste Mixer, 'mix other', was taught on"):
        drawn(lab, flow, graph)


def test_a_model_that_carries_a_taste_is_refused(lab: Any, flow: Any, mix: Mix) -> None:
    with pytest.raises(PromptFailed, match="MODEL on Taste Mixer already carries a taste"):
        drawn(lab, flow, mix(0.5, 0.5).set("mixer", model=[WARM, 0]))
