"""What a label budget buys: FKC's budget loop beside best-of-N, FK steering, PAPA and FKC + PAPA.

    python benchmarks/fkc_budget.py --tastes "warm colours" dark --seeds 1 2 3 4 5

The starter model draws one open prompt a seed; a pixel rater likes the better half of each query.
Every method spends the same labels; after 16, 32 and 64 of them it makes 8 final images. FKC, FK
steering and best-of-N have the same number of model calls in all (best-of-N: a larger pool) and the
same reward network. Prints the mean true reward of the final images, in standard deviations of the
base model's images of that prompt, and their diversity as a share of the base's, with the spread
over seeds; runs are written to JSON, a file a taste, as they finish, and are not repeated. Settings
were chosen on seeds 0, 20 and 21.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from launch.package import import_palate  # noqa: E402

import_palate()
from palate.core.adapter import LiveAdapter  # noqa: E402
from palate.core.budget import LabelBudget, spend_budget  # noqa: E402
from palate.core.features import diversity, image_features  # noqa: E402
from palate.core.fkc import sample_fk_steering, sample_fkc  # noqa: E402
from palate.core.papa import PapaConfig, RatedSamples, graded_labels, papa_update  # noqa: E402
from palate.core.rater import TASTES, Rater  # noqa: E402
from palate.core.reward import RewardModel  # noqa: E402
from palate.core.schedule import sigmas_of  # noqa: E402
from palate.starter.generate import Starter  # noqa: E402
from palate.starter.vocabulary import SUBJECTS  # noqa: E402

METHODS = ("best-of-N", "FKC", "FK steering", "PAPA", "FKC + PAPA")
BUDGETS = (16, 32, 64)
PAPA = PapaConfig(distillation=0.009)  # as it was when the figures were made


class Prompt:
    """The starter model on one prompt, with guidance, as a denoiser that can be tilted."""

    def __init__(self, model: Starter, text: str, options: argparse.Namespace) -> None:
        self.model, self.options, self.calls = model, options, 0
        steps = torch.linspace(len(model.alphas_cumprod) - 1, 0, options.steps).round().long()
        self.timesteps = steps
        self.sigmas = torch.cat([sigmas_of(model.alphas_cumprod)[steps], torch.zeros(1)])
        self.context = model.encode([text] if options.guidance == 1 else [text, ""])

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """x̂0 (n, …) of x = x0 + σ·ε at one of the schedule's σ (n,)."""
        self.calls += len(x)
        t = self.timesteps[(self.sigmas[:-1] - sigma[0]).abs().argmin()]
        copies = len(self.context)
        scaled = (x / (1 + sigma[0] ** 2).sqrt()).repeat(copies, 1, 1, 1)
        context = self.context.repeat_interleave(len(x), dim=0)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.options.bf16):
            noise = self.model.predict_noise(scaled, t.expand(len(scaled)), context).float()
        if copies == 2:
            with_words, without = noise.chunk(2)
            noise = without + self.options.guidance * (with_words - without)
        return x - sigma[0] * noise

    def sample(self, method: str, reward: RewardModel | None, count: int, generator):
        """``count`` particles by FKC or FK steering; without a reward, of the base sampler."""
        shape = (count, *self.model.shape)
        x = torch.randn(shape, generator=generator) * (1 + self.sigmas[0] ** 2).sqrt()
        if method == "FK steering" and reward is not None:
            return sample_fk_steering(
                self.denoise, x, self.sigmas, reward=reward, generator=generator,
                beta_max=self.options.steering_beta, potential=self.options.potential,
            )  # fmt: skip
        return sample_fkc(
            self.denoise, x, self.sigmas, reward=reward, generator=generator,
            beta_max=self.options.beta, jacobian=self.options.jacobian, data_std=0.6,
            beta_schedule=self.options.schedule, ess_threshold=self.options.ess_threshold,
        )  # fmt: skip


