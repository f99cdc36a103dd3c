"""What ComfyUI-Manager runs after it has cloned this pack and installed requirements.txt.

Checks only: nothing is downloaded, and torch is left as ComfyUI's owner chose it.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from launch import LaunchError
from launch.comfyui import checked
from launch.environment import requirement_lines

PACK = Path(__file__).resolve().parent


def numbers(text: str) -> tuple[int, ...]:
    """The leading numbers of a version, for comparing: "2.11.0+cu130" is (2, 11, 0)."""
    found = re.match(r"\d+(\.\d+)*", text)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def problems(pack: Path = PACK) -> list[str]:
    """What keeps the pack from working in the ComfyUI it was cloned into, with the remedy."""
    found = []
    if sys.version_info < (3, 10):  # noqa: UP036
        found.append("Palate needs Python 3.10 or newer; update ComfyUI's Python.")
    if pack.parent.name == "custom_nodes" and (pack.parent.parent / "main.py").is_file():
        try:
            checked(pack.parent.parent, "the folder that Palate is installed in")
        except LaunchError as error:
            found.append(str(error))
    for line in requirement_lines((pack / "requirements.txt").read_text(encoding="utf-8")):
        name, _, least = line.partition(">=")
        remedy = f"Run: {sys.executable} -m pip install -r {pack / 'requirements.txt'}"
        try:
            if numbers(version(name)) < numbers(least):
                found.append(f"{name} {version(name)} is too old, {least} is needed. {remedy}")
        except PackageNotFoundError:
            found.append(f"{name} is missing. {remedy}")
    return found


if __name__ == "__main__":
    messages = problems()
    for message in messages:
        print(f"palate: {message}", file=sys.stderr)
    if not messages:
        print("palate: ready. Restart ComfyUI.")
    sys.exit(1 if messages else 0)
