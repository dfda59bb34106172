"""Oracles: plain loops over the journals, planted effects of known size, relations by hypothesis."""

from __future__ import annotations

import statistics
from collections import defaultdict
from pathlib import Path

import msgspec
import pytest
from fakes import make_run, only, with_facts, with_suite
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.compare import PromptPair, compare_run, metric_means, paired_prompts, variant_pairs
from bench.compare.pairing import pair_prompts
from bench.errors import InvalidError, UsageError
from bench.records import Delta, Run

replace = msgspec.structs.replace
PREFERENCE = ["mini-preference"]


# --- within a run --------------------------------------------------------------------------


def test_means_and_counts_agree_with_a_plain_loop(tmp_path: Path) -> None:
    run = make_run(tmp_path, failed=[("spo", "case-003", 1), ("base", "case-005", 0), ("base", "case-005", 1)])
    delta = only(compare_run(run), "mini-aesthetic", "spo", "base")
    values = {(s.variant, s.prompt_id, s.sample): s.value for s in run.scores if s.metric == "mini-aesthetic"}
    by_prompt: dict[str, list[float]] = defaultdict(list)
    for (variant, prompt_id, sample), value in values.items():
        base = values["base", prompt_id, sample]
        if variant == "spo" and value is not None and base is not None:
            by_prompt[prompt_id].append(value - base)
    differences = [statistics.mean(found) for found in by_prompt.values()]
    assert (delta.prompts, delta.samples, delta.missing) == (11, 21, 3)
    assert delta.mean == pytest.approx(statistics.mean(differences))
    assert delta.mean == pytest.approx(delta.candidate_mean - delta.reference_mean)
    assert delta.d_z == pytest.approx(statistics.mean(differences) / statistics.stdev(differences))
    assert delta.wins == sum(d > 0 for d in differences)
    assert (delta.ties, delta.losses) == (0, 11 - delta.wins)


SIDE = st.dictionaries(
    st.tuples(st.sampled_from([f"case-{number:03d}" for number in range(4)]), st.integers(0, 2)), st.floats(-1e6, 1e6)
)


@given(SIDE, SIDE)
@settings(max_examples=80, deadline=None)
def test_a_prompts_means_are_the_exactly_rounded_ones_of_its_pairs(
    above: dict[tuple[str, int], float], below: dict[tuple[str, int], float]
) -> None:
    suite = make_run("unused", prompts=4, samples=3).info.suite
    expected = []
    for prompt in suite.prompts:
        pairs = [(above[key], below[key]) for key in sorted(above.keys() & below.keys()) if key[0] == prompt.id]
        if pairs:
            sides = [[one for one, _ in pairs], [other for _, other in pairs], [one - other for one, other in pairs]]
            means = [min(max(statistics.fmean(side), min(side)), max(side)) for side in sides]
            expected.append((prompt, *means, len(pairs)))
    assert [tuple(pair) for pair in pair_prompts(suite, above, below, "image")] == expected


def test_planted_effects_are_found_and_a_null_holds_zero(tmp_path: Path) -> None:
    deltas = compare_run(make_run(tmp_path, prompts=24))
    for metric, size in (("mini-preference", 1.10), ("mini-aesthetic", 0.62)):
        found = only(deltas, metric, "spo", "base")
        assert found.interval is not None
        assert found.interval.low > 0
        assert abs(found.mean - size) < found.interval.high - found.interval.low  # about four standard errors
        assert found.win_rate == 1.0
    for candidate in ("dpo", "spo"):
        null = only(deltas, "mini-clip", candidate, "base")
        assert null.interval is not None
        assert null.small_sample is not None
        assert null.interval.low < 0 < null.interval.high
        assert null.small_sample.low < 0 < null.small_sample.high
    assert only(deltas, "mini-clip", "spo", "base").correlation > 0.5  # type: ignore[operator]


def test_a_null_is_rejected_about_as_often_as_said(tmp_path: Path) -> None:
    rejected = 0
    trials = 40
    for seed in range(trials):
        run = make_run(tmp_path, prompts=30, samples=1, variants=("base", "dpo"), effect={}, seed=seed)
        interval = compare_run(run, metrics=["mini-clip"], tags=False)[0].interval
        assert interval is not None
        rejected += not interval.low <= 0 <= interval.high
    assert rejected <= 7  # 5 % nominal, 7 % at 30 prompts: more than 7 of 40 has a chance of 1 %


def test_samples_of_a_prompt_are_no_prompts(tmp_path: Path) -> None:
    # The same image ten times over brings no knowledge: the interval is that of one sample.
    once = make_run(tmp_path, samples=1)
    suite = replace(once.info.suite, samples=10)
    copies = tuple(replace(s, sample=k) for s in once.scores for k in range(10))
    images = tuple(replace(r, sample=k) for r in once.renders for k in range(10))
    often = replace(once, info=replace(once.info, suite=suite), scores=copies, renders=images)
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


