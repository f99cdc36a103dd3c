"""Means, paired differences to random with intervals, questions saved, the table and the plot."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import mean, median, stdev

METRICS = ("cosine_error", "accuracy", "regret")
# Two-sided 95 % quantiles of Student's t by degrees of freedom; 1.96 beyond the table.
STUDENT = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 7: 2.36, 9: 2.26, 11: 2.20, 14: 2.14,
           19: 2.09, 24: 2.06, 29: 2.05}  # fmt: skip


def half_width(values: list[float]) -> float:
    """Half the 95 % confidence interval of the mean."""
    if len(values) < 2:
        return math.inf
    degrees = max((k for k in STUDENT if k <= len(values) - 1), default=1)
    quantile = STUDENT[degrees] if len(values) <= 30 else 1.96
    return quantile * stdev(values) / math.sqrt(len(values))


def summary(runs: dict[str, dict[int, list[dict[str, float]]]], times: tuple[int, ...]) -> dict:
    """By strategy: each figure at each T as mean and difference to random, and questions needed.

    questions_for_random_regret: the median over persons of the fewest questions (of ``times``)
    after which the mean regret so far is not above random's own at the last T; null if never.
    """
    seeds = sorted(set.intersection(*(set(found) for found in runs.values())))
    table: dict = {"seeds": len(seeds), "strategies": {}}
    goal = {seed: runs["random"][seed][-1]["regret"] for seed in seeds}
    for strategy, found in runs.items():
        row: dict = {}
        for metric in METRICS:
            for place, asked in enumerate(times):
                own = [found[s][place][metric] for s in seeds]
                gain = [found[s][place][metric] - runs["random"][s][place][metric] for s in seeds]
                row[f"{metric}@{asked}"] = {
                    "mean": round(mean(own), 4),
                    "half_width": round(half_width(own), 4),
                    "less_random": round(mean(gain), 4),
                    "less_random_half_width": round(half_width(gain), 4),
                }
        average = mean(goal.values())
        reached = [t for p, t in enumerate(times) if row[f"regret@{t}"]["mean"] <= average + 1e-4]
        each = [
            next((t for p, t in enumerate(times) if found[s][p]["regret"] <= goal[s]), math.inf)
            for s in seeds
        ]
        middle = median(each)
        row["questions_for_random_regret"] = {
            "of_the_mean": reached[0] if reached else None,
            "median_over_persons": None if middle == math.inf else middle,
        }
        table["strategies"][strategy] = row
    return table


def print_tables(report: dict) -> None:
    times = report["questions"]
    for kind, found in report["features"].items():
        print(
            f"\n{kind}: d = {found['dim']}, cosine {found['mean_cosine']}, utility spread "
            f"{found['utility_spread']} logits, {found['seeds']} persons, accuracy of θ* itself "
            f"{found['ceiling_accuracy']} (difference to random in brackets, * if its 95 % "
            "interval excludes 0)"
        )
        for metric in METRICS:
            print(f"  {metric:13s}" + "".join(f"{'T = ' + str(t):>20s}" for t in times))
            for strategy, row in found["strategies"].items():
                cells = []
                for t in times:
                    cell = row[f"{metric}@{t}"]
                    sure = abs(cell["less_random"]) > cell["less_random_half_width"]
                    star = "*" if sure and strategy != "random" else " "
                    cells.append(f"{cell['mean']:.3f} ({cell['less_random']:+.3f}){star}")
                print(f"    {strategy:13s}" + "".join(f"{cell:>20s}" for cell in cells))
        print("  questions to random's regret at the last T (of the mean; median over persons)")
        for strategy, row in found["strategies"].items():
            need = row["questions_for_random_regret"]
            print(f"    {strategy:13s} {need['of_the_mean']}; {need['median_over_persons']}")


def plot(report: dict, path: Path) -> None:
    """The three figures over the number of questions, one row of panels for each kind."""
    try:
        import matplotlib
    except ImportError:
        print(f"no plot: matplotlib is not installed (see {path.parent.parent}/requirements.txt)")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    times, kinds = report["questions"], report["features"]
    figure, axes = plt.subplots(
        len(kinds), 3, figsize=(13, 3.6 * len(kinds)), squeeze=False, sharex=True
    )
    for row, (kind, found) in zip(axes, kinds.items(), strict=True):
        for axis, metric in zip(row, METRICS, strict=True):
            for strategy, figures in found["strategies"].items():
                cells = [figures[f"{metric}@{t}"] for t in times]
                means = [cell["mean"] for cell in cells]
                style = {"color": "black", "linestyle": "--"} if strategy == "random" else {}
                axis.plot(times, means, marker="o", markersize=3, label=strategy, **style)
            axis.set_title(f"{kind}: {metric.replace('_', ' ')}", fontsize=10)
            axis.set_xlabel("questions (one of four)")
            axis.grid(alpha=0.3)
    axes[0][0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    print(f"wrote {path.name}")
