"""Previews: what each revision draws of the same prompts at the same seeds."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ..core.papa import is_out_of_memory
from ..core.profile import TasteProfile
from . import host
from .lessons import rated_indices

FIRST = "preview_question"  # a setting: id of the question whose prompts all previews have


@dataclass
class Previews:
    """Draws ``count`` images with the taste at full strength, at the seeds 0, 1, …, and keeps them.

    model: the MODEL that carries the taste. vae: None draws none. What is kept must show what was
    learnt, however weak or strong the taste happened to be set.
    """

    model: Any
    taste: host.Taste
    vae: Any
    count: int
    steps: int
    cfg: float
    failures: list[str] = field(default_factory=list)

    def keep(self) -> bool:
        """Draws the live revision, if it was not drawn before; whether there are new pictures.

        A failure is written down, never raised: no update is lost for a picture. An interruption
        is raised.
        """
        profile, revision = self.taste.profile, self.taste.live.revision
        if self.vae is None or self.count == 0 or profile.previews(revision):
            return False
        try:
            images = self._drawn(profile)
            if self.taste.live.revision != revision:  # another one was chosen in the panel
                return False
            profile.keep_previews(revision, images)
        except host.Interrupted:
            raise
        except Exception as error:
            logging.warning("The previews of %r failed.", profile.name, exc_info=True)
            reason = "there was not enough memory" if is_out_of_memory(error) else str(error)
            self.failures.append(f"No previews of revision {revision}: {reason.rstrip('.')}.")
            return False
        return True

    def _drawn(self, profile: TasteProfile) -> Tensor:
        """(count, H, W, 3), the prompts and sizes being those of the first rated images."""
        first = profile.query(first_question(profile))
        tensors, rated = profile.tensors(first.id), rated_indices(first)
        return host.draw_images(
            host.at_full_strength(self.model, self.taste),
            self.vae,
            [
                host.unpack_conditioning(tensors, rated[seed % len(rated)])
                for seed in range(self.count)
            ],
            tensors["latents"].shape[1:],
            steps=self.steps,
            cfg=self.cfg,
        )


def first_question(profile: TasteProfile) -> str:
    """Id of the question whose answer was the first to have influence.

    Remembered with the profile, so that every revision draws the same: an older question may be
    answered later.
    """
    known = profile.settings.get(FIRST)
    if known is None:
        answered = [*profile.queries("used"), *profile.waiting()]
        with_influence = [query for query in answered if rated_indices(query)]
        known = min(with_influence, key=lambda query: query.answered or 0.0).id
        profile.set_setting(FIRST, known)
    return str(known)
