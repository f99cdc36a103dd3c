"""The particle sampler on a running ComfyUI: plain before ratings, steered after, stoppable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from launch.client import PromptFailed

pytestmark = pytest.mark.comfyui

SIZE = 64


def setting(flow: Any, name: str, count: int) -> Any:
    """The starter model, a taste, a prompt and ``count`` empty latents."""
    graph = flow.starter(flow.Graph())
    flow.taste(graph, name)
    flow.prompts(graph, "a fish", count)
    return graph


def particles(graph: Any, id: str = "fkc", **o: Any) -> list:
    settings = {
        "seed": 7, "steps": 6, "cfg": 3.0, "scheduler": "normal", "particles": 8, "show": 2,
        "budget": 16, "strength": 5.0, "weights": "twisted", "exact_gradient": True,
        "resample_below": 0.3, "selection": "mean", "at_once": 0, **o,
    }  # fmt: skip
    link: list = graph.add(
        id, "PalateFKCParticles", model=["taste", 0], positive=["positive", 0],
        negative=["negative", 0], taste=["taste", 1],
        **{"latent_image": ["empty", 0], **settings},
    )  # fmt: skip
    graph.add(f"{id} file", "SaveLatent", samples=[id, 1], filename_prefix="t/particles")
    graph.add(f"{id} report", "PreviewAny", source=[id, 4])
    return link


def custom(graph: Any, strength: float = 5.0) -> None:
    """FKC Sampler on stock SamplerCustom: the node "custom", saved; its report."""
    graph.add(
        "steer", "PalateFKCSampler", taste=["taste", 1], strength=strength, weights="twisted",
        exact_gradient=True, resample_below=0.3,
    )  # fmt: skip
    graph.add("sigmas", "BasicScheduler", model=["taste", 0], scheduler="normal", steps=6, denoise=1.0)  # fmt: skip  # noqa: E501
    graph.add(
        "custom", "SamplerCustom", model=["taste", 0], add_noise=True, noise_seed=7, cfg=3.0,
        positive=["positive", 0], negative=["negative", 0], sampler=["steer", 0],
        sigmas=["sigmas", 0], latent_image=["empty", 0],
    )  # fmt: skip
    graph.add("steer report", "PreviewAny", source=["steer", 1])
    graph.save("custom")


def stock(graph: Any) -> None:
    """ComfyUI's own ancestral sampler with the same seed and schedule: the node "stock"."""
    flow_sampler = {
        "steps": 6, "cfg": 3.0, "sampler_name": "euler_ancestral", "scheduler": "normal",
        "denoise": 1.0, "positive": ["positive", 0], "negative": ["negative", 0],
        "latent_image": ["empty", 0],
    }  # fmt: skip
    graph.add("stock", "KSampler", model=["taste", 0], seed=7, **flow_sampler)
    graph.save("stock")


def report(run: Any, id: str) -> str:
    return str(run.outputs[f"{id} report"]["text"][0])


def drawn(run: Any, id: str = "fkc") -> torch.Tensor:
    latents: torch.Tensor = run.latent(id)
    return latents


@pytest.fixture(scope="module")
def rated(lab: Any, flow: Any) -> str:
    """A taste that likes dark images, by 24 ratings; nothing has been learnt by the adapter."""
    for seed in range(3):
        graph = setting(flow, "likes dark", 8)
        flow.sampler(graph, "drawn", ["taste", 0], seed, steps=6)
        graph.add("rater", "PalateSimulatedRater", taste="dark")
        flow.question(graph, ["drawn", 0], rater=["rater", 0])
        lab.run(graph)
    return "likes dark"


def test_before_ratings_it_is_the_ancestral_sampler_bit_for_bit(lab: Any, flow: Any) -> None:
    graph = setting(flow, "unrated", 2)
    particles(graph)
    custom(graph)
    stock(graph)
    run = lab.run(graph)
    assert flow.same(drawn(run), drawn(run, "stock"))
    assert flow.same(drawn(run, "custom"), drawn(run, "stock"))
    assert "Waiting for ratings" in report(run, "fkc")
    assert "Waiting for ratings" in report(run, "steer")
    assert lab.profile("unrated")["budget"] == {"total": 16, "left": 16}


def test_at_strength_0_it_is_the_ancestral_sampler_bit_for_bit(
    lab: Any, flow: Any, rated: str
) -> None:
    graph = setting(flow, rated, 2)
    particles(graph, strength=0.0)
    custom(graph, strength=0.0)
    stock(graph)
    run = lab.run(graph)
    assert flow.same(drawn(run), drawn(run, "stock"))
    assert flow.same(drawn(run, "custom"), drawn(run, "stock"))


