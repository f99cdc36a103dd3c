"""The starter model in plain diffusers, without ComfyUI: for its own evaluation and benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderTiny, DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from ..core.adapter import LiveAdapter
from ..core.schedule import sigmas_of

MODEL = Path(__file__).parent / "model"


@dataclass
class Starter:
    """The four parts of the model, in float32 on one device, and its ᾱ_t (1000,)."""

    unet: UNet2DConditionModel
    vae: AutoencoderTiny
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    alphas_cumprod: Tensor

    @classmethod
    def load(cls, folder: Path = MODEL, device: str = "cpu") -> Starter:
        """Reads the diffusers folder; nothing is downloaded. Raises OSError if it is not there."""
        unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32)
        unet.set_attn_processor(AttnProcessor())  # small sequences: plain products are faster
        parts = (
            unet,
            AutoencoderTiny.from_pretrained(folder / "vae", torch_dtype=torch.float32),
            CLIPTextModel.from_pretrained(folder / "text_encoder", torch_dtype=torch.float32),
        )
        for part in parts:
            part.to(device).requires_grad_(False).eval()
        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
        scheduler = DDIMScheduler.from_pretrained(folder / "scheduler")
        return cls(*parts, tokenizer, scheduler.alphas_cumprod.to(device))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one latent: (channels, h, w)."""
        config = self.unet.config
        return config.in_channels, config.sample_size, config.sample_size

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Tensor:
        """Text conditioning: (N, 32, 128)."""
        tokens = self.tokenizer(
            list(prompts), padding="max_length", truncation=True, return_tensors="pt",
            max_length=self.text_encoder.config.max_position_embeddings,
        ).input_ids  # fmt: skip
        return self.text_encoder(tokens.to(self.alphas_cumprod.device)).last_hidden_state

    def predict_noise(self, x_t: Tensor, t: Tensor, context: Tensor) -> Tensor:
        """ε_θ in DDPM notation for x_t (N, C, h, w), t (N,), context (N, 32, 128)."""
        return self.unet(x_t, t, context).sample

    @torch.no_grad()
    def sample(
        self,
        prompts: Sequence[str],
        noise: Tensor,
        steps: int = 20,
        guidance: float = 3.0,
        adapter: LiveAdapter | None = None,
        boundary: int = 0,
    ) -> Tensor:
        """Euler in σ from ``noise`` (N, C, h, w), classifier-free guidance: latents (N, C, h, w).

        An attached ``adapter`` works for timesteps ≥ ``boundary`` (EPAPA's gate) and is off below.
        """
        context = torch.cat([self.encode(prompts), self.encode([""] * len(prompts))])
        timesteps = torch.linspace(len(self.alphas_cumprod) - 1, 0, steps).round().long()
        sigmas = torch.cat([sigmas_of(self.alphas_cumprod)[timesteps], torch.zeros(1)])
        x = noise * (1 + sigmas[0] ** 2).sqrt()
        for i, t in enumerate(timesteps):
            x_t = (x / (1 + sigmas[i] ** 2).sqrt()).repeat(2, 1, 1, 1)
            with nullcontext() if adapter is None else adapter.scaled(float(t >= boundary)):
                noise_t = self.predict_noise(x_t, t.expand(len(x_t)), context)
            liked, empty = noise_t.chunk(2)
            x = x + (sigmas[i + 1] - sigmas[i]) * (empty + guidance * (liked - empty))
        return x

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents as `sample` makes them → images (N, H, W, 3) in [0, 1]."""
        images = self.vae.decode(latents / self.vae.config.scaling_factor).sample
        return (images / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
