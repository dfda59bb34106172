"""The peak of memory before a start: what a run measured, else bytes that are counted from headers and configurations.

Counted are the weights, those that LoRAs change and that are kept as they were, the LoRA files, and the largest sum of
activations that the UNet or the VAE holds at one moment.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from bench.checkpoints.checkpoint import Checkpoint
from bench.checkpoints.configurations import COMPONENTS, read_config
from bench.checkpoints.fingerprint import Needed
from bench.checkpoints.locate import RANDOM
from bench.formatting import joined, quantity
from bench.lora.parse import read_adapter
from bench.merge.load import open_checkpoint
from bench.records import Component, Machine, MemoryEstimate, Run, Settings, Suite, TimingName, Variant

GIB = 2**30
MEGAPIXEL = 1024 * 1024
BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
"""Of an element."""

# What is counted of a pipeline.


class Parts(NamedTuple):
    """A pipeline in numbers."""

    unet_parameters: int
    text_parameters: int
    vae_parameters: int
    unet_activations: float
    """Elements that the UNet holds at its peak for each pixel of an image, by ``unet_activations``."""
    vae_activations: float
    """The same of the VAE's decoder, by ``vae_activations``."""
    tile: int
    """Edge in pixels from which on tiling cuts, and of a tile: ``sample_size``."""
    force_upcast: bool
    """Whether the VAE is decoded in float32 when it runs in float16."""
    counted: bool
    """Whether the parts were counted from the files, else known by name."""


def unet_activations(config: Mapping[str, Any], scale: int) -> float:
    """Elements for each pixel of the image that the UNet holds at its peak, for one row of its batch.

    On the way up at a level of width w the UNet holds the outputs of the way down that are still to be used, the
    input u from below, and within a ResNet block u + w channels three times (joined, normalised, activated) and its
    output w; within a transformer 20 w (of the feed-forward 8, 4 and 4 widths, and four of its input).

    Args:
        config: the UNet's ``config.json``.
        scale: pixels of the image to one of the latent, along an edge.
    """
    widths, layers = config["block_out_channels"], config.get("layers_per_block", 2)
    blocks = config.get("down_block_types", [])
    held, most = float(widths[0]), 0.0
    for level, width in enumerate(widths):
        area = 4.0**-level
        held += (layers if isinstance(layers, int) else layers[level]) * width * area
        below = widths[min(level + 1, len(widths) - 1)]
        block = below + 3 * (below + width) + width
        if level < len(blocks) and "CrossAttn" in blocks[level]:
            block = max(block, 20 * width)
        most = max(most, held + block * area)
        held += width * area / 4  # the smaller image that the next level begins with
    return most / scale**2


def vae_activations(config: Mapping[str, Any]) -> float:
    """Elements for each pixel that the decoder holds in the first block at full size.

    Its input, that normalised, that activated, and its output: 3 c_1 + c_0 of ``block_out_channels``.
    """
    widths = config.get("block_out_channels", [64])  # the defaults are those of diffusers' AutoencoderKL
    return float(3 * widths[min(1, len(widths) - 1)] + widths[0])


SDXL_UNET_PARAMETERS = 2_567_463_684
SDXL = Parts(SDXL_UNET_PARAMETERS, 817_720_320, 83_653_863, 75.0, 896.0, 1024, True, False)
SD15 = Parts(859_520_964, 123_060_480, 83_653_863, 115.0, 896.0, 512, True, False)

KNOWN = {
    "stabilityai/stable-diffusion-xl-base-1.0": SDXL,
    "stable-diffusion-v1-5/stable-diffusion-v1-5": SD15,
}
"""The checkpoints of the shipped suites, for machines that do not have them yet."""
KNOWN_VAES: dict[str, dict[str, Any]] = {"madebyollin/sdxl-vae-fp16-fix": {"tile": 512, "force_upcast": False}}
"""What of such a VAE is not as in SDXL's."""


BYTES_PER_PIXEL = 3
"""A PNG of noise takes as much as its pixels; a photograph about half."""


def most_disk_bytes(images: int, settings: Settings) -> int:
    """What the PNG files of images take on the disk at most."""
    return images * settings.width * settings.height * BYTES_PER_PIXEL


