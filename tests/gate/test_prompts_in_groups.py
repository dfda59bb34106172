"""Prompts that are not independent: the group is the unit of gate, comparison, plan, calibration and ranking."""

from __future__ import annotations

import math

import numpy as np
import pytest
from fakes import make_run
from figures import gating
from msgspec.structs import replace

from bench.baseline import freeze
from bench.calibrate.noise import source_noise
from bench.compare import compare_run, metric_means, rank_variants
from bench.compare.pairing import PromptPair
from bench.compare.tags import tags_explain
from bench.errors import SuiteError
from bench.gate import check_limits, like_named
from bench.gate.check import new_check
from bench.gate.quality import FEW, MANY, check_metric
from bench.plan import plan_sizes
from bench.plan.pilot import variance_components, with_groups
from bench.records import Prompt
from bench.stats import group_units
from bench.suite import load_suite, protocol_digest
from bench.suite.limits import parse_limits
from bench.suite.prompt_files import read_prompts

FACTS = make_run("", prompts=1).info.metrics[0]
WHERE = {"run": "new", "baseline": "old", "baseline_is_run": False, "time": ""}


def in_groups(run, size):
    """The run with its prompts in groups of ``size``, one after another; singles stay without a group."""
    prompts = run.info.suite.prompts
    named = tuple(replace(one, group=f"g{at // size}" if size > 1 else "") for at, one in enumerate(prompts))
    return replace(run, info=replace(run.info, suite=replace(run.info.suite, prompts=named)))


def limited(run, limits):
    return replace(run, info=replace(run.info, suite=replace(run.info.suite, limits=parse_limits(limits))))


def verdict(losses, sizes=(), margin="0.25", samples=2):
    (limit,) = parse_limits({FACTS.name: margin})
    names = [f"g{at}" for at, size in enumerate(sizes) for _ in range(size)] or [""] * len(losses)
    prompts = [Prompt(id=f"p{at}", text="", group=name) for at, name in enumerate(names)]
    theirs = np.random.default_rng(9).normal(size=len(losses))
    sign = 1 if FACTS.higher_is_better else -1
    ours = theirs - sign * np.asarray(losses)
    check = new_check(limit, "spo", "base", unit="", samples=samples)
    return check_metric(check, replace(FACTS, low=None, high=None), prompts, ours.tolist(), theirs.tolist())


# --- where a group is written, and what it changes -------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.jsonl", '{"id": "a", "prompt": "a fox", "group": "fox"}\n{"id": "b", "prompt": "a red fox"}\n'),
        ("a.csv", "prompt,Group\na fox,fox\na red fox,\n"),
        ("a.tsv", "prompt\tgroup\na fox\tfox\na red fox\t\n"),
        ("a.json", '[{"prompt": "a fox", "group": "fox"}, {"prompt": "a red fox", "group": null}]'),
    ],
)
def test_a_prompt_file_may_name_groups(name, text, tmp_path):
    (tmp_path / name).write_text(text)
    first, second = read_prompts(tmp_path / name)
    assert (first.group, second.group) == ("fox", "")
    assert first.unit == ("group", "fox")
    assert second.unit == ("prompt", second.id)


