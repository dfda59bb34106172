"""The report's section on a sweep: a row a weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench import wording as text
from bench.compare.sweep import PIXEL_SHIFT, sweep_curve
from bench.plots.data import headline_metrics
from bench.records import Delta, Run, SweepPoint


@dataclass(frozen=True)
class SweepRow:
    """One weight: differences to the weight 0 as text, in the order of the table's metrics."""

    weight: str
    cells: tuple[str, ...]
    shift: str
    on_front: bool


@dataclass(frozen=True)
class SweepTable:
    """The weights of a swept LoRA, rising."""

    lora: str
    note: str
    metrics: tuple[str, ...]
    rows: tuple[SweepRow, ...]


def sweep_table(run: Run, deltas: Sequence[Delta]) -> SweepTable | None:
    """The table of a run of ``hotart-bench sweep``; None for another run, or before anything was scored."""
    curve, sweep = sweep_curve(run, deltas), run.info.suite.sweep
    if curve is None or sweep is None or not any(point.deltas for point in curve.points):
        return None
    names = [facts.name for facts in headline_metrics(run.info.metrics)]
    shown = [name for name in names if any(name in point.deltas for point in curve.points)]
    return SweepTable(
        lora=sweep.lora,
        note=_note(curve.goals, [point for point in curve.points if point.on_front]),
        metrics=tuple(shown),
        rows=tuple(_row(point, shown) for point in curve.points),
    )


def _note(goals: Sequence[str], front: Sequence[SweepPoint]) -> str:
    told = "Differences to the weight 0, with 95 % intervals."
    if goals:
        best = text.listed([f"{point.weight:g}" for point in front]) if front else "none"
        wanted = text.listed(["how little the pixels move" if name == PIXEL_SHIFT else name for name in goals])
        told += (
            f" On the Pareto front (★: {best}) is a weight that no other one matches in {wanted} while beating it in "
            "one of these, by the means."
        )
    return (
        f"{told} The pixel shift is the root mean square difference of the statistics of the pixels, in standard "
        "deviations of the prompts at weight 0."
    )


def _row(point: SweepPoint, metrics: Sequence[str]) -> SweepRow:
    return SweepRow(
        weight=f"{point.weight:g}",
        cells=tuple(_cell(point, name) for name in metrics),
        shift=text.NONE if point.pixel_shift is None else text.number(point.pixel_shift, 2),
        on_front=point.on_front,
    )


def _cell(point: SweepPoint, metric: str) -> str:
    delta = point.deltas.get(metric)
    if delta is None:
        return "0" if point.weight == 0 else text.NONE
    decimals = text.decimals_of_deltas([delta])
    return f"{text.signed(delta.mean, decimals)} {text.interval(delta.interval, decimals)}"
