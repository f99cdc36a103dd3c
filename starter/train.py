"""Trains the starter model from nothing: draw the images, train the autoencoder, then the denoiser.

    python -m palate.starter.train all --work starter/work      # every stage, resuming where it was
    python -m palate.starter.train unet --steps 9000            # one stage

Runs on a CPU (bfloat16 matrix units are used where the processor has them) or on a GPU. Every
random choice comes from --seed. The result is a diffusers folder under ``starter/model``.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from .draw import draw
from .tokens import MAX_LENGTH, write_tokenizer
from .vocabulary import Prompt, random_prompt

HERE = Path(__file__).parent
SIZE, LATENT_CHANNELS, TEXT_WIDTH = 64, 16, 128
CAPTION_DROPOUT = 0.1
LATENT_NOISE = 0.01  # more costs bits: 0.05 holds the reconstruction below 25 dB


# Data -------------------------------------------------------------------------------------------


def _draw_chunk(job: tuple[int, int, int]) -> tuple[np.ndarray, list[Prompt]]:
    seed, start, count = job
    images, prompts = np.empty((count, SIZE, SIZE, 3), np.uint8), []
    for offset in range(count):
        rng = np.random.default_rng([seed, start + offset])
        prompts.append(random_prompt(rng))
        images[offset] = draw(prompts[-1], rng, SIZE)
    return images, prompts


def make_images(work: Path, count: int, seed: int) -> None:
    """Draws ``count`` images; image i depends on (seed, i) alone."""
    jobs = [(seed, start, min(1000, count - start)) for start in range(0, count, 1000)]
    with multiprocessing.Pool() as pool:
        chunks = pool.map(_draw_chunk, jobs, chunksize=1)
    np.save(work / "images.npy", np.concatenate([images for images, _ in chunks]))
    prompts = [list(vars(prompt).values()) for _, chunk in chunks for prompt in chunk]
    (work / "prompts.json").write_text(json.dumps(prompts), "utf-8")


def caption(prompt: Prompt, rng: np.random.Generator) -> str:
    """The prompt as a person might write it: usually in the grammar's order, sometimes shuffled."""
    if rng.random() < CAPTION_DROPOUT:
        return ""
    if rng.random() < 0.75:
        return str(prompt)
    parts = [part for part in vars(prompt).values() if part]
    rng.shuffle(parts)
    return (", " if rng.random() < 0.5 else " ").join(parts)


# Models -----------------------------------------------------------------------------------------


def new_vae() -> AutoencoderTiny:
    """An autoencoder without normalisation layers needs its signal kept alive from the start: He
    initialisation, and residual branches that begin small. (PyTorch's default learns 20× slower.)
    """
    vae = AutoencoderTiny(latent_channels=LATENT_CHANNELS)
    for name, layer in vae.named_modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
            if name.endswith("conv.4"):
                layer.weight.data.mul_(0.1)
    return vae


def new_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=SIZE // 8,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(64, 192),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
    )


def new_text_encoder(vocabulary: int) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=TEXT_WIDTH,
            projection_dim=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=MAX_LENGTH,
            bos_token_id=vocabulary - 2,
            eos_token_id=vocabulary - 1,
            pad_token_id=vocabulary - 1,
        )
    )


def alphas_cumprod() -> Tensor:
    """Stable Diffusion's scaled-linear schedule, 1000 steps: (1000,) float32."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0).float()


class Average:
    """Exponential moving average of a module's parameters (the weights that are shipped)."""

    def __init__(self, module: nn.Module) -> None:
        self.shadow = {k: v.detach().clone() for k, v in module.state_dict().items()}

    def update(self, module: nn.Module, step: int) -> None:
        decay = min(0.9995, (1 + step) / (10 + step))
        with torch.no_grad():
            for key, value in module.state_dict().items():
                if value.is_floating_point():
                    self.shadow[key].lerp_(value, 1 - decay)


# Training ---------------------------------------------------------------------------------------


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _rate(step: int, steps: int, peak: float, warmup: int = 200) -> float:
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (
        0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
    )


