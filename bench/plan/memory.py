"""The peak of memory before a start: weights as they are, activations by a model fitted to an H100's figures."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from bench.checkpoints.checkpoint import Checkpoint
from bench.checkpoints.families import read_config
from bench.checkpoints.fingerprint import Needed
from bench.formatting import quantity
from bench.lora.parse import read_adapter
from bench.merge.load import open_checkpoint
from bench.records import Machine, MemoryEstimate, Settings, Suite, Variant

# What a variant is made of, as far as memory and time care: counted from file headers, or known by its name.

BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}

"""Of an element."""


class Vae(NamedTuple):
    """What of a VAE decides its memory."""

    parameters: int
    channels: int
    """Of the widest layers at full resolution, ``block_out_channels[1]``."""
    tile: int
    """Edge in pixels from which on tiling cuts, and of a tile: ``sample_size``."""
    force_upcast: bool
    """Whether it is decoded in float32 when it runs in float16."""


class Parts(NamedTuple):
    """A pipeline in numbers."""

    unet_parameters: int
    unet_channels: int
    """``block_out_channels[0]``."""
    text_parameters: int
    vae: Vae
    counted: bool
    """Whether they were counted from the files, else known by name."""


class Kept(NamedTuple):
    """Weights that are kept as they were before LoRAs changed them, so that a loaded pipeline serves other variants."""

    size_bytes: int
    counted: bool
    """Whether they were counted from the files, else taken to be the whole UNet."""


SDXL_UNET_PARAMETERS = 2_567_463_684

SD_VAE_PARAMETERS = 83_653_863

SDXL = Parts(SDXL_UNET_PARAMETERS, 320, 817_720_320, Vae(SD_VAE_PARAMETERS, 256, 1024, True), False)

SD15 = Parts(859_520_964, 320, 123_060_480, Vae(SD_VAE_PARAMETERS, 256, 512, True), False)

KNOWN = {
    "stabilityai/stable-diffusion-xl-base-1.0": SDXL,
    "random:sdxl": SDXL,
    "stable-diffusion-v1-5/stable-diffusion-v1-5": SD15,
    "random:sd15": SD15,
}

"""The checkpoints of the shipped suites and the random ones, for machines that do not have them yet."""

KNOWN_VAES = {"madebyollin/sdxl-vae-fp16-fix": Vae(SD_VAE_PARAMETERS, 256, 512, False)}


def parts_of(variant: Variant, needed: Iterable[Needed]) -> Parts | None:
    """Count a variant's parts from the headers of its files, or know them by the checkpoint's name; else None.

    A UNet or VAE that replaces the checkpoint's counts instead of it. What LoRAs take is told by ``kept_of``.

    Args:
        variant: one of the suite's.
        needed: what ``bench.checkpoints.fingerprint.weights_needed`` found for it.

    Raises:
        WeightsError: a file's header or a part's configuration cannot be read.
    """
    checkpoint = _opened(variant, needed)
    if checkpoint is not None:
        return _counted(checkpoint)
    known = KNOWN.get(variant.checkpoint)
    if known is None or variant.vae is None:
        return known
    return known._replace(vae=KNOWN_VAES.get(variant.vae, known.vae))


def kept_of(variants: Sequence[Variant], needed: Sequence[Needed], parts: Parts) -> Kept:
    """The tensors that the LoRAs of variants of one checkpoint change, each once, in the precision of its file.

    Where a LoRA or the checkpoint is not here: all of the UNet, and of a checkpoint that is known by its name in
    float32, as the Hub has it. What a recipe makes is kept in float32, too.

    Args:
        variants: those that one pipeline has served so far.
        needed: what ``bench.checkpoints.fingerprint.weights_needed`` found.
        parts: of one of them.

    Raises:
        WeightsError: a LoRA is damaged, or has a key that fits nothing in the checkpoint.
    """
    there = {(item.variant, item.what): item.path for item in needed if item.present}
    files = {there.get((variant.name, lora.path)) for variant in variants for lora in variant.loras}
    if not files:
        return Kept(0, True)
    checkpoint = _opened(variants[0], needed)
    if checkpoint is None:
        return Kept(BYTES["float32"] * parts.unet_parameters, False)
    tensors = checkpoint.tensors
    names = {name for name in tensors if name.startswith("unet.")}
    paths = [Path(file) for file in files if file is not None]
    if len(paths) == len(files):
        names = {change.tensor for path in paths for change in read_adapter(path, tensors).changes}
    recipe = checkpoint.facts.layout == "recipe"
    sizes = {name: BYTES.get("float32" if recipe else tensors[name].dtype, 4) for name in names}
    return Kept(sum(math.prod(tensors[name].shape) * sizes[name] for name in names), len(paths) == len(files))


def _opened(variant: Variant, needed: Iterable[Needed]) -> Checkpoint | None:
    """The variant's checkpoint with what replaces parts of it; None where any of it is not here."""
    there = {item.what: item.path or item.what for item in needed if item.variant == variant.name and item.present}
    named = {"checkpoint": variant.checkpoint, "unet": variant.unet, "vae": variant.vae}
    places = {role: there.get(name) for role, name in named.items() if name is not None}
    if None in places.values():
        return None
    return open_checkpoint(msgspec.structs.replace(variant, revision=None, **places), None)


