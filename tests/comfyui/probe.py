"""Nodes that only the tests have: they look into the server's process, or make another base."""

from __future__ import annotations

import gc

import torch

import nodes


class OtherBase:
    """The starter model loaded anew, with one layer's weights changed: another base model."""

    RETURN_TYPES = ("MODEL",)
    FUNCTION = "make"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    def make(self):
        model = nodes.NODE_CLASS_MAPPINGS["PalateStarterModel"].execute().result[0]
        with torch.no_grad():
            next(model.model.diffusion_model.middle_block.parameters()).mul_(1.5)
        return (model,)


class LivingNetworks:
    """How many U-Nets are in memory."""

    RETURN_TYPES = ()
    FUNCTION = "count"
    CATEGORY = "tests"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    def count(self):
        gc.collect()
        kinds = [type(thing).__name__ for thing in gc.get_objects()]
        return {"ui": {"networks": [kinds.count("UNetModel")]}}


class Lines:
    """The lines of a text as a list of texts."""

    RETURN_TYPES = ("STRING",)
    OUTPUT_IS_LIST = (True,)
    FUNCTION = "split"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"lines": ("STRING", {"multiline": True})}}

    def split(self, lines):
        return (lines.splitlines(),)


NODE_CLASS_MAPPINGS = {
    "ProbeOtherBase": OtherBase,
    "ProbeLivingNetworks": LivingNetworks,
    "ProbeLines": Lines,
}
