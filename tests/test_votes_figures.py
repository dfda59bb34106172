"""The simulation of votes: that it draws what it says, and notices intervals that are too narrow."""

from __future__ import annotations

import numpy as np
import pytest
from figures import votes

from bench.stats import votes as arithmetic

SMALL = votes.Design(8, 24, 48, 0.8, 0.5)


def test_panels_are_of_the_size_that_they_should():
    drawn = votes.draw(np.random.default_rng(0), SMALL)
    assert len(drawn.outcomes) == 8 * 48
    assert set(drawn.outcomes.tolist()) == {-1.0, 0.0, 1.0}
    assert (drawn.pairs[:, 0] != drawn.pairs[:, 1]).all()
    assert len(set(drawn.voters.tolist())) == 8
    assert len(set(drawn.prompts.tolist())) == 24


def test_the_truth_without_effects_is_that_of_the_model(monkeypatch):
    """P(win) + P(tie) / 2 at a difference of 0.6 with the mean tie; its spread between voters moves it little."""
    monkeypatch.setattr(votes, "TRUTH_VOTES", 60_000)
    votes.truth.cache_clear()
    found = votes.truth(0.0, 0.0)
    win, tie, loss = np.exp(0.3), np.exp(votes.LOG_TIE), np.exp(-0.3)
    assert found.share == pytest.approx((win + tie / 2) / (win + tie + loss), abs=0.01)
    assert found.strength == pytest.approx(0.3, abs=0.03)


def test_the_simulation_notices_intervals_that_forget_the_voters(monkeypatch):
    monkeypatch.setattr(votes, "TRUTH_VOTES", 60_000)
    votes.truth.cache_clear()
    monkeypatch.setattr(arithmetic, "MIN_VOTERS", 10**9)
    rng = np.random.default_rng(1)
    design = votes.Design(8, 24, 48, 0.0, 1.5)
    held = [votes.hits(rng, design)[0] for _ in range(40)]
    assert np.mean(held) < 0.85


def test_figures_are_those_of_the_worst_rows_with_effects():
    rows = [
        votes.Row(votes.Design(8, 24, 48, 0.0, 0.0), 100, 0.99, 0.99, 0.1),
        votes.Row(SMALL, 100, 0.92, 0.95, 0.1),
        votes.Row(SMALL, 100, 0.96, 0.98, 0.1),
    ]
    least, most = votes.figures(rows)
    assert (least.value, least.holds) == (0.92, False)
    assert (most.value, most.holds) == (0.98, False)
    assert "| 8 | 24 | 48 | 0.8 | 0.5 | 10.0 points | 92.0 % [" in "\n".join(votes.tables(rows))
