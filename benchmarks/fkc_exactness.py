"""Does the particle sampler reach the tilted model? Analytic targets with closed-form answers.

    python benchmarks/fkc_exactness.py

A mixture in the plane, a 64-dimensional Gaussian, and the mixture as a flow model, each tilted by
exp(β·r). For each way of weighting, number of steps and number of particles: the bias of the
estimate of E[r] against the closed form, its standard deviation over seeds, and the effective share
of particles before any resampling. The base sampler's own error at few steps is part of the bias;
the last columns therefore compare with the base sampler reweighted, which is what "twisted" aims
at. Prints the table, writes JSON and a plot.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from launch.package import import_palate  # noqa: E402

import_palate()
from palate.core.fkc import sample_fk_steering, sample_fkc  # noqa: E402

METHODS: dict[str, dict] = {
    "twisted": {},
    "twisted, no Jacobian": {"jacobian": False},
    "continuous": {"weights": "continuous"},
    "seed": {"weights": "seed"},
    "guidance only": {},
    "FK steering difference": {"potential": "difference"},
    "FK steering max": {"potential": "max"},
    "FK steering sum": {"potential": "sum"},
}


@dataclass(frozen=True)
class Target:
    """A denoiser with a closed form, a reward, and E[r] under the tilt."""

    name: str
    dim: int
    beta: float
    exact: float
    denoise: Callable[[Tensor, Tensor, Tensor], Tensor]  # of x = α·x0 + σ·ε, given α (n, 1), σ
    reward: Callable[[Tensor], Tensor]
    flow: bool = False
    gaussian: bool = False

    def sigmas(self, steps: int) -> Tensor:
        """Karras' σ from 20 to 0.02, or even steps from 1 for the flow model, then 0."""
        if self.flow:
            return torch.linspace(1, 0, steps + 1)
        ramp = torch.linspace(0, 1, steps)
        sigmas = (20 ** (1 / 7) + ramp * (0.02 ** (1 / 7) - 20 ** (1 / 7))) ** 7
        return torch.cat([sigmas, torch.zeros(1)])

    def model(self, x: Tensor, sigma: Tensor) -> Tensor:
        level = sigma[:, None]
        return self.denoise(x, 1 - level if self.flow else torch.ones_like(level), level)


