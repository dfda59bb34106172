"""The metrics that say what is better, which every table and figure shows first."""

from __future__ import annotations

from collections.abc import Sequence

from bench.records import Category, MetricFacts

HEADLINE: tuple[Category, ...] = ("preference", "aesthetic", "alignment")
"""The categories whose metrics say what is better, in the order they are shown."""


def headline_metrics(metrics: Sequence[MetricFacts]) -> tuple[MetricFacts, ...]:
    """The metrics of a category in ``HEADLINE`` that know which way is better, category by category."""
    found = [facts for facts in metrics if facts.category in HEADLINE and facts.higher_is_better is not None]
    return tuple(sorted(found, key=lambda facts: HEADLINE.index(facts.category)))
