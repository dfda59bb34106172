"""Plans from pilots with known components; the power that is promised is the one that gates have."""

from __future__ import annotations

import math

import numpy as np
import pytest
from fakes import make_run
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from scipy.stats import f_oneway

from bench.errors import IncomparableError, InvalidError, UsageError
from bench.plan import plan_sizes, variance_components
from bench.records import Variant
from bench.stats.bounds import mean_bounds, power_of_pass
from bench.suite.limits import parse_limits

# --- components of variance ----------------------------------------------------------------


def test_the_components_of_a_hand_worked_layout():
    # Means 2 and 8, grand mean 5: MSB = 3 * (9 + 9) / 1 = 54, MSW = (2 + 2) / 4 = 1, n_0 = 3.
    found = variance_components([[1.0, 2.0, 3.0], [7.0, 8.0, 9.0]])
    assert (found.between_sd, found.within_sd) == pytest.approx((math.sqrt(53 / 3), 1.0))
    assert (found.prompts, found.values) == (2, 6)


@pytest.mark.parametrize("seed", range(5))
def test_unequal_counts_agree_with_the_f_test_of_scipy(seed):
    rng = np.random.default_rng(seed)
    prompts = [list(rng.normal(rng.normal(0, 2), 1, size=n)) for n in (1, 4, 2, 5, 3, 3, 4)]
    counts = np.array([len(values) for values in prompts])
    residuals = np.concatenate([np.asarray(values) - np.mean(values) for values in prompts])
    within = residuals @ residuals / (counts.sum() - len(counts))
    typical = (counts.sum() - (counts**2).sum() / counts.sum()) / (len(counts) - 1)
    between = within * (f_oneway(*prompts).statistic - 1) / typical
    found = variance_components(prompts)
    assert found.within_sd == pytest.approx(math.sqrt(within))
    assert found.between_sd == pytest.approx(math.sqrt(max(0.0, between)))


def test_the_estimates_are_right_on_average():
    rng = np.random.default_rng(5)
    counts = [1, 2, 3, 4] * 5
    squares = np.zeros(2)
    for _ in range(400):
        found = variance_components([rng.normal(rng.normal(0, 3), 2, size=n) for n in counts])
        squares += found.between_sd**2, found.within_sd**2
    assert squares / 400 == pytest.approx([9.0, 4.0], rel=0.06)


layouts = st.lists(
    st.lists(st.floats(-100, 100, allow_subnormal=False), min_size=1, max_size=4), min_size=2, max_size=8
)


@given(layouts, st.sampled_from([1e-200, 1e-3, 1e6, 1e150]), st.booleans())
def test_components_are_never_negative_and_scale_with_the_values(prompts, scale, negative):
    found = variance_components(prompts)
    factor = -scale if negative else scale
    scaled = variance_components([[factor * value for value in values] for values in reversed(prompts)])
    for one, other in ((found.between_sd, scaled.between_sd), (found.within_sd, scaled.within_sd)):
        assert (one is None) == (other is None)
        if one is not None:
            assert one >= 0
            assert other == pytest.approx(scale * one, rel=1e-5, abs=scale * 1e-5)


@given(st.lists(st.lists(st.floats(-9, 9), min_size=3, max_size=3), min_size=2, max_size=9))
def test_planned_means_spread_at_least_as_the_pilots_own(prompts):
    """At the pilot's samples the components give the spread of its means again, or more where one was cut at 0."""
    found = variance_components(prompts)
    seen = float(np.std([np.mean(values) for values in prompts], ddof=1))
    planned = found.sd_of_means(3)
    assert planned >= seen - 1e-9
    if found.between_sd > 0:
        assert planned == pytest.approx(seen, abs=1e-9)


@pytest.mark.parametrize("prompts", [[], [[1.0, 2.0]], [[1.0], []]])
def test_components_need_two_prompts_with_values(prompts):
    with pytest.raises(ValueError, match="2 or more prompts"):
        variance_components(prompts)


