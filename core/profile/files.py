"""Files of a profile: complete and on disk under their name, or not there at all.

Everything is written under a temporary name, flushed to the disk and renamed; what a crash leaves
behind carries either a temporary name or a name that the database does not list.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors import torch as safetensors
from torch import Tensor

from .types import ProfileError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_TEMPORARY = ".part-"
_PNG_COMPRESSION = 4  # ComfyUI's own level: larger files than Pillow's default, sooner


@contextmanager
def disk_errors(doing: str, path: Path) -> Iterator[None]:
    """Turn an OSError inside the block into a ProfileError that says what to look at."""
    try:
        yield
    except OSError as error:
        raise ProfileError(
            f"{doing} failed at {path} ({error.strerror or error}). Check that the disk has free "
            "space and that you may write to this folder, then run again; nothing was lost."
        ) from error


def make_folder(folder: Path) -> None:
    """Create a folder that is still there after a power cut; one that exists is left alone."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Flush a folder's list of names to the disk (Windows does this on its own)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network drives cannot
            raise
    finally:
        os.close(descriptor)


def write_file(path: Path, content: bytes) -> None:
    """Put ``content`` at ``path``, replacing what is there, so that no reader sees a part of it."""
    part = path.with_name(_TEMPORARY + path.name)
    try:
        _write_through(part, content)
        os.replace(part, path)
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Create ``folder`` with all of ``files`` (name to content) in it, or not at all."""
    part = folder.with_name(_TEMPORARY + folder.name)
    try:
        part.mkdir()
        for name, content in files.items():
            _write_through(part / name, content)
        sync_folder(part)
        os.rename(part, folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    sync_folder(folder.parent)


def remove_leftovers(folder: Path, unlisted: Callable[[str], bool]) -> None:
    """Remove temporary files and folders, and the entries whose name ``unlisted`` says so of."""
    for entry in list(folder.iterdir()):
        if entry.name.startswith(_TEMPORARY) or unlisted(entry.name):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                with suppress(OSError):
                    entry.unlink()


def digest(*parts: bytes) -> str:
    """Return the sha256 of the parts, each preceded by its length, as 64 hex digits."""
    content = hashlib.sha256()
    for part in parts:
        content.update(len(part).to_bytes(8, "little"))
        content.update(part)
    return content.hexdigest()


def pack_tensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """Return the tensors (any dtype, device or stride) as the bytes of a safetensors file.

    Raises ProfileError for what safetensors cannot hold, e.g. sparse tensors.
    """
    try:
        copies = {
            name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, tensor in tensors.items()
        }
        return safetensors.save(copies, dict(metadata) if metadata else None)
    except (AttributeError, RuntimeError, SafetensorError, TypeError, ValueError) as error:
        raise ProfileError(f"These tensors do not fit a safetensors file: {error}") from error


def unpack_tensors(content: bytes) -> dict[str, Tensor]:
    """Return the tensors (on the CPU) of a safetensors file; raises ValueError if it is damaged."""
    try:
        with torch.inference_mode(False):  # what is read here may be trained with
            return safetensors.load(content)
    except (SafetensorError, RuntimeError, KeyError) as error:
        raise ValueError(str(error)) from error


def read_tensors(
    path: Path, names: Sequence[str] | None = None
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a safetensors file, or those ``names`` that it has, and its metadata.

    Reads no more of the file than that. Raises OSError, and ValueError if it is damaged.
    """
    try:
        with torch.inference_mode(False), safe_open(path, framework="pt") as file:
            present = list(file.keys())
            wanted = present if names is None else [name for name in names if name in present]
            tensors = {name: file.get_tensor(name).clone() for name in wanted}
            return tensors, dict(file.metadata() or {})
    except (SafetensorError, RuntimeError, KeyError) as error:
        raise ValueError(str(error)) from error


def to_pixels(images: Tensor, of: str = "a question") -> np.ndarray:
    """Return images (K, H, W, 3) in [0, 1] as bytes (K, H, W, 3); raises ProfileError otherwise.

    ``of`` says in the message what the images belong to.
    """
    if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[-1] != 3:
        shape = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise ProfileError(
            f"The images of {of} are a batch of RGB images (K, height, width, 3), not "
            f"{shape}: connect the IMAGE output of a VAE Decode, without an alpha channel."
        )
    if 0 in images.shape or not images.is_floating_point():
        raise ProfileError(f"The images of {of} must be non-empty and hold values in [0, 1].")
    values = images.detach().float().cpu()
    bad = ~torch.isfinite(values).flatten(1).all(dim=1)
    if bad.any():
        raise ProfileError(
            f"Image {int(bad.nonzero()[0])} of {of} holds NaN or infinite pixels: the "
            "model or the VAE overflowed. Try a lower strength, or run the VAE in fp32."
        )
    return np.asarray((values.clamp(0, 1) * 255).round().to(torch.uint8).numpy())


def encode_png(pixels: np.ndarray) -> bytes:
    """Return pixels (H, W, 3) of uint8 as the bytes of a PNG without any metadata."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=_PNG_COMPRESSION)
    return buffer.getvalue()


def decode_png(content: bytes) -> Tensor:
    """Return a PNG as float32 (H, W, 3) in [0, 1]; raises ValueError if it is damaged."""
    try:
        with Image.open(io.BytesIO(content)) as image, torch.inference_mode(False):
            return torch.from_numpy(np.array(image.convert("RGB"))).float() / 255
    except (OSError, SyntaxError) as error:
        raise ValueError(str(error)) from error


def _write_through(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        if hasattr(fcntl, "F_FULLFSYNC"):  # macOS: fsync alone leaves it in the drive's cache
            with suppress(OSError):
                fcntl.fcntl(file.fileno(), fcntl.F_FULLFSYNC)
