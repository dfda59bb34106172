"""Stage ``curves``: the loss of every stage that left a log in the work folder, as one picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

COLUMNS = 3
SMOOTHED = 10
"""Log lines that the thick line is the mean of, so far as there are that many before."""


def run(work: Path) -> Path:
    """Draw ``<work>/<stage>.log.jsonl`` of every stage into ``<work>/curves.png``; returns that path.

    Raises:
        FileNotFoundError: no stage has been trained there.
    """
    from matplotlib.figure import Figure

    logs = sorted(work.glob("*.log.jsonl"))
    if not logs:
        raise FileNotFoundError(f"{work}: no stage has left a log here; train one first.")
    columns = min(COLUMNS, len(logs))
    rows = -(-len(logs) // columns)
    figure = Figure(figsize=(3 * columns, 2.2 * rows), layout="constrained", dpi=100)
    for place, log in enumerate(logs):
        _draw(figure.add_subplot(rows, columns, place + 1), log)
    target = work / "curves.png"
    figure.savefig(target, metadata={"Software": None})
    return target


def read_log(path: Path) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Iterations and losses of a log; where a stage was interrupted and went on, the later line of an iteration."""
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    losses = {int(line["iteration"]): float(line["loss"]) for line in lines}
    order = sorted(losses)
    return np.array(order), np.array([losses[iteration] for iteration in order])


def trailing_mean(values: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Mean of each value and those before it, ``count`` in all where there are so many; (n,) to (n,)."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - count, 0)
    mean: NDArray[np.float64] = (sums[ends] - sums[starts]) / (ends - starts)
    return mean


def _draw(axes: Any, log: Path) -> None:
    iterations, losses = read_log(log)
    axes.plot(iterations, losses, color="#56b4e9", linewidth=0.8)
    axes.plot(iterations, trailing_mean(losses, SMOOTHED), color="#0072b2", linewidth=1.6)
    axes.set_title(log.name.removesuffix(".log.jsonl"), loc="left", fontsize=9)
    axes.set_xlabel("iteration", fontsize=8)
    axes.set_ylabel("loss", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
