"""Verdicts: is the loss within its margin?"""

from __future__ import annotations

from collections.abc import Sequence

from bench.records import Baseline, Gate


def judge(
    candidate: Baseline,
    reference: Baseline,
    pairs: Sequence[tuple[str, str]],
    *,
    run: str,
    baseline: str,
    baseline_is_run: bool,
    time: str,
    quality_only: bool = False,
) -> Gate:
    """Being written."""
    raise NotImplementedError
