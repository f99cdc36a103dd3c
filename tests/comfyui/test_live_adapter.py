"""The live adapter on a real ComfyUI: exact where it promises to be, and equal to its LoRA file."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from palate.starter.generate import Starter
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from launch.client import PromptFailed

pytestmark = pytest.mark.comfyui


@pytest.fixture(scope="module")
def taught(lab: Any) -> str:
    """A taste that has learnt enough to show."""
    lab.teach("taught", rounds=2, steps=3)
    return "taught"


def weights_of_the_bare_model(lab: Any, flow: Any) -> str:
    """A hash over every tensor in the file that stock ModelSave writes of the bare MODEL."""
    graph = flow.starter(flow.Graph())
    graph.add("saved", "ModelSave", model=["starter", 0], filename_prefix="t/bare")
    folder = Path(lab.server.base) / "output" / "t"
    before = set(folder.glob("bare*"))
    lab.run(graph.again("saved"))
    (file,) = set(folder.glob("bare*")) - before
    digest = hashlib.sha256()
    for name, tensor in sorted(load_file(file).items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def test_a_fresh_taste_draws_exactly_what_the_bare_model_draws(lab: Any, flow: Any) -> None:
    assert flow.same(lab.sample(name="fresh"), lab.sample())


def test_the_next_sample_of_the_same_run_already_differs(lab: Any, flow: Any) -> None:
    silent = lab.run(flow.whole_round("follows", 5, mode=flow.LATER))
    assert flow.same(silent.latent("after"), silent.latent("question"))
    taught = lab.run(flow.whole_round("follows", 6, rater="warm colours"))
    assert flow.largest_difference(taught.latent("after"), taught.latent("question")) > 1e-4
    assert lab.profile("follows")["active"] == 1


def test_fifteen_updates_leave_the_base_model_as_it_was(lab: Any, flow: Any) -> None:
    before, drawn = weights_of_the_bare_model(lab, flow), lab.sample()
    lab.teach("fifteen", rounds=15, seed=200, steps=1)
    assert lab.profile("fifteen")["active"] == 15
    assert not flow.same(lab.sample(name="fifteen"), drawn)
    assert flow.same(lab.sample(), drawn)
    assert weights_of_the_bare_model(lab, flow) == before


def test_strength_scales_the_taste_and_zero_is_the_base(lab: Any, flow: Any, taught: str) -> None:
    base = lab.sample()
    assert flow.same(lab.sample(name=taught, strength=0.0), base)
    half, whole = (
        flow.largest_difference(lab.sample(name=taught, strength=s), base) for s in (0.5, 1.0)
    )
    assert 0 < half < whole


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_the_saved_lora_on_the_bare_model_is_the_live_adapter(
    lab: Any, flow: Any, taught: str, strength: float
) -> None:
    live = lab.sample(name=taught, strength=strength)
    file = lab.sample(lora=(lab.save_taste(taught), strength))
    assert flow.largest_difference(live, lab.sample()) > 1e-2
    assert flow.largest_difference(live, file) <= 1e-3


def test_lora_loader_works_while_the_taste_is_loaded(lab: Any, flow: Any, taught: str) -> None:
    file = lab.save_taste(taught)
    graph = flow.starter(flow.Graph())
    flow.taste(graph, taught)
    flow.prompts(graph, "a crimson cat")
    flow.sampler(graph, "live", ["taste", 0], 7)
    live = lab.run(graph.save("live").again("live")).latent("live")
    loader = {"lora_name": file, "strength_model": 1.0}
    graph.add("lora", "LoraLoaderModelOnly", model=["starter", 0], **loader)
    flow.sampler(graph, "filed", ["lora", 0], 7)
    run = lab.run(graph.save("filed"))
    assert {"live", "taste"} <= run.cached
    assert flow.largest_difference(run.latent("filed"), live) <= 1e-3


def test_a_style_lora_below_the_taste_can_be_taught_upon(lab: Any, flow: Any, taught: str) -> None:
    """LoraLoader on the bare MODEL, Taste Profile on that: the style stays, the taste learns."""
    style = lab.save_taste(taught)
    for round in (1, 2):
        graph = flow.whole_round("upon a style", 300 + round, rater="dark")
        loader = {"lora_name": style, "strength_model": 1.0}
        graph.add("style", "LoraLoaderModelOnly", model=["starter", 0], **loader)
        graph.set("taste", model=["style", 0])
        run = lab.run(graph)
        assert lab.profile("upon a style")["active"] == round
        assert not flow.same(run.latent("after"), run.latent("question"))
    base = lab.sample()
    assert flow.same(lab.sample(name="upon a style", strength=0.0), base)


def test_learning_leaves_nothing_on_the_bare_model(lab: Any, flow: Any) -> None:
    """Questions drawn by the bare MODEL, PAPA Update the last to load, then the taste is gone."""
    base = lab.sample()
    graph = flow.starter(flow.Graph())
    flow.taste(graph, "gone")
    flow.prompts(graph, "a crimson cat")
    flow.sampler(graph, "question", ["starter", 0], 400)
    rater = graph.add("rater", "PalateSimulatedRater", taste="dark")
    flow.question(graph, ["question", 0], rater=rater)
    flow.update(graph)
    graph.add("report", "PreviewAny", source=["update", 1])
    lab.run(graph)
    assert lab.profile("gone")["active"] == 1
    assert flow.same(lab.sample(), base)
    assert not flow.same(lab.sample(name="gone"), base)
    assert flow.same(lab.sample(), base)


def test_two_tastes_on_one_base_model_do_not_mix(lab: Any, flow: Any, taught: str) -> None:
    base, first = lab.sample(), lab.sample(name=taught)
    assert flow.same(lab.sample(name="second"), base)
    lab.teach("second", seed=500, rater="dark")
    second = lab.sample(name="second")
    assert not flow.same(second, base)
    assert not flow.same(second, first)
    assert flow.same(lab.sample(name=taught), first)
    graph = flow.starter(flow.Graph())
    flow.prompts(graph, "a crimson cat")
    for id, name in (("one", taught), ("two", "second")):
        flow.sampler(graph, id, flow.taste(graph, name, id=f"{id} taste"), 7)
        graph.save(id)
    run = lab.run(graph)
    assert flow.same(run.latent("one"), first)
    assert flow.same(run.latent("two"), second)


def test_the_lora_says_where_it_comes_from(lab: Any, taught: str) -> None:
    name = lab.save_taste(taught)
    assert name == "palate/taught_r0002.safetensors"
    with safe_open(lab.lora_path(name), "pt") as file:
        said = file.metadata()
    profile = lab.profile(taught)
    assert said["palate.revision"] == "2"
    assert said["palate.ratings"] == str(profile["ratings"]) == "4"
    assert said["palate.method"] == "PAPA"
    assert len(said["palate.base_hash"]) == 64
    assert said["modelspec.title"] == "taught (revision 2)"
    for field in ("sai_model_spec", "architecture", "implementation", "date", "description"):
        assert said[f"modelspec.{field}"]
    assert (said["ss_network_dim"], said["ss_network_alpha"]) == ("4", "4")


def test_the_file_in_peft_layout_is_the_live_adapter_in_diffusers(
    lab: Any, flow: Any, taught: str
) -> None:
    state = load_file(lab.lora_path(lab.save_taste(taught, layout="peft")))
    plain = Starter.load()
    layers = {name.removeprefix("base_model.model.").rsplit(".", 2)[0] for name in state}
    assert layers <= {name for name, _ in plain.unet.named_modules()}
    pattern = "|".join(name.replace(".", r"\.") for name in sorted(layers))
    config = LoraConfig(r=flow.RANK, lora_alpha=flow.RANK, target_modules=pattern)
    adapted = get_peft_model(plain.unet, config)
    result = set_peft_model_state_dict(adapted, state)
    assert not result.unexpected_keys
    assert not [key for key in result.missing_keys if "lora_" in key]
    noise = torch.randn((2, *plain.shape), generator=torch.Generator().manual_seed(7))
    drawn = plain.sample(["a crimson cat"] * 2, noise, 4, 3.0) / plain.vae.config.scaling_factor
    live = lab.sample(name=taught)
    assert flow.largest_difference(live, drawn) <= 1e-3 * max(1.0, float(live.abs().max()))


# EPAPA --------------------------------------------------------------------------------------------


def steps_from_noise(lab: Any, flow: Any, name: str | None, boundary: float) -> Any:
    """(latents after the first of four steps, the other three steps from the base's first)."""
    graph = flow.starter(flow.Graph())
    bare = ["starter", 0]
    model = bare if name is None else flow.taste(graph, name, boundary=boundary)
    flow.prompts(graph, "a crimson cat")
    common = {
        "positive": ["positive", 0], "negative": ["negative", 0], "noise_seed": 7, "steps": 4,
        "cfg": 3.0, "sampler_name": "euler", "scheduler": "normal",
    }  # fmt: skip
    first = {"add_noise": "enable", "start_at_step": 0, "end_at_step": 1,
             "return_with_leftover_noise": "enable", "latent_image": ["empty", 0]}  # fmt: skip
    graph.add("begun", "KSamplerAdvanced", model=bare, **common, **first)
    graph.add("first", "KSamplerAdvanced", model=model, **common, **first)
    rest = {"add_noise": "disable", "start_at_step": 1, "end_at_step": 4,
            "return_with_leftover_noise": "disable", "latent_image": ["begun", 0]}  # fmt: skip
    graph.add("rest", "KSamplerAdvanced", model=model, **common, **rest)
    run = lab.run(graph.save("first").save("rest"))
    return run.latent("first"), run.latent("rest")


def test_below_the_boundary_the_base_model_draws_alone(lab: Any, flow: Any, taught: str) -> None:
    base = steps_from_noise(lab, flow, None, 0.0)
    everywhere = steps_from_noise(lab, flow, taught, 0.0)
    noisy_end = steps_from_noise(lab, flow, taught, 0.9)
    assert not flow.same(everywhere[0], base[0])
    assert not flow.same(everywhere[1], base[1])
    assert flow.same(noisy_end[0], everywhere[0])  # the first step, at t = 999
    assert flow.same(noisy_end[1], base[1])  # the steps at t = 666 and below


def test_with_a_negative_prompt_the_guided_prediction_learns(lab: Any, flow: Any) -> None:
    away = {"negative": ["negative", 0], "replay": 0}
    runs = {
        name: lab.teach(name, text="a mosaic cobalt fish", **settings)
        for name, settings in (
            ("learns alone", {"replay": 0}),
            ("learns guided", {**away, "cfg": 3.0}),
            ("learns at one", {**away, "cfg": 1.0}),
        )
    }
    assert flow.same(
        runs["learns alone"].latent("question"), runs["learns guided"].latent("question")
    )
    drawn = [run.latent("after") for run in runs.values()]
    assert not flow.same(drawn[0], drawn[1])
    assert flow.same(drawn[0], drawn[2])


def test_the_pull_towards_the_base_holds_the_taste_near_it(lab: Any, flow: Any) -> None:
    moved = []
    for pull in (0.0, 10.0):
        run = lab.teach(f"pulled {pull}", seed=321, steps=6, variant="code", distillation=pull)
        moved.append((run.latent("after") - run.latent("question")).abs().mean())
    assert 0 < moved[1] < moved[0]


def test_epapa_learns_and_its_file_says_so(lab: Any, flow: Any) -> None:
    run = lab.teach("late steps", boundary=0.7)
    assert not flow.same(run.latent("after"), run.latent("question"))
    graph = flow.starter(flow.Graph())
    flow.taste(graph, "late steps", boundary=0.7)
    graph.add("save", "PalateSaveTaste", taste=["taste", 1], filename_prefix="", layout="kohya")
    name = lab.run(graph).outputs["save"]["text"][0]
    with safe_open(lab.lora_path(name), "pt") as file:
        said = file.metadata()
    assert (said["palate.method"], said["palate.boundary"]) == ("EPAPA", "700")


def test_the_boundary_may_be_told_in_any_unit(lab: Any, flow: Any, taught: str) -> None:
    drawn = [
        lab.sample(name=taught, boundary=boundary, boundary_unit=unit)
        for unit, boundary in (("fraction", 0.5), ("timestep", 500), ("sigma", sigma_of(500)))
    ]
    assert flow.same(drawn[0], drawn[1])
    assert flow.same(drawn[0], drawn[2])
    assert not flow.same(drawn[0], lab.sample(name=taught))


def sigma_of(timestep: int) -> float:
    """Of the starter model, which has Stable Diffusion's schedule; rounded down."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    kept = torch.cumprod(1 - betas, 0)[timestep]
    return float(((1 - kept) / kept).sqrt()) - 1e-4


@pytest.mark.parametrize(
    ("unit", "boundary", "allowed"),
    [("fraction", 400, "below 1"), ("timestep", 1000, "0 to 999"), ("sigma", 15, "0 to 14.61")],
)
def test_a_boundary_that_leaves_nothing_says_what_is_possible(
    lab: Any, unit: str, boundary: float, allowed: str
) -> None:
    with pytest.raises(PromptFailed, match=f"boundary is {boundary}.*{unit}.*{allowed}.*lower"):
        lab.sample(name="too high", boundary=boundary, boundary_unit=unit)


def test_an_update_stops_at_its_drift_limit_and_draws_what_it_did(lab: Any, flow: Any) -> None:
    graph = flow.whole_round("limited", 900, rater="dark", steps=8, drift_limit=0.002)
    graph.add("report", "PreviewAny", source=["update", 1])
    graph.add("picture", "PreviewImage", images=["update", 3])
    run = lab.run(graph)
    assert "drift limit 0.002" in run.outputs["report"]["text"][0]
    drifts = [r["report"].get("drift", 0) for r in lab.profile("limited")["revisions"]]
    assert max(drifts) <= 0.002
    assert Image.open(run.path("picture", "images")).size[0] == 960


def test_a_model_that_carried_a_taste_is_let_go(lab: Any, flow: Any) -> None:
    """Switching checkpoints all day must not fill the memory."""
    lab.sample(name="passing")
    lab.server.post("/free", {"unload_models": True, "free_memory": True})
    look = flow.Graph()
    look.add("look", "ProbeLivingNetworks")
    flow.wait_until(lambda: lab.run(look.again("look")).outputs["look"]["networks"] == [0], 60)
