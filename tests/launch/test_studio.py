"""studio.py as a process, in an environment whose pip is a stand-in."""

from __future__ import annotations

import ast
import errno
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import studio
from launch.client import Client
from launch.environment import Environment, environment_key

ROOT = Path(__file__).resolve().parents[2]
Start = Callable[..., "subprocess.Popen[str]"]


class TestArguments:
    def test_run_is_the_default_command(self) -> None:
        options, _ = studio.parse(["--port", "8000", "--no-browser"])
        assert (options.command, options.port, options.no_browser) == ("run", 8000, True)

    def test_no_arguments_at_all(self) -> None:
        options, rest = studio.parse([])
        assert (options.command, options.comfyui, rest) == ("run", None, [])

    def test_pytest_gets_what_studio_does_not_know(self) -> None:
        options, rest = studio.parse(["test", "-k", "papa or fkc", "--comfyui", "/c", "tests/core"])
        assert options.comfyui == "/c"
        assert rest == ["-k", "papa or fkc", "tests/core"]

    def test_demo_passes_its_own_arguments_on(self) -> None:
        options, rest = studio.parse(["demo", "--rounds", "15", "--base", "b", "--seeds", "1", "2"])
        assert options.base == Path("b")
        assert rest == ["--rounds", "15", "--seeds", "1", "2"]

    def test_abbreviations_are_not_guessed(self) -> None:
        assert studio.parse(["demo", "--po", "1"])[1] == ["--po", "1"]

    def test_run_refuses_unknown_arguments(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            studio.parse(["run", "--prot", "8000"])
        assert "--prot" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals and shell scripts")
class TestCommand:
    """studio.py as a process, in an environment whose pip is a stand-in."""

    @pytest.fixture
    def cache(self, fake_comfyui: Path, tmp_path: Path) -> Path:
        key = environment_key(
            (ROOT / "requirements.txt").read_text(), (fake_comfyui / "requirements.txt").read_text()
        )
        made = Environment(tmp_path / "cache", key)
        made.python.parent.mkdir(parents=True)
        cache = tmp_path / "cache"
        made.python.write_text(
            "#!/bin/sh\n"
            'if [ "$1 $2" = "-m pip" ]; then\n'
            f'  echo "$@" >> "{cache}/pip.calls"\n'
            f'  if [ -e "{cache}/hang" ]; then echo $$ > "{cache}/pip.pid"; exec sleep 600; fi\n'
            f'  if [ -e "{cache}/full" ]; then echo "No space left on device"; exit 1; fi\n'
            "  exit 0\n"
            "fi\n"
            f'exec "{sys.executable}" "$@"\n'
        )
        made.python.chmod(0o755)
        return cache

    MAIN = (  # as studio.py does, on a disk of any size and for any pack
        "import os, pathlib, sys; sys.path.insert(0, sys.argv.pop(1))\n"
        "import launch.environment, studio\n"
        "launch.environment.SPACE_NEEDED_GB = 0\n"
        "studio.ROOT = pathlib.Path(sys.argv.pop(1))\n"
        "sys.exit(studio.main())\n"
    )

    @pytest.fixture
    def start(self, cache: Path, fake_comfyui: Path) -> Iterator[Start]:
        started = []

        def start(*arguments: str, pack: Path = ROOT) -> subprocess.Popen[str]:
            command = [sys.executable, "-c", self.MAIN, str(ROOT), str(pack), *arguments]
            process = subprocess.Popen(
                [*command, "--comfyui", str(fake_comfyui)],
                env={**os.environ, "PALATE_CACHE": str(cache)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
            started.append(process)
            return process

        yield start
        for process in started:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.communicate(timeout=30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()

    def read_until(self, process: subprocess.Popen[str], text: str) -> str:
        assert process.stdout is not None
        read = ""
        for line in process.stdout:
            read += line
            if text in line:
                return read
        pytest.fail(f"{text!r} never came:\n{read}")

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_run_until_a_signal(
        self,
        start: Start,
        tmp_path: Path,
        number: signal.Signals,
        cache: Path,
    ) -> None:
        base = tmp_path / "base"
        process = start("run", "--no-browser", "--cpu", "--base", str(base))
        said = self.read_until(process, "Stop with Ctrl-C")
        address = re.search(r"http://127\.0\.0\.1:\d+", said)
        assert address is not None
        assert urllib.request.urlopen(address[0] + "/system_stats").status == 200
        process.send_signal(number)
        rest, _ = process.communicate(timeout=30)
        assert process.returncode == 0
        assert "Traceback" not in rest
        with pytest.raises(OSError, match="refused"):
            urllib.request.urlopen(address[0] + "/system_stats")

        # the second start installs nothing
        calls = (cache / "pip.calls").read_text()
        again = start("run", "--no-browser", "--cpu", "--base", str(base))
        assert "Setting up" not in self.read_until(again, "Stop with Ctrl-C")
        assert (cache / "pip.calls").read_text() == calls
        again.send_signal(number)
        again.communicate(timeout=30)

    def test_an_interrupted_install_resumes(
        self,
        start: Start,
        cache: Path,
        tmp_path: Path,
        wait_for: Callable[..., None],
        alive: Callable[[int], bool],
    ) -> None:
        (cache / "hang").write_text("")
        process = start("run", "--no-browser", "--cpu", "--base", str(tmp_path / "base"))
        wait_for(lambda: (cache / "pip.pid").exists() and (cache / "pip.pid").read_text().strip())
        pip = int((cache / "pip.pid").read_text())
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=30)
        assert process.returncode == studio.INTERRUPTED
        assert "Start again" in said
        assert not alive(pip)
        assert not list(cache.glob("env-*/*.installed"))

        (cache / "hang").unlink()
        again = start("run", "--no-browser", "--cpu", "--base", str(tmp_path / "base"))
        self.read_until(again, "Palate is ready")
        assert list(cache.glob("env-*/*.installed"))

    def test_two_studios_do_not_share_a_base(self, start: Start, tmp_path: Path) -> None:
        arguments = ("run", "--no-browser", "--cpu", "--base", str(tmp_path / "base"))
        self.read_until(start(*arguments), "Stop with Ctrl-C")
        second = start(*arguments)
        said, _ = second.communicate(timeout=30)
        assert second.returncode == 1
        assert "already running" in said
        assert "--base" in said

    def test_a_server_that_dies_is_reported(self, start: Start, tmp_path: Path) -> None:
        process = start("run", "--no-browser", "--cpu", "--base", str(tmp_path / "base"))
        said = self.read_until(process, "Stop with Ctrl-C")
        address = re.search(r"http://127\.0\.0\.1:\d+", said)
        assert address is not None
        with pytest.raises((OSError, ConnectionError)):
            Client(address[0]).post("/die", {})
        rest, _ = process.communicate(timeout=30)
        assert process.returncode == 1
        assert "ended by itself (code 9)" in rest

    def test_a_pack_that_does_not_load_is_reported_and_nothing_is_left_running(
        self, start: Start, tmp_path: Path, fake_comfyui: Path
    ) -> None:
        (fake_comfyui / "nodes.json").write_text("{}")
        (fake_comfyui / "says").write_text("Cannot import custom_nodes/palate: no peft")
        said, _ = start("run", "--cpu", "--base", str(tmp_path / "base")).communicate(timeout=30)
        assert "could not load Palate's nodes" in said
        assert "no peft" in said
        assert "stopped cleanly" in (tmp_path / "base" / "server.log").read_text()

    def test_a_full_disk_is_explained(self, start: Start, cache: Path, tmp_path: Path) -> None:
        (cache / "full").write_text("")
        said, _ = start("run", "--base", str(tmp_path / "base")).communicate(timeout=30)
        assert "The disk is full" in said
        assert "Traceback" not in said

    def test_the_exit_code_of_pytest_is_passed_on(
        self, start: Start, tmp_path: Path, fake_comfyui: Path
    ) -> None:
        (tmp_path / "test_inner.py").write_text(
            "import os\n"
            f"def test_path(): assert os.environ['COMFYUI_PATH'] == {str(fake_comfyui)!r}\n"
            "def test_python(): assert os.path.exists(os.environ['PALATE_PYTHON'])\n"
            "def test_failing(): assert False\n"
        )
        inner = str(tmp_path / "test_inner.py")
        failing = start("test", inner, "-p", "no:cacheprovider")
        said, _ = failing.communicate(timeout=60)
        assert failing.returncode == 1
        assert re.search(r"1 failed, 2 passed.*\Z", said.strip().splitlines()[-1])
        passing = start("test", inner, "-p", "no:cacheprovider", "-k", "not failing")
        said, _ = passing.communicate(timeout=60)
        assert passing.returncode == 0
        assert "2 passed" in said

    def test_the_demo_gets_a_server_and_the_rest(self, start: Start, tmp_path: Path) -> None:
        demo_root = tmp_path / "clone"
        (demo_root / "benchmarks").mkdir(parents=True)
        (demo_root / "requirements.txt").write_bytes((ROOT / "requirements.txt").read_bytes())
        (demo_root / "benchmarks" / "demo.py").write_text(
            "import sys, urllib.request\n"
            "url = sys.argv[sys.argv.index('--server') + 1]\n"
            "print('answer', urllib.request.urlopen(url + '/system_stats').status)\n"
            "print('rest', sys.argv[5:], flush=True); sys.exit(4)\n"
        )
        process = start("demo", "--cpu", "--rounds", "2", pack=demo_root)
        said, _ = process.communicate(timeout=60)
        assert "answer 200" in said
        assert "rest ['--rounds', '2']" in said
        assert process.returncode == 4


class TestProblemsBeforeAnyWork:
    def test_an_old_python_is_told_so(self) -> None:
        source = (ROOT / "studio.py").read_text(encoding="utf-8")
        ast.parse(source, feature_version=(3, 8))
        code = (
            "import runpy, sys; sys.version_info = (3, 9, 1, 'final', 0)\n"
            f"runpy.run_path({str(ROOT / 'studio.py')!r}, run_name='__main__')"
        )
        told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert told.returncode == 1
        assert "needs Python 3.10 or newer; this is Python 3.9" in told.stderr

    def test_a_disk_that_fills_up_anywhere(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def full(options: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(studio, "run", full)
        monkeypatch.setattr(studio, "end_on_signals", lambda: None)
        assert studio.main(["run"]) == 1
        assert "PALATE_CACHE" in capsys.readouterr().err

    def test_only_the_standard_library_is_imported(self) -> None:
        files = [ROOT / "studio.py", ROOT / "install.py", *(ROOT / "launch").glob("*.py")]
        for file in files:
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and not node.level:
                    names = [node.module or ""]
                for name in names:
                    top = name.split(".")[0]
                    assert top in sys.stdlib_module_names | {"launch"}, f"{file}: {name}"