def download_bytes(checkpoint: str) -> int | None:
    """What a shipped suite's checkpoint takes to download, its UNet, VAE and text encoders in float32; else None."""
    parts = KNOWN.get(checkpoint)
    if parts is None:
        return None
    return BYTES["float32"] * (parts.unet_parameters + parts.text_parameters + parts.vae_parameters)


def parts_of(variant: Variant, needed: Iterable[Needed]) -> Parts | None:
    """Count a variant's parts from the headers of its files, or know them by the checkpoint's name; else None.

    A UNet or VAE that replaces the checkpoint's counts instead of it. ``lora_bytes`` counts what LoRAs take.

    Args:
        variant: one of the suite's.
        needed: what ``bench.checkpoints.fingerprint.weights_needed`` found for it.

    Raises:
        WeightsError: a file's header or a part's configuration cannot be read.
    """
    checkpoint = _opened(variant, needed)
    if checkpoint is None:
        known = KNOWN.get(variant.checkpoint)
        return None if known is None else known._replace(**KNOWN_VAES.get(variant.vae or "", {}))
    sizes: Counter[str] = Counter()
    for name, tensor in checkpoint.tensors.items():
        sizes[name.partition(".")[0]] += math.prod(tensor.shape)
    parts: tuple[Component, ...] = ("unet", "vae")
    unet, vae = (
        read_config(checkpoint.other_configs.get(part, checkpoint.config / part) / "config.json", COMPONENTS[part])
        for part in parts
    )
    scale = 2 ** (len(vae.get("block_out_channels", [64])) - 1)
    return Parts(
        unet_parameters=sizes["unet"],
        text_parameters=sizes["text_encoder"] + sizes["text_encoder_2"],
        vae_parameters=sizes["vae"],
        unet_activations=unet_activations(unet, scale),
        vae_activations=vae_activations(vae),
        tile=vae.get("sample_size", 32),
        force_upcast=vae.get("force_upcast", True),
        counted=True,
    )


def lora_bytes(variants: Sequence[Variant], needed: Sequence[Needed], parts: Parts) -> tuple[int, int, bool]:
    """Bytes that the LoRAs of variants of one checkpoint add, and whether they were counted from the files.

    The first number is of the tensors that the LoRAs change, each once, in the precision of its file: they are kept
    as they were, so that the loaded pipeline serves other variants. Where a LoRA or the checkpoint is not here: all
    of the UNet, and of a checkpoint that is known by its name in float32, as the Hub has it. What a recipe makes is
    kept in float32, too. The second is of the LoRA files of the last variant, as far as they are known.

    Args:
        variants: those that one pipeline has served so far.
        needed: what ``bench.checkpoints.fingerprint.weights_needed`` found.
        parts: of one of them.

    Raises:
        WeightsError: a LoRA is damaged, or has a key that fits nothing in the checkpoint.
    """
    there = {(item.variant, item.what): item.path for item in needed if item.present}
    files = {(there.get((variant.name, lora.path)), lora.leave_out) for variant in variants for lora in variant.loras}
    if not files:
        return 0, 0, True
    last = variants[-1].name, {lora.path for lora in variants[-1].loras}
    own = sum(item.size_bytes or 0 for item in needed if item.variant == last[0] and item.what in last[1])
    checkpoint = _opened(variants[0], needed)
    if checkpoint is None:
        return BYTES["float32"] * parts.unet_parameters, own, False
    tensors = checkpoint.tensors
    names = {name for name in tensors if name.startswith("unet.")}
    paths = [(Path(file), leave_out) for file, leave_out in files if file is not None]
    if len(paths) == len(files):
        names = {change.tensor for path, out in paths for change in read_adapter(path, tensors, out).changes}
    recipe = checkpoint.facts.layout == "recipe"
    sizes = {name: BYTES.get("float32" if recipe else tensors[name].dtype, 4) for name in names}
    return sum(math.prod(tensors[name].shape) * sizes[name] for name in names), own, len(paths) == len(files)


def base_of(variant: Variant) -> tuple[str | None, ...]:
    """Variants of which this is equal are drawn with one loaded pipeline; as ``bench.pipeline.switch`` has it."""
    return (variant.checkpoint, variant.revision, variant.unet, variant.vae)


