"""A running ComfyUI with Palate for the benchmarks that drive one over HTTP."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from launch.client import Client  # noqa: E402
from launch.comfyui import find_comfyui, pinned_folder  # noqa: E402
from launch.places import cache_folder  # noqa: E402
from launch.server import Server, has_accelerator  # noqa: E402


@contextmanager
def served(url: str | None) -> Iterator[Client]:
    """The ComfyUI at ``url``, or one of our own on a temporary folder."""
    if url:
        yield Client(url)
        return
    comfyui = find_comfyui(None, os.environ, ROOT) or pinned_folder(cache_folder())
    with tempfile.TemporaryDirectory(prefix="palate-bench-", ignore_cleanup_errors=True) as base:
        arguments = [] if has_accelerator(sys.executable) else ["--cpu"]
        server = Server(comfyui, Path(base), arguments=[*arguments, "--disable-api-nodes"])
        try:
            server.start()
            server.check_nodes()
            yield server
        finally:
            server.stop()
