"""The differences of a grid, against the scores themselves and numbers worked out by hand."""

from __future__ import annotations

import statistics
from pathlib import Path

import numpy as np
import pytest
from grid_runs import AXES, make_grid_runs, score_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from bench.compare.grid import compare_grid, grid_pairs
from bench.compare.grid_view import dependence_sentences, grid_view, order_sentence, where
from bench.errors import IncomparableError, InvalidError, UsageError
from bench.records import GridDifference

METRIC = "mini-preference"
LIKED = 3.0
"""Far more than a prompt's noise."""


def shifted(by):
    """spo has ``by(setting)`` more of the metric than base."""
    return lambda setting: {"spo": {METRIC: by(setting)}}


def one(found: tuple[GridDifference, ...], pair: tuple[str, str], metric: str = METRIC) -> GridDifference:
    (only,) = [each for each in found if (each.candidate, each.reference) == pair and each.metric == metric]
    return only


def spo_over_base(found) -> GridDifference:
    return one(compare_grid(found, pairs=[("spo", "base")], metrics=[METRIC]), ("spo", "base"))


def prompt_difference(run, pair, prompt_id, metric=METRIC):
    above, below = (score_of(run, name, metric, prompt_id) for name in pair)
    return statistics.fmean(above) - statistics.fmean(below)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shifts=st.lists(st.floats(-0.5, 0.5), min_size=8, max_size=8),
    axes=st.sampled_from([AXES, {**AXES, "seed": ("0", "1")}, {"steps": ("10", "20", "30"), "seed": ("0", "3")}]),
)
def test_the_means_are_those_of_the_scores(shifts, axes, tmp_path):
    places = iter(shifts)
    found = make_grid_runs(tmp_path, lambda setting: {"spo": {METRIC: next(places)}}, axes, prompts=5, samples=2)
    pair = ("spo", "base")
    result = one(compare_grid(found, pairs=[pair], metrics=[METRIC]), pair)
    prompts = [prompt.id for prompt in found.grid.suite.prompts]
    by_run = [np.array([prompt_difference(run, pair, name) for name in prompts]) for run in found.runs]
    tables = dict(zip((tuple(m.setting.items()) for m in found.grid.members), by_run, strict=True))
    for cell in result.cells:
        own = [rows for setting, rows in tables.items() if set(cell.setting.items()) <= set(setting)]
        assert len(own) == len(axes.get("seed", "x"))
        assert cell.mean == pytest.approx(np.mean(own))
        assert cell.candidate_mean - cell.reference_mean == pytest.approx(cell.mean)
        assert cell.interval.low <= cell.mean <= cell.interval.high
    assert [effect.axis for effect in result.axes] == [axis.name for axis in found.grid.axes]
    for effect in result.axes:
        means = {
            level.value: np.mean([rows for setting, rows in tables.items() if (effect.axis, level.value) in setting])
            for level in effect.levels
        }
        for level in effect.levels:
            assert level.mean == pytest.approx(means[level.value])
            if level.change is None:
                assert level.value == effect.base
            else:
                assert level.change == pytest.approx(means[level.value] - means[effect.base])
                assert level.interval.low <= level.change <= level.interval.high
        assert effect.sd == pytest.approx(statistics.stdev(means.values()))
    assert (result.prompts, result.samples, result.missing) == (5, 10 * len(found.runs), 0)


def test_an_order_that_holds_flips_and_is_not_shown(tmp_path):
    shift = {3.0: LIKED, 5.0: 0.0, 7.5: -LIKED}
    axes = {"guidance_scale": ("3", "5", "7.5"), "sampler": ("ddim", "dpmpp_2m")}
    found = make_grid_runs(tmp_path, shifted(lambda setting: shift[setting["guidance_scale"]]), axes)
    differences = compare_grid(found, metrics=[METRIC])
    result = one(differences, ("spo", "base"))
    assert result.winner == "spo"  # by the suite's own setting, guidance scale 3 and ddim
    assert [cell.order for cell in result.cells] == ["holds"] * 2 + ["not shown"] * 2 + ["flips"] * 2
    said = order_sentence(found.grid, result)
    assert said == (
        f"{METRIC}: spo over base holds in 2 of 6 settings, flips at guidance scale 7.5, is not shown at guidance "
        "scale 5."
    )
    by_axis = {effect.axis: effect for effect in result.axes}
    assert by_axis["guidance_scale"].p == pytest.approx(2**-11)  # the least that 12 prompts can give
    assert by_axis["guidance_scale"].p_holm <= 0.05 < by_axis["sampler"].p
    (sentence,) = dependence_sentences(result, 1)
    assert "depends on the guidance scale: +3.0 at 3" in sentence
    # In a run of base, spo and dpo the two candidates are compared too: dpo has no effect, so spo against it is alike.
    assert [cell.order for cell in one(differences, ("spo", "dpo")).cells] == [cell.order for cell in result.cells]
    assert one(differences, ("dpo", "base")).winner is None


