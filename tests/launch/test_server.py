"""Starting, checking and stopping a server process."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import studio
from launch import LaunchError, server
from launch.server import Server

ROOT = Path(__file__).resolve().parents[2]


posix_only = pytest.mark.skipif(os.name == "nt", reason="POSIX signals")


class TestPort:
    def test_the_usual_port_unless_it_is_taken(self) -> None:
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            taken = other.getsockname()[1]
            assert server.free_port(taken) not in (0, taken)
            assert not server.port_is_free(taken)
        assert server.free_port(taken) == taken

    def test_a_taken_port_is_refused_with_the_remedy(
        self, fake_comfyui: Path, tmp_path: Path
    ) -> None:
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            taken = other.getsockname()[1]
            with pytest.raises(LaunchError, match=rf"Port {taken} is in use.*--port"):
                Server(fake_comfyui, tmp_path / "base", port=taken).start()


class TestBase:
    def test_workflows_are_offered_and_changes_are_kept(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pack = tmp_path / "pack"
        (pack / "example_workflows").mkdir(parents=True)
        (pack / "example_workflows" / "first.json").write_text("{}")
        monkeypatch.setattr(server, "PACK", pack)
        server.prepare_base(tmp_path / "base")
        copy = tmp_path / "base" / "user" / "default" / "workflows" / "first.json"
        copy.write_text('{"mine": 1}')
        server.prepare_base(tmp_path / "base")
        assert copy.read_text() == '{"mine": 1}'
        assert (tmp_path / "base" / "custom_nodes" / "palate").samefile(pack)

    def test_models_of_an_own_comfyui_are_shared(self, fake_comfyui: Path, tmp_path: Path) -> None:
        assert server.shared_models(fake_comfyui, tmp_path) == []
        for kind in ("loras", "checkpoints", ".hidden"):
            (fake_comfyui / "models" / kind).mkdir(parents=True)
        flag, file = server.shared_models(fake_comfyui, tmp_path)
        assert flag == "--extra-model-paths-config"
        assert json.loads(Path(file).read_text())["comfyui"] == {
            "base_path": str(fake_comfyui / "models"),
            "checkpoints": "checkpoints",
            "loras": "loras",
        }

    def test_the_page_opens_on_the_first_workflow_it_can_name(self, tmp_path: Path) -> None:
        assert studio.opening_query(tmp_path) == "/"
        (tmp_path / "a name with spaces.json").write_text("{}")
        (tmp_path / "first-session.json").write_text("{}")
        assert studio.opening_query(tmp_path) == "/?template=first-session&source=palate"


class TestServer:
    def test_started_it_answers_from_its_own_base(self, running: Server, tmp_path: Path) -> None:
        assert running.check_nodes() == ["PalateTasteProfile"]
        arguments = json.loads((tmp_path / "base" / "arguments.json").read_text())
        assert "--disable-auto-launch" in arguments
        database = tmp_path / "base" / "user" / "comfyui.db"
        assert f"sqlite:///{database.as_posix()}" in arguments

    def test_its_last_words_explain_a_failed_start(
        self, fake_comfyui: Path, tmp_path: Path
    ) -> None:
        (fake_comfyui / "crash").write_text("RuntimeError: no kernel image")
        with pytest.raises(LaunchError, match=r"ended while starting(.|\n)*no kernel image"):
            Server(fake_comfyui, tmp_path / "base").start(timeout=30)

    def test_a_pack_that_does_not_load_shows_why(self, fake_comfyui: Path, tmp_path: Path) -> None:
        (fake_comfyui / "nodes.json").write_text('{"KSampler": {}}')
        (fake_comfyui / "says").write_text(
            "unrelated\nTraceback (most recent call last):\n  in custom_nodes/palate/__init__.py\n"
            "ImportError: peft\nCannot import custom_nodes/palate: peft\nunrelated too\n"
        )
        made = Server(fake_comfyui, tmp_path / "base")
        made.start(timeout=30)
        try:
            with pytest.raises(LaunchError) as caught:
                made.check_nodes()
        finally:
            made.stop()
        assert "ImportError: peft" in str(caught.value)
        assert "unrelated" not in str(caught.value)

    def test_stop_lets_it_end_by_itself(self, running: Server) -> None:
        running.stop()
        assert "stopped cleanly" in running.log_text()
        assert running.process is not None
        assert running.process.returncode == 0
        running.stop()  # and stopping twice is no mistake

    @posix_only
    def test_a_stubborn_server_and_its_helpers_are_killed(
        self,
        fake_comfyui: Path,
        tmp_path: Path,
        wait_for: Callable[..., None],
        alive: Callable[[int], bool],
    ) -> None:
        (fake_comfyui / "stubborn").write_text("")
        (fake_comfyui / "helper").write_text("")
        made = Server(fake_comfyui, tmp_path / "base")
        made.start(timeout=30)
        helper = int((tmp_path / "base" / "helper.pid").read_text())
        made.stop(grace=0.2)
        assert made.process is not None
        assert made.process.returncode == -signal.SIGKILL
        wait_for(lambda: not alive(helper))

    def test_killed_it_can_be_started_again_on_the_same_port(self, running: Server) -> None:
        port = running.port
        running.kill()
        with pytest.raises(OSError, match="refused"):
            running.get("/system_stats")
        running.start(timeout=30)
        assert running.port == port
        assert running.get("/system_stats") == {"system": {}}

    def test_join_returns_when_it_dies(self, running: Server) -> None:
        def die() -> None:
            with pytest.raises((OSError, ConnectionError)):
                running.post("/die", {})

        threading.Thread(target=die).start()
        assert running.join() == 9

    def test_a_proxy_is_never_asked_for_a_local_server(self, running: Server) -> None:
        code = (
            "import sys; from launch.client import Client\n"
            "print(Client(sys.argv[1]).get('/system_stats'))"
        )
        environ = {n: v for n, v in os.environ.items() if n.lower() != "no_proxy"}
        done = subprocess.run(
            [sys.executable, "-c", code, running.url],
            cwd=ROOT,
            env={**environ, "http_proxy": "http://127.0.0.1:9"},
            capture_output=True,
            text=True,
        )
        assert done.stdout.strip() == "{'system': {}}", done.stderr