def _opened(variant: Variant, needed: Iterable[Needed]) -> Checkpoint | None:
    """The variant's checkpoint with what replaces parts of it; None where any of it is not here."""
    there = {
        item.what: item.what if item.what in RANDOM else item.path or item.what  # random weights are no files
        for item in needed
        if item.variant == variant.name and item.present
    }
    named = {"checkpoint": variant.checkpoint, "unet": variant.unet, "vae": variant.vae}
    places = {role: there.get(name) for role, name in named.items() if name is not None}
    if None in places.values():
        return None
    return open_checkpoint(msgspec.structs.replace(variant, revision=None, **places), None)


# What rendering takes.

EACH_IMAGE, WORKSPACE = 1.07, 0.24
"""Activations as they were measured over those counted: 1.07 for each image of a batch, for the allocator's rounding,
and 0.24 of one image for the convolutions' working space, of the UNet and of the VAE alike."""
CONTEXT_GIB = 0.5
"""CUDA's context and libraries; not measured here."""
RESERVE = 1.10
"""Identical work reserved 35.9 to 39.0 GiB, 9 % apart."""
PROCESS_GIB = 0.8
"""A process on the CPU with torch and diffusers and no weights."""
HEAP = 1.18
"""Resident memory of a process on the CPU over what is counted in it, measured with SDXL's weights."""
SPARE_GIB = 8.0
"""Kept weights lie on a CUDA device only where this is left beside them (``bench.pipeline.switch``)."""
AUTO_LARGEST, AUTO_UNMEASURED, AUTO_MARGIN = 64, 4, 0.9
"""How ``batch = "auto"`` chooses (``bench.render.auto_batch``)."""
MEASURED: tuple[TimingName, ...] = ("peak_allocated", "peak_rss")
"""What ``measure`` records of memory: on a GPU what the allocator gave out, on a CPU the whole process."""


def peaks(parts: Parts, settings: Settings) -> tuple[int, int, int]:
    """Bytes of the weights W, and of W with the activations of denoising and of decoding a whole batch.

    With e bytes an element, n images a batch, p pixels (of a tile, where the VAE is tiled), g = 2 rows of the UNet
    an image (1 without guidance) and the counted elements a pixel u and v:

        W       = e (unet + text + vae)
        denoise = W + e u g p (1.07 n + 0.24)
        decode  = W + (e_vae - e) vae + e_vae v p (1.07 n + 0.24), with n = 1 where images are decoded one by one

    e_vae is 4 where a float16 VAE overflows and is decoded in float32 (``force_upcast``). Text encoders, UNet and
    VAE all stay on the device. Of SDXL on an H100 this is within 1 % of what was measured: 5.2 and 7.4 GiB (the UNet
    alone at batch 1 and 8), 8.7 and 14.3 GiB (decoding at batch 1 and 4 in half precision), 11.2 and 22.5 GiB (in
    float32). Linear in pixels, which attention without flash kernels is not.

    Source: docs/performance.md, "Memory".
    """
    size = BYTES[settings.dtype]
    vae_size = 4 if settings.dtype == "float16" and parts.force_upcast else size
    pixels = settings.width * settings.height
    tiled = settings.vae_tiling and max(settings.width, settings.height) > parts.tile
    decoded = min(pixels, parts.tile**2) if tiled else pixels
    rows, batch = 2 if settings.guidance_scale > 1 else 1, settings.batch or 1
    images, at_once = (EACH_IMAGE * n + WORKSPACE for n in (batch, 1 if settings.vae_slicing else batch))
    weights = size * (parts.unet_parameters + parts.text_parameters + parts.vae_parameters)
    denoise = size * parts.unet_activations * rows * pixels * images
    decode = (vae_size - size) * parts.vae_parameters + vae_size * parts.vae_activations * decoded * at_once
    return weights, weights + round(denoise), weights + round(decode)