def test_a_group_that_is_no_name_is_refused_and_a_blank_one_is_none(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('[{"prompt": "a fox", "group": ["fox"]}]')
    with pytest.raises(SuiteError, match="group is a list, not a text"):
        read_prompts(path)
    path.write_text('[{"prompt": "a fox", "group": 7}, {"prompt": "a dog", "group": "  "}]')
    assert [one.group for one in read_prompts(path)] == ["7", ""]
    own = tmp_path / "a.jsonl"
    own.write_text('{"id": "a", "prompt": "a fox", "group": " "}\n')
    assert read_prompts(own)[0].group == ""


def test_groups_are_no_part_of_the_protocol():
    run = make_run("", prompts=6)
    assert protocol_digest(in_groups(run, 3).info.suite) == run.info.protocol_digest


def test_groups_of_one_prompt_leave_every_result_as_it_is():
    run = limited(make_run("", prompts=24), {"mini-clip": "0.5sd"})
    prompts = tuple(replace(one, group=f"alone {one.id}") for one in run.info.suite.prompts)
    alone = replace(run, info=replace(run.info, suite=replace(run.info.suite, prompts=prompts)))
    plain = compare_run(run)
    assert [replace(one, tags_explain=None) for one in compare_run(alone)] == [
        replace(one, tags_explain=None) for one in plain
    ]
    assert metric_means(alone) == metric_means(run)
    assert rank_variants(alone) == rank_variants(run)
    assert plan_sizes(alone.info.suite, alone).metrics == plan_sizes(run.info.suite, run).metrics


# --- gate and comparison -----------------------------------------------------------------------


def test_copies_of_prompts_in_a_group_decide_no_more_than_the_prompts():
    losses = np.random.default_rng(1).normal(0.1, 0.5, size=30)
    alone, copied = verdict(losses), verdict(np.repeat(losses, 4), sizes=[4] * 30)
    assert (copied.n, copied.groups, copied.effective) == (120, 30, 30.0)
    assert (alone.groups, alone.effective) == (None, None)
    assert copied.interval.low == pytest.approx(alone.interval.low)
    assert copied.interval.high == pytest.approx(alone.interval.high)
    assert copied.detectable == pytest.approx(alone.detectable)
    assert "120 prompts in 30 groups" in copied.sentence
    if alone.needed is not None:
        assert copied.needed == pytest.approx(4 * alone.needed, abs=4)


def test_fewer_than_ten_groups_of_equal_worth_decide_nothing():
    losses = np.zeros(100) + np.random.default_rng(0).normal(0, 1e-3, size=100)
    assert verdict(losses).outcome == "pass"
    for sizes in ([20] * 5, [80, *[1] * 20]):
        found = verdict(losses, sizes=sizes)
        assert found.outcome == "inconclusive"
        assert "fewer than 10 groups of prompts of equal size decide nothing" in found.sentence
        assert found.needed > 100
    assert "100 prompts in 21 groups, worth 1.6 equal ones" in found.sentence


def test_at_the_margin_grouped_prompts_pass_as_rarely_as_they_should_once_they_are_named(monkeypatch):
    monkeypatch.setattr(gating, "GROUP_GATES", 600)
    row = gating.simulate_groups("normal", "20 of 5")
    assert row.named.gates == row.unnamed.gates == 600
    assert row.named.passes / 600 <= 0.08
    assert row.named.fails / 600 <= 0.08
    assert row.unnamed.passes / 600 >= 0.10


def test_the_candidates_suite_tells_the_gate_the_groups():
    old, new = (limited(make_run("", prompts=40, seed=seed), {"mini-clip": "0.5sd"}) for seed in (0, 1))
    sides = freeze(new), freeze(old)
    suite = in_groups(new, 5).info.suite

    def widths(prompts):
        found = check_limits(*sides, like_named(*sides), prompts=prompts, **WHERE)
        return [(one.groups, one.interval.high - one.interval.low) for one in found.verdicts]

    plain, grouped = widths(new.info.suite.prompts), widths(suite.prompts)
    assert {groups for groups, _ in plain} == {None}
    assert {groups for groups, _ in grouped} == {8}
    assert plain != grouped


def test_a_comparison_goes_by_groups_and_says_so():
    run = make_run("", prompts=60)
    plain, grouped = (compare_run(one, tags=False) for one in (run, in_groups(run, 6)))
    for one, other in zip(plain, grouped, strict=True):
        assert (one.groups, other.groups) == (None, 10)
        assert (one.mean, one.prompts, one.wins, one.d_z) == (other.mean, other.prompts, other.wins, other.d_z)
        assert other.interval.method == "BCa bootstrap over groups of prompts"
        assert other.small_sample is not None, "10 groups are few"
        assert other.p >= 2 * 0.5**10
    widths = [other.win_interval.high - other.win_interval.low for other in grouped]
    assert all(width >= one.win_interval.high - one.win_interval.low for width, one in zip(widths, plain, strict=True))
    assert {one.interval.method for one in metric_means(in_groups(run, 6))} == {"BCa bootstrap over groups of prompts"}
    assert [one.strengths for one in rank_variants(run)] != [one.strengths for one in rank_variants(in_groups(run, 6))]


# --- plan and calibration ----------------------------------------------------------------------


def test_the_part_of_groups_is_found_where_it_is():
    rng = np.random.default_rng(5)
    owners = [at // 5 for at in range(4000)]
    shared = rng.normal(0, 3, size=800)
    values = [rng.normal(rng.normal(shared[owner], 2), 4, size=3) for owner in owners]
    parts = with_groups(variance_components(values), values, owners)
    assert (parts.group_sd, parts.prompt_sd, parts.within_sd) == pytest.approx((3, 2, 4), rel=0.1)
    assert parts.sd_of_groups(2, 5.0) == pytest.approx(math.sqrt(9 + (4 + 16 / 2) / 5), rel=0.1)
    assert parts.sd_of_groups(2, 1) == parts.sd_of_means(2)


def test_a_plan_counts_groups():
    run = limited(make_run("", prompts=60), {"mini-clip": "0.1sd"})
    copied = in_groups(run, 5)
    plain, grouped = plan_sizes(run.info.suite, run), plan_sizes(copied.info.suite, copied)
    assert "fall into 12 groups, worth 12 of equal size" in " ".join(grouped.notes)
    assert not any("groups" in note for note in plain.notes)
    for one, other in zip(plain.metrics, grouped.metrics, strict=True):
        assert all(b.power_now <= a.power_now for a, b in zip(one.sizes, other.sizes, strict=True))
        assert {size.prompts % 5 for size in other.sizes} == {0}
    blind = plan_sizes(copied.info.suite, replace(run, info=replace(run.info, id="other")))
    assert blind.metrics == grouped.metrics, "the suite says what the pilot's prompts belong to"


def test_the_noise_of_a_calibration_goes_by_groups():
    rng = np.random.default_rng(2)
    alone = [
        PromptPair(Prompt(id=f"p{at}", text=""), 0.0, 0.0, value, 1) for at, value in enumerate(rng.normal(size=20))
    ]
    copied = [
        one._replace(prompt=Prompt(id=f"{one.prompt.id}-{copy}", text="", group=one.prompt.id))
        for one in alone
        for copy in range(6)
    ]
    few, many = source_noise("seed", [alone]), source_noise("seed", [copied])
    assert (few.prompts, many.prompts, few.unit_sd) == (20, 120, None)
    assert many.half_width == pytest.approx(few.half_width)
    assert many.unit_sd == pytest.approx(few.sd)


# --- tags that explain much --------------------------------------------------------------------


def tagged(groups=""):
    return [Prompt(id=f"p{at}", text="", tags=(f"t{at % 4}",), group=groups) for at in range(60)]


def test_tags_that_explain_much_are_told_and_noise_is_not():
    rng = np.random.default_rng(4)
    noise = rng.normal(size=60)
    much = noise + [2.0 * (at % 4 == 1) for at in range(60)]
    assert tags_explain(tagged(), much) == pytest.approx(0.4, abs=0.2)
    assert tags_explain(tagged("one"), much) is None, "groups are named already"
    alarms = sum(tags_explain(tagged(), rng.normal(size=60)) is not None for _ in range(300))
    assert alarms <= 2


def test_the_gate_notes_what_tags_explain():
    old, new = (limited(make_run("", prompts=60, seed=seed), {"mini-clip": "0.5sd"}) for seed in (0, 1))
    prompts = [replace(one, tags=(f"t{at % 3}",)) for at, one in enumerate(new.info.suite.prompts)]
    place = {one.id: at for at, one in enumerate(prompts)}
    moved = tuple(
        replace(one, value=one.value + 0.2 * (place[one.prompt_id] % 3 == 0)) if one.metric == "mini-clip" else one
        for one in new.scores
    )
    sides = freeze(replace(new, scores=moved)), freeze(old)
    found = check_limits(*sides, like_named(*sides), prompts=prompts, **WHERE)
    (note,) = (note for note in found.notes if note.startswith("Tags explain much"))
    assert "in mini-clip of base" in note
    assert "give them a group" in note
    assert all(one.tags_explain > 0.1 for one in found.verdicts)


# --- few or skewed prompts ---------------------------------------------------------------------


def test_a_verdict_on_few_prompts_says_how_often_such_a_gate_errs():
    small = 0.1 * np.random.default_rng(0).normal(size=FEW - 1)
    assert "With so few prompts, up to 13 % of models at exactly the limit pass" in verdict(small).sentence
    assert "at exactly the limit fail" in verdict(small + 1).sentence
    enough = 0.1 * np.random.default_rng(0).normal(size=FEW)
    assert "exactly the limit" not in verdict(enough).sentence
    assert "With so few groups of prompts" in verdict(np.repeat(small, 5), sizes=[5] * (FEW - 1)).sentence


def test_a_verdict_on_skewed_losses_says_so_until_there_are_many():
    long_tail = np.random.default_rng(1).exponential(0.05, size=4 * MANY)
    assert "The losses are skewed" in verdict(long_tail[: MANY - 1]).sentence
    assert "The losses are skewed" not in verdict(-long_tail[: MANY - 1]).sentence, "that side misleads nobody here"
    assert "The losses are skewed" in verdict(1 - long_tail[: MANY - 1]).sentence, "but here it fails too many"
    assert "skewed" not in verdict(long_tail[:MANY]).sentence
    assert group_units(long_tail[:MANY]).effective == MANY


def test_a_shipped_suite_names_no_group():
    assert {one.group for one in load_suite("mini").prompts} == {""}
