"""Whole gates on frozen fake runs: which verdicts there are, what is refused, what is noted."""

from __future__ import annotations

import pytest
from fakes import make_run, with_facts
from msgspec.structs import replace

from bench.baseline import freeze
from bench.errors import IncomparableError, UsageError
from bench.gate import check_limits, like_named
from bench.records import SCHEMA, SessionNoise
from bench.suite.limits import parse_limits

LIMITS = {"mini-clip": "0.5sd", "mini-aesthetic": "0.3"}
NOISE = (SessionNoise(name="end_to_end", sd_log_ratio=0.01, sessions=4),)
WHERE = {
    "run": "reports/runs/mini",
    "baseline": "b.json",
    "baseline_is_run": False,
    "time": "2025-01-01T00:00:00+00:00",
}


def side(seed=0, *, limits=LIMITS, prompts=40, noise=NOISE, **options):
    run = make_run("r", prompts=prompts, seed=seed, **options)
    suite = replace(run.info.suite, limits=parse_limits(limits))
    return freeze(replace(run, info=replace(run.info, suite=suite)), session_noise=noise)


def gate(candidate, reference, pairs=None, **changes):
    return check_limits(candidate, reference, pairs or like_named(candidate, reference), **{**WHERE, **changes})


def of(found, name, candidate="spo"):
    (verdict,) = (one for one in found.verdicts if (one.name, one.candidate) == (name, candidate))
    return verdict


def with_weights(frozen, name):
    """The same numbers under other weights."""
    variants = tuple(
        replace(one, fingerprint=replace(one.fingerprint, digest="f" * 64)) if one.fingerprint.name == name else one
        for one in frozen.variants
    )
    return replace(frozen, variants=variants)


def test_every_limit_of_every_like_named_variant_has_a_verdict():
    found = gate(side(1), side())
    assert [(one.candidate, one.reference, one.name) for one in found.verdicts] == [
        (name, name, metric) for name in ("base", "dpo", "spo") for metric in LIMITS
    ]
    assert (found.schema, found.outcome, found.run, found.run_id, found.baseline, found.baseline_id) == (
        SCHEMA, "pass", "reports/runs/mini", "fake-0001", "b.json", "fake-0000",
    )  # fmt: skip
    assert all(one.equal_weights for one in found.verdicts)


def test_a_planted_loss_fails_where_it_was_planted_and_nowhere_else():
    effect = {"dpo": {"mini-aesthetic": 0.3}, "spo": {"mini-aesthetic": 0.62 - 0.8}}
    found = gate(with_weights(side(1, effect=effect), "spo"), side())
    assert found.outcome == "fail"
    assert [(one.candidate, one.name) for one in found.verdicts if one.outcome != "pass"] == [("spo", "mini-aesthetic")]
    assert of(found, "mini-aesthetic").loss == pytest.approx(0.8, abs=0.1)


def test_other_weights_that_changed_no_score_are_noted():
    note = "No score changed on any gated metric, although the weights differ: spo."
    assert any(note in one for one in gate(with_weights(side(), "spo"), side()).notes)
    assert not any("No score changed" in one for one in gate(with_weights(side(1), "spo"), side()).notes)
    assert not any("No score changed" in one for one in gate(side(), side()).notes)


def test_the_values_of_a_case_meet_those_of_the_same_case():
    found = gate(side(1), side())
    worst = of(found, "mini-clip").worst[0]
    at = list(side().prompts).index(worst.prompt_id)
    assert worst.reference == side().variants[2].values["mini-clip"][at]
    assert worst.candidate == side(1).variants[2].values["mini-clip"][at]


