"""What a step adds to x and to the log-weights; every sign of the method is in this file.

t runs from noise to data, dt > 0; forward noising is dx = f dt + g dW. β rises along t.
Sums run over all but the first axis: (N, …) → (N,). Source: arXiv 2503.02819, Prop. D.6.
"""

from __future__ import annotations

from torch import Tensor


def inner(a: Tensor, b: Tensor) -> Tensor:
    """⟨a, b⟩ of each particle, (N, …) → (N,) float64 on the CPU."""
    return (a.flatten(1) * b.flatten(1)).sum(1).cpu().double()


def score_of(x: Tensor, x0_hat: Tensor, sigma: Tensor) -> Tensor:
    """∇ log q(x) of x = x0 + σ·ε by Tweedie's formula: (x̂0 − x)/σ²."""
    return (x0_hat - x) / sigma**2


def guidance(gradient: Tensor, beta: float, diffusion: float | Tensor) -> Tensor:
    """β·(g²/2)·∇r dt, what the reward adds to dx = [−f + g²·score] dt + g dW; (N, …).

    ``diffusion`` is g² dt: σ² − σ_next² for x = x0 + σ·ε.
    """
    return diffusion * (beta / 2) * gradient


def schedule_increment(
    reward: Tensor, reward_next: Tensor, beta: float, beta_next: float
) -> Tensor:
    """(dβ/dt)·r + β·∂_t r, times dt: both rewards at the same x, the second at the next time."""
    return beta_next * reward_next - beta * reward


def transport_increment(
    score: Tensor,
    gradient: Tensor,
    beta: float,
    diffusion: float | Tensor,
    drift: float | Tensor = 0.0,
) -> Tensor:
    """⟨β∇r, (g²/2)·score − f⟩ dt, with ``diffusion`` g² dt and ``drift`` f dt: (N,)."""
    return inner(beta * gradient, diffusion / 2 * score - drift)


def proposal_increment(shift: Tensor, noise: Tensor, std: Tensor) -> Tensor:
    """log N(x_s; m, v) − log N(x_s; m+δ, v) at x_s = m + δ + √v·z: −⟨δ,z⟩/√v − |δ|²/2v, (N,)."""
    scaled = shift / std
    return -inner(scaled, noise) - inner(scaled, scaled) / 2
