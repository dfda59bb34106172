"""The time of a suite before a start: from a run's own timings, else from known cards' figures, else not at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from bench import stats
from bench.formatting import argument
from bench.plan.memory import MEGAPIXEL, SDXL_UNET_PARAMETERS, Parts
from bench.plan.pilot import seconds_of_all_variants
from bench.records import Machine, Run, Settings, Suite, TimeEstimate, TimingName
from bench.suite.sampling import TWICE

LIKE_SDXL = 0.05
"""How far the UNet's parameters may lie from SDXL's, as a share, for SDXL's times to be taken."""


class Throughput(NamedTuple):
    """Seconds of SDXL at 1024x1024 with guidance on one card."""

    step_s: Mapping[int, float]
    """One step of one image, by batch."""
    compiled_step_s: Mapping[int, float]
    decode_s: float
    """VAE decode of one image; 0 where the step's figure is a whole image's over its steps."""
    source: str


H100 = Throughput(
    {1: 0.0757, 2: 0.0425, 4: 0.0365, 8: 0.0346},
    {1: 1.87 / 30, 4: 1.035 / 30, 8: 0.995 / 30},
    0.125,
    "figures measured on an H100 80GB (docs/performance.md)",
)

A100 = Throughput({1: 3.31 / 30}, {1: 2.54 / 30}, 0.0, "published figures of an A100 80GB, of one image at a time")

THROUGHPUTS = {
    "NVIDIA H100 80GB HBM3": H100,
    "NVIDIA A100-SXM4-80GB": A100,
    "NVIDIA A100 80GB PCIe": A100,
}
"""By the device's name as torch gives it; no other card is guessed at."""


def estimate_time(suite: Suite, machine: Machine, run: Run | None, parts: Parts | None) -> TimeEstimate:
    """How long rendering and measuring a suite take from their beginning; scoring comes on top.

    From a run of the same settings on a device of the same name: images x the median ``end_to_end`` of their
    variant, and for measuring rounds x (load + first image + warm-ups and timed images). ``end_to_end`` is of one
    image at a time, so that larger batches make it an upper bound. Else, of a UNet of SDXL's size on a known card:
    steps x step(batch) + decode an image, scaled by pixels, and halved without guidance.

    Args:
        suite: all its images count, also those that there are already.
        machine: its ``device_name`` is looked up.
        run: what the folder holds; None where there is none.
        parts: of one of the variants; None where they are not known.
    """
    images = len(suite.prompts) * suite.samples
    processes = suite.measure.rounds * len(suite.variants)
    drawn = 1 + suite.measure.warmups + suite.measure.images
    if suite.measure.batches:
        drawn += (1 + suite.measure.batches) * (suite.settings.batch or 1)
    settings = suite.settings
    alike = run is not None and run.info.suite.settings == settings
    if run is not None and alike and run.info.machine.device_name == machine.device_name:
        image_s = seconds_of_all_variants(suite, run)
        if image_s is not None:
            start_s = _median(run, "load") + _median(run, "first_image")
            return TimeEstimate(
                render_s=images * image_s,
                measure_s=processes * start_s + suite.measure.rounds * (drawn - 1) * image_s,
                basis=f"From the timings in {run.path}, of one image at a time: for batches an upper bound. "
                "Loading comes on top.",
            )
    card = THROUGHPUTS.get(machine.device_name)
    if card is None or parts is None or abs(parts.unet_parameters / SDXL_UNET_PARAMETERS - 1) > LIKE_SDXL:
        basis = "Not known for this device and model before a first timing"
        if suite.measure.rounds:
            basis += f": hotart-bench measure {argument(suite.source or suite.name)}"
        else:
            basis += " of one like it, and this suite plans none ([measure] rounds = 0)."
        return TimeEstimate(render_s=None, measure_s=None, basis=basis)
    spared = ", and without what runtimes save" if any(variant.runtime for variant in suite.variants) else ""
    return TimeEstimate(
        render_s=images * len(suite.variants) * image_seconds(card, settings, settings.batch or 1),
        measure_s=processes * drawn * image_seconds(card, settings, 1),
        basis=f"Rough, from {card.source}, scaled by steps and pixels; without loading and compiling{spared}.",
    )


def scaled_seconds(suite: Suite, run: Run) -> dict[str, float]:
    """Seconds for one image of each variant that a run of other settings has timed, scaled to a suite's settings.

    (end_to_end - steps x denoise_step + steps' x denoise_step') x the ratio of pixels, by medians; a step costs half
    without guidance and twice with the samplers of ``TWICE``. Of one image at a time: for batches an
    upper bound. Variants without both timings are left out.
    """
    theirs, ours = run.info.suite.settings, suite.settings
    passes = _passes(ours) / _passes(theirs)
    pixels = ours.width * ours.height / (theirs.width * theirs.height)
    found = {}
    for variant in dict.fromkeys(timing.variant for timing in run.timings):
        whole, step = (_median(run, name, variant) for name in ("end_to_end", "denoise_step"))
        if whole and step:
            steps_s = min(whole, theirs.steps * step)
            found[variant] = (whole - steps_s + steps_s * passes) * pixels
    return found


def _passes(settings: Settings) -> int:
    """How many images go through the UNet for one."""
    return settings.steps * (2 if settings.sampler in TWICE else 1) * (2 if settings.guidance_scale > 1 else 1)


def image_seconds(card: Throughput, settings: Settings, batch: int) -> float:
    """Seconds for one image within a batch on a known card: steps x step + decode, by the nearest smaller batch."""
    table = card.compiled_step_s if settings.compile else card.step_s
    step_s = table[max(known for known in table if known <= batch)]
    guided = 1.0 if settings.guidance_scale > 1 else 0.5
    return (settings.steps * step_s * guided + card.decode_s) * settings.width * settings.height / MEGAPIXEL


def _median(run: Run, name: TimingName, variant: str | None = None) -> float:
    timings = [timing for timing in run.timings if timing.name == name and variant in (None, timing.variant)]
    values = [value for timing in timings for value in timing.values]
    return stats.quantiles(values).median if values else 0.0
