"""The noise levels that a schedule visits: sigma = s / alpha, noise over signal, and the timesteps they belong to.

Of one schedule they are the same for every sampler that may follow it, whatever diffusers' class of it would take; only
``leading`` is each class's own. Sources: T. Karras et al. 2022, arXiv 2206.00364, equation 5 (``karras``); k-diffusion
(``exponential``, ``normal``); A. Sabour et al. 2024, "Align Your Steps", arXiv 2404.14507 (``ays``); T. Lee et al.
2024, "Beta Sampling is All You Need", arXiv 2407.12173 (``beta``); S. Luo et al. 2023, arXiv 2310.04378 (``lcm``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import scipy
from numpy.typing import NDArray

from bench.records import Schedule
from bench.records.weights import Family

Levels = NDArray[np.float64]

RHO = 7.0
BETA = 0.6
"""Both parameters of the beta distribution."""
DISTILLED = 50
"""Timesteps that LCM and TCD are distilled at, evenly spaced."""

ALIGNED: Mapping[Family, tuple[float, ...]] = {
    "sd15": (14.6146412293, 6.4745760956, 3.8636745985, 2.6946151520, 1.8841921177, 1.3943805092, 0.9642583904)
    + (0.6523686016, 0.3977456272, 0.1515232662, 0.0291671582),
    "sdxl": (14.6146412293, 6.3184485287, 3.7681790315, 2.1811480769, 1.3405244945, 0.8620721141, 0.5550693289)
    + (0.3798540708, 0.2332364134, 0.1114188177, 0.0291671582),
}
"""The noise levels of ten steps that "Align Your Steps" publishes, the last of which becomes 0."""


def levels_of(
    schedule: Schedule, steps: int, table: Levels, *, family: Family = "sdxl", timesteps: Sequence[int] = ()
) -> tuple[Levels, Levels]:
    """The noise levels of a schedule and their timesteps, both falling; the 0 after the last is left out.

    Args:
        schedule: any but ``leading``, which diffusers spaces.
        steps: how many; 1 gives the first level of every schedule.
        table: sigma of every timestep that the model was trained with, rising.
        family: whose levels of ``ays``.
        timesteps: of the schedule ``timesteps``.
    """
    last = len(table) - 1
    if schedule in _SPACED:
        times = _SPACED[schedule](steps, last)
    elif schedule == "timesteps":
        times = np.array(timesteps, dtype=np.float64)
    else:
        sigmas = _aligned(steps, table, ALIGNED[family]) if schedule == "ays" else _CURVED[schedule](steps, table)
        return sigmas, timestep_of(sigmas, table)
    if schedule == "linspace":
        return np.interp(times, np.arange(last + 1), table), times
    return np.exp(np.interp(times, np.arange(last + 1), np.log(table))), times


def timestep_of(sigmas: Levels, table: Levels) -> Levels:
    """The timestep of each noise level: log-linear between two trained ones, and never beyond the ends.

    sigmas (n,), table (T,) rising -> (n,) in [0, T - 1].
    """
    return np.interp(np.log(sigmas), np.log(table), np.arange(len(table)))


# Timesteps evenly spaced: number of steps, last timestep -> timesteps.


def _from_end_to_end(steps: int, last: int) -> Levels:
    return np.linspace(last, 0, steps)


def _without_the_end(steps: int, last: int) -> Levels:
    return np.linspace(last, 0, steps + 1)[:-1]


def _trailing(steps: int, last: int) -> Levels:
    """T - i T / n, rounded, less 1: 999, 799, 599, 399, 199 for five of a thousand."""
    return np.round((last + 1) * (1 - np.arange(steps) / steps)) - 1


def _distilled(steps: int, last: int) -> Levels:
    """Of the fifty timesteps that LCM was distilled at, those that are nearest above even spacing."""
    every = min(DISTILLED, last + 1)
    falling = (np.arange(every, 0, -1) * ((last + 1) // every) - 1).astype(np.float64)
    return falling[np.floor(np.linspace(0, every, steps, endpoint=False)).astype(np.int64)]


_SPACED: Mapping[Schedule, Callable[[int, int], Levels]] = {
    "linspace": _from_end_to_end,
    "normal": _from_end_to_end,
    "sgm_uniform": _without_the_end,
    "simple": _trailing,
    "lcm": _distilled,
}


# Curves from the highest noise level to the lowest: number of steps, the table -> noise levels.


def _karras(steps: int, table: Levels) -> Levels:
    low, high = float(table[0]) ** (1 / RHO), float(table[-1]) ** (1 / RHO)
    return np.asarray((high + np.linspace(0, 1, steps) * (low - high)) ** RHO)


def _exponential(steps: int, table: Levels) -> Levels:
    return np.exp(np.linspace(math.log(table[-1]), math.log(table[0]), steps))


def _beta(steps: int, table: Levels) -> Levels:
    quantiles = scipy.stats.beta.ppf(1 - np.linspace(0, 1, steps), BETA, BETA)
    return np.asarray(float(table[0]) + quantiles * (float(table[-1]) - float(table[0])))


def _aligned(steps: int, table: Levels, published: Sequence[float]) -> Levels:
    """The published levels at one more than ``steps`` points, log-linear between them, without the last one.

    A model that begins at pure noise begins there: the published ones are for others.
    """
    points = np.linspace(0, 1, len(published))
    levels = np.exp(np.interp(np.linspace(0, 1, steps + 1), points, np.log(published)))[:-1]
    levels[0] = float(table[-1])
    return levels


_CURVED: Mapping[Schedule, Callable[[int, Levels], Levels]] = {
    "karras": _karras,
    "exponential": _exponential,
    "beta": _beta,
}