def test_what_one_sample_cannot_tell_is_not_told():
    found = variance_components([[1.0], [2.0], [4.0]])
    assert found.within_sd is None
    assert found.sd_of_means(1) == pytest.approx(float(np.std([1, 2, 4], ddof=1)))
    with pytest.raises(ValueError, match="single samples"):
        found.sd_of_means(2)


# --- plans ---------------------------------------------------------------------------------

LIMITS = {"mini-clip": "0.1sd", "mini-aesthetic": "0.1", "end_to_end": "5%"}


def with_scores(run, value):
    """The run with ``value(variant, case number, sample)`` as its scores of mini-clip."""
    number = {prompt.id: index for index, prompt in enumerate(run.info.suite.prompts)}
    scores = tuple(
        replace(score, value=float(value(score.variant, number[score.prompt_id], score.sample)))
        if score.metric == "mini-clip"
        else score
        for score in run.scores
    )
    return replace(run, scores=scores)


@pytest.fixture(scope="module")
def pilot():
    return make_run("pilot", prompts=40, samples=3)


@pytest.fixture(scope="module")
def suite(pilot):
    return replace(pilot.info.suite, limits=parse_limits(LIMITS))


def test_more_samples_need_fewer_prompts_and_never_fewer_images(suite, pilot):
    plan = plan_sizes(suite, pilot)
    assert {(one.metric, one.candidate, one.reference) for one in plan.metrics} == {
        (metric, candidate, "base") for metric in ("mini-clip", "mini-aesthetic") for candidate in ("dpo", "spo")
    }
    for metric in plan.metrics:
        assert [size.samples for size in metric.sizes] == [1, 2, 3, 4, 8]
        prompts = [size.prompts for size in metric.sizes]
        assert prompts == sorted(prompts, reverse=True)
    for one in plan.runs:
        sizes = [size.prompts for metric in plan.metrics for size in metric.sizes if size.samples == one.samples]
        assert one.prompts == max(sizes)
        assert one.images == one.prompts * one.samples * 3


def test_the_planned_number_is_the_smallest_with_the_power(suite, pilot):
    plan = plan_sizes(suite, pilot, power=0.9)
    for metric in plan.metrics:
        for size in metric.sizes:
            assert power_of_pass(size.prompts, size.sd, size.margin, 0.0) >= 0.9
            before = power_of_pass(size.prompts - 1, size.sd, size.margin, 0.0)
            assert before < 0.9 or size.prompts <= 10
            assert size.power_now == power_of_pass(40, size.sd, size.margin, 0.0)


def test_the_number_is_near_the_textbooks(suite, pilot):
    (metric,) = plan_sizes(suite, pilot, margins=parse_limits({"mini-clip": "0.004"}), candidate="spo").metrics[:1]
    for size in metric.sizes:
        textbook = (1.6449 + 0.8416) ** 2 * size.sd**2 / 0.004**2
        assert size.prompts == pytest.approx(textbook, rel=0.05, abs=3)


def test_gates_of_the_planned_size_pass_as_often_as_promised():
    """A pilot of known components is planned from; gates are then drawn with those and judged by the gate's bound."""
    rng = np.random.default_rng(11)
    between, within = 0.5, 0.8
    run = make_run("pilot", prompts=600, samples=4, variants=("base", "spo"))
    effect, noise = rng.normal(0, between, 600), rng.normal(0, within, (600, 4))
    run = with_scores(
        run, lambda variant, prompt_id, sample: (variant == "spo") * (effect[prompt_id] + noise[prompt_id, sample])
    )
    plan = plan_sizes(replace(run.info.suite, limits=parse_limits({"mini-clip": "0.2"})), run, power=0.8)
    sizes = {size.samples: size for size in plan.metrics[0].sizes}
    for samples in (1, 4):
        n = sizes[samples].prompts
        passed = 0
        for _ in range(1500):
            prompts = rng.normal(0, between, n) + rng.normal(0, within, (n, samples)).mean(axis=1)
            passed += mean_bounds(-prompts)[1] <= 0.2
        # The pilot's own error is about 3 % of the standard deviation, which is 3 points of power.
        assert passed / 1500 == pytest.approx(0.8, abs=0.06)


