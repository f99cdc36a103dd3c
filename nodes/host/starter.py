"""The starter model as genuine MODEL, CLIP and VAE objects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import comfy.clip_model
import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models_base
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

FOLDER = Path(__file__).resolve().parents[2] / "starter" / "model"


def _config(part: str) -> dict[str, Any]:
    return json.loads((FOLDER / part / "config.json").read_text("utf-8"))


def _weights(part: str, name: str) -> dict[str, Tensor]:
    state = comfy.utils.load_torch_file(str(FOLDER / part / f"{name}.safetensors"), safe_load=True)
    return {key: tensor.float() for key, tensor in state.items()}


def load_starter() -> tuple[ModelPatcher, comfy.sd.CLIP, comfy.sd.VAE]:
    """(MODEL, CLIP, VAE) on which stock nodes work. Raises FileNotFoundError if it is missing."""
    if not (FOLDER / "unet" / "config.json").exists():
        raise FileNotFoundError(
            f"The starter model is not in {FOLDER}: fetch the whole pack again, or make it with "
            "'python -m palate.starter.train all'."
        )
    return _model(), _clip(), _vae()


def _unet_config(config: dict[str, Any]) -> dict[str, Any]:
    """diffusers' description of the U-Net → ComfyUI's."""
    widths, layers = config["block_out_channels"], config["layers_per_block"]
    attends = [int("CrossAttn" in kind) for kind in config["down_block_types"]]
    up_attends = [int("CrossAttn" in kind) for kind in config["up_block_types"]]
    return {
        "image_size": config["sample_size"],
        "in_channels": config["in_channels"],
        "out_channels": config["out_channels"],
        "model_channels": widths[0],
        "channel_mult": [width // widths[0] for width in widths],
        "num_res_blocks": [layers] * len(widths),
        "transformer_depth": [a for a in attends for _ in range(layers)],
        # ComfyUI pops this list from its end while it goes up.
        "transformer_depth_output": [a for a in reversed(up_attends) for _ in range(layers + 1)],
        "transformer_depth_middle": 1,
        "context_dim": config["cross_attention_dim"],
        "num_heads": config["attention_head_dim"],
        "num_head_channels": -1,
        "use_spatial_transformer": True,
        "use_linear_in_transformer": False,
        "adm_in_channels": None,
        "legacy": False,
        "dtype": torch.float32,
    }


def _model() -> ModelPatcher:
    latent = _config("vae")
    preview = json.loads((FOLDER / "vae" / "latent_rgb.json").read_text("utf-8"))

    class Latent(comfy.latent_formats.LatentFormat):
        latent_channels = latent["latent_channels"]
        scale_factor = latent["scaling_factor"]
        latent_rgb_factors = preview["factors"]
        latent_rgb_factors_bias = preview["bias"]

    class Starter(comfy.supported_models_base.BASE):
        unet_extra_config = {}  # noqa: RUF012 - the host's own attribute
        latent_format = Latent
        memory_usage_factor = 0.5

        def inpaint_model(self) -> bool:
            return False  # eight latent channels, and no mask among them

    config = Starter(_unet_config(_config("unet")))
    names = comfy.utils.unet_to_diffusers(config.unet_config)
    state = _weights("unet", "diffusion_pytorch_model")
    unmatched = state.keys() - names.keys()
    if unmatched:
        raise ValueError(
            f"the starter model has weights ComfyUI does not know: {sorted(unmatched)[:3]}"
        )
    device = comfy.model_management.get_torch_device()
    offload = comfy.model_management.unet_offload_device()
    config.set_inference_dtype(torch.float32, None)
    model = comfy.model_base.BaseModel(config, device=offload)
    model.diffusion_model.load_state_dict({names[key]: state[key] for key in state})
    model.diffusion_model.eval()
    return ModelPatcher(model, load_device=device, offload_device=offload)


def _clip() -> comfy.sd.CLIP:
    text = _config("text_encoder")
    length, end = text["max_position_embeddings"], text["eos_token_id"]
    tokens = {"start": text["bos_token_id"], "end": end, "pad": end}

    class Transformer(comfy.clip_model.CLIPTextModel):
        def __init__(self, config: dict[str, Any], dtype: Any, device: Any, operations: Any):
            super().__init__(config, dtype, device, operations)
            # ComfyUI's class has CLIP's own vocabulary size; this model has a small one.
            self.text_model.embeddings.token_embedding = operations.Embedding(
                config["vocab_size"], config["hidden_size"], dtype=dtype, device=device
            )

    class TextModel(comfy.sd1_clip.SDClipModel):
        def __init__(self, device: Any = "cpu", dtype: Any = None, model_options: Any = None):
            super().__init__(
                device=device, dtype=dtype, max_length=length, textmodel_json_config=text,
                special_tokens=tokens, return_projected_pooled=False, model_class=Transformer,
                model_options=model_options or {},
            )  # fmt: skip

    class Encoder(comfy.sd1_clip.SD1ClipModel):
        def __init__(self, device: Any = "cpu", dtype: Any = None, model_options: Any = None):
            super().__init__(
                device=device, dtype=dtype, model_options=model_options or {}, clip_model=TextModel
            )

    class TokenReader(comfy.sd1_clip.SDTokenizer):
        def __init__(self, embedding_directory: Any = None, tokenizer_data: Any = None):
            super().__init__(
                tokenizer_path=str(FOLDER / "tokenizer"), max_length=length,
                embedding_directory=embedding_directory, embedding_size=text["hidden_size"],
                tokenizer_data=tokenizer_data or {},
            )  # fmt: skip

    class Tokenizer(comfy.sd1_clip.SD1Tokenizer):
        def __init__(self, embedding_directory: Any = None, tokenizer_data: Any = None):
            super().__init__(embedding_directory, tokenizer_data or {}, tokenizer=TokenReader)

    class Target:
        params: dict[str, Any] = {}  # noqa: RUF012 - read by comfy.sd.CLIP
        clip = Encoder
        tokenizer = Tokenizer

    clip = comfy.sd.CLIP(Target, model_options={"dtype": torch.float32})
    state = _weights("text_encoder", "model")
    state["text_model.embeddings.position_ids"] = torch.arange(length)[None]
    state["text_projection.weight"] = torch.eye(text["hidden_size"])
    clip.load_sd(_text_keys(state))
    return clip


def _text_keys(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """transformers 5 dropped the ``text_model.`` prefix that ComfyUI expects; put it back."""
    outer = ("text_model.", "text_projection.")
    return {k if k.startswith(outer) else f"text_model.{k}": v for k, v in state.items()}


def _vae() -> comfy.sd.VAE:
    state = {"vae_scale": torch.tensor(1.0), "vae_shift": torch.tensor(0.0)}
    for key, tensor in _weights("vae", "diffusion_pytorch_model").items():
        side, _, index, rest = key.split(".", 3)
        # ComfyUI's decoder begins with the clamp that diffusers applies outside its layers.
        place = int(index) + (1 if side == "decoder" else 0)
        state[f"taesd_{side}.{place}.{rest}"] = tensor
    return comfy.sd.VAE(sd=state, dtype=torch.float32)
