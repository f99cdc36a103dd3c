"""PAPA where memory is short: smaller passes, checkpointing, half precision; the same result."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from palate.core.adapter import LiveAdapter
from palate.core.papa import PapaConfig, RatedSamples, is_out_of_memory, papa_update
from palate.core.papa.blocks import OutOfPlace, blocks_of
from palate.core.papa.memory import PassLimit, saved_bytes_per_row
from palate.core.papa.precision import precision_of
from torch import Tensor, nn

STEPS = 40
ALPHAS = torch.cumprod(1 - torch.linspace(1e-3, 0.2, STEPS, dtype=torch.float64), 0)


class Block(nn.Module):
    """Adds its residual in place, as networks for inference do."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(size), nn.Linear(size, size)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += torch.is_grad_enabled()
        x += torch.tanh(self.linear(self.norm(x)))
        return x


class Transformer(nn.Module):
    def __init__(self, size: int = 6) -> None:
        super().__init__()
        self.embed = nn.Linear(size + 1, size)
        self.blocks = nn.ModuleList(Block(size) for _ in range(3))
        self.final = nn.Linear(size, size)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        x = self.embed(torch.cat([x, t[:, None].float() / STEPS], 1))
        for block in self.blocks:
            x = block(x)
        return self.final(x)


class Studio:
    """A small transformer with an adapter, and a predictor whose memory may run out."""

    def __init__(self, room: int | None = None, error: type[Exception] = MemoryError) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.net = Transformer()
        self.adapter = LiveAdapter(self.net, rank=2, alpha=2)
        with torch.no_grad():
            for parameter in self.adapter.parameters():
                parameter.add_(0.1)
        self.room, self.error, self.passes = room, error, []  # type: ignore[var-annotated]

    def predict(self, x_t: Tensor, t: Tensor, index: Tensor) -> Tensor:
        self.passes.append(len(t))
        if self.room is not None and len(t) > self.room:
            raise self.error("out of memory: you tried to allocate too much")
        return self.net(x_t, t)

    def update(self, **settings: Any) -> Any:
        generator = torch.Generator().manual_seed(3)
        options = {k: settings.pop(k) for k in ("free_memory", "measure_drift") if k in settings}
        settings = {"precision": "float32", "steps": 2, "timesteps": 4, **settings}
        samples = RatedSamples(
            torch.randn(6, 6, generator=generator), torch.tensor([1.0, -1, 0.5, -0.5, 1, 1]), 6
        )
        with self.adapter.attached():
            return papa_update(
                self.adapter, self.predict, samples, ALPHAS, PapaConfig(**settings),
                generator=generator, **options,
            )  # fmt: skip

    def learnt(self) -> Tensor:
        return torch.cat([tensor.flatten() for tensor in self.adapter.state_dict().values()])


@pytest.fixture(scope="module")
def expected() -> Tensor:
    studio = Studio()
    studio.update()
    return studio.learnt()


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
    ids=str,
)  # fmt: skip
def test_running_out_of_memory_is_told_from_other_errors(error: Exception, is_one: bool) -> None:
    assert is_out_of_memory(error) == is_one


@pytest.mark.parametrize("error", [MemoryError, torch.OutOfMemoryError, RuntimeError])
@pytest.mark.parametrize("room", [1, 3, 8])
def test_passes_are_halved_until_they_fit(expected: Tensor, room: int, error: Any) -> None:
    studio = Studio(room, error)
    report, _ = studio.update()
    assert report.rolled_back is None
    assert 1 <= report.rows <= room
    assert max(studio.passes[-8:]) <= room
    torch.testing.assert_close(studio.learnt(), expected, rtol=1e-4, atol=1e-6)


def test_once_lowered_the_rows_stay(expected: Tensor) -> None:
    studio = Studio(3)
    studio.update(steps=4)
    tries = [n for n in studio.passes if n > 3]
    assert len(tries) <= 4  # only the first step had to find out


def test_with_no_room_for_one_row_the_adapter_is_what_it_was() -> None:
    studio = Studio(0)
    before = studio.learnt()
    with pytest.raises(MemoryError, match="out of memory"):
        studio.update()
    assert torch.equal(studio.learnt(), before)
    assert all(p.grad is None for p in studio.adapter.parameters())
    assert all("forward" not in vars(module) for module in studio.net.modules())


