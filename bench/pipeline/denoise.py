"""The parts of drawing an image with a diffusers pipeline: encode, noise, denoise, decode.

``bench.render`` strings them together and ``bench.measure`` times them. ``pipe`` is what ``load_pipeline`` returned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.pipeline.copying import to_device
from bench.pipeline.prompt_encoding import EncodedText, common_tokens, encode_pair, repeated
from bench.pipeline.text_projections import text_projected_once
from bench.records import Settings

# Text conditioning.


class Encoded(NamedTuple):
    """Prompts as the UNet takes them; row i belongs to image i.

    ``prompt`` and ``negative``: (n, tokens, width). ``pooled`` and ``negative_pooled``: (n, width), SDXL alone.
    The negative ones are None without classifier-free guidance.
    """

    prompt: Tensor
    negative: Tensor | None
    pooled: Tensor | None
    negative_pooled: Tensor | None

    def to(self, device: torch.device | str) -> Encoded:
        """The same on another device; ``denoise`` takes either."""
        parts: list[Any] = [None if part is None else to_device(part, device) for part in self]
        return Encoded(*parts)


def stack(rows: Sequence[Encoded]) -> Encoded:
    """Put single encoded prompts together into a batch, repeated to one length, which attention does not tell from one.

    Raises:
        SuiteError: their lengths have no common multiple that could be drawn.
    """
    lengths = {row.prompt.shape[1] for row in rows}
    if len(lengths) > 1:
        tokens = common_tokens(sorted(lengths))
        rows = [row._replace(prompt=repeated(row.prompt, tokens), negative=_longer(row, tokens)) for row in rows]
    parts: list[Any] = [None if part[0] is None else torch.cat(part) for part in zip(*rows, strict=True)]
    return Encoded(*parts)


def _longer(row: Encoded, tokens: int) -> Tensor | None:
    return None if row.negative is None else repeated(row.negative, tokens)


def encode(pipe: Any, prompts: Sequence[str], negatives: Sequence[str], settings: Settings) -> Encoded:
    """Encode prompts as one batch; as ``encode_each``, and errors as ``stack``."""
    return stack(encode_each(pipe, prompts, negatives, settings))


@torch.inference_mode()
def encode_each(pipe: Any, prompts: Sequence[str], negatives: Sequence[str], settings: Settings) -> list[Encoded]:
    """Encode prompts and their negative prompts, each distinct text once and alone.

    In a batch an encoding would depend on its neighbours, since arithmetic is ordered by the batch's size. An empty
    negative prompt is the zero embedding for SDXL. Errors as ``encode_pair``.
    """
    guided = settings.guidance_scale > 1
    texts: dict[str, EncodedText] = {}
    pairs = [
        encode_pair(pipe, prompt, negative if guided else None, settings, texts)
        for prompt, negative in zip(prompts, negatives, strict=True)
    ]
    return [Encoded(one.states, other and other.states, one.pooled, other and other.pooled) for one, other in pairs]


# Noise.


def latent_shape(pipe: Any, settings: Settings) -> tuple[int, int, int]:
    """Channels, height and width of the latents of one image."""
    factor = pipe.vae_scale_factor
    return int(pipe.unet.config.in_channels), settings.height // factor, settings.width // factor


def noise(pipe: Any, settings: Settings, seeds: Sequence[int]) -> Tensor:
    """Unit Gaussian latents, float32 (n, c, h, w): each from a CPU generator of its own seed."""
    return _noise(pipe, settings, seeds)[0]


def _noise(pipe: Any, settings: Settings, seeds: Sequence[int]) -> tuple[Tensor, list[torch.Generator]]:
    """The latents, and the images' generators, which go on from there."""
    shape = (1, *latent_shape(pipe, settings))
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    drawn = [torch.randn(shape, generator=generator, dtype=torch.float32) for generator in generators]
    return torch.cat(drawn), generators


# Denoising.


