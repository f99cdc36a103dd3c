"""Folders of one user, the lock that guards them, and the link from ComfyUI to this pack."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from . import LaunchError, say


def cache_folder(environ: Mapping[str, str] = os.environ, platform: str = sys.platform) -> Path:
    """Where environments and the pinned ComfyUI are kept; all of it may be deleted at any time."""
    if environ.get("PALATE_CACHE"):
        return Path(environ["PALATE_CACHE"]).expanduser().resolve()
    home = Path.home()
    if platform == "win32":
        return Path(environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "palate"
    if platform == "darwin":
        return home / "Library" / "Caches" / "palate"
    return Path(environ.get("XDG_CACHE_HOME") or home / ".cache") / "palate"


def data_folder(environ: Mapping[str, str] = os.environ, platform: str = sys.platform) -> Path:
    """The default base directory: models, images, workflows and taste profiles of this user."""
    home = Path.home()
    if platform == "win32":
        return Path(environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "palate" / "studio"
    if platform == "darwin":
        return home / "Library" / "Application Support" / "palate"
    return Path(environ.get("XDG_DATA_HOME") or home / ".local" / "share") / "palate"


def make_folder(folder: Path) -> Path:
    """Creates ``folder`` with its parents; refuses with a remedy where that is impossible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LaunchError(
            f"Cannot create the folder {folder}: {error.strerror}. Make it writable, or choose "
            "another place with --base DIR (profiles) or PALATE_CACHE=DIR (environments)."
        ) from error
    return folder


@contextmanager
def exclusive(path: Path, *, wait: str = "", refuse: str = "") -> Iterator[None]:
    """Holds the lock file ``path`` until the block ends or this process dies, however it dies.

    With ``wait`` that line is printed once and the lock is waited for; with ``refuse`` a
    ``LaunchError`` with that text is raised at once when another process holds it.
    """
    make_folder(path.parent)
    with open(path, "a+b") as handle:
        announced = False
        while not _try_lock(handle):
            if refuse:
                raise LaunchError(refuse)
            if not announced:
                say(wait)
                announced = True
            time.sleep(0.2)
        yield


def _try_lock(handle: IO[bytes]) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            handle.seek(0)
            msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def link_pack(pack: Path, link: Path) -> None:
    """Makes ``link`` show the folder ``pack``: a symlink, or a junction where Windows forbids one.

    A link that is already there is redirected; a real folder is never touched.
    """
    make_folder(link.parent)
    if link.exists() and link.samefile(pack):
        return
    if _is_link(link):
        _remove_link(link)
    elif link.exists():
        raise LaunchError(
            f"{link} is a folder of its own, not a link to this checkout. Move it away, or choose "
            "another base directory with --base DIR."
        )
    try:
        link.symlink_to(pack, target_is_directory=True)
    except OSError as error:
        if sys.platform != "win32":
            raise LaunchError(
                f"Cannot link {link} to {pack}: {error.strerror}. The file system must allow "
                "links; choose another base directory with --base DIR."
            ) from error
        import _winapi

        _winapi.CreateJunction(str(pack), str(link))


def _is_link(path: Path) -> bool:
    if path.is_symlink():
        return True
    try:  # a junction reads as a link although is_symlink() denies it
        os.readlink(path)
    except (OSError, ValueError):
        return False
    return True


def _remove_link(link: Path) -> None:
    try:
        link.unlink()
    except OSError:
        os.rmdir(link)  # Windows: removes the junction, never what it points at
