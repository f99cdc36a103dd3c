"""ED Query Designer against random questions, through a real ComfyUI with the starter model.

    python benchmarks/ed_starter.py                       # starts the pinned or COMFYUI_PATH's one
    python benchmarks/ed_starter.py --seeds 0 1 --taste "warm colours" --rounds 12

A rater that sees pixels only picks one of four images, a dozen times. Then Best Prompts names the
person's eight best prompts of the starter model's 31,752, and fresh images of them are scored by
the rater, in standard deviations of images of random prompts above their mean. Both arms answer
with the same number of picks and the same sampler seeds; only the prompts asked about differ.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import sys
import time
import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from served import served  # noqa: E402

from launch.client import Client  # noqa: E402
from launch.package import import_palate  # noqa: E402

import_palate()
from palate.core.rater import TASTES, Rater  # noqa: E402

ARMS = ("adaptive", "random")
BEST, SHOTS, FRESH = 8, 2, 1_000_000
Graph = dict[str, dict[str, Any]]


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


class Person:
    """One taste being explored: questions of one mode, answered by a rater."""

    def __init__(
        self, client: Client, taste: str, mode: str, seed: int, steps: int, criterion: str
    ) -> None:
        self.client, self.rater, self.mode, self.seed = client, Rater(taste), mode, seed
        self.steps, self.criterion = steps, criterion
        self.name = f"ed {taste} {mode} {seed}"

    def _start(self) -> Graph:
        return {
            "starter": node("PalateStarterModel"),
            "taste": node(
                "PalateTasteProfile", model=["starter", 0], name=self.name, rank=1, strength=1.0,
                boundary=0.0,
            ),
            "nothing": node("CLIPTextEncode", clip=["starter", 1], text=""),
        }  # fmt: skip

    def _ask(self, graph: Graph, mode: str, arms: int, criterion: str) -> None:
        graph["ask"] = node(
            "PalateEDQueryDesigner", taste=["taste", 1], clip=["starter", 1], vocabulary="starter",
            slots="", mode=mode, arms=arms, criterion=criterion, seed=self.seed, prefix="",
            suffix="",
        )  # fmt: skip

    def _draw(self, graph: Graph, prompts: list[Any], seed: int, shots: int) -> None:
        """The nodes "text", "latent" and "pixels": ``shots`` images of each prompt."""
        graph["text"] = node("CLIPTextEncode", clip=["starter", 1], text=prompts)
        graph["empty"] = node("EmptyLatentImage", width=64, height=64, batch_size=shots)
        graph["latent"] = node(
            "KSampler", model=["starter", 0], seed=seed, steps=self.steps, cfg=3.0,
            sampler_name="euler", scheduler="normal", positive=["text", 0],
            negative=["nothing", 0], latent_image=["empty", 0], denoise=1.0,
        )  # fmt: skip
        graph["pixels"] = node("VAEDecode", samples=["latent", 0], vae=["starter", 2])

    def round(self, number: int) -> None:
        """One question, drawn with noise of its own, and the rater's pick."""
        graph = self._start()
        self._ask(graph, self.mode, 4, self.criterion)
        self._draw(graph, ["ask", 0], self.seed * 1000 + number, 1)
        graph["query"] = node(
            "PalatePreferenceQuery", taste=["taste", 1], images=["pixels", 0],
            latents=["latent", 0], conditioning=["text", 0], plan=["ask", 1], mode="rate later",
            timeout=0, on_timeout="skip",
        )  # fmt: skip
        outputs = self.client.wait(self.client.queue(graph))["outputs"]
        query = self.client.get(f"/palate/queries/{outputs['query']['palate'][0]}")
        shown = [candidate["index"] for candidate in query["candidates"]]
        images = torch.stack([self._image(c["image_url"]) for c in query["candidates"]])
        winner = shown[int(self.rater.answer(images, ("pick",))["winner"])]
        self.client.post(
            f"/palate/queries/{query['id']}/answer", {"kind": "pick", "winner": winner}
        )

    def best(self) -> tuple[list[str], torch.Tensor]:
        """The eight best prompts by the answers, and the scores of fresh images of them."""
        graph = self._start()
        graph["ask"] = node("PalateBestPrompts", taste=["taste", 1], count=BEST)
        return self._scored(graph)

    def base(self) -> tuple[list[str], torch.Tensor]:
        """The same of eight random prompts."""
        graph = self._start()
        self._ask(graph, "random", BEST, "automatic")
        return self._scored(graph)

    def _scored(self, graph: Graph) -> tuple[list[str], torch.Tensor]:
        self._draw(graph, ["ask", 0], FRESH + self.seed, SHOTS)
        graph["words"] = node("PreviewAny", source=["ask", 0])
        graph["shown"] = node("PreviewImage", images=["pixels", 0])
        outputs = self.client.wait(self.client.queue(graph), timeout=900)["outputs"]
        pictures = outputs["shown"]["images"]
        images = [self._image("/view?" + urllib.parse.urlencode(p)) for p in pictures]
        return outputs["words"]["text"], self.rater.score(torch.stack(images))

    def _image(self, path: str) -> torch.Tensor:
        picture = Image.open(io.BytesIO(self.client.fetch(path))).convert("RGB")
        return torch.from_numpy(np.asarray(picture, np.float32) / 255)


