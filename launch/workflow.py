"""Turns a workflow as the page saves it into the API format that ComfyUI queues."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NEVER, BYPASS = 2, 4
WIDGET_TYPES = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
SEED_WIDGETS = ("seed", "noise_seed")


def api_format(workflow: Mapping[str, Any], object_info: Mapping[str, Any]) -> dict[str, Any]:
    """The nodes of ``workflow`` that would run, as {id: {class_type, inputs}}.

    object_info: the server's description of its nodes, for the order of their widgets. Muted nodes
    and notes are left out. Raises ValueError for a node that the server does not know, or that is
    bypassed (what it would pass on is the page's business).
    """
    links = {link[0]: (str(link[1]), link[2]) for link in workflow["links"]}
    graph = {}
    for node in workflow["nodes"]:
        if node["type"] in ("Note", "MarkdownNote") or node.get("mode") == NEVER:
            continue
        if node["type"] not in object_info or node.get("mode") == BYPASS:
            raise ValueError(f"can't queue node {node['id']} of type {node['type']}")
        inputs = _widgets(node, object_info[node["type"]])
        for socket in node.get("inputs", []):
            if socket.get("link") is not None:
                inputs[socket["name"]] = list(links[socket["link"]])
        graph[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    while dangling := [id for id, node in graph.items() if not _complete(node, graph)]:
        for id in dangling:
            del graph[id]
    return graph


def _complete(node: Mapping[str, Any], graph: Mapping[str, Any]) -> bool:
    """Whether every link of the node comes from a node that runs."""
    return all(v[0] in graph for v in node["inputs"].values() if isinstance(v, list))


def _widgets(node: Mapping[str, Any], described: Mapping[str, Any]) -> dict[str, Any]:
    names = []
    for group in ("required", "optional"):
        for name, spec in described["input"].get(group, {}).items():
            if isinstance(spec[0], list) or spec[0] in WIDGET_TYPES:
                names.append(name)
                if name in SEED_WIDGETS and len(spec) > 1 and spec[1].get("control_after_generate"):
                    names.append("")  # the page's own "control after generate"
    values = node.get("widgets_values", [])
    return {name: value for name, value in zip(names, values, strict=False) if name}
