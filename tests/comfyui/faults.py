"""A node that only the tests have: a stage of the next updates fails, until it is put right."""

from __future__ import annotations

import errno
import importlib
from contextlib import ExitStack
from dataclasses import replace
from unittest import mock

import comfy.model_base
import comfy.sd
import torch

import nodes

_armed = ExitStack()


class Spoiler(torch.autograd.Function):
    """Lets its input through, and fails or spoils the gradient on the way back."""

    @staticmethod
    def forward(context, x, fault):
        context.fault = fault
        return x.clone()

    @staticmethod
    def backward(context, gradient):
        return spoilt(gradient, context.fault), None


def spoilt(tensor, fault):
    if fault == "nan":
        return tensor * float("nan")
    if fault == "disk":
        raise OSError(errno.ENOSPC, "No space left on device")
    raise torch.OutOfMemoryError("out of memory, says the test")


def palate(name):
    """A module of the pack under test, wherever ComfyUI has loaded it."""
    update = nodes.NODE_CLASS_MAPPINGS["PalatePAPAUpdate"].__module__
    return importlib.import_module(update.rsplit(".nodes.", 1)[0] + "." + name)


def noise(fault):
    updater = palate("core.papa.updater")
    draw = updater.Draw.of

    def of(*args, **kwargs):
        drawn = draw(*args, **kwargs)
        return replace(drawn, noise=spoilt(drawn.noise, fault))

    return mock.patch.object(updater.Draw, "of", of)


def in_training(change):
    """The network's output while it learns, changed."""
    apply_model = comfy.model_base.BaseModel.apply_model

    def apply(self, *args, **kwargs):
        seen = apply_model(self, *args, **kwargs)
        return change(seen) if torch.is_grad_enabled() else seen

    return mock.patch.object(comfy.model_base.BaseModel, "apply_model", apply)


def forward(fault):
    return in_training(lambda seen: spoilt(seen, fault))


def backward(fault):
    return in_training(lambda seen: Spoiler.apply(seen, fault))


def optimiser(fault):
    step = torch.optim.Adam.step

    def half_done(self, closure=None):
        result = step(self, closure)
        with torch.no_grad():
            first = self.param_groups[0]["params"][0]
            first.fill_(7.0)
            first.copy_(spoilt(first, fault))
        return result

    return mock.patch.object(torch.optim.Adam, "step", half_done)


def drift(fault):
    meter = palate("core.papa.updater").DriftMeter

    def measure(self, rows):
        return float(spoilt(torch.ones(()), fault))

    return mock.patch.object(meter, "measure", measure)


def commit(fault):
    files = palate("core.profile.files")
    write_file, write_through = files.write_file, files._write_through

    def half(path, content):
        write_through(path, content[: len(content) // 2])
        spoilt(torch.ones(()), fault)

    def fails_half_way(path, content):
        with mock.patch.object(files, "_write_through", half):
            write_file(path, content)

    return mock.patch.object(files, "write_file", fails_half_way)


def previews(fault):
    decode = comfy.sd.VAE.decode
    drawing = palate("nodes.host.preview")

    def decoded(self, *args, **kwargs):
        return spoilt(decode(self, *args, **kwargs), fault)

    draw = drawing.draw_images

    def drawn(*args, **kwargs):
        with mock.patch.object(comfy.sd.VAE, "decode", decoded):
            return draw(*args, **kwargs)

    return mock.patch.object(palate("nodes.host"), "draw_images", drawn)


STAGES = {f.__name__: f for f in (noise, forward, backward, optimiser, drift, commit, previews)}


class Fault:
    """``stage`` "none" puts everything back."""

    RETURN_TYPES = ()
    FUNCTION = "arm"
    CATEGORY = "tests"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"stage": (["none", *STAGES],), "fault": (["memory", "nan", "disk"],)}}

    def arm(self, stage, fault):
        _armed.close()
        if stage != "none":
            _armed.enter_context(STAGES[stage](fault))
        return {"ui": {"armed": [stage]}}


NODE_CLASS_MAPPINGS = {"ProbeFault": Fault}
