"""A suite whose variants are one variant in windows of steps: where its gain comes from."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Literal, TypeVar

import msgspec

from bench.errors import UsageError
from bench.formatting import did_you_mean
from bench.records import Attribution, Lora, StepWindow, Suite, Variant
from bench.suite.step_ranges import fraction_before
from bench.suite.sweep import UNTIMED

MOST_WINDOWS = 20
T = TypeVar("T")


def attribution_suite(
    suite: Suite,
    name: str,
    windows: int,
    text_encoders: Callable[[Lora], bool],
    *,
    lora: str | None = None,
    gain: str | None = None,
) -> Suite:
    """The suite with its reference, the variant, and the variant in each window, up to each, and from each on.

    What the variant has over the reference (its LoRAs, or another UNet) runs in the window's steps only. What it
    has in its text encoders, or in a VAE of its own, stays on throughout.

    Args:
        suite: whose first variant is the reference.
        name: of the variant.
        windows: how many of equal length, as far as whole steps allow.
        text_encoders: whether a LoRA has keys for text encoders.
        lora: that is swept, as the user named it; None where a variant of the suite is asked about.
        gain: the metric that the windows are ranked by; None for the first of preference.

    Raises:
        UsageError: an unknown variant, one that does not build on the reference, or one with a runtime; more windows
            than steps.
    """
    reference, variant = suite.variants[0], _named(suite, name)
    for one in (reference, variant):
        if one.runtime is not None:
            raise UsageError(
                f"--attribute: {one.name} has the runtime {one.runtime}, which takes no notice of weights by step.",
                "attribute a variant like it without a runtime",
            )
    steps = suite.settings.steps
    if not 2 <= windows <= min(MOST_WINDOWS, steps):
        raise UsageError(f"--windows is {windows}; it must be 2 to {min(MOST_WINDOWS, steps)}, with {steps} steps.")
    ends = [round(Fraction(number * steps, windows)) for number in range(windows + 1)]
    spans: dict[Literal["only", "until", "from"], list[tuple[int, int]]] = {
        "only": [(ends[number] + 1, ends[number + 1]) for number in range(windows)],
        "until": [(1, end) for end in ends[1:-1]],
        "from": [(end + 1, steps) for end in ends[1:-1]],
    }
    made: dict[tuple[int, int], Variant] = {}
    listed: list[StepWindow] = []
    for kind, own in spans.items():
        for first, last in own:
            if (first, last) not in made:
                made[first, last] = _windowed(variant, reference, first, last, steps, text_encoders)
            listed.append(StepWindow(kind=kind, first=first, last=last, variant=made[first, last].name))
    return msgspec.structs.replace(
        suite,
        name=f"{suite.name}-steps-{variant.name}",
        variants=(reference, variant, *made.values()),
        limits=(),
        measure=UNTIMED,
        step_metrics=None,
        attribution=Attribution(variant=variant.name, windows=tuple(listed), lora=lora, gain=gain, limits=suite.limits),
    )


def _named(suite: Suite, name: str) -> Variant:
    names = [variant.name for variant in suite.variants]
    if name not in names[1:]:
        near = did_you_mean(name, names[1:])
        raise UsageError(f"--attribute: {name!r} is not one of {', '.join(names[1:])}{near}, compared with {names[0]}.")
    return suite.variants[names.index(name)]


def _windowed(
    variant: Variant, reference: Variant, first: int, last: int, steps: int, text_encoders: Callable[[Lora], bool]
) -> Variant:
    """The variant whose UNet is the reference's outside steps ``first`` to ``last``."""
    start, end = fraction_before(first, steps), fraction_before(last + 1, steps)
    kept = variant.loras[: len(reference.loras)]
    if kept != reference.loras or (variant.fuse != reference.fuse and reference.loras):
        raise UsageError(
            f"--attribute: {variant.name} does not build on {reference.name}: it must have the LoRAs of "
            f"{reference.name} first, and then more.",
        )
    loras: list[Lora] = list(kept)
    for lora in variant.loras[len(kept) :]:
        if lora.step_factors:
            raise UsageError(f"--attribute: {lora.path} of {variant.name} follows steps already.")
        if text_encoders(lora):
            loras.append(msgspec.structs.replace(lora, unet=0.0, blocks={}))
            lora = msgspec.structs.replace(lora, text_encoder=0.0, text_encoder_2=0.0)
        loras.append(msgspec.structs.replace(lora, step_factors=_inside(start, end, 1.0, 0.0)))
    own, theirs = variant.unet or variant.checkpoint, reference.unet or reference.checkpoint
    unet_steps = _inside(start, end, "", theirs) if own != theirs else ()
    name = f"{variant.name}-steps-{first}-{last}"
    return msgspec.structs.replace(variant, name=name, loras=tuple(loras), unet_steps=unet_steps)


def _inside(start: float, end: float, inside: T, outside: T) -> tuple[tuple[float, T], ...]:
    before = ((0.0, outside),) if start else ()
    after = ((end, outside),) if end < 1 else ()
    return (*before, (start, inside), *after)