def test_particles_follow_the_ratings(lab: Any, flow: Any, rated: str) -> None:
    graph = setting(flow, rated, 8)
    particles(graph, show=4, budget=64)
    custom(graph)
    stock(graph)
    for id in ("fkc", "custom", "stock"):
        shown = [id, 1] if id == "fkc" else [id, 0]
        graph.add(f"{id} pixels", "VAEDecode", samples=shown, vae=["starter", 2])
        graph.add(f"{id} images", "PreviewImage", images=[f"{id} pixels", 0])
    graph.add("plot", "PreviewImage", images=["fkc", 3])
    graph.add("weights", "PreviewAny", source=["fkc", 2])
    run = lab.run(graph)
    brightness = {id: _luma(run, f"{id} images") for id in ("fkc", "custom", "stock")}
    assert brightness["fkc"] < brightness["stock"] - 0.03
    assert brightness["custom"] < brightness["stock"] - 0.03
    assert len(drawn(run)) == 8
    assert "8 particles follow 24 ratings" in report(run, "fkc")
    assert "40 of 64 ratings left" in report(run, "fkc")
    assert lab.profile(rated)["budget"] == {"total": 64, "left": 40}
    assert Image.open(run.path("plot", "images")).size == (512, 256)
    assert "reward.safetensors" in {p.name for p in _folder(lab, rated).iterdir()}


def test_those_shown_are_some_of_the_particles(lab: Any, flow: Any, rated: str) -> None:
    graph = setting(flow, rated, 1)
    particles(graph, show=3)
    graph.add("shown file", "SaveLatent", samples=["fkc", 0], filename_prefix="t/shown")
    run = lab.run(graph)
    shown, cloud = run.latent("shown"), drawn(run)
    assert len(shown) == 3
    same = [[bool(torch.equal(a, b)) for b in cloud] for a in shown]
    assert all(any(row) for row in same)


def test_drawn_in_parts_they_are_the_same(lab: Any, flow: Any, rated: str) -> None:
    graph = setting(flow, rated, 1)
    particles(graph, "whole", resample_below=0.0)
    particles(graph, "parts", resample_below=0.0, at_once=3)
    run = lab.run(graph)
    assert flow.largest_difference(drawn(run, "whole"), drawn(run, "parts")) < 1e-2


def test_a_mask_keeps_what_it_covers(lab: Any, flow: Any, rated: str) -> None:
    graph = setting(flow, rated, 1)
    flow.sampler(graph, "start", ["taste", 0], 3)
    graph.add("mask", "SolidMask", value=0.0, width=SIZE, height=SIZE)
    graph.add("masked", "SetLatentNoiseMask", samples=["start", 0], mask=["mask", 0])
    particles(graph, latent_image=["masked", 0], particles=2)
    graph.save("start")
    run = lab.run(graph)
    kept = drawn(run, "start").expand(2, -1, -1, -1)
    assert flow.largest_difference(drawn(run), kept) < 1e-4
    graph = setting(flow, rated, 1)
    flow.sampler(graph, "start", ["taste", 0], 3)
    graph.add("mask", "SolidMask", value=1.0, width=SIZE, height=SIZE)
    graph.add("masked", "SetLatentNoiseMask", samples=["start", 0], mask=["mask", 0])
    particles(graph, latent_image=["masked", 0], at_once=3)
    with pytest.raises(PromptFailed, match="set at_once to 0"):
        lab.run(graph)


def test_what_a_mask_leaves_open_is_drawn_anew(lab: Any, flow: Any, rated: str) -> None:
    graph = setting(flow, rated, 1)
    flow.sampler(graph, "start", ["taste", 0], 3)
    graph.add("closed", "SolidMask", value=0.0, width=SIZE, height=SIZE)
    graph.add("open", "SolidMask", value=1.0, width=SIZE // 2, height=SIZE)
    graph.add(
        "mask", "MaskComposite", destination=["closed", 0], source=["open", 0], x=0, y=0,
        operation="add",
    )  # fmt: skip
    graph.add("masked", "SetLatentNoiseMask", samples=["start", 0], mask=["mask", 0])
    particles(graph, latent_image=["masked", 0], particles=2)
    run = lab.run(graph.save("start"))
    change = (drawn(run) - drawn(run, "start")).abs()
    assert float(change[..., 6:].max()) < 1e-4
    assert float(change[..., :2].mean()) > 0.01


def test_more_shown_than_drawn_is_refused_at_once(lab: Any, flow: Any) -> None:
    graph = setting(flow, "impossible", 1)
    particles(graph, particles=2, show=4)
    with pytest.raises(Exception, match="raise particles"):
        lab.run(graph)


def test_it_stops_when_interrupted(lab: Any, flow: Any, rated: str) -> None:
    graph = setting(flow, rated, 1)
    particles(graph, steps=1000, particles=4)  # minutes, if nothing stopped it
    prompt = lab.server.queue(graph.nodes)
    flow.wait_until(lambda: lab.server.get("/queue")["queue_running"])
    lab.server.interrupt()
    with pytest.raises(PromptFailed, match="Interrupted in"):
        lab.finish(prompt, 60)


def _luma(run: Any, id: str) -> float:
    images = [
        Image.open(run.base / f["type"] / f["subfolder"] / f["filename"])
        for f in run.outputs[id]["images"]
    ]
    return float(np.mean([np.asarray(image.convert("L"), np.float32) / 255 for image in images]))


def _folder(lab: Any, name: str) -> Path:
    return Path(lab.server.base) / "user" / "palate" / name
