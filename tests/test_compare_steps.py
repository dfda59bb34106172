"""Curves and orders of single steps, against numbers worked out by hand."""

from __future__ import annotations

import itertools
import statistics
from pathlib import Path

import msgspec
import numpy as np
import pytest
from fakes import make_run
from scipy.stats import spearmanr

from bench.compare import compare_run
from bench.compare.attribution import attribute_steps
from bench.compare.pairing import paired_prompts
from bench.compare.steps import order_difference, step_curves, step_orders
from bench.records import Attribution, Run, StepScore, StepWindow
from bench.report.steps import attribution_sentences, curve_sentences, front_sentences, order_sentence
from bench.suite.limits import parse_limit

METRIC, STEPS = "mini-preference", (1, 5, 10)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("run"), prompts=10)


def finals(run: Run, variant: str) -> dict[tuple[str, int], float]:
    return {(s.prompt_id, s.sample): s.value for s in run.scores if s.metric == METRIC and s.variant == variant}


def scored(
    run: Run, share: dict[int, float], metric: str = METRIC, skip: tuple[str, str] = ("", "")
) -> list[StepScore]:
    """Step scores that are ``share`` of the final ones, in all steps and variants."""
    found = []
    for render in run.renders:
        value = finals(run, render.variant)[render.prompt_id, render.sample]
        for step in STEPS:
            if (render.variant, render.prompt_id) == skip and step == 5:
                continue
            found.append(
                StepScore(
                    variant=render.variant,
                    prompt_id=render.prompt_id,
                    sample=render.sample,
                    step=step,
                    timestep=1000.0 - step,
                    sigma=1.0,
                    metric=metric,
                    version="1",
                    image_sha256=render.sha256,
                    value=share[step] * value,
                )
            )
    return found


def test_a_curve_is_the_mean_of_prompt_means_at_each_step(run):
    (curve,) = step_curves(run, scored(run, {1: -0.5, 5: 0.25, 10: 1.0}), [("spo", "base")])
    above, below = finals(run, "spo"), finals(run, "base")
    whole = np.mean([above[key] - below[key] for key in above])
    assert curve.steps == STEPS
    assert curve.mean == pytest.approx((-0.5 * whole, 0.25 * whole, whole))
    assert curve.final == pytest.approx(whole)
    assert (curve.prompts, curve.missing) == (10, 0)
    assert all(low < mean < high for low, mean, high in zip(curve.low, curve.mean, curve.high, strict=True))


def test_an_image_without_a_score_at_a_step_is_left_out_of_the_whole_curve(run):
    first = run.info.suite.prompts[0].id
    (curve,) = step_curves(run, scored(run, dict.fromkeys(STEPS, 1.0), skip=("spo", first)), [("spo", "base")])
    assert (curve.prompts, curve.missing) == (9, 2)
    assert curve.mean[0] == curve.mean[1] == curve.mean[2]


def test_scores_of_other_images_do_not_count(run):
    scores = [msgspec.structs.replace(one, image_sha256="0" * 64) for one in scored(run, dict.fromkeys(STEPS, 1.0))]
    assert step_curves(run, scores, [("spo", "base")]) == ()


def test_the_order_at_a_step_is_reversed_or_that_of_the_end(run):
    variants, seeds = step_orders(run, scored(run, {1: -1.0, 5: 0.01, 10: 1.0}), [("spo", "base")], {})
    for order in (variants, seeds):
        assert order.agreement == pytest.approx((0.0, 1.0, 1.0))
        assert order.rank_correlation == pytest.approx((-1.0, 1.0, 1.0))
        assert order.reversed_steps == (1,)
        assert order.decided_step == 5
        assert not order.final_is_last_step
    assert (variants.pairs, seeds.pairs) == (20, 10)
    assert "mostly the reverse" in order_sentence(variants)
    assert "two samples of base" in order_sentence(seeds)


def test_shares_and_rank_correlations_are_those_of_the_pairs(run):
    rng = np.random.default_rng(4)
    scores = [msgspec.structs.replace(one, value=float(rng.normal())) for one in scored(run, dict.fromkeys(STEPS, 1.0))]
    (order,) = [one for one in step_orders(run, scores, [("spo", "base")], {}) if one.candidate == "spo"]
    table = {(one.variant, one.prompt_id, one.sample, one.step): one.value for one in scores}
    above, below = finals(run, "spo"), finals(run, "base")
    at = [table["spo", *key, 5] - table["base", *key, 5] for key in above]
    end = [above[key] - below[key] for key in above]
    assert order.agreement[1] == pytest.approx(np.mean(np.sign(at) == np.sign(end)))
    both = spearmanr([*at, *np.negative(at)], [*end, *np.negative(end)]).statistic
    assert order.rank_correlation[1] == pytest.approx(both)


