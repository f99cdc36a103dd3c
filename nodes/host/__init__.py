"""The host: the only room that knows ComfyUI's internals.

What a node needs of ComfyUI is offered here in Palate's words: where profiles are kept, a live
adapter on a MODEL, a noise predictor that can be trained through, progress and interruption, and
the starter model as genuine MODEL, CLIP and VAE objects.
"""

from comfy_execution.graph import ExecutionBlocker

from .candidates import pack_candidates, unpack_conditioning
from .live import Taste, architecture, export_names, taste_of
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
from .training import alphas_cumprod, latent_in, noise_predictor, training

__all__ = [
    "SCHEDULERS",
    "ExecutionBlocker",
    "Steering",
    "Taste",
    "alphas_cumprod",
    "architecture",
    "draw",
    "encoder_kind",
    "export_names",
    "feature_cache",
    "interrupted",
    "latent_in",
    "latent_shape",
    "load_starter",
    "lora_folder",
    "noise_predictor",
    "pack_candidates",
    "particle_sampler",
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
