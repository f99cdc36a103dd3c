"""Nodes that wait for answers, and the routes that wake them, across threads."""

from __future__ import annotations

import threading

import pytest
from palate.nodes import waiting


def test_an_answer_wakes_the_thread_that_waits_for_it() -> None:
    ready, woken = threading.Event(), threading.Event()

    def wait() -> None:
        with waiting.expecting("q") as answered:
            ready.set()
            if answered.wait(10):
                woken.set()

    before, thread = waiting.late_answers(), threading.Thread(target=wait)
    thread.start()
    assert ready.wait(10)
    assert not woken.is_set()
    waiting.wake("q")
    thread.join(10)
    assert woken.is_set()
    assert waiting.late_answers() == before


def test_an_answer_wakes_its_own_query_only() -> None:
    before = waiting.late_answers()
    with waiting.expecting("a") as first, waiting.expecting("b") as second:
        waiting.wake("b")
        assert second.is_set()
        assert not first.is_set()
    assert waiting.late_answers() == before


def test_all_who_wait_for_one_query_are_woken() -> None:
    with waiting.expecting("q") as first, waiting.expecting("q") as second:
        waiting.wake("q")
        assert first.is_set()
        assert second.is_set()


def test_one_of_two_may_leave() -> None:
    before = waiting.late_answers()
    with waiting.expecting("q") as first:
        with waiting.expecting("q"):
            pass
        waiting.wake("q")
        assert first.is_set()
    assert waiting.late_answers() == before


def test_an_answer_that_nobody_waits_for_is_late() -> None:
    before = waiting.late_answers()
    waiting.wake("q")
    assert waiting.late_answers() == before + 1
    with waiting.expecting("q") as answered:
        assert not answered.is_set()  # an earlier answer is read from disk, not from here
    waiting.wake("q")
    assert waiting.late_answers() == before + 2


def test_leaving_by_an_exception_stops_the_waiting() -> None:
    before = waiting.late_answers()
    with pytest.raises(KeyboardInterrupt), waiting.expecting("q"):
        raise KeyboardInterrupt
    waiting.wake("q")
    assert waiting.late_answers() == before + 1


def test_no_answer_is_lost_among_many_threads() -> None:
    """An answer that races its node's leaving either wakes it or counts as late, and never both."""
    before = waiting.late_answers()
    gate, events = threading.Barrier(32), []

    def wait(query: str) -> None:
        gate.wait(10)
        with waiting.expecting(query) as answered:
            events.append(answered)
            answered.wait(0.001)

    def answer(query: str) -> None:
        gate.wait(10)
        waiting.wake(query)

    threads = [
        threading.Thread(target=work, args=(f"q{n}",)) for n in range(16) for work in (wait, answer)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    woken = sum(event.is_set() for event in events)
    assert len(events) == 16
    assert woken + waiting.late_answers() - before == 16
