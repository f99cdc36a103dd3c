"""The live adapter: what it leaves alone, what it changes, and the files it writes and reads."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from palate.core.adapter import (
    KOHYA_PREFIX,
    PEFT_PREFIX,
    AdapterError,
    LiveAdapter,
    default_targets,
    read_safetensors,
    write_safetensors,
)
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """A residual block whose layers sit in every kind of container."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.SiLU())
        self.branches = nn.ModuleList([nn.Conv2d(width, width, 1, bias=False)])
        self.named = nn.ModuleDict({"time": nn.Linear(4, width)})
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        x = self.body(x) + self.branches[0](x) + self.named["time"](time)[:, :, None, None]
        return self.norm(x)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, 6, 3, padding=1)
        self.time = nn.Linear(1, 4)
        self.blocks = nn.ModuleList([Block(6), Block(6)])
        self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.leave = nn.Conv2d(6, 3, 1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        x, time = self.enter(x), self.time(t[:, None])
        for block in self.blocks:
            x = block(x, time)
        return self.leave(self.depthwise(x))


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    net = Net().eval()
    net.enter.weight.requires_grad_(False)
    return net


INPUT = (
    torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)),
    torch.tensor([0.2, 0.7]),
)


def randomise(adapter: LiveAdapter, seed: int = 0, size: float = 0.3) -> LiveAdapter:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * size)
    return adapter


def output(module: nn.Module) -> Tensor:
    with torch.no_grad():
        return module(*INPUT)


def anatomy(module: nn.Module) -> list[Any]:
    """All that attaching must give back: objects, their order, tensors, flags, attributes."""
    return [
        [(name, id(m), m.training) for name, m in module.named_modules()],
        [(n, id(p), p.requires_grad, p.dtype, p.data_ptr()) for n, p in module.named_parameters()],
        [sorted(vars(m)) for m in module.modules()],
        weights_hash(module),
    ]


def weights_hash(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(name.encode() + tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


# Which layers -------------------------------------------------------------------------------------


def test_default_targets_are_the_inner_linears_and_convolutions(net: Net) -> None:
    block = ("body.0", "branches.0", "named.time")
    assert default_targets(net) == ["time", *(f"blocks.{i}.{n}" for i in range(2) for n in block)]


def test_a_target_s_name_is_no_ending_of_other_names() -> None:
    net = nn.ModuleDict({"out": nn.Linear(2, 2), "block": nn.ModuleDict({"out": nn.Linear(2, 2)})})
    before = anatomy(net)
    adapter = LiveAdapter(net, targets=["out"])
    assert anatomy(net) == before
    assert list(adapter.state_dict()) == ["out.lora_A.weight", "out.lora_B.weight"]


def test_a_target_s_name_is_no_pattern() -> None:
    net = nn.ModuleDict({"a+": nn.Linear(2, 2), "aa": nn.Linear(2, 2)})
    assert list(LiveAdapter(net, targets=["a+"]).state_dict()) == [
        "a+.lora_A.weight",
        "a+.lora_B.weight",
    ]


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda net: LiveAdapter(net, rank=0), "rank"),
        (lambda net: LiveAdapter(net, targets=["blocks.7.body.0"]), "no layer named"),
        (lambda net: LiveAdapter(net, targets=["time.weight"]), "no layer named"),
        (lambda net: LiveAdapter(net, targets=["blocks.0.norm"]), "BatchNorm2d"),
        (lambda net: LiveAdapter(net, targets=[]), "no Linear or Conv2d"),
        (lambda net: LiveAdapter(nn.Sequential(nn.ReLU())), "no Linear or Conv2d"),
        (lambda net: LiveAdapter(nn.Linear(2, 2)), "no Linear or Conv2d"),
        (lambda net: LiveAdapter(net, rank=4, targets=["time", "depthwise"]), "groups"),
    ],
)
@pytest.mark.filterwarnings("ignore:LoRA adapter added to ConvNd")
def test_what_cannot_be_adapted_is_refused_and_left_alone(
    net: Net, build: Callable[[Net], LiveAdapter], reason: str
) -> None:
    before = anatomy(net)
    with pytest.raises(AdapterError, match=reason):
        build(net)
    assert anatomy(net) == before


def test_a_second_adapter_is_refused_while_the_first_is_attached(net: Net) -> None:
    with LiveAdapter(net).attached(), pytest.raises(AdapterError, match="already carries"):
        LiveAdapter(net, targets=["time"])


