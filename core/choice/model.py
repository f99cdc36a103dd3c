"""Choice models and their posterior: what a person's answers say about their hidden utility.

A pick among K is a multinomial logit, P(i) = softmax_i(θᵀφ_i); a ranking is Plackett–Luce (a chain
of picks); a like is logistic with an intercept. All share one θ with the Gaussian prior N(0, Id/λ).
Source: arXiv 2512.19057, section 3; λ is its regulariser.

Every answer is one *group* of rows z, the losers less the winner, with loss log(1 + Σ exp(θᵀz)):
a pick has K−1 rows, a place of a ranking one less each, a like the single row ∓(φ, intercept).
With fewer rows than dimensions all algebra runs in the span of the rows (θ̂ lies in it, and off it
the posterior is the prior's), so nothing of size d×d is built; else in R^d itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .posterior import Answers, Posterior, row_space

INTERCEPT_SCALE = 10.0  # the intercept is 10·(one more coordinate): its prior precision is λ/100


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
        self.gradient_norm = 0.0
        self._rows: list[Tensor] = []  # one (rows, d + 1) a group
        self._posterior = Posterior.prior(dim + 1, self.l2)

    @property
    def observations(self) -> int:
        """Number of picks and likes heard so far; a ranking of K counts as K − 1 picks."""
        return len(self._rows)

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
        losers = torch.cat([features[:winner], features[winner + 1 :]])
        rows = torch.zeros(len(losers), self.dim + 1, dtype=torch.float64)
        rows[:, : self.dim] = losers - features[winner]
        self._rows.append(rows)

    def observe_ranking(self, features: Tensor, order: Sequence[int]) -> None:
        """A full ranking, best first: a pick from all, then from the rest, and so on."""
        features = self._checked(features, 2)
        if sorted(order) != list(range(len(features))):
            raise ValueError("order must name every row of features once, best first")
        for place in range(len(order) - 1):
            self.observe_choice(features[list(order[place:])], 0)

    def observe_likes(self, features: Tensor, likes: Tensor) -> None:
        """Likes and dislikes: features (N, d) and likes (N,) of 0/1."""
        features = self._checked(features, 1)
        likes = torch.as_tensor(likes, dtype=torch.float64).flatten()
        if len(likes) != len(features) or not bool(((likes == 0) | (likes == 1)).all()):
            raise ValueError("likes must be one 0 or 1 for each row of features")
        scale = torch.full((len(features), 1), INTERCEPT_SCALE, dtype=torch.float64)
        rows = torch.cat([features, scale], 1) * (1 - 2 * likes)[:, None]
        self._rows += list(rows[:, None])

    def fit(self) -> ChoiceModel:
        """Maximum a posteriori θ by damped Newton from the last fit, and the Laplace covariance.

        ``gradient_norm`` is then ‖∇ log posterior‖ at θ̂, about 1e-9 or less.
        """
        rows, groups = self._stacked()
        basis = row_space(rows)
        at = torch.cat([self.theta, self.theta.new_tensor([self.intercept / INTERCEPT_SCALE])])
        inside = rows if basis is None else rows @ basis
        start = at if basis is None else basis.T @ at
        answers = Answers(inside, groups, len(self._rows), self.l2)
        found, hessian, self.gradient_norm = answers.newton(start)
        self._settle(found if basis is None else basis @ found)
        self._posterior = Posterior(self.l2, basis, torch.linalg.cholesky(hessian))
        return self

    def _settle(self, parameters: Tensor) -> None:
        self.theta = parameters[:-1].clone()
        self.intercept = INTERCEPT_SCALE * float(parameters[-1])

    def _stacked(self) -> tuple[Tensor, Tensor]:
        """All rows (n, d + 1) and the group of each (n,)."""
        if not self._rows:
            return torch.zeros(0, self.dim + 1, dtype=torch.float64), torch.zeros(0).long()
        sizes = torch.tensor([len(rows) for rows in self._rows])
        return torch.cat(self._rows), torch.arange(len(sizes)).repeat_interleave(sizes)

    def utility(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Posterior mean and standard deviation of θᵀφ for features (N, d): two (N,)."""
        features = self._checked(features, 1)
        variance = (self.covariance_product(features) * features).sum(1)
        return features @ self.theta, variance.clamp(min=0).sqrt()

    def probabilities(self, features: Tensor) -> Tensor:
        """Chance of each of the K rows to be picked, at θ̂: (K,)."""
        return torch.softmax(self._checked(features, 1) @ self.theta, 0)

    def information(self, features: Tensor) -> Tensor:
        """Fisher information about θ of one pick among the K rows, at θ̂: (d, d)."""
        features = self._checked(features, 1)
        p = torch.softmax(features @ self.theta, 0)
        centred = features - p @ features
        return (centred * p[:, None]).T @ centred

    def covariance_product(self, features: Tensor) -> Tensor:
        """Features (N, d) times the posterior covariance of θ: (N, d). Costs N·d·min(n, d)."""
        return self._posterior.product(self._padded(features))[:, :-1]

    def precision(self) -> Tensor:
        """Inverse posterior covariance of θ, the intercept integrated out: (d, d).

        It is λ·Id plus all information collected. The one call here that builds d×d.
        """
        full = self._posterior.precision(self.dim + 1)
        across = full[:-1, -1]
        return full[:-1, :-1] - torch.outer(across, across) / full[-1, -1]

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Draws of θ from the Laplace posterior: (count, d)."""
        noise = torch.randn(count, self.dim + 1, generator=generator, dtype=torch.float64)
        return self.theta + self._posterior.colour(noise)[:, :-1]

    def _padded(self, features: Tensor) -> Tensor:
        features = self._checked(features, 0)
        return torch.cat([features, features.new_zeros(len(features), 1)], 1)

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors from which `load_state_dict` restores θ, its uncertainty and all answers.

        The uncertainty is kept in its low-rank form, the answers' rows; safe for safetensors.
        """
        rows, groups = self._stacked()
        return {
            "theta": self.theta.clone(),
            "intercept": torch.tensor([self.intercept], dtype=torch.float64),
            "l2": torch.tensor([self.l2], dtype=torch.float64),
            "rows": rows.contiguous(),
            "groups": groups.contiguous(),
        }

    @classmethod
    def load_state_dict(cls, state: Mapping[str, Tensor]) -> ChoiceModel:
        """The fitted model a `state_dict` came from. Raises ValueError on foreign tensors."""
        missing = {"theta", "intercept", "l2", "rows", "groups"} - set(state)
        if missing:
            raise ValueError(f"not the state of a choice model: {sorted(missing)} are missing")
        model = cls(len(state["theta"]), float(state["l2"]))
        rows, groups = state["rows"].double(), state["groups"].long()
        if rows.ndim != 2 or rows.shape[1] != model.dim + 1 or len(groups) != len(rows):
            raise ValueError(f"the rows of the state do not fit theta: {tuple(rows.shape)}")
        if len(groups):
            model._rows = list(rows.split(torch.bincount(groups).tolist()))
        model.theta = state["theta"].double().clone()
        model.intercept = float(state["intercept"])
        return model.fit()