def test_a_limit_in_sd_is_one_of_the_references_means_at_that_many_samples(suite, pilot):
    plan = plan_sizes(suite, pilot, candidate="spo")
    (metric,) = [one for one in plan.metrics if one.metric == "mini-clip"]
    margins = {size.samples: size.margin for size in metric.sizes}
    means = {}
    for score in pilot.scores:
        if (score.variant, score.metric) == ("base", "mini-clip"):
            means.setdefault(score.prompt_id, []).append(score.value)
    seen = float(np.std([np.mean(values) for values in means.values()], ddof=1))
    assert margins[3] == pytest.approx(0.1 * seen)
    assert margins[1] > margins[2] > margins[8]


def test_a_floor_and_a_relative_limit_are_taken_as_the_gate_takes_them(suite, pilot):
    facts = tuple(replace(one, low=0.0) if one.name == "mini-clip" else one for one in pilot.info.metrics)
    changed = replace(pilot, info=replace(pilot.info, metrics=facts))
    base = [one.value for one in pilot.scores if (one.variant, one.metric) == ("base", "mini-clip")]
    plan = plan_sizes(suite, changed, margins=parse_limits({"mini-clip": "2%"}))
    assert plan.metrics[0].sizes[0].margin == pytest.approx(0.02 * float(np.mean(base)))
    floored = plan_sizes(suite, changed, margins=parse_limits({"mini-clip": "2% floor 0.5"}))
    assert floored.metrics[0].sizes[0].margin == 0.5


def test_the_time_is_that_of_all_variants_one_image_after_another(suite, pilot):
    def median(variant):
        values = [t.values for t in pilot.timings if (t.variant, t.name) == (variant, "end_to_end")]
        return float(np.median(np.concatenate(values)))

    for one in plan_sizes(suite, pilot).runs:
        pace = sum(median(variant) for variant in ("base", "dpo", "spo"))
        assert one.seconds == pytest.approx(one.prompts * one.samples * pace)
    wider = replace(suite, variants=(*suite.variants, Variant(name="merge", checkpoint="mini")))
    plan = plan_sizes(wider, pilot)
    slowest = max(median(variant) for variant in ("base", "dpo", "spo"))
    assert plan.runs[0].seconds == pytest.approx(plan.runs[0].prompts * (pace + slowest))
    assert any("not timed merge" in note for note in plan.notes)


def test_without_timings_there_is_no_time_and_a_note_why(suite, pilot):
    plan = plan_sizes(suite, replace(pilot, timings=()))
    assert {one.seconds for one in plan.runs} == {None}
    assert any("hotart-bench measure pilot" in note for note in plan.notes)


def test_a_pilot_of_one_sample_plans_prompts_alone_and_says_so():
    run = make_run("pilot", samples=1)
    plan = plan_sizes(replace(run.info.suite, limits=parse_limits(LIMITS), samples=2), run)
    assert {metric.within_sd for metric in plan.metrics} == {None}
    assert [one.samples for one in plan.runs] == [1]
    assert any("only prompts are planned" in note for note in plan.notes)


def test_a_small_pilot_of_other_prompts_is_taken_and_told(suite, pilot):
    small = make_run("pilot", prompts=5)
    plan = plan_sizes(replace(suite, prompts=suite.prompts[2:]), small)
    assert any("2 prompts of the pilot's 5 are not in the suite" in note for note in plan.notes)
    assert any(f"about {100 / math.sqrt(8):.0f} %" in note for note in plan.notes)


def test_images_that_failed_leave_their_pair_out(suite):
    run = make_run("pilot", prompts=40, samples=3, failed={("spo", "case-003", 1), ("base", "case-004", 0)})
    metrics = {one.candidate: one for one in plan_sizes(suite, run).metrics if one.metric == "mini-clip"}
    assert (metrics["spo"].prompts, metrics["spo"].pairs) == (40, 118)
    assert metrics["dpo"].pairs == 119


