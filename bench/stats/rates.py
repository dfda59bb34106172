"""Paired differences of rates, such as the share of flagged images, which may be 0 on both sides."""

from __future__ import annotations

import math

from numpy.typing import ArrayLike
from scipy.special import ndtri

from bench.stats.effects import finite, tails


def paired_rate_interval(differences: ArrayLike, *, level: float = 0.95) -> tuple[float, float]:
    """Interval (low, high) of the mean of differences in [-1, 1] that has a width where all of them are 0.

    Wald's interval after adding two pairs to the n observed, half of one in each cell of the 2x2 table: one half pair
    that rose and one that fell. m = sum(d) / (n + 2), v = (sum(d^2) + 1) / (n + 2) - m^2, and m -+ z sqrt(v / (n + 2)),
    cut to [-1, 1]. With d of -1, 0 and 1 this is Agresti and Min's interval; with the mean differences of prompts of
    several images each the squares are those of the clustered McNemar test.

    Args:
        differences: (n,) one a prompt, in [-1, 1], or a group of them (``bench.stats.groups.group_units``).
        level: two-sided coverage.

    Raises:
        ValueError: no value, or one that is not finite.

    Source: A. Agresti and Y. Min, "Simple improved confidence intervals for comparing matched proportions", Stat. Med.
    24 (2005); V. L. Durkalski et al., "Analysis of clustered matched-pair data", Stat. Med. 22 (2003).
    """
    data = finite(differences)
    n = len(data) + 2
    centre = math.fsum(data) / n
    half = float(ndtri(tails(level)[1])) * math.sqrt(((math.fsum(data**2) + 1) / n - centre**2) / n)
    return max(-1.0, centre - half), min(1.0, centre + half)


def smallest_visible_rise(rate: float, prompts: int, *, level: float = 0.95, power: float = 0.8) -> float | None:
    """How far a rate has to rise to be seen with ``prompts`` pairs of one image each, in (0, 1 - rate].

    The least x with prompts >= (z_level + z_power)^2 (p01 + p10 - x^2) / x^2, where p01 = (1 - rate) (rate + x) and
    p10 = rate (1 - rate - x) are the shares of pairs that rise and fall if both sides are independent: what McNemar's
    test sees with this power. Pairs on the same noise are alike, so that less is needed; 0.01 to 0.03 takes 766 pairs.
    None where not even a rise to 1 is seen.

    Args:
        rate: of the reference, in [0, 1].
        prompts: pairs.
        level: of the two-sided test, 1 - alpha.
        power: probability of seeing it.
    """
    most = 1.0 - rate
    z = float(ndtri(tails(level)[1]) + ndtri(power)) ** 2
    # prompts x^2 = z ((1 - rate)(rate + x) + rate (1 - rate - x) - x^2) is a quadratic equation in x.
    a, b, c = prompts + z, -z * (1.0 - 2.0 * rate), -2.0 * z * rate * (1.0 - rate)
    found = (-b + math.sqrt(b * b - 4.0 * a * c)) / (2.0 * a)
    return found if 0.0 < found <= most else None