def test_a_distance_from_base_is_compared_between_the_othersonly(tmp_path: Path) -> None:
    found = [d for d in compare_run(make_run(tmp_path), tags=False) if d.metric == "ssim-to-base"]
    assert [(d.candidate, d.reference) for d in found] == [("spo", "dpo")]


def test_a_tag_is_the_run_with_only_its_prompts(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    prompts = tuple(prompt for prompt in run.info.suite.prompts if "landscape" in prompt.tags)
    filtered = compare_run(with_suite(run, prompts=prompts), tags=False)
    tagged = [d for d in compare_run(run) if d.tag == "landscape"]
    # Only the family that a p-value is adjusted in is another one.
    alone = {"p_holm": None, "p_bh": None}
    assert [replace(d, tag=None, **alone) for d in tagged] == [replace(d, **alone) for d in filtered]


def test_wins_follow_the_better_direction(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    up, down, neither = (
        compare_run(with_facts(run, "mini-preference", higher_is_better=better), metrics=PREFERENCE, tags=False)[1]
        for better in (True, False, None)
    )
    assert up.win_rate == 1.0
    assert down.win_rate == 0.0
    assert (down.wins, down.losses) == (up.losses, up.wins)
    assert down.mean == up.mean > 0
    assert neither == up


def test_identical_variants_tie_everywhere(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    base = {(s.prompt_id, s.sample, s.metric): s.value for s in run.scores if s.variant == "base"}
    copied = tuple(
        replace(s, value=base.get((s.prompt_id, s.sample, s.metric), s.value)) if s.variant == "spo" else s
        for s in run.scores
    )
    delta = only(compare_run(replace(run, scores=copied)), "mini-clip", "spo", "base")
    assert (delta.wins, delta.ties, delta.losses, delta.win_rate, delta.mean) == (0, 12, 0, 0.5, 0.0)
    assert delta.d_z is None
    assert delta.correlation == pytest.approx(1)
    assert delta.interval is not None
    assert (delta.interval.low, delta.interval.high) == (0.0, 0.0)


@pytest.mark.parametrize(("prompts", "has_interval", "has_t"), [(1, False, False), (2, True, True), (30, True, False)])
def test_intervals_by_number_of_prompts(tmp_path: Path, prompts: int, has_interval: bool, has_t: bool) -> None:
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
    delta = only(compare_run(replace(run, scores=tuple(scores))), "mini-clip", "spo", "base")
    assert (delta.samples, delta.missing, delta.prompts) == (5, 3, 3)


def test_a_distance_from_an_image_that_is_gone_does_not_count(tmp_path: Path) -> None:
    run = make_run(tmp_path, prompts=4)
    base = {(r.prompt_id, r.sample): r.sha256 for r in run.renders if r.variant == "base"}
    scores = [
        replace(s, reference_sha256=base[s.prompt_id, s.sample]) if s.metric == "ssim-to-base" else s
        for s in run.scores
    ]
    assert _distance_missing(run, scores) == 0
    last = max(k for k, s in enumerate(scores) if s.metric == "ssim-to-base")
    scores[last] = replace(scores[last], reference_sha256="of an older base")
    assert _distance_missing(run, scores) == 1


def _distance_missing(run: Run, scores: list) -> int:  # type: ignore[type-arg]
    return only(compare_run(replace(run, scores=tuple(scores))), "ssim-to-base", "spo", "dpo").missing


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
        ({"pairs": [("spoo", "base")]}, r"no variant 'spoo' .did you mean 'spo'\?.; it has base, dpo, spo"),
        ({"pairs": [("spo", "spo")]}, "compared with itself"),
        ({"metrics": ["mini-clop"]}, r"no metric 'mini-clop' .did you mean 'mini-clip'\?"),
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
    delta = only(compare_run(run), "mini-clip", "spo", "base")
    assert isinstance(prompts[0], PromptPair)
    assert [p.prompt.id for p in prompts[:2]] == ["case-000", "case-002"]
    assert [p.samples for p in prompts[:2]] == [1, 2]
    assert statistics.mean(p.difference for p in prompts) == pytest.approx(delta.mean)


def test_deltas_are_plain_json(tmp_path: Path) -> None:
    deltas = compare_run(make_run(tmp_path))
    assert msgspec.json.decode(msgspec.json.encode(deltas), type=tuple[Delta, ...]) == deltas


# --- means ---------------------------------------------------------------------------------


def test_metric_means(tmp_path: Path) -> None:
    run = make_run(tmp_path, failed=[("spo", "case-004", 0)])
    means = {(m.variant, m.metric): m for m in metric_means(run)}
    values = defaultdict(list)
    for score in run.scores:
        if score.variant == "spo" and score.metric == "mini-clip" and score.value is not None:
            values[score.prompt_id].append(score.value)
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