def test_the_candidate_and_the_reference_can_be_named(suite, pilot):
    plan = plan_sizes(suite, pilot, candidate="spo", reference="dpo")
    assert {(one.candidate, one.reference) for one in plan.metrics} == {("spo", "dpo")}
    plan = plan_sizes(suite, pilot, reference="spo")
    assert {(one.candidate, one.reference) for one in plan.metrics} == {("base", "spo"), ("dpo", "spo")}


# --- what is refused -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"candidate": "spi"}, "'spi'.*did you mean 'spo'"),
        ({"reference": "bsae"}, "did you mean 'base'"),
        ({"candidate": "base"}, "its own reference"),
        ({"candidate": "spo", "reference": "spo"}, "its own reference"),
        ({"margins": parse_limits({"mini-clap": "0.1"})}, "did you mean 'mini-clip'"),
        ({"margins": parse_limits({"saturation": "0.1"})}, "saturation"),
        ({"margins": parse_limits({"ssim-to-base": "0.1"})}, "ssim-to-base"),
        ({"margins": parse_limits({"mini-clip": "2%"})}, "does not mean none"),
        ({"power": 0.0}, "between 0 and 1"),
        ({"power": 1.0}, "between 0 and 1"),
        ({"power": math.nan}, "between 0 and 1"),
    ],
)
def test_flags_that_cannot_be_are_refused(suite, pilot, flags, words):
    with pytest.raises(UsageError, match=words):
        plan_sizes(suite, pilot, **flags)


def test_a_suite_without_limits_on_metrics_says_how_to_give_one(suite, pilot):
    with pytest.raises(UsageError, match="--margin mini-clip="):
        plan_sizes(replace(suite, limits=parse_limits({"end_to_end": "5%"})), pilot)


def test_a_pilot_of_other_settings_is_refused_with_all_that_differs(suite, pilot):
    other = replace(suite, settings=replace(suite.settings, steps=30, batch=4))
    with pytest.raises(IncomparableError, match=r"settings\.steps is 20 there and 30 here; settings\.batch is 16"):
        plan_sizes(other, pilot)


def test_a_pilot_of_one_variant_is_refused(suite):
    with pytest.raises(UsageError, match="only the variant base") as caught:
        plan_sizes(suite, make_run("pilot", variants=("base",)))
    assert "second variant" in caught.value.hint, "running it again as it is would lead back here"


def test_a_pilot_of_one_prompt_is_refused(suite):
    with pytest.raises(InvalidError, match="only one prompt"):
        plan_sizes(suite, make_run("pilot", prompts=1))


def test_a_gated_metric_without_scores_is_refused_with_the_command(suite, pilot):
    facts = tuple(one for one in pilot.info.metrics if one.name != "mini-clip")
    with pytest.raises(InvalidError, match="mini-clip") as caught:
        plan_sizes(suite, replace(pilot, info=replace(pilot.info, metrics=facts)))
    assert caught.value.hint == "hotart-bench score pilot --metrics mini-clip"
    none = tuple(one for one in pilot.scores if (one.variant, one.metric) != ("dpo", "mini-clip"))
    with pytest.raises(InvalidError, match="mini-clip of dpo and base: no image"):
        plan_sizes(suite, replace(pilot, scores=none))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (lambda variant, prompt_id, sample: 0.3, "every score is the same"),
        (lambda variant, prompt_id, sample: 0.1 * prompt_id, "the difference is the same"),
        (lambda variant, prompt_id, sample: 0.1 * prompt_id + 0.3 * (variant == "spo"), "the difference is the same"),
    ],
)
def test_differences_without_a_spread_are_refused(suite, pilot, value, words):
    with pytest.raises(InvalidError, match=words):
        plan_sizes(suite, with_scores(pilot, value), candidate="spo")


def test_a_limit_in_sd_of_a_constant_reference_is_refused(suite, pilot):
    flat = with_scores(pilot, lambda variant, prompt_id, sample: 0.01 * prompt_id * (variant == "spo"))
    with pytest.raises(InvalidError, match="no number of prompts"):
        plan_sizes(suite, flat, candidate="spo")
