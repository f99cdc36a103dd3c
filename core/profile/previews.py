"""What the revisions of a profile draw at fixed seeds: a few small pictures each."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from . import files
from .revisions import RevisionLog


class PreviewLog(RevisionLog):
    """Keeping and finding previews; every method may be called from any thread."""

    def keep_previews(self, revision: int, images: Tensor) -> None:
        """Keep what a revision draws: images (P, H, W, 3) in [0, 1], in the order of their seeds.

        A revision never changes, and so the first set that is kept of it stays. Raises
        UnknownRevision, and ProfileError for images that are none or for a full disk; then nothing
        was written.
        """
        number = self._revision(revision).number
        pixels = files.to_pixels(images, "a preview")
        content = {f"{i}.png": files.encode_png(image) for i, image in enumerate(pixels)}
        folder = self._preview_path(number)
        doing = f"Keeping the previews of revision {number} of {self.name!r}"
        with self._filing, files.disk_errors(doing, folder):
            if not folder.is_dir():
                files.write_folder(folder, content)

    def previews(self, revision: int) -> list[Path]:
        """Return the PNG files of a revision in the order of their seeds; none if none were kept.

        Raises UnknownRevision.
        """
        folder = self._preview_path(self._revision(revision).number)
        return sorted(folder.glob("*.png"), key=lambda path: (len(path.name), path.name))
