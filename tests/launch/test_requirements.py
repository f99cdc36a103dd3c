"""What is installed agrees with what is declared."""

from __future__ import annotations

from pathlib import Path

import pytest

import install
from launch import environment

ROOT = Path(__file__).resolve().parents[2]


class TestRequirements:
    def test_they_agree_with_the_package_metadata(self) -> None:
        tomllib = pytest.importorskip("tomllib")
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        declared = [line for line in project["dependencies"] if not line.startswith("torch")]

        def listed(name: str) -> list[str]:
            return environment.requirement_lines((ROOT / name).read_text(encoding="utf-8"))

        assert listed("requirements.txt") == declared
        assert listed("requirements-test.txt") == project["optional-dependencies"]["test"]

    def test_installing_into_an_own_comfyui_never_asks_for_torch(self) -> None:
        lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
        assert not [line for line in lines if line.startswith("torch")]

    def test_the_check_after_installing_names_what_is_missing(
        self, fake_comfyui: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pack = fake_comfyui / "custom_nodes" / "palate"
        pack.mkdir(parents=True)
        (pack / "requirements.txt").write_text("numpy>=1\npeft>=99\nno_such_thing>=1\n")
        monkeypatch.setattr(install, "version", {"numpy": "2.4.6", "peft": "0.21"}.get)
        monkeypatch.setattr(install, "version", self.installed)
        (fake_comfyui / "comfyui_version.py").write_text('__version__ = "0.3.1"')
        old, peft, missing = install.problems(pack)
        assert "needs 0.3.64" in old
        assert "peft 0.21 is too old, 99 is needed" in peft
        assert "no_such_thing is missing" in missing

    @staticmethod
    def installed(name: str) -> str:
        known = {"numpy": "2.4.6+local", "peft": "0.21"}
        if name not in known:
            raise install.PackageNotFoundError(name)
        return known[name]
