"""Which vocabularies there are to choose from: the node's own text, those shipped, the person's."""

from __future__ import annotations

from pathlib import Path

from ..core.words.vocabulary import Vocabulary, VocabularyError, parse_vocabulary
from . import host

OWN_TEXT = "the text below"
SHIPPED = Path(__file__).resolve().parents[1] / "vocabularies"
LARGEST = 4 * 1024 * 1024


def choices() -> list[str]:
    """What the node offers. A person's file takes the place of a shipped one of the same name."""
    return [OWN_TEXT, *sorted(_files())]


def read(choice: str, text: str) -> Vocabulary:
    """The vocabulary chosen; raises VocabularyError if it cannot be used."""
    return parse_vocabulary(source(choice, text))


def source(choice: str, text: str) -> str:
    """The chosen vocabulary as it is written. Only files that `choices` offers are opened."""
    if choice == OWN_TEXT:
        return text
    path = _files().get(choice)
    if path is None:
        raise VocabularyError(
            f"There is no vocabulary {choice!r}: put it into {host.vocabulary_folder()} as a .txt "
            "file and refresh (R), or choose another."
        )
    try:
        if path.stat().st_size > LARGEST:
            raise VocabularyError(
                f"{path.name} is larger than {LARGEST // 1024**2} MB: shorten it."
            )
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise VocabularyError(
            f"{path} cannot be read as UTF-8 text ({error}): save it anew."
        ) from None


def _files() -> dict[str, Path]:
    found: dict[str, Path] = {}
    for folder in (SHIPPED, host.vocabulary_folder()):
        if folder.is_dir():
            found |= {path.stem: path for path in folder.glob("*.txt") if path.is_file()}
    return found
