"""Previews on a real ComfyUI: the same prompts and seeds for every revision, and never in the way
of learning."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from launch.client import PromptFailed

pytestmark = pytest.mark.comfyui

STEPS = 5
WITH_VAE = {"vae": ["starter", 2], "previews": 2, "preview_steps": STEPS, "cfg": 3.0}


def folder(lab: Any, name: str, revision: int) -> Path:
    return Path(lab.server.base) / "user" / "palate" / name / "previews" / f"{revision:06d}"


def kept(lab: Any, name: str, revision: int) -> list[np.ndarray]:
    """The previews of a revision as floats in [0, 1]."""
    files = sorted(folder(lab, name, revision).glob("*"))
    return [np.asarray(Image.open(file), np.float32) / 255 for file in files]


def by_stock_nodes(lab: Any, flow: Any, name: str, text: str, seed: int) -> np.ndarray:
    """What KSampler draws with the taste as it is, guided by ConditioningZeroOut."""
    graph = flow.starter(flow.Graph())
    flow.taste(graph, name)
    flow.prompts(graph, text, 1)
    graph.add("zero", "ConditioningZeroOut", conditioning=["positive", 0])
    flow.sampler(graph, "drawn", ["taste", 0], seed, steps=STEPS, scheduler="simple",
                 negative=["zero", 0])  # fmt: skip
    graph.add("pixels", "VAEDecode", samples=["drawn", 0], vae=["starter", 2])
    graph.add("images", "PreviewImage", images=["pixels", 0])
    run = lab.run(graph.again("drawn"))
    return np.asarray(Image.open(run.path("images", "images")), np.float32) / 255


def test_each_revision_draws_what_stock_nodes_draw_from_the_first_prompt(
    lab: Any, flow: Any
) -> None:
    name, first = "previewed", "a crimson cat"
    for revision, text in ((1, first), (2, "an emerald fish, " + "striped " * 80)):
        lab.teach(name, seed=3000 + revision, text=text, **WITH_VAE)
        assert lab.profile(name)["active"] == revision
    for revision in (0, 2):
        lab.activate(name, revision)
        shown = kept(lab, name, revision)
        assert len(shown) == 2
        for seed, picture in enumerate(shown):
            expected = by_stock_nodes(lab, flow, name, first, seed)
            assert np.abs(picture - expected).max() <= 2.01 / 255, (revision, seed)
    for older, newer in ((0, 1), (1, 2)):
        pairs = zip(kept(lab, name, older), kept(lab, name, newer), strict=True)
        assert all(np.abs(a - b).max() > 2.01 / 255 for a, b in pairs)


def test_a_weak_taste_is_drawn_in_full(lab: Any, flow: Any) -> None:
    name, text = "weak", "a crimson cat"
    graph = flow.whole_round(name, 3005, rater="dark", **WITH_VAE)
    graph.set("positive", text=text).set("taste", strength=0.0)
    lab.run(graph)
    for seed, picture in enumerate(kept(lab, name, 1)):
        expected = by_stock_nodes(lab, flow, name, text, seed)
        assert np.abs(picture - expected).max() <= 2.01 / 255, seed
    base, learnt = kept(lab, name, 0), kept(lab, name, 1)
    assert all(np.abs(a - b).max() > 2.01 / 255 for a, b in zip(base, learnt, strict=True))


def test_prompts_of_unlike_length_are_drawn_at_their_own_seeds(lab: Any, flow: Any) -> None:
    name, texts = "of many prompts", ["a crimson cat", "a fish " * 80]
    graph = flow.whole_round(name, 3010, count=1, mode=flow.LATER, **WITH_VAE)
    graph.add("lines", "ProbeLines", lines="\n".join(texts))
    graph.set("positive", text=["lines", 0])
    lab.answer(lab.run(graph).asked, {"kind": "pick", "winner": 0})
    lab.run(graph)
    lab.activate(name, 0)
    for seed, picture in enumerate(kept(lab, name, 0)):
        expected = by_stock_nodes(lab, flow, name, texts[seed], seed)
        assert np.abs(picture - expected).max() <= 2.01 / 255, seed


@pytest.mark.parametrize("left_out", [{"vae": None}, {"previews": 0}], ids=str)
def test_without_a_vae_or_with_none_wished_for_nothing_is_drawn(
    lab: Any, left_out: dict[str, Any]
) -> None:
    name = f"not previewed {len(str(left_out))}"
    asked = {key: value for key, value in {**WITH_VAE, **left_out}.items() if value is not None}
    lab.teach(name, seed=3020, **asked)
    assert lab.profile(name)["active"] == 1
    assert kept(lab, name, 0) == kept(lab, name, 1) == []


def test_stopped_while_it_draws_the_revision_stays(lab: Any, flow: Any) -> None:
    name = "stopped"
    lab.teach(name, seed=3030, **WITH_VAE)
    graph = flow.whole_round(name, 3031, rater="dark", **{**WITH_VAE, "preview_steps": 100})
    with flow.Events(lab.server.url) as events:
        prompt = lab.server.queue(graph.nodes)
        assert events.wait("palate.revision", profile=name)["revision"] == 2
        time.sleep(0.1)
        began = time.monotonic()
        lab.server.interrupt()
        with pytest.raises(PromptFailed, match="Interrupted in"):
            lab.finish(prompt, 60)
        assert time.monotonic() - began < flow.soon(lab)
    assert lab.profile(name)["active"] == 2
    assert kept(lab, name, 2) == []
    lab.teach(name, seed=3032, **WITH_VAE)
    assert len(kept(lab, name, 2)) == len(kept(lab, name, 3)) == 2