class Load(NamedTuple):
    """What a variant holds in memory while it is drawn, and where."""

    variant: str
    parts: Parts
    kept_bytes: int
    """Of weights as they were before LoRAs changed them."""
    lora_bytes: int
    """Of its LoRA files."""
    counted: bool
    """Whether the two were counted from the files."""
    device: str
    available_bytes: int
    measured_bytes: int | None = None
    """The largest peak that ``measure`` recorded of it with these settings, of one image at a time."""

    def beside(self, settings: Settings) -> int:
        """Bytes beside the pipeline's own weights: the LoRA files, and kept weights that lie on the device.

        On CUDA those are no more than leave 8 GiB free, the rest is in the machine's memory. An upper bound: what
        drawing a variant before has left in the allocator's cache counts as taken, too.
        """
        if not self.device.startswith("cuda"):
            return self.kept_bytes + self.lora_bytes
        weights = peaks(self.parts, settings)[0]
        room = round(self.available_bytes - (CONTEXT_GIB + SPARE_GIB) * GIB) - weights
        return max(0, min(self.kept_bytes, room)) + self.lora_bytes

    def peaks(self, settings: Settings) -> tuple[int, int]:
        """Peaks of denoising and of decoding with all that lies beside; on a CPU of the whole process.

        Where there is a measured peak, it stands for what is counted of the pipeline with one image at a time.
        """
        denoise, decode = self._pipeline(settings)
        more = HEAP * self.beside(settings) if self.device == "cpu" else self.beside(settings)
        if self.measured_bytes is not None:
            more += self.measured_bytes - max(self._pipeline(msgspec.structs.replace(settings, batch=1)))
        return round(denoise + more), round(decode + more)

    def _pipeline(self, settings: Settings) -> tuple[float, float]:
        _, denoise, decode = peaks(self.parts, settings)
        if self.device != "cpu":
            return denoise, decode
        return HEAP * denoise + PROCESS_GIB * GIB, HEAP * decode + PROCESS_GIB * GIB

    def needed(self, settings: Settings, **changes: object) -> int:
        """Bytes that should be free with changed settings: the peak, on a GPU 1.1 x and 0.5 GiB for the context.

        Kept weights and LoRA files are added as they are.
        """
        changed = msgspec.structs.replace(settings, **changes)
        peak = max(self.peaks(changed))
        if self.device == "cpu":
            return peak
        beside = self.beside(changed)
        return round(RESERVE * (peak - beside) + CONTEXT_GIB * GIB) + beside


def auto_batch(load: Load, settings: Settings, images: int) -> int:
    """What ``batch = "auto"`` would choose: the largest power of two within 0.9 of the device; 1 if not even that."""
    if not load.device.startswith("cuda"):
        return min(AUTO_UNMEASURED, images)
    allowed = AUTO_MARGIN * load.available_bytes + CONTEXT_GIB * GIB  # the context is not part of what is measured
    best = 1
    while 2 * best <= min(AUTO_LARGEST, images) and load.needed(settings, batch=2 * best) <= allowed:
        best *= 2
    return best


def estimate_memory(
    suite: Suite, machine: Machine, needed: Sequence[Needed], run: Run | None = None
) -> MemoryEstimate | None:
    """The peak of a suite's largest variant on a machine's device; None where its parts are not known.

    Where it does not fit, ``advice`` names settings that would, of which each changes the protocol.

    Args:
        suite: its settings count, and every variant.
        machine: its device's memory, or its own on a CPU or an Apple GPU.
        needed: what ``bench.checkpoints.fingerprint.weights_needed`` found.
        run: what the suite's folder holds; its measured peaks count where settings and device are these.

    Raises:
        WeightsError: the header of a file of weights cannot be read.
    """
    loads = [_load(number, suite, machine, needed, run) for number in range(len(suite.variants))]
    known = [load for load in loads if load is not None]
    if len(known) < len(loads) or not known:
        return None
    settings = suite.settings
    if settings.batch is None:
        images = len(suite.prompts) * suite.samples
        settings = msgspec.structs.replace(settings, batch=min(auto_batch(one, settings, images) for one in known))
    load = max(known, key=lambda one: one.needed(settings))
    denoise, decode = load.peaks(settings)
    wanted = load.needed(settings)
    return MemoryEstimate(
        variant=load.variant,
        weights_bytes=peaks(load.parts, settings)[0],
        denoise_bytes=denoise,
        decode_bytes=decode,
        peak_bytes=max(denoise, decode),
        needed_bytes=wanted,
        available_bytes=load.available_bytes,
        fits=wanted <= load.available_bytes,
        basis=" ".join((*_basis(load, settings, suite.settings.batch is None), *_uncounted(suite))),
        advice=() if wanted <= load.available_bytes else tuple(_advice(load, settings)),
    )