class Learner:
    """PAPA's adapter, updated after every query; attached while it is used."""

    def __init__(self, prompt: Prompt, k: int, seed: int) -> None:
        self.prompt, self.k = prompt, k
        self.adapter = LiveAdapter(prompt.model.unet, rank=8, alpha=8, seed=seed)
        self.generator = torch.Generator().manual_seed(9000 + seed)
        self.state: dict[str, torch.Tensor] = {}

    def __call__(self, answers: list) -> None:
        labels = [graded_labels(answer, len(x)) for x, answer in answers]
        groups = torch.arange(len(answers)).repeat_interleave(torch.tensor(list(map(len, labels))))
        latents = torch.cat([x for x, _ in answers])
        samples = RatedSamples(latents, torch.cat(labels), len(answers[-1][0]), groups)
        context = self.prompt.context[:1]

        def predict(x_t, t, index):
            words = context.expand(len(x_t), -1, -1)
            with torch.autocast("cpu", torch.bfloat16, enabled=self.prompt.options.bf16):
                return self.prompt.model.predict_noise(x_t, t, words).float()

        _, self.state = papa_update(
            self.adapter, predict, samples, self.prompt.model.alphas_cumprod, PAPA,
            generator=self.generator, optimizer_state=self.state,
        )  # fmt: skip


def run(model: Starter, method: str, taste: str, seed: int, base: dict, options) -> list[dict]:
    """One method on one taste and seed: a row for each budget."""
    torch.manual_seed(0)  # nothing reads it; a slip would then at least repeat
    prompt = Prompt(model, base["text"], options)
    rater, k, count = Rater(taste), options.k, options.particles
    final = torch.Generator().manual_seed(555_000 + seed)
    reward, answers, rows, began = RewardModel(model.shape), [], [], time.time()
    learner = Learner(prompt, k, seed) if "PAPA" in method else None
    budget = LabelBudget(BUDGETS[-1], k, options.selection, seed=seed)

    def ask(latents):
        return rater.answer(model.decode(latents))

    def show(latents: torch.Tensor, spent: int) -> None:
        images = model.decode(latents)
        features = image_features(images)
        score = (rater.score(images) - base["mean"]) / base["std"]
        rows.append(
            {"method": method, "taste": taste, "seed": seed, "labels": spent,
             "reward": float(score.mean()), "diversity": diversity(features) / base["diversity"],
             "calls": prompt.calls, "accuracy": reward.accuracy, "seconds": time.time() - began}
        )  # fmt: skip

    def best(latents: torch.Tensor) -> torch.Tensor:
        worth = reward(latents) if reward.ready else torch.zeros(len(latents))
        return latents[worth.argsort(descending=True, stable=True)[: options.final]]

    def sampler(guide, generator):
        wanted = k if guide is None and method == "PAPA" else count
        return prompt.sample(method, guide, wanted, generator)

    def checkpoint(spent: int) -> None:
        if method == "best-of-N":
            reward.fit(answers, generator=budget.generator(1000 + spent))
            loop = spent // k * count
            show(best(base["latents"][: loop + options.finalists]), spent)
            rows[-1]["calls"] = (loop + options.finalists) * options.steps
        elif method == "PAPA":
            show(prompt.sample(method, None, options.final, final).x, spent)
        else:
            reward.fit(answers, generator=budget.generator(1000 + spent))
            particles = prompt.sample(method, reward, options.finalists, final)
            show(best(particles.x), spent)
            rows[-1]["ess"] = float(particles.ess.min()) / options.finalists

    def learnt(answers) -> None:
        if learner is not None:
            learner(answers)
        spent = budget.state(answers).spent
        if spent in BUDGETS:
            before = prompt.calls
            checkpoint(spent)
            if method != "best-of-N":
                rows[-1]["calls"] = prompt.calls
            prompt.calls = before

    if learner is not None:
        learner.adapter.attach()
    try:
        if method == "best-of-N":
            for start in range(0, BUDGETS[-1], k):
                latents = base["latents"][start : start + k]
                answers.append((latents, ask(latents)))
                learnt(answers)
        elif method == "PAPA":
            while (state := budget.state(answers)).left:
                x = prompt.sample(method, None, k, budget.generator(state.asked)).x
                answers.append((x, ask(x)))
                learnt(answers)
        else:
            spend_budget(budget, answers, sample=sampler, ask=ask, reward=reward, learnt=learnt)
    finally:
        if learner is not None:
            learner.adapter.detach()
    return rows


