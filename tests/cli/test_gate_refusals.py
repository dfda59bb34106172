"""What ``gate`` refuses, and what it must never let pass."""

import math

import msgspec
import pytest
from fakes import make_run, write_run
from gate_runs import LIMITS, make_folder
from msgspec.structs import replace

from bench.store import read_gate
from bench.suite.limits import parse_limit, parse_limits

REFUSED = {
    # what is wrong: (arguments, exit code, words on stderr)
    "no baseline at all": (("same",), 2, "with --candidate and --reference"),
    "one variant of one run": (("same", "--candidate", "spo"), 2, "with --candidate and --reference"),
    "a missing baseline": (("same", "--baseline", "none.json"), 2, "hotart-bench baseline RUN -o none.json"),
    "a missing run": (("none", "--baseline", "old.json"), 2, "there is no run here"),
    "the same folder": (("same", "--baseline", "same"), 2, "--candidate and --reference"),
    "the same folder by another name": (("same", "--baseline", "./same/run.json"), 2, "--candidate and --reference"),
    "its own frozen file": (("old", "--baseline", "old.json"), 2, "base would be gated against itself"),
    "itself in one run": (("same", "--candidate", "spo", "--reference", "spo"), 2, "spo would be gated against itself"),
    "an unknown candidate": (("same", "--baseline", "old.json", "--candidate", "sop"), 2, "did you mean 'spo'"),
    "an unknown reference": (("same", "--baseline", "old.json", "--reference", "bsae"), 2, "did you mean 'base'"),
    "an unknown mode": (("same", "--baseline", "old.json", "--inconclusive", "wran"), 2, "did you mean 'warn'"),
    "another protocol": (("weak", "--baseline", "old.json"), 4, "28 prompts"),
    "a folder without a run": (("same", "--baseline", "."), 2, "there is no run here"),
    "writing over the baseline": (("same", "--baseline", "old.json", "--json", "./old.json"), 2, "--baseline names"),
    "one file for two": (("same", "--baseline", "old.json", "--junit", "g", "--summary", "g"), 2, "--junit names"),
}


@pytest.mark.parametrize("prompt_id", REFUSED)
def test_what_cannot_be_gated(prompt_id, here, cli):
    arguments, code, words = REFUSED[prompt_id]
    (here / "same" / "gate.json").unlink(missing_ok=True)
    answer = cli("gate", *arguments)
    assert answer.code == code, answer.err
    assert words in answer.err
    assert answer.out == ""
    assert not (here / "same" / "gate.json").exists()


def changed(run, **suite):
    return replace(run, info=replace(run.info, suite=replace(run.info.suite, **suite)))


def limit(text, **fields):
    return replace(parse_limit("mini-clip", "0.1"), text=text, **fields)


BAD_RUNS = {
    # what is wrong: (how the candidate differs, how the baseline does, exit code, words)
    "a limited run": ({"limit": 12}, {}, 2, "only the first 12 prompts"),
    "no limits": ({}, {"limits": ()}, 2, "[limits]"),
    "a negative limit": ({}, {"limits": [limit("-0.1", amount=-0.1)]}, 5, "limits[0].amount"),
    "a NaN limit": ({}, {"limits": [limit("nan", amount=math.nan)]}, 5, "limits[0].amount"),
    "an unknown metric's limit": ({}, {"limits": parse_limits({"mini-cilp": "0.1sd"})}, 5, "mini-cilp"),
    "a unit that does not fit": ({}, {"limits": [limit("20ms", kind="time")]}, 5, "limits[0].kind"),
}


