"""Oracles: order statistics by hand and planted slowdowns."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from fakes import make_run

from bench.compare import summarize_timings, timing_ratios
from bench.errors import InvalidError, UsageError
from bench.records import Timing

replace = msgspec.structs.replace


def _timing(name: str, values: list[float], round_number: int = 0, variant: str = "base") -> Timing:
    unit = "byte" if name.startswith("peak") else "second"
    return Timing(
        variant=variant,
        name=name,  # type: ignore[arg-type]
        unit=unit,  # type: ignore[arg-type]
        round=round_number,
        process=100 + round_number,
        warmups=(99.0,),
        values=tuple(values),
    )


def _weak(tmp_path: Path, name: str, rounds: list[list[float]]) -> str | None:
    timings = tuple(_timing(name, values, k) for k, values in enumerate(rounds))
    (summary,) = summarize_timings(replace(make_run(tmp_path, prompts=1), timings=timings))
    return summary.weak


def test_timing_summaries_by_hand(tmp_path: Path) -> None:
    run = make_run(tmp_path, prompts=1)
    timings = (_timing("end_to_end", [4, 1, 3], 1), _timing("end_to_end", [2, 5], 0), _timing("load", [], 0))
    (summary,) = summarize_timings(replace(run, timings=timings))
    assert (summary.n, summary.rounds, summary.unit) == (5, 2, "second")
    assert (summary.median, summary.p90, summary.iqr, summary.minimum) == pytest.approx((3, 4.6, 2, 1))


def test_summaries_and_ratios_of_a_whole_run(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    summaries = summarize_timings(run)
    assert len(summaries) == 3 * 7
    assert [s.variant for s in summaries[:3]] == ["base", "dpo", "spo"]
    assert all(s.weak is not None and "2 processes" in s.weak for s in summaries)
    medians = {(s.name, s.variant): s.median for s in summaries}
    ratios = timing_ratios(run)
    assert len(ratios) == 2 * 7
    for ratio in ratios:
        expected = medians[ratio.name, ratio.candidate] / medians[ratio.name, "base"]
        assert ratio.ratio == pytest.approx(expected)
        assert ratio.interval is not None
        assert ratio.interval.low <= ratio.interval.high


def test_why_a_figure_is_weak(tmp_path: Path) -> None:
    steady = [1.0, 1.01, 0.99]
    assert _weak(tmp_path, "end_to_end", [steady] * 5) is None
    assert _weak(tmp_path, "peak_rss", [[5e8]] * 5) is None
    assert _weak(tmp_path, "end_to_end", [steady] * 2) == (
        "6 values from 2 processes; 10 or more from 5 or more processes would be firm."
    )
    assert _weak(tmp_path, "peak_rss", [[5e8]]) == (
        "1 value from 1 process; 5 or more from 5 or more processes would be firm."
    )
    assert _weak(tmp_path, "vae_decode", [[1.0, 1.0, 1.2, 1.2]] * 5) == (
        "The middle half of the values spreads over 18% of the median; 10% or less would be firm."
    )
    drifting = [[1.0] * 4, [1.0] * 4, [1.0] * 4, [1.0] * 4, [1.3] * 4]
    assert _weak(tmp_path, "vae_decode", drifting) == (
        "The processes' medians lie 30% of the median apart; 10% or less would be firm."
    )
    assert "no clock" in str(_weak(tmp_path, "load", [[0.0]] * 5))


def test_ratios_of_chosen_pairs_and_single_rounds(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    (found,) = [r for r in timing_ratios(run, pairs=[("spo", "dpo")]) if r.name == "load"]
    assert (found.candidate, found.reference) == ("spo", "dpo")
    first_round = replace(run, timings=tuple(t for t in run.timings if t.round == 0))
    assert all(ratio.interval is None for ratio in timing_ratios(first_round))
    with pytest.raises(UsageError, match="no variant 'spoo'"):
        timing_ratios(run, pairs=[("spoo", "dpo")])


def test_a_slower_variant_is_seen(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    slowed = tuple(
        replace(t, values=tuple(1.5 * v for v in t.values)) if t.variant == "spo" else t for t in run.timings
    )
    for ratio in timing_ratios(replace(run, timings=slowed)):
        assert ratio.interval is not None
        assert (ratio.interval.low > 1.2) == (ratio.candidate == "spo")


def test_a_value_of_zero_has_no_ratio(tmp_path: Path) -> None:
    run = make_run(tmp_path, prompts=1)
    zero = replace(run, timings=(_timing("load", [0.0]), _timing("load", [1.0], variant="spo")))
    with pytest.raises(InvalidError, match="gives load of base a value of 0"):
        timing_ratios(zero)
