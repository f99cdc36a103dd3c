"""A real ComfyUI for tests: the studio's own server class, with the ways tests maltreat it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from launch.client import Client, HTTPFailure, PromptFailed  # noqa: E402
from launch.server import Server, has_accelerator  # noqa: E402

__all__ = ["Client", "ComfyServer", "HTTPFailure", "PromptFailed"]


class ComfyServer(Server):
    """ComfyUI from ``COMFYUI_PATH`` under this interpreter, with the pack linked into ``base``.

    ``get``, ``post``, ``fetch``, ``object_info``, ``queue``, ``wait``, ``interrupt``, ``start``,
    ``stop``, ``log``, ``log_text()`` and ``url`` are the studio's own.
    """

    def __init__(self, base: Path, arguments: Sequence[str] = (), port: int = 0) -> None:
        cpu = [] if has_accelerator(sys.executable) else ["--cpu"]
        super().__init__(
            Path(os.environ["COMFYUI_PATH"]), base, port=port, arguments=[*cpu, *arguments]
        )

    def kill9(self) -> None:
        """The power cut: no handler of the server runs."""
        self.kill()

    def restart(self) -> None:
        """A new process on the same base directory and port."""
        self.stop()
        self.start()
