"""Oracles: plain loops over the journals, planted effects, the families of adjusted p-values by hand."""

from __future__ import annotations

import itertools
import math
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
import scipy.stats
from fakes import make_run

from bench.compare import compare_run, compare_runs, paired_prompts, rank_variants
from bench.errors import UsageError
from bench.records import Delta, Ranking, Run

replace = msgspec.structs.replace
VARIANTS = ("base", "dpo", "spo", "twin")


def _ranking(run: Run, metric: str) -> Ranking:
    (found,) = rank_variants(run, metrics=[metric])
    return found


def _valued(run: Run, change: object) -> Run:
    """``run`` with every score's value given by ``change(score)``."""
    return replace(run, scores=tuple(replace(s, value=change(s)) for s in run.scores))  # type: ignore[operator]


# --- rankings ------------------------------------------------------------------------------


def test_counts_agree_with_a_plain_loop(tmp_path: Path) -> None:
    failed = [("spo", "case-003", 1), ("base", "case-005", 0), ("base", "case-005", 1)]
    run = _valued(make_run(tmp_path, failed=failed), lambda s: None if s.value is None else round(2 * s.value) / 2)
    found = _ranking(run, "mini-aesthetic")
    values = {(s.variant, s.prompt_id, s.sample): s.value for s in run.scores if s.metric == "mini-aesthetic"}
    names = ("base", "dpo", "spo")
    counts = {name: [0, 0, 0] for name in names}
    prompts = samples = 0
    for prompt in run.info.suite.prompts:
        whole = [k for k in range(2) if all(values[name, prompt.id, k] is not None for name in names)]
        samples += len(whole)
        prompts += bool(whole)
        totals = {name: math.fsum(values[name, prompt.id, k] for k in whole) for name in names}  # type: ignore[misc]
        for one, other in itertools.permutations(names if whole else (), 2):
            difference = totals[one] - totals[other]
            counts[one][0 if difference > 0 else 1 if difference == 0 else 2] += 1
    assert (found.prompts, found.samples, found.missing) == (prompts, samples, 24 - samples) == (11, 21, 3)
    assert {one.variant: [one.wins, one.ties, one.losses] for one in found.strengths} == counts
    assert found.tie > 0


def test_planted_effects_are_ranked_and_equals_share_a_set(tmp_path: Path) -> None:
    run = make_run(tmp_path, prompts=24, variants=VARIANTS)
    found = _ranking(run, "mini-preference")
    assert [one.variant for one in found.strengths][:2] == ["spo", "dpo"]
    # "twin" has no effect of its own, as base has none.
    assert [set(one) for one in found.tied_sets] == [{"spo"}, {"dpo"}, {"base", "twin"}]
    strengths = [one.strength for one in found.strengths]
    assert strengths == sorted(strengths, reverse=True)
    assert sum(strengths) == pytest.approx(0, abs=1e-9)
    assert all(one.interval.low < one.strength < one.interval.high for one in found.strengths)
    assert [set(one) for one in _ranking(run, "mini-clip").tied_sets] == [set(VARIANTS)]


