"""Findings: earned, mixed, bought, worse or not shown, from paired values whose statistics is known."""

from __future__ import annotations

import statistics

import msgspec
import numpy as np
import pytest
from fakes import make_run
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from scipy.stats import ttest_1samp

from bench.baseline import freeze
from bench.compare import compare_run, metric_means, paired_prompts
from bench.compare.finding import PairedMetric, find, find_in_frozen, find_in_run, find_in_runs, word_of
from bench.errors import IncomparableError
from bench.records import FindingMetric, MetricFacts
from bench.suite.limits import parse_limit

FACTS = {facts.name: facts for facts in make_run("r", prompts=2).info.metrics}
LABELS = ("none", "unknown", "related data", "same data")


def facts(name: str, category: str = "preference", better: bool | None = True, **changes: object) -> MetricFacts:
    known = {"name": name, "category": category, "higher_is_better": better, "low": None, "high": None, **changes}
    return replace(FACTS["mini-preference"], **known)


def shifts(mean: float, sd: float = 1.0, pairs: int = 50, seed: int = 0) -> np.ndarray:
    """Differences of exactly this mean and standard deviation, without skewness: their interval is Student's own."""
    sizes = np.random.default_rng(seed).exponential(size=pairs)
    values = np.concatenate([sizes, -sizes])
    return mean + sd * values / values.std(ddof=1)


def paired(
    mean: float, overlap: str = "none", of: MetricFacts | None = None, *, limit: str | None = None, **changes: object
) -> PairedMetric:
    """A metric whose reference's prompt means have standard deviation 1."""
    moved = changes.pop("shifts", None)
    moved = shifts(mean) if moved is None else moved
    below = np.random.default_rng(1).normal(size=len(moved))
    below = (below - below.mean()) / below.std(ddof=1)
    of = of or facts("m")
    own = None if limit is None else parse_limit(of.name, limit)
    return PairedMetric(of, overlap, (below + moved).tolist(), below.tolist(), limit=own, **changes)


def test_a_gain_without_overlap_and_without_a_price_is_earned():
    found = find("spo", "base", [paired(0.5), paired(0.6, "same data", facts("own"))])
    assert found.word == "earned"
    assert found.sentences[0].startswith("Earned: spo gains over base in m, free of overlap with its training")
    assert found.sentences[1].startswith(
        "Gain in m (no training overlap): 0.5 times the spread between prompts of base; +0.50 ["
    )
    assert found.sentences[2].startswith("Gain in own (trained on the same data): 0.6 times")


ROWS = [
    # gains by overlap, a loss beyond its limit, the look beyond a default, beyond the suite's own -> the word
    (("none",), False, False, False, "earned"),
    (("none", "same data", "unknown"), False, False, False, "earned"),
    (("none",), True, False, False, "mixed"),
    (("none", "related data"), False, True, False, "mixed"),
    (("unknown",), False, False, False, "not shown"),
    (("unknown", "same data"), False, True, False, "not shown"),
    (("same data",), False, False, False, "bought"),
    (("related data",), True, False, False, "bought"),
    (("same data", "related data"), False, True, False, "bought"),
    ((), True, False, False, "worse"),
    ((), True, True, False, "worse"),
    ((), False, False, True, "worse"),
    ((), False, True, False, "not shown"),
    ((), False, False, False, "not shown"),
]


@pytest.mark.parametrize(("gains", "loss", "look", "own", "word"), ROWS)
def test_the_table_of_the_rules(gains, loss, look, own, word):
    metrics = [paired(0.6, label, facts(f"gains-{label}")) for label in gains]
    metrics += [paired(-0.6 if loss else 0.0, "none", facts("clip", "alignment"))]
    metrics += [paired(1.2 if look or own else 0.0, of=facts("tint", "pixels", None), limit="+-0.5" if own else None)]
    found = find("spo", "base", metrics)
    assert found.word == word
    assert found.word == word_of(found.metrics)
    assert found.sentences[0].lower().startswith(f"{word}: spo gains over base")
    for label in gains:
        assert any(f"gains-{label}" in sentence for sentence in found.sentences)
    assert (
        any(sentence.startswith("Loss in clip: ") and "; −0.60 [" in sentence for sentence in found.sentences) == loss
    )
    assert any(sentence.startswith("Shift of tint: ") and "; +1.2" in sentence for sentence in found.sentences) == (
        look or own
    )
    assert any("say what it was trained on" in one for one in found.sentences) == (
        "unknown" in gains and "none" not in gains
    )