def test_settings_without_a_common_value_are_named_one_by_one(tmp_path):
    flips = {(3.0, "ddim"), (7.5, "dpmpp_2m")}

    def by(setting):
        return -LIKED if tuple(setting.values()) in flips else LIKED

    found = make_grid_runs(tmp_path, shifted(by))
    result = spo_over_base(found)
    assert result.winner == "base"
    flipped = [cell for cell in result.cells if cell.order == "flips"]
    assert where(found.grid, flipped) == "guidance scale 3, dpmpp_2m; guidance scale 7.5, ddim"


def test_without_the_suites_own_setting_the_most_settings_decide(tmp_path):
    axes = {"guidance_scale": ("4", "5", "6")}
    found = make_grid_runs(tmp_path, shifted(lambda s: LIKED if s["guidance_scale"] == 4 else -LIKED), axes)
    result = spo_over_base(found)
    assert (result.winner, result.axes[0].base) == ("base", 4.0)
    assert [cell.order for cell in result.cells] == ["flips", "holds", "holds"]


def test_where_lower_is_better_the_lower_one_wins(tmp_path):
    found = make_grid_runs(tmp_path, shifted(lambda setting: LIKED))
    facts = [
        tuple(replace(f, higher_is_better=False) if f.name == METRIC else f for f in run.info.metrics)
        for run in found.runs
    ]
    runs = [replace(run, info=replace(run.info, metrics=own)) for run, own in zip(found.runs, facts, strict=True)]
    result = one(compare_grid(found._replace(runs=tuple(runs))), ("spo", "base"))
    assert result.winner == "base"
    assert {cell.order for cell in result.cells} == {"holds"}


def test_metrics_that_describe_have_no_winner_and_distances_none_with_the_reference(tmp_path):
    found = make_grid_runs(tmp_path)
    differences = compare_grid(found)
    assert one(differences, ("spo", "base"), "saturation").winner is None
    assert {each.order for each in one(differences, ("spo", "base"), "saturation").cells} == {None}
    own = {(each.candidate, each.reference) for each in differences if each.metric == "ssim-to-base"}
    assert own == {("spo", "dpo")}


def test_seeds_are_averaged_and_their_spread_is_said(tmp_path):
    def by(setting):
        return LIKED + setting["seed"]

    found = make_grid_runs(tmp_path, shifted(by), {"guidance_scale": ("3", "5"), "seed": ("0", "1", "2")})
    result = spo_over_base(found)
    assert [cell.setting for cell in result.cells] == [{"guidance_scale": 3.0}, {"guidance_scale": 5.0}]
    assert "holds in 2 of 2 settings (3 seeds each)" in order_sentence(found.grid, result)
    seeds = next(effect for effect in result.axes if effect.axis == "seed")
    assert seeds.sd == pytest.approx(1.0, abs=0.2)
    (rows,) = [
        table.changes
        for table in grid_view(found, compare_grid(found, metrics=[METRIC])).tables
        if table.facts.name == METRIC
    ]
    assert any(row.label == "sd over 3 seeds" for row in rows)


def test_prompts_of_a_group_count_as_one(tmp_path):
    alone = make_grid_runs(tmp_path, prompts=8)
    grouped = [replace(p, group=f"g{number // 4}") for number, p in enumerate(alone.grid.suite.prompts)]
    found = make_grid_runs(tmp_path, prompts=grouped)
    result = spo_over_base(found)
    assert (result.prompts, result.groups) == (8, 2)
    assert all(effect.p >= 0.5 for effect in result.axes)  # two signs have no smaller p-value
    assert "groups of prompts" in result.cells[0].interval.method
    assert [c.mean for c in result.cells] == pytest.approx(
        [c.mean for c in one(compare_grid(alone), ("spo", "base")).cells]
    )


