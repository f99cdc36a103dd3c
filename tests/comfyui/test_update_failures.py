"""Memory that runs out, NaN and a full disk at every stage of an update, in a running ComfyUI."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from palate.core.profile import ProfileStore

from launch.client import PromptFailed

pytestmark = pytest.mark.comfyui

NAME = "unlucky"
PICK = {"kind": "pick", "winner": 1}
STOPS, TAKEN_BACK, KEPT = "the run stops", "the update is taken back", "the update is kept"
CASES = [
    ("noise", "memory", STOPS),
    ("noise", "nan", TAKEN_BACK),
    ("forward", "memory", STOPS),
    ("forward", "nan", TAKEN_BACK),
    ("backward", "memory", STOPS),
    ("backward", "nan", TAKEN_BACK),
    ("optimiser", "memory", STOPS),
    ("optimiser", "nan", TAKEN_BACK),
    ("drift", "memory", KEPT),
    ("drift", "nan", TAKEN_BACK),
    ("commit", "memory", STOPS),
    ("commit", "disk", STOPS),
    ("previews", "memory", KEPT),
    ("previews", "nan", KEPT),
]


@pytest.fixture
def fail(lab: Any, flow: Any) -> Iterator[Any]:
    """``fail(stage, fault)``: from now on that stage fails; ``fail("none")`` puts it right."""

    def arm(stage: str, fault: str = "memory") -> None:
        graph = flow.Graph()
        graph.add("fault", "ProbeFault", stage=stage, fault=fault)
        lab.run(graph.again("fault"))

    yield arm
    arm("none")


def one_round(flow: Any, seed: int) -> Any:
    graph = flow.whole_round(
        NAME, seed, mode=flow.LATER, steps=2, timesteps=1, replay=1, vae=["starter", 2],
        previews=1, preview_steps=1,
    )  # fmt: skip
    graph.add("report", "PreviewAny", source=["update", 1])
    del graph.nodes["after"], graph.nodes["after file"]
    return graph


def test_a_failure_at_any_stage_loses_no_rating_and_no_revision(
    lab: Any, flow: Any, fail: Any, tmp_path: Path
) -> None:
    """After each failure the next run, which asks the next question, learns from the same
    ratings."""
    lab.teach(NAME, seed=6000, vae=["starter", 2], previews=1, preview_steps=1)
    good, unlearnt = 1, None
    for number, (stage, fault, outcome) in enumerate([*CASES, ("none", "memory", KEPT)]):
        moment = f"{stage}, {fault}"
        graph = one_round(flow, 6001 + number)
        asked = lab.run(graph).asked
        if unlearnt is not None:
            good += 1
            assert lab.query(unlearnt)["used_by"] == good, f"before {moment}"
        assert lab.profile(NAME)["active"] == good, f"before {moment}"
        drawn, ratings = lab.sample(name=NAME), lab.profile(NAME)["ratings"]
        lab.answer(asked, PICK)

        fail(stage, fault)
        said = ""
        if outcome == STOPS:
            with pytest.raises(PromptFailed, match="PalatePAPAUpdate"):
                lab.run(graph)
        else:
            said = lab.run(graph).outputs["report"]["text"][0]
        fail("none")

        kept = outcome == KEPT
        assert ("Nothing changed" in said) == (outcome == TAKEN_BACK), moment
        assert (f"No previews of revision {good + 1}" in said) == (stage == "previews"), moment
        assert lab.query(asked)["answer"] == PICK, moment
        assert lab.profile(NAME)["active"] == good + kept, moment
        assert lab.profile(NAME)["ratings"] == ratings + 2, moment
        check_cold(lab, tmp_path / str(number), moment, good + kept, asked, kept)
        now = lab.sample(name=NAME)
        assert torch.isfinite(now).all(), moment
        assert flow.same(now, drawn) != kept, moment
        good, unlearnt = good + kept, None if kept else asked


def check_cold(lab: Any, folder: Path, moment: str, active: int, asked: str, used: bool) -> None:
    """The profile as a ComfyUI that starts now would find it: a copy of what is on the disk."""
    lived_in = Path(lab.server.base) / "user" / "palate" / NAME
    shutil.copytree(lived_in, folder / NAME, ignore=shutil.ignore_patterns("*.lock"))
    profile = ProfileStore(folder).open(NAME)
    assert profile.active.number == active, moment
    assert len(profile.revisions()) == active + 1, moment
    adapter, _ = profile.load_revision(active)
    assert all(tensor.isfinite().all() for tensor in adapter.values()), moment
    assert profile.query(asked).answer == PICK, moment
    assert profile.query(asked).state == ("used" if used else "answered"), moment
    profile.close()
