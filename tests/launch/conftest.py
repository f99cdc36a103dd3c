"""A stand-in for ComfyUI: a real process that answers as told by files beside its main.py."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from launch.server import Server  # noqa: E402

FAKE_MAIN = """
import argparse, http.server, json, pathlib, signal, subprocess, sys, threading
here = pathlib.Path(__file__).parent
options = argparse.ArgumentParser()
options.add_argument("--port", type=int)
options.add_argument("--base-directory", type=pathlib.Path)
options, rest = options.parse_known_args()
(options.base_directory / "arguments.json").write_text(json.dumps(rest))
if (here / "crash").exists():
    sys.exit((here / "crash").read_text())
if (here / "stubborn").exists():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if (here / "helper").exists():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (options.base_directory / "helper.pid").write_text(str(child.pid))
print((here / "says").read_text() if (here / "says").exists() else "fake ComfyUI", flush=True)
HISTORY = {
    "good": {"status": {"status_str": "success", "messages": []}, "outputs": {"1": {}}},
    "bad": {"status": {"status_str": "error", "messages": [["execution_error", {
        "node_id": "7", "node_type": "PalateThing", "exception_type": "ValueError",
        "exception_message": "no such taste", "traceback": ["line 1\\n"]}]]}},
}
class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self, body, status=200):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    def do_GET(self):
        if self.path == "/system_stats":
            self.answer({"system": {}})
        elif self.path == "/object_info":
            self.answer(json.loads((here / "nodes.json").read_text()))
        elif self.path.startswith("/history/"):
            name = self.path.rsplit("/", 1)[1]
            self.answer({name: HISTORY[name]} if name in HISTORY else {})
        else:
            self.answer({"error": "nothing here"}, 404)
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/prompt" and "refuse" in body["prompt"]:
            self.answer({"error": {"message": "invalid prompt"}}, 400)
        elif self.path == "/prompt":
            self.answer({"prompt_id": "good", "json": self.headers["Content-Type"]})
        elif self.path == "/die":
            import os; os._exit(9)
    def log_message(self, *args):
        pass
class Loud(http.server.ThreadingHTTPServer):
    daemon_threads = True
try:
    Loud(("127.0.0.1", options.port), Handler).serve_forever()
except KeyboardInterrupt:
    print("stopped cleanly", flush=True)
"""


@pytest.fixture
def fake_comfyui(tmp_path: Path) -> Path:
    folder = tmp_path / "ComfyUI"
    (folder / "comfy").mkdir(parents=True)
    (folder / "main.py").write_text(FAKE_MAIN)
    (folder / "nodes.json").write_text(json.dumps({"KSampler": {}, "PalateTasteProfile": {}}))
    (folder / "requirements.txt").write_text("torch\nfake>=1\n")
    (folder / "comfyui_version.py").write_text('__version__ = "0.3.75"\n')
    return folder


@pytest.fixture
def running(fake_comfyui: Path, tmp_path: Path) -> Iterator[Server]:
    made = Server(fake_comfyui, tmp_path / "base")
    made.start(timeout=30)
    yield made
    made.stop()


@pytest.fixture
def wait_for() -> Callable[..., None]:
    """``wait_for(condition, timeout=30)`` returns as soon as the condition holds."""

    def wait_for(condition: Callable[[], object], timeout: float = 30) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, "it did not happen in time"
            time.sleep(0.02)

    return wait_for


@pytest.fixture
def alive() -> Callable[[int], bool]:
    """``alive(pid)``: whether the process runs; one that is dead but not yet reaped does not."""

    def alive(pid: int) -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        status = Path(f"/proc/{pid}/stat")
        return not (status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] == "Z")

    return alive
