"""One interaction of PAPA: the authors' procedure against ours, at equal gradient quality.

    python benchmarks/papa_speed.py                     # the starter model
    python benchmarks/papa_speed.py --family noise      # what the one ε an image is worth
    python benchmarks/papa_speed.py --family sd15       # one update at SD1.5's full size
    python benchmarks/papa_speed.py --family sdxl       # … at SDXL's

Authors: batch 1, float32, every t of 1000 one by one, one ε an image, 10 images. Ours: M timesteps
drawn stratified, in large batches. Both sum the same objective (a = 0.1/8, b = 0.009, no bound)
over the same LoRA, so that their gradients can be compared: the cosine is that of our gradient and
theirs with the same ε. Seconds are CPU seconds of one thread, so that other work on the machine
does not count. The authors' time is measured on a subset of the timesteps and scaled up.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from launch.package import import_palate  # noqa: E402

import_palate()
from palate.core.adapter import LiveAdapter  # noqa: E402
from palate.core.papa import (  # noqa: E402
    LossHistory,
    PapaConfig,
    RatedSamples,
    Rows,
    papa_parts,
    papa_update,
)
from palate.core.papa.precision import computing_in, precision_of  # noqa: E402
from palate.core.schedule import elbo_weights, sample_timesteps  # noqa: E402

AUTHORS = PapaConfig.authors()
IMAGES = 10
COUNTS = (8, 16, 32, 64, 128, 256)
Predict = Callable[[Tensor, Tensor, Tensor], Tensor]


def peak_memory() -> float:
    """MiB, of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Interaction:
    """Ten rated images, a LoRA that has learnt something, and gradients of PAPA's objective."""

    def __init__(self, adapter: LiveAdapter, predict: Predict, x0: Tensor, alphas: Tensor) -> None:
        self.adapter, self.predict, self.x0, self.alphas = adapter, predict, x0, alphas
        self.labels = torch.tensor([1.0, -1.0] * (len(x0) // 2))
        self.weights = elbo_weights(alphas.double())
        generator = torch.Generator().manual_seed(11)
        self.noise = torch.randn(x0.shape, generator=generator)

    def gradient(
        self,
        images: Tensor,
        timesteps: Tensor,
        noise: Tensor,
        importance: Tensor | None = None,
        last: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> tuple[Tensor, Tensor]:
        """(d loss/d LoRA as one vector, errors (n·M,)) of the images (n,), timesteps (n, M)."""
        config = AUTHORS if last else replace(AUTHORS, distillation=0.0)

        def predict(x: Tensor, t: Tensor, sample: Tensor) -> Tensor:
            with computing_in(dtype, x.device):
                return self.predict(x, t, images[sample]).to(x)

        def base(x: Tensor, t: Tensor, sample: Tensor) -> Tensor:
            with self.adapter.scaled(0.0):
                return predict(x, t, sample)

        x0, labels = self.x0[images], self.labels[images]
        rows = Rows.of(labels, timesteps, noise, config, importance)
        parts, errors = papa_parts(predict, base, x0, labels, rows, self.alphas, config)
        gradients = torch.autograd.grad(parts.sum() / len(self.x0), self.adapter.parameters())
        return torch.cat([g.flatten() for g in gradients]), errors

    def one_by_one(self, count: int) -> tuple[float, float]:
        """CPU seconds of the authors' procedure, of them measured; ``count`` timesteps tried."""
        every = torch.linspace(1, len(self.alphas) - 1, count).round().long()
        began = time.process_time()
        for t in every:
            row = torch.tensor([int(t) % len(self.x0)])
            self.gradient(row, t.view(1, 1), self.noise[row][:, None])
        measured = time.process_time() - began
        return measured / count * (len(self.alphas) - 1) * len(self.x0), measured

    def per_timestep(self, progress: bool = True) -> tuple[Tensor, Tensor]:
        """The gradient's summand at each t, (T−1, P), with the authors' ε; mean errors (T−1,)."""
        rows, found, errors = torch.arange(len(self.x0)), [], []
        for t in range(1, len(self.alphas)):
            column = torch.full((len(rows), 1), t)
            last = t == len(self.alphas) - 1
            vector, error = self.gradient(rows, column, self.noise[:, None], last=last)
            found.append(vector)
            errors.append(error.mean())
            if progress and t % 100 == 0:
                print(f"  reference: t = {t}", file=sys.stderr, flush=True)
        return torch.stack(found), torch.stack(errors)

    def ours(self, count: int, rows: int, dtype: torch.dtype) -> tuple[float, Tensor]:
        """(CPU seconds, gradient) of one interaction with ``count`` timesteps an image."""
        timesteps, importance = sample_timesteps(
            self.weights, count, 1, torch.Generator().manual_seed(5)
        )
        timesteps, importance = timesteps.expand(IMAGES, -1), importance.expand(IMAGES, -1)
        began, total = time.process_time(), torch.zeros(())
        at_once = max(1, rows // IMAGES)
        everyone = torch.arange(IMAGES)
        for columns in torch.arange(count).split(at_once):
            noise = self.noise[:, None].expand(-1, len(columns), *self.x0.shape[1:])
            vector, _ = self.gradient(
                everyone, timesteps[:, columns], noise, importance[:, columns],
                last=int(columns[-1]) == count - 1, dtype=dtype,
            )  # fmt: skip
            total = total + vector
        return time.process_time() - began, total


def curve(pieces: Tensor, errors: Tensor, weights: Tensor, seeds: int) -> list[dict[str, Any]]:
    """Cosine of the estimate with the full sum, over M and the ways to draw the timesteps."""
    whole = pieces.sum(0)
    history = LossHistory()
    history.observe(torch.arange(1, len(weights)), errors, len(weights))
    ways = {"elbo": None, "loss": history.proposal(weights), "uniform": torch.ones(len(weights))}
    table = []
    for name, proposal in ways.items():
        for count in COUNTS:
            generator = torch.Generator().manual_seed(count)
            found = []
            for _ in range(seeds):
                t, importance = sample_timesteps(weights, count, 1, generator, 0, proposal)
                estimate = importance[0].to(pieces) @ pieces[t[0] - 1]
                found.append(torch.cosine_similarity(estimate, whole, dim=0))
            cosines = torch.stack(found)
            table.append({
                "draw": name, "timesteps": count, "cosine": float(cosines.mean()),
                "cosine_worst": float(cosines.min()),
            })  # fmt: skip
    return table


def starter_interaction() -> Interaction:
    """On the starter model; its adapter stays attached."""
    from palate.starter.generate import Starter

    model = Starter.load()
    prompts = ["a crimson cat", "a dark dog at night"] * (IMAGES // 2)
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(IMAGES, *model.shape, generator=generator)
    x0, context = model.sample(prompts, noise, 10), model.encode(prompts)
    adapter = LiveAdapter(model.unet, rank=4, alpha=4)

    def predict(x_t: Tensor, t: Tensor, index: Tensor) -> Tensor:
        return model.predict_noise(x_t, t, context[index])

    samples = RatedSamples(x0, torch.tensor([1.0, -1.0] * (IMAGES // 2)), IMAGES)
    adapter.attach()
    first = PapaConfig(steps=4, precision="float32")
    papa_update(
        adapter, predict, samples, model.alphas_cumprod, first,
        generator=generator, measure_drift=False,
    )  # fmt: skip
    return Interaction(adapter, predict, x0, model.alphas_cumprod)


def noise(options: argparse.Namespace) -> dict[str, Any]:
    """How far two gradients of one interaction agree when each has noise of its own: mean cosine
    over the pairs of four draws, one ε an image (the authors') and one ε a timestep."""
    at, found = starter_interaction(), {}
    dtype = precision_of(at.adapter, PapaConfig())
    for name in ("one ε an image", "one ε a timestep"):
        vectors = []
        for seed in range(4):
            generator = torch.Generator().manual_seed(100 + seed)
            own = name == "one ε a timestep"
            width = options.noise_timesteps if own else 1
            at.noise = torch.randn((IMAGES, width, *at.x0.shape[1:]), generator=generator)
            t, importance = sample_timesteps(at.weights, options.noise_timesteps, 1, generator)
            vector, _ = at.gradient(
                torch.arange(IMAGES), t.expand(IMAGES, -1),
                at.noise.expand(-1, options.noise_timesteps, *at.x0.shape[1:]),
                importance.expand(IMAGES, -1), last=True, dtype=dtype,
            )  # fmt: skip
            vectors.append(vector / vector.norm())
        products = torch.stack(vectors) @ torch.stack(vectors).T
        found[name] = float((products.sum() - products.trace()) / 12)
        print(f"{name}: mean cosine of two draws {found[name]:.3f}", flush=True)
    return {"timesteps": options.noise_timesteps, "mean_cosine": found}


def starter(options: argparse.Namespace) -> dict[str, Any]:
    at = starter_interaction()
    idle = peak_memory()
    authors, measured = at.one_by_one(options.authors_timesteps)
    memory = {"idle": idle, "authors": peak_memory()}
    print(f"authors: {authors:.1f} s (measured {measured:.1f} s)", flush=True)
    half = precision_of(at.adapter, PapaConfig())
    timed = []
    for count in options.timed:
        for dtype in dict.fromkeys((torch.float32, half)):
            seconds, vector = at.ours(count, options.rows, dtype)
            timed.append((count, dtype, seconds, vector))
            print(f"ours, M = {count}, {dtype}: {seconds:.2f} s", flush=True)
    memory["ours"] = peak_memory()
    pieces, errors = at.per_timestep()
    whole = pieces.sum(0)
    rows = [
        {
            "timesteps": count, "precision": str(dtype).removeprefix("torch."), "seconds": seconds,
            "times_faster": authors / seconds,
            "cosine": float(torch.cosine_similarity(vector, whole, dim=0)),
        }
        for count, dtype, seconds, vector in timed
    ]  # fmt: skip
    print(f"\n{'M':>5} {'precision':>9} {'seconds':>8} {'faster':>8} {'cosine':>7}")
    for row in rows:
        print(
            f"{row['timesteps']:5} {row['precision']:>9} {row['seconds']:8.2f} "
            f"{row['times_faster']:7.0f}× {row['cosine']:7.3f}"
        )
    found = curve(pieces, errors, at.weights, options.seeds)
    print(f"\n{'draw':>8} {'M':>5} {'cosine':>7} {'worst':>7}")
    for row in found:
        print(
            f"{row['draw']:>8} {row['timesteps']:5} {row['cosine']:7.3f} {row['cosine_worst']:7.3f}"
        )
    return {
        "authors_seconds": authors, "authors_seconds_measured": measured,
        "authors_timesteps_measured": options.authors_timesteps, "ours": rows, "curve": found,
        "peak_rss_mib": memory, "parameters": int(whole.numel()),
    }  # fmt: skip


FULL_SIZE: dict[str, dict[str, Any]] = {  # of diffusers' UNet2DConditionModel
    "sd15": {"cross_attention_dim": 768},
    "sdxl": {
        "cross_attention_dim": 2048,
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", *("CrossAttnDownBlock2D",) * 2),
        "up_block_types": (*("CrossAttnUpBlock2D",) * 2, "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}


def full_size(options: argparse.Namespace) -> dict[str, Any]:
    """One update on a U-Net of full size with random weights, blocks checkpointed, row by row.

    SD1.5's weights are float32, SDXL's bfloat16, as they are loaded; latents of 512×512 pixels.
    """
    from diffusers import DDIMScheduler, UNet2DConditionModel

    settings, dtype = FULL_SIZE[options.family], torch.float32
    if options.family == "sdxl":
        dtype = torch.bfloat16
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.set_default_dtype(dtype)
        unet = UNet2DConditionModel(sample_size=64, **settings).eval()
        torch.set_default_dtype(torch.float32)
    unet.requires_grad_(False)
    alphas = DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012
    ).alphas_cumprod
    generator = torch.Generator().manual_seed(0)
    width = settings["cross_attention_dim"]
    context = torch.randn(options.images, 77, width, generator=generator).to(dtype)
    pooled = torch.randn(options.images, 1280, generator=generator).to(dtype)
    sizes = torch.tensor([[512.0, 512, 0, 0, 512, 512]], dtype=dtype)
    labels = torch.tensor([1.0, -1.0] * options.images)[: options.images]
    samples = RatedSamples(
        torch.randn(options.images, 4, 64, 64, generator=generator), labels, options.images
    )
    adapter = LiveAdapter(unet, rank=8, alpha=8)

    def predict(x_t: Tensor, t: Tensor, index: Tensor) -> Tensor:
        if peak_memory() > options.limit_mib:
            raise MemoryError(f"more than {options.limit_mib} MiB: stopped")
        added = {"text_embeds": pooled[index], "time_ids": sizes.expand(len(index), -1)}
        return unet(x_t.to(dtype), t, context[index], added_cond_kwargs=added).sample.float()

    config = PapaConfig(
        steps=1, timesteps=1, rows=1, checkpointing="on", precision=options.precision
    )
    began, wall = time.process_time(), time.time()
    with adapter.attached():
        report, _ = papa_update(
            adapter, predict, samples, alphas, config, generator=generator, measure_drift=False
        )
    found = {
        "weights": sum(p.numel() for p in unet.parameters()),
        "lora_parameters": sum(p.numel() for p in adapter.parameters()),
        "images": options.images, "latent": [4, 64, 64], "timesteps": 1, "steps": 1,
        "cpu_seconds": time.process_time() - began, "wall_seconds": time.time() - wall,
        "peak_rss_mib": peak_memory(), "report": report.summary(),
    }  # fmt: skip
    assert report.rolled_back is None
    assert math.isfinite(report.loss[0])
    print(json.dumps(found, indent=1))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", choices=["starter", "noise", *FULL_SIZE], default="starter")
    parser.add_argument("--authors-timesteps", type=int, default=100)
    parser.add_argument("--timed", type=int, nargs="+", default=[16, 64, 128])
    parser.add_argument("--noise-timesteps", type=int, default=32, help="noise only")
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--images", type=int, default=2, help="rated images, full size only")
    parser.add_argument("--precision", default="auto", help="full size only")
    parser.add_argument("--limit-mib", type=int, default=14 * 1024, help="full size only")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    out = options.out or ROOT / f"benchmarks/results/papa_speed_{options.family}.json"
    result = {"starter": starter, "noise": noise}.get(options.family, full_size)(options)
    command = "python benchmarks/papa_speed.py " + " ".join(sys.argv[1:])
    out.write_text(
        json.dumps({"command": command.strip(), "torch": torch.__version__, **result}, indent=1)
        + "\n"
    )


if __name__ == "__main__":
    main()
