"""Each model family as ComfyUI builds it: attach, learn, save, and load with three other programs.

families.py does the work in a process of its own; here is what must be so.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.comfyui

FAMILIES = {
    "SD1.5": "variance",
    "SDXL": "variance",
    "SD3": "flow",
    "Flux": "flow",
    "Lumina2": "flow",
    "Z-Image": "flow",
    "Qwen-Image": "flow",
    "Wan": "flow",
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    if not os.environ.get("COMFYUI_PATH"):
        pytest.skip("COMFYUI_PATH is not set: run `python studio.py test`, or set it")
    out = tmp_path_factory.mktemp("families") / "found.json"
    script = Path(__file__).with_name("families.py")
    command = [sys.executable, str(script), os.environ["COMFYUI_PATH"], str(out)]
    ran = subprocess.run(
        command, capture_output=True, text=True, cwd=out.parent, env={**os.environ,
        "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}, timeout=1200,
    )  # fmt: skip
    assert out.exists(), ran.stderr[-4000:]
    return json.loads(out.read_text("utf-8"))


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def found(results: dict[str, Any], family: str) -> dict[str, Any]:
    assert "error" not in results[family], results[family]["error"]
    return results[family]


def test_the_family_learns(found: dict[str, Any], family: str) -> None:
    assert found["schedule"] == FAMILIES[family]
    assert found["rolled_back"] is None
    assert found["gradient_norm"] > 0
    assert found["finite"]
    assert found["moved"] > 1e-3
    # Qwen-Image does not use what the text's half of its last block makes.
    still = [key for key in found["still"] if family != "Qwen-Image" or "blocks.1." not in key]
    assert still == []


def test_blocks_learn_and_embedders_and_modulation_do_not(
    found: dict[str, Any], family: str
) -> None:
    targets = found["targets"]
    assert not [name for name in targets if "label_emb" in name or name == "out.2"]
    if FAMILIES[family] == "flow":
        for word in ("embed", "mod.", "mod_", "modulation", "final", "proj_out", "img_in", "head."):
            assert not [name for name in targets if word in name]
        assert any("mlp" in n or "ffn" in n or "feed_forward" in n for n in targets)


@pytest.mark.parametrize("layout", ["portable", "generic", "kohya"])
def test_the_stock_lora_loader_takes_every_key(found: dict[str, Any], layout: str) -> None:
    loaded = found[f"loader {layout}"]
    assert loaded["left"] == []
    assert loaded["difference"] < 1e-3


def test_a_saved_adapter_comes_back(found: dict[str, Any]) -> None:
    assert found["reloaded"] < 1e-5


def test_peft_takes_every_key(found: dict[str, Any]) -> None:
    assert found["peft"]["left"] == []
    assert found["peft"]["difference"] < 1e-3


def test_diffusers_takes_every_key(found: dict[str, Any]) -> None:
    assert found["diffusers"] == []


def test_checkpointing_changes_nothing_of_what_is_learnt(found: dict[str, Any]) -> None:
    assert found["checkpointing"] < 1e-4


def test_guidance_is_what_the_samplers_make_of_it(found: dict[str, Any]) -> None:
    assert found["guidance"] < 1e-4


def test_previews_are_drawn_of_images_and_of_a_video_s_first_frame(found: dict[str, Any]) -> None:
    drawn = found["previews"]
    assert drawn["shape"] == [3, 8, 8, 3]
    assert drawn["finite"]
    assert drawn["first alone"] < 1e-4
    assert drawn["alike"] > 1e-2  # one prompt's neighbour has noise of its own


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn"])
def test_weights_in_low_precision_are_taught_in_float32(found: dict[str, Any], dtype: str) -> None:
    assert found[dtype] == {"rolled_back": None, "dtypes": ["torch.float32"], "moved": True}
