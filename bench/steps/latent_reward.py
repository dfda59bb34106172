"""LPO's latent reward model: the first half of a diffusion UNet scores a noisy latent itself, without decoding it.

The UNet's down blocks and its middle read the latent at its timestep with the text; what they give is pooled over the
picture, put side by side and projected into the space of the text, where a cosine is taken, as CLIP does. Source:
T. Zhang et al., Diffusion Model as a Noise-Aware Latent Reward Model for Step-Level Preference Optimization,
arXiv 2502.01051, and its code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.checkpoints.meta_model import empty_model, own_names
from bench.errors import WeightsError
from bench.metrics.declare import Place
from bench.metrics.encoders import END, TORCH_DTYPES, check_keys, token_ids, transformers_tokens
from bench.metrics.weights import FETCH_AGAIN, read_tensors
from bench.records import Component
from bench.steps.preference import KEPT_PROMPTS, tensors_of
from bench.suite.tokens import CONTEXT

GUIDANCE_SCALE = 7.5
"""Of the features, between those of the empty prompt and those of the prompt."""
WHAT = "LPO's latent reward model"
WEIGHTS: dict[Component, str] = {
    "unet": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
    "text_encoder_2": "model.safetensors",
}


class Kind(NamedTuple):
    """What differs between the two published models."""

    taps: tuple[int, ...]
    """Which outputs of the down blocks are pooled, counted from the first convolution's; the middle's comes last."""
    guided: tuple[bool, ...]
    """Whether guidance is applied to each of them, and to the middle's."""
    encoders: tuple[Component, ...]


SDXL = Kind((2, 5, 8), (False, False, False, True), ("text_encoder", "text_encoder_2"))
SD15 = Kind((2, 5, 8, 11), (False, False, False, False, True), ("text_encoder",))


class Conditions(NamedTuple):
    """What is made of a prompt."""

    states: Tensor
    """(1, 77, width): what the UNet's cross-attention reads."""
    pooled: Tensor
    """(1, d): of SDXL, which the UNet reads too."""
    target: Tensor
    """(1, d), unit length, float32: what the features are compared with."""


class LatentRewardModel:
    """The model in memory, as a step metric on noisy latents."""

    batch = 16

    def __init__(self, kind: Kind, networks: dict[Component, Any], heads: dict[str, Tensor], place: Place) -> None:
        self._kind, self._networks, self._heads, self._place = kind, networks, heads, place
        self._dtype = TORCH_DTYPES[place.dtype]
        self._tokenize: Callable[[str], list[int]] = transformers_tokens()
        self._read = lru_cache(KEPT_PROMPTS)(self._conditions)
        self._empty = self._conditions("")  # encoded, never zeros

    def truncated(self, prompts: Sequence[str]) -> list[bool]:
        """Of each prompt, whether it has more than 77 tokens, start and end counted."""
        return [len(self._tokenize(prompt)) > CONTEXT - 2 for prompt in prompts]

    @torch.inference_mode()
    def _conditions(self, prompt: str) -> Conditions:
        first = self._encode("text_encoder", prompt, END)
        if self._kind is SD15:
            pooled = first.pooler_output
            projected = functional.linear(pooled, self._heads["text_projection"])
            return Conditions(first.last_hidden_state, pooled, functional.normalize(projected.float(), dim=1))
        second = self._encode("text_encoder_2", prompt, 0)
        states = torch.cat([one.hidden_states[-2] for one in (first, second)], dim=2)
        return Conditions(states, second.text_embeds, functional.normalize(second.text_embeds.float(), dim=1))

    def _encode(self, encoder: Component, prompt: str, padding: int) -> Any:
        ids = token_ids(self._tokenize, [prompt], padding).to(self._place.device)
        return self._networks[encoder](input_ids=ids, output_hidden_states=True)

    @torch.inference_mode()
    def score(self, latents: Tensor, timesteps: Tensor, prompts: Sequence[str]) -> Tensor:
        """exp(logit_scale) cos(features of the latent at its timestep, text), float32 (n,)."""
        latents = latents.to(self._place.device, self._dtype)
        read = [self._read(prompt) for prompt in prompts]
        states, pooled = (
            torch.cat([*(one[part] for one in read), *[self._empty[part]] * len(read)]) for part in (0, 1)
        )
        times = timesteps.to(latents.device)
        taps = self._taps(torch.cat([latents, latents]), torch.cat([times, times]), states, pooled)
        features = torch.cat([self._guide(*one) for one in zip(taps, self._kind.guided, strict=True)], dim=1)
        projected = functional.linear(features, self._heads["visual_projection"]).float()
        target = torch.cat([one.target for one in read])
        cosines = (functional.normalize(projected, dim=1) * target).sum(dim=1)
        return self._heads["logit_scale"].float().exp() * cosines

    @staticmethod
    def _guide(pooled: Tensor, guided: bool) -> Tensor:
        with_text, empty = pooled.chunk(2)
        return empty + GUIDANCE_SCALE * (with_text - empty) if guided else with_text

    def _taps(self, latents: Tensor, times: Tensor, states: Tensor, pooled: Tensor) -> list[Tensor]:
        """The means over the picture of what some down blocks and the middle give, each (n, channels)."""
        unet = self._networks["unet"]
        time = unet.time_embedding(unet.get_time_embed(sample=latents, timestep=times))
        if self._kind is SDXL:
            side = float(unet.config.sample_size * 8)
            sizes = torch.tensor([[side, side, 0.0, 0.0, side, side]], device=latents.device, dtype=latents.dtype)
            added = {"text_embeds": pooled, "time_ids": sizes.expand(len(latents), -1)}
            time = time + unet.get_aug_embed(emb=time, encoder_hidden_states=states, added_cond_kwargs=added)
        x = unet.conv_in(latents)
        given = [x]
        for block in unet.down_blocks:
            reads = {"encoder_hidden_states": states} if getattr(block, "has_cross_attention", False) else {}
            x, outputs = block(hidden_states=x, temb=time, **reads)
            given += outputs
        middle = unet.mid_block(x, time, encoder_hidden_states=states)
        return [one.mean(dim=(2, 3)) for one in (*(given[tap] for tap in self._kind.taps), middle)]