# What stays as it is ------------------------------------------------------------------------------


def test_building_attaching_and_detaching_leave_the_module_as_it_was(net: Net) -> None:
    before, plain = anatomy(net), output(net)
    adapter = randomise(LiveAdapter(net, rank=3))
    assert anatomy(net) == before
    with adapter.attached():
        assert adapter.is_attached
        assert not torch.equal(output(net), plain)
    assert not adapter.is_attached
    assert anatomy(net) == before
    assert torch.equal(output(net), plain)


def test_an_exception_inside_the_block_detaches_too(net: Net) -> None:
    before = anatomy(net)
    adapter = LiveAdapter(net)
    with pytest.raises(RuntimeError, match="out of memory"), adapter.attached():
        raise RuntimeError("out of memory")
    assert anatomy(net) == before
    assert not adapter.is_attached


def test_attaching_nests(net: Net) -> None:
    before, adapter = anatomy(net), LiveAdapter(net)
    with adapter.attached():
        with adapter.attached():
            pass
        assert anatomy(net) != before
    assert anatomy(net) == before
    adapter.detach()  # one too many does nothing
    assert anatomy(net) == before
    with adapter.attached():
        assert anatomy(net) != before


def test_two_adapters_on_one_module_take_turns(net: Net) -> None:
    first, second = (randomise(LiveAdapter(net), seed) for seed in (1, 2))
    with first.attached():
        one = output(net)
    with second.attached():
        assert not torch.equal(output(net), one)
    with first.attached():
        assert torch.equal(output(net), one)


def test_the_global_random_state_is_neither_moved_nor_read(net: Net) -> None:
    drawn = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        adapter = LiveAdapter(net, seed=5)
        assert torch.equal(torch.get_rng_state(), before)
        drawn.append(adapter.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(*map(dict.values, drawn), strict=True))
    other = LiveAdapter(net, seed=6).state_dict()
    assert not torch.equal(other["time.lora_A.weight"], drawn[0]["time.lora_A.weight"])


# What the adapter does ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_new_adapter_changes_nothing_bit_for_bit(net: Net, dtype: torch.dtype) -> None:
    net = net.to(dtype)
    images = [x.to(dtype) for x in INPUT]
    with torch.no_grad():
        plain = net(*images)
        adapter = LiveAdapter(net, rank=4, alpha=16)
        with adapter.attached():
            assert torch.equal(net(*images), plain)
    assert all(p.dtype == torch.float32 for p in adapter.parameters())


def test_scale_zero_is_the_base_bit_for_bit(net: Net) -> None:
    plain, adapter = output(net), randomise(LiveAdapter(net))
    with adapter.attached():
        full = output(net)
        with adapter.scaled(0.0):
            assert torch.equal(output(net), plain)
            with adapter.scaled(1.0):
                assert torch.equal(output(net), full)
        assert adapter.scale == 1.0
        with pytest.raises(KeyError), adapter.scaled(0.5):
            raise KeyError
        assert torch.equal(output(net), full)


def test_scale_zero_is_the_base_even_if_the_adapter_is_broken(net: Net) -> None:
    plain, adapter = output(net), LiveAdapter(net)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.fill_(float("nan"))
    with adapter.attached(), adapter.scaled(0.0):
        assert torch.equal(output(net), plain)


