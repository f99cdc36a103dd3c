"""Reads the queued graph: which texts led to a conditioning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def prompt_texts(graph: Mapping[str, Any] | None, node: str | None, name: str) -> list[str]:
    """The texts that reach input ``name`` of ``node``, nearest first; empty if none is found.

    Follows the wires of a queued API-format graph upwards until nodes with a ``text`` widget.
    """
    if not graph or node is None or str(node) not in graph:
        return []
    found: list[str] = []
    seen: set[str] = set()
    ahead = [graph[str(node)].get("inputs", {}).get(name)]
    while ahead:
        link = ahead.pop(0)
        if not isinstance(link, list) or len(link) != 2 or str(link[0]) in seen:
            continue
        seen.add(str(link[0]))
        inputs = graph.get(str(link[0]), {}).get("inputs", {})
        if isinstance(inputs.get("text"), str):
            found.append(inputs["text"])
        else:
            ahead += list(inputs.values())
    return found