@torch.inference_mode()
def denoise(
    pipe: Any,
    settings: Settings,
    encoded: Encoded,
    latents: Tensor,
    seeds: Sequence[int],
    on_step: Callable[[int], None] | None = None,
) -> Tensor:
    """Run the sampler: unit noise (n, c, h, w) to latents of the same shape, on the pipeline's device.

    A sampler that adds noise in its steps draws it from the image's own generator, after the initial noise.
    ``on_step`` is called after each call of the scheduler with its number, from 0. Where weights change by step
    (``pipe.weights_by_step``), each step runs with its own.
    """
    by_step = getattr(pipe, "weights_by_step", None)
    if by_step is not None:
        by_step.enter(1)

    def after_step(_: Any, call: int, __: Any, values: dict[str, Any]) -> dict[str, Any]:
        if on_step is not None:
            on_step(call)
        if by_step is not None and by_step.enter(min((call + 1) // pipe.scheduler.order + 1, settings.steps)):
            project_anew()
        return values

    encoded = encoded.to(pipe.device)
    conditions: dict[str, Any] = {"prompt_embeds": encoded.prompt, "negative_prompt_embeds": encoded.negative}
    if encoded.pooled is not None:
        conditions |= {
            "pooled_prompt_embeds": encoded.pooled,
            "negative_pooled_prompt_embeds": encoded.negative_pooled,
            **_sizes(settings),
        }
    with text_projected_once(pipe.unet) as project_anew:
        result: Tensor = pipe(
            **conditions,
            latents=to_device(latents, pipe.device, pipe.unet.dtype),
            height=settings.height,
            width=settings.width,
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance_scale,
            guidance_rescale=settings.guidance_rescale,
            eta=settings.eta,
            generator=_noise(pipe, settings, seeds)[1],
            output_type="latent",
            callback_on_step_end=None if on_step is None and by_step is None else after_step,
        ).images
    return result


def _sizes(settings: Settings) -> dict[str, tuple[int, int]]:
    """SDXL's conditioning as diffusers takes it, height before width and top before left; of both passes."""
    drawn = settings.width, settings.height
    sizes = {
        "original_size": settings.original_size or drawn,
        "target_size": settings.target_size or drawn,
        "crops_coords_top_left": settings.crop,
    }
    return {name: (down, across) for name, (across, down) in sizes.items()}


# Decoding.


@torch.inference_mode()
def decode(pipe: Any, latents: Tensor, dtype: torch.dtype | None = None) -> NDArray[np.float32]:
    """Decode latents to float32 (n, height, width, 3) in [0, 1] on the host; NaN stays NaN.

    ``dtype`` casts the VAE for this call; default is its own, or float32 where the VAE's configuration says
    that it overflows in half precision (``force_upcast``).
    """
    image: NDArray[np.float32] = decode_pixels(pipe, latents, dtype).clamp(0, 1).cpu().numpy()
    return image


def decode_pixels(pipe: Any, latents: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Latents (n, c, h, w) to float32 (n, height, width, 3) on their device; what is in [0, 1] can be shown."""
    vae = pipe.vae
    own = vae.dtype
    wanted = dtype or decode_dtype(pipe)
    if wanted != own:
        vae.to(wanted)
    z = _unscale(vae, latents.to(wanted))
    pixels: Tensor = vae.decode(z, return_dict=False)[0].float() / 2 + 0.5
    if wanted != own:
        vae.to(own)
    return pixels.permute(0, 2, 3, 1)


class Decoded(NamedTuple):
    """A decoded batch on its way to the host; nothing of it is there before ``wait`` has returned."""

    levels: Tensor
    """uint8 (n, height, width, 3) in host memory, rounded as diffusers does."""
    bad_values: Tensor
    """int64 (n,): how many values of each image are NaN or infinite."""
    dtype: str
    """Precision of the VAE."""
    wait: Callable[[], None]


@torch.inference_mode()
def decode_levels(pipe: Any, latents: Tensor, dtype: torch.dtype | None = None) -> Decoded:
    """Decode latents to 8-bit pixels, on CUDA without waiting for them; ``dtype`` as ``decode`` takes it."""
    pixels = decode_pixels(pipe, latents, dtype)
    bad = (~pixels.isfinite()).flatten(1).sum(dim=1)
    levels = (pixels.clamp(0, 1) * 255).round().to(torch.uint8)
    name = str(dtype or decode_dtype(pipe)).removeprefix("torch.")
    if pixels.device.type != "cuda":
        return Decoded(levels.cpu(), bad.cpu(), name, lambda: None)
    hosts = [torch.empty(one.shape, dtype=one.dtype, pin_memory=True) for one in (levels, bad)]
    for host, one in zip(hosts, (levels, bad), strict=True):
        host.copy_(one, non_blocking=True)
    copied: Any = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
    copied.record(torch.cuda.current_stream(pixels.device))
    return Decoded(hosts[0], hosts[1], name, copied.synchronize)


def _unscale(vae: Any, latents: Tensor) -> Tensor:
    """Undo the scaling between the UNet's latents and the VAE's; some VAEs also carry means and deviations."""
    config = vae.config
    mean, std = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
    if mean is None or std is None:
        plain: Tensor = latents / config.scaling_factor
        return plain
    means, stds = (to_device(torch.tensor(one), latents.device, latents.dtype).view(1, -1, 1, 1) for one in (mean, std))
    restored: Tensor = latents * stds / config.scaling_factor + means
    return restored


def decode_dtype_name(pipe: Any, settings: Settings) -> str:
    """Precision that ``decode`` uses unless told otherwise: ``float16``."""
    return settings.dtype if settings.dtype == "float32" else str(decode_dtype(pipe)).removeprefix("torch.")


def decode_dtype(pipe: Any) -> torch.dtype:
    """The dtype that ``decode`` uses unless told otherwise."""
    dtype: torch.dtype = pipe.vae.dtype
    return torch.float32 if dtype == torch.float16 and pipe.vae.config.force_upcast else dtype


def to_uint8(pixels: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Round pixels in [0, 1] to 8 bits, as diffusers does."""
    return (pixels * 255).round().astype(np.uint8)