@pytest.mark.parametrize(("name", "told"), [("soft-tifa-am-qwen", True), ("other", False)])
def test_where_a_judge_is_silent_the_finding_says_where_it_may_speak(name, told):
    said = find("spo", "base", [paired(0.6, "unknown", facts(name, "alignment"))]).sentences[-1]
    assert said.startswith("Of spo, say what it was trained on")
    assert ("[judges.NAME]" in said) == told


@given(st.lists(st.tuples(st.sampled_from(["gain", "price", "within its limit"]), st.sampled_from(LABELS)), max_size=5))
def test_earned_needs_a_gain_that_is_free_of_overlap_and_no_price(readings):
    metrics = [
        FindingMetric(metric="m", category="preference", higher_is_better=True, training_overlap=label, reads=reads)
        for reads, label in readings
    ]
    free, priced = ("gain", "none") in readings, any(reads == "price" for reads, _ in readings)
    assert (word_of(metrics) == "earned") == (free and not priced)
    assert (word_of(metrics) == "mixed") == (free and priced)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-0.6, 0.6), min_size=1, max_size=6), st.integers(0, 50), st.integers(8, 40))
def test_readings_are_those_of_one_sided_t_tests_by_bonferroni(means, seed, pairs):
    """Oracle: scipy's t tests at 5 % over the number of metrics; limits 0.1 sd, where one sd is 1."""
    moved = [shifts(mean, pairs=pairs, seed=seed + place) for place, mean in enumerate(means)]
    metrics = [paired(0, of=facts(f"m{place}"), shifts=one) for place, one in enumerate(moved)]
    level = 0.05 / len(means)
    for one, values in zip(find("spo", "base", metrics).metrics, moved, strict=True):
        p = {
            (value, way): ttest_1samp(values, value, alternative=way).pvalue
            for value in (0.0, -0.1)
            for way in ("less", "greater")
        }
        if min(abs(value - level) for value in p.values()) < 1e-6:
            continue
        if p[0.0, "greater"] < level:
            expected = "gain"
        elif p[-0.1, "less"] < level:
            expected = "price"
        else:
            expected = "within its limit" if p[-0.1, "greater"] < level else "not excluded"
        assert one.reads == expected
        low, high = ttest_1samp(values, 0).confidence_interval(1 - 2 * level)
        assert (one.interval.low, one.interval.high) == (pytest.approx(low), pytest.approx(high))


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(4)), st.floats(0.01, 1000))
def test_order_and_units_of_metrics_change_no_word(order, scale):
    metrics = [
        paired(0.4, of=facts("a")),
        paired(-0.5, of=facts("b", "alignment")),
        paired(0.3, "same data", facts("c")),
        paired(0.2, of=facts("d", "pixels", None)),
    ]
    before = find("spo", "base", metrics)
    scaled = [
        PairedMetric(
            one.facts,
            one.overlap,
            (scale * np.array(one.candidate)).tolist(),
            (scale * np.array(one.reference)).tolist(),
        )
        for one in (metrics[place] for place in order)
    ]
    after = find("spo", "base", scaled)
    assert before.word == after.word == "mixed"
    assert {one.metric: one.reads for one in before.metrics} == {one.metric: one.reads for one in after.metrics}


def test_where_lower_is_better_a_fall_is_the_gain():
    low = facts("noise", "aesthetic", better=False)
    assert find("spo", "base", [paired(-0.5, of=low)]).word == "earned"
    found = find("spo", "base", [paired(0.5, of=low)])
    assert (found.word, found.metrics[0].reads) == ("worse", "price")


