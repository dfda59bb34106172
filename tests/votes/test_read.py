"""Files of votes -> the journal: voters told apart, nothing dropped in silence."""

from __future__ import annotations

import json
import time
from pathlib import Path

import msgspec
import pytest
from fake_gates import make_gate, make_verdict
from fakes import make_run, write_run
from msgspec.structs import replace
from vote_runs import careful, cast, make_voted, newest_ballot, panel, signed, write_file

from bench.errors import IncomparableError, InvalidError, UsageError
from bench.records import Limit, Vote
from bench.store import RunFolder, load_run, read_gate, write_gate
from bench.votes.read import Added, add_votes, check_of, read_votes


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_voted(tmp_path, prompts=4, samples=1, variants=("base", "spo"))[0]


def add(run: Path, *files: Path, edited: bool = False) -> Added:
    with RunFolder.reopen(run) as folder:
        return add_votes(folder, files, edited=edited)


def test_votes_are_kept_by_variants_and_sides(run, tmp_path):
    ballot = newest_ballot(run)
    file = cast(ballot, "ab" * 12, careful, name="Ada")
    added = add(run, write_file(file, tmp_path / "ada.json"))
    assert added == Added(len(ballot.pairs), 0, 0, ("Ada",), ())
    votes = {vote.pair: vote for vote in load_run(run).votes}
    images = {(one.variant, one.prompt_id, one.sample): one.sha256 for one in load_run(run).renders}
    for pair, one in zip(ballot.pairs, file.votes, strict=True):
        vote = votes[pair.id]
        shown = {"left": pair.a, "right": pair.b} if one.left == "a" else {"left": pair.b, "right": pair.a}
        assert (vote.left, vote.right) == (shown["left"].variant, shown["right"].variant)
        assert vote.left_sha256 == images[vote.left, vote.prompt_id, vote.sample]
        if one.choice in ("a", "b"):
            assert shown[vote.choice] == (pair.a if one.choice == "a" else pair.b)
        else:
            assert vote.choice == one.choice
        if pair.broken:
            assert shown[vote.broken] == (pair.a if pair.broken == "a" else pair.b)
            assert vote.choice != vote.broken
        assert vote.seconds == one.ms / 1000


def test_a_file_that_is_given_again_adds_what_is_new_and_what_changed(run, tmp_path):
    ballot = newest_ballot(run)
    whole = cast(ballot, "ab" * 12, name="Ada")
    half = signed(replace(whole, votes=whole.votes[:5]))
    assert add(run, write_file(half, tmp_path / "half.json")).new == 5
    later = replace(whole.votes[0], choice="bad", at="2026-02-01T00:00:00.000Z")
    more = signed(replace(whole, votes=(later, *whole.votes[1:])))
    rest = len(whole.votes) - 5
    assert add(run, write_file(more, tmp_path / "more.json"))[:3] == (rest, 1, 4)
    assert add(run, tmp_path / "half.json")[:3] == (0, 0, 5), "what is older changes nothing"
    votes = {vote.pair: vote.choice for vote in load_run(run).votes}
    assert votes[later.pair] == "bad"
    assert len(votes) == len(whole.votes)


def test_two_voters_of_one_name_are_two_and_it_is_said(run, tmp_path):
    ballot = newest_ballot(run)
    files = [
        write_file(cast(ballot, voter, name="Ada"), tmp_path / f"{voter[:4]}.json") for voter in ("ab" * 12, "cd" * 12)
    ]
    added = add(run, *files)
    assert added.voters == ("Ada (ababab)", "Ada (cdcdcd)")
    assert "told apart by the number" in added.notes[0]
    assert len({vote.voter for vote in load_run(run).votes}) == 2


def test_two_of_one_name_are_said_only_of_files_that_are_added(run, tmp_path):
    ballot = newest_ballot(run)
    for voter in ("ab" * 12, "cd" * 12):
        add(run, write_file(cast(ballot, voter, name="Ada"), tmp_path / f"{voter[:4]}.json"))
    assert add(run, write_file(cast(ballot, "ef" * 12, name="Ben"), tmp_path / "ben.json")).notes == ()
    assert "told apart by the number" in add(run, tmp_path / "abab.json").notes[0]


def test_a_name_is_one_line_without_control_characters(run, tmp_path):
    file = cast(newest_ballot(run), "ab" * 12, name="Ada\n::error::all is lost\r\x1b[2J\u2028x")
    added = add(run, write_file(file, tmp_path / "ada.json"))
    assert added.voters == ("Ada ::error::all is lost [2J x",)
    assert {vote.name for vote in load_run(run).votes} == set(added.voters)