def mixture(flow: bool) -> Target:
    """Means (∓1.5, 0), std 0.4, shares 0.8 and 0.2; r = x[0], β = 2."""
    means, shares, std = torch.tensor([[-1.5, 0.0], [1.5, 0.0]]), torch.tensor([0.8, 0.2]), 0.4

    def denoise(x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        variance = (alpha * std) ** 2 + sigma**2
        away = x[:, None] - alpha[..., None] * means
        share = (shares.log() - away.square().sum(2) / (2 * variance)).softmax(1)
        of_each = means + (alpha * std**2 / variance)[..., None] * away
        return (share[..., None] * of_each).sum(1)

    odds = 0.2 / 0.8 * math.exp(2 * 2.0 * 1.5)
    exact = 2.0 * std**2 + 1.5 * (odds - 1) / (odds + 1)
    name = "mixture, flow" if flow else "mixture"
    return Target(name, 2, 2.0, exact, denoise, lambda x: x[:, 0], flow)


def gaussian() -> Target:
    """N(0, diag s²) in 64 dimensions, s from 0.2 to 1; r = ⟨u, x⟩ of unit variance, β = 2."""
    scale = torch.linspace(0.2, 1, 64)
    direction = torch.ones(64) / scale.square().sum().sqrt()

    def denoise(x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return alpha * scale**2 / ((alpha * scale) ** 2 + sigma**2) * x

    return Target("Gaussian, 64-d", 64, 2.0, 2.0, denoise, lambda x: x @ direction, gaussian=True)


def estimate(target: Target, method: str, steps: int, count: int, seed: int) -> tuple[float, float]:
    """The weighted estimate of E[r], and the ESS share of a run that never resamples."""
    generator = torch.Generator().manual_seed(seed)
    sigmas = target.sigmas(steps)
    x = sigmas[0] * torch.randn(count, target.dim, generator=generator)
    settings = {
        "reward": lambda x0_hat, sigma: target.reward(x0_hat),
        "beta_max": target.beta,
        "generator": generator,
        "alpha": (lambda sigma: 1 - sigma) if target.flow else None,
    } | METHODS[method]
    if method.startswith("FK steering"):
        found = sample_fk_steering(target.model, x, sigmas, **settings)
        settings["ess_threshold"] = 0.0
        bare = sample_fk_steering(target.model, x, sigmas, **settings)
    else:
        found = sample_fkc(target.model, x, sigmas, **settings)
        settings["ess_threshold"] = 0.0
        bare = sample_fkc(target.model, x, sigmas, **settings)
    values = target.reward(found.x).double()
    if method == "guidance only":
        return float(target.reward(bare.x).mean()), 1.0
    return float(found.mean(values)), float(bare.ess[-1]) / count


def reweighted(target: Target, steps: int, count: int = 50_000) -> float:
    """E[r] under the base sampler's output · exp(βr): for a Gaussian mean + β·variance."""
    generator = torch.Generator().manual_seed(10_000)
    sigmas = target.sigmas(steps)
    x = sigmas[0] * torch.randn(count, target.dim, generator=generator)
    alpha = (lambda sigma: 1 - sigma) if target.flow else None
    base = sample_fkc(target.model, x, sigmas, reward=None, generator=generator, alpha=alpha)
    values = target.reward(base.x).double()
    if target.gaussian:
        return float(values.mean() + target.beta * values.var())
    return float(((target.beta * values).softmax(0) * values).sum())


def measure(options: argparse.Namespace) -> list[dict]:
    rows = []
    header = f"{'target':15} {'method':23} {'steps':>5} {'N':>5} {'bias':>7} {'std':>6} {'ESS':>7}"
    print(header + f" {'off base':>9} {'error':>6}", flush=True)
    for target in (mixture(False), gaussian(), mixture(True)):
        for steps in options.steps:
            base = reweighted(target, steps)
            for method in METHODS:
                for count in options.particles:
                    began = time.time()
                    runs = [estimate(target, method, steps, count, s) for s in range(options.seeds)]
                    means = torch.tensor([mean for mean, _ in runs], dtype=torch.float64)
                    row = {
                        "target": target.name, "method": method, "steps": steps,
                        "particles": count, "seeds": options.seeds, "exact": target.exact,
                        "bias": float(means.mean()) - target.exact, "std": float(means.std()),
                        "ess": sum(ess for _, ess in runs) / len(runs),
                        "off_base": float(means.mean()) - base,
                        "standard_error": float(means.std()) / len(runs) ** 0.5,
                        "seconds": (time.time() - began) / len(runs),
                    }  # fmt: skip
                    rows.append(row)
                    print(
                        f"{target.name:15} {method:23} {steps:5} {count:5} {row['bias']:7.3f} "
                        f"{row['std']:6.3f} {row['ess']:7.4f} {row['off_base']:9.3f} "
                        f"{row['standard_error']:6.3f}",
                        flush=True,
                    )
    return rows


def draw(rows: list[dict], path: Path) -> None:
    """Bias against steps at the largest N, a panel a target."""
    from matplotlib import pyplot

    targets = list(dict.fromkeys(row["target"] for row in rows))
    most = max(row["particles"] for row in rows)
    figure, panels = pyplot.subplots(1, len(targets), figsize=(5 * len(targets), 4), squeeze=False)
    for panel, target in zip(panels[0], targets, strict=True):
        for method in METHODS:
            line = [
                row for row in rows
                if (row["target"], row["method"], row["particles"]) == (target, method, most)
            ]  # fmt: skip
            panel.errorbar(
                [row["steps"] for row in line], [row["bias"] for row in line],
                [2 * row["standard_error"] for row in line], marker="o", capsize=3, label=method,
            )  # fmt: skip
        panel.axhline(0, color="black", linewidth=0.8)
        panel.set(title=target, xscale="log", xlabel="steps", ylabel=f"bias of E[r], N = {most}")
    panels[0][0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", nargs="+", type=int, default=[20, 100])
    parser.add_argument("--particles", nargs="+", type=int, default=[64, 1024])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/fkc_exactness.json")
    options = parser.parse_args()
    rows = measure(options)
    command = f"python benchmarks/fkc_exactness.py --seeds {options.seeds}"
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"command": command, "runs": rows}, indent=1) + "\n")
    draw(rows, options.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