def test_what_is_no_preference_aesthetics_or_alignment_can_only_be_a_price():
    for better in (True, False):
        assert (
            find("spo", "base", [paired(0.8 if better else -0.8, of=facts("b", "pixels", better))]).word == "not shown"
        )
        assert find("spo", "base", [paired(-0.8 if better else 0.8, of=facts("b", "pixels", better))]).word == "worse"


@pytest.mark.parametrize(
    ("limit", "shift", "reads"),
    [
        ("+0.3", 0.9, "price"),
        ("+0.3", -0.9, "within its limit"),
        ("+0.3", 0.3, "not excluded"),
        ("-0.3", -0.9, "price"),
        ("-0.3", 0.9, "within its limit"),
        ("+-0.3", -0.9, "price"),
        ("+-0.3", 0.9, "price"),
        ("+-0.3", 0.3, "not excluded"),
    ],
)
def test_limits_on_what_only_describes_have_their_side(limit, shift, reads):
    (one,) = find("spo", "base", [paired(shift, of=facts("tint", "pixels", None), limit=limit)]).metrics
    assert (one.reads, one.limit, one.own_limit, one.margin) == (reads, limit, True, pytest.approx(0.3))


@pytest.mark.parametrize(("category", "shift", "reads"), [
    ("safety", 1.0, "price"), ("safety", -1.0, "within its limit"), ("pixels", 1.0, "price"), ("pixels", -1.0, "price"),
])  # fmt: skip
def test_less_of_what_safety_classifiers_flag_is_no_price(category, shift, reads):
    (one,) = find("spo", "base", [paired(shift, of=facts("nsfw-l14", category, None))]).metrics
    assert one.reads == reads


def test_what_so_many_prompts_cannot_exclude_is_said():
    free = paired(0.0, of=facts("free"), shifts=shifts(0.02, pairs=10))
    found = find("spo", "base", [paired(0.9, "same data", facts("own")), free])
    assert found.word == "bought"
    assert any(one.startswith("Not excluded by so many prompts is a gain in free (up to ") for one in found.sentences)
    assert any(one.startswith("Not excluded by so many prompts is a price in free (up to ") for one in found.sentences)


def test_sizes_need_no_statistics():
    one = paired(0.5, sample_sd=0.25, pairs=[1.0, 2.0, 0.0, -1.0])
    (metric,) = find("spo", "base", [one]).metrics
    assert metric.prompt_sd == pytest.approx(statistics.stdev(one.reference))
    assert (metric.prompt_spreads, metric.sample_spreads) == (pytest.approx(0.5), pytest.approx(2.0))
    assert metric.pairs_won == 2.5 / 4
    (sentence,) = (one for one in find("spo", "base", [one]).sentences if one.startswith("Gain in m"))
    assert sentence.startswith(
        "Gain in m (no training overlap): 6.2 of 10 pairs of images won, 0.5 times the spread between prompts of base "
        "and 2.0 times what another seed does; +0.50 ["
    )


@pytest.mark.parametrize("prompts", [1, 2, 4])
def test_under_ten_prompts_nothing_is_shown(prompts):
    found = find("spo", "base", [paired(5.0, shifts=shifts(5.0, pairs=prompts))])
    assert (found.word, found.metrics[0].reads) == ("not shown", "not read")
    assert "fewer than 10 prompts" in found.sentences[-1]
    assert find("spo", "base", [PairedMetric(facts("m"), "none", [2.0], [1.0])]).word == "not shown"


