"""Time and memory of the query designer at the paper's size: H 6, 2,502 tokens, d 768, K 4.

    python benchmarks/ed_speed.py

Concentrated features (cosines about 0.8, the harder case). Each line is the least wall-clock time
of a few repeats and its processor time, which is what counts on a machine that others use too. One
thread unless OMP_NUM_THREADS says otherwise. Writes results/ed_speed.json.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

from ed_persons import L2, Person, prompt_space
from palate.core.choice import ChoiceModel
from palate.core.design import (
    best_prompts,
    design_queries,
    next_query,
    redesign,
    select_pool,
    stopping_advice,
)

RESULT = Path(__file__).resolve().parent / "results" / "ed_speed.json"


def timed(make: Callable[[], Any], repeats: int = 3) -> tuple[Any, float, float]:
    """What was made, and its wall-clock and processor seconds (the least of the repeats)."""
    walls, processors, made = [], [], None
    for _ in range(repeats):
        wall, processor = time.perf_counter(), time.process_time()
        made = make()
        walls.append(time.perf_counter() - wall)
        processors.append(time.process_time() - processor)
    return made, min(walls), min(processors)


def main() -> None:
    space = prompt_space("concentrated")
    person = Person.of(space, 0)
    generator = torch.Generator().manual_seed(0)
    rows: list[dict[str, Any]] = []

    def measure(
        name: str, target: float | None, make: Callable[[], Any], repeats: int = 3, **more: Any
    ) -> Any:
        made, wall, processor = timed(make, repeats)
        extra = {key: value(made) for key, value in more.items()}
        row = {"what": name, "wall_s": round(wall, 3), "cpu_s": round(processor, 3)}
        rows.append({**row, "target_s": target, **extra})
        shown = "" if target is None else f"target {target:g}"
        print(
            f"{name:52s} {wall:8.3f} s {processor:8.3f} s cpu  {shown}  {extra or ''}", flush=True
        )
        return made

    def answered(picks: int) -> ChoiceModel:
        model = ChoiceModel(space.dim, L2)
        for _ in range(picks):
            features = space.prompt_features(space.random_prompts(4, generator))
            model.observe_choice(features, person.answer(features))
        return model

    def gap(design: Any) -> float:
        return float(f"{design.relative_gap:.2e}")

    for criterion in ("V", "A", "D"):
        design = measure(
            f"static design {criterion}, gap to 1e-3", 10.0,
            lambda criterion=criterion: design_queries(
                space, l2=L2, criterion=criterion, tolerance=1e-3),
            1, relative_gap=gap, steps=lambda design: len(design.history) - 1,
        )  # fmt: skip
        if criterion == "V":
            static = design
    models = [answered(300) for _ in range(3)]
    model = measure("fit of 300 picks of 4, cold", 0.3, lambda: models.pop().fit())
    features = space.prompt_features(space.random_prompts(4, generator))
    model.observe_choice(features, 0)
    measure("fit after one more pick, warm", 0.3, model.fit, 1)
    measure("utility and spread of 1,000 prompts", None, lambda: model.utility(person.test[:, 0]))
    few = answered(20).fit()
    first = redesign(space, few, start=static, generator=generator)
    few.observe_choice(features, 1)
    few.fit()
    measure(
        "adaptive re-design V after one more pick, warm", 1.0,
        lambda: redesign(space, few, start=first, generator=generator),
        relative_gap=gap, steps=lambda design: len(design.history) - 1,
    )  # fmt: skip
    for criterion in ("information", "best option", "transductive", "thompson"):
        measure(
            f"next query, adaptive, {criterion}", 1.0,
            lambda criterion=criterion: next_query(space, few, 4, "adaptive", criterion, generator),
        )  # fmt: skip
    pool = space.prompt_features(space.random_prompts(10_000, generator))
    measure("pool of 10,000 candidates to 4, D", 1.0, lambda: select_pool(pool, 4))
    precision = few.precision()
    measure("the same after 21 picks", 1.0, lambda: select_pool(pool, 4, precision))
    measure("best 8 prompts", None, lambda: best_prompts(space, model.theta))
    measure("stopping advice", None, lambda: stopping_advice(space, few), 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory {peak:.2f} GB, target 1.5")
    report = {
        "command": "python benchmarks/ed_speed.py",
        "threads": torch.get_num_threads(),
        "cpu_count": os.cpu_count(),
        "load_of_the_machine": [round(load, 1) for load in os.getloadavg()],
        "peak_gb": round(peak, 3),
        "rows": rows,
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
