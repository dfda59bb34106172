"""What a pilot run shows: the spread of paired differences, and the seconds an image takes."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from bench import stats
from bench.comparability import check_names, differences, settings_facts
from bench.compare import variant_pairs
from bench.compare.pairing import ImageScores
from bench.errors import IncomparableError, InvalidError, UsageError
from bench.formatting import argument, listed, making
from bench.records import Run, Suite


class Components(NamedTuple):
    """Standard deviations of per-image values between prompts and, within a prompt, between samples."""

    between_sd: float
    """With ``within_sd`` None that of a prompt's single sample, which holds both parts."""
    within_sd: float | None
    """None where every prompt has one sample: the two cannot be separated."""
    prompts: int
    values: int
    group_sd: float | None = None
    """Between groups of prompts, a part of ``between_sd``; None where no group has two prompts."""
    prompt_sd: float = 0.0
    """Between the prompts of a group; 0 with ``group_sd`` None."""

    def sd_of_groups(self, samples: int, size: float) -> float:
        """Standard deviation of the means of groups of ``size`` prompts of ``samples`` images each.

        sqrt(group^2 + (prompt^2 + within^2 / samples) / size); where the parts are not known, that of one prompt, as if
        the prompts of a group all differed alike.
        """
        if self.group_sd is None or size == 1:
            return self.sd_of_means(samples)
        inner = math.hypot(self.prompt_sd, (self.within_sd or 0.0) / math.sqrt(samples))
        return math.hypot(self.group_sd, inner / math.sqrt(size))

    def sd_of_means(self, samples: int) -> float:
        """Standard deviation of prompt means over ``samples`` images: sqrt(between^2 + within^2 / samples).

        Raises:
            ValueError: more than one sample, and ``within_sd`` is not known.
        """
        if self.within_sd is None and samples != 1:
            raise ValueError("the spread within a prompt is not known, so only single samples can be planned")
        return math.hypot(self.between_sd, (self.within_sd or 0.0) / math.sqrt(samples))


def variance_components(prompts: Sequence[Sequence[float]]) -> Components:
    """Components of variance of a one-way layout with random prompts, by the analysis of variance.

    With k prompts of n_i values, N in all: within^2 = MSW, between^2 = max(0, (MSB - MSW) / n_0) and
    n_0 = (N - sum(n_i^2) / N) / (k - 1); MSB and MSW are the mean squares between and within prompts. An
    estimate of between^2 under zero becomes 0, which leaves the standard deviation of prompt means too large
    rather than too small.

    Args:
        prompts: the values of each prompt, one or more; lengths may differ. All finite.

    Raises:
        ValueError: fewer than 2 prompts, or one without values.

    Source: S. R. Searle, G. Casella, C. E. McCulloch, "Variance Components" (1992), section 3.6.
    """
    counts = np.array([len(values) for values in prompts])
    if len(counts) < 2 or not counts.all():
        raise ValueError("components of variance need 2 or more prompts with one or more values each")
    flat = np.concatenate([np.asarray(values, dtype=np.float64) for values in prompts])
    deviations = flat - flat[0]
    # Over the largest size, so that no square vanishes or overflows.
    scale = float(np.abs(deviations).max()) or 1.0
    deviations /= scale
    owner = np.repeat(np.arange(len(counts)), counts)
    means = np.bincount(owner, deviations) / counts
    total = len(flat)
    between_mean_square = float(counts @ (means - deviations.mean()) ** 2) / (len(counts) - 1)
    if total == len(counts):
        return Components(scale * math.sqrt(between_mean_square), None, len(counts), total)
    within = float(((deviations - means[owner]) ** 2).sum()) / (total - len(counts))
    typical = (total - float(counts @ counts) / total) / (len(counts) - 1)
    between = max(0.0, (between_mean_square - within) / typical)
    return Components(scale * math.sqrt(between), scale * math.sqrt(within), len(counts), total)


def with_groups(parts: Components, prompts: Sequence[Sequence[float]], units: Sequence[Hashable]) -> Components:
    """The components with that of groups of prompts: the analysis of variance of the prompts' means by group.

    group^2 is the part between groups; prompt^2 is what is left within them once within^2 over the harmonic mean of the
    samples is taken off, 0 at least. With one sample a prompt it holds the samples' part too.

    Args:
        parts: ``variance_components`` of the prompts.
        prompts: the same values.
        units: the group of each prompt.
    """
    means: dict[Hashable, list[float]] = {}
    for unit, values in zip(units, prompts, strict=True):
        means.setdefault(unit, []).append(stats.mean(values))
    if len(means) < 2 or len(means) == len(prompts):
        return parts
    nested = variance_components(list(means.values()))
    samples = stats.mean([(parts.within_sd or 0.0) ** 2 / len(values) for values in prompts])
    inner = max(0.0, (nested.within_sd or 0.0) ** 2 - samples)
    return parts._replace(group_sd=nested.between_sd, prompt_sd=math.sqrt(inner))


