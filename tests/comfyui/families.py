"""Every model family at a small size, in a process of its own beside ComfyUI's code.

    python families.py COMFYUI_FOLDER RESULT.json

For each family: ComfyUI's own class with random weights → live adapter → one training step →
every layout of the file → ComfyUI's LoRA loader, PEFT and diffusers. Writes what it found as JSON.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

COMFYUI, RESULT = Path(sys.argv[1]), Path(sys.argv[2])
sys.argv = [sys.argv[0], *sys.argv[3:]]
sys.path[:0] = [str(COMFYUI)]

import torch  # noqa: E402
import utils.extra_config  # noqa: E402, F401 - before another module of that name is found
from comfy.cli_args import args  # noqa: E402

args.cpu = True

import comfy.lora  # noqa: E402
import comfy.model_patcher  # noqa: E402
import comfy.ops  # noqa: E402
import comfy.sampler_helpers  # noqa: E402
import comfy.samplers  # noqa: E402
import comfy.sd  # noqa: E402
import comfy.supported_models as supported  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("launch_package", ROOT / "launch" / "package.py")
package = importlib.util.module_from_spec(spec)
spec.loader.exec_module(package)
package.import_palate()

from palate.core.adapter import LiveAdapter, default_targets  # noqa: E402
from palate.core.papa import Guidance, PapaConfig, RatedSamples, guided, papa_update  # noqa: E402
from palate.nodes.host import draw_images, families  # noqa: E402

training = sys.modules["palate.nodes.host.training"]  # the package has a function of this name

torch.set_num_threads(1)

UNET = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 32,
    "num_res_blocks": [1, 1], "channel_mult": [1, 2], "transformer_depth": [1, 1],
    "transformer_depth_output": [1, 1, 1, 1], "transformer_depth_middle": 1,
    "use_spatial_transformer": True, "legacy": False, "use_temporal_attention": False,
}  # fmt: skip
SD15 = {
    **UNET, "context_dim": 24, "use_linear_in_transformer": False, "adm_in_channels": None
}  # fmt: skip
SDXL = {**UNET, "model_channels": 64, "context_dim": 40, "use_linear_in_transformer": True,
        "num_classes": "sequential", "adm_in_channels": 2816}  # fmt: skip
SD3 = {"input_size": None, "pos_embed_scaling_factor": None, "pos_embed_max_size": 16,
       "patch_size": 2, "in_channels": 16, "out_channels": 16, "depth": 2, "num_patches": 256,
       "adm_in_channels": 2048, "qk_norm": "rms", "x_block_self_attn_layers": [0],
       "context_embedder_config": {"target": "torch.nn.Linear",
                                   "params": {"in_features": 24, "out_features": 128}}}  # fmt: skip
FLUX = {"image_model": "flux", "in_channels": 16, "out_channels": 16, "patch_size": 2,
        "vec_in_dim": 24, "context_in_dim": 24, "hidden_size": 64, "mlp_ratio": 4.0,
        "num_heads": 2, "depth": 1, "depth_single_blocks": 2, "axes_dim": [8, 12, 12],
        "theta": 10000, "qkv_bias": True, "guidance_embed": True}  # fmt: skip
LUMINA2 = {"image_model": "lumina2", "patch_size": 2, "in_channels": 16, "dim": 64, "n_layers": 2,
           "n_refiner_layers": 1, "n_heads": 4, "n_kv_heads": 2, "multiple_of": 16,
           "ffn_dim_multiplier": 1.0, "qk_norm": True, "cap_feat_dim": 24, "axes_dims": [4, 6, 6],
           "axes_lens": [64, 32, 32]}  # fmt: skip
Z_IMAGE = {**LUMINA2, "dim": 256, "n_kv_heads": 4, "axes_dims": [16, 24, 24], "multiple_of": 2,
           "ffn_dim_multiplier": 2.6641, "z_image_modulation": True, "time_scale": 1000.0,
           "pad_tokens_multiple": 8}  # fmt: skip
QWEN = {"image_model": "qwen_image", "patch_size": 2, "in_channels": 64, "out_channels": 16,
        "num_layers": 2, "attention_head_dim": 32, "num_attention_heads": 2,
        "joint_attention_dim": 24, "axes_dims_rope": (8, 12, 12)}  # fmt: skip
WAN = {"image_model": "wan2.1", "model_type": "t2v", "patch_size": (1, 2, 2), "text_len": 8,
       "in_dim": 16, "dim": 64, "ffn_dim": 96, "freq_dim": 32, "text_dim": 24, "out_dim": 16,
       "num_heads": 2, "num_layers": 2, "qk_norm": True, "cross_attn_norm": True,
       "eps": 1e-6}  # fmt: skip

# name → (ComfyUI's class, its configuration, one latent's shape, lengths of two prompts)
FAMILIES: dict[str, tuple[Any, dict[str, Any], tuple[int, ...], tuple[int, int]]] = {
    "SD1.5": (supported.SD15, SD15, (4, 8, 8), (7, 14)),
    "SDXL": (supported.SDXL, SDXL, (4, 8, 8), (7, 7)),
    "SD3": (supported.SD3, SD3, (16, 8, 8), (7, 9)),
    "Flux": (supported.Flux, FLUX, (16, 8, 8), (7, 9)),
    "Lumina2": (supported.Lumina2, LUMINA2, (16, 8, 8), (7, 9)),
    "Z-Image": (supported.ZImage, Z_IMAGE, (16, 8, 8), (7, 9)),
    "Qwen-Image": (supported.QwenImage, QWEN, (16, 1, 8, 8), (7, 9)),
    "Wan": (supported.WAN21_T2V, WAN, (16, 3, 8, 8), (7, 8)),
}
WIDTH = {"SDXL": 40}
POOLED = {"SDXL": 1280, "SD3": 2048, "Flux": 24}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def build(name: str, dtype: torch.dtype = torch.float32) -> comfy.model_patcher.ModelPatcher:
    """ComfyUI's own MODEL of the family at a small size, with random weights."""
    kind, settings, _, _ = FAMILIES[name]
    config = kind({**settings, "dtype": dtype})
    compute = None if dtype in (torch.float32, torch.bfloat16) else torch.float32
    config.set_inference_dtype(dtype, compute)
    model = config.get_model({}, "", device="cpu").eval()
    rng = generator(1)
    with torch.no_grad():
        for key, parameter in model.diffusion_model.state_dict().items():
            size = 1.0 if parameter.ndim == 1 and key.endswith("weight") else 0.0
            spread = 0.5 / max(1, parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else 0.05
            values = torch.randn(parameter.shape, generator=rng) * spread + size
            parameter.copy_(values.to(parameter.dtype))
    return comfy.model_patcher.ModelPatcher(model, torch.device("cpu"), torch.device("cpu"))


def conditionings(name: str, count: int) -> list[list]:
    """Two prompts of unlike length, taking turns."""
    rng, lengths = generator(2), FAMILIES[name][3]
    found = []
    for i in range(count):
        embedding = torch.randn(1, lengths[i % 2], WIDTH.get(name, 24), generator=rng)
        options: dict[str, Any] = {}
        if name in POOLED:
            options["pooled_output"] = torch.randn(1, POOLED[name], generator=rng)
        if name in ("Lumina2", "Z-Image"):
            options["attention_mask"] = torch.ones(1, lengths[i % 2])
        found.append([[embedding, options]])
    return found


def predictor(name: str, model: Any, count: int = 4) -> Callable[..., torch.Tensor]:
    return training.noise_predictor(model, conditionings(name, count), FAMILIES[name][2])


def prediction(name: str, model: Any) -> torch.Tensor:
    """ε̂ for four latents, at four timesteps."""
    rng, schedule = generator(3), training.noise_schedule(model)
    x = torch.randn(4, *FAMILIES[name][2], generator=rng)
    t = torch.tensor([0.1, 0.4, 0.7, 0.9]).mul(len(schedule)).long()
    with torch.no_grad():
        return predictor(name, model)(x, t, torch.arange(4))


def learn(name: str, model: Any, adapter: LiveAdapter, **settings: Any) -> Any:
    """One optimiser step on two liked and two disliked latents."""
    samples = RatedSamples(
        torch.randn(4, *FAMILIES[name][2], generator=generator(4)),
        torch.tensor([1.0, -1, 0.5, -0.5]),
        fresh=4,
    )
    settings = {"precision": "float32", **settings}
    config = PapaConfig(steps=1, timesteps=3, learning_rate=1e-2, **settings)
    with training.training(model), adapter.attached():
        report, _ = papa_update(
            adapter, predictor(name, model), samples, training.alphas_cumprod(model), config,
            generator=generator(5),
        )  # fmt: skip
    return report


def difference(first: torch.Tensor, second: torch.Tensor) -> float:
    return float((first - second).abs().max() / first.abs().max())


def through_lora_loader(name: str, file: dict[str, torch.Tensor]) -> tuple[list[str], Any]:
    """(keys that the stock loader did not take, ε̂ of the patched MODEL)."""
    model = build(name)
    keys = comfy.lora.model_lora_keys_unet(model.model, {})
    taken: set[str] = set()
    patches = comfy.lora.load_lora(dict(file), keys, log_missing=False)
    for adapter in patches.values():
        taken |= set(adapter.loaded_keys)
    patched = model.clone()
    applied = patched.add_patches(patches, 1.0)
    assert len(applied) == len(patches)
    patched.patch_model()
    try:
        return sorted(file.keys() - taken), prediction(name, patched)
    finally:
        patched.unpatch_model()


def through_peft(adapter: LiveAdapter, name: str) -> tuple[list[str], Any]:
    """(keys that PEFT did not expect, ε̂ with PEFT's own layers)."""
    from peft import LoraConfig, get_peft_model, set_peft_model_state_dict

    model = build(name)
    pattern = "|".join(target.replace(".", r"\.") for target in adapter.targets)
    config = LoraConfig(r=adapter.rank, lora_alpha=adapter.alpha, target_modules=pattern)
    adapted = get_peft_model(model.model.diffusion_model, config)
    result = set_peft_model_state_dict(adapted, adapter.export("peft"))
    missing = [key for key in result.missing_keys if "lora_" in key]
    return [*result.unexpected_keys, *missing], prediction(name, model)


def through_diffusers(name: str, file: dict[str, torch.Tensor]) -> list[str]:
    """Keys that the family's diffusers class left over or got with other values."""
    import diffusers as d

    common = {"num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 32,
              "patch_size": 2, "joint_attention_dim": 24, "out_channels": 16}  # fmt: skip
    lumina = {"axes_lens": (64, 32, 32), "cap_feat_dim": 24, "in_channels": 16}
    tiny: dict[str, tuple[Any, Any, dict[str, Any]]] = {
        "SD3": (d.SD3Transformer2DModel, d.StableDiffusion3Pipeline, {
            **common, "sample_size": 16, "in_channels": 16, "attention_head_dim": 64,
            "caption_projection_dim": 128, "pooled_projection_dim": 2048, "pos_embed_max_size": 16,
            "dual_attention_layers": (0,), "qk_norm": "rms_norm"}),
        "Flux": (d.FluxTransformer2DModel, d.FluxPipeline, {
            **common, "patch_size": 1, "in_channels": 64, "num_layers": 1, "num_single_layers": 2,
            "pooled_projection_dim": 24, "guidance_embeds": True, "axes_dims_rope": (8, 12, 12)}),
        "Lumina2": (d.Lumina2Transformer2DModel, d.Lumina2Pipeline, {
            **lumina, "sample_size": 8, "hidden_size": 64, "num_layers": 2,
            "num_refiner_layers": 1, "num_attention_heads": 4, "num_kv_heads": 2,
            "multiple_of": 16, "ffn_dim_multiplier": 0.25, "axes_dim_rope": (4, 6, 6)}),
        "Z-Image": (d.ZImageTransformer2DModel, d.ZImagePipeline, {
            **lumina, "all_patch_size": (2,), "all_f_patch_size": (1,), "dim": 256, "n_layers": 2,
            "n_refiner_layers": 1, "n_heads": 4, "n_kv_heads": 4, "axes_dims": [16, 24, 24]}),
        "Qwen-Image": (d.QwenImageTransformer2DModel, d.QwenImagePipeline, {
            **common, "in_channels": 64, "axes_dims_rope": (8, 12, 12)}),
        "Wan": (d.WanTransformer3DModel, d.WanPipeline, {
            "num_attention_heads": 2, "attention_head_dim": 32, "in_channels": 16,
            "out_channels": 16, "text_dim": 24, "freq_dim": 32, "ffn_dim": 96, "num_layers": 2}),
    }  # fmt: skip
    kind, pipeline, settings = tiny[name]
    transformer = kind(**settings)
    found = pipeline.lora_state_dict(dict(file))
    state = found[0] if isinstance(found, tuple) else found
    state = {key.removeprefix("transformer."): tensor for key, tensor in state.items()}
    transformer.load_lora_adapter(state, prefix=None, adapter_name="taste")
    theirs = {
        key.replace(".taste.weight", ".weight"): p
        for key, p in transformer.named_parameters()
        if ".taste." in key
    }
    wrong = sorted(theirs.keys() ^ state.keys())
    wrong += [k for k in theirs.keys() & state.keys() if not torch.equal(theirs[k], state[k])]
    return wrong


def sd_through_diffusers(name: str, file: dict[str, torch.Tensor]) -> list[str]:
    """The U-Nets' kohya file in the pipelines' own conversion."""
    import diffusers as d

    config = FAMILIES[name][1]
    more: dict[str, Any] = {}
    if name == "SDXL":
        more = {"addition_embed_type": "text_time", "addition_time_embed_dim": 256,
                "projection_class_embeddings_input_dim": 2816}  # fmt: skip
    unet = d.UNet2DConditionModel(
        sample_size=8, layers_per_block=1, attention_head_dim=2,
        block_out_channels=(config["model_channels"], 2 * config["model_channels"]),
        cross_attention_dim=config["context_dim"],
        down_block_types=("CrossAttnDownBlock2D",) * 2, up_block_types=("CrossAttnUpBlock2D",) * 2,
        use_linear_projection=config["use_linear_in_transformer"], **more,
    )  # fmt: skip
    pipeline = d.StableDiffusionXLPipeline if name == "SDXL" else d.StableDiffusionPipeline
    state, alphas = pipeline.lora_state_dict(dict(file), unet_config=unet.config)[:2]
    pipeline.load_lora_into_unet(state, alphas, unet, adapter_name="taste")
    loaded = sum(".lora_" in key for key, _ in unet.named_parameters())
    tensors = sum(".alpha" not in key for key in file)
    return [] if loaded == tensors else [f"{loaded} of {tensors} tensors"]


def examine(name: str) -> dict[str, Any]:
    began, model = time.time(), build(name)
    network = model.model.diffusion_model
    base = prediction(name, model)
    adapter = LiveAdapter(network, rank=2, alpha=4)
    assert adapter.targets == default_targets(network)
    with adapter.attached():
        assert torch.equal(prediction(name, model), base)
    report = learn(name, model, adapter)
    report = learn(name, model, adapter)  # A has no gradient while B is zero
    layout, names = families.portable_layout(model)
    with adapter.attached():
        taught = prediction(name, model)
    assert torch.equal(prediction(name, model), base)
    found: dict[str, Any] = {
        "schedule": "flow" if training.noise_schedule(model).flow else "variance",
        "targets": adapter.targets,
        "rolled_back": report.rolled_back,
        "gradient_norm": report.gradient_norm[0] if report.gradient_norm else 0.0,
        "still": [k for k, p in adapter.state_dict().items() if "lora_B" in k and not p.any()],
        "moved": difference(base, taught),
        "layout": layout,
        "finite": bool(torch.isfinite(taught).all()),
    }
    exports = {"portable": adapter.export(layout, names), "generic": adapter.export("generic")}
    exports["kohya"] = adapter.export("kohya", names if layout == "kohya" else None)
    for one, file in exports.items():
        left, drawn = through_lora_loader(name, file)
        found[f"loader {one}"] = {"left": left, "difference": difference(taught, drawn)}
    path = RESULT.with_suffix(".safetensors")
    adapter.save(path, layout=layout, names=names)
    again = LiveAdapter.load(network, path, names)
    with again.attached():
        found["reloaded"] = difference(taught, prediction(name, model))
    left, drawn = through_peft(adapter, name)
    found["peft"] = {"left": left, "difference": difference(taught, drawn)}
    theirs = adapter.export(*families.diffusers_layout(model))
    through = sd_through_diffusers if layout == "kohya" else through_diffusers
    found["diffusers"] = through(name, theirs)
    found["checkpointing"] = gradients_with_checkpointing(name)
    found["guidance"] = guidance(name)
    found["previews"] = previews(name)
    for dtype in (torch.bfloat16, torch.float8_e4m3fn):
        found[str(dtype).removeprefix("torch.")] = low_precision(name, dtype)
    found["seconds"] = time.time() - began
    return found


def guidance(name: str, cfg: float = 4.0) -> float:
    """How far our guided prediction is from that of ComfyUI's own samplers."""
    model, (positive, negative) = build(name), conditionings(name, 2)
    shape, schedule = FAMILIES[name][2], training.noise_schedule(model)
    x_t, t = torch.randn(3, *shape, generator=generator(8)), torch.tensor([len(schedule) // 2] * 3)
    alpha, sigma, scale = (float(part[0]) for part in schedule.coefficients(t))
    converted = {
        "positive": comfy.sampler_helpers.convert_cond(positive),
        "negative": comfy.sampler_helpers.convert_cond(negative),
    }
    cpu = torch.device("cpu")
    with torch.no_grad():
        plain = training.noise_predictor(model, [positive], shape, negative)
        ours = guided(plain, Guidance(1, cfg))(x_t, t, torch.zeros(3, dtype=torch.long))
        x, model.model.current_patcher = x_t * scale, model
        conds = comfy.samplers.process_conds(model.model, x, converted, cpu)
        denoised = comfy.samplers.sampling_function(
            model.model, x, torch.tensor([sigma] * 3), conds["negative"], conds["positive"], cfg, {}
        )
    return difference((x - alpha * denoised) / sigma, ours)


def gradients_with_checkpointing(name: str) -> float:
    """How far checkpointing moves what is learnt: it must not."""
    states = []
    for checkpointing in ("off", "on"):
        model = build(name)
        adapter = LiveAdapter(model.model.diffusion_model, rank=2, alpha=4)
        learn(name, model, adapter, checkpointing=checkpointing)
        states.append(torch.cat([p.flatten() for p in adapter.state_dict().values()]))
    return difference(*states)


class Decoder:
    """Stands in for a VAE: three channels of the latents as colours."""

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return latents[:, :3].movedim(1, -1)


def previews(name: str) -> dict[str, Any]:
    """Three images of two kinds of prompt, and how far each is from the same drawn alone."""
    model, shape = build(name), FAMILIES[name][2]
    prompts, settings = conditionings(name, 3), {"steps": 2, "cfg": 2.0}
    with torch.inference_mode():
        images = draw_images(model, Decoder(), prompts, shape, **settings)
        one = draw_images(model, Decoder(), prompts[:1], shape, **settings)
    return {
        "shape": list(images.shape),
        "finite": bool(images.isfinite().all()),
        "first alone": difference(one[0], images[0]),
        "alike": difference(images[0], images[2]),
    }


def low_precision(name: str, dtype: torch.dtype) -> dict[str, Any]:
    """One step on weights in half or 8-bit precision."""
    model = build(name, dtype)
    adapter = LiveAdapter(model.model.diffusion_model, rank=2, alpha=4)
    report = learn(name, model, adapter, precision="auto")
    return {
        "rolled_back": report.rolled_back,
        "dtypes": sorted({str(p.dtype) for p in adapter.parameters()}),
        "moved": any(bool(p.any()) for p in adapter.parameters()[1::2]),
    }


def main() -> None:
    results = {}
    for name in sys.argv[1:] or FAMILIES:
        try:
            results[name] = examine(name)
        except Exception:
            results[name] = {"error": traceback.format_exc()}
    RESULT.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
