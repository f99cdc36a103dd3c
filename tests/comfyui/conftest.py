"""ComfyUI servers for the tests in this folder, and the lab that drives them."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

HERE = Path(__file__).parent


def _beside(name: str) -> ModuleType:
    """The module of the file ``name``.py beside this one, whatever else is on sys.path."""
    full = f"palate_tests_comfyui_{name}"
    if full not in sys.modules:
        spec = importlib.util.spec_from_file_location(full, HERE / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[full] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[full])
    return sys.modules[full]


@pytest.fixture(scope="session")
def new_comfy() -> Iterator[Callable[..., Any]]:
    """``new_comfy(base, arguments=(), port=0)``: a ``ComfyServer`` that is not started yet."""
    if not os.environ.get("COMFYUI_PATH"):
        pytest.skip("COMFYUI_PATH is not set: run `python studio.py test`, or set it")
    servers = []

    def make(base: Path, **options: Any) -> Any:
        servers.append(_beside("server").ComfyServer(base, **options))
        return servers[-1]

    yield make
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def comfy(new_comfy: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One running ``ComfyServer`` with Palate's nodes, and those of probe.py and faults.py, for
    every test that needs no more."""
    base = tmp_path_factory.mktemp("comfy")
    (base / "custom_nodes").mkdir()
    for nodes in ("probe.py", "faults.py"):
        shutil.copyfile(HERE / nodes, base / "custom_nodes" / nodes)
    server = new_comfy(base)
    server.start()
    server.check_nodes()
    return server


@pytest.fixture(scope="session")
def flow() -> ModuleType:
    """lab.py: workflows as Python."""
    return _beside("lab")


@pytest.fixture(scope="session")
def lab(comfy: Any, flow: ModuleType) -> Any:
    """The shared server as a ``Lab``."""
    return flow.Lab(comfy)
