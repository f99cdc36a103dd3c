"""The list of nodes, and what happens once when ComfyUI loads them."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from . import host, routes, waiting
from .best_prompts import BestPrompts
from .ed_candidate_picker import EDCandidatePicker
from .ed_query_designer import EDQueryDesigner
from .fkc_particles import FKCParticles
from .fkc_sampler import FKCSampler
from .papa_update import PAPAUpdate
from .preference_query import PreferenceQuery
from .save_taste import SaveTaste
from .simulated_rater import SimulatedRater
from .starter_model import StarterModel
from .taste_mixer import TasteMixer
from .taste_profile import TasteProfile
from .taste_report import TasteReport


class Palate(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            StarterModel,
            TasteProfile,
            EDQueryDesigner,
            EDCandidatePicker,
            PreferenceQuery,
            BestPrompts,
            FKCSampler,
            FKCParticles,
            PAPAUpdate,
            SaveTaste,
            TasteMixer,
            TasteReport,
            SimulatedRater,
        ]


async def comfy_entrypoint() -> Palate:
    routes.register(host.server(), host.store(), on_answer=waiting.wake)
    return Palate()
