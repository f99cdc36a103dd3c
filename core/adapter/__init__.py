"""The live adapter: LoRA layers that learn inside a loaded network, and the files they become."""

from .files import read_safetensors, write_safetensors
from .layouts import DIFFUSERS_PREFIX, KOHYA_PREFIX, PEFT_PREFIX, AdapterError, Part
from .live import LiveAdapter
from .mix import AdapterMix
from .targets import default_targets

__all__ = [
    "DIFFUSERS_PREFIX",
    "KOHYA_PREFIX",
    "PEFT_PREFIX",
    "AdapterError",
    "AdapterMix",
    "LiveAdapter",
    "Part",
    "default_targets",
    "read_safetensors",
    "write_safetensors",
]
