"""Nodes that only the tests have: they look into the server's process, or make another base."""

from __future__ import annotations

import gc
import importlib

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


class BrokenPrompt:
    """The same conditioning without a finite number in its embedding."""

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "damage"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"conditioning": ("CONDITIONING",)}}

    def damage(self, conditioning):
        return ([[embedding * float("nan"), options] for embedding, options in conditioning],)


class TextFeatures:
    """How much a batch's text features differ from those of each text encoded by stock means."""

    RETURN_TYPES = ()
    FUNCTION = "compare"
    CATEGORY = "tests"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"clip": ("CLIP",), "lines": ("STRING", {"multiline": True})}}

    def compare(self, clip, lines):
        designer = nodes.NODE_CLASS_MAPPINGS["PalateEDQueryDesigner"]
        host = importlib.import_module(designer.__module__.rsplit(".", 1)[0] + ".host")
        texts = lines.splitlines()
        read = dict(host.read_texts(clip, texts))
        alone = [
            clip.encode_from_tokens(clip.tokenize(text), return_pooled=True)[1][0].float().cpu()
            for text in texts
        ]
        differences = [float((read[t] - a).abs().max()) for t, a in zip(texts, alone, strict=True)]
        sizes = [float(a.abs().max()) for a in alone]
        return {"ui": {"difference": [max(differences)], "size": [min(sizes)]}}


NODE_CLASS_MAPPINGS = {
    "ProbeOtherBase": OtherBase,
    "ProbeLivingNetworks": LivingNetworks,
    "ProbeBrokenPrompt": BrokenPrompt,
    "ProbeLines": Lines,
    "ProbeTextFeatures": TextFeatures,
}
