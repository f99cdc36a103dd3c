"""kill -9 at any moment loses nothing that a profile had acknowledged.

A small server imports torch once and forks a child for every death. A child writes each thing it
was promised into a pipe before it goes on; afterwards the profile is opened here and compared.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from sqlite3 import Connection

import pytest
import torch
from palate.core.profile import ProfileStore, TasteProfile
from palate.core.profile.files import decode_png

pytestmark = pytest.mark.skipif(os.name == "nt", reason="kill -9 and fork are POSIX")

TESTS = Path(__file__).resolve().parents[1]

SERVER = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import conftest
import torch
from palate.core.profile import ProfileStore

torch.set_num_threads(1)

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def live(root, value, rounds):
    profile = ProfileStore(root).open("taste")
    say("opened")
    for value in range(value, value + rounds):
        generator = torch.Generator().manual_seed(value)
        images = torch.rand(2, 16, 16, 3, generator=generator)
        latents = torch.full((2, 4, 64), float(value))
        query = profile.ask(images, {"latents": latents}, ["a", "b"],
                            plan={"value": value}, generator=generator)
        say("asked", query.id, value)
        profile.answer(query.id, {"kind": "pick", "winner": value % 2})
        say("answered", query.id, value)
        weights = {"w": torch.full((5000,), float(value))}
        revision = profile.commit_revision(weights, {"m": -weights["w"]}, used=[query.id],
                                           report={"value": value}, metadata={})
        say("committed", revision.number, value)
        profile.keep_previews(revision.number, images.flip(0))
        assert len(profile.previews(revision.number)) == 2
        say("previewed", revision.number, value)

def die_at_line(number):
    lines = 0
    def trace(frame, event, arg):
        nonlocal lines
        code = frame.f_code.co_filename
        if os.path.basename(os.path.dirname(code)) == "profile":
            if event == "line":
                lines += 1
                if lines == number:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace
    sys.settrace(trace)

say("ready")
for command in sys.stdin:
    root, value, rounds, line = command.split("|")
    child = os.fork()
    if child == 0:
        die_at_line(int(line))
        live(root, int(value), int(rounds))
        sys.settrace(None)
        say("lived")
        os._exit(0)
    say("born", child)
    os.waitpid(child, 0)
    say("dead")
"""


@dataclass
class Promised:
    """What a child was told is on the disk, before it died."""

    asked: dict[str, int] = field(default_factory=dict)
    answered: dict[str, int] = field(default_factory=dict)
    committed: dict[int, int] = field(default_factory=dict)
    previewed: dict[int, int] = field(default_factory=dict)
    lived: bool = False

    def note(self, line: str) -> None:
        what, *words = line.split()
        if what == "asked":
            self.asked[words[0]] = int(words[1])
        elif what == "answered":
            self.answered[words[0]] = int(words[1])
        elif what == "committed":
            self.committed[int(words[0])] = int(words[1])
        elif what == "previewed":
            self.previewed[int(words[0])] = int(words[1])
        elif what == "lived":
            self.lived = True


