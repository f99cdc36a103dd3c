"""The starter model under stock nodes, and against the same weights in plain diffusers."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from palate.starter.generate import Starter
from palate.starter.vocabulary import words
from PIL import Image
from torch import Tensor

pytestmark = pytest.mark.comfyui

STEPS = 4  # timesteps 999, 666, 333, 0: whole numbers, as both programs step
NAMES = {
    "PalateStarterModel": "Starter Model",
    "PalateTasteProfile": "Taste Profile",
    "PalatePreferenceQuery": "Preference Query",
    "PalatePAPAUpdate": "PAPA Update",
    "PalateSaveTaste": "Save Taste LoRA",
    "PalateSimulatedRater": "Simulated Rater",
}


@pytest.fixture(scope="module")
def plain() -> Starter:
    return Starter.load()


def noise_of(seed: int, count: int, shape: tuple[int, ...]) -> Tensor:
    """The noise that stock samplers draw for a seed."""
    return torch.randn((count, *shape), generator=torch.Generator().manual_seed(seed))


def test_the_nodes_are_registered_under_the_names_of_the_field(comfy: Any) -> None:
    found = comfy.object_info()
    assert {id: found[id]["display_name"] for id in NAMES if id in found} == NAMES


def test_ksampler_draws_what_plain_diffusers_draws(lab: Any, plain: Starter) -> None:
    drawn = lab.sample(seed=11, text="a crimson cat")
    expected = plain.sample(["a crimson cat"] * 2, noise_of(11, 2, plain.shape), STEPS, 3.0)
    drawn = drawn * plain.vae.config.scaling_factor
    assert (drawn - expected).abs().max() <= 1e-3 * max(1.0, float(expected.abs().max()))


def test_sampler_custom_advanced_draws_what_ksampler_draws(lab: Any, flow: Any) -> None:
    graph = flow.starter(flow.Graph())
    flow.prompts(graph, "a crimson cat")
    model = ["starter", 0]
    flow.sampler(graph, "drawn", model, 11, steps=STEPS)
    prompt = {"positive": ["positive", 0], "negative": ["negative", 0]}
    parts = {
        "noise": graph.add("noise", "RandomNoise", noise_seed=11),
        "guider": graph.add("guider", "CFGGuider", model=model, cfg=3.0, **prompt),
        "sampler": graph.add("euler", "KSamplerSelect", sampler_name="euler"),
        "sigmas": graph.add(
            "sigmas", "BasicScheduler", model=model, scheduler="normal", steps=STEPS, denoise=1.0
        ),
    }
    graph.add("custom", "SamplerCustomAdvanced", latent_image=["empty", 0], **parts)
    run = lab.run(graph.save("drawn").save("custom"))
    assert flow.same(run.latent("custom"), run.latent("drawn"))


def test_the_vae_decodes_and_encodes_as_plain_diffusers_does(
    lab: Any, flow: Any, plain: Starter
) -> None:
    graph = flow.starter(flow.Graph())
    flow.prompts(graph, "a crimson cat")
    flow.sampler(graph, "drawn", ["starter", 0], 12, steps=STEPS)
    graph.add("pixels", "VAEDecode", samples=["drawn", 0], vae=["starter", 2])
    graph.add("picture", "SaveImage", images=["pixels", 0], filename_prefix="t/picture")
    graph.add("encoded", "VAEEncode", pixels=["pixels", 0], vae=["starter", 2])
    run = lab.run(graph.save("drawn").save("encoded"))
    latents = run.latent("drawn") * plain.vae.config.scaling_factor
    expected = plain.decode(latents)
    assert tuple(expected.shape[1:]) == (64, 64, 3)
    shown = np.asarray(Image.open(run.path("picture", "images")), np.float32) / 255
    assert np.abs(shown - expected[0].numpy()).max() <= 1.01 / 255
    with torch.no_grad():
        encoded = plain.vae.encode(expected.permute(0, 3, 1, 2) * 2 - 1).latents
    assert flow.largest_difference(run.latent("encoded"), encoded) <= 1e-3


@pytest.fixture
def encoded_by_comfyui(lab: Any, flow: Any) -> Any:
    """The embedding that a question keeps for a text: what stock CLIPTextEncode gave."""
    colors = itertools.count(1)

    def encode(text: str) -> Tensor:
        graph = flow.plain_question("texts", next(colors), mode=flow.LATER)
        graph.set("positive", text=text)
        kept = lab.tensors(lab.run(graph).asked, "texts")
        return kept["conditioning.0.embedding"]

    return encode


def test_a_prompt_is_encoded_as_transformers_does(
    encoded_by_comfyui: Any, flow: Any, plain: Starter
) -> None:
    for text in ("a crimson cat", "", "a żółw, 7!"):
        expected = plain.encode([text])
        assert flow.largest_difference(encoded_by_comfyui(text), expected) <= 1e-4, text


def test_weighted_words_move_away_from_the_empty_prompt(
    encoded_by_comfyui: Any, flow: Any, plain: Starter
) -> None:
    expected, empty = plain.encode(["a crimson cat"]), plain.encode([""])
    weights = torch.ones(expected.shape[1])
    weights[2] = 1.3  # start, "a", "crimson": the word in brackets
    expected = empty + weights[None, :, None] * (expected - empty)
    assert flow.largest_difference(encoded_by_comfyui("a (crimson:1.3) cat"), expected) <= 1e-4


def test_a_prompt_longer_than_the_context_goes_on_in_a_second_one(
    encoded_by_comfyui: Any, flow: Any, plain: Starter
) -> None:
    length = plain.text_encoder.config.max_position_embeddings
    known = [word for word in sorted(set(words())) if word.isalpha()]
    long = list(itertools.islice(itertools.cycle(known), length + 8))
    split = length - 2  # a start and an end in each part
    expected = plain.encode([" ".join(long[:split]), " ".join(long[split:])]).flatten(0, 1)[None]
    assert flow.largest_difference(encoded_by_comfyui(" ".join(long)), expected) <= 1e-4


def test_an_ordinary_prompt_of_any_length_can_be_sampled(lab: Any) -> None:
    drawn = lab.sample(text="(a crimson cat:1.3), " + "in the centre of a tree " * 12)
    assert torch.isfinite(drawn).all()
