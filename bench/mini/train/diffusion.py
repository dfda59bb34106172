"""What every diffusion stage shares: the noise schedule and the network's prediction under a caption."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from bench.mini import models
from bench.mini.train.loop import device, half, put


@dataclass(frozen=True)
class TextEncoders:
    """The pipeline's two text encoders and their tokenizer."""

    first: CLIPTextModel
    second: CLIPTextModelWithProjection
    tokenizer: CLIPTokenizer

    def tokens(self, captions: list[str]) -> Tensor:
        """Token ids, int64 (n, 24)."""
        encoded = self.tokenizer(
            captions, padding="max_length", truncation=True, max_length=models.MAX_TOKENS, return_tensors="pt"
        )
        return put(encoded.input_ids)

    def __call__(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """SDXL's conditioning: penultimate states of both, (n, 24, 192), and the pooled text, (n, 128)."""
        one = self.first(ids, output_hidden_states=True)
        two = self.second(ids, output_hidden_states=True)
        return torch.cat([one.hidden_states[-2], two.hidden_states[-2]], -1), two.text_embeds


def alphas_cumprod() -> Tensor:
    """Cumulative signal power of the noise schedule, float32 (1000,)."""
    return put(models.build_scheduler().alphas_cumprod)


def add_noise(latents: Tensor, noise: Tensor, t: Tensor, alphas: Tensor) -> Tensor:
    """x_t = sqrt(a) x_0 + sqrt(1 - a) eps."""
    a = alphas[t].view(-1, 1, 1, 1)
    return a.sqrt() * latents + (1 - a).sqrt() * noise


def predicted_x0(x: Tensor, eps: Tensor, t: Tensor, alphas: Tensor) -> Tensor:
    """x_0 = (x_t - sqrt(1 - a) eps) / sqrt(a)."""
    a = alphas[t].view(-1, 1, 1, 1)
    return (x - (1 - a).sqrt() * eps) / a.sqrt()


def predict(unet: UNet2DConditionModel, x: Tensor, t: Tensor, states: Tensor, pooled: Tensor) -> Tensor:
    """The network's eps, float32, same shape as ``x``."""
    condition = {"text_embeds": pooled, "time_ids": models.time_ids(len(x)).to(x.device)}
    with half():
        eps = unet(x, t, states, added_cond_kwargs=condition, return_dict=False)[0]
    predicted: Tensor = eps.float()
    return predicted


def predict_guided(
    unet: UNet2DConditionModel, x: Tensor, t: Tensor, states: Tensor, pooled: Tensor, guidance: float
) -> Tensor:
    """Classifier-free guidance against the zero embedding, as SDXL does for an empty negative prompt."""
    both = predict(
        unet,
        torch.cat([x, x]),
        torch.cat([t, t]),
        torch.cat([torch.zeros_like(states), states]),
        torch.cat([torch.zeros_like(pooled), pooled]),
    )
    empty, conditional = both.chunk(2)
    return empty + guidance * (conditional - empty)


def load_text_encoders(folder: Path) -> TextEncoders:
    """The text encoders of a saved pipeline, frozen."""
    first = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
    second = CLIPTextModelWithProjection.from_pretrained(folder / "text_encoder_2", dtype=torch.float32)
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    frozen = [encoder.requires_grad_(False).eval().to(device()) for encoder in (first, second)]
    return TextEncoders(frozen[0], frozen[1], tokenizer)


def load_vae(folder: Path) -> AutoencoderKL:
    """The VAE of a saved pipeline, frozen."""
    vae = AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32)
    return vae.requires_grad_(False).eval().to(device())


def load_unet(folder: Path) -> UNet2DConditionModel:
    """The UNet of a saved pipeline, frozen."""
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", dtype=torch.float32)
    return unet.requires_grad_(False).eval().to(device())
