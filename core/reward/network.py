"""The reward ensemble's network: several small convolutional heads in one grouped pass."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

GRID = 4


class HeadStack(nn.Module):
    """Utility of latents by each head, (N, C, H, W) and σ (N,) → (N, heads).

    Latents are standardised. Each head sees their channel means directly, a linear taste that a few
    ratings can teach, and two 3×3 convolutions, scaled and shifted by σ, pooled to a 4×4 grid.
    Latents wider than 16 are first gathered in patches of ``stride``.
    """

    def __init__(self, channels: int, heads: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.heads, self.stride = heads, stride
        patch = stride if stride > 1 else 3
        padding = 0 if stride > 1 else 1
        hidden = heads * width
        self.first = nn.Conv2d(channels, hidden, patch, stride, padding)
        self.noise = nn.Linear(2, 2 * hidden)
        self.second = nn.Conv2d(hidden, hidden, 3, padding=1, groups=heads)
        self.colour = nn.Parameter(torch.zeros(heads, channels))
        self.whole = nn.Parameter(torch.zeros(heads, width))
        self.places = nn.Parameter(torch.zeros(heads, width, GRID * GRID))
        self.intercept = nn.Parameter(torch.zeros(heads))

    @torch.no_grad()
    def start(self, generator: torch.Generator) -> None:
        """Random weights from ``generator``; the heads start apart, their outputs near zero."""
        for layer in (self.first, self.second):
            fan_in = layer.weight[0].numel()
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) / fan_in**0.5)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        self.noise.weight.copy_(0.1 * torch.randn(self.noise.weight.shape, generator=generator))
        nn.init.zeros_(self.noise.bias)
        for readout, size in ((self.colour, 0.05), (self.whole, 0.1), (self.places, 0.02)):
            readout.copy_(size * torch.randn(readout.shape, generator=generator))

    def forward(self, latents: Tensor, sigma: Tensor) -> Tensor:
        log_variance = (sigma.clamp(min=1e-3) ** 2).log1p()
        level = torch.stack([log_variance, 1 / (1 + sigma**2)], dim=1)
        scale, shift = self.noise(level)[..., None, None].chunk(2, dim=1)
        hidden = F.silu(self.first(latents) * (1 + scale) + shift)
        hidden = F.silu(self.second(hidden))  # (N, heads·width, h, w)
        grid = F.adaptive_avg_pool2d(hidden, GRID).flatten(2).unflatten(1, (self.heads, -1))
        places = (grid * self.places).sum((2, 3))
        whole = (grid.mean(3) * self.whole).sum(2)
        return latents.mean((2, 3)) @ self.colour.T + whole + places
