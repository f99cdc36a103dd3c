"""The table and the plot."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

COLUMNS = ("success", "entropy", "confidence", "frechet")


def load(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {"runs": []}


def save(report: dict[str, Any], path: Path) -> None:
    """Written aside and renamed, so that an interrupted run loses none of the earlier ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".part")
    aside.write_text(json.dumps(report, indent=1) + "\n")
    os.replace(aside, path)


def table(report: dict[str, Any], middle: int, last: int) -> str:
    """Markdown: each arm's mean ± deviation over its seeds, and the success of each seed."""
    head = f"| arm | seeds | success at {middle} | success at {last} | of each seed | entropy |"
    head += " confidence | Fréchet | passes | learning s |"
    lines = [head, "|---" * 10 + "|"]
    for arm in dict.fromkeys(run["arm"] for run in report["runs"]):
        runs = sorted((r for r in report["runs"] if r["arm"] == arm), key=lambda r: r["seed"])
        ends = {c: [run["curve"][str(last)][c] for run in runs] for c in COLUMNS}
        early = [run["curve"][str(min(middle, last))]["success"] for run in runs]
        cost = {k: np.mean([run["cost"][k] for run in runs]) for k in runs[0]["cost"]}
        lines.append(
            f"| {arm} | {' '.join(str(run['seed']) for run in runs)} | {spread(early)} |"
            f" {spread(ends['success'])} | {' '.join(f'{v:.3f}' for v in ends['success'])} |"
            f" {spread(ends['entropy'])} | {spread(ends['confidence'])} |"
            f" {spread(ends['frechet'], 1)} | {cost['learning_passes'] / 1000:.1f} k |"
            f" {cost['learning_seconds']:.0f} |"
        )
    return "\n".join(lines)


def line(run: dict[str, Any]) -> str:
    """One run: success / entropy / confidence / Fréchet at each measurement, and its seconds."""
    parts = [
        f"{t}: " + "/".join(f"{m[c]:.3f}".lstrip("0") for c in COLUMNS)
        for t, m in run["curve"].items()
    ]
    cost = run["cost"]
    return (
        f"{run['arm']} seed {run['seed']}  {'  '.join(parts)}  learning"
        f" {cost['learning_passes'] / 1000:.1f} k passes, {cost['learning_seconds']:.0f} s,"
        f" all {run['cpu_seconds']:.0f} CPU s, {run['wall_seconds']:.0f} s"
    )


def spread(values: list[float], digits: int = 3) -> str:
    return f"{np.mean(values):.{digits}f} ± {np.std(values):.{digits}f}"


def plot(report: dict[str, Any], arms: list[str], path: Path) -> None:
    """Success, entropy and confidence over the interactions: means, and bands from the lowest to
    the highest seed."""
    try:
        import matplotlib
    except ImportError:
        print("no plot: matplotlib is not installed (see benchmarks/requirements.txt)")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), constrained_layout=True)
    start = [r["curve"] for r in report["runs"] if r["arm"] == "base"]
    for arm in arms:
        curves = [run["curve"] for run in report["runs"] if run["arm"] == arm]
        if not curves:
            continue
        for axis, column in zip(axes, COLUMNS, strict=False):
            times = [0] * bool(start) + [int(t) for t in curves[0]]
            rows = [[curve[str(t)][column] for t in times if t] for curve in curves]
            if start:
                base = np.mean([next(reversed(c.values()))[column] for c in start])
                rows = [[base, *row] for row in rows]
            axis.plot(times, np.mean(rows, 0), marker="o", markersize=3, label=arm)
            axis.fill_between(times, np.min(rows, 0), np.max(rows, 0), alpha=0.15)
            axis.set_title(column)
            axis.set_xlabel("interactions of 10 labels")
    axes[0].legend(fontsize=7)
    figure.savefig(path, dpi=110)
