"""The shapes of the embedded family: an SDXL in miniature.

A true ``StableDiffusionXLPipeline``: AutoencoderKL, UNet2DConditionModel with text_time conditioning,
two CLIP text encoders (the second with projection), CLIP tokenizers and a diffusers scheduler.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from bench.mini import world

MAX_TOKENS = 24
"""Sequence length of the pipeline's text encoders, start and end token included."""
TEXT_WIDTHS = (64, 128)
TIME_IDS_WIDTH = 8
VAE_FACTOR = 8
LATENT_CHANNELS = 16
START, END = "<|startoftext|>", "<|endoftext|>"


def build_vae() -> AutoencoderKL:
    """The untrained VAE: (n, 3, 64, 64) in [-1, 1] to latents (n, 16, 8, 8)."""
    blocks = 4
    return AutoencoderKL(
        block_out_channels=(16, 32, 64, 96),
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=world.SIZE_PX,
        scaling_factor=1.0,
        mid_block_add_attention=False,
        force_upcast=False,
    )


def build_unet() -> UNet2DConditionModel:
    """The untrained UNet: eps of latents (n, 16, 8, 8) at a timestep under a caption."""
    widths = (64, 112)
    return UNet2DConditionModel(
        sample_size=world.SIZE_PX // VAE_FACTOR,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=widths,
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * len(widths),
        up_block_types=("CrossAttnUpBlock2D",) * len(widths),
        transformer_layers_per_block=1,
        attention_head_dim=(2, 4),  # diffusers' name for the number of heads
        cross_attention_dim=sum(TEXT_WIDTHS),
        norm_num_groups=16,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=TIME_IDS_WIDTH,
        projection_class_embeddings_input_dim=TEXT_WIDTHS[1] + 6 * TIME_IDS_WIDTH,
    )


def text_config(width: int, layers: int, tokens: int, tokenizer: CLIPTokenizer) -> CLIPTextConfig:
    """Configuration of a CLIP text encoder over the family's vocabulary."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        max_position_embeddings=tokens,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def build_text_encoders(tokenizer: CLIPTokenizer) -> tuple[CLIPTextModel, CLIPTextModelWithProjection]:
    """The two untrained text encoders, as in SDXL: the second one also gives the pooled embedding."""
    first = CLIPTextModel(text_config(TEXT_WIDTHS[0], 2, MAX_TOKENS, tokenizer))
    second = CLIPTextModelWithProjection(text_config(TEXT_WIDTHS[1], 2, MAX_TOKENS, tokenizer))
    return first, second


def build_scheduler() -> DDIMScheduler:
    """SDXL's noise schedule: 1000 steps, scaled linear from .00085 to .012, eps."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="leading",
        prediction_type="epsilon",
    )


def build_pipeline(
    vae: AutoencoderKL,
    unet: UNet2DConditionModel,
    text_encoders: tuple[CLIPTextModel, CLIPTextModelWithProjection],
    tokenizer: CLIPTokenizer,
) -> StableDiffusionXLPipeline:
    """Put the parts together as diffusers does for SDXL."""
    return StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=text_encoders[0],
        text_encoder_2=text_encoders[1],
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=unet,
        scheduler=build_scheduler(),
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )


def time_ids(n: int) -> torch.Tensor:
    """SDXL's micro-conditioning for n full pictures: original size, crop, target size; float32 (n, 6)."""
    side = float(world.SIZE_PX)
    return torch.tensor([[side, side, 0.0, 0.0, side, side]]).repeat(n, 1)


# --- the vocabulary ------------------------------------------------------------------------


def write_tokenizer(folder: Path, max_tokens: int = MAX_TOKENS) -> CLIPTokenizer:
    """Train the byte-pair vocabulary on the grammar and write it as CLIP's files; every word of the
    grammar becomes one token, and every byte has one, so that any prompt can be encoded.
    """
    folder.mkdir(parents=True, exist_ok=True)
    alphabet = _byte_alphabet()
    merges = _train_merges(_grammar_words())
    tokens = alphabet + [letter + "</w>" for letter in alphabet] + ["".join(pair) for pair in merges] + [START, END]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), "utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", "utf-8")
    tokenizer = CLIPTokenizer.from_pretrained(
        folder, bos_token=START, eos_token=END, unk_token=END, pad_token=END, model_max_length=max_tokens
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def _byte_alphabet() -> list[str]:
    """GPT-2's printable stand-ins for the 256 bytes, in CLIP's order."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + index) for index in range(len(others))]


def _grammar_words() -> list[str]:
    """Every word of captions and craft words, sorted."""
    captions = [
        world.caption(kind, content, template)
        for kind in world.KINDS
        for content in world.combinations(kind)
        for template in range(3)
    ]
    craft = [word for pair in world.CRAFT_WORDS.values() for word in pair]
    return sorted({word for text in [*captions, *craft] for word in text.replace(",", " ").split()})


def _train_merges(words: list[str]) -> list[tuple[str, str]]:
    """Byte-pair merges until every word is one token; the most frequent pair first, ties by spelling."""
    spelled = [[*word[:-1], word[-1] + "</w>"] for word in words]
    merges: list[tuple[str, str]] = []
    while any(len(parts) > 1 for parts in spelled):
        counts: dict[tuple[str, str], int] = {}
        for parts in spelled:
            for pair in itertools.pairwise(parts):
                counts[pair] = counts.get(pair, 0) + 1
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        spelled = [_merge(parts, best) for parts in spelled]
    return merges


def _merge(parts: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    for part in parts:
        if merged and (merged[-1], part) == pair:
            merged[-1] += part
        else:
            merged.append(part)
    return merged
