"""Arithmetic on arrays: intervals, effects, tests, rankings. Imports nothing from the rest of ``bench``.

``values`` and ``differences`` have one entry a prompt: average its samples first. They are not
independent, and an interval that treats them so is too narrow. Nor are prompts of one group: ``groups`` gives one
entry a group.

Arrays are (n,) and finite, n >= 1 unless said otherwise, ``level`` is the two-sided coverage in (0, 1);
anything else raises ``ValueError``. Nothing returns NaN: where a quantity does not exist the function
raises ``ValueError`` or, where its docstring says so, returns None.
"""

from __future__ import annotations

from bench.stats.bands import Band, simultaneous_band
from bench.stats.effects import Quantiles, WinCount, d_z, mean, pearson_r, quantiles, spearman_rho, win_rate
from bench.stats.groups import (
    Units,
    effective_groups,
    effective_share,
    explained_by,
    group_rows,
    group_sums,
    group_units,
)
from bench.stats.intervals import (
    bootstrap_bca,
    ratio_of_medians,
    ratio_of_medians_interval,
    t_interval,
    wilson_interval,
)
from bench.stats.multiplicity import benjamini_hochberg, holm, sign_flip_p, sign_flip_rows_p
from bench.stats.ranking import DavidsonFit, fit_davidson, tied_sets
from bench.stats.rates import paired_rate_interval, smallest_visible_rise
from bench.stats.sets import jackknife, pair_interval, pair_mean, swap_p

__all__ = [
    "Band",
    "DavidsonFit",
    "Quantiles",
    "Units",
    "WinCount",
    "benjamini_hochberg",
    "bootstrap_bca",
    "d_z",
    "effective_groups",
    "effective_share",
    "explained_by",
    "fit_davidson",
    "group_rows",
    "group_sums",
    "group_units",
    "holm",
    "jackknife",
    "mean",
    "pair_interval",
    "pair_mean",
    "paired_rate_interval",
    "pearson_r",
    "quantiles",
    "ratio_of_medians",
    "ratio_of_medians_interval",
    "sign_flip_p",
    "sign_flip_rows_p",
    "simultaneous_band",
    "smallest_visible_rise",
    "spearman_rho",
    "swap_p",
    "t_interval",
    "tied_sets",
    "wilson_interval",
    "win_rate",
]
