"""kill -9 of the server at ten moments of a round: nothing that was acknowledged is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from launch.client import HTTPFailure

pytestmark = pytest.mark.comfyui

NAME = "survivor"
FEW, MANY = 4, 80  # steps of an update: soon done, or never before the power fails
PICK = {"kind": "pick", "winner": 1}


@dataclass
class Round:
    """One round in progress; each method goes on to a moment at which the power may fail."""

    lab: Any
    flow: Any
    seed: int
    events: Any
    acknowledged: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    revision: int = 0
    steps: int = FEW

    def queue(self, mode: str) -> str:
        graph = self.flow.whole_round(NAME, self.seed, mode=mode, steps=self.steps)
        return str(self.lab.server.queue(graph.nodes))

    def ask(self) -> tuple[str, str]:
        """Ids of a run that waits for an answer, and of its question."""
        before = {query["id"] for query in self.lab.pending(NAME)}
        prompt = self.queue(self.flow.NOW)
        ask = self.flow.wait_until(lambda: {q["id"] for q in self.lab.pending(NAME)} - before)
        return prompt, ask.pop()

    def answered(self) -> str:
        """The id of a run whose question has just been answered."""
        prompt, query = self.ask()
        self.lab.answer(query, PICK)
        self.acknowledged.append((query, PICK))
        return prompt

    def folder(self, kind: str) -> Path:
        return Path(self.lab.server.base) / "user" / "palate" / NAME / kind

    def entries(self, kind: str) -> set[str]:
        return {path.name for path in self.folder(kind).glob("*")}

    # During the question

    def while_the_question_is_written(self) -> None:
        before = self.entries("queries")
        self.queue(self.flow.NOW)
        self.flow.wait_until(lambda: self.entries("queries") - before)

    def while_the_run_waits(self) -> None:
        self.ask()

    def after_a_run_that_asked_for_later(self) -> None:
        self.lab.finish(self.queue(self.flow.LATER))

    # Between answer and update

    def right_after_the_answer(self) -> None:
        self.answered()

    # In mid-update

    def learning(self, done: int) -> None:
        self.answered()
        self.events.wait("palate.progress", profile=NAME, done=done)

    def at_the_first_step(self) -> None:
        self.steps = MANY
        self.learning(0)

    def between_two_steps(self) -> None:
        self.steps = MANY
        self.learning(2)

    def before_the_last_step(self) -> None:
        self.learning(FEW - 1)

    # In mid-save

    def while_the_revision_is_written(self) -> None:
        before = self.entries("revisions")
        self.learning(0)
        self.flow.wait_until(lambda: self.entries("revisions") - before)

    def when_the_revision_is_announced(self) -> None:
        self.learning(0)
        self.revision = self.events.wait("palate.revision", profile=NAME)["revision"]

    def right_after_the_run(self) -> None:
        self.lab.finish(self.answered())
        self.revision = self.lab.profile(NAME)["active"]


MOMENTS: list[Callable[[Round], None]] = [
    Round.while_the_question_is_written,
    Round.while_the_run_waits,
    Round.right_after_the_answer,
    Round.at_the_first_step,
    Round.between_two_steps,
    Round.before_the_last_step,
    Round.while_the_revision_is_written,
    Round.when_the_revision_is_announced,
    Round.right_after_the_run,
    Round.after_a_run_that_asked_for_later,
]


@pytest.fixture
def lab(new_comfy: Any, flow: Any, tmp_path: Path) -> Iterator[Any]:
    """A server of this test's own, which it kills."""
    server = new_comfy(tmp_path, arguments=("--disable-api-nodes",))
    server.start()
    yield flow.Lab(server)
    server.stop()


def test_nothing_acknowledged_is_lost_at_any_of_ten_moments(lab: Any, flow: Any) -> None:
    acknowledged: dict[str, dict[str, Any]] = {}
    known_pending: set[str] = set()
    revision = 0
    for number, moment in enumerate(MOMENTS):
        with flow.Events(lab.server.url) as events:
            round = Round(lab, flow, 1000 + number, events)
            moment(round)
            lab.server.kill9()
        acknowledged.update(round.acknowledged)
        revision = max(revision, round.revision)
        lab.server.start()
        before = revision
        revision = check(lab, flow, moment.__name__, acknowledged, known_pending, revision)
        if round.steps == MANY:
            assert revision == before, f"{moment.__name__}: half an update was kept"
    # The questions that were never answered are still there, answered once, and learnt from.
    for id in known_pending:
        lab.answer(id, PICK)
        with pytest.raises(HTTPFailure) as caught:
            lab.answer(id, {"kind": "skip"})
        assert caught.value.status == 409
    learnt = lab.teach(NAME, seed=2000)
    assert not flow.same(learnt.latent("after"), learnt.latent("question"))
    for id in (*known_pending, *acknowledged):
        assert lab.query(id)["state"] == "used", id


def check(
    lab: Any,
    flow: Any,
    moment: str,
    acknowledged: dict[str, dict[str, Any]],
    known_pending: set[str],
    revision: int,
) -> int:
    """What must hold after a restart; returns the active revision."""
    for id, answer in acknowledged.items():
        kept = lab.query(id)
        assert kept["answer"] == answer, f"{moment}: an acknowledged answer is gone"
        assert kept["state"] in ("answered", "used"), moment
    pending = lab.pending(NAME)
    for query in pending:
        for candidate in query["candidates"]:
            assert lab.server.fetch(candidate["image_url"])[:4] == b"\x89PNG", moment
    ids = {query["id"] for query in pending}
    assert known_pending <= ids, f"{moment}: a pending question is gone"
    if moment in ("while_the_run_waits", "after_a_run_that_asked_for_later"):
        assert ids - known_pending, f"{moment}: the question that was shown is gone"
    known_pending.update(ids)
    profile = lab.profile(NAME)
    assert profile["active"] >= revision, f"{moment}: an announced revision is gone"
    drawn, base = lab.sample(name=NAME), lab.sample()
    assert drawn.isfinite().all(), moment
    assert flow.same(drawn, base) == (profile["active"] == 0), moment
    return int(profile["active"])


def test_a_pending_question_outlives_a_restart_and_is_learnt_from(lab: Any, flow: Any) -> None:
    graph = flow.whole_round(NAME, 1, mode=flow.LATER)
    asked = lab.run(graph).asked
    shown = lab.query(asked)
    lab.server.restart()
    assert lab.pending(NAME) == [shown]
    lab.answer(asked, PICK)
    assert not lab.pending(NAME)
    run = lab.run(graph)
    assert run.asked == asked
    assert lab.query(asked)["state"] == "used"
    taught = lab.sample(name=NAME)
    lab.server.restart()
    assert lab.query(asked)["answer"] == PICK
    assert flow.same(lab.sample(name=NAME), taught)
