"""The server class on a real ComfyUI: workflows, failures, kill -9 and a new start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from launch.client import PromptFailed

pytestmark = pytest.mark.comfyui


def picture(prefix: str) -> dict[str, Any]:
    size = {"width": 16, "height": 16, "batch_size": 1, "color": 0x336699}
    save = {"images": ["1", 0], "filename_prefix": prefix}
    return {
        "1": {"class_type": "EmptyImage", "inputs": size},
        "2": {"class_type": "SaveImage", "inputs": save},
    }


def test_a_workflow_runs_and_saves_below_the_base(comfy: Any) -> None:
    entry = comfy.wait(comfy.queue(picture("studio")), timeout=60)
    saved = entry["outputs"]["2"]["images"][0]
    assert (Path(comfy.base) / "output" / saved["filename"]).is_file()


def test_a_node_that_fails_is_named(comfy: Any) -> None:
    prompt = comfy.queue(picture("../../outside"))
    with pytest.raises(PromptFailed, match=r"SaveImage \(node 2\).*outside the output folder"):
        comfy.wait(prompt, timeout=60)


def test_a_workflow_that_cannot_run_is_refused_at_once(comfy: Any) -> None:
    with pytest.raises(PromptFailed, match="refused"):
        comfy.queue({"1": {"class_type": "NoSuchNode", "inputs": {}}})


def test_after_kill_9_it_starts_again_on_the_same_base_and_port(
    new_comfy: Any, tmp_path: Path
) -> None:
    server = new_comfy(tmp_path)
    server.start()
    url, process = server.url, server.process
    server.wait(server.queue(picture("before")), timeout=60)
    server.kill9()
    assert process.returncode == -9
    server.start()
    assert server.url == url
    assert server.check_nodes()
    server.wait(server.queue(picture("after")), timeout=60)
    names = {file.name.split("_")[0] for file in (tmp_path / "output").glob("*.png")}
    assert names == {"before", "after"}
    server.restart()
    assert server.check_nodes()
