"""How much of a paired difference is the prompt's, and how much the sample's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Components(NamedTuple):
    """Standard deviations of per-image values between prompts and, within a prompt, between samples."""

    between_sd: float
    """With ``within_sd`` None that of a prompt's single sample, which holds both parts."""
    within_sd: float | None
    """None where every prompt has one sample: the parts cannot be told apart."""
    prompts: int
    values: int

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
