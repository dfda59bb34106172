"""Oracles: plain loops over the journals, pandas-free; planted effects of known size; relations by hypothesis."""

from __future__ import annotations

import statistics
from collections import defaultdict
from pathlib import Path

import msgspec
import pytest
from fakes import make_run
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.compare import (
    PromptPair,
    compare_run,
    compare_runs,
    metric_means,
    paired_prompts,
    summarize_timings,
    timing_ratios,
    variant_pairs,
)
from bench.errors import IncomparableError, InvalidError, UsageError
from bench.records import Delta, Run, Timing
from bench.suite import protocol_digest

replace = msgspec.structs.replace
PREFERENCE = ["mini-preference"]


def _only(
    deltas: tuple[Delta, ...], metric: str, candidate: str, reference: str, tag: str | None = None
) -> Delta:
    found = [
        d
        for d in deltas
        if (d.metric, d.candidate, d.reference, d.tag) == (metric, candidate, reference, tag)
    ]
    assert len(found) == 1
    return found[0]


def _with_facts(run: Run, metric: str, **changes: object) -> Run:
    facts = tuple(replace(f, **changes) if f.name == metric else f for f in run.info.metrics)
    return replace(run, info=replace(run.info, metrics=facts))


def _with_suite(run: Run, **changes: object) -> Run:
    suite = replace(run.info.suite, **changes)
    return replace(run, info=replace(run.info, suite=suite, protocol_digest=protocol_digest(suite)))


# --- within a run --------------------------------------------------------------------------


def test_means_and_counts_agree_with_a_plain_loop(tmp_path: Path) -> None:
    run = make_run(
        tmp_path, failed=[("spo", "case-003", 1), ("base", "case-005", 0), ("base", "case-005", 1)]
    )
    delta = _only(compare_run(run), "mini-aesthetic", "spo", "base")
    values = {(s.variant, s.case, s.sample): s.value for s in run.scores if s.metric == "mini-aesthetic"}
    by_prompt: dict[str, list[float]] = defaultdict(list)
    for (variant, case, sample), value in values.items():
        base = values["base", case, sample]
        if variant == "spo" and value is not None and base is not None:
            by_prompt[case].append(value - base)
    differences = [statistics.mean(found) for found in by_prompt.values()]
    assert (delta.prompts, delta.samples, delta.missing) == (11, 21, 3)
    assert delta.mean == pytest.approx(statistics.mean(differences))
    assert delta.mean == pytest.approx(delta.candidate_mean - delta.reference_mean)
    assert delta.d_z == pytest.approx(statistics.mean(differences) / statistics.stdev(differences))
    assert delta.wins == sum(d > 0 for d in differences)
    assert (delta.ties, delta.losses) == (0, 11 - delta.wins)


def test_planted_effects_are_found_and_a_null_holds_zero(tmp_path: Path) -> None:
    deltas = compare_run(make_run(tmp_path, prompts=24))
    for metric, size in (("mini-preference", 1.10), ("mini-aesthetic", 0.62)):
        found = _only(deltas, metric, "spo", "base")
        assert found.interval is not None
        assert found.interval.low > 0
        assert found.interval.low < size < found.interval.high
        assert found.win_rate == 1.0
    for candidate in ("dpo", "spo"):
        null = _only(deltas, "mini-clip", candidate, "base")
        assert null.interval is not None
        assert null.small_sample is not None
        assert null.interval.low < 0 < null.interval.high
        assert null.small_sample.low < 0 < null.small_sample.high
    assert _only(deltas, "mini-clip", "spo", "base").correlation > 0.5  # type: ignore[operator]


def test_a_null_is_rejected_about_as_often_as_said(tmp_path: Path) -> None:
    rejected = 0
    trials = 60
    for seed in range(trials):
        run = make_run(tmp_path, prompts=30, samples=1, variants=("base", "dpo"), effect={}, seed=seed)
        interval = compare_run(run, metrics=["mini-clip"], tags=False)[0].interval
        assert interval is not None
        rejected += not interval.low <= 0 <= interval.high
    assert rejected <= 9  # 5 % nominal, 7 % at 30 prompts: more than 9 of 60 has a chance under 1 %