@pytest.mark.parametrize("at", ["9999-99-99T99:99:99.999Z", "2026-02-30T00:00:00.000Z", "2026-01-01T24:01:00.000Z"])
def test_a_time_that_does_not_exist_is_refused_by_name(run, tmp_path, at):
    table = msgspec.to_builtins(cast(newest_ballot(run), "ab" * 12))
    table["votes"][1]["at"] = at
    path = tmp_path / "a.json"
    path.write_text(json.dumps(table))
    with pytest.raises(InvalidError, match=rf"votes\[1\]: at: .{at}"):
        add(run, path)


def test_a_time_that_is_not_yet_is_noted(run, tmp_path):
    file = cast(newest_ballot(run), "ab" * 12)
    ahead = signed(replace(file, votes=(replace(file.votes[0], at="9998-01-01T00:00:00.000Z"), *file.votes[1:])))
    added = add(run, write_file(ahead, tmp_path / "a.json"))
    assert added.new == len(file.votes)
    assert "1 vote of a time that is not yet (up to 9998-01-01T00:00:00.000Z)" in added.notes[0]


ON_VOTES = Limit(name="votes", text="0.05", kind="absolute", amount=0.05)


@pytest.mark.parametrize(
    ("gate", "stays"),
    [
        (make_gate(make_verdict()), True),
        (make_gate(make_verdict(), make_verdict(name="votes", limit=ON_VOTES)), False),
        (
            replace(make_gate(make_verdict()), notes=("The limit on votes is not judged yet: nobody voted on r.",)),
            False,
        ),
    ],
    ids=["none", "judged", "not judged yet"],
)
def test_only_a_gate_with_a_limit_on_votes_goes_with_new_votes_and_it_is_said(run, tmp_path, gate, stays):
    file = write_file(cast(newest_ballot(run), "ab" * 12), tmp_path / "a.json")
    write_gate(run, gate)
    notes = add(run, file).notes
    assert (read_gate(run) == gate) == stays
    assert any("the gate's verdict was of the run before these votes; gate again" in note for note in notes) != stays
    write_gate(run, gate)
    assert add(run, file).notes == (), "nothing was added"
    assert read_gate(run) == gate


def test_a_file_that_was_edited_is_refused_and_taken_only_on_demand(run, tmp_path):
    file = cast(newest_ballot(run), "ab" * 12, name="Ada")
    flipped = replace(file.votes[0], choice="b" if file.votes[0].choice == "a" else "a")
    path = write_file(replace(file, votes=(flipped, *file.votes[1:])), tmp_path / "ada.json")
    good = write_file(cast(newest_ballot(run), "cd" * 12), tmp_path / "good.json")
    with pytest.raises(UsageError, match="changed after the page saved it") as refused:
        add(run, good, path)
    assert "--edited" in refused.value.hint
    assert load_run(run).votes == (), "with an error none is added"
    assert add(run, path, edited=True).new == len(file.votes)
    assert all(vote.edited for vote in load_run(run).votes)


def test_every_field_of_a_file_is_in_its_check(run):
    file = cast(newest_ballot(run), "ab" * 12, name="Ada")
    one = file.votes[0]
    others = [
        replace(file, name="Ben"),
        replace(file, voter="cd" * 12),
        replace(file, ballot="ef" * 8),
        replace(file, votes=file.votes[1:]),
        *(
            replace(file, votes=(replace(one, **{name: value}), *file.votes[1:]))
            for name, value in {
                "pair": "aa" * 8,
                "choice": "bad",
                "left": "a" if one.left == "b" else "b",
                "why": ("detail",),
                "ms": 1,
                "at": "2026-03-01T00:00:00.000Z",
            }.items()
        ),
    ]
    checks = {check_of(one.ballot, one.voter, one.name, one.votes) for one in (file, *others)}
    assert len(checks) == len(others) + 1


def test_the_check_is_fnv_1a_as_published():
    """The test vectors of the algorithm's authors: of "" 811c9dc5, of "foobar" bf9cf968; here of two line ends."""
    by_hand = 0x811C9DC5
    for byte in b"\n\n":
        by_hand = ((by_hand ^ byte) * 16777619) % 2**32
    assert check_of("", "", "", ()) == f"{by_hand:08x}"


