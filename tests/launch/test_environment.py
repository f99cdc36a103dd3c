"""The environment: its key, real installs from local wheels, explained failures."""

from __future__ import annotations

import os
import socket
import subprocess
import zipfile
from pathlib import Path

import pytest

from launch import LaunchError, environment
from launch.environment import Environment, environment_key, explain_pip

ROOT = Path(__file__).resolve().parents[2]


class TestEnvironmentKey:
    def test_comments_and_blank_lines_do_not_matter(self) -> None:
        assert environment_key("a>=1 # why\n\n# note\nb\n") == environment_key("a>=1\nb")

    def test_every_requirement_matters_and_so_does_its_file(self) -> None:
        texts = [("a\nb", ""), ("a", "b"), ("a", ""), ("a>=1", "b")]
        assert len({environment_key(*pair) for pair in texts}) == len(texts)

    def test_interpreter_and_torch_matter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        before = environment_key("a")
        monkeypatch.setattr(environment, "TORCH_PINS", ("torch==9",))
        with_torch = environment_key("a")
        monkeypatch.setattr(environment.platform, "machine", lambda: "riscv64")
        assert len({before, with_torch, environment_key("a")}) == 3

    def test_the_hash_in_a_requirement_is_not_a_comment(self) -> None:
        assert environment.requirement_lines("a @ http://x/y#egg=a") == ["a @ http://x/y#egg=a"]


def write_wheel(folder: Path, name: str) -> Path:
    """The smallest wheel that pip installs: one module."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}.py", "value = 42\n")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture(scope="module")
def real_environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    made = Environment(tmp_path_factory.mktemp("cache"), "real")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(environment, "SPACE_NEEDED_GB", 0)
        made.create()
    return made


class TestEnvironment:
    @pytest.fixture(autouse=True)
    def _little_is_needed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(environment, "SPACE_NEEDED_GB", 0)

    def test_a_failed_install_is_taken_up_again(
        self, real_environment: Environment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        write_wheel(tmp_path / "wheels", "palate_first")
        arguments = ["--no-index", "--find-links", str(tmp_path / "wheels")]
        arguments += ["palate_first", "palate_second"]
        with pytest.raises(LaunchError, match="palate_second"):
            real_environment.install("stage", arguments)
        assert not real_environment.has("stage")

        write_wheel(tmp_path / "wheels", "palate_second")
        real_environment.install("stage", arguments)
        assert real_environment.has("stage")
        assert "unpacking 2 packages" in capsys.readouterr().out
        code = "import palate_first, palate_second; print(palate_second.value)"
        command = [str(real_environment.python), "-c", code]
        assert subprocess.check_output(command, text=True).strip() == "42"

    def test_what_is_installed_is_not_installed_again(
        self, real_environment: Environment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real_environment.install("nothing", ["--no-index", "pip"])
        monkeypatch.setattr(Environment, "pip", lambda *a: pytest.fail("pip ran again"))
        real_environment.install("nothing", ["--no-index", "pip"])

    def test_an_environment_without_pip_is_made_anew(self, tmp_path: Path) -> None:
        broken = Environment(tmp_path, "broken")
        broken.python.parent.mkdir(parents=True)
        broken.python.symlink_to("/nowhere/python")  # its interpreter was uninstalled
        (broken.folder / "palate-studio.installed").write_text("")
        assert not broken.has("studio")
        broken.create()
        assert subprocess.run([str(broken.python), "-m", "pip", "--version"]).returncode == 0
        assert not (broken.folder / "palate-studio.installed").exists()

    def test_no_network_is_recognised_in_what_pip_really_says(
        self, real_environment: Environment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in [n for n in os.environ if n.startswith("PIP_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("NO_PROXY", "*")
        with socket.socket() as closed:  # bound, not listening: connections are refused
            closed.bind(("127.0.0.1", 0))
            index = f"http://127.0.0.1:{closed.getsockname()[1]}/simple"
            with pytest.raises(LaunchError, match=r"could not reach the package registry"):
                real_environment.install("off", ["--retries", "1", "--index-url", index, "nothing"])

    def test_python_without_venv_names_the_package_to_install(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(environment, "find_spec", lambda name: None)
        with pytest.raises(LaunchError, match=r"apt install python3\.\d+-venv"):
            Environment(tmp_path, "x").create()

    def test_a_full_disk_is_refused_before_any_work(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(environment, "SPACE_NEEDED_GB", 10**9)
        with pytest.raises(LaunchError, match="PALATE_CACHE"):
            Environment(tmp_path / "cache", "x").create()
        assert not (tmp_path / "cache").exists()

    def test_another_python_does_not_leak_in(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PYTHONPATH", "/elsewhere")
        monkeypatch.setenv("PIP_USER", "1")
        monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example/simple")
        kept = environment.clean_environ(COMFYUI_PATH="/c")
        assert not {"PYTHONPATH", "PIP_USER"} & set(kept)
        assert kept["PIP_INDEX_URL"] == "https://mirror.example/simple"
        assert kept["COMFYUI_PATH"] == "/c"


FULL = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"
FORBIDDEN = "ERROR: Could not install packages due to an OSError: [Errno 13] Permission denied"
CERTIFICATE = "WARNING: Retrying after SSLError(SSLCertVerificationError(1, '[SSL: ...] failed'))"
NAMELESS = (
    "WARNING: Retrying after NewConnectionError('<...>: Failed to establish a new connection: "
    "[Errno -3] Temporary failure in name resolution'): /simple/torch/\n"
    "ERROR: No matching distribution found for torch==2.11.0"
)
TIMEOUT = "pip._vendor.urllib3.exceptions.ReadTimeoutError: HTTPSConnectionPool: Read timed out."


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        (FULL, "disk is full"),
        (CERTIFICATE, "PIP_CERT"),
        (NAMELESS, "reach the package registry"),
        (TIMEOUT, "reach the package registry"),
        ("ERROR: ResolutionImpossible: for help visit https://pip.pypa.io", "--comfyui pinned"),
        ("ERROR: No matching distribution found for torch==2.11.0", "offers no torch==2.11.0"),
        (FORBIDDEN, "could not be written"),
        ("ERROR: something entirely new", "something entirely new"),
    ],
)
def test_pip_failures_say_what_to_do(said: str, remedy: str, tmp_path: Path) -> None:
    message = explain_pip([said + "\n"], tmp_path / "env.log")
    assert remedy in message
    assert str(tmp_path / "env.log") in message