def base_of(model: Starter, taste: str, seed: int, options) -> dict:
    """The pool of base images: best-of-N's, and the yardstick of reward and diversity."""
    text = "a " + SUBJECTS[np.random.default_rng([seed, 3]).integers(len(SUBJECTS))]
    prompt = Prompt(model, text, options)
    size = BUDGETS[-1] // options.k * options.particles + options.finalists
    generator = torch.Generator().manual_seed(333_000 + seed)
    latents = prompt.sample("base", None, size, generator).x
    images = model.decode(latents)
    score = Rater(taste).score(images)
    return {"text": text, "latents": latents, "mean": score.mean(), "std": score.std(),
            "diversity": diversity(image_features(images))}  # fmt: skip


def table(rows: list[dict]) -> str:
    """Reward and diversity by method and budget, mean ± standard deviation over runs."""
    lines = ["| method | " + " | ".join(f"{b} labels" for b in BUDGETS) + " | runs |"]
    lines.append("|---" * (len(BUDGETS) + 2) + "|")
    for method in dict.fromkeys(row["method"] for row in rows):
        cells = []
        for labels in BUDGETS:
            some = [r for r in rows if (r["method"], r["labels"]) == (method, labels)]
            values = {key: np.array([r[key] for r in some]) for key in ("reward", "diversity")}
            cells.append(", ".join(f"{v.mean():.2f} ± {v.std():.2f}" for v in values.values()))
        lines.append(f"| {method} | " + " | ".join(cells) + f" | {len(some)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument(
        "--tastes", nargs="+", default=["warm colours", "dark"], choices=list(TASTES)
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 4, 5])
    parser.add_argument("--k", type=int, default=8, help="images a query")
    parser.add_argument("--particles", type=int, default=12, help="a query")
    parser.add_argument("--finalists", type=int, default=16, help="particles of the last run")
    parser.add_argument("--final", type=int, default=8, help="images shown in the end")
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--beta", type=float, default=10.0)
    parser.add_argument("--schedule", default="early")
    parser.add_argument("--ess-threshold", type=float, default=0.1)
    parser.add_argument("--steering-beta", type=float, default=10.0)
    parser.add_argument("--potential", default="difference")
    parser.add_argument("--selection", default="mean")
    parser.add_argument("--no-jacobian", dest="jacobian", action="store_false")
    parser.add_argument("--float32", dest="bf16", action="store_false")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results")
    options = parser.parse_args()
    torch.set_flush_denormal(True)
    unlike = ("out", "methods", "seeds", "tastes")
    settings = {k: v for k, v in vars(options).items() if k not in unlike}
    options.out.mkdir(parents=True, exist_ok=True)
    model, rows = Starter.load(), []
    for taste in options.tastes:
        path = options.out / f"fkc_budget_{taste.replace(' ', '_')}.json"
        rows += runs_of(model, taste, path, settings, options)
    print(table(rows))


def runs_of(model: Starter, taste: str, path: Path, settings: dict, options) -> list[dict]:
    """All runs of one taste; those on file with the same settings are not repeated."""
    rows: list[dict] = []
    if path.exists():
        found = json.loads(path.read_text())
        rows = found["runs"] if found["settings"] == settings else []
    for seed in options.seeds:
        done = {row["method"] for row in rows if row["seed"] == seed}
        wanted = [method for method in options.methods if method not in done]
        base = base_of(model, taste, seed, options) if wanted else {}
        for method in wanted:
            new = run(model, method, taste, seed, base, options)
            rows += new
            path.write_text(json.dumps({"settings": settings, "runs": rows}, indent=1) + "\n")
            for row in new:
                print(
                    f"{row['method']:12} {taste:13} seed {seed} labels {row['labels']:3} "
                    f"reward {row['reward']:5.2f} diversity {row['diversity']:.2f} "
                    f"calls {row['calls']:6} {row['seconds']:5.0f} s",
                    flush=True,
                )
    return rows


if __name__ == "__main__":
    main()