def test_two_variants_of_one_run():
    one = side()
    found = gate(one, one, [("base", "spo"), ("spo", "base")], baseline="reports/runs/mini", baseline_is_run=True)
    assert [verdict.outcome for verdict in found.verdicts] == ["pass", "fail", "pass", "pass"]
    assert any("dpo of reports/runs/mini" in note for note in found.notes)
    few = side(limits={"mini-clip": "0.5sd"})
    notes = gate(few, few, [("spo", "base")], baseline="reports/runs/mini", baseline_is_run=True).notes
    assert any("since the suite has no limit on them: mini-aesthetic, mini-preference" in note for note in notes)
    assert not any("baseline" in note for note in notes)
    with pytest.raises(UsageError, match="'spo' cannot be its own reference"):
        gate(one, one, [("spo", "spo")], baseline_is_run=True)


def test_the_worst_outcome_is_that_of_the_gate():
    failed = {("spo", "case-003", 1)}
    effect = {"dpo": {"mini-aesthetic": -2.0}}
    found = gate(side(1, effect=effect, failed=failed), side())
    assert {one.outcome for one in found.verdicts} >= {"pass", "fail", "invalid"}
    assert found.outcome == "invalid"
    assert "lacks scores of 1 prompt of 40 (case-003)" in of(found, "mini-clip").sentence
    few = gate(side(1, prompts=6), side(prompts=6))
    assert few.outcome == "inconclusive"


def test_what_is_missing_is_invalid():
    reference = side()
    lacking = side(1, variants=("base", "spo"))
    found = gate(lacking, reference)
    assert {one.outcome for one in found.verdicts if one.candidate == "dpo"} == {"invalid"}
    assert "has no variant dpo" in of(found, "mini-clip", "dpo").sentence
    unscored = side(1)
    bare = tuple(replace(one, values={"mini-clip": one.values["mini-clip"]}) for one in unscored.variants)
    found = gate(replace(unscored, variants=bare), reference)
    assert of(found, "mini-clip").outcome == "pass"
    assert "hotart-bench score reports/runs/mini" in of(found, "mini-aesthetic").sentence
    found = gate(unscored, replace(reference, variants=bare))
    assert (found.outcome, of(found, "mini-aesthetic").outcome) == ("invalid", "invalid")


def test_a_new_variant_is_a_note():
    found = gate(side(1), side(variants=("base", "spo")))
    assert found.outcome == "pass"
    assert "Not checked, since no pair names them: dpo of reports/runs/mini." in found.notes


def test_the_baselines_limits_count_and_others_are_a_note():
    found = gate(side(1, limits={"mini-clip": "9sd", "mini-preference": "1"}), side(limits={"mini-clip": "0.5sd"}))
    assert {one.limit.text for one in found.verdicts} == {"0.5sd"}
    (note,) = (note for note in found.notes if note.startswith("Checked by the baseline's limits"))
    assert "mini-clip is 0.5sd there and 9sd here" in note
    assert "mini-preference is not limited there and 1 here" in note
    assert any("the baseline has no limit on them: mini-aesthetic, mini-preference" in note for note in found.notes)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({}, "has no limits"),
        ({"saturation": "0.1"}, "only describes"),
        ({"ssim-to-base": "0.1"}, "a distance to the reference"),
        ({"mini-clip": "2%"}, "does not mean none"),
    ],
)
def test_limits_that_make_no_sense_are_refused(limits, words):
    with pytest.raises(UsageError, match=words) as caught:
        gate(side(1), side(limits=limits))
    assert caught.value.message.startswith("b.json: ")


@pytest.mark.parametrize(
    ("pairs", "words"),
    [([("spo", "bsae")], "no variant 'bsae'.*did you mean 'base'"), ([("spo", "x")], "it has base, dpo, spo")],
)
def test_a_reference_that_is_not_there_is_refused(pairs, words):
    with pytest.raises(UsageError, match=words):
        gate(side(1), side(), pairs)
    with pytest.raises(UsageError, match="no variant to check"):
        check_limits(side(1), side(), [], **WHERE)