def test_a_step_metric_is_held_against_its_counterpart_or_its_own_end(run):
    scores = scored(run, {1: 1.0, 5: 1.0, 10: -1.0}, metric="aware")
    (against,) = [o for o in step_orders(run, scores, [("spo", "base")], {"aware": METRIC}) if o.candidate == "spo"]
    assert (against.final_metric, against.agreement[0], against.agreement[2]) == (METRIC, 1.0, 0.0)
    (alone,) = [o for o in step_orders(run, scores, [("spo", "base")], {}) if o.candidate == "spo"]
    assert alone.final_is_last_step
    assert (alone.final_metric, alone.agreement[0], alone.agreement[2]) == ("aware", 0.0, 1.0)


def test_a_curve_that_says_nothing_is_told_in_one_sentence(run):
    curves = step_curves(run, scored(run, dict.fromkeys(STEPS, 0.0)), [("spo", "base"), ("dpo", "base")])
    (sentence,) = curve_sentences(curves)
    assert "At no step told from 0, with 10 prompts" in sentence


# Where the gain comes from.


GAINS = {"v": 1.0, "v-1-5": 0.7, "v-6-10": 0.25, "v-6-20": 0.3, "v-1-10": 0.95, "v-11-20": 0.0}
WINDOWS = (
    StepWindow(kind="only", first=1, last=5, variant="v-1-5"),
    StepWindow(kind="only", first=6, last=10, variant="v-6-10"),
    StepWindow(kind="only", first=11, last=20, variant="v-11-20"),
    StepWindow(kind="until", first=1, last=5, variant="v-1-5"),
    StepWindow(kind="until", first=1, last=10, variant="v-1-10"),
    StepWindow(kind="from", first=6, last=20, variant="v-6-20"),
    StepWindow(kind="from", first=11, last=20, variant="v-11-20"),
)


@pytest.fixture(scope="module")
def attributed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    effect = {name: {METRIC: 2 * gain, "mini-clip": -0.0 if gain else -1.0} for name, gain in GAINS.items()}
    place: Path = tmp_path_factory.mktemp("windows")
    made = make_run(place, prompts=30, variants=("base", *GAINS), effect=effect)
    suite = msgspec.structs.replace(made.info.suite, attribution=Attribution(variant="v", windows=WINDOWS))
    return msgspec.structs.replace(made, info=msgspec.structs.replace(made.info, suite=suite))


def test_each_window_has_its_share_of_the_whole(attributed):
    found = attribute_steps(attributed, compare_run(attributed, tags=False))
    (own,) = [one for one in found.metrics if one.metric == METRIC]
    shares = {(one.kind, one.first, one.last): one.share for one in own.windows}
    whole = own.whole.mean
    for window in own.windows:
        assert window.share == pytest.approx(window.delta.mean / whole)
    assert shares["only", 1, 5] == shares["until", 1, 5]
    assert own.nearly_all_until == 10
    only = [one.delta.mean for one in own.windows if one.kind == "only"]
    assert own.additivity.sum_of_windows == pytest.approx(sum(only))
    assert own.additivity.excess == pytest.approx(sum(only) - whole)
    assert any("first 10 of 20 steps" in sentence for sentence in attribution_sentences(found))


def test_windows_are_ranked_by_gain_and_largest_loss(attributed):
    """Against a loop over all pairs, and the losses in units of the limit or of one sd."""
    suite = attributed.info.suite
    limit = parse_limit("mini-clip", "0.5")
    plan = msgspec.structs.replace(suite.attribution, gain=METRIC, limits=(limit,))
    info = msgspec.structs.replace(attributed.info, suite=msgspec.structs.replace(suite, attribution=plan))
    run = msgspec.structs.replace(attributed, info=info)
    deltas = compare_run(run, tags=False)
    front = attribute_steps(run, deltas).front
    means = {(one.candidate, one.metric): one.mean for one in deltas if one.reference == "base"}
    assert front.metric == METRIC
    assert [one.variant for one in front.places] == ["v", "v-1-5", "v-6-10", "v-11-20", "v-1-10", "v-6-20"]
    for one in front.places:
        assert one.gain == means[one.variant, METRIC]
        assert one.loss >= max(0.0, -means[one.variant, "mini-clip"] / 0.5) - 1e-12
        better = [o for o in front.places if o.gain >= one.gain and o.loss <= one.loss and o is not one]
        assert one.on_front == (not [o for o in better if (o.gain, o.loss) != (one.gain, one.loss)])
    (lost,) = [one for one in front.places if one.variant == "v-11-20"]
    assert lost.worst == "mini-clip"
    assert lost.loss == pytest.approx(-means["v-11-20", "mini-clip"] / 0.5)
    keeping = [one for one in front.places if one.gain >= 0.9 * front.places[0].gain]
    assert front.best.loss == min(one.loss for one in keeping)
    assert front.best.variant in ("v", "v-1-10")
    said = front_sentences(front, attribute_steps(run, deltas))
    assert f"steps {front.best.first}-{front.best.last} cost least" in said[1]