def _counted(checkpoint: Checkpoint) -> Parts:
    sizes: Counter[str] = Counter()
    for name, tensor in checkpoint.tensors.items():
        sizes[name.partition(".")[0]] += math.prod(tensor.shape)
    folder = checkpoint.other_configs.get("vae", checkpoint.config / "vae")
    config = read_config(folder / "config.json")
    channels = config.get("block_out_channels", [64])  # the defaults are those of diffusers' AutoencoderKL
    vae = Vae(
        sizes["vae"],
        channels[min(1, len(channels) - 1)],
        config.get("sample_size", 32),
        config.get("force_upcast", True),
    )
    texts = sizes["text_encoder"] + sizes["text_encoder_2"]
    return Parts(sizes["unet"], checkpoint.tensors["unet.conv_in.weight"].shape[0], texts, vae, True)


# The peak of memory before a start: weights as they are, activations by a model fitted to an H100's figures.

GIB = 2**30

MEGAPIXEL = 1024 * 1024

# GiB for each byte of an element, of SDXL's shape at 1024x1024.
DENOISE_FIXED, DENOISE_ROW = 0.052, 0.0786

"""The second for each row of the UNet's batch, of which guidance makes two an image."""

DECODE_FIXED, DECODE_IMAGE = 0.2, 0.94

CONTEXT_GIB = 0.5

"""CUDA's context and libraries; not measured here."""

RESERVE = 1.10

"""Identical work reserved 35.9 to 39.0 GiB, 9 % apart."""

PROCESS_GIB = 0.75

"""A process on the CPU with torch and diffusers and no weights."""

SPARE_GIB = 8.0

"""Kept weights lie on a CUDA device only where this is left beside them (``bench.pipeline.switch``)."""

AUTO_LARGEST, AUTO_UNMEASURED, AUTO_MARGIN = 64, 4, 0.9

"""How ``batch = "auto"`` chooses (``bench.render.auto_batch``)."""

FITTED = (
    "Estimate: weights as their files say, and activations after SDXL's figures on an H100 (UNet 5.2 and 7.4 GiB at "
    "batch 1 and 8, VAE decode 8.7 and 14.3 GiB at batch 1 and 4 in half precision, 11.2 and 22.5 in float32), scaled "
    "by pixels, batch and channels"
)


class Peaks(NamedTuple):
    """Bytes of one rendering process."""

    weights: int
    denoise: int
    decode: int


