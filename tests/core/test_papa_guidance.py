"""Learning through guidance: the prediction that draws is the one that learns."""

from __future__ import annotations

import pytest
import torch
from palate.core.papa import Guidance, guided
from torch import Tensor

PROMPTS = torch.tensor([[0.5, -1.0], [2.0, 0.25], [0.0, 0.75]], dtype=torch.float64)
NEGATIVE = 2


class Network:
    """ε = x·(everywhere + own[prompt]): one change in all prompts alike, one in each alone."""

    def __init__(self) -> None:
        self.everywhere = torch.ones(2, dtype=torch.float64, requires_grad=True)
        self.own = PROMPTS.clone().requires_grad_()
        self.calls: list[tuple[Tensor, Tensor, Tensor]] = []

    def __call__(self, x_t: Tensor, t: Tensor, index: Tensor) -> Tensor:
        self.calls.append((x_t.detach(), t, index))
        return x_t * (self.everywhere + self.own[index]) + t[:, None]


X = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], dtype=torch.float64)
T = torch.tensor([7, 8, 9])
INDEX = torch.tensor([1, 0, 1])


@pytest.mark.parametrize("scale", [0.0, 1.5, 7.0])
def test_it_is_the_negative_plus_the_scaled_difference_in_one_call(scale: float) -> None:
    network = Network()
    seen = guided(network, Guidance(NEGATIVE, scale))(X, T, INDEX)
    (call,) = network.calls
    assert [len(part) for part in call] == [6, 6, 6]
    away = network(X, T, torch.full((3,), NEGATIVE))
    torch.testing.assert_close(seen, away + scale * (network(X, T, INDEX) - away))


def test_what_changes_in_all_prompts_counts_once_and_in_one_prompt_scale_times() -> None:
    network = Network()
    guided(network, Guidance(NEGATIVE, 3.0))(X, T, INDEX).sum().backward()
    assert network.everywhere.grad is not None
    assert network.own.grad is not None
    torch.testing.assert_close(network.everywhere.grad, X.sum(0))
    torch.testing.assert_close(network.own.grad[1], 3 * (X[0] + X[2]))
    torch.testing.assert_close(network.own.grad[NEGATIVE], -2 * X.sum(0))


def test_at_scale_one_it_is_the_prediction_itself() -> None:
    network = Network()
    assert guided(network, Guidance(NEGATIVE, 1.0)) is network