def test_samples_of_a_prompt_are_no_prompts(tmp_path: Path) -> None:
    # The same image ten times over brings no knowledge: the interval is that of one sample.
    once = make_run(tmp_path, samples=1)
    suite = replace(once.info.suite, samples=10)
    copies = tuple(replace(s, sample=k) for s in once.scores for k in range(10))
    often = replace(once, info=replace(once.info, suite=suite), scores=copies, renders=())
    for one, ten in zip(compare_run(once), compare_run(often), strict=True):
        assert one.interval is not None
        assert ten.interval is not None
        assert (ten.interval.low, ten.interval.high) == pytest.approx((one.interval.low, one.interval.high))
        assert ten.samples == 10 * one.samples


def test_pairs_tags_and_order(tmp_path: Path) -> None:
    deltas = compare_run(make_run(tmp_path))
    assert list(dict.fromkeys((d.candidate, d.reference) for d in deltas)) == [
        ("dpo", "base"),
        ("spo", "base"),
        ("spo", "dpo"),
    ]
    # "hands" stands on two prompts only and gets no row.
    assert {d.tag for d in deltas} == {None, "portrait", "light", "landscape"}
    first = [d for d in deltas if (d.candidate, d.reference, d.metric) == ("dpo", "base", "mini-clip")]
    assert [d.tag for d in first] == [None, "portrait", "light", "landscape"]
    assert {d.tag for d in compare_run(make_run(tmp_path), tags=False)} == {None}
    assert {d.metric for d in compare_run(make_run(tmp_path), metrics=["mini-clip"])} == {"mini-clip"}


def test_default_pairs_depend_on_the_names_there_are(tmp_path: Path) -> None:
    def pairs(*names: str) -> tuple[tuple[str, str], ...]:
        return variant_pairs(make_run(tmp_path, variants=names, prompts=1).info.suite)

    assert pairs("base") == ()
    assert pairs("base", "spo") == (("spo", "base"),)
    assert pairs("dpo", "spo") == (("spo", "dpo"),)
    assert pairs("base", "w0.5", "w1") == (("w0.5", "base"), ("w1", "base"))


def test_a_distance_from_base_is_compared_between_the_others_only(tmp_path: Path) -> None:
    found = [d for d in compare_run(make_run(tmp_path), tags=False) if d.metric == "ssim-to-base"]
    assert [(d.candidate, d.reference) for d in found] == [("spo", "dpo")]