def peaks(parts: Parts, settings: Settings) -> Peaks:
    """Foretell what rendering a whole batch allocates, in bytes: weights W, and W with the activations of each part.

    With e bytes an element, n images a batch, g = 2 rows an image (1 without guidance), p = width x height / 1024^2
    (of a tile, where the VAE is tiled) and c = channels over SDXL's:

        W       = e (unet + text + vae)
        denoise = W + GiB e c_unet (0.052 + 0.0786 g n p)
        decode  = W + (e_vae - e) vae + GiB e_vae c_vae (0.2 + 0.94 n p)

    e_vae is 4 where a float16 VAE overflows and is decoded in float32 (``force_upcast``). Text encoders, UNet and
    VAE all stay on the device. Denoising follows exactly from 5.2 and 7.4 GiB (the UNet alone at batch 1 and 8,
    with guidance); decoding is within 1 % of the four figures 8.7, 14.3, 11.2 and 22.5 GiB with W in memory.
    Linear in pixels, which attention without flash kernels is not.

    Source: docs/performance.md, "Memory".
    """
    size = BYTES[settings.dtype]
    vae = parts.vae
    vae_size = 4 if settings.dtype == "float16" and vae.force_upcast else size
    pixels = settings.width * settings.height
    tiled = settings.vae_tiling and max(settings.width, settings.height) > vae.tile
    decoded = min(pixels, vae.tile**2) if tiled else pixels
    batch = settings.batch or 1
    rows = batch * (2 if settings.guidance_scale > 1 else 1)
    weights = size * (parts.unet_parameters + parts.text_parameters + vae.parameters)
    denoise = DENOISE_FIXED + DENOISE_ROW * rows * pixels / MEGAPIXEL
    decode = DECODE_FIXED + DECODE_IMAGE * batch * decoded / MEGAPIXEL
    return Peaks(
        weights=weights,
        denoise=weights + round(GIB * size * denoise * parts.unet_channels / SDXL.unet_channels),
        decode=weights
        + (vae_size - size) * vae.parameters
        + round(GIB * vae_size * decode * vae.channels / SDXL.vae.channels),
    )


class FileCheckpoint(NamedTuple):
    """What a variant holds in memory before it draws, and where."""

    variant: str
    parts: Parts
    kept: Kept
    device: str
    available_bytes: int


def needed_bytes(parts: Parts, settings: Settings, device: str, beside: int = 0) -> int:
    """Bytes that should be free for it: on a GPU 1.1 x the peak and 0.5 GiB, on a CPU the peak and 0.75 GiB.

    ``beside``: bytes of weights that are kept as they were, which are added as they are.
    """
    _, *both = peaks(parts, settings)
    if device == "cpu":
        return round(max(both) + PROCESS_GIB * GIB) + beside
    return round(RESERVE * max(both) + CONTEXT_GIB * GIB) + beside


def beside_bytes(held: FileCheckpoint, settings: Settings) -> int:
    """Bytes of kept weights on the device: on CUDA no more than leave 8 GiB free, the rest in the machine's memory.

    An upper bound: what drawing a variant before has left in the allocator's cache counts as taken, too.
    """
    if not held.device.startswith("cuda"):
        return held.kept.size_bytes
    weights = peaks(held.parts, settings).weights
    room = round(held.available_bytes - (CONTEXT_GIB + SPARE_GIB) * GIB) - weights
    return max(0, min(held.kept.size_bytes, room))


def auto_batch(held: FileCheckpoint, settings: Settings, images: int) -> int:
    """What ``batch = "auto"`` would choose: the largest power of two within 0.9 of the device; 1 if not even that."""
    if not held.device.startswith("cuda"):
        return min(AUTO_UNMEASURED, images)
    allowed = AUTO_MARGIN * held.available_bytes + CONTEXT_GIB * GIB  # the context is no part of what is measured
    best = 1
    while 2 * best <= min(AUTO_LARGEST, images) and _wanted(held, settings, {"batch": 2 * best}) <= allowed:
        best *= 2
    return best