def test_scale_is_linear_in_the_adapter_s_effect() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 3)).double()
    adapter = randomise(LiveAdapter(net, targets=["1"]))
    x = torch.randn(4, 5, dtype=torch.float64)
    with torch.no_grad(), adapter.attached():
        outputs = []
        for scale in (0.0, 1.0, -0.5, 2.0):
            adapter.scale = scale
            outputs.append(net(x))
    base, full, negative, double = outputs
    torch.testing.assert_close(negative, base - 0.5 * (full - base), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(double, base + 2 * (full - base), rtol=1e-5, atol=1e-6)


def test_an_edit_in_place_shows_in_the_next_forward_pass(net: Net) -> None:
    adapter = LiveAdapter(net)
    with adapter.attached():
        before = output(net)
        with torch.no_grad():
            adapter.parameters()[1].fill_(0.5)
        after = output(net)
        adapter.reset()
        assert not torch.equal(after, before)
        assert torch.equal(output(net), before)


@given(
    rank=st.integers(1, 5),
    alpha=st.sampled_from([1.0, 4.0, 8.0]),
    kernel=st.sampled_from([1, 3]),
    stride=st.integers(1, 2),
    dilation=st.integers(1, 2),
    padding=st.integers(0, 2),
    mode=st.sampled_from(["zeros", "circular", "reflect"]),
    scale=st.sampled_from([1.0, 0.3]),
)
@settings(max_examples=40, deadline=None)
def test_a_convolution_s_update_equals_merged_weights(
    rank: int, alpha: float, kernel: int, stride: int, dilation: int, padding: int, mode: str,
    scale: float,
) -> None:  # fmt: skip
    layer = nn.Conv2d(
        3, 4, kernel, stride=stride, dilation=dilation, padding=padding, padding_mode=mode
    )
    net = nn.Sequential(layer)
    adapter = randomise(LiveAdapter(net, rank, alpha, targets=["0"]))
    adapter.scale = scale
    down, up = adapter.state_dict().values()
    merged = copy.deepcopy(layer)
    merged.weight.data += scale * alpha / rank * torch.einsum("or,rikl->oikl", up[..., 0, 0], down)
    x = torch.randn(2, 3, 7, 7)
    with torch.no_grad(), adapter.attached():
        torch.testing.assert_close(net(x), merged(x), rtol=1e-4, atol=1e-4)


def test_a_linear_layer_s_update_equals_merged_weights(net: Net) -> None:
    adapter = randomise(LiveAdapter(net, rank=2, alpha=6, targets=["time"]))
    down, up = adapter.state_dict().values()
    x = torch.randn(3, 1)
    with torch.no_grad(), adapter.attached():
        expected = F.linear(x, net.time.base_layer.weight + 3 * up @ down, net.time.base_layer.bias)
        torch.testing.assert_close(net.time(x), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_training_moves_the_adapter_alone(net: Net, dtype: torch.dtype) -> None:
    net = net.to(dtype)
    images = [x.to(dtype) for x in INPUT]
    before, adapter = weights_hash(net), LiveAdapter(net, rank=2)
    start = adapter.state_dict()
    optimizer = torch.optim.Adam(adapter.parameters(), lr=1e-2)
    losses = []
    with adapter.attached():
        for _ in range(4):
            optimizer.zero_grad()
            loss = net(*images).float().square().mean()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    assert weights_hash(net) == before
    assert losses[-1] < losses[0]
    moved = adapter.state_dict()
    # After the first step A moves as well, since B is no longer zero.
    assert all(not torch.equal(start[key], moved[key]) for key in start)


# State --------------------------------------------------------------------------------------------


def test_the_state_is_a_copy_and_comes_back_exactly(net: Net) -> None:
    adapter = randomise(LiveAdapter(net))
    state = adapter.state_dict()
    randomise(adapter, seed=1)
    assert not torch.equal(adapter.state_dict()["time.lora_A.weight"], state["time.lora_A.weight"])
    tensors = adapter.parameters()
    adapter.load_state_dict(state)
    assert all(a is b for a, b in zip(adapter.parameters(), tensors, strict=True))
    assert all(torch.equal(value, state[key]) for key, value in adapter.state_dict().items())


@pytest.mark.parametrize("fault", ["missing", "unknown", "shape"])
def test_a_state_that_does_not_fit_changes_nothing(net: Net, fault: str) -> None:
    adapter = randomise(LiveAdapter(net))
    before, state = adapter.state_dict(), randomise(LiveAdapter(net), seed=3).state_dict()
    last = list(state)[-1]
    if fault == "missing":
        del state[last]
    elif fault == "unknown":
        state["other.lora_A.weight"] = state[last]
    else:
        state[last] = state[last][:-1]
    with pytest.raises(AdapterError):
        adapter.load_state_dict(state)
    assert all(torch.equal(value, before[key]) for key, value in adapter.state_dict().items())


# Files --------------------------------------------------------------------------------------------

LAYOUTS = ("kohya", "peft")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_file_holds_the_whole_adapter(net: Net, tmp_path: Path, layout: str) -> None:
    adapter = randomise(LiveAdapter(net, rank=3, alpha=5.5))
    path = tmp_path / "taste.safetensors"
    adapter.save(path, {"revision": "4"}, layout=layout)
    loaded = LiveAdapter.load(net, path)
    assert (loaded.rank, loaded.alpha) == (3, 5.5)
    assert sorted(loaded.targets) == sorted(adapter.targets)
    assert all(torch.equal(loaded.state_dict()[k], v) for k, v in adapter.state_dict().items())
    with adapter.attached():
        taught = output(net)
    with loaded.attached():
        assert torch.equal(output(net), taught)
    header = read_safetensors(path)[1]
    assert header["revision"] == "4"
    assert header["ss_network_dim"] == "3"
    assert header["ss_network_alpha"] == "5.5"
    assert header["ss_network_module"] == "networks.lora"


def test_keys_are_those_of_each_layout(net: Net) -> None:
    adapter = LiveAdapter(net, rank=2, targets=["blocks.0.named.time"])
    kohya, peft = adapter.export("kohya"), adapter.export("peft")
    assert {key: tuple(t.shape) for key, t in kohya.items()} == {
        "lora_unet_blocks_0_named_time.lora_down.weight": (2, 4),
        "lora_unet_blocks_0_named_time.lora_up.weight": (6, 2),
        "lora_unet_blocks_0_named_time.alpha": (),
    }
    assert float(kohya["lora_unet_blocks_0_named_time.alpha"]) == 8.0
    assert set(peft) == {
        "base_model.model.blocks.0.named.time.lora_A.weight",
        "base_model.model.blocks.0.named.time.lora_B.weight",
    }
    with pytest.raises(AdapterError, match="layout"):
        adapter.export("lycoris")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_names_rename_the_layers_in_the_file(net: Net, tmp_path: Path, layout: str) -> None:
    names = {"time": "time_embedding.linear_1"}
    adapter = randomise(LiveAdapter(net, targets=["time", "blocks.0.body.0"]))
    path = tmp_path / "taste.safetensors"
    adapter.save(path, layout=layout, names=names)
    stems = {key.removeprefix(PEFT_PREFIX).removeprefix(KOHYA_PREFIX) for key in load_file(path)}
    flat = {stem.replace(".", "_") for stem in stems}
    assert any(stem.startswith("time_embedding_linear_1_lora") for stem in flat)
    assert any(stem.startswith("blocks_0_body_0_lora") for stem in flat)
    loaded = LiveAdapter.load(net, path, names=names)
    assert all(torch.equal(loaded.state_dict()[k], v) for k, v in adapter.state_dict().items())
    with pytest.raises(AdapterError, match="no place for"):
        LiveAdapter.load(net, path)


def test_a_file_s_order_of_keys_does_not_matter(net: Net, tmp_path: Path) -> None:
    adapter = randomise(LiveAdapter(net, rank=2))
    path = tmp_path / "taste.safetensors"
    # safetensors orders by dtype first: this way every B comes before every A.
    tensors = {
        key: tensor.double() if "lora_up" in key else tensor
        for key, tensor in adapter.export("kohya").items()
    }
    save_file(tensors, path)
    loaded = LiveAdapter.load(net, path)
    assert loaded.rank == 2
    assert all(torch.equal(loaded.state_dict()[k], v) for k, v in adapter.state_dict().items())


def _rename(tensors: dict[str, Tensor]) -> None:
    tensors["lora_unet_elsewhere.lora_down.weight"] = tensors.pop("lora_unet_time.lora_down.weight")


def _foreign(tensors: dict[str, Tensor]) -> None:
    tensors["lora_unet_time.hada_w1_a"] = torch.zeros(2)


def _lose(tensors: dict[str, Tensor]) -> None:
    del tensors["lora_unet_time.lora_up.weight"]


def _reshape(tensors: dict[str, Tensor]) -> None:
    tensors["lora_unet_time.lora_up.weight"] = torch.zeros(9, 3)


def _two_alphas(tensors: dict[str, Tensor]) -> None:
    tensors["lora_unet_time.alpha"] = torch.tensor(1.0)


def _two_ranks(tensors: dict[str, Tensor]) -> None:
    tensors["lora_unet_time.lora_down.weight"] = torch.zeros(1, 1)
    tensors["lora_unet_time.lora_up.weight"] = torch.zeros(4, 1)


def _only_alphas(tensors: dict[str, Tensor]) -> None:
    for key in [key for key in tensors if not key.endswith(".alpha")]:
        del tensors[key]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_rename, "no place for 'lora_unet_elsewhere"),
        (_foreign, "not a LoRA tensor"),
        (_lose, "missing"),
        (_reshape, "'time.lora_B.weight' is"),
        (_two_alphas, "one alpha"),
        (_two_ranks, "one rank"),
        (_only_alphas, "no LoRA tensors"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_and_nothing_changes(
    net: Net, tmp_path: Path, spoil: Callable[[dict[str, Tensor]], None], reason: str
) -> None:
    before, path = anatomy(net), tmp_path / "taste.safetensors"
    tensors = LiveAdapter(net, rank=3).export("kohya")
    spoil(tensors)
    write_safetensors(tensors, path)
    with pytest.raises(AdapterError, match=reason):
        LiveAdapter.load(net, path)
    assert anatomy(net) == before


@pytest.mark.parametrize("fault", ["truncated", "garbage", "empty", "absent"])
def test_a_damaged_file_is_named_in_the_error(net: Net, tmp_path: Path, fault: str) -> None:
    path = tmp_path / "taste.safetensors"
    LiveAdapter(net).save(path)
    whole = path.read_bytes()
    path.write_bytes(
        {"truncated": whole[:-7], "garbage": b"\xff" * 64, "empty": b"", "absent": b""}[fault]
    )
    if fault == "absent":
        path.unlink()
    with pytest.raises(AdapterError, match=r"taste\.safetensors"):
        LiveAdapter.load(net, path)


def test_who_reads_a_file_while_it_is_saved_sees_the_old_one(net: Net, tmp_path: Path) -> None:
    path, adapter = tmp_path / "taste.safetensors", LiveAdapter(net)
    adapter.save(path)
    before = path.read_bytes()
    with path.open("rb") as reader:
        randomise(adapter).save(path)
        assert reader.read() == before
    assert path.read_bytes() != before


def test_a_failed_save_keeps_the_old_file(
    net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, adapter = tmp_path / "taste.safetensors", LiveAdapter(net)
    adapter.save(path)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        randomise(adapter).save(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["taste.safetensors"]


# Other programs -----------------------------------------------------------------------------------


def test_peft_itself_reads_the_peft_layout(net: Net, tmp_path: Path) -> None:
    adapter = randomise(LiveAdapter(net, rank=3, alpha=6))
    path = tmp_path / "taste.safetensors"
    adapter.save(path, layout="peft")
    with adapter.attached():
        taught = output(net)
    config = LoraConfig(r=3, lora_alpha=6, target_modules=adapter.targets)
    other = get_peft_model(copy.deepcopy(net), config).eval()
    result = set_peft_model_state_dict(other, load_file(path))
    assert not result.unexpected_keys
    assert not [key for key in result.missing_keys if "lora" in key]
    assert torch.equal(output(other), taught)


@pytest.fixture
def unet() -> Any:
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    return diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=8,
        attention_head_dim=4,
        norm_num_groups=4,
    ).eval()


def denoised(unet: Any) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    latents = torch.randn(2, 4, 8, 8, generator=generator)
    text = torch.randn(2, 5, 8, generator=generator)
    with torch.no_grad():
        return unet(latents, torch.tensor([3, 700]), text).sample


def test_a_unet_keeps_its_weights_and_its_output(unet: Any) -> None:
    before, plain = anatomy(unet), denoised(unet)
    adapter = LiveAdapter(unet, rank=2)
    with adapter.attached():
        assert torch.equal(denoised(unet), plain)
        randomise(adapter, size=0.1)
        assert not torch.allclose(denoised(unet), plain)
    assert anatomy(unet) == before
    assert torch.equal(denoised(unet), plain)
    assert "conv_in" not in adapter.targets
    assert "conv_out" not in adapter.targets
    assert "down_blocks.0.resnets.0.conv1" in adapter.targets


def test_diffusers_loads_a_unet_s_kohya_file_whole(unet: Any, tmp_path: Path) -> None:
    from diffusers import StableDiffusionPipeline

    adapter = randomise(LiveAdapter(unet, rank=2, alpha=3), size=0.1)
    adapter.save(tmp_path / "taste.safetensors")
    with adapter.attached():
        taught = denoised(unet)
    state, alphas = StableDiffusionPipeline.lora_state_dict(
        tmp_path, weight_name="taste.safetensors", unet_config=unet.config, local_files_only=True
    )
    StableDiffusionPipeline.load_lora_into_unet(state, alphas, unet, adapter_name="taste")
    theirs = {
        name.replace(".taste.weight", ".weight"): parameter
        for name, parameter in unet.named_parameters()
        if ".taste." in name
    }
    assert theirs.keys() == adapter.state_dict().keys()
    assert all(torch.equal(theirs[key], value) for key, value in adapter.state_dict().items())
    torch.testing.assert_close(denoised(unet), taught, rtol=1e-5, atol=1e-6)