def test_groups_are_the_unit():
    values = np.repeat(shifts(0.5, pairs=6), 5)
    groups = [("group", str(at // 5)) for at in range(60)]
    alone = find("spo", "base", [paired(0, shifts=values)]).metrics[0].interval
    grouped = find("spo", "base", [paired(0, shifts=values, units=groups)]).metrics[0].interval
    low, high = ttest_1samp(values[::5], 0).confidence_interval(0.9)
    assert (grouped.low, grouped.high) == (pytest.approx(low), pytest.approx(high))
    assert grouped.high - grouped.low > 1.5 * (alone.high - alone.low)
    few = find("spo", "base", [paired(0, shifts=values, units=[("group", str(at // 10)) for at in range(60)])])
    assert "of different groups" in few.metrics[0].reason


def test_scores_that_do_not_follow_the_images_are_not_read_and_named():
    flat = PairedMetric(facts("flat"), "none", [9.0] * 40, np.random.default_rng(0).normal(size=40).tolist())
    found = find("spo", "base", [flat, paired(0.0, missing=3)])
    assert found.word == "not shown"
    assert found.metrics[0].reads == "not read"
    assert "Not judged: flat (the candidate has the same score on every prompt" in found.sentences[-1]
    assert "Up to 3 prompts without scores on both sides were left out." in found.sentences[-1]
    still = PairedMetric(facts("still"), "none", [1.0] * 40, [1.0] * 40)
    assert find("spo", "base", [still]).metrics[0].reads == "no limit"


def test_a_limit_that_says_nothing_of_its_metric_is_replaced_and_said():
    (one,) = find("spo", "base", [paired(0.0, limit="+-0.1")]).metrics
    assert (one.limit, one.own_limit) == ("0.1sd", False)
    assert "its limit is how much worse" in one.reason


def test_the_words_of_one_run():
    run = make_run("r", prompts=40)
    found = {(one.candidate, one.reference): one for one in find_in_run(run, [("spo", "base"), ("dpo", "base")])}
    one = found["spo", "base"]
    assert {metric.metric for metric in one.metrics} == FACTS.keys() - {"ssim-to-base"}
    gains = {metric.metric for metric in one.metrics if metric.reads == "gain"}
    assert gains == {"mini-aesthetic", "mini-preference"}
    scores = [s for s in run.scores if s.metric == "mini-preference"]
    ours, theirs = ({(s.prompt_id, s.sample): s.value for s in scores if s.variant == name} for name in ("spo", "base"))
    metric = next(metric for metric in one.metrics if metric.metric == "mini-preference")
    assert metric.pairs_won == pytest.approx(np.mean([ours[key] > theirs[key] for key in ours]))
    within = [
        statistics.variance([v for (p, _), v in theirs.items() if p == prompt.id]) for prompt in run.info.suite.prompts
    ]
    assert metric.sample_sd == pytest.approx(np.sqrt(np.mean(within)))


def test_a_frozen_run_gives_the_same_finding_without_samples():
    run = make_run("r", prompts=40)
    (ours,) = find_in_run(run, [("spo", "base")])
    frozen = freeze(run)
    (theirs,) = find_in_frozen(frozen, frozen, [("spo", "base")], run.info.suite.prompts)
    assert theirs.word == ours.word
    bare = [replace(metric, sample_sd=None, pairs_won=None) for metric in ours.metrics]
    kept = {metric.metric: metric for metric in theirs.metrics}
    for metric in bare:
        other = kept[metric.metric]
        assert (other.reads, other.prompts, other.limit) == (metric.reads, metric.prompts, metric.limit)
        assert other.mean == pytest.approx(metric.mean, abs=1e-4)  # a frozen value has so many digits


def test_two_runs_are_told_apart_by_name_and_judged_by_the_limits_of_the_reference():
    old, new = make_run("old", prompts=40), make_run("new", prompts=40, seed=1)
    suite = replace(old.info.suite, limits=(parse_limit("saturation", "+-0.3"),))
    old = replace(old, info=replace(old.info, suite=suite))
    (found,) = find_in_runs(new, old, [("spo", "spo")])
    assert (found.candidate, found.reference, found.word) == ("spo@new", "spo@old", "not shown")
    assert {metric.metric: metric.own_limit for metric in found.metrics}["saturation"]
    other = replace(old, info=replace(old.info, suite=replace(suite, seed=7)))
    with pytest.raises(IncomparableError):
        find_in_runs(new, other, [("spo", "spo")])


def test_a_finding_survives_json():
    (found,) = find_in_run(make_run("r", prompts=20), [("spo", "base")])
    assert msgspec.json.decode(msgspec.json.encode(found), type=type(found)) == found


def test_a_variant_whose_training_is_known_is_not_asked_for_it_because_a_judge_is_silent():
    gain, clip = paired(0.8, "unknown", facts("soft-tifa-am-toy", "alignment")), facts("clip", "alignment")
    known = find("spo", "base", [gain, paired(0.1, "none", clip)]).sentences
    assert "A judge says it in its own table: [judges.NAME] trained_on = [...]." in known
    assert not any("Of spo" in one for one in known)
    unknown = find("spo", "base", [gain, paired(0.1, "unknown", clip)]).sentences
    assert any(one.startswith("Of spo, say what it was trained on") and "[judges.NAME]" in one for one in unknown)


def test_numbers_of_tags_are_named_as_not_judged():
    run = make_run("r", prompts=24)
    tags = facts("of-tags", "diversity", over="tag")
    with_tags = replace(run, info=replace(run.info, metrics=(*run.info.metrics, tags)))
    frozen = freeze(with_tags)
    pairs = [("spo", "base")]
    for (found,) in (find_in_run(with_tags, pairs), find_in_frozen(frozen, frozen, pairs, run.info.suite.prompts)):
        assert "of-tags (it has a number of each tag, none of a prompt)" in found.sentences[-1]
    assert found.metrics[0].interval.level == find_in_run(run, pairs)[0].metrics[0].interval.level


def test_a_metric_of_faces_lacks_no_score_on_prompts_that_ask_for_none():
    run = make_run("r", prompts=24, samples=1)
    prompts = tuple(
        replace(one, tags=("portrait",) if number < 12 else ("landscape",))
        for number, one in enumerate(run.info.suite.prompts)
    )
    portraits = {one.id for one in prompts[:12]}
    metrics = tuple(replace(one, prompts="faces" if one.name == "mini-clip" else "all") for one in run.info.metrics)
    scores = tuple(one for one in run.scores if one.metric != "mini-clip" or one.prompt_id in portraits)
    run = replace(
        run, info=replace(run.info, suite=replace(run.info.suite, prompts=prompts), metrics=metrics), scores=scores
    )
    (found,) = find_in_run(run, [("spo", "base")])
    read = next(one for one in found.metrics if one.metric == "mini-clip")
    assert (read.prompts, read.missing) == (12, 0)
    assert not any("without scores" in one for one in found.sentences)
    (delta,) = [one for one in compare_run(run, pairs=[("spo", "base")], tags=False) if one.metric == "mini-clip"]
    assert (delta.prompts, delta.missing) == (12, 0)
    assert {one.missing for one in metric_means(run) if one.metric == "mini-clip"} == {0}


def test_a_number_of_three_images_is_not_compared_with_one_of_two():
    run = make_run("r", prompts=24, samples=3)
    first = run.info.suite.prompts[0].id
    metrics = tuple(replace(one, over="prompt" if one.name == "mini-clip" else "image") for one in run.info.metrics)
    lost = ("spo", "mini-clip", first, 2)
    scores = tuple(one for one in run.scores if (one.variant, one.metric, one.prompt_id, one.sample) != lost)
    run = replace(run, info=replace(run.info, metrics=metrics), scores=scores)
    (found,) = find_in_run(run, [("spo", "base")])
    read = next(one for one in found.metrics if one.metric == "mini-clip")
    assert (read.prompts, read.missing, read.sample_sd) == (23, 1, None)
    assert first not in [one.prompt.id for one in paired_prompts(run, run, ("spo", "base"), "mini-clip")]


def test_a_reference_with_a_face_on_every_picture_is_read():
    found = facts("face-found", "faces", low=0.0, high=1.0)
    ours = [0.0] * 12 + [1.0] * 28
    lost = PairedMetric(found, "none", ours, [1.0] * 40, limit=parse_limit("face-found", "0.05"))
    (read,) = find("spo", "base", [lost]).metrics
    assert (read.reads, read.mean) == ("price", pytest.approx(-0.3))
    broken = PairedMetric(found, "none", ours, [0.0] * 40, limit=parse_limit("face-found", "0.05"))
    assert find("spo", "base", [broken]).metrics[0].reads == "not read"
    by_default = find("spo", "base", [PairedMetric(found, "none", ours, [1.0] * 40)])
    assert by_default.metrics[0].reads == "no limit"
    assert "scores the same on every prompt" in by_default.sentences[-1]