def estimate_memory(suite: Suite, machine: Machine, needed: Sequence[Needed]) -> MemoryEstimate | None:
    """Foretell the peak of a suite's largest variant on a machine's device; None where its parts are not known.

    Where it does not fit, ``advice`` names settings that would, of which each changes the protocol.

    Args:
        suite: its settings count, and every variant.
        machine: its device's memory, or its own on a CPU or an Apple GPU.
        needed: what ``bench.checkpoints.fingerprint.weights_needed`` found.

    Raises:
        WeightsError: the header of a file of weights cannot be read.
    """
    every = [_held(number, suite, machine, needed) for number in range(len(suite.variants))]
    told = [held for held in every if held is not None]
    if len(told) < len(every) or not told:
        return None
    settings = suite.settings
    if settings.batch is None:
        images = len(suite.prompts) * suite.samples
        settings = msgspec.structs.replace(settings, batch=min(auto_batch(one, settings, images) for one in told))
    held = max(told, key=lambda one: _wanted(one, settings, {}))
    weights, denoise, decode = peaks(held.parts, settings)
    beside, wanted = beside_bytes(held, settings), _wanted(held, settings, {})
    return MemoryEstimate(
        variant=held.variant,
        weights_bytes=weights,
        denoise_bytes=denoise + beside,
        decode_bytes=decode + beside,
        peak_bytes=max(denoise, decode) + beside,
        needed_bytes=wanted,
        available_bytes=held.available_bytes,
        fits=wanted <= held.available_bytes,
        basis=" ".join(_basis(held, beside, settings.batch if suite.settings.batch is None else None)),
        advice=() if wanted <= held.available_bytes else tuple(_advice(held, settings)),
    )


def _held(number: int, suite: Suite, machine: Machine, needed: Sequence[Needed]) -> FileCheckpoint | None:
    """A variant of the suite, with what those of its checkpoint have changed when it is drawn; None if not known."""
    variant = suite.variants[number]
    parts = parts_of(variant, needed)
    if parts is None:
        return None
    served = [one for one in suite.variants[: number + 1] if base_of(one) == base_of(variant)]
    available = machine.device_memory_bytes or machine.memory_bytes
    return FileCheckpoint(variant.name, parts, kept_of(served, needed, parts), machine.device, available)


def base_of(variant: Variant) -> tuple[str | None, ...]:
    """Variants of which this is equal are drawn with one loaded pipeline; as ``bench.pipeline.switch`` has it."""
    return (variant.checkpoint, variant.revision, variant.unet, variant.vae)


def _basis(held: FileCheckpoint, beside: int, batch: int | None) -> Iterator[str]:
    """What the estimate rests on, sentence by sentence; ``batch`` where it was left open."""
    yield FITTED + ("." if held.parts.counted else "; the sizes of weights that are not here are known by their name.")
    if held.kept.size_bytes:
        what = "that LoRAs change" if held.kept.counted else "of the whole UNet, since not every LoRA could be read,"
        rest = held.kept.size_bytes - beside
        elsewhere = f", another {quantity(rest, 'byte')} in the machine's memory" if rest else ""
        yield f"The weights {what} are kept beside as they were: {quantity(beside, 'byte')}{elsewhere}."
    if batch is not None:
        yield f'batch = "auto" is taken to be {batch}.'


def _advice(held: FileCheckpoint, settings: Settings) -> Iterator[str]:
    """Settings that would fit: each change alone, else batch 1 with tiles; else that none will do."""
    tiles = max(settings.width, settings.height) > held.parts.vae.tile
    alone: list[dict[str, object]] = [{"batch": batch} for batch in range((settings.batch or 1) - 1, 0, -1)]
    if tiles:
        alone.append({"vae_tiling": True})
    if settings.dtype != "bfloat16":
        alone.append({"dtype": "bfloat16"})
    found = [change for change in alone if _wanted(held, settings, change) <= held.available_bytes]
    firsts = {next(iter(change)): change for change in reversed(found)}  # the largest batch stands first of its kind
    if not firsts:
        both: dict[str, object] = {"batch": 1, "dtype": "bfloat16"} | ({"vae_tiling": True} if tiles else {})
        firsts = {"both": both} if _wanted(held, settings, both) <= held.available_bytes else {}
    for change in reversed(firsts.values()):
        takes = quantity(_wanted(held, settings, change), "byte")
        yield f"{' and '.join(f'{name} = {_toml(value)}' for name, value in change.items())} would take {takes}"
    if not firsts:
        yield "no batch, tiling or dtype would fit: take a smaller width and height, or another device"


def _wanted(held: FileCheckpoint, settings: Settings, change: dict[str, object]) -> int:
    """Bytes that should be free for a variant where settings are changed."""
    changed = msgspec.structs.replace(settings, **change)
    return needed_bytes(held.parts, changed, held.device, beside_bytes(held, changed))


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool | int) else f'"{value}"'
