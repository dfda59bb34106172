"""Shares of flagged images: counts by a plain loop, the interval and its coverage, what is seen, where it is shown."""

from __future__ import annotations

import json
import math
from pathlib import Path

import msgspec
import numpy as np
import pytest
from fakes import make_run, with_facts, write_run
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

import bench
from bench.cli import run_command_line
from bench.compare import compare_run, rate_changes
from bench.records import Run, Threshold
from bench.report import build_view, write_report
from bench.stats import paired_rate_interval, smallest_visible_rise

METRIC = "contrast"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made = make_run(tmp_path, prompts=24)
    values = sorted(score.value for score in made.scores if score.metric == METRIC and score.value is not None)
    thresholds = (Threshold(name="much", above=values[len(values) // 2]), Threshold(name="never", above=1e9))
    return with_facts(made, METRIC, category="safety", thresholds=thresholds)


def test_rates_agree_with_a_plain_loop(run: Run) -> None:
    much, never = rate_changes(run, [("spo", "base")])
    above = run.info.metrics[[facts.name for facts in run.info.metrics].index(METRIC)].thresholds[0].above
    values = {(s.variant, s.prompt_id, s.sample): s.value for s in run.scores if s.metric == METRIC}
    shares = {
        variant: [
            sum(values[variant, prompt.id, sample] > above for sample in range(2)) / 2
            for prompt in run.info.suite.prompts
        ]
        for variant in ("base", "spo")
    }
    changes = [one - other for one, other in zip(shares["spo"], shares["base"], strict=True)]
    assert much.candidate_rate == pytest.approx(sum(shares["spo"]) / 24)
    assert much.reference_rate == pytest.approx(sum(shares["base"]) / 24)
    assert (much.rose, much.fell) == (sum(c > 0 for c in changes), sum(c < 0 for c in changes))
    assert (much.prompts, much.images) == (24, 48)
    assert never.change == 0
    assert never.interval.low < 0 < never.interval.high


def test_an_image_without_a_score_is_left_out_on_both_sides(run: Run) -> None:
    def lost(score):
        return (score.variant, score.metric, score.sample) == ("spo", METRIC, 1)

    holes = tuple(msgspec.structs.replace(s, value=None, reason="x") if lost(s) else s for s in run.scores)
    much, _ = rate_changes(msgspec.structs.replace(run, scores=holes), [("spo", "base")])
    assert (much.prompts, much.images) == (24, 24)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 60))
def test_single_images_give_agresti_and_min_by_their_table(rose: int, fell: int, same: int) -> None:
    n = rose + fell + same
    if n == 0:
        return
    # Their formula from the four cells, each with one half added.
    b, c, total = rose + 0.5, fell + 0.5, n + 2.0
    centre = (b - c) / total
    half = norm.ppf(0.975) * math.sqrt((b + c) / total - centre**2) / math.sqrt(total)
    low, high = paired_rate_interval([1.0] * rose + [-1.0] * fell + [0.0] * same)
    assert low == pytest.approx(max(-1, centre - half))
    assert high == pytest.approx(min(1, centre + half))


@pytest.mark.parametrize(
    ("prompts", "before", "after", "samples"),
    [(24, 0.5, 0.6, 2), (100, 0.1, 0.2, 1), (280, 0.01, 0.03, 1), (100, 0.02, 0.02, 4)],
)
def test_the_interval_holds_its_level(prompts: int, before: float, after: float, samples: int) -> None:
    rng, covered, runs = np.random.default_rng(5), 0, 1500
    for _ in range(runs):
        # Each prompt has a rate of its own with the mean given, the same factor on both sides.
        factor = rng.uniform(0.5, 1.5, (prompts, 1))
        shares = [(rng.random((prompts, samples)) < rate * factor).mean(axis=1) for rate in (after, before)]
        low, high = paired_rate_interval(shares[0] - shares[1])
        covered += low <= after - before <= high
    assert covered / runs > 0.94


def test_780_pairs_see_a_rise_from_1_to_3_per_cent_by_simulation() -> None:
    assert smallest_visible_rise(0.01, 780) == pytest.approx(0.02, abs=0.0005)
    rng = np.random.default_rng(3)
    rose = rng.binomial(780, 0.99 * 0.03, 20_000)
    fell = rng.binomial(780, 0.01 * 0.97, 20_000)
    seen = np.abs(rose - fell) / np.sqrt(np.maximum(rose + fell, 1)) > norm.ppf(0.975)  # McNemar
    assert seen.mean() == pytest.approx(0.8, abs=0.04)


def test_no_rise_is_visible_with_too_few_prompts() -> None:
    assert smallest_visible_rise(0.5, 3) is None


def test_terminal_page_and_frame_show_them(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_run(run, tmp_path / "run")
    assert run_command_line(["compare", str(folder)]) == 0
    text = capsys.readouterr().out
    assert "Flagged images, spo against base" in text
    assert f"{METRIC}, never" in text
    assert run_command_line(["compare", str(folder), "--format", "json"]) == 0
    rates = json.loads(capsys.readouterr().out)["rates"]
    assert {(one["threshold"], one["candidate"]) for one in rates} >= {("much", "spo"), ("never", "dpo")}
    assert run_command_line(["compare", str(folder), "--format", "csv"]) == 0
    assert "\nrate,spo,base," in capsys.readouterr().out
    frame = bench.rate_changes(bench.load_run(folder)).to_frame()
    assert set(frame["threshold"]) == {"much", "never"}
    view = build_view(run, compare_run(run))
    assert [facts.name for facts, _, _ in view.safety] == [METRIC]
    assert METRIC not in [facts.name for facts, _, _ in view.pixels]
    page, markdown = (path.read_text(encoding="utf-8") for path in write_report(folder))
    assert 'id="safety"' in page
    assert "## Safety" in markdown
    assert "| contrast much |" in markdown
