"""Word features on disk: each word is put through each text encoder once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..profile import files


class FeatureCache:
    """One safetensors file in ``folder`` for each text encoder, with all words it has read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @staticmethod
    def key(kind: str, probes: Tensor) -> str:
        """Names an encoder by its class and, to the bit, by what it makes of some probes (P, d)."""
        content = probes.detach().float().cpu().contiguous().numpy().tobytes()
        return hashlib.sha256(f"{kind} {tuple(probes.shape)} ".encode() + content).hexdigest()

    def read(self, key: str) -> dict[str, Tensor]:
        """The words of one encoder and their raw features (d,); empty if there is no good file."""
        try:
            tensors, metadata = files.read_tensors(self._path(key))
            words = json.loads(metadata["words"])
            return dict(zip(words, tensors["features"], strict=True))
        except (OSError, ValueError, KeyError):
            return {}

    def write(self, key: str, words: Mapping[str, Tensor]) -> None:
        """Keeps these words, in place of those kept before, or leaves those if it can't."""
        if not words:
            return
        content = files.pack_tensors(
            {"features": torch.stack(list(words.values())).float()},
            {"words": json.dumps(list(words))},
        )
        with files.disk_errors("Keeping the words' features", self._folder):
            files.make_folder(self._folder)
            files.write_file(self._path(key), content)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.safetensors"
