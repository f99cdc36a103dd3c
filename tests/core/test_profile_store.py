"""Profiles below one folder: names, sharing, other processes, threads, and damaged databases."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from palate.core.profile import (
    AnswerConflict,
    InvalidName,
    ProfileBusy,
    ProfileError,
    ProfileStore,
    Query,
    TasteProfile,
    UnknownProfile,
    UnknownQuery,
)
from palate.core.profile import database as profile_database
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable

TESTS = Path(__file__).resolve().parents[1]
PICK = {"kind": "pick", "winner": 0}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ProfileStore]:
    store = ProfileStore(tmp_path / "palate")
    yield store
    store.close()


def ask(profile: TasteProfile, seed: int = 0) -> Query:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(2, 8, 8, 3, generator=generator)
    return profile.ask(images, {"latents": images}, ["a", "b"], generator=generator)


def commit(profile: TasteProfile, value: float = 1.0) -> Any:
    return profile.commit_revision(
        {"w": torch.full((3,), value)}, {}, used=(), report={}, metadata={}
    )


def at_once(count: int, work: Callable[[int], Any]) -> list[Any]:
    """Do ``work(0..count-1)`` in as many threads, released at the same moment."""
    barrier = threading.Barrier(count)

    def start(number: int) -> Any:
        barrier.wait()
        try:
            return work(number)
        except ProfileError as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(start, range(count)))


# Names


GOOD_NAMES = ["a", "Warm colours", "v1.2_final-3", "-", "_", "COM10", "console", "x" * 64, "0"]
BAD_NAMES = [
    "",
    " ",
    ".",
    "..",
    ".hidden",
    "../up",
    "a/b",
    "a\\b",
    "/etc",
    "C:",
    "C:\\x",
    "a:stream",
    "a\x00b",
    "a\n",
    "a\tb",
    "~",
    "x" * 65,
    "ends.",
    "ends ",
    " starts",
    "CON",
    "con",
    "Nul.txt",
    "aux .x",
    "COM1",
    "lpt9.log",
    "CONIN$",
    "é",
    "\uff41",  # a wide a
    "\u0663",  # a digit, but not ASCII
    "a\u200b",
    "a\u202eb",
    "\u017f",  # becomes S in capitals
    "\u212a",  # becomes k in small letters
    "🐈",
    "\ud800",
    "%2e%2e",
    None,
    10**5000,
    b"a",
    ["a"],
]


@pytest.mark.parametrize("name", GOOD_NAMES)
def test_a_good_name_is_the_folder(store: ProfileStore, name: str) -> None:
    assert store.open(name).folder == store.root / name
    assert store.names() == [name]


@pytest.mark.parametrize("name", BAD_NAMES, ids=range(len(BAD_NAMES)))
@pytest.mark.parametrize("create", [True, False])
def test_a_bad_name_is_refused_and_makes_nothing(
    store: ProfileStore, name: Any, create: bool
) -> None:
    with pytest.raises(InvalidName, match=r"cannot name a profile") as refusal:
        store.open(name, create=create)
    assert len(str(refusal.value)) < 300
    assert not store.root.exists()


def test_names_that_differ_in_capitals_only_are_refused(store: ProfileStore) -> None:
    store.open("Warm")
    with pytest.raises(InvalidName, match="'Warm' in capital letters only"):
        store.open("warm")
    assert store.names() == ["Warm"]


def test_names_lists_profiles_only_and_writes_nothing(store: ProfileStore) -> None:
    assert store.names() == store.pending() == []
    assert not store.root.exists()
    store.open("b")
    store.open("a")
    (store.root / "notes").mkdir()
    (store.root / "file").write_text("x")
    (store.root / ".trash").mkdir()
    (store.root / ".trash" / "profile.sqlite").touch()
    store.close()
    before = sorted(store.root.rglob("*"))
    assert store.names() == ["a", "b"]
    assert sorted(store.root.rglob("*")) == before


# Sharing within the process


def test_a_folder_has_one_store_and_a_profile_one_object(
    store: ProfileStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = store.open("a")
    assert store.open("a") is store.open("a", create=False) is profile
    monkeypatch.chdir(tmp_path)
    assert ProfileStore("palate") is ProfileStore(tmp_path / "x" / ".." / "palate") is store
    assert ProfileStore(tmp_path / "other") is not store


def test_a_profile_that_is_not_there(store: ProfileStore) -> None:
    with pytest.raises(UnknownProfile, match="no profile 'a'"):
        store.open("a", create=False)
    with pytest.raises(UnknownProfile), store.look_into("a"):
        pass
    assert not store.root.exists()


def test_a_closed_profile_is_opened_anew(store: ProfileStore) -> None:
    profile = store.open("a")
    asked = ask(profile)
    profile.close()
    assert store.open("a") is not profile
    store.close()
    assert store.open("a", create=False).query(asked.id) == asked


def test_pending_and_find_query_span_all_profiles(store: ProfileStore) -> None:
    asked = [ask(store.open(name), seed) for seed, name in enumerate(["b", "a", "c", "a"])]
    store.open("b").answer(asked[0].id, PICK)
    store.close()
    store.open("c")
    assert store.pending() == asked[1:]
    profile, query = store.find_query(asked[3].id)
    assert (profile, query) == (store.open("a"), asked[3])
    profile.answer(query.id, PICK)
    assert store.pending() == asked[1:3]
    assert store.find_query(asked[0].id)[1].state == "answered"
    for unknown in ("0" * 32, "../a", None):
        with pytest.raises(UnknownQuery):
            store.find_query(unknown)


def test_a_damaged_profile_hides_no_other(store: ProfileStore) -> None:
    asked = ask(store.open("good"))
    (store.root / "broken").mkdir()
    (store.root / "broken" / "profile.sqlite").write_bytes(b"not a database" * 100)
    assert store.pending() == [asked]
    assert store.find_query(asked.id)[1] == asked
    with pytest.raises(ProfileError, match=r"'broken' cannot be used .*backup"):
        store.open("broken")


# Other processes


OTHER = """
import sys
sys.path.insert(0, sys.argv[1])
import conftest
from palate.core.profile import ProfileBusy, ProfileStore

