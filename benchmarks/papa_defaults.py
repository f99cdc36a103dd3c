"""Which settings of PAPA suit a LoRA? Rounds with a pixel rater on the starter model, in-process.

    python benchmarks/papa_defaults.py --arms default unguided --tastes "dark" --seeds 0 1

Prints win-rate (personalised over base, same prompt and seed, fresh of both) and diversity (as a
share of the base's) of each arm, with the spread over seeds, and writes them as JSON. The default
is the bundled workflow's; "unguided" costs as much and learns the prompt's own prediction, not the
guided one that draws. (results/papa_defaults.json is from before there was guided learning.)
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from launch.package import import_palate  # noqa: E402

import_palate()
from palate.core.adapter import LiveAdapter  # noqa: E402
from palate.core.features import diversity, image_features  # noqa: E402
from palate.core.papa import (  # noqa: E402
    Guidance,
    PapaConfig,
    RatedSamples,
    graded_labels,
    papa_update,
)
from palate.core.rater import TASTES, Rater  # noqa: E402
from palate.starter.generate import MODEL, Starter  # noqa: E402
from palate.starter.vocabulary import random_prompt  # noqa: E402

DEFAULT = PapaConfig(timesteps=2, first_timestep=300)
GUIDANCE = 3.0
ARMS: dict[str, dict] = {
    "default": {},
    "unguided": {"guidance": 1.0, "timesteps": 4},
    "lr3e-4": {"learning_rate": 3e-4},
    "lr2e-3": {"learning_rate": 2e-3},
    "no replay": {"replay": 0},
    "replay 24": {"replay": 24},
    "no bound": {"bound": "none"},
    "figure": {"variant": "figure"},
    "no QPDE": {"distillation": 0.0},
    "QPDE 0.009": {"distillation": 0.009},
    "QPDE 0.1": {"distillation": 0.1},
    "4 steps": {"steps": 4},
    "16 steps": {"steps": 16},
    "M 4": {"timesteps": 4},
    "M 16": {"timesteps": 16},
    "EPAPA 200": {"first_timestep": 200},
    "EPAPA 400": {"first_timestep": 400},
}


def settings_of(arm: str) -> dict:
    """An arm by its name, or written out: "learning_rate=3e-3,guidance=1"."""
    if arm in ARMS:
        return ARMS[arm]
    return {
        key: type(getattr(DEFAULT, key, GUIDANCE))(value)
        for key, value in (part.split("=") for part in arm.split(","))
    }


def personalise(
    model: Starter,
    taste: str,
    config: PapaConfig,
    seed: int,
    rounds: int,
    images: int,
    rank: int,
    guidance: float = GUIDANCE,
) -> tuple[LiveAdapter, float]:
    """The adapter after ``rounds`` rounds of ``images`` images, and the seconds it took.

    guidance: of the prediction that learns; the images are drawn with the sampler's own.
    """
    began, rater = time.time(), Rater(taste)
    generator = torch.Generator().manual_seed(1000 + seed)
    prompts = np.random.default_rng([seed, 1])
    adapter = LiveAdapter(model.unet, rank=rank, alpha=rank, seed=seed)
    latents, labels, contexts = [], [], []
    optimizer: dict[str, torch.Tensor] = {}
    empty = model.encode([""])
    with adapter.attached():
        for _ in range(rounds):
            text = [str(random_prompt(prompts, empty=0.35))] * images
            noise = torch.randn(images, *model.shape, generator=generator)
            x0 = model.sample(text, noise, adapter=adapter, boundary=config.first_timestep)
            answer = rater.answer(model.decode(x0))
            latents.append(x0)
            labels.append(graded_labels(answer, images))
            contexts.append(model.encode(text))
            context = torch.cat([*contexts, empty])  # the negative prompt comes last

            def predict(x_t, t, index, context=context):
                return model.predict_noise(x_t, t, context[index])

            groups = torch.arange(len(labels)).repeat_interleave(images)
            samples = RatedSamples(torch.cat(latents), torch.cat(labels), images, groups)
            _, optimizer = papa_update(
                adapter, predict, samples, model.alphas_cumprod, config, generator=generator,
                guidance=Guidance(len(context) - 1, guidance), optimizer_state=optimizer,
            )  # fmt: skip
    return adapter, time.time() - began


def evaluate(
    model: Starter, adapter: LiveAdapter, boundary: int, taste: str, seed: int, pairs: int
) -> dict:
    """Win-rate and diversity on fresh prompts and seeds; the rater sees pixels only."""
    generator = torch.Generator().manual_seed(777_000 + seed)
    rng = np.random.default_rng([seed, 2])
    prompts = [str(random_prompt(rng, empty=0.35)) for _ in range(pairs)]
    noise = torch.randn(pairs, *model.shape, generator=generator)
    base = model.decode(model.sample(prompts, noise))
    with adapter.attached():
        mine = model.decode(model.sample(prompts, noise, adapter=adapter, boundary=boundary))
    rater = Rater(taste)
    wins = (rater.score(mine) > rater.score(base)).float().mean()
    return {
        "win_rate": float(wins),
        "diversity": diversity(image_features(mine)) / diversity(image_features(base)),
        "score": float((rater.score(mine) - rater.score(base)).mean() / rater.score(base).std()),
        "images": (base, mine),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arms", nargs="+", default=list(ARMS))
    parser.add_argument("--tastes", nargs="+", default=list(TASTES), choices=list(TASTES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/papa_defaults.json")
    options = parser.parse_args()
    torch.set_flush_denormal(True)
    model, results = Starter.load(options.model), []
    print(f"{'arm':12} {'taste':13} {'win-rate':>16} {'diversity':>16} {'s/round':>8}", flush=True)
    for arm in options.arms:
        settings = dict(settings_of(arm))
        guidance = settings.pop("guidance", GUIDANCE)
        config = replace(DEFAULT, **settings)
        for taste in options.tastes:
            runs = []
            for seed in options.seeds:
                adapter, seconds = personalise(
                    model, taste, config, seed, options.rounds, options.images, options.rank,
                    guidance,
                )  # fmt: skip
                found = evaluate(model, adapter, config.first_timestep, taste, seed, options.pairs)
                found.pop("images")
                runs.append({**found, "seconds": seconds / options.rounds, "seed": seed})
            row = {key: [run[key] for run in runs] for key in runs[0]}
            spread = {k: f"{np.mean(row[k]):.3f} ± {np.std(row[k]):.3f}" for k in row}
            print(
                f"{arm:12} {taste:13} {spread['win_rate']:>16} {spread['diversity']:>16} "
                f"{np.mean(row['seconds']):8.2f}",
                flush=True,
            )
            results.append({"arm": arm, "taste": taste, **row})
    asked = {k: str(v) for k, v in vars(options).items() if k not in ("model", "out")}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"settings": asked, "runs": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
