"""A ComfyUI server process: prepared base directory, start, readiness, clean stop."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import LaunchError
from .client import Client, HTTPFailure
from .environment import clean_environ
from .places import link_pack, make_folder

PACK = Path(__file__).resolve().parent.parent
LINK_NAME = "palate"
NODE_PREFIX = "Palate"
HOST = "127.0.0.1"
BASE_FOLDERS = ("custom_nodes", "input", "output", "models/loras", "user/default/workflows")
ACCELERATOR_PROBE = "import sys, torch; sys.exit(0 if torch.accelerator.is_available() else 3)"


def free_port(preferred: int = 0) -> int:
    """``preferred`` if nothing listens there, else any free port."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            if sys.platform != "win32":  # as the server does: a port just released is free
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise LaunchError(f"No free port on {HOST}.")


def port_is_free(port: int) -> bool:
    return free_port(port) == port


def has_accelerator(python: Path | str) -> bool:
    """Whether torch in that interpreter can use a GPU (CUDA, ROCm, MPS, XPU) right now."""
    probe = [str(python), "-c", ACCELERATOR_PROBE]
    return subprocess.run(probe, env=clean_environ(), capture_output=True).returncode == 0


def prepare_base(base: Path) -> None:
    """Gives ``base`` the folders ComfyUI expects, this pack, and the bundled workflows."""
    for folder in BASE_FOLDERS:
        make_folder(base / folder)
    link_pack(PACK, base / "custom_nodes" / LINK_NAME)
    for workflow in sorted((PACK / "example_workflows").glob("*.json")):
        copy = base / "user" / "default" / "workflows" / workflow.name
        if not copy.exists():  # the person's own changes stay
            shutil.copyfile(workflow, copy)


def shared_models(comfyui: Path, base: Path) -> list[str]:
    """Arguments for also reading the models of that ComfyUI; the server saves into ``base``."""
    kinds = [
        f.name for f in sorted((comfyui / "models").glob("*")) if f.is_dir() and f.name[0] != "."
    ]
    if not kinds:
        return []
    config = base / "shared_models.yaml"  # JSON is YAML
    paths = {"base_path": str(comfyui / "models"), **{kind: kind for kind in kinds}}
    config.write_text(json.dumps({"comfyui": paths}, indent=1), encoding="utf-8")
    return ["--extra-model-paths-config", str(config)]


class Server(Client):
    """ComfyUI on ``base``, in a process group of its own so that it can be stopped as a whole."""

    def __init__(
        self,
        comfyui: Path,
        base: Path,
        *,
        python: Path | str = sys.executable,
        port: int = 0,
        arguments: Sequence[str] = (),
    ) -> None:
        self.comfyui = Path(comfyui)
        self.base = Path(base).resolve()
        self.python = str(python)
        self.port = port or free_port()
        super().__init__(f"http://{HOST}:{self.port}")
        self.arguments = list(arguments)
        self.log = self.base / "server.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    def start(self, timeout: float = 300) -> None:
        """Starts the server and returns when it answers; raises with its last words otherwise."""
        prepare_base(self.base)
        if not port_is_free(self.port):
            raise LaunchError(
                f"Port {self.port} is in use. Stop the program that listens there, or choose "
                "another port with --port N (without --port a free one is taken)."
            )
        database = (self.base / "user" / "comfyui.db").as_posix()
        command = [self.python, str(self.comfyui / "main.py"), "--port", str(self.port)]
        command += ["--base-directory", str(self.base), "--database-url", f"sqlite:///{database}"]
        command += ["--disable-auto-launch", *self.arguments]
        with open(self.log, "ab") as log:
            self._log_start = log.tell()
            self.process = subprocess.Popen(
                command,
                cwd=self.comfyui,
                env=clean_environ(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                **_own_group(),
            )
        try:
            self._wait_until_it_answers(timeout)
        except BaseException:
            self.stop()
            raise

    def _wait_until_it_answers(self, timeout: float) -> None:
        assert self.process is not None
        deadline = time.monotonic() + timeout
        while True:
            code = self.process.poll()
            if code is not None:
                raise LaunchError(self.last_words(f"ComfyUI ended while starting (code {code})."))
            try:
                self.get("/system_stats", timeout=5)
                return
            except (OSError, ValueError, HTTPFailure):
                pass
            if time.monotonic() > deadline:
                raise LaunchError(self.last_words(f"ComfyUI did not answer in {timeout:.0f} s."))
            time.sleep(0.1)

    def check_nodes(self) -> list[str]:
        """Names of the Palate nodes that the server offers; raises with the reason if none."""
        names = sorted(name for name in self.object_info() if name.startswith(NODE_PREFIX))
        if not names:
            reason = import_trouble(self.log_text())
            raise LaunchError(
                "ComfyUI runs, but it could not load Palate's nodes. Its log says:\n"
                f"{reason}\n  (all of it: {self.log})"
            )
        return names

    def log_text(self) -> str:
        """What the server has printed since its last start."""
        with open(self.log, "rb") as log:
            log.seek(self._log_start)
            return log.read().decode("utf-8", "replace")

    def last_words(self, headline: str, lines: int = 15) -> str:
        tail = "\n".join(f"  {line}" for line in self.log_text().splitlines()[-lines:])
        return f"{headline} Its last lines:\n{tail}\n  (all of it: {self.log})"

    def join(self) -> int:
        """Waits until the server ends by itself and returns its exit code."""
        assert self.process is not None
        while True:
            try:  # with a timeout, because Windows cannot interrupt an endless wait
                return self.process.wait(timeout=0.5)
            except subprocess.TimeoutExpired:
                continue

    def stop(self, grace: float = 10) -> None:
        """Asks the process group to end, insists, kills what is left after ``grace`` s."""
        if self.process is None or self.process.poll() is not None:
            return
        try:
            for ask in (_interrupt, _terminate):
                ask(self.process)
                try:
                    self.process.wait(timeout=grace / 2)
                    break
                except subprocess.TimeoutExpired:
                    continue
        finally:
            self.kill()

    def kill(self) -> None:
        """Ends the process group at once, as kill -9 does."""
        if self.process is not None:
            _kill(self.process)
            self.process.wait()


def import_trouble(log: str, limit: int = 40) -> str:
    """The lines of a ComfyUI log that tell why this pack was not loaded."""
    lines = log.splitlines()
    hits = [i for i, line in enumerate(lines) if LINK_NAME in line.lower()]
    if not hits:
        return "\n".join(f"  {line}" for line in lines[-15:])
    first = next((i for i in range(hits[0], -1, -1) if lines[i].startswith("Traceback")), hits[0])
    return "\n".join(f"  {line}" for line in lines[first : hits[-1] + 1][-limit:] if line.strip())


def _own_group() -> dict[str, Any]:
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def _interrupt(process: subprocess.Popen[bytes]) -> None:
    if sys.platform == "win32":
        process.send_signal(signal.CTRL_BREAK_EVENT)
    else:
        _signal_group(process, signal.SIGINT)


def _terminate(process: subprocess.Popen[bytes]) -> None:
    if sys.platform == "win32":
        process.terminate()
    else:
        _signal_group(process, signal.SIGTERM)


def _kill(process: subprocess.Popen[bytes]) -> None:
    if sys.platform == "win32":
        tree = ["taskkill", "/T", "/F", "/PID", str(process.pid)]
        subprocess.run(tree, capture_output=True)
    else:
        _signal_group(process, signal.SIGKILL)


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # nothing of it is left
        os.killpg(process.pid, number)
