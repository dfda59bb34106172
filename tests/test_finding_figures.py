"""The simulation of the findings: that what it draws is what it says, and that it notices a rule that errs."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from figures import findings

from bench.compare import finding

TRUTHS = {truth.name: truth for truth in (*findings.TRUTHS, *findings.SMALL)}


@pytest.mark.parametrize("shape", ["normal", "skewed"])
def test_differences_have_the_spread_and_the_correlation_that_they_should(shape):
    drawn = findings.noise(np.random.default_rng(0), shape, 50_000)
    assert drawn.shape == (len(findings.PANEL), 50_000)
    assert drawn.mean(axis=1) == pytest.approx(np.zeros(len(drawn)), abs=0.03)
    assert drawn.std(axis=1) == pytest.approx(np.ones(len(drawn)), abs=0.03)
    between = np.corrcoef(drawn)[np.triu_indices(len(drawn), 1)]
    assert between == pytest.approx(np.full(len(between), findings.SHARED), abs=0.03)
    skewness = (drawn**3).mean(axis=1)
    assert (skewness < -0.5).all() if shape == "skewed" else np.abs(skewness).max() < 0.1


def words(truth: str, runs: int, prompts: int = 100) -> Counter[str]:
    rng = np.random.default_rng(1)
    return Counter(findings.word_of_run(rng, TRUTHS[truth], "normal", prompts) for _ in range(runs))


@pytest.mark.parametrize("truth", ["earned", "mixed: alignment pays", "bought", "unknown overlap", "worse", "A/A"])
def test_large_effects_get_the_right_word(truth):
    found = words(truth, 6, prompts=400)
    assert found[TRUTHS[truth].word] >= 5, found


def test_the_simulation_notices_a_rule_without_correction(monkeypatch):
    """Ten metrics at 5 % each: three without overlap gain by chance in up to 14 % of runs of nothing at all."""
    monkeypatch.setattr(finding, "ERROR", 0.05 * len(findings.PANEL) * 3)
    assert words("A/A", 40, prompts=24)["earned"] >= 4


def test_a_figure_is_that_of_its_worst_row():
    rows = [
        findings.Row(TRUTHS["A/A"], "normal", 24, Counter({"earned": 7, "not shown": 93})),
        findings.Row(TRUTHS["bought"], "skewed", 100, Counter({"earned": 1, "bought": 99})),
        findings.Row(TRUTHS["mixed: alignment pays"], "normal", 100, Counter({"mixed": 79, "earned": 21})),
        findings.Row(TRUTHS["A/A"], "normal", 100, Counter({"not shown": 100})),
    ]
    wrong, right = findings.figures(rows)
    assert (wrong.value, wrong.holds) == (0.07, False)
    assert (right.value, right.holds) == (0.79, False)
    text = "\n".join(findings.tables(rows))
    assert "| mixed: alignment pays | 100 | 21.0 % | **79.0 %** | 0.0 % | 0.0 % | 0.0 % |" in text
