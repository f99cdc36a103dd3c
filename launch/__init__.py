"""What studio.py is made of: environment, ComfyUI, server. Standard library only."""

from __future__ import annotations


class LaunchError(Exception):
    """Something the person at the keyboard can put right; the message says what and how."""


def say(text: str) -> None:
    """Prints one line of progress at once, also when the output is piped into a file."""
    print(text, flush=True)