def test_lower_is_better_turns_the_ranking_round(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    facts = tuple(replace(f, higher_is_better=f.name != "mini-preference") for f in run.info.metrics)
    ours = _ranking(run, "mini-preference")
    theirs = _ranking(replace(run, info=replace(run.info, metrics=facts)), "mini-preference")
    assert [one.variant for one in theirs.strengths] == [one.variant for one in reversed(ours.strengths)]
    assert [one.strength for one in theirs.strengths] == pytest.approx([-s.strength for s in reversed(ours.strengths)])


def test_which_metrics_are_ranked(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    assert [one.metric for one in rank_variants(run)] == ["mini-clip", "mini-aesthetic", "mini-preference"]
    assert rank_variants(run, metrics=[]) == ()
    assert rank_variants(run, metrics=["saturation", "ssim-to-base"]) == ()
    # A distance has a better direction and is none the less no ranking: base has no distance from itself.
    facts = tuple(replace(f, higher_is_better=True) for f in run.info.metrics)
    ranked = {one.metric for one in rank_variants(replace(run, info=replace(run.info, metrics=facts)))}
    assert ranked == {f.name for f in facts} - {"ssim-to-base"}
    with pytest.raises(UsageError, match=r"no metric 'mini-clop' .did you mean 'mini-clip'"):
        rank_variants(run, metrics=["mini-clop"])


def test_two_variants_and_one_prompt_are_not_ranked(tmp_path: Path) -> None:
    assert rank_variants(make_run(tmp_path, variants=("base", "spo"))) == ()
    assert rank_variants(make_run(tmp_path, prompts=1)) == ()
    assert len(rank_variants(make_run(tmp_path, prompts=2, samples=1))) == 3


def test_a_variant_without_scores_is_left_out_and_said_to_be(tmp_path: Path) -> None:
    run = make_run(tmp_path, variants=VARIANTS)
    found = _ranking(replace(run, scores=tuple(s for s in run.scores if s.variant != "dpo")), "mini-clip")
    assert found.left_out == ("dpo",)
    assert {one.variant for one in found.strengths} == {"base", "spo", "twin"}
    assert (found.prompts, found.missing) == (12, 0)
    unfinished = replace(run, scores=tuple(s for s in run.scores if s.variant in ("base", "spo")))
    assert rank_variants(unfinished) == ()


def test_identical_variants_tie_everywhere_and_keep_the_suites_order(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    base = {(s.prompt_id, s.sample, s.metric): s.value for s in run.scores if s.variant == "base"}
    found = _ranking(_valued(run, lambda s: base.get((s.prompt_id, s.sample, s.metric))), "mini-clip")
    assert [one.variant for one in found.strengths] == ["base", "dpo", "spo"]
    assert [(one.wins, one.ties, one.losses) for one in found.strengths] == [(0, 24, 0)] * 3
    assert found.tied_sets == (("base", "dpo", "spo"),)


def test_rankings_are_plain_json(tmp_path: Path) -> None:
    found = rank_variants(make_run(tmp_path, prompts=4))
    assert msgspec.json.decode(msgspec.json.encode(found), type=tuple[Ranking, ...]) == found


# --- p-values ------------------------------------------------------------------------------


def test_p_values_are_of_the_prompts_differences(tmp_path: Path) -> None:
    run = make_run(tmp_path, prompts=12)
    for delta in compare_run(run, metrics=["mini-clip"], tags=False):
        pairs = paired_prompts(run, run, (delta.candidate, delta.reference), "mini-clip")
        theirs = scipy.stats.permutation_test(
            ([one.difference for one in pairs],), np.mean, permutation_type="samples", n_resamples=np.inf
        )
        assert delta.p == pytest.approx(theirs.pvalue)


def test_families_are_the_metrics_of_a_pair_and_the_tags_of_a_metric(tmp_path: Path) -> None:
    deltas = compare_run(make_run(tmp_path, prompts=24))
    overall = [d for d in deltas if (d.candidate, d.reference, d.tag) == ("dpo", "base", None)]
    tags = [
        d
        for d in deltas
        if (d.candidate, d.reference, d.metric) == ("spo", "dpo", "mini-aesthetic") and d.tag is not None
    ]
    assert (len(overall), len(tags)) == (7, 4)
    for family in (overall, tags):
        _check_family(family)
    fewer = compare_run(make_run(tmp_path, prompts=24), metrics=["mini-clip"], tags=False)
    assert all(d.p_holm == d.p_bh == d.p for d in fewer)


def _check_family(family: list[Delta]) -> None:
    p_values = [d.p for d in family if d.p is not None]
    assert len(p_values) == len(family)
    assert [d.p_bh for d in family] == pytest.approx(list(scipy.stats.false_discovery_control(p_values)))
    # The smallest is multiplied by their number, and none is below what it was.
    least = min(range(len(family)), key=lambda k: p_values[k])
    assert family[least].p_holm == pytest.approx(min(1.0, len(family) * p_values[least]))
    assert all(d.p_holm is not None and d.p is not None and d.p_holm >= d.p for d in family)


def test_runs_are_adjusted_as_variants_are(tmp_path: Path) -> None:
    candidate, reference = make_run(tmp_path / "new", seed=1), make_run(tmp_path / "old")
    found = [d for d in compare_runs(candidate, reference) if d.candidate == "spo@new" and d.tag is None]
    _check_family(found)


def test_one_prompt_has_no_p_value_and_is_in_no_family(tmp_path: Path) -> None:
    for delta in compare_run(make_run(tmp_path, prompts=1)):
        assert (delta.p, delta.p_holm, delta.p_bh) == (None, None, None)


def test_hundreds_of_prompts_and_eight_variants_take_seconds(tmp_path: Path) -> None:
    names = [f"v{number}" for number in range(8)]
    run = make_run(tmp_path, prompts=200, samples=1, variants=names)
    start = time.process_time()
    assert len(rank_variants(run)) == 3
    assert time.process_time() - start < 3
