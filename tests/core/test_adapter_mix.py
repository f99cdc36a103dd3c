"""A mix of live adapters: exact, gone without a trace, and one ordinary LoRA file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from palate.core.adapter import AdapterError, AdapterMix, LiveAdapter, Part, read_safetensors
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F


class Net(nn.Module):
    """Linears, one of them fused, and convolutions of every geometry."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=2, dilation=2, padding_mode="reflect")
        self.down = nn.Conv2d(6, 8, 3, stride=2, padding=1, bias=False)
        self.qkv = nn.Linear(8, 24)
        self.out = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(F.silu(self.conv(x))).mean((2, 3))
        q, k, v = self.qkv(x).chunk(3, 1)
        return self.out(torch.tanh(q * k) + v) * self.out.bias.mean()


@pytest.fixture
def net() -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Net().eval().requires_grad_(False)


INPUT = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
EVERY = ["conv", "down", "qkv", "out"]


def adapters_on(net: Net) -> list[LiveAdapter]:
    """Of different rank, alpha and targets, with effects of the size of the layers' own."""
    made = [
        LiveAdapter(net, rank=4, alpha=4, targets=EVERY),
        LiveAdapter(net, rank=2, alpha=5, targets=["qkv", "conv"]),
        LiveAdapter(net, rank=1, alpha=0.5, targets=["out", "down"]),
    ]
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in [p for adapter in made for p in adapter.parameters()]:
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return made


def update(adapter: LiveAdapter, target: str) -> Tensor | float:
    """(alpha/r)·B·A of one target in the shape of the layer's weight."""
    state = adapter.state_dict()
    if f"{target}.lora_A.weight" not in state:
        return 0.0
    down, up = (state[f"{target}.lora_{part}.weight"].double() for part in "AB")
    whole = (up.flatten(1) @ down.flatten(1)).view(len(up), *down.shape[1:])
    return whole * (adapter.alpha / adapter.rank)


def merged(net: Net, adapters: list[LiveAdapter], weights: list[float]) -> Net:
    """A network in double precision with W + Σ w_i·ΔW_i for its weights."""
    other = Net().double().eval()
    other.load_state_dict({k: v.double() for k, v in net.state_dict().items()})
    for target in EVERY:
        layer = other.get_submodule(target)
        for adapter, weight in zip(adapters, weights, strict=True):
            layer.weight.data += weight * update(adapter, target)
    return other


def mixed(net: Net, adapters: list[LiveAdapter], weights: list[float], x: Tensor = INPUT) -> Tensor:
    with AdapterMix(adapters).attached(weights), torch.no_grad():
        return net(x)


@settings(max_examples=15, deadline=None)
@given(weights=st.lists(st.floats(-2, 2), min_size=3, max_size=3))
def test_each_layer_is_base_plus_the_weighted_sum_of_updates(weights: list[float]) -> None:
    net = Net().eval().requires_grad_(False)
    adapters = adapters_on(net)
    expected = merged(net, adapters, weights)
    inputs = {
        "conv": INPUT,
        "down": torch.randn(2, 6, 9, 9),
        "qkv": torch.randn(2, 7, 8),
        "out": torch.randn(3, 8),
    }
    with AdapterMix(adapters).attached(weights), torch.no_grad():
        for target, x in inputs.items():
            found, exact = (
                net.get_submodule(target)(x),
                expected.get_submodule(target)(x.double()),
            )
            assert found.dtype == torch.float32
            torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5)


def test_the_base_is_bit_identical_afterwards(net: Net) -> None:
    layers, state = dict(net.named_modules()), {k: v.clone() for k, v in net.state_dict().items()}
    before, adapters = net(INPUT), adapters_on(net)
    assert not torch.equal(mixed(net, adapters, [0.5, -1.0, 2.0]), before)
    with (
        pytest.raises(RuntimeError, match="in the middle"),
        AdapterMix(adapters).attached([1.0] * 3),
    ):
        raise RuntimeError("in the middle")
    assert dict(net.named_modules()) == layers
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())
    assert torch.equal(net(INPUT), before)
    assert torch.equal(mixed(net, adapters, [0.0, 0.0, 0.0]), before)


