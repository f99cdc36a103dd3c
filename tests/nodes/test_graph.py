"""Tracing the texts behind a conditioning through a queued graph."""

from __future__ import annotations

from typing import Any

import pytest
from palate.nodes.graph import prompt_texts


def node(kind: str = "Node", **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def encode(text: Any) -> dict[str, Any]:
    return node("CLIPTextEncode", text=text, clip=["loader", 1])


LOADER = node("CheckpointLoaderSimple", ckpt_name="model.safetensors")


def test_the_text_of_a_direct_wire() -> None:
    graph = {"loader": LOADER, "6": encode("a fish"), "9": node(conditioning=["6", 0])}
    assert prompt_texts(graph, "9", "conditioning") == ["a fish"]


def test_numbers_name_nodes_too() -> None:
    graph = {"6": encode("a fish"), "9": node(conditioning=[6, 0])}
    assert prompt_texts(graph, 9, "conditioning") == ["a fish"]  # type: ignore[arg-type]


@pytest.mark.parametrize("inputs", [("3", "2"), ("2", "3")])
def test_texts_behind_other_nodes_come_nearest_first(inputs: tuple[str, str]) -> None:
    graph = {
        "1": encode("far"),
        "2": encode("near"),
        "3": node("ConditioningSetTimestepRange", conditioning=["1", 0], start=0.0, end=1.0),
        "4": node(
            "ConditioningCombine", conditioning_1=[inputs[0], 0], conditioning_2=[inputs[1], 0]
        ),
        "9": node(conditioning=["4", 0]),
    }
    assert prompt_texts(graph, "9", "conditioning") == ["near", "far"]


def test_only_the_named_input_is_followed() -> None:
    graph = {
        "1": encode("positive"),
        "2": encode("negative"),
        "9": node("KSampler", positive=["1", 0], negative=["2", 0], seed=3),
    }
    assert prompt_texts(graph, "9", "positive") == ["positive"]
    assert prompt_texts(graph, "9", "negative") == ["negative"]
    assert prompt_texts(graph, "9", "seed") == []
    assert prompt_texts(graph, "9", "absent") == []


def test_a_text_that_is_itself_a_wire_is_followed() -> None:
    graph = {
        "1": node("Text", text="a cat"),
        "2": encode(["1", 0]),
        "9": node(conditioning=["2", 0]),
    }
    assert prompt_texts(graph, "9", "conditioning") == ["a cat"]


def test_a_text_reached_twice_is_named_once() -> None:
    graph = {
        "1": encode("a cat"),
        "2": node(conditioning_1=["1", 0], conditioning_2=["1", 0]),
        "9": node(conditioning=["2", 0]),
    }
    assert prompt_texts(graph, "9", "conditioning") == ["a cat"]


def test_cycles_end() -> None:
    graph = {
        "1": node(a=["2", 0]),
        "2": node(a=["1", 0], b=["9", 0], c=["2", 0], d=["3", 0]),
        "3": encode("found"),
        "9": node(conditioning=["1", 0]),
    }
    assert prompt_texts(graph, "9", "conditioning") == ["found"]


@pytest.mark.parametrize(
    "graph",
    [
        None,
        {},
        {"8": encode("elsewhere")},
        {"9": node()},
        {"9": node(conditioning=["7", 0])},
        {"9": node(conditioning="7")},
        {"9": node(conditioning=["7", 0, 1])},
        {"9": node(conditioning=None)},
        {"9": {"class_type": "Node"}},
        {"9": node(conditioning=["7", 0]), "7": {"class_type": "Node"}},
    ],
)
def test_what_leads_nowhere_gives_no_text(graph: dict[str, Any] | None) -> None:
    assert prompt_texts(graph, "9", "conditioning") == []


def test_without_a_node_there_is_no_text() -> None:
    assert prompt_texts({"9": encode("a")}, None, "text") == []
