"""The starter model's tokenizer: BPE in CLIP's file layout, one token for each word it knows."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

from tokenizers import pre_tokenizers

from .vocabulary import words

MAX_LENGTH = 32
START, END = "<|startoftext|>", "<|endoftext|>"


def _byte_alphabet() -> list[str]:
    return sorted(pre_tokenizers.ByteLevel.alphabet())


def _joined(pieces: list[str], merges: dict[tuple[str, str], int]) -> list[str]:
    """What BPE makes of ``pieces``: the pair of lowest rank is joined until none is known."""
    while known := [pair for pair in pairwise(pieces) if pair in merges]:
        first = min(known, key=merges.__getitem__)
        at = list(pairwise(pieces)).index(first)
        pieces = [*pieces[:at], "".join(first), *pieces[at + 2 :]]
    return pieces


def _merges() -> list[tuple[str, str]]:
    """Pairs to join, by rank, that make each word of the grammar whole; always the same ones.

    A later pair never splits an earlier word, because joining prefers the earlier rank.
    """
    merges: dict[tuple[str, str], int] = {}
    for word in words():
        pieces = _joined([*word[:-1], word[-1] + "</w>"], merges)
        while len(pieces) > 1:
            merges[pieces[0], pieces[1]] = len(merges)
            pieces = _joined(pieces, merges)
    return list(merges)


def write_tokenizer(folder: Path) -> int:
    """Writes vocab.json, merges.txt and the configs into ``folder``; returns the vocabulary's size.

    Any text can be encoded (unknown words fall apart into letters); the grammar's words are whole.
    """
    folder.mkdir(parents=True, exist_ok=True)
    merges = _merges()
    alphabet = _byte_alphabet()
    tokens = alphabet + [symbol + "</w>" for symbol in alphabet]
    known = set(tokens)
    for left, right in merges:
        if left + right not in known:
            tokens.append(left + right)
            known.add(left + right)
    tokens += [START, END]
    (folder / "vocab.json").write_text(
        json.dumps({token: i for i, token in enumerate(tokens)}, ensure_ascii=False), "utf-8"
    )
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", "utf-8")
    special = {"bos_token": START, "eos_token": END, "pad_token": END, "unk_token": END}
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2), "utf-8")
    config = {
        **special,
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": MAX_LENGTH,
        "do_lower_case": True,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2), "utf-8")
    return len(tokens)