def test_checkpointing_comes_before_single_rows() -> None:
    limit = PassLimit(64, checkpointing=False, may_checkpoint=True)
    assert [(limit.lower(limit.rows), limit.rows, limit.checkpointing) for _ in range(8)] == [
        (True, 32, False), (True, 16, False), (True, 8, False), (True, 4, False), (True, 4, True),
        (True, 2, True), (True, 1, True), (False, 1, True),
    ]  # fmt: skip
    never = PassLimit(2, checkpointing=False, may_checkpoint=False)
    assert [never.lower(never.rows) for _ in range(2)] == [True, False]
    assert not never.checkpointing


def test_checkpointing_changes_the_work_not_the_result(expected: Tensor) -> None:
    calls = []
    for checkpointing in ("off", "on"):
        studio = Studio()
        report, _ = studio.update(checkpointing=checkpointing)
        torch.testing.assert_close(studio.learnt(), expected, rtol=1e-5, atol=1e-7)
        assert report.checkpointing == (checkpointing == "on")
        calls.append([block.calls for block in studio.net.blocks])
    assert calls[1] == [2 * count for count in calls[0]]  # each block once more
    assert all("forward" not in vars(module) for module in studio.net.modules())


def test_the_outermost_blocks_are_checkpointed() -> None:
    studio = Studio()
    assert blocks_of(studio.adapter) == list(studio.net.blocks)


def test_saved_bytes_grow_with_the_rows_alone() -> None:
    studio = Studio()
    x = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
    with studio.adapter.attached(), OutOfPlace():
        one = saved_bytes_per_row(studio.adapter, lambda n: studio.net(x[:n], torch.ones(n)))
        wide = saved_bytes_per_row(
            studio.adapter, lambda n: studio.net(x[:n], torch.ones(n)), (2, 8)
        )
    assert one == wide
    # Per block: the norm's and the linear's input, tanh, A's output; two numbers for the norm.
    assert 3 * 4 * (6 + 6 + 2) <= one <= 3 * 4 * (6 * 6 + 8)


def test_the_first_pass_is_as_large_as_the_memory_allows(expected: Tensor) -> None:
    rows = []
    for free in (10**9, 20_000):
        studio = Studio()
        report, _ = studio.update(free_memory=lambda free=free: free, measure_drift=False)
        rows.append((report.rows, max(studio.passes)))
        torch.testing.assert_close(studio.learnt(), expected, rtol=1e-4, atol=1e-6)
    assert rows[0] == (128, 24)
    assert rows[1][0] < 128
    assert rows[1][1] <= rows[1][0]


def test_little_memory_turns_checkpointing_on() -> None:
    report, _ = Studio().update(free_memory=lambda: 1000)
    assert report.checkpointing


@pytest.mark.parametrize("operator", ["+=", "-=", "*=", "/="])
def test_residuals_are_added_out_of_place_and_methods_are_not(operator: str) -> None:
    names = {"x": torch.ones(2, requires_grad=True) * 3, "y": torch.full((2,), 2.0)}
    names["before"] = names["x"]
    with OutOfPlace():
        exec(f"x {operator} y", names)
        names["method"] = names["before"] * 1
        names["method"].add_(1.0)
        plain = kept = torch.zeros(2)
        plain += 1
    result = {"+=": 5.0, "-=": 1.0, "*=": 6.0, "/=": 1.5}[operator]
    assert names["x"].tolist() == [result] * 2
    assert names["before"].tolist() == [3.0, 3.0]
    assert names["method"].tolist() == [4.0, 4.0]
    assert kept.tolist() == [1.0, 1.0]  # nothing is to be learnt through it


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_learns_nearly_the_same_in_float32(expected: Tensor, precision: Any) -> None:
    studio = Studio()
    before = studio.learnt()
    report, state = studio.update(precision=precision)
    assert report.precision == precision
    assert report.rolled_back is None
    assert {p.dtype for p in studio.adapter.parameters()} == {torch.float32}
    assert {t.dtype for t in state.values()} == {torch.float32}
    moved = torch.cosine_similarity(studio.learnt() - before, expected - before, dim=0)
    assert float(moved) > 0.95


def test_an_overflowing_loss_scale_is_lowered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("palate.core.papa.precision.LOSS_SCALE", 2.0**126)
    report, _ = Studio().update(precision="float16")
    assert report.rolled_back is None
    assert report.steps == 2


def test_automatic_precision_follows_the_weights_and_the_processor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for fast, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(
            "palate.core.papa.precision.cpu_is_fast_at_bfloat16", lambda fast=fast: fast
        )
        assert precision_of(Studio().adapter, PapaConfig()) == expected
    adapter = LiveAdapter(Transformer().to(torch.bfloat16), rank=2)
    assert precision_of(adapter, PapaConfig()) == torch.bfloat16
    assert precision_of(adapter, PapaConfig(precision="float32")) == torch.float32
