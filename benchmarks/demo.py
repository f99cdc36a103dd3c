"""The whole loop on a real ComfyUI: a simulated rater teaches the starter model, over HTTP alone.

    python studio.py demo --rounds 15 --images 4
    python studio.py demo --taste dark --seeds 0 1 2

Queues the bundled workflow round after round, answers over the routes that the panel uses, and then
compares personalised with base images: same prompts, fresh seeds, a rater that sees pixels only.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import time
import urllib.parse
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageDraw

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from launch.client import Client  # noqa: E402
from launch.package import import_palate  # noqa: E402
from launch.workflow import api_format  # noqa: E402

import_palate()
from palate.core.features import diversity, image_features  # noqa: E402
from palate.core.rater import TASTES, Rater  # noqa: E402
from palate.starter.vocabulary import random_prompt  # noqa: E402

WORKFLOW = ROOT / "example_workflows" / "first_taste.json"
EMPTY_SLOTS = 0.35  # chance that a slot of a prompt is left open
EVALUATION_SEED = 1_000_000
BATCH = 4


class Loop:
    """One taste being taught through a running ComfyUI."""

    def __init__(self, client: Client, taste: str, seed: int, images: int) -> None:
        self.client, self.rater, self.seed = client, Rater(taste), seed
        self.profile = f"demo {taste} {seed}"
        self.prompts = np.random.default_rng([seed, 1])
        self.graph = api_format(json.loads(WORKFLOW.read_text("utf-8")), client.object_info())
        self._node("PalateTasteProfile")["name"] = self.profile
        self._node("EmptyLatentImage")["batch_size"] = images
        self._node("PalatePreferenceQuery")["mode"] = "ask now"
        self._node("PalatePAPAUpdate")["previews"] = 0  # nobody looks; `draw` does it at the end
        self._drop_what_follows("PalatePAPAUpdate")

    def _node(self, class_type: str) -> dict[str, Any]:
        return next(n["inputs"] for n in self.graph.values() if n["class_type"] == class_type)

    def _drop_what_follows(self, class_type: str) -> None:
        """Leaves out the images drawn after each round: `compare` draws its own at the end."""
        reached = {id for id, node in self.graph.items() if node["class_type"] == class_type}
        kept = set(reached)
        while later := {
            id
            for id, node in self.graph.items()
            if id not in reached
            and any(isinstance(v, list) and v[0] in reached for v in node["inputs"].values())
        }:
            reached |= later
        self.graph = {id: n for id, n in self.graph.items() if id not in reached - kept}

    def _question_sampler(self) -> dict[str, Any]:
        """The sampler whose images are put to the rater."""
        latents = self._node("PalatePreferenceQuery")["latents"][0]
        inputs: dict[str, Any] = self.graph[latents]["inputs"]
        return inputs

    def round(self, number: int) -> None:
        """Queues the workflow with a new prompt and answers its question when it comes."""
        sampler = self._question_sampler()
        sampler["seed"] = self.seed * 1000 + number
        prompt = str(random_prompt(self.prompts, empty=EMPTY_SLOTS))
        self.graph[sampler["positive"][0]]["inputs"]["text"] = prompt
        queued = self.client.queue(self.graph)
        query = self._pending()
        images = torch.stack([self._image(c["image_url"]) for c in query["candidates"]])
        answer = self._by_index(query, self.rater.answer(images, query["kinds"]))
        self.client.post(f"/palate/queries/{query['id']}/answer", answer)
        self.client.wait(queued)

    def _pending(self, timeout: float = 120) -> dict[str, Any]:
        """This profile's question, once it is asked."""
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            for query in self.client.get("/palate/queries?state=pending")["queries"]:
                if query["profile"] == self.profile:
                    return dict(query)
            time.sleep(0.05)
        raise TimeoutError(f"No question came within {timeout:.0f} s: see ComfyUI's log.")

    def _by_index(self, query: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
        """The rater saw the candidates in the order shown; the API wants their indices."""
        shown = [candidate["index"] for candidate in query["candidates"]]
        if answer["kind"] == "rate":
            ratings = [answer["ratings"][shown.index(i)] for i in range(len(shown))]
            return {"kind": "rate", "ratings": ratings}
        if answer["kind"] == "rank":
            return {"kind": "rank", "order": [shown[i] for i in answer["order"]]}
        return {"kind": "pick", "winner": shown[answer["winner"]]}

    def _image(self, path: str) -> torch.Tensor:
        """One image of the server: (H, W, 3) in [0, 1]."""
        picture = Image.open(io.BytesIO(self.client.fetch(path))).convert("RGB")
        return torch.from_numpy(np.asarray(picture, np.float32) / 255)

    def ratings(self) -> int:
        path = f"/palate/profiles/{urllib.parse.quote(self.profile)}"
        return int(self.client.get(path)["ratings"])

    def draw(self, which: Literal["base", "personalised"], pairs: int) -> torch.Tensor:
        """Images (pairs, H, W, 3) of fresh prompts and seeds, the same ones for both."""
        rng = np.random.default_rng([self.seed, 2])
        images: list[torch.Tensor] = []
        for start in range(0, pairs, BATCH):
            prompt = str(random_prompt(rng, empty=EMPTY_SLOTS))
            images += self._generate(which, prompt, EVALUATION_SEED + self.seed * 1000 + start)
        return torch.stack(images[:pairs])

    def _generate(self, which: str, prompt: str, seed: int) -> list[torch.Tensor]:
        """`BATCH` images of one prompt, by the workflow's own sampler settings."""
        sampler = {**self._question_sampler(), "seed": seed}
        if which == "base":
            sampler["model"] = self._node("PalateTasteProfile")["model"]
        text = {**self.graph[sampler["positive"][0]]["inputs"], "text": prompt}
        size = {"width": 64, "height": 64, "batch_size": BATCH}
        sampler |= {"positive": ["text", 0], "latent_image": ["latent", 0]}
        decode = {"samples": ["sampler", 0], "vae": self._node("VAEDecode")["vae"]}
        graph = {
            **{k: n for k, n in self.graph.items() if n["class_type"] in _LOADERS},
            sampler["negative"][0]: self.graph[sampler["negative"][0]],
            "latent": {"class_type": "EmptyLatentImage", "inputs": size},
            "text": {"class_type": "CLIPTextEncode", "inputs": text},
            "sampler": {"class_type": "KSampler", "inputs": sampler},
            "pixels": {"class_type": "VAEDecode", "inputs": decode},
            "shown": {"class_type": "PreviewImage", "inputs": {"images": ["pixels", 0]}},
        }
        outputs = self.client.wait(self.client.queue(graph))["outputs"]
        return [
            self._image("/view?" + urllib.parse.urlencode(picture))
            for picture in outputs["shown"]["images"]
        ]


_LOADERS = ("PalateStarterModel", "PalateTasteProfile")


def contact_sheet(base: torch.Tensor, mine: torch.Tensor, rows: Iterable[str], path: Path) -> None:
    """Base above personalised, one column a pair; two rows for each of the taste's names."""
    scale, gap, count = 2, 22, 12
    titles = list(rows)
    cell = base.shape[2] * scale
    sheet = Image.new("RGB", (count * cell, len(titles) * (2 * cell + gap)), (24, 24, 28))
    draw = ImageDraw.Draw(sheet)
    for row, title in enumerate(titles):
        top = row * (2 * cell + gap)
        draw.text((6, top + 5), f"{title}: base above, personalised below", fill=(235, 235, 235))
        for column in range(count):
            for line, images in enumerate((base, mine)):
                pixels = (images[row * count + column] * 255).round().byte().numpy()
                tile = Image.fromarray(pixels).resize((cell, cell), Image.Resampling.LANCZOS)
                sheet.paste(tile, (column * cell, top + gap + line * cell))
    sheet.save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", required=True)
    parser.add_argument("--base", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--taste", nargs="+", default=list(TASTES), choices=list(TASTES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--out", type=Path, default=Path("demo-output"))
    options = parser.parse_args()
    client, began = Client(options.server), time.monotonic()
    options.out.mkdir(parents=True, exist_ok=True)
    print(
        f"{'taste':13} {'seed':>4} {'rounds':>6} {'ratings':>7} {'s/round':>8} {'win-rate':>9} "
        f"{'diversity':>9}   ({options.pairs} pairs; diversity as a share of the base's)"
    )
    results, before, after, rows = [], [], [], []
    bases: dict[int, torch.Tensor] = {}  # one draw a seed serves every taste
    for taste in options.taste:
        for seed in options.seeds:
            loop, started = Loop(client, taste, seed, options.images), time.monotonic()
            for number in range(options.rounds):
                loop.round(number)
            seconds = (time.monotonic() - started) / max(1, options.rounds)
            if seed not in bases:
                bases[seed] = loop.draw("base", options.pairs)
            base, mine = bases[seed], loop.draw("personalised", options.pairs)
            wins = (loop.rater.score(mine) > loop.rater.score(base)).float().mean()
            kept = diversity(image_features(mine)) / diversity(image_features(base))
            found = {
                "taste": taste, "seed": seed, "rounds": options.rounds, "ratings": loop.ratings(),
                "seconds_per_round": round(seconds, 2), "win_rate": round(float(wins), 4),
                "diversity": round(kept, 4),
            }  # fmt: skip
            results.append(found)
            print(
                f"{taste:13} {seed:4} {options.rounds:6} {found['ratings']:7} {seconds:8.2f} "
                f"{float(wins):9.1%} {kept:9.2f}",
                flush=True,
            )
            if seed == options.seeds[0] and len(base) >= 48:
                before.append(base[::4][:12])
                after.append(mine[::4][:12])
                rows.append(taste)
    seconds = time.monotonic() - began
    report = {"pairs": options.pairs, "seconds": round(seconds, 1), "runs": results}
    (options.out / "demo.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    print(f"{seconds:.0f} s in all; {options.out / 'demo.json'}")
    if rows:
        sheet = options.out / "before_after.png"
        contact_sheet(torch.cat(before), torch.cat(after), rows, sheet)
        print(f"before and after: {sheet}")


if __name__ == "__main__":
    main()
