"""Choice models and their posterior: what a person's answers say about their hidden utility.

A pick among K is a multinomial logit, P(i) = softmax_i(θᵀφ_i); a ranking is Plackett–Luce (a chain
of picks); a like is logistic with an intercept. All share one θ with the Gaussian prior N(0, Id/λ).
Source: arXiv 2512.19057, section 3; λ is its regulariser.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

MAX_NEWTON_STEPS = 50
GRADIENT_TOLERANCE = 1e-9


class ChoiceModel:
    """Posterior over θ (d,) from picks, rankings and likes: Newton's optimum, Laplace around it.

    dim: d ≥ 1. l2: λ > 0, the prior's precision; it keeps separable and one-class data finite.
    """

    def __init__(self, dim: int, l2: float = 1.0) -> None:
        if dim < 1 or not l2 > 0:
            raise ValueError("dim must be at least 1 and l2 positive")
        self.dim, self.l2 = dim, float(l2)
        self.theta = torch.zeros(dim, dtype=torch.float64)
        self.intercept = 0.0
        self._choices: list[tuple[Tensor, int]] = []
        self._likes: list[tuple[Tensor, Tensor]] = []
        self._covariance = torch.eye(dim, dtype=torch.float64) / l2
        self.gradient_norm = 0.0

    def _checked(self, features: Tensor, rows: int) -> Tensor:
        if features.ndim != 2 or features.shape[1] != self.dim or len(features) < rows:
            raise ValueError(f"features must be (≥{rows}, {self.dim}), not {tuple(features.shape)}")
        if not torch.isfinite(features).all():
            raise ValueError("features must be finite")
        return features.detach().to("cpu", torch.float64)

    def observe_choice(self, features: Tensor, winner: int) -> None:
        """One pick: features (K, d), K ≥ 2, and the index of the winner."""
        features = self._checked(features, 2)
        if not 0 <= winner < len(features):
            raise ValueError(f"winner {winner} is not one of 0..{len(features) - 1}")
        self._choices.append((features, int(winner)))

    def observe_ranking(self, features: Tensor, order: Sequence[int]) -> None:
        """A full ranking, best first: a pick from all, then from the rest, and so on."""
        features = self._checked(features, 2)
        if sorted(order) != list(range(len(features))):
            raise ValueError("order must name every row of features once, best first")
        for place in range(len(order) - 1):
            self._choices.append((features[list(order[place:])], 0))

    def observe_likes(self, features: Tensor, likes: Tensor) -> None:
        """Likes and dislikes: features (N, d) and likes (N,) of 0/1."""
        features = self._checked(features, 1)
        likes = torch.as_tensor(likes, dtype=torch.float64).flatten()
        if len(likes) != len(features) or not bool(((likes == 0) | (likes == 1)).all()):
            raise ValueError("likes must be one 0 or 1 for each row of features")
        self._likes.append((features, likes))

    # The parameters are (θ, intercept): the intercept belongs to the likes and has a weak prior.

    def _terms(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Negative log posterior, its gradient and Hessian at (θ, intercept)."""
        precision = torch.full((self.dim + 1,), self.l2, dtype=torch.float64)
        precision[-1] = 0.01 * self.l2
        value = 0.5 * (precision * parameters**2).sum()
        gradient = precision * parameters
        hessian = torch.diag(precision)
        theta = parameters[:-1]
        for features, winner in self._choices:
            logits = features @ theta
            p = torch.softmax(logits, 0)
            value = value - torch.log_softmax(logits, 0)[winner]
            mean = p @ features
            gradient[:-1] += mean - features[winner]
            hessian[:-1, :-1] += (features * p[:, None]).T @ features - torch.outer(mean, mean)
        for features, likes in self._likes:
            design = torch.cat([features, torch.ones(len(features), 1, dtype=torch.float64)], 1)
            logits = design @ parameters
            p = torch.sigmoid(logits)
            value = value + torch.nn.functional.softplus(logits).sum() - (likes * logits).sum()
            gradient += design.T @ (p - likes)
            hessian += (design * (p * (1 - p))[:, None]).T @ design
        return value, gradient, hessian

    def fit(self) -> ChoiceModel:
        """Maximum a posteriori θ by damped Newton from the last fit, and the Laplace covariance."""
        parameters = torch.cat([self.theta, torch.tensor([self.intercept], dtype=torch.float64)])
        value, gradient, hessian = self._terms(parameters)
        for _ in range(MAX_NEWTON_STEPS):
            if float(gradient.norm()) < GRADIENT_TOLERANCE:
                break
            step = torch.linalg.solve(hessian, gradient)
            size = 1.0
            while size > 1e-8:
                candidate = parameters - size * step
                terms = self._terms(candidate)
                if terms[0] <= value:
                    break
                size /= 2
            else:
                break
            parameters, (value, gradient, hessian) = candidate, terms
        self.theta, self.intercept = parameters[:-1].clone(), float(parameters[-1])
        self.gradient_norm = float(gradient.norm())
        self._covariance = torch.linalg.inv(hessian)[:-1, :-1]
        return self

    def utility(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Posterior mean and standard deviation of θᵀφ for features (N, d): two (N,)."""
        features = self._checked(features, 1)
        variance = ((features @ self._covariance) * features).sum(1)
        return features @ self.theta, variance.clamp(min=0).sqrt()

    def probabilities(self, features: Tensor) -> Tensor:
        """Chance of each of the K rows to be picked, at θ̂: (K,)."""
        return torch.softmax(self._checked(features, 1) @ self.theta, 0)