def test_without_a_limit_a_loss_is_in_standard_deviations_of_the_reference(attributed):
    deltas = compare_run(attributed, tags=False)
    found = attribute_steps(attributed, deltas)
    (lost,) = [one for one in found.front.places if one.variant == "v-11-20"]
    pairs = paired_prompts(attributed, attributed, ("v-11-20", "base"), "mini-clip")
    drop = statistics.mean(pair.difference for pair in pairs)
    assert lost.loss == pytest.approx(-drop / statistics.stdev(pair.reference for pair in pairs))


def test_no_window_is_proposed_where_there_is_no_gain(attributed):
    plan = msgspec.structs.replace(attributed.info.suite.attribution, variant="v-11-20", gain=METRIC)
    info = msgspec.structs.replace(
        attributed.info, suite=msgspec.structs.replace(attributed.info.suite, attribution=plan)
    )
    run = msgspec.structs.replace(attributed, info=info)
    found = attribute_steps(run, compare_run(run, tags=False))
    assert found.front.best is None
    assert "no window is proposed" in front_sentences(found.front, found)[1]


def test_windows_that_only_cost_are_named(attributed):
    found = attribute_steps(attributed, compare_run(attributed, tags=False))
    (said,) = [sentence for sentence in attribution_sentences(found) if "gains nothing" in sentence]
    assert said.startswith("From step 11 on")
    assert "mini-clip" in said


def test_another_run_has_no_attribution(run):
    assert attribute_steps(run, compare_run(run, tags=False)) is None


def test_every_pair_of_samples_counts_once(run):
    more = make_run(Path(run.path) / "more", prompts=4, samples=3)
    (order,) = [
        o
        for o in step_orders(more, scored(more, dict.fromkeys(STEPS, 1.0)), [("spo", "base")], {})
        if o.candidate == "base"
    ]
    assert order.pairs == 4 * len(list(itertools.combinations(range(3), 2)))


# One metric against another.


def test_two_metrics_are_told_apart_on_the_same_pairs(run):
    """The one has the final order at step 5, the other its reverse; at step 10 both have it."""
    scores = scored(run, {1: 1.0, 5: 1.0, 10: 1.0}, "aware") + scored(run, {1: 1.0, 5: -1.0, 10: 2.0})
    for pair, pairs in ((("spo", "base"), 20), (("base", "base"), 10)):
        gap = order_difference(run, scores, pair, ("aware", METRIC), METRIC)
        assert (gap.steps, gap.prompts, gap.pairs) == (STEPS, 10, pairs)
        assert gap.mean == pytest.approx((0.0, 1.0, 0.0))
        assert gap.low == pytest.approx((0.0, 1.0, 0.0))  # no spread over prompts, so a band of no width


def test_the_gap_of_two_metrics_is_that_of_their_shares_and_its_band_holds_it(run):
    rng = np.random.default_rng(5)
    noisy = [
        msgspec.structs.replace(one, value=one.value + float(rng.normal(0, spread)))
        for metric, spread in ((METRIC, 0.3), ("aware", 3.0))
        for one in scored(run, dict.fromkeys(STEPS, 1.0), metric)
    ]
    orders = step_orders(run, noisy, [("spo", "base")], {"aware": METRIC})
    plain, aware = (next(o for o in orders if (o.metric, o.candidate) == (name, "spo")) for name in (METRIC, "aware"))
    gap = order_difference(run, noisy, ("spo", "base"), (METRIC, "aware"), METRIC)
    assert gap.mean == pytest.approx(np.subtract(plain.agreement, aware.agreement))
    assert all(low < mean < high for low, mean, high in zip(gap.low, gap.mean, gap.high, strict=True))


def test_pairs_that_one_of_two_metrics_lacks_are_left_out_of_both(run):
    first = run.info.suite.prompts[0].id
    scores = scored(run, dict.fromkeys(STEPS, 1.0), "aware", skip=("spo", first))
    scores += scored(run, dict.fromkeys(STEPS, 1.0))
    gap = order_difference(run, scores, ("spo", "base"), ("aware", METRIC), METRIC)
    assert (gap.prompts, gap.pairs) == (9, 18)


def test_without_scores_of_the_final_images_two_metrics_are_not_compared(run):
    scores = scored(run, dict.fromkeys(STEPS, 1.0), "aware") + scored(run, dict.fromkeys(STEPS, 1.0))
    assert order_difference(run, scores, ("spo", "base"), ("aware", METRIC), "pickscore") is None
