"""A real ComfyUI, a real Chromium, and one page on it for each test."""

from __future__ import annotations

import importlib.util
import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent


def _load(name: str, path: Path) -> Any:
    """A helper module beside the tests, whatever is on sys.path."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A ComfyUI that sends its strict Content-Security-Policy."""
    if not os.environ.get("COMFYUI_PATH"):
        pytest.skip("COMFYUI_PATH is not set: run `python studio.py test`, or set it")
    # One thread is plenty for the starter model, and a busy machine then has nothing to wait for.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    helper = _load("palate_tests_comfyui_server", HERE.parent / "comfyui" / "server.py")
    comfy = helper.ComfyServer(tmp_path_factory.mktemp("comfy"), ["--disable-api-nodes"])
    try:
        comfy.start()
        comfy.check_nodes()
        yield comfy
    finally:
        comfy.stop()


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    pages = pytest.importorskip("selenium") and _load("palate_tests_page", HERE / "page.py")
    if pages.find_browser() is None:
        pytest.skip("Chromium or chromedriver is not installed")
    driver = pages.start_browser(tmp_path_factory.mktemp("chromium"))
    yield driver
    driver.quit()


@pytest.fixture
def page(server: Any, browser: Any) -> Iterator[Any]:
    """A freshly loaded page; afterwards nothing runs or waits on the server."""
    pages = sys.modules["palate_tests_page"]
    fresh = pages.Page(browser, server.url)
    fresh.open()
    yield fresh
    fresh.screenshot("last")
    browser.get("about:blank")
    server.post("/queue", {"clear": True})
    server.interrupt()
    pages.until("an idle server", lambda: not server.get("/prompt")["exec_info"]["queue_remaining"])
    for query in server.get("/palate/queries")["queries"]:
        server.post(f"/palate/queries/{query['id']}/answer", {"kind": "skip"})


@pytest.fixture
def profile() -> str:
    """A taste of its own for each test."""
    return f"taste {uuid.uuid4().hex[:8]}"


@pytest.fixture
def graph(profile: str) -> dict[str, Any]:
    """The smallest whole loop: model, taste, four images, question, update."""
    text = {"clip": ["1", 1], "text": "a striped crimson fish at night"}
    sampler = {"steps": 4, "cfg": 3.0, "sampler_name": "euler", "scheduler": "normal"}
    wires = {"positive": ["3", 0], "negative": ["4", 0], "latent_image": ["5", 0], "denoise": 1.0}
    seed = uuid.uuid4().int % 2**32
    question = {"taste": ["2", 1], "images": ["7", 0], "latents": ["6", 0]}
    answer = {"mode": "ask now", "timeout": 0, "on_timeout": "stop this branch"}
    update = {"model": ["2", 0], "taste": ["2", 1], "feedback": ["8", 0]}
    learning = {"steps": 2, "learning_rate": 1e-3, "timesteps": 2, "replay": 0}
    nodes: dict[str, tuple[str, dict[str, Any]]] = {
        "1": ("PalateStarterModel", {}),
        "2": ("PalateTasteProfile", {"model": ["1", 0], "name": profile, "rank": 4}),
        "3": ("CLIPTextEncode", text),
        "4": ("CLIPTextEncode", {**text, "text": ""}),
        "5": ("EmptyLatentImage", {"width": 64, "height": 64, "batch_size": 4}),
        "6": ("KSampler", {"model": ["2", 0], "seed": seed, **sampler, **wires}),
        "7": ("VAEDecode", {"samples": ["6", 0], "vae": ["1", 2]}),
        "8": ("PalatePreferenceQuery", {**question, "conditioning": ["3", 0], **answer}),
        "9": ("PalatePAPAUpdate", {**update, **learning, "variant": "code", "bound": "hinge"}),
        "10": ("PreviewAny", {"source": ["9", 1]}),
    }
    nodes["2"][1].update({"strength": 1.0, "boundary": 0.0})
    return {id: {"class_type": kind, "inputs": inputs} for id, (kind, inputs) in nodes.items()}
