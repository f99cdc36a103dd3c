"""The bundled workflow, as the page saves it, becomes what ComfyUI queues."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from launch.workflow import BYPASS, NEVER, api_format

BUNDLED = Path(__file__).resolve().parents[2] / "example_workflows"
INFO: dict[str, Any] = {
    "Loader": {"input": {"required": {}}},
    "Sampler": {
        "input": {
            "required": {
                "model": ["MODEL", {}],
                "seed": ["INT", {"control_after_generate": True}],
                "steps": ["INT", {}],
                "name": [["euler", "ddim"], {}],
            },
            "optional": {"note": ["STRING", {}]},
        }
    },
}


def workflow(**sampler: Any) -> dict[str, Any]:
    return {
        "nodes": [
            {"id": 1, "type": "Loader", "outputs": [{"name": "MODEL", "links": [9]}]},
            {
                "id": 2,
                "type": "Sampler",
                "inputs": [{"name": "model", "type": "MODEL", "link": 9}],
                "widgets_values": [5, "randomize", 20, "ddim", "hello"],
                **sampler,
            },
            {"id": 3, "type": "MarkdownNote", "widgets_values": ["read me"]},
        ],
        "links": [[9, 1, 0, 2, 0, "MODEL"]],
    }


def test_widgets_follow_the_servers_order_and_skip_the_pages_own() -> None:
    graph = api_format(workflow(), INFO)
    assert graph["2"] == {
        "class_type": "Sampler",
        "inputs": {"model": ["1", 0], "seed": 5, "steps": 20, "name": "ddim", "note": "hello"},
    }
    assert "3" not in graph


def test_muted_nodes_and_what_hangs_on_them_are_left_out() -> None:
    muted = workflow()
    muted["nodes"][0]["mode"] = NEVER
    assert api_format(muted, INFO) == {}
    assert list(api_format(workflow(mode=NEVER), INFO)) == ["1"]


@pytest.mark.parametrize("changed", [{"type": "Nowhere"}, {"mode": BYPASS}])
def test_a_node_that_can_not_be_queued_is_named(changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="node 2"):
        api_format(workflow(**changed), INFO)


def test_every_bundled_workflow_has_its_picture_and_sound_wires() -> None:
    files = sorted(BUNDLED.glob("*.json"))
    assert files
    for file in files:
        saved = json.loads(file.read_text("utf-8"))
        nodes = {node["id"]: node for node in saved["nodes"]}
        for id, source, out, target, into, kind in saved["links"]:
            assert id in nodes[source]["outputs"][out]["links"]
            assert nodes[target]["inputs"][into]["link"] == id
            assert nodes[target]["inputs"][into]["type"] == kind
        assert file.with_suffix(".jpg").is_file()