store = ProfileStore(sys.argv[2])
for command in sys.stdin:
    what, name = command.split()
    try:
        if what == "open":
            print("opened", len(store.open(name).queries()), flush=True)
        elif what == "pending":
            print("pending", *(query.profile for query in store.pending()), flush=True)
    except ProfileBusy as error:
        print("busy:", error, flush=True)
"""


@contextmanager
def other_process(root: Path) -> Iterator[tuple[Callable[[str], str], subprocess.Popen[str]]]:
    process = subprocess.Popen(
        [sys.executable, "-c", OTHER, str(TESTS), str(root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )

    def tell(command: str) -> str:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(command + "\n")
        process.stdin.flush()
        return process.stdout.readline().strip()

    try:
        yield tell, process
    finally:
        process.kill()
        process.communicate()


def test_two_processes_never_hold_one_profile(store: ProfileStore) -> None:
    with other_process(store.root) as (tell, process):
        ask(store.open("mine"))
        answer = tell("open mine")
        assert answer.startswith("busy: The profile 'mine' is open in another ComfyUI.")
        assert "Close the other ComfyUI, or pick another profile name" in answer

        assert tell("open theirs") == "opened 0"
        with pytest.raises(ProfileBusy, match="'theirs'"):
            store.open("theirs")
        with pytest.raises(ProfileBusy, match="'theirs'"), store.look_into("theirs"):
            pass
        assert store.names() == ["mine", "theirs"]
        assert [query.profile for query in store.pending()] == ["mine"]
        assert tell("pending x") == "pending"

        ask(store.open("shared"), 1)
        store.close()
        assert tell("pending x") == "pending mine shared"
        assert len(store.open("shared").queries()) == 1  # having looked, it let go
        store.close()
        assert tell("open shared") == "opened 1"

        process.kill()
        process.wait()
        assert store.open("theirs").queries() == []  # the lock dies with its process
        assert ask(store.open("shared"), 2).round == 1


# Threads


def test_threads_open_one_object(store: ProfileStore) -> None:
    assert len({id(profile) for profile in at_once(12, lambda _: store.open("a"))}) == 1


def test_threads_answering_different_questions(store: ProfileStore) -> None:
    profile = store.open("a")
    asked = [ask(profile, seed) for seed in range(24)]
    answers = [{"kind": "pick", "winner": number % 2} for number in range(24)]
    got = at_once(24, lambda number: profile.answer(asked[number].id, answers[number]))
    assert [query.answer for query in got] == answers
    assert (profile.rounds, profile.ratings) == (24, 48)
    assert [query.answer for query in profile.queries("answered")] == answers


def test_threads_answering_one_question(store: ProfileStore) -> None:
    profile = store.open("a")
    asked = ask(profile)
    answers = [{"kind": "pick", "winner": number % 2} for number in range(16)]
    got = at_once(16, lambda number: profile.answer(asked.id, answers[number]))
    kept = profile.query(asked.id).answer
    for answer, outcome in zip(answers, got, strict=True):
        if answer == kept:
            assert outcome.answer == kept
        else:
            assert isinstance(outcome, AnswerConflict)


def test_threads_asking_the_same_question(store: ProfileStore) -> None:
    profile = store.open("a")
    assert len({query.id for query in at_once(8, lambda _: ask(profile))}) == 1
    assert len(list((profile.folder / "queries").iterdir())) == 1


def test_threads_committing_while_others_look_on(store: ProfileStore) -> None:
    profile = store.open("a")

    def work(number: int) -> Any:
        if number % 2:
            return commit(profile, float(number)).number
        revision = profile.active
        adapter, _ = profile.load_revision(revision.number)
        return (revision.number == 0) == (not adapter) and bool(profile.summary()["revisions"])

    got = at_once(16, work)
    assert sorted(got[1::2]) == list(range(1, 9))
    assert got[::2] == [True] * 8
    assert [revision.parent for revision in profile.revisions()] == [None, *range(8)]
    for thread, number in zip(range(1, 16, 2), got[1::2], strict=True):
        assert profile.load_revision(number)[0]["w"][0] == thread


def test_closing_waits_for_the_thread_that_writes(store: ProfileStore) -> None:
    profile = store.open("a")
    got = at_once(8, lambda number: profile.close() if number == 4 else ask(profile, number))
    store.close()
    kept = {query.id for query in store.open("a").queries()}
    assert kept == {outcome.id for outcome in got if isinstance(outcome, Query)}
    refused = [outcome for outcome in got if isinstance(outcome, Exception)]
    assert all("was closed" in str(error) for error in refused)
    assert {entry.name for entry in (profile.folder / "queries").iterdir()} == kept


# What a crash, a backup or another program leaves behind


def test_leftovers_are_removed_and_the_rest_is_left_alone(store: ProfileStore) -> None:
    profile = store.open("a")
    asked = ask(profile)
    kept = commit(profile).path
    profile.close()
    queries, revisions = profile.folder / "queries", profile.folder / "revisions"
    for leftover in (queries / f".part-{'a' * 32}", queries / ("b" * 32)):
        leftover.mkdir()
        (leftover / "0.png").write_bytes(b"half")
    (revisions / ".part-000002.safetensors").write_bytes(b"half")
    (revisions / "000002.safetensors").write_bytes(b"whole, but its transaction never was")
    (revisions / "000007.safetensors").write_bytes(b"newer than a database put back from a backup")
    (queries / "notes.txt").write_text("the artist's own")
    store.open("a")
    assert {entry.name for entry in queries.iterdir()} == {asked.id, "notes.txt"}
    assert {entry.name for entry in revisions.iterdir()} == {kept.name, "000007.safetensors"}


def test_a_lost_database_is_not_taken_for_a_new_profile(store: ProfileStore) -> None:
    profile = store.open("a")
    ask(profile)
    store.close()
    saved = (profile.folder / "profile.sqlite").read_bytes()
    (profile.folder / "profile.sqlite").unlink()
    for _ in range(2):
        with pytest.raises(ProfileError, match=r"profile.sqlite .* is lost, .*backup"):
            store.open("a")
    (profile.folder / "profile.sqlite").write_bytes(saved)
    assert len(store.open("a").queries()) == 1


@pytest.mark.parametrize("content", [None, b""])
def test_a_creation_that_died_is_finished(store: ProfileStore, content: bytes | None) -> None:
    (store.root / "a").mkdir(parents=True)
    (store.root / "a" / "profile.lock").touch()
    if content is not None:
        (store.root / "a" / "profile.sqlite").write_bytes(content)
    assert store.open("a").active.number == 0


def change(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def test_a_newer_format_is_refused_untouched(store: ProfileStore) -> None:
    path = store.open("a").folder / "profile.sqlite"
    store.close()
    change(path, "PRAGMA user_version = 2", "CREATE TABLE better (x)")
    before = path.read_bytes()
    with pytest.raises(ProfileError, match=r"newer Palate \(format 2; .* 1\)\. Update Palate"):
        store.open("a")
    assert path.read_bytes() == before
    change(path, "PRAGMA user_version = 1")
    assert store.open("a").rounds == 0


def test_another_program_s_database_is_refused(store: ProfileStore) -> None:
    (store.root / "a").mkdir(parents=True)
    path = store.root / "a" / "profile.sqlite"
    change(path, "CREATE TABLE recipes (cake)")
    with pytest.raises(ProfileError, match="another program"):
        store.open("a")
    with closing(sqlite3.connect(path)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master").fetchall()
    assert tables == [("recipes",)]


def test_a_folder_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "palate").write_text("a file in the way")
    with pytest.raises(ProfileError, match=r"Opening the profile 'a' failed at .*folder"):
        ProfileStore(tmp_path / "palate").open("a")


def test_the_database_is_durable_and_checked(store: ProfileStore) -> None:
    profile = store.open("a")
    with profile._database.read() as connection:
        values = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "user_version")
        }
    full = 2
    assert values == {
        "journal_mode": "wal",
        "synchronous": full,
        "foreign_keys": 1,
        "user_version": 1,
    }
    assert profile_database.SCHEMA_VERSION == 1


def test_a_transaction_that_fails_leaves_no_trace(store: ProfileStore) -> None:
    profile = store.open("a")

    def half() -> None:
        with profile._database.write() as connection:
            connection.execute(profile_database.settings.insert().values(key="x", value=1))
            connection.execute(profile_database.active.update().values(revision=99))

    with pytest.raises(ProfileError, match="FOREIGN KEY"):
        half()
    assert profile.settings == {}
    assert profile.active.number == 0


def test_the_tables_are_also_postgresql(store: ProfileStore) -> None:
    dialect = postgresql.dialect()
    for table in profile_database.tables.sorted_tables:
        assert str(CreateTable(table).compile(dialect=dialect)).strip().startswith("CREATE TABLE")
        for index in table.indexes:
            assert str(CreateIndex(index).compile(dialect=dialect))
    package = Path(profile_database.__file__).parent
    for path in package.glob("*.py"):
        if path.name != "database.py":
            assert "exec_driver_sql" not in path.read_text(encoding="utf-8")
