"""The base model: a small DDPM of digits, trained here, and its sampler.

DDPM: arXiv 2006.11239, T = 1000, β linear from 1e-4 to 0.02. DDIM: arXiv 2010.02502.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from .kept import kept

T = 1000
ALPHAS_CUMPROD = torch.cumprod(1 - torch.linspace(1e-4, 0.02, T, dtype=torch.float64), 0)
EMA = 0.995


@dataclass(frozen=True)
class Size:
    """How large an experiment is: of the images, the U-Net, its training and its sampling.

    power: the sampler's timesteps are T·(i/steps)^power, so that more than 1 crowds the clean end.
    """

    name: str
    pixels: int
    channels: tuple[int, ...]
    layers: int
    steps: int
    batch: int
    sampling: int
    power: float = 1.0
    eta: float = 1.0


REDUCED = Size("reduced", 16, (16, 32, 80), 1, 1800, 64, 20, power=1.5)
FULL = Size("full", 32, (64, 128, 256), 2, 40_000, 128, 1000)


def new_unet(size: Size) -> UNet2DModel:
    """Attention in the middle block only; weights from the global seed."""
    levels = len(size.channels)
    return UNet2DModel(
        sample_size=size.pixels, in_channels=1, out_channels=1, layers_per_block=size.layers,
        block_out_channels=size.channels, norm_num_groups=8, attention_head_dim=16,
        down_block_types=("DownBlock2D",) * levels,
        up_block_types=("UpBlock2D",) * levels,
    )  # fmt: skip


def train(images: Tensor, size: Size, device: torch.device, seed: int = 0) -> UNet2DModel:
    """A DDPM of ``images`` (N, 1, H, W) by the plain ε loss; the EMA of the weights is returned."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        unet = new_unet(size).to(device)
    averaged = copy.deepcopy(unet)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=2e-3, weight_decay=0.0)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, size.steps, pct_start=0.1)
    began = time.time()
    for step in range(size.steps):
        x0 = images[torch.randint(len(images), (size.batch,), generator=generator)].to(device)
        t = torch.randint(T, (size.batch,), generator=generator)
        noise = torch.randn(x0.shape, generator=generator).to(device)
        signal = ALPHAS_CUMPROD[t].view(-1, 1, 1, 1).to(x0)
        with half(device):
            predicted = unet(signal.sqrt() * x0 + (1 - signal).sqrt() * noise, t.to(device)).sample
        loss = (predicted.float() - noise).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        rates.step()
        average(averaged.parameters(), unet.parameters(), min(EMA, step / (step + 10)))
        if step % 200 == 0:
            print(f"  base: step {step}, loss {loss:.4f}, {time.time() - began:.0f} s", flush=True)
    return averaged


@torch.no_grad()
def average(kept: Iterable[Tensor], now: Iterable[Tensor], share: float) -> None:
    """kept ← share·kept + (1 − share)·now, in place."""
    for mean, value in zip(kept, now, strict=True):
        mean.lerp_(value, 1 - share)


def half(device: torch.device) -> Any:
    """Autocast to bfloat16 where the device multiplies it in hardware."""
    from palate.core.papa.precision import cpu_is_fast_at_bfloat16

    fast = device.type == "cuda" or (device.type == "cpu" and cpu_is_fast_at_bfloat16())
    return torch.autocast(device.type, torch.bfloat16) if fast else nullcontext()


class Ddpm:
    """A U-Net with its schedule: ε prediction, and samples from one noise per image."""

    def __init__(self, unet: nn.Module, size: Size, device: torch.device) -> None:
        self.unet = unet.eval().requires_grad_(False).to(device)
        self.size, self.device = size, device
        self.shape = (1, size.pixels, size.pixels)
        self._rows = [0, 0]
        ladder = (torch.arange(size.sampling, 0, -1) / size.sampling) ** size.power
        self.ladder = ((T - 1) * ladder).round().long().clamp(min=1)
        self.signal = torch.cat([ALPHAS_CUMPROD[self.ladder], torch.ones(1, dtype=torch.float64)])

    @classmethod
    def cached(cls, images: Tensor, size: Size, work: Path, device: torch.device) -> Ddpm:
        """From ``work``, or trained and kept there."""
        path = work / f"base_{size.name}.safetensors"
        unet = kept(path, lambda: new_unet(size), lambda: train(images, size, device))
        return cls(unet, size, device)

    def predict_noise(self, x_t: Tensor, t: Tensor) -> Tensor:
        """ε for x_t (n, 1, H, W) at timesteps t (n,), with whatever weights are in the U-Net."""
        self._rows[torch.is_grad_enabled()] += len(x_t)
        return self.unet(x_t, t.to(x_t.device)).sample

    def take_rows(self) -> tuple[int, int]:
        """Rows predicted since the last call: without gradients, with gradients."""
        plain, gradient = self._rows
        self._rows = [0, 0]
        return plain, gradient

    def transition(self, x: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        """DDIM-η from the ladder's ``step`` (n,): mean (n, …) and σ (n, 1, 1, 1) of p(x_s | x_t).

        The denoised estimate is clamped to [−1, 1]; the last step's σ is 0.
        """
        t = self.ladder[step]
        now, then = (a.view(-1, 1, 1, 1).to(x) for a in (self.signal[step], self.signal[step + 1]))
        with half(self.device):
            noise = self.predict_noise(x, t)
        x0 = ((x - (1 - now).sqrt() * noise.float()) / now.sqrt()).clamp(-1, 1)
        noise = (x - now.sqrt() * x0) / (1 - now).sqrt()
        sigma = self.size.eta * ((1 - then) / (1 - now) * (1 - now / then)).clamp(min=0).sqrt()
        mean = then.sqrt() * x0 + (1 - then - sigma**2).clamp(min=0).sqrt() * noise
        return mean, sigma

    @torch.no_grad()
    def trajectory(
        self, count: int, generator: torch.Generator, adapter: Any = None, boundary: int = 0
    ) -> Tensor:
        """x along the ladder, pure noise first: (steps + 1, count, 1, H, W). ``adapter`` works at
        t ≥ ``boundary`` only (EPAPA)."""
        path = [torch.randn((count, *self.shape), generator=generator).to(self.device)]
        for i, t in enumerate(self.ladder.tolist()):
            with gate(adapter, t >= boundary):
                mean, sigma = self.transition(path[-1], torch.full((count,), i))
            noise = torch.randn(mean.shape, generator=generator).to(mean)
            path.append(mean + sigma * noise)
        return torch.stack(path)

    def sample(
        self, count: int, generator: torch.Generator, adapter: Any = None, boundary: int = 0
    ) -> Tensor:
        """x0 (count, 1, H, W) in [−1, 1], as the end of `trajectory`."""
        return self.trajectory(count, generator, adapter, boundary)[-1].clamp(-1, 1)


def gate(adapter: Any, is_on: bool) -> Any:
    """The adapter as it is, or off: the frozen base."""
    return nullcontext() if adapter is None or is_on else adapter.scaled(0.0)
