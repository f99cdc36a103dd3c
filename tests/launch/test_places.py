"""Folders, the lock and the link."""

from __future__ import annotations

import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from launch import LaunchError, places

ROOT = Path(__file__).resolve().parents[2]


class TestPlaces:
    @pytest.mark.parametrize(
        ("platform", "environ", "cache", "data"),
        [
            ("linux", {}, "~/.cache/palate", "~/.local/share/palate"),
            ("linux", {"XDG_CACHE_HOME": "/c", "XDG_DATA_HOME": "/d"}, "/c/palate", "/d/palate"),
            ("darwin", {}, "~/Library/Caches/palate", "~/Library/Application Support/palate"),
            ("win32", {"LOCALAPPDATA": "/l"}, "/l/palate", "/l/palate/studio"),
        ],
    )
    def test_each_system_has_its_own(
        self, platform: str, environ: dict[str, str], cache: str, data: str
    ) -> None:
        assert places.cache_folder(environ, platform) == Path(cache).expanduser()
        assert places.data_folder(environ, platform) == Path(data).expanduser()

    def test_the_cache_can_be_put_elsewhere(self, tmp_path: Path) -> None:
        assert places.cache_folder({"PALATE_CACHE": str(tmp_path)}, "linux") == tmp_path

    def test_a_folder_that_cannot_be_made_names_the_remedy(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(LaunchError, match="PALATE_CACHE"):
            places.make_folder(tmp_path / "file" / "below")


class TestLock:
    HOLD = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path; from launch.places import exclusive\n"
        "with exclusive(Path(sys.argv[1]), refuse='x'):\n"
        "    print('held', flush=True); sys.stdin.read()\n"
    )

    @pytest.fixture
    def holder(self, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
        process = subprocess.Popen(
            [sys.executable, "-c", self.HOLD, str(tmp_path / "lock"), str(ROOT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()
        process.communicate()

    def test_a_second_process_is_refused(
        self, tmp_path: Path, holder: subprocess.Popen[str]
    ) -> None:
        with (
            pytest.raises(LaunchError, match="busy"),
            places.exclusive(tmp_path / "lock", refuse="busy"),
        ):
            pytest.fail("the lock was given twice")

    def test_waiting_says_so_and_ends_when_the_holder_dies(
        self,
        tmp_path: Path,
        holder: subprocess.Popen[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        said: list[str] = []

        def hear_and_kill(text: str) -> None:
            said.append(text)
            holder.kill()

        monkeypatch.setattr(places, "say", hear_and_kill)
        with places.exclusive(tmp_path / "lock", wait="waiting for the other"):
            assert said == ["waiting for the other"]


class TestLink:
    def test_the_pack_is_seen_through_the_link(self, tmp_path: Path) -> None:
        pack = tmp_path / "checkout"
        pack.mkdir()
        (pack / "mark").write_text("here")
        places.link_pack(pack, tmp_path / "base" / "custom_nodes" / "palate")
        assert (tmp_path / "base/custom_nodes/palate/mark").read_text() == "here"

    def test_a_link_to_another_checkout_or_to_nothing_is_redirected(self, tmp_path: Path) -> None:
        old, new, link = tmp_path / "old", tmp_path / "new", tmp_path / "nodes" / "palate"
        old.mkdir()
        new.mkdir()
        places.link_pack(old, link)
        places.link_pack(new, link)
        assert link.samefile(new)
        new.rename(tmp_path / "moved")
        places.link_pack(tmp_path / "moved", link)
        assert link.samefile(tmp_path / "moved")
        assert old.is_dir()

    def test_a_real_folder_is_left_alone(self, tmp_path: Path) -> None:
        link = tmp_path / "nodes" / "palate"
        link.mkdir(parents=True)
        (link / "precious").write_text("x")
        with pytest.raises(LaunchError, match="folder of its own"):
            places.link_pack(tmp_path, link)
        assert (link / "precious").read_text() == "x"

    def test_windows_without_the_right_to_symlink_gets_a_junction(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = []
        windows = types.ModuleType("_winapi")
        windows.CreateJunction = lambda *pair: made.append(pair)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "_winapi", windows)
        monkeypatch.setattr(sys, "platform", "win32")

        def forbidden(*args: object, **kwargs: object) -> None:
            raise OSError(1314, "A required privilege is not held by the client")

        monkeypatch.setattr(Path, "symlink_to", forbidden)
        places.link_pack(tmp_path, tmp_path / "nodes" / "palate")
        assert made == [(str(tmp_path), str(tmp_path / "nodes" / "palate"))]