@pytest.mark.parametrize("prompt_id", BAD_RUNS)
def test_runs_and_limits_that_make_no_sense(prompt_id, cli, tmp_path):
    ours, theirs, code, words = BAD_RUNS[prompt_id]
    for name, seed, fields in (("new", 1, ours), ("old", 0, theirs)):
        run = changed(
            make_run("fake", variants=("base", "spo"), seed=seed), **{"limits": parse_limits(LIMITS), **fields}
        )
        write_run(replace(run, renders=()), tmp_path / name)
    answer = cli("gate", tmp_path / "new", "--baseline", tmp_path / "old")
    assert answer.code == code, answer.err
    assert words in answer.err + answer.out
    assert code != 2 or answer.out == ""


def scored(run, value):
    """The run with its scores made by ``value(score, number)``."""
    return replace(run, scores=tuple(replace(one, value=value(one, n)) for n, one in enumerate(run.scores)))


def by_variant(run, digest):
    """The run with other weights of spo."""
    base, spo = run.info.variants
    return replace(run, info=replace(run.info, variants=(base, replace(spo, digest=digest))))


NOT_GREEN = {
    # what the candidate's scores are like: (prompts, how a score is made)
    "one prompt": (1, lambda score, n: score.value),
    "constant scores": (12, lambda score, n: 0.5),
    "a loss of everything": (12, lambda score, n: -1.0),
    "a score that is missing": (12, lambda score, n: None if n == 40 else score.value),
}


@pytest.mark.parametrize("prompt_id", NOT_GREEN)
def test_never_green_by_accident(prompt_id, cli, tmp_path):
    prompts, value = NOT_GREEN[prompt_id]
    old = changed(
        make_run("fake", prompts=prompts, variants=("base", "spo")), limits=parse_limits({"mini-clip": "0.01sd"})
    )
    new = changed(
        make_run("fake", prompts=prompts, variants=("base", "spo"), seed=1),
        limits=parse_limits({"mini-clip": "0.01sd"}),
    )
    old = scored(old, lambda score, n: 0.5) if prompt_id == "constant scores" else old
    for name, run in (("old", old), ("new", by_variant(scored(new, value), "f" * 64))):
        write_run(replace(run, renders=()), tmp_path / name)
    answer = cli("gate", tmp_path / "new", "--baseline", tmp_path / "old", "--candidate", "spo")
    assert answer.code in (1, 5), answer.out
    assert read_gate(tmp_path / "new").outcome != "pass"


def test_one_sample_a_prompt_and_a_run_of_no_prompt_in_common(cli, tmp_path):
    make_folder(tmp_path / "old", samples=1)
    make_folder(tmp_path / "new", samples=1, seed=1)
    make_folder(tmp_path / "two", samples=2, seed=1)
    assert cli("gate", tmp_path / "new", "--baseline", tmp_path / "old").code == 0
    answer = cli("gate", tmp_path / "two", "--baseline", tmp_path / "old")
    assert answer.code == 4
    assert "samples is 2 in" in answer.err


def test_timings_of_another_machine_are_refused_and_quality_alone_is_not(cli, tmp_path):
    limits = {"mini-clip": "0.5sd", "end_to_end": "5% floor 20ms"}
    make_folder(tmp_path / "old", limits)
    new = make_folder(tmp_path / "new", limits, seed=1)
    card = msgspec.json.decode((new / "run.json").read_bytes())
    card["machine"]["device_name"] = card["machine"]["cpu"] = "Another CPU"
    (new / "run.json").write_bytes(msgspec.json.encode(card))
    answer = cli("gate", new, "--baseline", tmp_path / "old")
    assert answer.code == 4
    assert "Another CPU" in answer.err
    answer = cli("gate", new, "--baseline", tmp_path / "old", "--other-machine")
    assert answer.code == 0
    assert "end_to_end" in answer.out


def test_timings_without_calibrated_noise_never_pass_across_runs(cli, tmp_path):
    make_folder(tmp_path / "old", {"end_to_end": "50%"})
    make_folder(tmp_path / "new", {"end_to_end": "50%"}, seed=1)
    answer = cli("gate", tmp_path / "new", "--baseline", tmp_path / "old")
    assert answer.code == 5
    assert "calibrate" in answer.out
