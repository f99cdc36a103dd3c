"""Taste Report on a running ComfyUI, with words, previews and likes on its page."""

from __future__ import annotations

from typing import Any

import pytest
from PIL import Image

pytestmark = pytest.mark.comfyui

NAME = "on one page"
WORDS = "[subject]\nhouse\nfish\ncat\n[palette]\ncrimson\ncobalt\nemerald\n"
RATE = {"kind": "rate", "ratings": [1.0, -1.0]}


def page(lab: Any, flow: Any) -> Any:
    """A round of designed prompts that is learnt from, previews and the report of it."""
    graph = flow.whole_round(
        NAME, 8000, count=1, mode=flow.LATER, vae=["starter", 2], previews=2, preview_steps=4
    )
    del graph.nodes["after"], graph.nodes["after file"]
    settings = {
        "vocabulary": "the text below", "slots": WORDS, "mode": "adaptive", "arms": 2,
        "criterion": "automatic", "seed": 0, "prefix": "", "suffix": "",
    }  # fmt: skip
    graph.add("design", "PalateEDQueryDesigner", taste=["taste", 1], clip=["starter", 1],
              **settings)  # fmt: skip
    graph.set("positive", text=["design", 0]).set("query", plan=["design", 1])
    graph.add("report", "PalateTasteReport", taste=["update", 2])
    graph.add("page", "PreviewImage", images=["report", 0])
    return graph


def test_the_page_grows_with_the_taste(lab: Any, flow: Any) -> None:
    graph = page(lab, flow)
    sizes = []
    for _ in range(3):
        run = lab.run(graph)
        sizes.append(Image.open(run.path("page", "images")).size)
        lab.answer(run.asked, RATE)
    assert lab.run(graph).cached.isdisjoint({"report", "page"})
    assert {width for width, _ in sizes} == {960}
    assert sizes[0][1] < sizes[1][1] == sizes[2][1]  # words and pictures since the first answer
    assert lab.profile(NAME)["active"] == 3
