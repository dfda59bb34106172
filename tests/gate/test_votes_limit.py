"""The limit on votes: judged once people voted on both sides, with a note before."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace
from vote_runs import careful, cast, make_voted, newest_ballot, undecided, write_file

from bench.baseline import freeze, read_baseline, write_baseline
from bench.compare.votes import FACTS
from bench.errors import UsageError
from bench.gate import check_limits, like_named
from bench.records import Acceptance, Baseline, Run
from bench.store import RunFolder, load_run
from bench.suite.limits import check_metric_limit, parse_limit, parse_limits
from bench.votes.read import add_votes


def voted(folder: Path, answers, limits=None, **changes: object) -> Run:
    folder.mkdir()
    run, _ = make_voted(folder, **{"variants": ("base", "spo"), "samples": 1, **changes})
    ballot = newest_ballot(run)
    files = [
        write_file(cast(ballot, f"{number:024x}", answer), folder / f"{number}.json")
        for number, answer in enumerate(answers)
    ]
    if files:
        with RunFolder.reopen(run) as opened:
            add_votes(opened, files)
    found = load_run(run)
    suite = replace(found.info.suite, limits=parse_limits(limits or {"votes": "0.05", "mini-clip": "1sd"}))
    return replace(found, info=replace(found.info, suite=suite))


def loses(pair, rng):
    """Likes base better."""
    answer = careful(pair, rng)
    return {"a": "b", "b": "a"}.get(answer, answer) if pair.kind == "pair" else answer


def gate(candidate: Baseline, reference: Baseline, pairs=None, *, same: bool = False):
    return check_limits(
        candidate,
        reference,
        pairs or like_named(candidate, reference),
        run="new",
        baseline="new" if same else "old",
        baseline_is_run=same,
        time="2026-01-01T00:00:00+00:00",
    )


def of_votes(found):
    return [one for one in found.verdicts if one.name == "votes"]


def test_without_votes_a_note_says_how_to_get_some(tmp_path):
    frozen = freeze(voted(tmp_path / "a", []))
    found = gate(frozen, frozen, [("spo", "base")], same=True)
    assert of_votes(found) == []
    assert any("The limit on votes is not judged yet: nobody voted on new" in note for note in found.notes)
    assert any("hotart-bench vote make new -o DIR" in note for note in found.notes)
    assert found.outcome == "pass", "the other limits decide"


@pytest.mark.parametrize(("answer", "outcome"), [(careful, "pass"), (loses, "fail")])
def test_within_a_run_a_variant_is_judged_by_its_share_against_half(tmp_path, answer, outcome):
    frozen = freeze(voted(tmp_path / "a", [answer] * 8))
    (verdict,) = of_votes(gate(frozen, frozen, [("spo", "base")], same=True))
    assert verdict.outcome == outcome
    assert verdict.reference_mean == 0.5
    assert verdict.loss == pytest.approx(-0.5 if outcome == "pass" else 0.5)
    assert verdict.training_overlap == "none"
    assert "for these voters only" not in verdict.sentence


def test_few_voters_are_said_in_the_sentence(tmp_path):
    frozen = freeze(voted(tmp_path / "a", [careful] * 3))
    (verdict,) = of_votes(gate(frozen, frozen, [("spo", "base")], same=True))
    assert verdict.sentence.endswith("With fewer than 8 voters this is for these voters only.")


def test_between_releases_shares_against_the_first_variant_are_compared(tmp_path):
    old = freeze(voted(tmp_path / "old", [careful] * 8))
    new = freeze(voted(tmp_path / "new", [undecided] * 8, seed=1))
    (verdict,) = of_votes(gate(new, old))
    assert (verdict.candidate, verdict.reference, verdict.reference_mean) == ("spo", "spo", 1.0)
    assert verdict.outcome == "fail"
    assert 0.3 < verdict.loss < 0.7
    finding = next(one for one in gate(new, old).findings if one.candidate == "spo")
    assert next(one.reads for one in finding.metrics if one.metric == "votes") == "price"


def test_voters_that_differ_widen_the_interval_of_a_gate(tmp_path):
    frozen = freeze(voted(tmp_path / "a", [*[careful] * 6, *[loses] * 6]))
    (verdict,) = of_votes(gate(frozen, frozen, [("spo", "base")], same=True))
    assert verdict.loss == pytest.approx(0)
    assert verdict.outcome == "inconclusive"
    assert verdict.interval.high - verdict.interval.low > 0.4, "half of the voters say one thing, half the other"


def test_a_baseline_file_keeps_the_votes(tmp_path):
    old = freeze(
        voted(tmp_path / "old", [undecided] * 9), acceptance=Acceptance(by="Ada", time="2026-01-01T00:00:00+00:00")
    )
    write_baseline(old, tmp_path / "baseline.json")
    read = read_baseline(tmp_path / "baseline.json")
    assert replace(read, checksum="") == old
    (base, spo) = read.variants
    assert base.votes is None
    assert set(base.values["votes"]) == {0.5}
    assert spo.votes.voters == 9


def test_a_side_without_votes_is_named(tmp_path):
    old = freeze(voted(tmp_path / "old", []))
    new = freeze(voted(tmp_path / "new", [careful], seed=1))
    found = gate(new, old)
    assert of_votes(found) == []
    assert any("nobody voted on old" in note for note in found.notes)


def test_prompts_that_nobody_voted_on_are_left_out(tmp_path):
    run = voted(tmp_path / "a", [careful] * 2)
    some = replace(run, votes=tuple(vote for vote in run.votes if vote.prompt_id != "case-000"))
    (verdict,) = of_votes(gate(freeze(some), freeze(some), [("spo", "base")], same=True))
    assert (verdict.n, verdict.outcome) == (11, "pass")


@pytest.mark.parametrize("text", ["0.1sd", "5%", "+0.05", "-0.05", "+-0.05", "0.5", "0.05 floor 0.01"])
def test_a_limit_of_another_form_is_refused(text):
    with pytest.raises(UsageError, match="the share of people's votes that may be lost"):
        parse_limit("votes", text)


def test_a_limit_on_votes_fits_what_votes_are():
    check_metric_limit(parse_limit("votes", "0.05"), FACTS)
