"""Is the starter model good enough to rate? A classifier of drawn images judges generated ones.

    python -m palate.starter.evaluate --work starter/work

Trains a small network on the drawn images (subject and palette), prints its accuracy on drawn
images it has not seen and on generated ones, times four images in 20 steps, and writes a 6×6
contact sheet.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from .generate import MODEL, Starter
from .vocabulary import COMPOSITIONS, LIGHTINGS, PALETTES, SUBJECTS, TEXTURES, Prompt, random_prompt

HELD_OUT = 2000
SHEET = 6


class Judge(nn.Module):
    """Subject and palette logits of images (N, H, W, 3) in [0, 1]: (N, 12) and (N, 8)."""

    def __init__(self) -> None:
        super().__init__()
        widths, layers = (3, 32, 64, 128, 192), []
        for a, b in pairwise(widths):
            layers += [nn.Conv2d(a, b, 3, 2, 1), nn.GroupNorm(8, b), nn.SiLU()]
        head = [nn.Dropout(0.1), nn.Flatten(), nn.Linear(192 * 16, 256), nn.SiLU()]
        self.body = nn.Sequential(*layers, *head)
        self.subject, self.palette = nn.Linear(256, len(SUBJECTS)), nn.Linear(256, len(PALETTES))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(images.permute(0, 3, 1, 2) * 2 - 1)
        return self.subject(features), self.palette(features)


def _labels(prompts: list[Prompt]) -> Tensor:
    """(N, 2): subject and palette as indices, −100 where the prompt leaves the palette open."""
    return torch.tensor(
        [
            [SUBJECTS.index(p.subject), PALETTES.index(p.palette) if p.palette else -100]
            for p in prompts
        ]
    )


def _accuracy(judge: Judge, images: Tensor, labels: Tensor) -> tuple[float, float]:
    with torch.no_grad():
        parts = [judge(chunk) for chunk in images.split(250)]
    found = []
    for head in (0, 1):
        known = labels[:, head] >= 0
        guess = torch.cat([part[head] for part in parts]).argmax(1)
        found.append(float((guess == labels[:, head])[known].float().mean()))
    return found[0], found[1]


def train_judge(work: Path, steps: int, seed: int) -> Judge:
    """The classifier, trained on the drawn images but the first `HELD_OUT`; kept in ``work``."""
    torch.manual_seed(seed)
    judge, kept = Judge(), work / "judge.pt"
    if kept.exists():
        judge.load_state_dict(torch.load(kept, weights_only=True))
        return judge.eval()
    images = np.load(work / "images.npy", mmap_mode="r")
    labels = _labels([Prompt(*v) for v in json.loads((work / "prompts.json").read_text("utf-8"))])
    optimizer = torch.optim.AdamW(judge.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    rng = np.random.default_rng(seed)
    for step in range(steps):
        index = np.sort(rng.integers(HELD_OUT, len(images), 64))
        subject, palette = judge(torch.from_numpy(images[index]).float() / 255)
        target = labels[torch.from_numpy(index)]
        loss = F.cross_entropy(subject, target[:, 0]) + F.cross_entropy(palette, target[:, 1])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 200 == 0:
            print(f"judge {step:5d}  loss {loss.item():.3f}", flush=True)
    torch.save(judge.state_dict(), kept)
    return judge.eval()


def contact_sheet(model: Starter, path: Path, seed: int) -> None:
    """Six subjects by six sets of words, each image drawn to its own prompt."""
    columns = [
        Prompt("", PALETTES[i], TEXTURES[i % 5], COMPOSITIONS[where], LIGHTINGS[light])
        for i, (where, light) in enumerate(zip((0, 2, 5, 3, 0, 2), (0, 0, 1, 4, 2, 0), strict=True))
    ]
    prompts = [
        Prompt(SUBJECTS[2 * row], *list(vars(column).values())[1:])
        for row in range(SHEET)
        for column in columns
    ]
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(len(prompts), *model.shape, generator=generator)
    images = model.decode(model.sample([str(p) for p in prompts], noise))
    rows = images.view(SHEET, SHEET, *images.shape[1:]).permute(0, 2, 1, 3, 4)
    pixels = rows.reshape(SHEET * images.shape[1], SHEET * images.shape[2], 3)
    sheet = Image.fromarray((pixels * 255).round().byte().numpy())
    sheet.resize((sheet.width * 2, sheet.height * 2), Image.Resampling.LANCZOS).save(path)
    for row in range(SHEET):
        print("   ".join(str(p) for p in prompts[row * SHEET : (row + 1) * SHEET]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path(__file__).parent / "work")
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--count", type=int, default=480)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sheet", type=Path, default=Path(__file__).parent / "samples.jpg")
    options = parser.parse_args()
    judge = train_judge(options.work, options.steps, options.seed)
    drawn = np.load(options.work / "images.npy", mmap_mode="r")[:HELD_OUT]
    values = json.loads((options.work / "prompts.json").read_text("utf-8"))[:HELD_OUT]
    pixels, truth = torch.from_numpy(np.array(drawn)).float() / 255, [Prompt(*v) for v in values]
    scores = {"drawn": _accuracy(judge, pixels, _labels(truth))}

    model = Starter.load(options.model)
    rng, generator = np.random.default_rng(99), torch.Generator().manual_seed(99)
    prompts = [random_prompt(rng) for _ in range(options.count)]
    images = []
    for start in range(0, options.count, 48):
        batch = [str(p) for p in prompts[start : start + 48]]
        noise = torch.randn(len(batch), *model.shape, generator=generator)
        images.append(model.decode(model.sample(batch, noise)))
    scores["generated"] = _accuracy(judge, torch.cat(images), _labels(prompts))
    began = time.monotonic()
    model.decode(model.sample(["a cat"] * 4, torch.randn(4, *model.shape, generator=generator)))
    print(f"four images in 20 steps: {time.monotonic() - began:.2f} s")
    for name, (subject, palette) in scores.items():
        print(f"{name:10} subject {subject:.1%}   palette {palette:.1%}")
    contact_sheet(model, options.sheet, options.seed)


if __name__ == "__main__":
    main()