def explore(client: Client, taste: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Both arms of one seed: mean score of the top eight, and of eight random prompts."""
    found: dict[str, Any] = {"taste": taste, "seed": seed}
    for mode in ARMS:
        began = time.monotonic()
        criterion = options.criterion if mode == "adaptive" else "automatic"
        person = Person(client, taste, mode, seed, options.steps, criterion)
        for number in range(options.rounds):
            person.round(number)
        prompts, scores = person.best()
        found[mode] = float(scores.mean())
        found[f"{mode} best"] = prompts[0]
        found[f"{mode} seconds"] = round(time.monotonic() - began, 1)
    _, scores = Person(client, taste, "base", seed, options.steps, "automatic").base()
    found["base"] = scores.tolist()
    return found


def summarise(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """By taste: each arm's mean in base standard deviations above the base, ± its standard error
    over seeds, and the paired difference with its 95 % interval."""
    rows = []
    for taste in dict.fromkeys(run["taste"] for run in runs):
        mine = [run for run in runs if run["taste"] == taste]
        base = [score for run in mine for score in run["base"]]
        mean, std = statistics.mean(base), statistics.stdev(base)
        row: dict[str, Any] = {"taste": taste, "seeds": len(mine)}
        lifted = {arm: [(run[arm] - mean) / std for run in mine] for arm in ARMS}
        for arm in ARMS:
            row[arm] = round(statistics.mean(lifted[arm]), 3)
            row[f"{arm} se"] = round(_error(lifted[arm]), 3)
        gaps = [a - b for a, b in zip(lifted[ARMS[0]], lifted[ARMS[1]], strict=True)]
        middle, half = statistics.mean(gaps), 1.96 * _error(gaps)
        row["difference"] = [round(middle, 3), round(middle - half, 3), round(middle + half, 3)]
        row["won"] = sum(gap > 0 for gap in gaps)
        rows.append(row)
    return rows


def _error(values: Sequence[float]) -> float:
    return statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", help="a running ComfyUI with Palate; default: one of our own")
    parser.add_argument("--taste", nargs="+", default=["warm colours", "dark"], choices=TASTES)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(10)))
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--steps", type=int, default=8, help="sampling steps an image")
    parser.add_argument("--criterion", default="automatic", help="the designer's")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/ed_starter.json")
    options = parser.parse_args()
    runs: list[dict[str, Any]] = []
    print("top-8 prompts, in standard deviations above random prompts")
    with served(options.server) as client:
        for taste in options.taste:
            for seed in options.seeds:
                runs.append(explore(client, taste, seed, options))
                report(runs, options)
                print(f"  {taste}, seed {seed}: " + _line(runs[-1]), flush=True)
    for row in summarise(runs):
        print(
            f"{row['taste']:13} {row['seeds']:3} seeds  designer {row['adaptive']:+.2f} ± "
            f"{row['adaptive se']:.2f}  random {row['random']:+.2f} ± {row['random se']:.2f}  "
            "difference {:+.2f} [{:+.2f}, {:+.2f}]".format(*row["difference"])
            + f"  ahead in {row['won']}"
        )


def _line(run: dict[str, Any]) -> str:
    base = statistics.mean(run["base"])
    return ", ".join(f"{arm} {run[arm] - base:+.3f} ({run[f'{arm} best']})" for arm in ARMS)


def report(runs: Sequence[dict[str, Any]], options: argparse.Namespace) -> None:
    """Written after every seed: what is there so far is kept when the run is stopped."""
    command = "python benchmarks/ed_starter.py " + " ".join(sys.argv[1:])
    result = {
        "command": command.strip(), "criterion": options.criterion,
        "rounds": options.rounds, "steps": options.steps,
        "best": BEST, "images a prompt": SHOTS, "summary": summarise(runs), "runs": list(runs),
    }  # fmt: skip
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
