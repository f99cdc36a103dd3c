"""Palate: teach a diffusion model one person's taste, inside ComfyUI.

Under ComfyUI this file offers the nodes and the panel; anywhere else importing it does nothing.
"""

from importlib.util import find_spec

WEB_DIRECTORY = "./web"

if find_spec("comfy_api") is not None:
    from .nodes.extension import comfy_entrypoint

    __all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
else:
    __all__ = ["WEB_DIRECTORY"]