def test_another_protocol_is_refused_with_all_that_differs():
    reference = side()
    first, second, *rest = reference.prompts.items()
    prompts = dict([(first[0], "0" * 12), *rest, second, ("new-case", "0" * 12)])
    other = replace(
        reference,
        protocol_digest="e" * 64,
        settings=replace(reference.settings, steps=30),
        seed=7,
        prompts=prompts,
        metrics=tuple(replace(one, version="2") if one.name == "mini-clip" else one for one in reference.metrics),
    )
    with pytest.raises(IncomparableError) as caught:
        gate(other, reference)
    for words in (
        "seed is 7 in reports/runs/mini and 0 in b.json", "settings.steps is 30", "1 prompt only in reports/runs/mini",
        "1 prompt with another text or negative prompt (case-000)", "in another order",
        "metric mini-clip is version 2 in",
    ):  # fmt: skip
        assert words in caught.value.message
    with pytest.raises(IncomparableError, match="the protocol digest is eeeeeeeeeeee in"):
        gate(replace(reference, protocol_digest="e" * 64), reference)


def test_another_version_matters_where_the_metric_is_gated():
    reference = side()

    def newer(name):
        facts = tuple(replace(one, version="2") if one.name == name else one for one in reference.metrics)
        return replace(side(1), metrics=facts)

    assert gate(newer("sharpness"), reference).outcome == "pass"
    with pytest.raises(IncomparableError, match="metric mini-aesthetic is version 2 in reports/runs/mini and 1 in b"):
        gate(newer("mini-aesthetic"), reference)


# --- timings -------------------------------------------------------------------------------

TIMED = {"mini-clip": "0.5sd", "end_to_end": "30%"}


def test_timings_across_sessions_use_the_baselines_noise():
    found = gate(side(1, limits=TIMED, noise=()), side(limits=TIMED))
    verdict = of(found, "end_to_end")
    assert (verdict.kind, verdict.unit, verdict.n, verdict.samples) == ("timing", "second", 2, 5)
    assert "sessions" in verdict.interval.method
    bare = of(gate(side(1, limits=TIMED), side(limits=TIMED, noise=())), "end_to_end")
    assert bare.outcome == "inconclusive"
    assert "calibrate" in bare.sentence


def test_timings_within_a_run_are_paired_and_a_folder_rendered_anew_is_another_session():
    one = side(limits=TIMED)
    within = gate(one, one, [("spo", "base")], baseline_is_run=True)
    assert of(within, "end_to_end").interval.method == "t over rounds, paired"
    again = replace(side(1, limits=TIMED), run_id=one.run_id)
    assert "Welch" in of(gate(again, one, [("spo", "base")], baseline_is_run=True), "end_to_end").interval.method
    assert "Welch" in of(gate(again, one), "end_to_end").interval.method


def test_machine_differences_are_refused_with_all_facts_and_compared_by_quality_alone():
    other = side(1, limits=TIMED)
    machine = replace(other.machine, cpu="Another CPU", cores=8, memory_bytes=64 * 2**30, os="Linux 6.9")
    other = replace(other, machine=machine, packages={**other.packages, "torch": "2.9.0", "pillow": "1"})
    with pytest.raises(IncomparableError) as caught:
        gate(other, side(limits=TIMED))
    for words in ("the CPU is Another CPU", "the number of cores is 8", "the memory in GiB is 64", "torch is 2.9.0"):
        assert words in caught.value.message
    assert "Linux" not in caught.value.message
    assert "--other-machine" in caught.value.hint
    found = gate(other, side(limits=TIMED), quality_only=True)
    assert {one.name for one in found.verdicts} == {"mini-clip"}
    assert "Quality only (--other-machine): end_to_end not checked." in found.notes
    assert any("Another CPU" in note for note in found.notes)
    # Without a timed limit the machine does not stand in the way, and is told all the same.
    assert any("Another CPU" in note for note in gate(other, side()).notes)


