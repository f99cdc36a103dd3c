"""Live adapters on ComfyUI's MODELs, through the model patcher's injections."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP, PatcherInjection, WrappersMP
from torch import Tensor

from ...core.adapter import LiveAdapter
from ...core.profile import TasteProfile
from ...core.schedule import Unit
from .families import unet_names
from .training import make_trainable, noise_schedule

INJECTION = "palate"


class OtherBaseModel(ValueError):
    """A profile was begun with another base model."""


@dataclass(eq=False)
class LiveTaste:
    """A profile's adapter on one loaded network, shared by every wire that carries it."""

    profile: TasteProfile
    adapter: LiveAdapter
    base_hash: str
    revision: int = 0

    @property
    def key(self) -> str:
        """Names the adapter among a patcher's injections; patchers with other keys are reloaded."""
        return f"{INJECTION}:{self.profile.folder}:{self.adapter.rank}"

    def load_active_revision(self) -> None:
        """Copies the profile's active revision into the live tensors, if another one is there."""
        active = self.profile.active.number
        if active == self.revision:
            return
        tensors, _ = self.profile.load_revision(active)
        with torch.inference_mode(False):
            if tensors:
                self.adapter.load_state_dict(tensors)
            else:
                self.adapter.reset()
        self.revision = active


@dataclass(frozen=True, eq=False)
class Taste:
    """What flows along a TASTE wire: the live taste and the settings of its Taste Profile node.

    strength: factor on the adapter. boundary, gate: EPAPA's t0 as a timestep, and its σ; the
    adapter works for σ ≥ gate only. model: the MODEL that carries it.
    """

    live: LiveTaste
    model: ModelPatcher
    strength: float
    boundary: int
    gate: float

    @property
    def profile(self) -> TasteProfile:
        return self.live.profile


@dataclass(eq=False)
class _Network:
    """What is known of one loaded network: its hash and the tastes on it.

    Kept on the network itself: adapters refer to its layers, so that a table elsewhere would keep
    every checkpoint in memory that ever carried a taste.
    """

    base_hash: str
    tastes: dict[tuple[Path, int], LiveTaste]

    def __deepcopy__(self, memo: dict[int, Any]) -> _Network:
        return _Network(self.base_hash, {})  # a copied network has layers of its own


_lock = threading.RLock()


def base_hash(model: ModelPatcher) -> str:
    """Identifies the base weights: names, shapes and 64 values of each tensor, unpatched."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.model.state_dict().items()):
        if not name.startswith("diffusion_model."):
            continue
        backup = model.backup.get(name)
        values = (backup.weight if backup is not None else tensor).flatten()
        sample = values[:: max(1, values.numel() // 64)][:64].detach().cpu()
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(sample.float().numpy().tobytes())
    return digest.hexdigest()


def taste_of(
    model: ModelPatcher,
    profile: TasteProfile,
    rank: int,
    strength: float,
    boundary: float,
    unit: Unit = "fraction",
) -> Taste:
    """The profile's live adapter on a clone of ``model``, loaded with the active revision.

    boundary: below it the base model is left alone; in ``unit``, as `NoiseSchedule.boundary` takes
    it. Raises ValueError if the model already carries a taste, if the profile was begun with
    another base model or rank, and if the boundary leaves nothing to learn.
    """
    if carries_a_taste(model):
        raise ValueError(
            "This MODEL already carries a taste: connect Taste Profile to the MODEL as it comes "
            "from the loader, once."
        )
    timestep, sigma = _boundary(model, boundary, unit)
    live = live_taste(model, profile, rank)
    live.load_active_revision()
    return Taste(live, _with_adapter(model, live, strength, sigma), strength, timestep, sigma)


def carries_a_taste(model: ModelPatcher) -> bool:
    return any(key.startswith(INJECTION) for key in model.injections)


def _boundary(model: ModelPatcher, boundary: float, unit: Unit) -> tuple[int, float]:
    """EPAPA's (timestep, σ gate); (0, 0) also for models that have no table of σ."""
    if boundary == 0:
        return 0, 0.0
    schedule = noise_schedule(model)
    try:
        return schedule.boundary(boundary, unit)
    except ValueError:
        ends = {
            "fraction": "at least 0 and below 1",
            "timestep": f"0 to {len(schedule) - 1}",
            "sigma": f"0 to {float(schedule.sigmas[-1]):.4g}",
        }
        raise ValueError(
            f"Taste Profile's boundary is {boundary:g}, and as a {unit} of this model it must be "
            f"{ends[unit]}: lower boundary, or set boundary_unit to what you mean."
        ) from None


