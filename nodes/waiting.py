"""Who waits for which answer: nodes in worker threads, woken from the server's thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_waiting: dict[str, list[threading.Event]] = {}
_late = 0


@contextmanager
def expecting(query_id: str) -> Iterator[threading.Event]:
    """An event that is set when the query is answered, for the length of a ``with`` block."""
    event = threading.Event()
    with _lock:
        _waiting.setdefault(query_id, []).append(event)
    try:
        yield event
    finally:
        with _lock:
            _waiting[query_id].remove(event)
            if not _waiting[query_id]:
                del _waiting[query_id]


def wake(query_id: str) -> None:
    """The answer of ``query_id`` is on disk: wakes its node, or counts as late if none waits."""
    global _late
    with _lock:
        events = _waiting.get(query_id, [])
        for event in events:
            event.set()
        if not events:
            _late += 1


def late_answers() -> int:
    """How many answers came while no node waited for them; rises by one with each."""
    with _lock:
        return _late