def _load(number: int, suite: Suite, machine: Machine, needed: Sequence[Needed], run: Run | None) -> Load | None:
    """A variant of the suite, with what those of its checkpoint have changed when it is drawn; None if not known."""
    variant = suite.variants[number]
    parts = parts_of(variant, needed)
    if parts is None:
        return None
    served = [one for one in suite.variants[: number + 1] if base_of(one) == base_of(variant)]
    available = machine.device_memory_bytes or machine.memory_bytes
    loras = lora_bytes(served, needed, parts)
    return Load(variant.name, parts, *loras, machine.device, available, _measured(variant, suite, machine, run))


def _measured(variant: Variant, suite: Suite, machine: Machine, run: Run | None) -> int | None:
    if run is None or variant not in run.info.suite.variants or run.info.machine.device_name != machine.device_name:
        return None
    # ``measure`` draws one image at a time, whatever the batch.
    theirs, ours = (msgspec.structs.replace(one.settings, batch=1) for one in (run.info.suite, suite))
    name = MEASURED[machine.device.split(":")[0] == "cpu"]
    values = [value for one in run.timings if (one.variant, one.name) == (variant.name, name) for value in one.values]
    return round(max(values)) if values and theirs == ours else None


def _basis(load: Load, settings: Settings, is_auto: bool) -> Iterator[str]:
    """What the estimate rests on, sentence by sentence."""
    if load.measured_bytes is not None:
        yield f"Measured: {quantity(load.measured_bytes, 'byte')} in this folder's run, of one image at a time."
    counted = [
        "the weights of the files' headers" if load.parts.counted else "the weights of the model of that name",
        "the activations of the UNet and the VAE at this size and batch",
    ]
    if load.lora_bytes:
        counted.append(f"the LoRA files ({quantity(load.lora_bytes, 'byte')})")
    yield f"{'For more images at once' if load.measured_bytes else 'Counted'}: {joined(counted)}."
    if load.kept_bytes:
        on_device = load.beside(settings) - load.lora_bytes
        what = "that LoRAs change" if load.counted else "of the whole UNet, since not every LoRA could be read,"
        rest = load.kept_bytes - on_device
        elsewhere = f", another {quantity(rest, 'byte')} in the machine's memory" if rest else ""
        yield f"The weights {what} are kept as they were: {quantity(on_device, 'byte')} more{elsewhere}."
    if load.device == "cpu" and load.measured_bytes is None:
        yield f"Resident memory is {HEAP:g} times what is counted, and {PROCESS_GIB:g} GiB for the program."
    if is_auto:
        yield f'batch = "auto" is taken to be {settings.batch}.'


def _uncounted(suite: Suite) -> Iterator[str]:
    """What the estimate leaves out: quantised copies of weights, features that are kept, what is compiled."""
    names = [variant.name for variant in suite.variants if variant.runtime is not None]
    if names:
        words = "runtime of {} adds" if len(names) == 1 else "runtimes of {} add"
        yield f"What the {words.format(joined(names))} is not counted."


def _advice(load: Load, settings: Settings) -> Iterator[str]:
    """Settings that would fit: each change alone, else batch 1 with tiles; else that none will do."""
    tiles = max(settings.width, settings.height) > load.parts.tile
    alone: list[dict[str, object]] = [{"batch": batch} for batch in range((settings.batch or 1) - 1, 0, -1)]
    if (settings.batch or 1) > 1:
        alone.append({"vae_slicing": True})
    if tiles:
        alone.append({"vae_tiling": True})
    if settings.dtype != "bfloat16":
        alone.append({"dtype": "bfloat16"})
    fitting = [change for change in alone if load.needed(settings, **change) <= load.available_bytes]
    firsts = {next(iter(change)): change for change in reversed(fitting)}  # the largest batch stands first of its kind
    if not firsts:
        both: dict[str, object] = {"batch": 1, "dtype": "bfloat16"} | ({"vae_tiling": True} if tiles else {})
        firsts = {"both": both} if load.needed(settings, **both) <= load.available_bytes else {}
    for change in reversed(firsts.values()):
        written = " and ".join(f"{name} = {_toml(value)}" for name, value in change.items())
        yield f"{written} would take {quantity(load.needed(settings, **change), 'byte')}"
    if not firsts:
        yield "no batch, tiling or dtype would fit: take a smaller width and height, or another device"


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool | int) else f'"{value}"'
