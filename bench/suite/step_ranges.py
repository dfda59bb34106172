"""Weights by step as people write them: ``step_range = "0-40%"`` and ``weight = [[0.0, 1.0], [0.4, 0.2]]``.

Step k of N, counted from 1, is in the range [a, b) when a <= (k - 1) / N < b, in exact decimals.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

from bench.errors import SuiteError, UsageError
from bench.records import Suite

_EVERY = re.compile(r"every\s+(\d{1,4})")
_RANGE = re.compile(r"(\d{1,3}(?:\.\d{1,6})?)\s*-\s*(\d{1,3}(?:\.\d{1,6})?)\s*%")


def parse_steps(at: str | Sequence[int], steps: int) -> tuple[int, ...]:
    """The steps that are meant, counted from 1, rising.

    Args:
        at: ``all``; ``every N``: steps N, 2N, ... and the last; or numbers, as a sequence or as ``1,5,20``.
        steps: of the suite.

    Raises:
        UsageError: another text, a step beyond the last or below 1, or one given twice.
    """
    if at == "all":
        return tuple(range(1, steps + 1))
    if isinstance(at, str) and (found := _EVERY.fullmatch(at.strip())) and int(found[1]):
        return tuple(dict.fromkeys((*range(int(found[1]), steps + 1, int(found[1])), steps)))
    try:
        numbers = [int(part) for part in at.split(",")] if isinstance(at, str) else list(at)
    except ValueError as error:
        raise UsageError(f'{at!r} names no steps; it is "all", "every 2" or numbers such as 1,5,20.') from error
    for number in numbers:
        if not 1 <= number <= steps:
            raise UsageError(f"There is no step {number}; the suite has {steps}, counted from 1.")
        if numbers.count(number) > 1:
            raise UsageError(f"The step {number} is named twice.")
    if not numbers:
        raise UsageError("No step is named.")
    return tuple(sorted(numbers))


def range_factors(where: str, text: object) -> tuple[tuple[float, float], ...]:
    """``20-40%`` as factors: 1 from the fraction 0.2 on, 0 before and from 0.4 on.

    Raises:
        SuiteError: another text, or a range that is reversed, empty or goes beyond 100 %.
    """
    found = _RANGE.fullmatch(text.strip()) if isinstance(text, str) else None
    if found is None:
        raise SuiteError(f'{where} is {text!r}; a range of steps is a text such as "0-40%".')
    start, end = (Decimal(part) / 100 for part in found.groups())
    if not 0 <= start < end <= 1:
        raise SuiteError(f"{where} is {text!r}; it must begin before it ends, and lie within 0-100%.")
    before = [(0.0, 0.0)] if start else []
    after = [(float(end), 0.0)] if end < 1 else []
    return (*before, (float(start), 1.0), *after)


def weight_factors(where: str, pairs: Sequence[Any]) -> tuple[tuple[float, float], ...]:
    """``[[0.0, 1.0], [0.4, 0.2]]`` as factors of a weight of 1.

    Raises:
        SuiteError: not pairs of numbers, fractions that do not rise from 0 to under 1, or the first of them not 0.
    """
    shown = f"{where} is {pairs!r}; a weight by step is pairs such as [[0.0, 1.0], [0.4, 0.2]]: from which fraction"
    for pair in pairs:
        if not isinstance(pair, list) or len(pair) != 2 or not all(_is_number(part) for part in pair):
            raise SuiteError(f"{shown} of the steps on, and the weight.")
    starts = [float(start) for start, _ in pairs]
    if not starts or starts[0] != 0 or starts != sorted(set(starts)) or not starts[-1] < 1:
        raise SuiteError(f"{shown} of the steps on, rising from 0 to under 1.")
    return tuple((float(start), float(weight)) for start, weight in pairs)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def runs_of(factors: Sequence[tuple[float, float]], steps: int) -> tuple[tuple[int, int, float], ...]:
    """The steps that come out: (first, last, factor) of each run of equal factors, all ``steps`` of them."""
    runs: list[tuple[int, int, float]] = []
    for step in range(1, steps + 1):
        held = [factor for start, factor in factors if Fraction(str(start)) <= Fraction(step - 1, steps)]
        factor = held[-1] if held else 1.0
        if runs and runs[-1][2] == factor:
            runs[-1] = (runs[-1][0], step, factor)
        else:
            runs.append((step, step, factor))
    return tuple(runs)


def fraction_before(step: int, steps: int) -> float:
    """A fraction of the steps from which on ``step`` is the first: (step - 1) / steps where a decimal says just that.

    Elsewhere, as for step 6 of 6, it is half a step less, which rounding cannot move to another step.
    """
    exact = Fraction(step - 1, steps)
    return float(exact) if Fraction(str(float(exact))) == exact else float(exact - Fraction(1, 2 * steps))


def steps_text(factors: Sequence[tuple[float, float]], steps: int) -> str:
    """``in steps 1-8 of 20``, or ``times 1 in steps 1-8 and 0.2 in steps 9-20 of 20``."""
    on = [run for run in runs_of(factors, steps) if run[2]]
    if not on:
        return "in no step"
    if all(factor == 1 for *_, factor in on):
        return f"in steps {', '.join(_span(*run[:2]) for run in on)} of {steps}"
    return (
        "times "
        + " and ".join(f"{factor:g} in steps {_span(first, last)}" for first, last, factor in on)
        + f" of {steps}"
    )


def step_notes(suite: Suite) -> tuple[str, ...]:
    """Which steps the LoRAs of a suite's variants run in, where they do not run in all; none of an attribution."""
    return tuple(
        f"{variant.name}: {lora.path} runs {steps_text(lora.step_factors, suite.settings.steps)}."
        for variant in suite.variants
        for lora in variant.loras
        if lora.step_factors and suite.attribution is None
    )


def elsewhere(factors: Sequence[tuple[float, float]], timesteps: Sequence[float]) -> str:
    """How a LoRA's weight by step is set in A1111 and in ComfyUI, as a sentence.

    loractl takes fractions of the steps and draws lines between them, so that a jump needs two weights at one
    fraction. ComfyUI's percent p stands for the training timestep 999 (1 - p); a border is put half-way between the
    timesteps of its two steps, where rounding cannot move it.

    Args:
        factors: as ``Lora.step_factors``; of the LoRA's own weight.
        timesteps: of the steps, 999 and below, falling.
    """
    steps = len(timesteps)
    runs = runs_of(factors, steps)
    a1111 = ",".join(f"{factor:g}@{(first - 1) / steps:g},{factor:g}@{last / steps:g}" for first, last, factor in runs)
    ends = [1 - (before + after) / 2 / 999 for before, after in itertools.pairwise(timesteps)]
    comfy = ", ".join(
        f"{factor:g} from {ends[first - 2] if first > 1 else 0:.3f} to {ends[last - 1] if last < steps else 1:.3f}"
        for first, last, factor in runs
        if factor
    )
    return (
        f"Elsewhere, times its weight: A1111 with loractl {a1111} (fractions of the steps); ComfyUI {comfy} (start and "
        "end percent, fractions of the training timesteps, which hold for this sampler and schedule alone)."
    )


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"
