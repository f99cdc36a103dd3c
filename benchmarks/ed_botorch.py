"""The peer: BoTorch's PairwiseGP with EUBO, beside our strategies, at a size it can bear.

    python benchmarks/ed_botorch.py --seeds 5 --questions 25

The Gaussian process lives on a pool of 256 random prompts, whose features are reduced to their 16
first principal components (it has no posterior over 10¹⁵ prompts), and asks the EUBO-best pair
(arXiv 2303.15746) of 1,000 random pairs. Our model sees the same pool, in the full features, asks
pairs too (random, Thompson's, or the EUBO-best of the same pairs) and all are measured on the pool:
regret of the prompt each believes best, as a share of (pool's best − pool's mean), and the accuracy
on 1,000 pairs of it. No cosine: the process has no θ. Writes results/ed_botorch.json.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent))

from ed_persons import L2, Person, prompt_space
from ed_summary import half_width
from palate.core.choice import ChoiceModel

RESULT = Path(__file__).resolve().parent / "results" / "ed_botorch.json"
POOL, COMPONENTS, PAIRS = 256, 16, 1000
TIMES = (5, 10, 25)


def eubo_pair(mean: Tensor, covariance: Tensor, pairs: Tensor) -> Tensor:
    """The pair (2,) of greatest E[max], in closed form for two jointly Gaussian utilities."""
    first, second = pairs.T
    variance = covariance[first, first] + covariance[second, second] - 2 * covariance[first, second]
    spread = variance.clamp(min=1e-12).sqrt()
    z = (mean[first] - mean[second]) / spread
    normal = torch.distributions.Normal(0.0, 1.0)
    density = torch.exp(normal.log_prob(z))
    value = mean[second] + spread * (z * normal.cdf(z) + density)
    return pairs[int(value.argmax())]


def linear_posterior(features: Tensor, comparisons: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    """Our choice model's posterior of the pool's utilities."""
    model = ChoiceModel(features.shape[1], L2)
    for winner, loser in comparisons:
        model.observe_choice(features[[winner, loser]], 0)
    model.fit()
    return features @ model.theta, model.covariance_product(features) @ features.T


def process_posterior(reduced: Tensor, comparisons: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    """PairwiseGP's, with its hyperparameters fitted by marginal likelihood."""
    from botorch.fit import fit_gpytorch_mll
    from botorch.models.pairwise_gp import PairwiseGP, PairwiseLaplaceMarginalLogLikelihood

    if not comparisons:
        return torch.zeros(len(reduced)).double(), torch.eye(len(reduced)).double()
    model = PairwiseGP(reduced, torch.tensor(comparisons))
    fit_gpytorch_mll(PairwiseLaplaceMarginalLogLikelihood(model.likelihood, model))
    with torch.no_grad():
        posterior = model.posterior(reduced)
    return posterior.mean[:, 0], posterior.distribution.covariance_matrix


def ask(person: Person, seed: int, strategy: str, questions: int) -> list[dict[str, float]]:
    generator = torch.Generator().manual_seed(seed)
    space = person.space
    features = space.prompt_features(space.random_prompts(POOL, generator))
    centred = features - features.mean(0)
    reduced = centred @ torch.linalg.svd(centred, full_matrices=False).Vh[:COMPONENTS].T
    low = reduced.amin(0)
    reduced = (reduced - low) / (reduced.amax(0) - low)
    truth = features @ person.theta
    test = torch.randint(POOL, (PAIRS, 2), generator=generator)
    posterior: Callable[[list[tuple[int, int]]], tuple[Tensor, Tensor]]
    if strategy == "PairwiseGP + EUBO":
        posterior = lambda seen: process_posterior(reduced, seen)  # noqa: E731
    else:
        posterior = lambda seen: linear_posterior(features, seen)  # noqa: E731
    comparisons: list[tuple[int, int]] = []
    found = []
    mean, covariance = posterior(comparisons)
    for asked in range(1, questions + 1):
        pairs = torch.stack([torch.randperm(POOL, generator=generator)[:2] for _ in range(PAIRS)])
        pair = pairs[0] if strategy == "random" else eubo_pair(mean, covariance, pairs)
        winner = person.answer(features[pair])
        comparisons.append((int(pair[winner]), int(pair[1 - winner])))
        if strategy != "random" or asked in TIMES:
            mean, covariance = posterior(comparisons)
        if asked in TIMES:
            chances = torch.softmax(truth[test], 1)
            guess = mean[test].argmax(1, keepdim=True)
            missed = truth.max() - truth[int(mean.argmax())]
            found.append({
                "regret": float(missed / (truth.max() - truth.mean())),
                "accuracy": float(chances.gather(1, guess).mean()),
            })  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--questions", type=int, default=25)
    parser.add_argument("--kind", default="concentrated")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    space = prompt_space(arguments.kind)
    times = [t for t in TIMES if t <= arguments.questions]
    report: dict = {
        "command": " ".join(["python", "benchmarks/ed_botorch.py", *sys.argv[1:]]),
        "kind": arguments.kind, "pool": POOL, "seeds": arguments.seeds, "strategies": {},
    }  # fmt: skip
    for strategy in ("random", "linear logit + EUBO", "PairwiseGP + EUBO"):
        began = time.process_time()
        runs = [
            ask(Person.of(space, seed), seed, strategy, arguments.questions)
            for seed in range(arguments.seeds)
        ]
        row: dict = {"cpu_s_a_question": round(
            (time.process_time() - began) / arguments.seeds / arguments.questions, 3)}  # fmt: skip
        for place, asked in enumerate(times):
            for metric in ("regret", "accuracy"):
                values = [run[place][metric] for run in runs]
                row[f"{metric}@{asked}"] = [
                    round(sum(values) / len(values), 3), round(half_width(values), 3)
                ]  # fmt: skip
        report["strategies"][strategy] = row
        print(strategy, row, flush=True)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