class Server:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert self._line() == "ready"

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def life(
        self,
        root: Path,
        *,
        value: int,
        rounds: int = 1,
        line: int = 0,
        promises: int | None = None,
        delay: float = 0,
    ) -> Promised:
        """Let a child live; it dies at a line of the profile's code, or once it has reported so
        many promises (the opening is the first), ``delay`` seconds later."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{root}|{value}|{rounds}|{line}\n")
        self._process.stdin.flush()
        promised, child, heard = Promised(), 0, 0
        while (text := self._line()) != "dead":
            assert text, "the server of this test died"
            if text.startswith("born"):
                child = int(text.split()[1])
            else:
                heard += 1
                promised.note(text)
            if child and promises is not None and heard >= promises:
                time.sleep(delay)
                os.kill(child, signal.SIGKILL)
                promises = None
        return promised


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(TESTS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    yield Server(process)
    process.kill()
    process.communicate()


def check_promises(profile: TasteProfile, promised: Promised) -> None:
    for query_id, value in promised.asked.items():
        query = profile.query(query_id)
        assert query.plan == {"value": value}
        check_candidates(profile, query_id, value)
    for query_id, value in promised.answered.items():
        assert profile.query(query_id).answer == {"kind": "pick", "winner": value % 2}
    for number, value in promised.committed.items():
        adapter, optimizer = profile.load_revision(number)
        assert torch.equal(adapter["w"], torch.full((5000,), float(value)))
        assert torch.equal(optimizer["m"], -adapter["w"])
    for number, value in promised.previewed.items():
        check_previews(profile, number, value)


def images_of(value: int) -> torch.Tensor:
    return torch.rand(2, 16, 16, 3, generator=torch.Generator().manual_seed(value))


def check_candidates(profile: TasteProfile, query_id: str, value: int) -> None:
    assert (profile.images(query_id) - images_of(value)).abs().max() <= 0.5 / 255 + 1e-6
    latents = profile.tensors(query_id)["latents"]
    assert torch.equal(latents, torch.full((2, 4, 64), float(value)))


def check_previews(profile: TasteProfile, number: int, value: int) -> None:
    pictures = [decode_png(path.read_bytes()) for path in profile.previews(number)]
    assert (torch.stack(pictures) - images_of(value).flip(0)).abs().max() <= 0.5 / 255 + 1e-6


def check_nothing_is_half(profile: TasteProfile) -> None:
    """Whatever is listed is complete, and whatever is not listed is gone."""
    queries, revisions = profile.queries(), profile.revisions()
    assert {entry.name for entry in (profile.folder / "queries").iterdir()} == {
        query.id for query in queries
    }
    assert set((profile.folder / "revisions").iterdir()) == {
        revision.path for revision in revisions if revision.path
    }
    assert [revision.number for revision in revisions] == list(range(len(revisions)))
    with_previews = [revision for revision in revisions if profile.previews(revision.number)]
    assert {entry.name for entry in (profile.folder / "previews").iterdir()} == {
        f"{revision.number:06d}" for revision in with_previews
    }
    for revision in with_previews[-2:]:
        check_previews(profile, revision.number, revision.report["value"])
    newest = revisions[-1]
    assert profile.active == newest
    if newest.number:
        adapter, _ = profile.load_revision(newest.number)
        assert torch.equal(adapter["w"], torch.full((5000,), float(newest.report["value"])))
        assert [q.used_by for q in queries if q.plan == newest.report] == [newest.number]
    if queries:
        assert queries[-1].plan is not None
        check_candidates(profile, queries[-1].id, queries[-1].plan["value"])


def check_life_goes_on(profile: TasteProfile) -> None:
    """A pending question takes its answer; an unused answer can be trained with."""
    for query in profile.queries("pending"):
        profile.answer(query.id, {"kind": "pick", "winner": query.plan["value"] % 2})
    for query in profile.waiting():
        profile.commit_revision(
            {"w": torch.full((5000,), float(query.plan["value"]))},
            {},
            used=[query.id],
            report=query.plan,
            metadata={},
        )
    assert profile.queries("pending") == profile.waiting() == []
    assert profile.rounds == len(profile.queries())


def test_killed_at_random_moments_again_and_again(server: Server, tmp_path: Path) -> None:
    moments = random.Random(0)
    store = ProfileStore(tmp_path)
    everything = Promised()
    for life in range(30):
        promised = server.life(
            tmp_path,
            value=1000 * life,
            rounds=1000,
            promises=moments.randint(0, 9),
            delay=moments.uniform(0, 0.015),
        )
        assert not promised.lived
        profile = store.open("taste")
        check_promises(profile, promised)
        check_nothing_is_half(profile)
        if life % 2:  # every other time the next life finds things as the death left them
            check_life_goes_on(profile)
        everything.asked |= promised.asked
        everything.answered |= promised.answered
        everything.committed |= promised.committed
        everything.previewed |= promised.previewed
        store.close()
    profile = store.open("taste")
    check_promises(profile, everything)
    check_nothing_is_half(profile)
    assert len(everything.committed) > 10
    assert len(everything.previewed) > 10
    store.close()


def test_killed_at_every_kind_of_line(server: Server, tmp_path: Path) -> None:
    """From the creation of a profile to its first previews, one death every few lines of code."""
    stages = set()
    line, step = 1, 17
    while True:
        root = tmp_path / str(line)
        promised = server.life(root, value=line, line=line)
        if promised.lived:
            break
        store = ProfileStore(root)
        profile = store.open("taste")
        check_promises(profile, promised)
        check_nothing_is_half(profile)
        seen = sum(len(profile.previews(revision.number)) for revision in profile.revisions())
        stages.add((len(profile.queries()), profile.rounds, len(profile.revisions()), seen))
        check_life_goes_on(profile)
        store.close()
        line += step
    assert line > 300
    assert stages == {(0, 0, 1, 0), (1, 0, 1, 0), (1, 1, 1, 0), (1, 1, 2, 0), (1, 1, 2, 2)}


def disk_calls(work: Callable[[], object]) -> list[str]:
    """What ``work`` flushes, renames and commits, in order, from the first flush on."""
    calls: list[str] = []

    def trace(frame: object, event: str, function: object) -> None:
        owner = getattr(function, "__self__", None)
        if event == "c_call" and (owner is sys.modules["posix"] or isinstance(owner, Connection)):
            calls.append(function.__name__)

    sys.setprofile(trace)
    try:
        work()
    finally:
        sys.setprofile(None)
    calls = [call for call in calls if call in ("fsync", "rename", "replace", "commit")]
    return calls[calls.index("fsync") :]


def test_a_power_cut_finds_files_flushed_before_the_row_that_lists_them(tmp_path: Path) -> None:
    """A kill keeps what the system has cached; a power cut needs this order of flushes too."""
    store = ProfileStore(tmp_path)
    profile = store.open("taste")
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 8, 8, 3, generator=generator)
    asked = disk_calls(
        lambda: profile.ask(images, {"latents": images}, ["a", "b"], generator=generator)
    )
    three_files_and_their_folder = ["fsync"] * 4
    assert asked[:7] == [*three_files_and_their_folder, "rename", "fsync", "commit"]
    weights = {"w": torch.ones(3)}
    committed = disk_calls(
        lambda: profile.commit_revision(weights, {}, used=(), report={}, metadata={})
    )
    assert committed[:4] == ["fsync", "replace", "fsync", "commit"]
    previewed = disk_calls(lambda: profile.keep_previews(1, images))
    two_files_and_their_folder = ["fsync"] * 3
    assert previewed[:5] == [*two_files_and_their_folder, "rename", "fsync"]
    store.close()