def _batches(count: int, batch: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    while True:
        order = rng.permutation(count)
        for start in range(0, count - batch + 1, batch):
            yield order[start : start + batch]


def _pixels(images: np.ndarray, device: str) -> Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
    return (tensor.float() / 127.5 - 1).to(device, memory_format=torch.channels_last)


def _edges(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[..., 1:, :] - x[..., :-1, :], x[..., :, 1:] - x[..., :, :-1]


def _save(path: Path, state: dict) -> None:
    torch.save(state, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)


def train_vae(work: Path, steps: int, batch: int, seed: int) -> None:
    """Pixels and edges; a little noise on the latents makes their space smooth.

    Most steps see random quarters of the images: the networks are convolutional, and many cheap
    steps teach them more than a few dear ones. The last tenth sees whole images.
    """
    device, checkpoint = _device(), work / "vae.pt"
    torch.manual_seed(seed)
    images = np.load(work / "images.npy", mmap_mode="r")
    vae = new_vae().to(device, memory_format=torch.channels_last)
    average, optimizer = (
        Average(vae),
        torch.optim.AdamW(vae.parameters(), lr=1e-3, betas=(0.9, 0.98)),
    )
    first = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        vae.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average.shadow, first = state["average"], state["step"]
    rng = np.random.default_rng([seed, first])
    batches, began = _batches(len(images), batch, rng), time.time()
    for step in range(first, steps):
        for group in optimizer.param_groups:
            group["lr"] = _rate(step, steps, 3e-4, warmup=50)
        x = _pixels(images[np.sort(next(batches))], device)
        if step < 0.9 * steps:
            top, left = rng.integers(0, SIZE // 2 + 1, 2)
            x = x[..., top : top + SIZE // 2, left : left + SIZE // 2]
            x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device, torch.bfloat16):
            z = vae.encoder(x)
            y = vae.decoder(z + LATENT_NOISE * z.detach().std() * torch.randn_like(z)).float()
        edges = torch.stack([F.l1_loss(a, b) for a, b in zip(_edges(y), _edges(x), strict=True)])
        loss = F.l1_loss(y, x) + F.mse_loss(y, x) + 0.5 * edges.sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        average.update(vae, step)
        if step % 200 == 0 or step == steps - 1:
            psnr = -10 * math.log10(F.mse_loss(y.clamp(-1, 1), x).item() / 4)
            print(
                f"vae {step:5d}  loss {loss.item():.4f}  psnr {psnr:.2f}  "
                f"std {z.std().item():.2f}  {time.time() - began:.0f}s",
                flush=True,
            )
        if (step + 1) % 200 == 0 or step == steps - 1:
            _save(
                checkpoint,
                {
                    "model": vae.state_dict(),
                    "average": average.shadow,
                    "optimizer": optimizer.state_dict(),
                    "step": step + 1,
                },
            )


def encode_images(work: Path) -> None:
    """Latents of all images, once: (N, 8, 8, 8) float16, plus their standard deviation."""
    device = _device()
    vae = new_vae().to(device, memory_format=torch.channels_last)
    vae.load_state_dict(
        torch.load(work / "vae.pt", map_location=device, weights_only=True)["average"]
    )
    images, latents = np.load(work / "images.npy", mmap_mode="r"), []
    with torch.inference_mode(), torch.autocast(device, torch.bfloat16):
        for start in range(0, len(images), 200):
            latents.append(
                vae.encoder(_pixels(images[start : start + 200], device))
                .half()
                .cpu()
                .contiguous()
                .numpy()
            )
    stacked = np.concatenate(latents)
    np.save(work / "latents.npy", stacked)
    print("latents", stacked.shape, "std", stacked.astype(np.float32).std())


def refine_decoder(work: Path, steps: int, batch: int, seed: int) -> None:
    """More training for the decoder alone, on the latents that the denoiser learns from."""
    device, checkpoint = _device(), work / "decoder.pt"
    torch.manual_seed(seed + 2)
    images = np.load(work / "images.npy", mmap_mode="r")
    latents = np.load(work / "latents.npy", mmap_mode="r")
    vae = new_vae().to(device, memory_format=torch.channels_last)
    vae.load_state_dict(
        torch.load(work / "vae.pt", map_location=device, weights_only=True)["average"]
    )
    decoder = vae.decoder
    average = Average(decoder)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=4e-4, betas=(0.9, 0.99))
    first = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        decoder.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average.shadow, first = state["average"], state["step"]
    rng = np.random.default_rng([seed, first, 2])
    batches, began, losses = _batches(len(images), batch, rng), time.time(), []
    for step in range(first, steps):
        for group in optimizer.param_groups:
            group["lr"] = _rate(step, steps, 4e-4, warmup=100)
        chosen = np.sort(next(batches))
        x = _pixels(images[chosen], device)
        z = torch.from_numpy(latents[chosen]).float().to(device, memory_format=torch.channels_last)
        with torch.autocast(device, torch.bfloat16):
            y = decoder(z).float()
        edges = torch.stack([F.l1_loss(a, b) for a, b in zip(_edges(y), _edges(x), strict=True)])
        loss = F.l1_loss(y, x) + F.mse_loss(y, x) + 0.5 * edges.sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimizer.step()
        average.update(decoder, step)
        losses.append(F.mse_loss(y.detach().clamp(-1, 1), x).item())
        if step % 200 == 0 or step == steps - 1:
            psnr = -10 * math.log10(np.mean(losses[-200:]) / 4)
            print(f"decoder {step:5d}  psnr {psnr:.2f}  {time.time() - began:.0f}s", flush=True)
        if (step + 1) % 250 == 0 or step == steps - 1:
            _save(
                checkpoint,
                {
                    "model": decoder.state_dict(),
                    "average": average.shadow,
                    "optimizer": optimizer.state_dict(),
                    "step": step + 1,
                },
            )


def train_unet(work: Path, steps: int, batch: int, seed: int, peak: float) -> None:
    """Denoiser and text encoder together, ε-prediction, min-SNR-5 weights (arXiv 2303.09556)."""
    device, checkpoint = _device(), work / "unet.pt"
    torch.manual_seed(seed + 1)
    if not checkpoint.exists():  # a resumed run keeps the token ids that it has learnt
        write_tokenizer(work / "tokenizer")
    tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
    latents = torch.from_numpy(np.load(work / "latents.npy")).float()
    latents = latents / latents.std()
    prompts = [Prompt(*values) for values in json.loads((work / "prompts.json").read_text("utf-8"))]
    unet = new_unet().to(device, memory_format=torch.channels_last)
    unet.set_attn_processor(AttnProcessor())  # small sequences: plain products beat fused attention
    text = new_text_encoder(len(tokenizer)).to(device)
    model = nn.ModuleDict({"unet": unet, "text": text})
    average = Average(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, betas=(0.9, 0.99), weight_decay=0.01)
    first = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average.shadow, first = state["average"], state["step"]
    signal = alphas_cumprod().to(device)
    rng = np.random.default_rng([seed, first, 7])
    batches, began, losses = _batches(len(prompts), batch, rng), time.time(), []
    for step in range(first, steps):
        for group in optimizer.param_groups:
            group["lr"] = _rate(step, steps, peak)
        chosen = next(batches)
        x0 = latents[chosen].to(device, memory_format=torch.channels_last)
        tokens = tokenizer(
            [caption(prompts[i], rng) for i in chosen],
            padding="max_length", max_length=MAX_LENGTH, truncation=True, return_tensors="pt",
        ).input_ids.to(device)  # fmt: skip
        t = (torch.rand(batch // 2, device=device) * 1000).long()
        t = torch.cat([t, 999 - t])  # antithetic: early and late in every batch
        a = signal[t].view(-1, 1, 1, 1)
        noise = torch.randn_like(x0)
        with torch.autocast(device, torch.bfloat16):
            context = text(tokens).last_hidden_state
            predicted = unet(a.sqrt() * x0 + (1 - a).sqrt() * noise, t, context).sample.float()
        snr = a.flatten() / (1 - a.flatten())
        weight = snr.clamp(max=5) / snr
        error = (predicted - noise).square().mean((1, 2, 3))
        loss = (weight * error).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average.update(model, step)
        losses.append(loss.item())
        if step % 100 == 0 or step == steps - 1:
            print(
                f"unet {step:6d}  loss {np.mean(losses[-100:]):.4f}  {time.time() - began:.0f}s",
                flush=True,
            )
        if (step + 1) % 250 == 0 or step == steps - 1:
            _save(
                checkpoint,
                {
                    "model": model.state_dict(),
                    "average": average.shadow,
                    "optimizer": optimizer.state_dict(),
                    "step": step + 1,
                },
            )


# Export -----------------------------------------------------------------------------------------


def export(work: Path, target: Path) -> None:
    """Writes the averaged weights in diffusers layout, float16 (computed with in float32)."""
    from diffusers import DDIMScheduler

    latents = np.load(work / "latents.npy", mmap_mode="r")
    scale = 1.0 / float(np.asarray(latents, np.float32).std())
    shutil.copytree(work / "tokenizer", target / "tokenizer", dirs_exist_ok=True)
    vocabulary = len(json.loads((target / "tokenizer" / "vocab.json").read_text("utf-8")))
    vae = AutoencoderTiny(latent_channels=LATENT_CHANNELS, scaling_factor=scale)
    vae.load_state_dict(
        torch.load(work / "vae.pt", map_location="cpu", weights_only=True)["average"]
    )
    refined = torch.load(work / "decoder.pt", map_location="cpu", weights_only=True)
    vae.decoder.load_state_dict(refined["average"])
    state = torch.load(work / "unet.pt", map_location="cpu", weights_only=True)
    model = nn.ModuleDict({"unet": new_unet(), "text": new_text_encoder(vocabulary)})
    model.load_state_dict(state["average"])
    for name, part in (("vae", vae), ("unet", model["unet"]), ("text_encoder", model["text"])):
        part.half().save_pretrained(target / name, safe_serialization=True)
    DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        set_alpha_to_one=False, steps_offset=1,
    ).save_pretrained(target / "scheduler")  # fmt: skip
    index = {
        "_class_name": "StableDiffusionPipeline",
        "vae": ["diffusers", "AutoencoderTiny"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "safety_checker": [None, None],
        "feature_extractor": [None, None],
        "requires_safety_checker": False,
    }
    _write_preview_factors(work, scale, target / "vae" / "latent_rgb.json")
    (target / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", "utf-8")


def _write_preview_factors(work: Path, scale: float, path: Path) -> None:
    """The best linear map from a latent to its mean colour, for previews while sampling."""
    latents = np.load(work / "latents.npy", mmap_mode="r")[:2000].astype(np.float32) * scale
    images = np.load(work / "images.npy", mmap_mode="r")[:2000].astype(np.float32) / 127.5 - 1
    cells = SIZE // 8
    colours = images.reshape(len(images), cells, 8, cells, 8, 3).mean((2, 4)).reshape(-1, 3)
    inputs = latents.transpose(0, 2, 3, 1).reshape(-1, LATENT_CHANNELS)
    design = np.concatenate([inputs, np.ones((len(inputs), 1), np.float32)], 1)
    factors = np.linalg.lstsq(design, colours, rcond=None)[0].round(4).tolist()
    path.write_text(json.dumps({"factors": factors[:-1], "bias": factors[-1]}) + "\n", "utf-8")


STAGES = ("images", "vae", "latents", "decoder", "unet", "export")


def main() -> None:
    torch.set_flush_denormal(True)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("stage", choices=("all", *STAGES))
    parser.add_argument("--work", type=Path, default=HERE / "work")
    parser.add_argument("--target", type=Path, default=HERE / "model")
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--vae-steps", type=int, default=4000)
    parser.add_argument("--decoder-steps", type=int, default=4000)
    parser.add_argument("--steps", type=int, default=4400)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=1.2e-3)
    parser.add_argument("--seed", type=int, default=2026)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    wanted = STAGES if options.stage == "all" else (options.stage,)
    if "images" in wanted:
        make_images(options.work, options.images, options.seed)
    if "vae" in wanted:
        train_vae(options.work, options.vae_steps, 16, options.seed)
    if "latents" in wanted:
        encode_images(options.work)
    if "decoder" in wanted:
        refine_decoder(options.work, options.decoder_steps, 8, options.seed)
    if "unet" in wanted:
        train_unet(options.work, options.steps, options.batch, options.seed, options.rate)
    if "export" in wanted:
        export(options.work, options.target)


if __name__ == "__main__":
    main()
