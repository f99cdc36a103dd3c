"""The oracle, a CNN that looks at digits, and what is measured with it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .data import Digits
from .kept import kept

PREFERRED = (1, 4, 7, 9)


class Oracle(nn.Module):
    """Classes and features of digits (n, 1, H, W) in [−1, 1]; features are (n, 64)."""

    def __init__(self, pixels: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(1, 24, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(24, 48, 3, padding=1), nn.BatchNorm2d(48), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(48, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
            nn.AdaptiveAvgPool2d(4), nn.Flatten(),
        )  # fmt: skip
        self.hidden, self.head = nn.Linear(64 * 16, 64), nn.Linear(64, 10)

    def features(self, images: Tensor) -> Tensor:
        return F.relu(self.hidden(self.convolutions(images)))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        return torch.cat([self(some).softmax(1) for some in images.split(1000)])

    def likes(self, images: Tensor) -> Tensor:
        """+1 where the most likely class is preferred, else −1: (n,)."""
        return is_preferred(self.probabilities(images).argmax(1)).float() * 2 - 1


def is_preferred(classes: Tensor) -> Tensor:
    return torch.isin(classes, torch.tensor(PREFERRED).to(classes))


def train(digits: Digits, epochs: int, device: torch.device, seed: int = 0) -> Oracle:
    """Cross-entropy on digits that are shifted by up to a pixel."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        oracle = Oracle(digits.images.shape[-1]).to(device)
    generator = torch.Generator().manual_seed(seed)
    steps, batch = epochs * len(digits.images) // 128, 128
    optimizer = torch.optim.AdamW(oracle.parameters(), lr=3e-3)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps)
    for _ in range(steps):
        some = torch.randint(len(digits.images), (batch,), generator=generator)
        shift = torch.randint(-1, 2, (2,), generator=generator).tolist()
        images = torch.roll(digits.images[some], shift, (2, 3)).to(device)
        loss = F.cross_entropy(oracle(images), digits.classes[some].to(device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        rates.step()
    return oracle


def cached(digits: Digits, work: Path, device: torch.device, epochs: int = 3) -> Oracle:
    """From ``work``, or trained and kept there; frozen."""
    pixels = digits.images.shape[-1]
    path = work / f"oracle_{pixels}.safetensors"
    oracle = kept(path, lambda: Oracle(pixels), lambda: train(digits, epochs, device))
    return oracle.to(device).eval().requires_grad_(False)


def accuracy(oracle: Oracle, digits: Digits, device: torch.device) -> float:
    found = oracle.probabilities(digits.images.to(device)).argmax(1).cpu()
    return float((found == digits.classes).float().mean())


@torch.no_grad()
def moments(oracle: Oracle, images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (d,) and covariance (d, d) of the oracle's features, float64."""
    features = torch.cat([oracle.features(some) for some in images.split(1000)]).double().cpu()
    return features.mean(0), features.T.cov()


def frechet(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> float:
    """Fréchet distance of two Gaussians, ‖μ1−μ2‖² + tr(C1 + C2 − 2√(C1·C2)); arXiv 1706.08500."""
    (mean, covariance), (mean2, covariance2) = one, other
    values, vectors = torch.linalg.eigh(covariance)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ covariance2 @ root).clamp(min=0).sqrt().sum()
    trace = covariance.trace() + covariance2.trace() - 2 * cross
    return float((mean - mean2).square().sum() + trace)


def measures(oracle: Oracle, images: Tensor, real: tuple[Tensor, Tensor]) -> dict[str, Any]:
    """What a set of images (n, 1, H, W) is worth to the oracle.

    success: share of preferred classes. entropy: of the classes inside the preferred set, as a
    share of the largest possible. confidence: mean largest probability. frechet: of the images'
    features to those of preferred real digits, given as ``real`` moments. shares: of each preferred
    class among the preferred ones.
    """
    sureness, classes = oracle.probabilities(images).max(1)
    counts = torch.tensor([float((classes == one).sum()) for one in PREFERRED])
    shares = counts / counts.sum().clamp(min=1)
    entropy = -(shares * shares.clamp(min=1e-12).log()).sum() / math.log(len(PREFERRED))
    return {
        "success": float(is_preferred(classes).float().mean()),
        "entropy": float(entropy),
        "confidence": float(sureness.mean()),
        "frechet": frechet(moments(oracle, images), real),
        "shares": shares.tolist(),
        "samples": len(images),
    }