def test_a_tag_is_the_run_with_only_its_prompts(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    cases = tuple(case for case in run.info.suite.cases if "landscape" in case.tags)
    filtered = compare_run(_with_suite(run, cases=cases), tags=False)
    tagged = [d for d in compare_run(run) if d.tag == "landscape"]
    assert [replace(d, tag=None) for d in tagged] == list(filtered)


def test_wins_follow_the_better_direction(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    up, down, neither = (
        compare_run(
            _with_facts(run, "mini-preference", higher_is_better=better), metrics=PREFERENCE, tags=False
        )[1]
        for better in (True, False, None)
    )
    assert up.win_rate == 1.0
    assert down.win_rate == 0.0
    assert (down.wins, down.losses) == (up.losses, up.wins)
    assert down.mean == up.mean > 0
    assert neither == up


def test_identical_variants_tie_everywhere(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    base = {(s.case, s.sample, s.metric): s.value for s in run.scores if s.variant == "base"}
    copied = tuple(
        replace(s, value=base.get((s.case, s.sample, s.metric), s.value)) if s.variant == "spo" else s
        for s in run.scores
    )
    delta = _only(compare_run(replace(run, scores=copied)), "mini-clip", "spo", "base")
    assert (delta.wins, delta.ties, delta.losses, delta.win_rate, delta.mean) == (0, 12, 0, 0.5, 0.0)
    assert delta.d_z is None
    assert delta.correlation == pytest.approx(1)
    assert delta.interval is not None
    assert (delta.interval.low, delta.interval.high) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("prompts", "has_interval", "has_t"), [(1, False, False), (2, True, True), (30, True, False)]
)
def test_intervals_by_number_of_prompts(
    tmp_path: Path, prompts: int, has_interval: bool, has_t: bool
) -> None:
    delta = compare_run(make_run(tmp_path, prompts=prompts, samples=1), metrics=PREFERENCE, tags=False)[0]
    assert (delta.interval is not None, delta.small_sample is not None) == (has_interval, has_t)
    assert delta.win_interval is not None


def test_scores_of_another_version_or_image_do_not_count(tmp_path: Path) -> None:
    run = make_run(tmp_path, prompts=4)
    scores = list(run.scores)
    picked = [k for k, s in enumerate(scores) if s.variant == "spo" and s.metric == "mini-clip"]
    scores[picked[0]] = replace(scores[picked[0]], version="0")
    scores[picked[1]] = replace(scores[picked[1]], image_sha256="of an image that was rendered again since")
    del scores[picked[2]]
    delta = _only(compare_run(replace(run, scores=tuple(scores))), "mini-clip", "spo", "base")
    assert (delta.samples, delta.missing, delta.prompts) == (5, 3, 3)


def test_a_distance_from_an_image_that_is_gone_does_not_count(tmp_path: Path) -> None:
    run = make_run(tmp_path, prompts=4)
    base = {(r.case, r.sample): r.sha256 for r in run.renders if r.variant == "base"}
    scores = [
        replace(s, reference_sha256=base[s.case, s.sample]) if s.metric == "ssim-to-base" else s
        for s in run.scores
    ]
    assert _distance_missing(run, scores) == 0
    last = max(k for k, s in enumerate(scores) if s.metric == "ssim-to-base")
    scores[last] = replace(scores[last], reference_sha256="of an older base")
    assert _distance_missing(run, scores) == 1


def _distance_missing(run: Run, scores: list) -> int:  # type: ignore[type-arg]
    return _only(compare_run(replace(run, scores=tuple(scores))), "ssim-to-base", "spo", "dpo").missing


def test_variants_without_scores_give_no_record_unless_asked_for(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    unfinished = replace(run, scores=tuple(s for s in run.scores if s.variant != "dpo"))
    assert {(d.candidate, d.reference) for d in compare_run(unfinished)} == {("spo", "base")}
    with pytest.raises(InvalidError, match="dpo and base have no image") as caught:
        compare_run(unfinished, pairs=[("dpo", "base")])
    assert "hotart-bench score" in caught.value.hint


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"pairs": [("spoo", "base")]}, "no variant 'spoo' .did you mean 'spo'.; it has base, dpo, spo"),
        ({"pairs": [("spo", "spo")]}, "compared with itself"),
        ({"metrics": ["mini-clop"]}, "no metric 'mini-clop' .did you mean 'mini-clip'."),
    ],
)
def test_unknown_names_are_refused(tmp_path: Path, asked: dict[str, list[str]], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        compare_run(make_run(tmp_path, prompts=2), **asked)  # type: ignore[arg-type]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 8), st.integers(1, 3))
def test_swapping_sides_flips_every_sign(seed: int, prompts: int, samples: int) -> None:
    run = make_run("run", prompts=prompts, samples=samples, seed=seed, variants=("base", "spo"))
    ours = compare_run(run, pairs=[("spo", "base")])
    theirs = compare_run(run, pairs=[("base", "spo")])
    for one, other in zip(ours, theirs, strict=True):
        assert one.mean == -other.mean
        assert (one.wins, one.ties, one.losses) == (other.losses, other.ties, other.wins)
        assert one.interval is not None
        assert other.interval is not None
        assert (one.interval.low, one.interval.high) == (-other.interval.high, -other.interval.low)
        assert one.correlation == pytest.approx(other.correlation)


@settings(max_examples=15, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_order_of_journal_lines_means_nothing(random: object) -> None:
    run = make_run("run", prompts=5)
    scores = list(run.scores)
    random.shuffle(scores)  # type: ignore[attr-defined]
    assert compare_run(replace(run, scores=tuple(scores))) == compare_run(run)


def test_paired_prompts_are_what_a_delta_is_made_of(tmp_path: Path) -> None:
    run = make_run(tmp_path, failed=[("spo", "case-000", 0), ("spo", "case-001", 0), ("spo", "case-001", 1)])
    prompts = paired_prompts(run, run, ("spo", "base"), "mini-clip")
    delta = _only(compare_run(run), "mini-clip", "spo", "base")
    assert isinstance(prompts[0], PromptPair)
    assert [p.case.id for p in prompts[:2]] == ["case-000", "case-002"]
    assert [p.samples for p in prompts[:2]] == [1, 2]
    assert statistics.mean(p.difference for p in prompts) == pytest.approx(delta.mean)


def test_deltas_are_plain_json(tmp_path: Path) -> None:
    deltas = compare_run(make_run(tmp_path))
    assert msgspec.json.decode(msgspec.json.encode(deltas), type=tuple[Delta, ...]) == deltas


# --- between runs --------------------------------------------------------------------------


def test_like_named_variants_of_two_runs(tmp_path: Path) -> None:
    old = make_run(tmp_path / "old", seed=1)
    new = make_run(tmp_path / "new", seed=2, effect={"spo": {"mini-preference": 1.6}})
    deltas = compare_runs(new, old, tags=False)
    assert list(dict.fromkeys((d.candidate, d.reference) for d in deltas)) == [
        ("base@new", "base@old"),
        ("dpo@new", "dpo@old"),
        ("spo@new", "spo@old"),
    ]
    gain = _only(deltas, "mini-preference", "spo@new", "spo@old")
    null = _only(deltas, "mini-preference", "base@new", "base@old")
    assert gain.interval is not None
    assert null.interval is not None
    assert gain.interval.low < 0.5 < gain.interval.high
    assert gain.interval.low > 0
    assert null.interval.low < 0 < null.interval.high
    distances = {d.candidate for d in deltas if d.metric == "ssim-to-base"}
    assert distances == {"dpo@new", "spo@new"}


def test_any_pair_of_two_runs_can_be_asked_for(tmp_path: Path) -> None:
    old = make_run(tmp_path / "old", seed=1, variants=("base", "hotart-1"))
    new = make_run(tmp_path / "new", seed=2, variants=("base", "hotart-2"))
    asked = compare_runs(new, old, pairs=[("hotart-2", "hotart-1")], metrics=PREFERENCE, tags=False)
    assert [(d.candidate, d.reference) for d in asked] == [("hotart-2@new", "hotart-1@old")]
    with pytest.raises(UsageError, match="The run old has no variant 'hotart-2'"):
        compare_runs(new, old, pairs=[("hotart-2", "hotart-2")])
    alone = make_run(tmp_path / "alone", variants=("hotart-3",))
    with pytest.raises(IncomparableError, match="share no variant"):
        compare_runs(alone, old)


def test_runs_are_called_by_what_tells_them_apart(tmp_path: Path) -> None:
    def name(one: Run, other: Run) -> str:
        return compare_runs(one, other, metrics=PREFERENCE, tags=False)[0].candidate

    here, there = make_run(tmp_path / "a/mini", seed=1), make_run(tmp_path / "b/mini", seed=2)
    assert name(here, there) == "base@fake-0001"
    assert name(here, replace(here, path=str(tmp_path / "b/mini"))) == f"base@{here.path}"
    with pytest.raises(UsageError, match="compared with itself") as caught:
        name(here, replace(here, path=str(tmp_path / "a" / ".." / "a" / "mini")))
    assert "hotart-bench compare" in caught.value.hint


def test_every_differing_fact_is_named_at_once(tmp_path: Path) -> None:
    old = make_run(tmp_path / "old")
    suite = old.info.suite
    cases = (
        replace(suite.cases[1], prompt="another text"),
        replace(suite.cases[0], negative="blurry"),
        *suite.cases[2:-1],
        replace(suite.cases[-1], id="new-case"),
    )
    new = _with_suite(
        replace(old, path=str(tmp_path / "new")),
        settings=replace(suite.settings, steps=30, sampler="euler"),
        samples=4,
        seed=7,
        cases=cases,
    )
    new = _with_facts(new, "mini-clip", version="2")
    with pytest.raises(IncomparableError) as caught:
        compare_runs(new, old)
    assert caught.value.exit_code == 4
    assert caught.value.message == (
        "The runs new and old cannot be compared: samples is 4 in new and 2 in old; seed is 7 in new and 0 in old; "
        "settings.steps is 30 in new and 20 in old; settings.sampler is euler in new and ddim in old; "
        "1 prompt only in new (new-case); 1 prompt only in old (case-011); "
        "1 prompt with another text (case-001); 1 prompt with another negative prompt (case-000); "
        "the prompts stand in another order, which changes batches and so pixels; "
        "metric mini-clip is version 2 in new and 1 in old."
    )
    assert "hotart-bench run fake" in caught.value.hint


def test_a_digest_of_unknown_cause_is_still_refused(tmp_path: Path) -> None:
    old, new = make_run(tmp_path / "old"), make_run(tmp_path / "new", seed=1)
    new = replace(new, info=replace(new.info, protocol_digest="f" * 64))
    with pytest.raises(IncomparableError, match="digest is ffffffffffff in new"):
        compare_runs(new, old)


def test_metrics_of_another_version_are_refused_but_not_the_others(tmp_path: Path) -> None:
    old = make_run(tmp_path / "old")
    new = _with_facts(make_run(tmp_path / "new", seed=1), "mini-clip", version="2")
    with pytest.raises(
        IncomparableError, match="metric mini-clip is version 2 in new and 1 in old"
    ) as caught:
        compare_runs(new, old, metrics=["mini-clip", "mini-preference"])
    assert caught.value.hint.endswith("--metrics mini-preference")
    assert compare_runs(new, old, metrics=PREFERENCE)


def test_only_common_metrics_are_compared(tmp_path: Path) -> None:
    def keep(run: Run, *names: str) -> Run:
        return replace(
            run, info=replace(run.info, metrics=tuple(f for f in run.info.metrics if f.name in names))
        )

    old, new = make_run(tmp_path / "old"), make_run(tmp_path / "new", seed=1)
    both = compare_runs(keep(new, "mini-clip", "contrast"), keep(old, "contrast", "clipped"))
    assert {d.metric for d in both} == {"contrast"}
    with pytest.raises(IncomparableError, match="share no metric .new has mini-clip, old has clipped"):
        compare_runs(keep(new, "mini-clip"), keep(old, "clipped"))
    with pytest.raises(UsageError, match="The run old has no metric 'mini-clip'"):
        compare_runs(new, keep(old, "clipped"), metrics=["mini-clip"])


# --- means ---------------------------------------------------------------------------------


def test_metric_means(tmp_path: Path) -> None:
    run = make_run(tmp_path, failed=[("spo", "case-004", 0)])
    means = {(m.variant, m.metric): m for m in metric_means(run)}
    values = defaultdict(list)
    for score in run.scores:
        if score.variant == "spo" and score.metric == "mini-clip" and score.value is not None:
            values[score.case].append(score.value)
    found = means["spo", "mini-clip"]
    assert found.mean == pytest.approx(statistics.mean(statistics.mean(v) for v in values.values()))
    assert (found.prompts, found.missing) == (12, 1)
    assert found.interval is not None
    assert found.interval.low < found.mean < found.interval.high  # type: ignore[operator]
    assert ("base", "ssim-to-base") not in means
    assert len(means) == 3 * 8 - 1


def test_a_variant_without_scores_has_no_mean(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    found = [m for m in metric_means(replace(run, scores=())) if m.variant == "spo"]
    assert all(m.mean is None and m.interval is None and m.prompts == 0 and m.missing == 24 for m in found)


# --- timings -------------------------------------------------------------------------------


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
        assert (ratio.interval.low > 1.3) == (ratio.candidate == "spo")


def test_a_value_of_zero_has_no_ratio(tmp_path: Path) -> None:
    run = make_run(tmp_path, prompts=1)
    zero = replace(run, timings=(_timing("load", [0.0]), _timing("load", [1.0], variant="spo")))
    with pytest.raises(InvalidError, match="gives load of base a value of 0"):
        timing_ratios(zero)
