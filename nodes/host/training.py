"""A loaded MODEL as a noise predictor that can be trained through."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import comfy.model_management
import comfy.model_sampling
import comfy.sampler_helpers
import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ...core.schedule import alphas_cumprod_of


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


def alphas_cumprod(model: ModelPatcher) -> Tensor:
    """ᾱ_t of the model's own discrete σ table: (T,) float32. Raises for a model without one."""
    sampling = model.get_model_object("model_sampling")
    sigmas = getattr(sampling, "sigmas", None)
    if sigmas is None or isinstance(sampling, comfy.model_sampling.CONST):
        raise ValueError(
            "PAPA Update learns from ε- and v-prediction models with a discrete schedule (SD1.5, "
            f"SDXL and the starter model); this one uses {type(sampling).__name__}."
        )
    return alphas_cumprod_of(sigmas.detach().float().cpu()).float()


def latent_in(model: ModelPatcher, latents: Tensor) -> Tensor:
    """Latents as nodes pass them → the space in which the network works."""
    return model.model.process_latent_in(latents)


def noise_predictor(
    model: ModelPatcher, conditionings: Sequence[list], shape: Sequence[int]
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """ε_θ(x_t (n, …), t (n,), index (n,)) of a loaded model, DDPM notation, differentiable.

    ``index`` picks the conditioning of each row; ``shape`` is that of one latent.
    """
    device = model.load_device
    signal = alphas_cumprod(model)
    rows = _joined_conds(model, conditionings, shape, device)

    def predict(x_t: Tensor, t: Tensor, index: Tensor) -> Tensor:
        alpha = signal[t.cpu()].view(-1, *[1] * (x_t.ndim - 1)).to(device)
        sigma = ((1 - alpha) / alpha).sqrt()
        x = x_t.to(device) / alpha.sqrt()
        chosen = {key: value[index.to(device)] for key, value in rows.items()}
        denoised = model.model.apply_model(x, sigma.flatten(), **chosen)
        return ((x - denoised) / sigma).to(x_t.device)

    return predict


def _joined_conds(
    model: ModelPatcher, conditionings: Sequence[list], shape: Sequence[int], device: torch.device
) -> dict[str, Tensor]:
    """The network's extra inputs for all conditionings, stacked: {name: (N, …)}."""
    noise = torch.zeros((1, *shape), device=device)
    encoded = []
    for conditioning in conditionings:
        conds = comfy.sampler_helpers.convert_cond(conditioning[:1])
        conds = comfy.samplers.encode_model_conds(
            model.model.extra_conds, conds, noise, device, "positive"
        )
        encoded.append(
            {k: c.process_cond(batch_size=1, device=device, area=None)
             for k, c in conds[0]["model_conds"].items()}
        )  # fmt: skip
    joined = {}
    for key, first in encoded[0].items():
        others = [conds[key] for conds in encoded[1:]]
        if not all(first.can_concat(other) for other in others):
            raise ValueError(
                f"The rated images' conditionings differ in the size of {key!r}: rate images of "
                "one size and kind of prompt together."
            )
        value = first.concat(others)
        if isinstance(value, Tensor):
            joined[key] = value.detach().clone()
    return joined
