"""The simulation of the gate: that what it draws is what it says, and that it can tell a bad gate from a good one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from figures import gating

from bench.plan import variance_components
from bench.stats import t_interval


@pytest.mark.parametrize("name", ["normal", "left-skewed (exponential)", "right-skewed (exponential)"])
def test_images_have_the_spread_the_loss_and_the_correlation_that_they_should(name):
    rng = np.random.default_rng(0)
    values = gating.images(rng, gating.SHAPES[name], 20_000, 0.25)
    means = values.mean(axis=1)
    assert values.shape == (20_000, 4)
    assert means.mean() == pytest.approx(0.25, abs=0.03)
    assert means.std(ddof=1) == pytest.approx(1.0, abs=0.03)
    parts = variance_components(values.tolist())
    assert parts.between_sd**2 / (parts.between_sd**2 + parts.within_sd**2) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("name", [*gating.SHAPES, *gating.STRESS])
def test_shapes_are_standardised(name):
    shape = {**gating.SHAPES, **gating.STRESS}[name]
    values = shape(np.random.default_rng(1), 1_000_000)
    assert values.mean() == pytest.approx(0.0, abs=0.01)
    # The fourth moment of t3 is infinite and that of the lognormal huge, so their spread converges slowly.
    assert values.std() == pytest.approx(1.0, abs=0.15)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(gating, "GATES", 500)
    monkeypatch.setattr(gating, "BOOTSTRAP_GATES", 100)


def test_at_the_margin_the_gate_holds_its_level_and_the_others_do_not(small):
    row = gating.simulate_row("normal", gating.SHAPES["normal"], 25, gating.MARGIN)
    assert (row.gate.gates, row.naive.gates, row.unclustered.gates) == (500, 500, 100)
    assert row.gate.passes / 500 <= 0.08
    assert row.gate.fails / 500 <= 0.08
    assert 0.4 < row.naive.passes / 500 < 0.6
    assert row.naive.passes + row.naive.fails == 500
    assert row.unclustered.passes / 100 > 0.1


def test_the_simulation_notices_a_gate_that_errs(small, monkeypatch):
    """With Student's interval alone the left-skewed row is known to pass about twice as often as it says."""
    monkeypatch.setattr("bench.gate.quality.mean_bounds", lambda values, **_: t_interval(values, level=0.9))
    name = "left-skewed (exponential)"
    row = gating.simulate_row(name, gating.SHAPES[name], 25, gating.MARGIN)
    assert row.gate.passes / 500 > 0.075


def test_a_figure_is_that_of_its_worst_row():
    good, bad = (
        gating.Row("normal", 100, gating.Tally(100, passes, 95), gating.Tally(), gating.Tally()) for passes in (2, 7)
    )
    results = {"at_margin": [good, bad], "identical": [good], "beyond": [bad, replace(good, prompts=400)]}
    by_name = {figure.figure: figure for figure in gating.figures(results)}
    assert (by_name["gate_passes_at_margin"].value, by_name["gate_passes_at_margin"].holds) == (0.07, True)
    assert by_name["gate_passes_at_margin_normal"].holds is False
    assert (by_name["gate_catches_loss"].value, by_name["gate_catches_loss"].holds) == (0.95, True)
    assert by_name["gate_false_alarms"].holds is False
    assert (by_name["gate_passes_beyond"].value, by_name["gate_passes_beyond"].holds) == (0.02, False)
