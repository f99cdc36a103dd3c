"""What steering costs: FKC Sampler beside the stock ancestral sampler, on a real ComfyUI.

    python benchmarks/fkc_overhead.py

SamplerCustom draws the same batch with the stock euler_ancestral, with FKC Sampler without the
model's Jacobian, and with it, in turn, on the starter model with a taste of 24 ratings. Prints
seconds a particle-step (the median over repeats) and the ratio to stock in the same repeat.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from served import ROOT, served

from launch.client import Client

ARMS = ("stock", "no Jacobian", "Jacobian")
TEXT = "a fish"


def base(batch: int) -> dict[str, Any]:
    """The starter model, a taste, a prompt and empty latents."""
    return {
        "model": _node("PalateStarterModel"),
        "taste": _node(
            "PalateTasteProfile", model=["model", 0], name="overhead", rank=8, strength=1.0,
            boundary=0.0,
        ),
        "positive": _node("CLIPTextEncode", clip=["model", 1], text=TEXT),
        "negative": _node("CLIPTextEncode", clip=["model", 1], text=""),
        "latent": _node("EmptyLatentImage", width=64, height=64, batch_size=batch),
    }  # fmt: skip


def _node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def rate(client: Client, seed: int) -> None:
    """Eight images, the better half of them liked by a program that likes the dark."""
    graph = base(8)
    graph["sampler"] = _node(
        "KSampler", model=["taste", 0], seed=seed, steps=8, cfg=3.0, sampler_name="euler",
        scheduler="normal", positive=["positive", 0], negative=["negative", 0],
        latent_image=["latent", 0], denoise=1.0,
    )  # fmt: skip
    graph["pixels"] = _node("VAEDecode", samples=["sampler", 0], vae=["model", 2])
    graph["rater"] = _node("PalateSimulatedRater", taste="dark")
    graph["query"] = _node(
        "PalatePreferenceQuery", taste=["taste", 1], images=["pixels", 0],
        latents=["sampler", 0], conditioning=["positive", 0], rater=["rater", 0],
        mode="ask now", timeout=0, on_timeout="stop this branch",
    )  # fmt: skip
    client.wait(client.queue(graph))


def seconds(client: Client, arm: str, repeat: int, options: argparse.Namespace) -> float:
    """Wall time of one batch, as ComfyUI itself logs its beginning and end."""
    graph = base(options.particles)
    graph["steer"] = (
        _node("KSamplerSelect", sampler_name="euler_ancestral")
        if arm == "stock"
        else _node(
            "PalateFKCSampler", taste=["taste", 1], strength=3.0, weights="twisted",
            exact_gradient=arm == "Jacobian", resample_below=0.3,
        )
    )  # fmt: skip
    graph["sigmas"] = _node(
        "BasicScheduler", model=["taste", 0], scheduler="normal", steps=options.steps, denoise=1.0
    )
    graph["drawn"] = _node(
        "SamplerCustom", model=["taste", 0], add_noise=True, noise_seed=100 + repeat, cfg=3.0,
        positive=["positive", 0], negative=["negative", 0], sampler=["steer", 0],
        sigmas=["sigmas", 0], latent_image=["latent", 0],
    )  # fmt: skip
    graph["kept"] = _node("SaveLatent", samples=["drawn", 0], filename_prefix="overhead")
    messages = dict(client.wait(client.queue(graph))["status"]["messages"])
    took = messages["execution_success"]["timestamp"] - messages["execution_start"]["timestamp"]
    return float(took) / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", help="a running ComfyUI with Palate; default: one of our own")
    parser.add_argument("--particles", type=int, default=16)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/fkc_overhead.json")
    options = parser.parse_args()
    times: dict[str, list[float]] = {arm: [] for arm in ARMS}
    with served(options.server) as client:
        for seed in range(3):
            rate(client, seed)
        for repeat in range(-1, options.repeats):  # the first is for warming up
            for arm in ARMS:
                took = seconds(client, arm, repeat, options)
                if repeat >= 0:
                    times[arm].append(took)
    each = options.particles * options.steps
    rows = {
        arm: {
            "ms a particle-step": round(1000 * statistics.median(times[arm]) / each, 3),
            "times stock": round(_ratio(times[arm], times["stock"]), 3),
            "seconds": times[arm],
        }
        for arm in ARMS
    }
    for arm, row in rows.items():
        print(f"{arm:12} {row['ms a particle-step']:8.2f} ms {row['times stock']:6.2f} x stock")
    result = {"particles": options.particles, "steps": options.steps, "arms": rows}
    options.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


def _ratio(mine: list[float], stock: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(mine, stock, strict=True))


if __name__ == "__main__":
    main()
