"""A suite whose variants are the weights of one LoRA."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import PurePath

import msgspec

from bench.errors import UsageError
from bench.formatting import argument, did_you_mean, is_good_name, listed
from bench.records import HEAVIEST_LORA, Lora, MeasurePlan, Suite, Sweep, Variant

MOST_WEIGHTS = 50
LONGEST_NAME = 60
"""Of the LoRA, in characters; the weight follows it in the names of the variants."""
UNTIMED = MeasurePlan(rounds=0, images=0, warmups=0)
"""A fused LoRA costs the same at every weight, so a sweep times nothing."""


def sweep_suite(suite: Suite, lora: str, weights: Sequence[float]) -> Suite:
    """The suite with a reference without the LoRA, and one variant for each other weight.

    Args:
        suite: prompts, settings and metrics of the sweep, and its checkpoint.
        lora: a variant of the suite that has a LoRA; or a LoRA file as a suite would name it, on the checkpoint of the
            suite's first variant.
        weights: what the LoRA is applied with, in place of its own weight; at least one other than 0, which is always
            part of the sweep, as its reference. The LoRA's weights of components and blocks, and the variant's further
            LoRAs, keep their proportion to it. Where its own weight is 0, those are multiplied instead.

    Raises:
        UsageError: a weight that is not a finite number or comes twice, too many, or a variant without LoRAs.
    """
    rising = _check_weights(weights)
    whole = _variant_to_sweep(suite, lora)
    stem = whole.name
    swept = tuple(
        msgspec.structs.replace(whole, name=f"{stem}-{weight:g}", loras=_weighted(whole.loras, weight))
        for weight in rising
        if weight
    )
    plain = _without_lora(whole, suite.variants[0], {one.name.lower() for one in swept})
    names = tuple(plain.name if weight == 0 else f"{stem}-{weight:g}" for weight in rising)
    return msgspec.structs.replace(
        suite,
        name=f"{suite.name}-sweep-{stem}",
        variants=(plain, *swept),
        limits=(),
        measure=UNTIMED,
        sweep=Sweep(lora=lora, weights=rising, variants=names),
    )


def with_and_without(suite: Suite, lora: str) -> Suite:
    """The suite with two variants, without the LoRA and with it at its own weight.

    Raises:
        UsageError: as ``sweep_suite`` of ``lora``.
    """
    whole = _variant_to_sweep(suite, lora)
    return msgspec.structs.replace(
        suite, variants=(_without_lora(whole, suite.variants[0], {whole.name.lower()}), whole)
    )


def _check_weights(weights: Sequence[float]) -> tuple[float, ...]:
    odd = [weight for weight in weights if not abs(weight) <= HEAVIEST_LORA]  # NaN neither
    if odd:
        allowed = f"a number from {-HEAVIEST_LORA:g} to {HEAVIEST_LORA:g}"
        raise UsageError(f"--lora-weights: {odd[0]} is not a weight; it must be {allowed}.")
    doubled = [weight for weight in weights if list(weights).count(weight) > 1]
    if doubled:
        raise UsageError(f"--lora-weights: {doubled[0]:g} is given twice.")
    rising = tuple(sorted({0.0, *weights}))
    if len(rising) < 2 or len(rising) > MOST_WEIGHTS:
        raise UsageError(
            f"--lora-weights: {len(rising) - 1} weights other than 0; a sweep has 1 to {MOST_WEIGHTS - 1}.",
            "hotart-bench sweep mini --lora spo --lora-weights 0,0.5,1",
        )
    if len({f"{weight:g}" for weight in rising}) < len(rising):
        raise UsageError("--lora-weights: two of them are the same in 6 digits, and would share a name.")
    return rising


def _variant_to_sweep(suite: Suite, lora: str) -> Variant:
    """The variant at weight 1."""
    named = next((variant for variant in suite.variants if variant.name == lora), None)
    if named is not None:
        if not named.loras:
            raise UsageError(
                f"--lora: the variant {lora!r} of suite {suite.name} has no LoRA to sweep.",
                f"hotart-bench list variants {argument(suite.source)}",
            )
        return named
    if not lora.endswith(".safetensors") and ":" not in lora:
        able = [variant.name for variant in suite.variants if variant.loras]
        raise UsageError(
            f"--lora: {lora!r} is neither a variant of suite {suite.name} with a LoRA ({listed(able) or 'it has none'})"
            f"{did_you_mean(lora, able)} nor a LoRA file.",
            f"hotart-bench list variants {argument(suite.source)}",
        )
    stem = PurePath(lora.rpartition(":")[2]).name.removesuffix(".safetensors")
    name = stem if is_good_name(stem) and len(stem) <= LONGEST_NAME else "lora"
    # What the suite says of the first variant does not hold with this LoRA.
    return msgspec.structs.replace(suite.variants[0], name=name, loras=(Lora(path=lora),), trained_on=None)


def _without_lora(whole: Variant, first: Variant, taken: Collection[str]) -> Variant:
    """The reference: the swept variant without its LoRAs, by the name that it has in the suite if it is the first."""
    # What the suite says of the swept variant holds with its LoRAs.
    plain = msgspec.structs.replace(whole, name=first.name, loras=(), trained_on=None)
    if plain == msgspec.structs.replace(first, trained_on=None) and first.name.lower() not in taken:
        return first
    return msgspec.structs.replace(plain, name=f"{whole.name}-0")


def _weighted(loras: tuple[Lora, ...], weight: float) -> tuple[Lora, ...]:
    """The LoRAs, the first of them with a weight, and all else in proportion to it."""
    own = loras[0].weight
    first, *others = (_scaled(one, weight / own if own else weight) for one in loras)
    return (msgspec.structs.replace(first, weight=weight if own else 0.0), *others)


def _scaled(lora: Lora, factor: float) -> Lora:
    """A LoRA with each of its weights times a factor."""
    own = {name: getattr(lora, name) for name in ("weight", "unet", "text_encoder", "text_encoder_2")}
    scaled = {name: weight * factor for name, weight in own.items() if weight is not None}
    blocks = {name: weight * factor for name, weight in lora.blocks.items()}
    return msgspec.structs.replace(lora, **scaled, blocks=blocks)
