"""The virtual environment: made once per set of requirements, resumed when interrupted."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path

from . import LaunchError, say
from .places import make_folder

# ComfyUI asks for "torch, torchvision, torchaudio" of any version, but the three only import
# when they were built for each other.
TORCH_PINS = ("torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0")
SPACE_NEEDED_GB = 8 if sys.platform.startswith("linux") else 3  # on Linux torch brings CUDA along

PIP_TROUBLES = (
    (
        r"No space left on device|not enough space on the disk|Disk quota exceeded",
        f"The disk is full. Free about {SPACE_NEEDED_GB} GB, or put the environment on another "
        "disk by setting PALATE_CACHE=DIR (and TMPDIR=DIR).",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED|SSLError",
        "The package registry's certificate was not accepted. Behind a company proxy, point "
        "PIP_CERT at its certificate; otherwise check the clock of this computer.",
    ),
    (
        r"NewConnectionError|NameResolutionError|name resolution|getaddrinfo failed|ProxyError"
        r"|Network is unreachable|Connection refused|ConnectTimeout|ReadTimeout|Read timed out"
        r"|ConnectionResetError|IncompleteRead",
        "pip could not reach the package registry. Check the network (or the proxy: HTTPS_PROXY; "
        "a mirror: PIP_INDEX_URL) and start again: what is already installed is kept.",
    ),
    (
        r"ResolutionImpossible|conflicting dependencies",
        "ComfyUI and Palate ask for versions that exclude each other. Update ComfyUI, or use the "
        "pinned one with --comfyui pinned.",
    ),
    (
        r"No matching distribution found for (?P<what>\S+)",
        f"The package registry offers no {{what}} for Python {platform.python_version()} on "
        f"{platform.system()} {platform.machine()}. Python 3.10 to 3.13 are known to work; start "
        "studio.py with one of them.",
    ),
    (
        r"Permission denied|Access is denied",
        "A file could not be written. Close programs that use the environment, check the "
        "permissions of its folder, or set PALATE_CACHE=DIR to another place.",
    ),
)


def requirement_lines(text: str) -> list[str]:
    """The requirements in a requirements file, without comments and blank lines."""
    lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in text.splitlines())
    return [line for line in lines if line]


def environment_key(*requirements: str) -> str:
    """Names the environment that fits these requirement texts on this interpreter and machine."""
    parts = [sys.implementation.cache_tag, platform.system(), platform.machine(), *TORCH_PINS]
    for text in requirements:
        parts += ["--", *requirement_lines(text)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def clean_environ(**extra: str) -> dict[str, str]:
    """This process's variables without those that would leak another Python into the child."""
    leaks = {
        "PYTHONPATH",
        "PYTHONHOME",
        "PIP_USER",
        "PIP_TARGET",
        "PIP_PREFIX",
        "__PYVENV_LAUNCHER__",
    }
    kept = {name: value for name, value in os.environ.items() if name not in leaks}
    return {**kept, "PYTHONUNBUFFERED": "1", **extra}


class Environment:
    """A virtual environment below the cache; a marker file tells which stages are complete."""

    def __init__(self, cache: Path, key: str) -> None:
        self.folder = cache / f"env-{key}"
        self.log = cache / f"env-{key}.log"
        scripts = ("Scripts", "python.exe") if os.name == "nt" else ("bin", "python")
        self.python = self.folder.joinpath(*scripts)

    def _marker(self, stage: str) -> Path:
        return self.folder / f"palate-{stage}.installed"

    def has(self, stage: str) -> bool:
        return self._marker(stage).is_file() and self.python.exists()

    def create(self) -> None:
        """Makes the environment, or repairs one whose interpreter or pip is missing."""
        if self.python.exists() and self._runs("import pip"):
            return
        if find_spec("venv") is None or find_spec("ensurepip") is None:
            version = f"{sys.version_info.major}.{sys.version_info.minor}"
            raise LaunchError(
                "This Python cannot make virtual environments. On Debian or Ubuntu: "
                f"sudo apt install python{version}-venv; elsewhere install Python from python.org."
            )
        check_space(self.folder)
        say(f"Making a Python environment in {self.folder}")
        make_folder(self.folder.parent)
        made = subprocess.run(
            [sys.executable, "-m", "venv", "--clear", str(self.folder)],
            env=clean_environ(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        if made.returncode != 0:
            raise LaunchError(f"Making the environment failed:\n{made.stdout.strip()}")

    def _runs(self, code: str) -> bool:
        command = [str(self.python), "-c", code]
        return subprocess.run(command, env=clean_environ(), capture_output=True).returncode == 0

    def install(self, stage: str, arguments: Sequence[str]) -> None:
        """Installs with pip and, only when all of it is there, marks ``stage`` as installed."""
        if self.has(stage):
            return
        check_space(self.folder)
        self.pip(["install", *arguments])
        self._marker(stage).write_text("\n".join(arguments) + "\n", encoding="utf-8")

    def pip(self, arguments: Sequence[str]) -> None:
        """Runs pip, shows its large steps, keeps all it says in ``log``, explains a failure."""
        command = [str(self.python), "-m", "pip", "--disable-pip-version-check", *arguments]
        command += ["--progress-bar", "off"]
        with open(self.log, "a", encoding="utf-8") as log:
            process = subprocess.Popen(
                command,
                env=clean_environ(),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            )
            assert process.stdout is not None
            lines: list[str] = []
            try:
                for line in process.stdout:
                    log.write(line)
                    lines.append(line)
                    show_pip_step(line)
                code = process.wait()
            finally:
                if process.poll() is None:
                    process.terminate()
                    process.wait()
        if code != 0:
            raise LaunchError(explain_pip(lines, self.log))


def show_pip_step(line: str) -> None:
    """Passes on what takes long: large downloads and the final unpacking."""
    large = re.search(
        r"Downloading (?:\S+/)?(\S+?)-(\d[\w.+]*)-\S+ \(([\d.]+ GB|\d{3,}[\d.]* MB)\)", line
    )
    if large:
        say(f"  downloading {large[1]} {large[2]} ({large[3]})")
    elif line.startswith("Installing collected packages"):
        say(f"  unpacking {line.count(',') + 1} packages")


def explain_pip(lines: Iterable[str], log: Path) -> str:
    """What went wrong with pip and what to do about it."""
    text = "".join(lines)
    errors = [line for line in text.splitlines() if line.startswith("ERROR")] or text.splitlines()
    detail = "\n".join(f"  {line}" for line in errors[-5:])
    for pattern, remedy in PIP_TROUBLES:
        found = re.search(pattern, text)
        if found:
            remedy = remedy.format(**found.groupdict())
            return f"Installing failed. {remedy}\n{detail}\n  (all of it: {log})"
    return (
        f"Installing failed:\n{detail}\nEverything pip said is in {log}. Start again to resume; "
        f"if it fails at the same place, delete {log.with_suffix('')} first."
    )


def check_space(folder: Path) -> None:
    """Refuses before any work starts when the disk cannot hold the environment."""
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    free_gb = shutil.disk_usage(existing).free / 1e9
    present_gb = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 1e9
    if free_gb + present_gb < SPACE_NEEDED_GB:
        raise LaunchError(
            f"{free_gb:.1f} GB are free where {folder} is to be, about {SPACE_NEEDED_GB} GB are "
            "needed. Free some, or choose another disk by setting PALATE_CACHE=DIR."
        )
