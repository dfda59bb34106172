"""Journals and whole files: what was appended is read back, whatever moment a crash came at."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import documents
from bench.errors import InvalidError, MachineError
from bench.records import Score, Timing
from bench.store.journal import Journal, append_records, read_records, write_whole

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
SCORES = st.builds(
    Score,
    variant=TEXT,
    prompt_id=TEXT,
    sample=st.integers(0, 9999),
    metric=TEXT,
    version=TEXT,
    image_sha256=st.none() | TEXT,
    value=st.none() | FINITE,
    reason=st.none() | TEXT,
)


def score(value: float | None, prompt_id: str = "a") -> Score:
    return Score(variant="base", prompt_id=prompt_id, sample=0, metric="m", version="1", image_sha256=None, value=value)


def read(path: Path) -> list[Score]:
    return read_records(path, Score)


def test_a_doubled_key_is_refused_in_a_line_as_the_program_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    line = msgspec.json.encode(score(1.5))
    path.write_bytes(line + b"\n")
    assert read(path) == [score(1.5)]
    path.write_bytes(line[:-1] + b',"value":2.5}\n')
    with pytest.raises(InvalidError, match="the key 'value' is given twice"):
        read(path)


@given(batches=st.lists(st.lists(SCORES, max_size=4), max_size=4))
@settings(max_examples=30, deadline=None)
def test_what_is_appended_is_read_back(batches: list[list[Score]], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("j") / "scores.jsonl"
    for batch in batches:
        append_records(path, batch)
    everything = [record for batch in batches for record in batch]
    assert read(path) == everything
    if everything:
        # Python's own reader sees the same: one JSON document a line.
        lines = path.read_bytes().decode().removesuffix("\n").split("\n")
        assert [json.loads(line)["value"] for line in lines] == [record.value for record in everything]


@given(
    records=st.lists(st.tuples(SCORES, st.booleans()), min_size=1, max_size=6), empty_at=st.none() | st.integers(0, 5)
)
@settings(max_examples=40, deadline=None)
def test_lines_in_another_spelling_stand_between_those_that_the_program_wrote(
    records: list[tuple[Score, bool]], empty_at: int | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("j") / "scores.jsonl"
    lines = [
        json.dumps(msgspec.to_builtins(record)).encode() if spaced else msgspec.json.encode(record)
        for record, spaced in records
    ]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    assert read(path) == [record for record, _ in records]
    if empty_at is not None:
        lines.insert(empty_at, b"")
        path.write_bytes(b"".join(line + b"\n" for line in lines))
        with pytest.raises(InvalidError, match=f":{min(empty_at, len(lines) - 1) + 1}: is not a score record"):
            read(path)


def test_a_journal_of_many_lines_names_the_one_that_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    lines = [msgspec.json.encode(score(float(number), f"p{number}")) for number in range(10_000)]
    path.write_bytes(b"\n".join([*lines, b""]))
    assert [item.value for item in read(path)] == [float(number) for number in range(10_000)]
    lines[8_765] = lines[8_765][:-1]
    path.write_bytes(b"\n".join([*lines, b""]))
    with pytest.raises(InvalidError, match=r"scores\.jsonl:8766: is not a score record"):
        read(path)


def test_a_journal_cut_at_any_byte_is_a_prefix_and_goes_on_cleanly(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    records = [score(1.0, "a"), score(None, "mit Umlaut ü"), score(-2.5e-8, "line\nfeed\u2028")]
    append_records(path, records)
    data = path.read_bytes()
    for cut in range(len(data) + 1):
        path.write_bytes(data[:cut])
        whole = records[: data[:cut].count(b"\n")]
        assert read(path) == whole
        append_records(path, [score(1.5)])
        assert read(path) == [*whole, score(1.5)]


@given(records=st.lists(SCORES, min_size=1, max_size=3), where=st.floats(0, 1))
@settings(max_examples=30, deadline=None)
def test_any_journal_cut_anywhere_is_a_prefix_and_goes_on_cleanly(
    records: list[Score], where: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("j") / "scores.jsonl"
    append_records(path, records)
    data = path.read_bytes()[: round(where * path.stat().st_size)]
    path.write_bytes(data)
    whole = records[: data.count(b"\n")]
    assert read(path) == whole
    append_records(path, [score(1.5)])
    assert read(path) == [*whole, score(1.5)]


def test_a_torn_end_longer_than_a_block_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    append_records(path, [score(1.0)])
    with path.open("ab") as file:
        file.write(b'{"variant":"' + b"x" * 200_000)
    append_records(path, [score(2.0)])
    assert [item.value for item in read(path)] == [1.0, 2.0]
    path.write_bytes(b"\0" * 100_000)
    append_records(path, [score(3.0)])
    assert [item.value for item in read(path)] == [3.0]


def test_an_append_is_one_write_and_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "scores.jsonl"
    sizes: list[int] = []
    real = os.fsync

    def watched(file: int) -> None:
        sizes.append(os.fstat(file).st_size)  # everything is in the file before it is synced
        real(file)

    monkeypatch.setattr(os, "fsync", watched)
    append_records(path, [score(1.0), score(2.0)])
    append_records(path, [])
    assert sizes == [path.stat().st_size]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_not_finite_is_never_written(value: float, tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    append_records(path, [score(1.0)])
    before = path.read_bytes()
    with pytest.raises(ValueError, match="not JSON compliant"):
        append_records(path, [score(2.0), score(value)])
    timing = Timing(variant="a", name="load", unit="second", round=0, process=1, warmups=(), values=(1.0, value))
    with pytest.raises(ValueError, match="not JSON compliant"):
        append_records(path, [timing])
    assert path.read_bytes() == before


GOOD = documents.dumps(
    {
        "variant": "b",
        "prompt_id": "a",
        "sample": 0,
        "metric": "m",
        "version": "1",
        "image_sha256": None,
        "value": 1,
    }
)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (GOOD.replace('"value":1', '"value":1,"value":2'), "the key 'value' is given twice"),
        (GOOD.replace('"value":1', '"value":NaN'), "NaN is not a JSON number"),
        (GOOD.replace('"value":1', '"value":1e999'), "too large"),
        (GOOD.replace('"value":1', '"value":"1"'), "value: expected float | null, got str"),
        (GOOD.replace('"value":1', '"value":1,"extra":2'), "unknown field extra"),
        (GOOD.replace('"sample":0,', ""), "missing field sample"),
        (GOOD[:-5], "unterminated string"),
        ("", "Expecting value"),
        ("[]", "expected object, got array"),
        ("\ufffd", "Expecting value"),
    ],
)
def test_a_bad_line_is_named_with_its_file_and_number(line: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    path.write_text(f"{GOOD}\n{line}\n{GOOD}\n", encoding="utf-8")
    with pytest.raises(InvalidError) as caught:
        read(path)
    assert f"{path}:2: is not a score record" in caught.value.message
    assert problem.lower() in caught.value.message.lower()
    path.write_bytes(f"{GOOD}\n".encode() + b"\xff\xfe\n")
    with pytest.raises(InvalidError, match=r"scores\.jsonl:2"):
        read(path)


def test_no_journal_is_no_record(tmp_path: Path) -> None:
    assert read(tmp_path / "scores.jsonl") == []


def test_a_whole_file_is_the_old_one_or_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    write_whole(path, b"old")

    def crash(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", crash)
        with pytest.raises(MachineError, match=r"report\.html: the disk is full"):
            write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_dropping_a_variant_takes_the_torn_end_along(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    append_records(path, [score(4.0), msgspec.structs.replace(score(5.0), variant="gone")])
    with path.open("a", encoding="utf-8") as file:
        file.write('{"variant":')
    Journal(path, Score).drop_variant("gone")
    assert [item.value for item in read(path)] == [4.0]
    assert path.read_bytes().endswith(b"}\n")


def test_a_journal_is_read_once_and_remembers_what_is_appended_as_it_would_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "scores.jsonl"
    append_records(path, [score(1.0, "a"), score(2.0, "b")])
    journal = Journal(path, Score)
    assert [item.value for item in journal.records()] == [1.0, 2.0]
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", None)
        journal.append([score(3, "a"), score(None, "c")])
        assert [repr(item.value) for item in journal.records()] == ["3.0", "2.0", "None"]
    assert Journal(path, Score).records() == journal.records()


def test_a_real_full_disk_is_a_machine_error() -> None:
    with pytest.raises(MachineError, match="the disk is full") as caught:
        append_records(Path("/dev/full"), [score(1.0)])
    assert caught.value.exit_code == 6
    assert "it continues" in caught.value.hint


@given(
    value=st.recursive(
        st.none() | st.booleans() | FINITE | TEXT,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
        max_leaves=6,
    )
)
@settings(max_examples=25, deadline=None)
def test_strict_json_round_trip_agrees_with_the_standard_library(value: object) -> None:
    text = documents.dumps(value)
    assert documents.loads(text) == value == json.loads(text)
    assert json.loads(documents.canonical(value)) == value


@pytest.mark.parametrize("text", ['"\\ud800"', '{"\\udfff": 1}', '["a", "\\ud83d\\u0041"]'])
def test_half_a_surrogate_pair_is_refused_and_a_whole_one_is_not(text: str) -> None:
    with pytest.raises(UnicodeEncodeError):
        documents.loads(text)
    with pytest.raises(UnicodeEncodeError):
        documents.dumps("\ud800")
    assert documents.loads('"\\ud83d\\udc83"') == "💃"
