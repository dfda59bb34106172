"""What votes say of a run: whose count, shares, strengths, the metrics beside them, and the finding."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from msgspec.structs import replace
from vote_runs import careful, careless, cast, make_voted, newest_ballot, panel, undecided, write_file

from bench.compare import compare_run
from bench.compare.finding import find_in_run
from bench.compare.vote_tables import vote_notes, vote_tables, voter_table
from bench.compare.votes import counted_votes, judge_voters, labels, share_of_pair, vote_results
from bench.records import Run
from bench.report import html, markdown
from bench.report.page import build_view
from bench.store import RunFolder, load_run
from bench.suite.limits import parse_limits
from bench.votes.read import add_votes


def voted(folder: Path, answers, **changes: object) -> Run:
    """A run on which a voter for each answer voted on all pairs."""
    run, _ = make_voted(folder, **changes)
    ballot = newest_ballot(run)
    files = [
        write_file(cast(ballot, f"{number:024x}", answer, name=f"Voter {number}"), folder / f"{number}.json")
        for number, answer in enumerate(answers)
    ]
    with RunFolder.reopen(run) as opened:
        add_votes(opened, files)
    return load_run(run)


@pytest.fixture(scope="module")
def agreed(tmp_path_factory) -> Run:
    """Nine voters who all like spo better than dpo better than base."""
    return voted(tmp_path_factory.mktemp("agreed"), [careful] * 9)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> Run:
    """Eight voters without a taste, one who likes spo, one who takes broken pictures for better ones."""
    return voted(tmp_path_factory.mktemp("mixed"), [*[undecided] * 8, careful, careless])


def test_shares_count_wins_and_ties_by_half(mixed):
    results = vote_results(mixed)
    assert results is not None
    for one in results.pairs:
        votes = [
            vote for vote in counted_votes(mixed).votes if {vote.left, vote.right} == {one.candidate, one.reference}
        ]
        chosen = [{"left": vote.left, "right": vote.right}.get(vote.choice) for vote in votes]
        assert (one.wins, one.ties) == (chosen.count(one.candidate), chosen.count(None))
        assert one.wins + one.ties + one.losses == len(votes) == 24 * 9
        assert one.share == pytest.approx((one.wins + one.ties / 2) / len(votes)), "every prompt has as many votes"
        assert one.interval.low < one.share < one.interval.high
        assert one.interval.method == "t over prompts and voters"
    assert [(one.candidate, one.reference) for one in results.pairs] == [
        ("dpo", "base"),
        ("spo", "base"),
        ("spo", "dpo"),
    ]


def test_strengths_follow_the_votes(agreed):
    results = vote_results(agreed)
    assert results is not None
    assert [one.variant for one in results.strengths] == ["spo", "dpo", "base"]
    assert results.ceiling == 1
    assert results.pairs[1].share == 1
    assert results.pairs[1].interval.low > 0.8


def test_reasons_are_counted_for_what_was_chosen(mixed):
    found = {(one.variant, one.reason): one for one in vote_results(mixed).reasons}
    for (variant, reason), one in found.items():
        votes = [
            vote
            for vote in counted_votes(mixed).votes
            if {"left": vote.left, "right": vote.right}.get(vote.choice) == variant
        ]
        assert (one.votes, one.of) == (sum(reason in vote.why for vote in votes), len(votes))
    assert {reason for _, reason in found} == {"detail"}


def test_who_takes_broken_pictures_for_better_ones_is_kept_marked_and_left_out(mixed):
    bad = mixed.votes[-1].voter
    assert any(vote.voter == bad for vote in mixed.votes)
    found = counted_votes(mixed)
    assert bad not in {vote.voter for vote in found.votes}
    out = [one for one in found.voters if one.left_out]
    assert [one.label for one in out] == ["Voter 9"]
    assert out[0].left_out == "took a broken picture for as good or better in 2 of 2 pairs"
    assert "1 of 10 voters, by the rule" in "\n".join(vote_results(mixed).notes)


def test_one_slip_leaves_nobody_out_and_both_bad_is_no_slip(agreed):
    own = [vote for vote in agreed.votes if vote.voter == agreed.votes[0].voter]
    broken = [number for number, vote in enumerate(own) if vote.kind == "broken"]
    wrong = {number: replace(own[number], choice="tie") for number in broken[:1]}
    (slipped,) = judge_voters([wrong.get(number, vote) for number, vote in enumerate(own)])
    assert (slipped.broken_right, slipped.broken, slipped.left_out) == (1, 2, "")
    bad = {number: replace(own[number], choice="bad") for number in broken}
    (shy,) = judge_voters([bad.get(number, vote) for number, vote in enumerate(own)])
    assert (shy.broken, shy.left_out) == (0, "")


def test_controls_are_in_no_share(agreed):
    found = counted_votes(agreed)
    assert {vote.kind for vote in found.votes} == {"pair"}
    (first, *_) = found.voters
    assert (first.same, first.same_tied) == (2, 2)
    assert (first.repeated, first.repeated_alike) == (6, 6)


def test_votes_on_images_that_were_drawn_anew_do_not_count(agreed):
    renders = tuple(
        replace(one, sha256="0" * 64) if (one.variant, one.prompt_id) == ("spo", "case-000") else one
        for one in agreed.renders
    )
    run = replace(agreed, renders=renders)
    assert counted_votes(run).outdated == 2 * 2 * 9
    assert "36 votes on images that were drawn anew since" in "\n".join(vote_results(run).notes)


def test_both_bad_is_counted_by_itself(agreed):
    run = replace(agreed, votes=tuple(replace(vote, choice="bad") for vote in agreed.votes))
    results = vote_results(run)
    assert results.pairs == ()
    assert results.strengths == ()
    assert results.ceiling is None
    half = tuple(replace(vote, choice="bad") if vote.sample else vote for vote in agreed.votes)
    (_, one, _) = vote_results(replace(agreed, votes=half)).pairs
    assert (one.wins, one.bad, one.share) == (12 * 9, 12 * 9, 1)


def test_few_voters_speak_for_themselves(tmp_path):
    results = vote_results(voted(tmp_path, [undecided] * 3, prompts=6))
    assert results.these_only
    assert results.notes[0].startswith("3 voters: the intervals are for these voters only")
    assert {one.interval.method for one in results.pairs} == {"t over prompts, for these voters only"}


@pytest.mark.parametrize("side", ["left", "right"])
def test_first_votes_that_are_all_for_one_side_give_a_share_and_no_strengths(agreed, side):
    own = [one for one in agreed.votes if one.kind == "pair" and {one.left, one.right} == {"base", "spo"}]
    first = next(one for one in own if one.choice == side)
    second = next(one for one in own if one.choice == side and one.prompt_id != first.prompt_id)
    results = vote_results(replace(agreed, votes=(first, second)))
    assert (results.pairs[0].wins, results.strengths, results.left) == (2, (), None)


def test_votes_needed_are_fewer_for_a_wider_margin(mixed):
    fine, coarse = (vote_results(mixed, margin=margin).pairs[0].needed for margin in (0.02, 0.04))
    assert fine == pytest.approx(4 * coarse, abs=4)
    assert vote_results(mixed, margin=0.5).pairs[0].needed is None


def test_metrics_stand_beside_votes_with_what_knowing_nothing_reaches(agreed):
    """In the fake runs spo scores best in mini-aesthetic, as all voters say; pixels only describe."""
    found = {one.metric: one for one in vote_results(agreed).agreement}
    assert "saturation" not in found
    assert found["mini-aesthetic"].agreement > 0.9
    assert found["mini-aesthetic"].decided > found["mini-clip"].decided
    assert found["always the same answer"].agreement == 1, "who always says spo is right here, which says little"
    assert list(found)[-1] == "always the same answer"


def test_a_finding_counts_votes_as_free_of_overlap(agreed):
    (finding,) = find_in_run(agreed, [("spo", "base")])
    assert finding.word == "earned"
    (votes,) = [one for one in finding.metrics if one.metric == "votes"]
    assert (votes.training_overlap, votes.reads, votes.reference_mean) == ("none", "gain", 0.5)
    assert votes.mean == 0.5
    assert votes.interval.low > 0.2
    assert "10.0 of 10 votes won" in "\n".join(finding.sentences)
    without = replace(agreed, votes=())
    assert find_in_run(without, [("spo", "base")])[0].word == "bought"


def test_votes_that_are_lost_are_a_price(agreed):
    (finding,) = find_in_run(agreed, [("base", "spo")])
    (votes,) = [one for one in finding.metrics if one.metric == "votes"]
    assert (votes.reads, votes.limit, votes.own_limit) == ("price", "0.05", False)
    own = replace(agreed.info.suite, limits=parse_limits({"votes": "0.1"}))
    (finding,) = find_in_run(replace(agreed, info=replace(agreed.info, suite=own)), [("base", "spo")])
    (votes,) = [one for one in finding.metrics if one.metric == "votes"]
    assert (votes.limit, votes.own_limit) == ("0.1", True)


def test_few_prompts_are_not_read_in_a_finding(tmp_path):
    (finding,) = find_in_run(voted(tmp_path, [careful] * 2, prompts=6, samples=1), [("spo", "base")])
    (votes,) = [one for one in finding.metrics if one.metric == "votes"]
    assert votes.reads == "not read"
    assert "fewer than 10 prompts" in votes.reason


def test_pairs_that_nobody_voted_on_have_no_share(tmp_path):
    run = voted(tmp_path, [careful], prompts=3, samples=1, variants=("base", "spo"))
    assert share_of_pair(run, "spo", "base").share == 1
    assert share_of_pair(run, "spo", "dpo") is None
    assert vote_results(replace(run, votes=())) is None


def test_the_reports_show_votes_without_names_of_voters(mixed):
    view = build_view(mixed, compare_run(mixed, tags=False))
    page, note = html(view), markdown(view)
    for text in (page, note):
        assert "Metrics beside votes" in text
        assert "spo against base" in text
        assert "Voter 9" not in text
    assert 'id="votes"' in page
    bare = build_view(replace(mixed, votes=()), compare_run(mixed, tags=False))
    assert 'id="votes"' not in html(bare)


def test_tables_have_as_many_cells_as_headings(mixed):
    results = vote_results(mixed)
    for _, columns, rows in (voter_table(results), *vote_tables(results)):
        assert {len(row) for row in rows} == {len(columns)}
    assert any("threshold for a tie" in note for note in vote_notes(results))


def test_labels_are_as_long_as_tells_them_apart():
    assert labels({"abcdef01": "Ada", "abcdef02": "Ada", "12345678": "Ben"}) == {
        "abcdef01": "Ada (abcdef01)",
        "abcdef02": "Ada (abcdef02)",
        "12345678": "Ben",
    }
    assert labels({"abcdef01": ""}) == {"abcdef01": "no name (abcdef)"}
    assert labels({"abcdef01": "A\n::error::x\x1b"}) == {"abcdef01": "A ::error::x"}


def test_twenty_thousand_votes_are_counted_in_seconds(tmp_path):
    run, _ = make_voted(tmp_path, prompts=60, samples=1, variants=("base", "dpo", "spo"))
    files = panel(run, tmp_path / "files", 20)
    with RunFolder.reopen(run) as folder:
        add_votes(folder, files)
    few = load_run(run)
    many = tuple(replace(vote, voter=f"{copy:02x}{vote.voter[2:]}") for copy in range(5) for vote in few.votes)
    assert len(many) > 20_000
    start = time.perf_counter()
    results = vote_results(replace(few, votes=many))
    assert time.perf_counter() - start < 5
    assert len(results.voters) == 100