def load_latent_reward(folder: Path, kind: Kind, place: Place) -> LatentRewardModel:
    """The model of a published folder: ``unet``, the text encoders, and ``state_dict.pt`` with the projections.

    Raises:
        WeightsError: a file is missing or damaged; a key is missing, unknown, of another shape or not finite.
    """
    heads = _heads(folder / "state_dict.pt", kind, place)
    networks = {part: _network(folder, part, place) for part in ("unet", *kind.encoders)}
    unet = networks["unet"]
    for unused in ("up_blocks", "conv_norm_out", "conv_out"):
        setattr(unet, unused, None)
    width = sum(_widths(unet, kind))
    if heads["visual_projection"].shape[1] != width:
        found = heads["visual_projection"].shape[1]
        raise WeightsError(
            f"{folder / 'state_dict.pt'}: its visual_projection reads {found} features, and this UNet gives {width}.",
            FETCH_AGAIN,
        )
    return LatentRewardModel(kind, networks, heads, place)


def _widths(unet: Any, kind: Kind) -> list[int]:
    channels = list(unet.config.block_out_channels)
    return [*channels[: len(kind.taps)], channels[-1]]


def _network(folder: Path, part: Component, place: Place) -> nn.Module:
    file = folder / part / WEIGHTS[part]
    if not file.is_file():
        raise WeightsError(
            f"{folder}: has no {part}/{WEIGHTS[part]}.",
            "where the text encoders were not trained, the model is saved without them: copy those of the base "
            "model that it was trained from into the folder"
            if part != "unet"
            else FETCH_AGAIN,
        )
    module = empty_model(part, folder / part)
    state = dict(tensors_of(file, WHAT))
    names = {name.removeprefix(f"{part}."): own for name, own in own_names(module, part).items()}
    wanted = {name: module.state_dict()[own] for name, own in names.items()}
    state = {name: value for name, value in state.items() if not name.endswith(".embeddings.position_ids")}
    check_keys(state, wanted, file, WHAT)
    dtype = TORCH_DTYPES[place.dtype]
    ready = {names[name]: value.to(place.device, dtype) for name, value in state.items()}
    module.load_state_dict(ready, assign=True)
    for name, buffer in list(module.named_buffers()):
        if buffer.is_meta:  # the numbers of the tokens' places, which no file has to hold
            owner, _, last = name.rpartition(".")
            places = torch.arange(buffer.shape[-1], device=place.device).expand(buffer.shape)
            module.get_submodule(owner).register_buffer(last, places, persistent=False)
    return module.eval().requires_grad_(False)


def _heads(file: Path, kind: Kind, place: Place) -> dict[str, Tensor]:
    """The projections and the logarithm of the scale, by name."""
    stored = read_tensors(file)
    wanted = ["visual_projection", *(["text_projection"] if kind is SD15 else [])]
    found: dict[str, Tensor] = {}
    for name in (*wanted, "logit_scale"):
        value = stored.get(name) if isinstance(stored, dict) else None
        value = value.get("weight") if isinstance(value, dict) else value
        if isinstance(value, float):
            value = torch.tensor(value)
        if not isinstance(value, Tensor) or value.ndim != (0 if name == "logit_scale" else 2):
            raise WeightsError(f"{file}: not the state of {WHAT}: it has no {name}.", FETCH_AGAIN)
        if not bool(value.isfinite().all()):
            raise WeightsError(f"{file}: {name} holds NaN or infinity.", FETCH_AGAIN)
        found[name] = value.to(place.device, TORCH_DTYPES[place.dtype])
    if unknown := sorted(set(stored) - set(found)):
        raise WeightsError(f"{file}: not the state of {WHAT}: it also holds {', '.join(unknown)}.", FETCH_AGAIN)
    return found