def test_votes_on_pairs_that_the_page_lacks_are_left_out_by_name(run, tmp_path):
    file = cast(newest_ballot(run), "ab" * 12)
    strange = signed(replace(file, votes=(*file.votes, replace(file.votes[0], pair="0123456789abcdef"))))
    added = add(run, write_file(strange, tmp_path / "a.json"))
    assert added.new == len(file.votes)
    assert "1 vote on pairs that its page does not have left out (0123456789abcdef)" in added.notes[0]


def test_a_vote_given_twice_counts_once_and_it_is_said(run, tmp_path):
    file = cast(newest_ballot(run), "ab" * 12)
    again = replace(file.votes[0], choice="bad", at="2026-02-01T00:00:00.000Z")
    added = add(run, write_file(signed(replace(file, votes=(again, *file.votes))), tmp_path / "a.json"))
    assert added.new == len(file.votes)
    assert "1 vote given again" in added.notes[0]
    assert {vote.pair: vote.choice for vote in load_run(run).votes}[again.pair] == "bad"


def test_votes_on_the_page_of_another_run_are_refused(run, tmp_path):
    (tmp_path / "other").mkdir()
    other, _ = make_voted(tmp_path / "other", prompts=4, samples=1, variants=("base", "spo"), seed=1)
    file = cast(newest_ballot(other), "ab" * 12)
    file = signed(replace(file, ballot="ef" * 8))
    with pytest.raises(UsageError, match="which was not made of"):
        add(run, write_file(file, tmp_path / "a.json"))


def test_a_run_without_a_page_says_how_one_is_made(tmp_path):
    bare = write_run(make_run("run", prompts=2, samples=1), tmp_path / "bare")
    with pytest.raises(UsageError, match="no vote key here") as refused:
        add(bare, tmp_path / "a.json")
    assert "vote make" in refused.value.hint


def test_a_key_of_the_run_that_was_here_before_is_refused(run, tmp_path):
    table = json.loads((run / "votes.key.json").read_text())
    (run / "votes.key.json").write_text(json.dumps({**table, "run_id": "another"}))
    with pytest.raises(UsageError, match="is the key of pages of the run another"):
        add(run, tmp_path / "a.json")


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("{", InvalidError, "not a valid file of votes"),
        ('{"kind": "something"}', UsageError, "its kind is not"),
        ('{"kind": "hotart-bench votes", "schema": 9}', IncomparableError, "schema 9"),
        ('{"kind": "hotart-bench votes", "schema": 1}', InvalidError, "missing"),
    ],
)
def test_what_is_no_file_of_votes_is_refused(run, tmp_path, text, error, words):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(error, match=words):
        add(run, path)


@pytest.mark.parametrize(
    ("field", "value"),
    [("choice", "c"), ("left", "left"), ("ms", -1), ("at", "yesterday"), ("pair", "../../etc/passwd")],
)
def test_a_vote_with_a_value_that_cannot_be_is_refused(run, tmp_path, field, value):
    table = msgspec.to_builtins(cast(newest_ballot(run), "ab" * 12))
    table["votes"][0][field] = value
    path = tmp_path / "a.json"
    path.write_text(json.dumps(table))
    with pytest.raises(InvalidError, match=rf"votes\[\.\.\.\]\.{field}|{field}"):
        read_votes(path)


def test_a_folder_stands_for_the_files_in_it(run, tmp_path):
    panel(run, tmp_path / "files", 3)
    assert len(add(run, tmp_path / "files").voters) == 3
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no file of votes"):
        add(run, tmp_path / "empty")


def test_a_journal_that_names_a_lost_prompt_says_so(run, tmp_path):
    add(run, *panel(run, tmp_path / "files", 1))
    journal = run / "votes.jsonl"
    journal.write_text(journal.read_text().replace("case-000", "case-999"))
    with pytest.raises(InvalidError, match=r"votes\.jsonl: names the prompt 'case-999'"):
        load_run(run)


def test_twenty_thousand_votes_are_read_and_added_fast(tmp_path):
    run, _ = make_voted(tmp_path, prompts=100, samples=2, variants=("base", "spo"))
    pairs = len(newest_ballot(run).pairs)
    files = panel(run, tmp_path / "files", 20_000 // pairs + 1)
    start = time.perf_counter()
    assert add(run, *files).new >= 20_000
    assert time.perf_counter() - start < 15
    assert all(isinstance(vote, Vote) for vote in load_run(run).votes)
