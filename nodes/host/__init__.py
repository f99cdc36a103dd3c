"""The host: the only room that knows ComfyUI's internals.

What a node needs of ComfyUI is offered here in Palate's words: where profiles are kept, a live
adapter on a MODEL, a noise predictor that can be trained through, progress and interruption, and
the starter model as genuine MODEL, CLIP and VAE objects.
"""

from comfy_execution.graph import ExecutionBlocker

from .candidates import pack_candidates, unpack_conditioning
from .families import diffusers_layout, portable_layout
from .live import Taste, architecture, at_full_strength, export_names, taste_of
from .mixing import Mixed, Share, mixed
from .preview import Interrupted, draw_images
from .services import (
    feature_cache,
    interrupted,
    lora_folder,
    progress_bar,
    send,
    server,
    stop_if_interrupted,
    store,
    vocabulary_folder,
)
from .starter import load_starter
from .steering import SCHEDULERS, Steering, draw, latent_shape, particle_sampler
from .text import encoder_kind, read_texts
from .training import (
    alphas_cumprod,
    free_memory,
    latent_in,
    noise_predictor,
    noise_schedule,
    training,
)

__all__ = [
    "SCHEDULERS",
    "ExecutionBlocker",
    "Interrupted",
    "Mixed",
    "Share",
    "Steering",
    "Taste",
    "alphas_cumprod",
    "architecture",
    "at_full_strength",
    "diffusers_layout",
    "draw",
    "draw_images",
    "encoder_kind",
    "export_names",
    "feature_cache",
    "free_memory",
    "interrupted",
    "latent_in",
    "latent_shape",
    "load_starter",
    "lora_folder",
    "mixed",
    "noise_predictor",
    "noise_schedule",
    "pack_candidates",
    "particle_sampler",
    "portable_layout",
    "progress_bar",
    "read_texts",
    "send",
    "server",
    "stop_if_interrupted",
    "store",
    "taste_of",
    "training",
    "unpack_conditioning",
    "vocabulary_folder",
]
