"""A loaded MODEL as a noise predictor that can be trained through."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import comfy.model_management
import comfy.model_sampling
import comfy.sampler_helpers
import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ...core.schedule import NoiseSchedule


@contextmanager
def training(model: ModelPatcher) -> Iterator[None]:
    """The model on its device, its network fit to be trained through, and autograd on, in this
    thread."""
    comfy.model_management.load_models_gpu([model])
    make_trainable(model.model.diffusion_model)
    with torch.inference_mode(False), torch.enable_grad():
        yield


def make_trainable(network: nn.Module) -> None:
    """Replaces tensors made under inference mode by ordinary ones, one at a time.

    Autograd refuses to save inference tensors for the backward pass; ComfyUI makes them when it
    loads weights, and again when it patches a LoRA into them or takes it out.
    """
    with torch.inference_mode(False), torch.no_grad():
        for module in network.modules():
            for name, parameter in module._parameters.items():
                if parameter is not None and parameter.is_inference():
                    module._parameters[name] = nn.Parameter(parameter.clone(), requires_grad=False)
            for name, buffer in module._buffers.items():
                if buffer is not None and buffer.is_inference():
                    module._buffers[name] = buffer.clone()


def noise_schedule(model: ModelPatcher) -> NoiseSchedule:
    """The model's own discrete σ table. Raises ValueError for a model without one."""
    sampling = model.get_model_object("model_sampling")
    sigmas = getattr(sampling, "sigmas", None)
    if sigmas is None or isinstance(sampling, comfy.model_sampling.IMG_TO_IMG):
        raise ValueError(
            "PAPA Update learns from models that are sampled from noise over a table of sigmas "
            f"(SD1.5, SDXL, SD3, Flux, Lumina2, Qwen-Image, Wan …); this one uses "
            f"{type(sampling).__name__} ({type(model.model).__name__})."
        )
    flow = isinstance(sampling, comfy.model_sampling.CONST)
    return NoiseSchedule(sigmas.detach().float().cpu(), flow)


def alphas_cumprod(model: ModelPatcher) -> Tensor:
    """ᾱ_t of the model's own discrete σ table: (T,) float64. Raises for a model without one."""
    return noise_schedule(model).alphas_cumprod


LARGE = 256 * 2**20  # bytes of weights; the memory of a smaller network's passes is no concern


def free_memory(model: ModelPatcher) -> Callable[[], int] | None:
    """Bytes free on the model's device, of which the size of a pass is made; None for a small
    network, which needs no estimate."""
    if model.model_size() < LARGE:
        return None
    return lambda: int(comfy.model_management.get_free_memory(model.load_device))


def latent_in(model: ModelPatcher, latents: Tensor) -> Tensor:
    """Latents as nodes pass them → the space in which the network works."""
    return model.model.process_latent_in(latents)


def noise_predictor(
    model: ModelPatcher,
    conditionings: Sequence[list],
    shape: Sequence[int],
    negative: list | None = None,
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """ε_θ(x_t (n, …), t (n,), index (n,)) of a loaded model, DDPM notation, differentiable.

    ``index`` picks the conditioning of each row, the one after the last being ``negative``;
    ``shape`` is that of one latent. Rows whose conditionings differ in size (prompts of unlike
    length) go through the network in turn.
    """
    device, schedule = model.load_device, noise_schedule(model)
    conds = [_encoded(model, own, shape, device, "positive") for own in conditionings]
    if negative is not None:
        conds.append(_encoded(model, negative, shape, device, "negative"))
    kinds = list(dict.fromkeys(_kind(own) for own in conds))
    kind_of = torch.tensor([kinds.index(_kind(own)) for own in conds])

    def alike(x_t: Tensor, t: Tensor, index: Tensor) -> Tensor:
        alpha, sigma, scale = (
            part.float().view(-1, *[1] * (x_t.ndim - 1)).to(device)
            for part in schedule.coefficients(t)
        )
        x = x_t.to(device).float() * scale
        rows = _joined([conds[i] for i in index.tolist()])
        denoised = model.model.apply_model(x, sigma.flatten(), **rows)
        return ((x - alpha * denoised) / sigma).to(x_t)

    def predict(x_t: Tensor, t: Tensor, index: Tensor) -> Tensor:
        of_row = kind_of[index.cpu()]
        parts = [torch.nonzero(of_row == kind).flatten() for kind in of_row.unique().tolist()]
        if len(parts) == 1:
            return alike(x_t, t, index)
        order = torch.cat(parts).argsort().to(x_t.device)
        seen = [alike(x_t[p.to(x_t.device)], t[p.to(t.device)], index[p]) for p in parts]
        return torch.cat(seen)[order]

    return predict


def _encoded(
    model: ModelPatcher,
    conditioning: list,
    shape: Sequence[int],
    device: torch.device,
    prompt_type: Literal["positive", "negative"],
) -> dict[str, Any]:
    """The network's extra inputs for one conditioning, of one row: {name: tensor or constant}."""
    noise = torch.zeros((1, *shape), device=device)
    conds = comfy.sampler_helpers.convert_cond(conditioning[:1])
    conds = comfy.samplers.encode_model_conds(
        model.model.extra_conds, conds, noise, device, prompt_type
    )
    encoded = {}
    for name, cond in conds[0]["model_conds"].items():
        value = cond.process_cond(batch_size=1, device=device, area=None).cond
        if isinstance(value, list):
            raise ValueError(
                f"This conditioning carries {name!r} (reference images), which a taste can't learn "
                "from: connect the conditioning as it comes from CLIP Text Encode."
            )
        encoded[name] = value.detach().to(device).clone() if isinstance(value, Tensor) else value
    return encoded


def _kind(conds: dict[str, Any]) -> tuple[Any, ...]:
    """What conditionings must share to go through the network together."""
    return tuple(
        (name, tuple(value.shape) if isinstance(value, Tensor) else repr(value))
        for name, value in sorted(conds.items())
    )


def _joined(conds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The inputs of several rows of one kind, stacked; constants are what they are."""
    return {
        name: torch.cat([own[name] for own in conds]) if isinstance(value, Tensor) else value
        for name, value in conds[0].items()
    }