def test_one_adapter_in_a_mix_is_that_adapter_bit_for_bit(net: Net) -> None:
    adapters = adapters_on(net)
    for i, adapter in enumerate(adapters):
        for weight in (1.0, -0.7):
            with adapter.attached(), adapter.scaled(weight), torch.no_grad():
                alone = net(INPUT)
            assert torch.equal(mixed(net, adapters, [weight * (i == j) for j in range(3)]), alone)


def test_what_an_adapter_learns_later_shows_in_the_mix(net: Net) -> None:
    adapters = adapters_on(net)
    mix, weights = AdapterMix(adapters), [0.5, 0.5, 0.5]
    with mix.attached(weights):
        before = net(INPUT)
    with torch.no_grad():
        adapters[1].parameters()[1].add_(0.1)
    with mix.attached(weights), torch.no_grad():
        after = net(INPUT)
    assert not torch.equal(after, before)
    exact = merged(net, adapters, weights)(INPUT.double())
    torch.testing.assert_close(after.double(), exact, rtol=1e-4, atol=1e-5)


def test_the_same_adapter_twice_counts_twice(net: Net) -> None:
    one = adapters_on(net)[0]
    torch.testing.assert_close(mixed(net, [one, one], [0.25, 0.5]), mixed(net, [one], [0.75]))


def test_a_network_in_half_precision_stays_in_it(net: Net) -> None:
    adapters = adapters_on(net.to(torch.bfloat16))
    x = torch.randn(3, 8, dtype=torch.bfloat16)
    with AdapterMix(adapters).attached([1.0, 1.0, 1.0]), torch.no_grad():
        found = net.out(x)
    assert found.dtype == torch.bfloat16
    exact = merged(net, adapters, [1.0, 1.0, 1.0]).out(x.double())
    torch.testing.assert_close(found.double(), exact, rtol=0.02, atol=0.02)


NAMES: dict[str, Any] = {"qkv": [Part("q", 0, 8), Part("k", 8, 8), Part("v", 16, 8)]}


@pytest.mark.parametrize("layout", ["kohya", "peft", "diffusers", "generic"])
@pytest.mark.parametrize("names", [None, NAMES], ids=["whole", "split"])
def test_the_file_of_a_mix_is_the_mix_as_one_lora(
    net: Net, tmp_path: Path, layout: str, names: Any
) -> None:
    adapters, weights = adapters_on(net), [0.5, -1.5, 1.0]
    AdapterMix(adapters).save(tmp_path / "mix.safetensors", weights, {"who": "me"}, layout, names)
    loaded = LiveAdapter.load(net, tmp_path / "mix.safetensors", names)
    assert loaded.rank == 4 + 2 + 1
    with loaded.attached(), torch.no_grad():
        found = net(INPUT)
    torch.testing.assert_close(found, mixed(net, adapters, weights), rtol=1e-4, atol=1e-5)
    _, header = read_safetensors(tmp_path / "mix.safetensors")
    assert (header["ss_network_dim"], header["ss_network_alpha"]) == ("7", "7")
    assert header["who"] == "me"
    tensors = load_file(tmp_path / "mix.safetensors")
    downs = {k: v for k, v in tensors.items() if ".lora_A." in k or ".lora_down." in k}
    assert {len(down) for down in downs.values()} == {7}


def test_adapters_that_do_not_go_together_are_refused(net: Net) -> None:
    adapters = adapters_on(net)
    with pytest.raises(AdapterError, match="one module"):
        AdapterMix([adapters[0], *adapters_on(Net())])
    with pytest.raises(AdapterError, match="at least one"):
        AdapterMix([])
    mix = AdapterMix(adapters)
    with (
        adapters[1].attached(),
        pytest.raises(AdapterError, match="attached"),
        mix.attached([1] * 3),
    ):
        pass
    with pytest.raises(ValueError, match="argument"), mix.attached([1.0]):
        pass
    assert not any(adapter.is_attached for adapter in adapters)