def test_a_system_update_and_a_little_memory_are_no_other_machine():
    other = side(1, limits=TIMED)
    machine = replace(other.machine, os="Linux 6.9", memory_bytes=other.machine.memory_bytes + 4096)
    gate(replace(other, machine=machine), side(limits=TIMED))


def test_quality_only_needs_a_metric():
    limits = {"end_to_end": "5%", "load": "5%"}
    with pytest.raises(UsageError, match="nothing is left to check"):
        gate(side(1, limits=limits), side(limits=limits), quality_only=True)
    assert any("speed and memory only" in note for note in gate(side(1, limits=limits), side(limits=limits)).notes)


def test_timings_that_are_missing_are_invalid():
    reference = side(limits=TIMED)
    bare = tuple(replace(one, timings={}) for one in reference.variants)
    found = gate(replace(side(1, limits=TIMED), variants=bare), reference)
    assert of(found, "end_to_end").outcome == found.outcome == "invalid"
    assert "hotart-bench measure reports/runs/mini" in of(found, "end_to_end").sentence
    assert "b.json has no timings" in of(gate(side(1), replace(reference, variants=bare)), "end_to_end").sentence


@pytest.mark.parametrize("name", ["peak_allocated", "peak_process", "energy_per_image"])
def test_what_only_some_devices_have_is_a_note_elsewhere_and_missing_there(name):
    limits = {"mini-clip": "0.5sd", name: "3%"}
    found = gate(side(1, limits=limits), side(limits=limits))
    assert {one.name for one in found.verdicts} == {"mini-clip"}
    only = "CUDA and MPS" if name == "peak_allocated" else "CUDA"
    assert f"{name} was not checked: only {only} devices have it, and neither side ran on one." in found.notes
    cuda = [replace(one, machine=replace(one.machine, device="cuda:0")) for one in (side(1), side(limits=limits))]
    assert of(gate(*cuda), name).outcome == "invalid"


def test_every_quantity_has_its_unit():
    limits = {"mini-clip": "0.5sd", "end_to_end": "30%", "peak_rss": "30%", "energy_per_image": "30%"}
    sides = [side(seed, limits=limits) for seed in (1, 0)]
    found = gate(*(replace(one, machine=replace(one.machine, device="cuda:0")) for one in sides))
    units = {one.name: one.unit for one in found.verdicts}
    assert units == {"mini-clip": "cosine", "end_to_end": "second", "peak_rss": "byte", "energy_per_image": "joule"}


def test_a_gate_without_a_verdict_is_not_green():
    limits = {"peak_allocated": "3%"}
    found = gate(side(1, limits=limits), side(limits=limits))
    assert (found.verdicts, found.outcome) == ((), "invalid")


def test_a_baseline_of_the_very_run_is_told():
    assert any("this very run" in note for note in gate(side(), side()).notes)


def test_a_metric_of_faces_is_checked_on_the_prompts_that_ask_for_faces():
    """Half of the fake run's prompts are tagged landscape: on these the metric has no scores, on either side."""
    sides = []
    for seed in (1, 0):
        run = with_facts(make_run("r", prompts=40, seed=seed), "mini-clip", prompts="faces")
        landscapes = {prompt.id for prompt in run.info.suite.prompts if "landscape" in prompt.tags}
        scores = tuple(
            replace(one, value=None, reason="none asked")
            if one.metric == "mini-clip" and one.prompt_id in landscapes
            else one
            for one in run.scores
        )
        suite = replace(run.info.suite, limits=parse_limits({"mini-clip": "0.5sd"}))
        sides.append(freeze(replace(run, scores=scores, info=replace(run.info, suite=suite)), session_noise=NOISE))
    verdict = of(gate(*sides, prompts=run.info.suite.prompts), "mini-clip")
    assert (verdict.n, verdict.outcome) == (20, "pass")
    assert not {one.prompt_id for one in verdict.worst} & landscapes
    untagged = of(gate(*sides), "mini-clip")
    assert untagged.outcome == "invalid"
    assert "there is no prompt" in untagged.sentence