def test_a_prompt_without_a_score_somewhere_is_left_out_everywhere(tmp_path):
    found = make_grid_runs(tmp_path, prompts=6)
    first = found.runs[0]
    gone = first.info.suite.prompts[2].id
    scores = tuple(
        replace(s, value=None, reason="lost") if (s.variant, s.prompt_id) == ("spo", gone) else s for s in first.scores
    )
    found = found._replace(runs=(replace(first, scores=scores), *found.runs[1:]))
    result = spo_over_base(found)
    assert (result.prompts, result.missing) == (5, 4)
    kept = [prompt.id for prompt in found.grid.suite.prompts if prompt.id != gone]
    expected = [np.mean([prompt_difference(run, ("spo", "base"), p) for p in kept]) for run in found.runs]
    assert [cell.mean for cell in result.cells] == pytest.approx(expected)
    assert one(compare_grid(found), ("dpo", "base")).prompts == 6


def test_a_grid_that_is_not_finished_says_so_and_has_no_effects_of_axes(tmp_path):
    found = make_grid_runs(tmp_path)
    found = found._replace(runs=(*found.runs[:3], None))
    differences = compare_grid(found)
    assert len(one(differences, ("spo", "base")).cells) == 3
    assert one(differences, ("spo", "base")).axes == ()
    assert any("1 of 4 runs is missing" in banner for banner in grid_view(found, differences).banners)
    with pytest.raises(InvalidError, match="no run of this grid has been begun"):
        compare_grid(found._replace(runs=(None,) * 4))


def test_one_prompt_has_means_and_no_intervals(tmp_path):
    result = one(compare_grid(make_grid_runs(tmp_path, shifted(lambda setting: LIKED), prompts=1)), ("spo", "base"))
    assert {cell.interval for cell in result.cells} == {None}
    assert (result.winner, result.axes[0].p, result.axes[0].p_holm) == (None, None, None)


def test_runs_of_other_weights_or_versions_are_refused_with_each_difference(tmp_path):
    found = make_grid_runs(tmp_path)
    other = found.runs[1].info
    prints = tuple(replace(f, digest="0" * 64) if f.name == "spo" else f for f in other.variants)
    facts = tuple(replace(f, version="2") if f.name == "mini-clip" else f for f in other.metrics)
    runs = list(found.runs)
    runs[1] = replace(runs[1], info=replace(other, variants=prints, metrics=facts))
    with pytest.raises(IncomparableError) as refused:
        compare_grid(found._replace(runs=tuple(runs)))
    assert "variant spo has other weights at guidance scale 3, dpmpp_2m" in str(refused.value)
    assert "metric mini-clip is version 1 at guidance scale 3, ddim and 2 at" in str(refused.value)


def test_names_that_are_not_there_are_refused(tmp_path):
    found = make_grid_runs(tmp_path, prompts=2)
    with pytest.raises(UsageError, match=r"no metric 'mini-clap'.*did you mean 'mini-clip'"):
        compare_grid(found, metrics=["mini-clap"])
    with pytest.raises(UsageError, match="no variant 'spoo'"):
        compare_grid(found, pairs=[("spoo", "base")])
    with pytest.raises(UsageError, match="compared with itself"):
        compare_grid(found, pairs=[("spo", "spo")])


def test_candidates_are_compared_in_pairs_unless_they_are_many(tmp_path):
    suite = make_grid_runs(tmp_path, prompts=1).grid.suite
    assert grid_pairs(suite) == (("dpo", "base"), ("spo", "base"), ("spo", "dpo"))
    many = [replace(suite.variants[0], name=f"v{number}") for number in range(6)]
    assert len(grid_pairs(replace(suite, variants=tuple(many)))) == 5


def test_the_null_of_no_interaction_is_rejected_as_often_as_it_says(tmp_path: Path):
    """Noise alone, 8 metrics x 3 pairs x 2 axes in a grid: about one in twenty unadjusted p-values is below 0.05."""
    found = [compare_grid(make_grid_runs(tmp_path / str(n), prompts=10 + n)) for n in range(2)]
    p_values = [effect.p for differences in found for each in differences for effect in each.axes]
    assert len(p_values) > 80
    assert np.mean(np.array(p_values) <= 0.05) < 0.12
    assert 0.35 < np.mean(p_values) < 0.65


def test_metrics_without_a_number_of_a_prompt_are_named_and_refused(tmp_path):
    found = make_grid_runs(tmp_path, prompts=6)
    runs = []
    for run in found.runs:
        of_tags = replace(run.info.metrics[0], name="of-tags", over="tag")
        runs.append(replace(run, info=replace(run.info, metrics=(*run.info.metrics, of_tags))))
    found = found._replace(runs=tuple(runs))
    notes = grid_view(found, compare_grid(found)).notes
    assert "Not compared, since they have no number of a prompt: of-tags; each run shows them." in notes
    with pytest.raises(UsageError, match="of-tags has no number of a prompt"):
        compare_grid(found, metrics=["of-tags"])