# What a run shows.

_ROUNDING = 1e-12
"""Spreads under this share of the scores' size are rounding."""


def refuse_other_settings(suite: Suite, pilot: Run) -> None:
    """Refuses a pilot of other settings: its spread and its times would be those of other images.

    Raises:
        IncomparableError: with every setting that differs.
    """
    theirs, ours = (settings_facts(one.settings) for one in (pilot.info.suite, suite))
    differing = differences(theirs, ours, ("there", "here"))
    if differing:
        raise IncomparableError(
            f"{pilot.path}: cannot be a pilot for the suite {suite.name}, its settings differ: {'; '.join(differing)}.",
            f"{making(suite)} --limit 30",
        )


def choose_pairs(pilot: Run, candidate: str | None, reference: str | None) -> tuple[tuple[str, str], ...]:
    """(candidate, reference) variants of a pilot: those named, else each with the first one.

    Raises:
        UsageError: an unknown variant, a variant with itself, or a pilot of one variant.
    """
    names = [variant.name for variant in pilot.info.suite.variants]
    check_names([name for name in (candidate, reference) if name is not None], names, f"{pilot.path} has no variant")
    if len(names) < 2:
        raise UsageError(
            f"{pilot.path}: has only the variant {names[0]}; a plan needs the differences between two.",
            "name a pilot with --from that has both, such as one of this suite with a second variant in it",
        )
    below = reference if reference is not None else names[0]
    if candidate == below:
        raise UsageError(f"The variant {below!r} cannot be its own reference; name two of {listed(names)}.")
    if candidate is not None:
        return ((candidate, below),)
    known = [pair for pair in variant_pairs(pilot.info.suite) if pair[1] == below and reference is None]
    return tuple(known) or tuple((name, below) for name in names if name != below)


def read_pilot(
    pilot: Run,
    table: Mapping[tuple[str, str], ImageScores],
    pair: tuple[str, str],
    metric: str,
    units: Mapping[str, Hashable],
) -> tuple[Components, Components, float]:
    """The spread of one metric between and within prompts, from the images that both sides have scores of.

    Args:
        pilot: the run.
        table: its ``usable_scores``.
        pair: (candidate, reference) variants.
        metric: its name; one of the run's.
        units: the group of each prompt, by its id.

    Returns:
        The components of candidate - reference, those of the reference's own scores, and the reference's mean, all
        in the metric's unit.

    Raises:
        InvalidError: no pair of scores, one prompt, or differences that are all equal.
    """
    above, below = (table.get((name, metric), {}) for name in pair)
    found, owners = [], []
    for prompt in pilot.info.suite.prompts:
        keys = [(prompt.id, sample) for sample in range(pilot.info.suite.samples)]
        both = [(above[key], below[key]) for key in keys if key in above and key in below]
        if both:
            found.append(both)
            owners.append(units[prompt.id])
    where = f"{pilot.path}: {metric} of {pair[0]} and {pair[1]}"
    if not found:
        raise InvalidError(
            f"{where}: no image has a score on both sides.", f"hotart-bench score {argument(pilot.path)}"
        )
    if len(set(owners)) < 2:
        what = "prompt" if len(found) < 2 else "group of prompts"
        raise InvalidError(
            f"{where}: only one {what} has scores, which shows no spread; a pilot needs 2, and 30 are good.",
            making(pilot.info.suite) + (" --limit 30" if pilot.info.suite.external_images is None else ""),
        )
    pairs = [[one - other for one, other in both] for both in found]
    differences = with_groups(variance_components(pairs), pairs, owners)
    scores = variance_components([[other for _, other in both] for both in found])
    size = max(abs(score) for both in found for image in both for score in image)
    if not _spreads(differences, size):
        why = "the difference is the same on every image" if _spreads(scores, size) else "every score is the same"
        raise InvalidError(
            f"{where}: {why}, so the pilot shows no spread to plan by.",
            "take another variant with --candidate, or a metric that tells images apart",
        )
    return differences, scores, stats.mean([stats.mean([other for _, other in both]) for both in found])


def _spreads(parts: Components, size: float) -> bool:
    return max(parts.between_sd, parts.within_sd or 0.0) > _ROUNDING * size


def seconds_of_all_variants(suite: Suite, run: Run) -> float | None:
    """Seconds for one image of each of the suite's variants, one after another; None without timings.

    The sum of the medians of ``end_to_end``; a variant that the run has not timed counts as its slowest.
    """
    values: dict[str, list[float]] = {}
    for timing in run.timings:
        if timing.name == "end_to_end":
            values.setdefault(timing.variant, []).extend(timing.values)
    medians = {name: stats.quantiles(found).median for name, found in values.items() if found}
    if not medians:
        return None
    slowest = max(medians.values())
    return math.fsum(medians.get(variant.name, slowest) for variant in suite.variants)