def live_taste(model: ModelPatcher, profile: TasteProfile, rank: int) -> LiveTaste:
    """The profile's adapter on the model's network, the same object each time. Raises ValueError if
    the profile was begun with another base model or rank."""
    network = model.model.diffusion_model
    with _lock:
        known = network.__dict__.get(INJECTION)
        if known is None:
            known = network.__dict__[INJECTION] = _Network(base_hash(model), {})
        _check_fits(profile, known.base_hash, rank)
        key = (profile.folder, rank)
        if key not in known.tastes:
            with torch.inference_mode(False), _ejected(model):
                make_trainable(network)
                adapter = LiveAdapter(network, rank=rank, alpha=rank)
            known.tastes[key] = LiveTaste(profile, adapter, known.base_hash)
        live = known.tastes[key]
        live.profile = profile
        return live


def _check_fits(profile: TasteProfile, found: str, rank: int) -> None:
    begun = profile.settings
    if begun.get("base_hash") not in (None, found):
        raise OtherBaseModel(
            f"The profile {profile.name!r} was taught on another base model. Load that model, or "
            "give Taste Profile a new name."
        )
    if begun.get("rank") not in (None, rank):
        raise ValueError(
            f"The profile {profile.name!r} was begun with rank {begun['rank']}, not {rank}. Set "
            "rank back, or give Taste Profile a new name."
        )
    if begun.get("base_hash") is None:
        profile.set_setting("base_hash", found)
        profile.set_setting("rank", rank)


@contextmanager
def _ejected(model: ModelPatcher) -> Iterator[None]:
    """The bare network, also when another patcher of it is loaded with its adapter in place."""
    current = [m.model for m in comfy.model_management.current_loaded_models if m.model is not None]
    injected = [m for m in current if m.model is model.model and m.is_injected]
    for patcher in injected:
        patcher.eject_model()
    try:
        yield
    finally:
        for patcher in injected:
            patcher.inject_model()


def _with_adapter(
    model: ModelPatcher, live: LiveTaste, strength: float, boundary: float
) -> ModelPatcher:
    """A clone of ``model`` that carries the live adapter.

    The layers are swapped in for the length of a forward pass of this MODEL. ComfyUI reads and
    patches the same network for other MODELs at any time, by the names of its bare layers. Each run
    of a sampler begins with the active revision: after an undo ComfyUI may take Taste Profile's
    earlier result, which an update has since moved on.
    boundary: EPAPA's σ gate; the adapter is on for σ ≥ boundary, off below.
    """
    adapter = live.adapter

    def gated(executor: Any, x: Tensor, sigma: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        on = (sigma >= boundary).reshape(-1, *[1] * (x.ndim - 1))
        if strength == 0 or not bool(on.any()):
            return executor(x, sigma, *args, **kwargs)
        with adapter.attached(), adapter.scaled(strength):
            adapted = executor(x, sigma, *args, **kwargs)
        if bool(on.all()):
            return adapted
        return torch.where(on, adapted, executor(x, sigma, *args, **kwargs))

    return carrying(model, live.key, [live], gated)


def carrying(
    model: ModelPatcher, key: str, lives: Sequence[LiveTaste], gated: Callable[..., Tensor]
) -> ModelPatcher:
    """A clone of ``model`` in which ``gated`` wraps each forward pass, in place of a taste that was
    there; ``lives`` are on its device, and at their active revisions when a sampler begins."""
    patched = model.clone()

    def inject(patcher: ModelPatcher) -> None:
        with torch.inference_mode(False):  # what is moved here will be trained
            for live in lives:
                live.adapter.to(patcher.load_device)

    def eject(patcher: ModelPatcher) -> None:
        """Nothing to take out: the layers are in the network during a forward pass only."""

    def begin(patcher: ModelPatcher) -> None:
        for live in lives:
            live.load_active_revision()

    patched.set_injections(key, [PatcherInjection(inject=inject, eject=eject)])
    patched.remove_callbacks_with_key(CallbacksMP.ON_PRE_RUN, INJECTION)
    patched.add_callback_with_key(CallbacksMP.ON_PRE_RUN, INJECTION, begin)
    patched.remove_wrappers_with_key(WrappersMP.APPLY_MODEL, INJECTION)
    patched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, INJECTION, gated)
    return patched


def at_full_strength(model: ModelPatcher, taste: Taste) -> ModelPatcher:
    """``model``, which carries ``taste`` at the strength of its node, with the taste at 1."""
    return model if taste.strength == 1 else _with_adapter(model, taste.live, 1.0, taste.gate)


def export_names(model: ModelPatcher) -> dict[str, str]:
    """diffusers' names of a U-Net's layers: {ours: theirs}; empty for other networks."""
    config = model.model.model_config.unet_config
    return unet_names(config) if "model_channels" in config else {}


ARCHITECTURES = {
    "SD15": "stable-diffusion-v1",
    "SD20": "stable-diffusion-v2-512",
    "SDXL": "stable-diffusion-xl-v1-base",
}


def architecture(model: ModelPatcher) -> str:
    """The Model Spec's name of the model's family, or ComfyUI's own where it has none."""
    name = type(model.model.model_config).__name__
    return ARCHITECTURES.get(name, name.lower())
