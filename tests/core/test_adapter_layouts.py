"""Files of every layout, fused layers in parts, and which layers of a transformer learn."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from palate.core.adapter import AdapterError, LiveAdapter, Part, default_targets
from torch import Tensor, nn


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(6, 14), nn.Linear(6, 6)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn = Attention()
        self.mlp = nn.Sequential(nn.Linear(6, 12), nn.SiLU(), nn.Linear(12, 6))
        self.img_mod = nn.Linear(6, 12)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(6, 12))
        self.modulation = nn.Linear(6, 12)
        self.modest = nn.Linear(6, 6)


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(4, 6, 2, stride=2)
        self.time = nn.Sequential(nn.Linear(6, 6), nn.SiLU(), nn.Linear(6, 6))
        self.blocks = nn.ModuleList([Block(), Block()])
        self.final = nn.Linear(6, 4)


INSIDE = ["attn.qkv", "attn.out", "mlp.0", "mlp.2", "modest"]
QKV = [Part("a.to_k", 6, 4), Part("a.to_q", 0, 6), Part("a.to_v", 10, 4)]
NAMES = {"blocks.0.attn.qkv": QKV, "blocks.0.attn.out": "a.to_out.0"}


@pytest.fixture
def adapter() -> LiveAdapter:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = LiveAdapter(Transformer(), rank=2, alpha=3)
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.normal_()
    return made


def update(down: Tensor, up: Tensor, alpha: float) -> Tensor:
    return alpha / len(down) * up @ down


def test_a_transformer_s_blocks_learn_without_modulation_embedders_and_the_last_layer() -> None:
    expected = [f"blocks.{i}.{name}" for i in (0, 1) for name in INSIDE]
    assert default_targets(Transformer()) == expected


def test_sdxl_s_embedding_of_sizes_is_no_target() -> None:
    net = nn.ModuleDict(
        {
            "input_blocks": nn.ModuleList([nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)]),
            "label_emb": nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))),
            "out": nn.Conv2d(4, 4, 3),
        }
    )
    assert default_targets(net) == ["input_blocks.1"]


@pytest.mark.parametrize("layout", ["kohya", "peft", "diffusers", "generic"])
def test_a_fused_layer_in_parts_is_the_same_update(adapter: LiveAdapter, layout: str) -> None:
    state, file = adapter.state_dict(), adapter.export(layout, NAMES)
    whole = update(
        state["blocks.0.attn.qkv.lora_A.weight"], state["blocks.0.attn.qkv.lora_B.weight"], 3.0
    )
    prefix, down, up = {
        "kohya": ("lora_unet_a_to_{}", ".lora_down.weight", ".lora_up.weight"),
        "peft": ("base_model.model.a.to_{}", ".lora_A.weight", ".lora_B.weight"),
        "diffusers": ("transformer.a.to_{}", ".lora_A.weight", ".lora_B.weight"),
        "generic": ("diffusion_model.a.to_{}", ".lora_A.weight", ".lora_B.weight"),
    }[layout]
    rows = []
    for part in "qkv":
        name = prefix.format(part)
        alpha = float(file.get(f"{name}.alpha", 3.0 if layout == "peft" else 2.0))
        rows.append(update(file[name + down], file[name + up], alpha))
    assert [len(part) for part in rows] == [6, 4, 4]
    torch.testing.assert_close(torch.cat(rows), whole)
    assert (f"{name}.alpha" in file) == (layout == "kohya")


@pytest.mark.parametrize("layout", ["kohya", "peft", "diffusers", "generic"])
def test_a_file_in_parts_comes_back_as_one(
    adapter: LiveAdapter, tmp_path: Path, layout: str
) -> None:
    adapter.save(tmp_path / "taste.safetensors", layout=layout, names=NAMES)
    again = LiveAdapter.load(adapter.module, tmp_path / "taste.safetensors", NAMES)
    assert set(again.targets) == set(adapter.targets)
    own, read = adapter.state_dict(), again.state_dict()
    for target in adapter.targets:
        keys = f"{target}.lora_A.weight", f"{target}.lora_B.weight"
        torch.testing.assert_close(
            update(read[keys[0]], read[keys[1]], again.alpha),
            update(own[keys[0]], own[keys[1]], adapter.alpha),
        )


@pytest.mark.parametrize(
    "parts", [QKV[:2], [*QKV, Part("a.more", 14, 2)], [Part("a.to_q", 1, 13)]], ids=len
)
def test_parts_that_do_not_make_the_layer_are_refused(
    adapter: LiveAdapter, parts: list[Part]
) -> None:
    with pytest.raises(AdapterError, match=r"blocks\.0\.attn\.qkv"):
        adapter.export("diffusers", {"blocks.0.attn.qkv": parts})


def test_parts_with_an_a_of_their_own_are_refused(adapter: LiveAdapter, tmp_path: Path) -> None:
    from palate.core.adapter import write_safetensors

    file = adapter.export("diffusers", NAMES)
    file["transformer.a.to_v.lora_A.weight"] += 1
    write_safetensors(file, tmp_path / "other.safetensors")
    with pytest.raises(AdapterError, match=r"other\.safetensors.*blocks\.0\.attn\.qkv"):
        LiveAdapter.load(adapter.module, tmp_path / "other.safetensors", NAMES)


def test_a_three_dimensional_convolution_is_refused_by_name() -> None:
    net = nn.ModuleDict({"video": nn.Conv3d(2, 2, 1), "other": nn.Linear(2, 2)})
    with pytest.raises(AdapterError, match="'video' is a Conv3d"):
        LiveAdapter(net, targets=["video"])


def test_an_error_restores_the_tensors_and_success_keeps_them(adapter: LiveAdapter) -> None:
    before = adapter.state_dict()

    def spoil() -> None:
        with torch.no_grad():
            for parameter in adapter.parameters():
                parameter.fill_(float("nan"))

    def fail() -> None:
        with adapter.restored_on_error():
            spoil()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert all(torch.equal(before[key], value) for key, value in adapter.state_dict().items())
    with adapter.restored_on_error():
        spoil()
    assert all(bool(torch.isnan(value).all()) for value in adapter.state_dict().values())
