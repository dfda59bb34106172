"""The ledger: what is added stays, nothing is twice, ledgers merge as sets do, and damage is named."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from fakes import make_run
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from bench import ledger as ledgers
from bench.errors import IncomparableError, InUse, InvalidError, UsageError
from bench.ledger import add_entry, entries_with, files_of, find_ledger, merge_ledgers, new_entry, read_ledger
from bench.records import LedgerEntry, LedgerFile
from bench.store.journal import record_lines
from bench.store.lock import file_locked


def file(name: str = "a.safetensors") -> LedgerFile:
    return LedgerFile(role="output", name=name, sha256=hashlib.sha256(name.encode()).hexdigest())


def entry(number: int = 0, event: str = "built", **changes: object) -> LedgerEntry:
    """An entry whose time is its number of seconds."""
    bare = new_entry(event, f"Number {number}.", [file(f"{number}.safetensors")])  # type: ignore[arg-type]
    bare = replace(bare, time=f"2026-01-01T00:00:{number:02d}+00:00", **changes)
    return replace(bare, id=ledgers.entry_id(bare))


def write(path: Path, *entries: LedgerEntry) -> Path:
    path.write_bytes(record_lines(entries))
    return path


def test_an_entry_is_read_as_it_was_added(tmp_path: Path) -> None:
    path = tmp_path / "new" / "ledger.jsonl"
    first, second = entry(1, by="Ann", facts={"run": "r"}), entry(2)
    assert add_entry(path, second)
    assert add_entry(path, first)
    found = read_ledger(path)
    assert (found.entries, found.torn) == ((first, second), False), "by time"
    assert len(path.read_text().splitlines()) == 2


def test_the_id_is_the_sha256_of_what_the_line_says() -> None:
    table = json.loads(record_lines([entry(3)]))
    own = table.pop("id")
    text = json.dumps(table, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert own == hashlib.sha256(text.encode()).hexdigest()


def test_the_same_event_at_another_time_is_not_added_again(tmp_path: Path) -> None:
    path = write(tmp_path / "l", entry(1))
    later = replace(entry(1), time="2027-01-01T00:00:00+00:00")
    assert not add_entry(path, replace(later, id=ledgers.entry_id(later)))
    assert read_ledger(path).entries == (entry(1),)


def test_a_torn_last_line_does_not_count_is_told_and_is_replaced(tmp_path: Path) -> None:
    path = write(tmp_path / "l", entry(1))
    path.write_bytes(path.read_bytes() + record_lines([entry(2)])[:50])
    assert read_ledger(path) == ledgers.Ledger(path, (entry(1),), torn=True)
    assert add_entry(path, entry(3))
    assert read_ledger(path) == ledgers.Ledger(path, (entry(1), entry(3)), torn=False)


@pytest.mark.parametrize(
    ("line", "error", "said"),
    [
        (b"{}", InvalidError, "schema is missing"),
        (b'{"schema":9}', IncomparableError, "schema 9"),
        (b"not json", InvalidError, "is not an entry"),
        (b"<<<<<<< HEAD", InvalidError, "both sides of a merge"),
        (record_lines([entry(1)]).replace(b"Number 1", b"Number 7").rstrip(), InvalidError, "not as it was written"),
        (record_lines([entry(1)]).replace(b'"built"', b'"sold"').rstrip(), InvalidError, "is not an entry"),
    ],
)
def test_a_damaged_line_is_named_by_its_number(tmp_path: Path, line: bytes, error: type, said: str) -> None:
    path = write(tmp_path / "l", entry(0))
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(error, match=said) as caught:
        read_ledger(path)
    assert f"{path}:2" in str(caught.value)
    with pytest.raises(error):
        add_entry(path, entry(5))
    assert path.read_bytes().endswith(line + b"\n"), "nothing is added behind damage"


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sets(st.integers(0, 20), max_size=12), min_size=2, max_size=4))
def test_ledgers_merge_as_sets_do_in_any_order(tmp_path_factory: pytest.TempPathFactory, parts: list[set[int]]) -> None:
    place = tmp_path_factory.mktemp("ledgers")
    paths = [write(place / f"{number}", *map(entry, part)) for number, part in enumerate(parts)]
    count, doubles = merge_ledgers(paths, place / "out")
    union = sorted(set().union(*parts))
    assert (count, doubles) == (len(union), sum(map(len, parts)) - len(union))
    assert read_ledger(place / "out").entries == tuple(map(entry, union))
    merge_ledgers(list(reversed(paths)), place / "other")
    assert (place / "out").read_bytes() == (place / "other").read_bytes()
    merge_ledgers([place / "out", *paths], place / "out")
    assert (place / "out").read_bytes() == (place / "other").read_bytes(), "once more changes nothing"


def test_a_merge_loses_no_torn_line_and_overwrites_nothing_else(tmp_path: Path) -> None:
    one, other = write(tmp_path / "a", entry(1)), write(tmp_path / "b", entry(2))
    (tmp_path / "c").write_text("mine")
    with pytest.raises(UsageError, match="is there already"):
        merge_ledgers([one, other], tmp_path / "c")
    other.write_bytes(other.read_bytes() + b'{"schema"')
    with pytest.raises(InvalidError, match="cut short"):
        merge_ledgers([one, other], one)
    assert read_ledger(one).entries == (entry(1),)


def test_lines_that_git_put_together_in_any_order_are_read_once(tmp_path: Path) -> None:
    path = write(tmp_path / "l", entry(2), entry(1), entry(2))
    assert read_ledger(path).entries == (entry(1), entry(2))


ADDING = """
import sys
from pathlib import Path
from bench.ledger import add_entry, new_entry
for number in range(15):
    add_entry(Path(sys.argv[1]), new_entry("tried", f"{sys.argv[2]} {number}", []))
"""


def test_two_processes_at_once_lose_no_line(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    command = [sys.executable, "-c", ADDING, str(path)]
    both = [subprocess.Popen([*command, name], stderr=subprocess.PIPE) for name in ("one", "two")]
    assert [process.communicate(timeout=60)[1] for process in both] == [b"", b""]
    assert [process.returncode for process in both] == [0, 0]
    said = sorted(one.what for one in read_ledger(path).entries)
    assert said == sorted(f"{name} {number}" for name in ("one", "two") for number in range(15))
    assert not list(tmp_path.glob(".*.lock"))


def test_a_ledger_that_another_keeps_locked_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgers, "WAIT_S", 0.1)
    with file_locked(tmp_path / "l", 0.0), pytest.raises(InUse, match="in use by process"):
        add_entry(tmp_path / "l", entry(1))


def test_entries_are_found_by_the_beginning_of_a_hash(tmp_path: Path) -> None:
    entries = tuple(map(entry, range(4)))
    wanted = entries[2].files[0].sha256
    assert entries_with(entries, wanted[:10].upper()) == (entries[2],)
    for digits in ("abc", "not hex", wanted + "0"):
        with pytest.raises(UsageError, match="not the beginning of a sha256"):
            entries_with(entries, digits)


def test_the_ledger_beside_the_baseline_is_found_only_where_it_is(tmp_path: Path) -> None:
    assert find_ledger(None, tmp_path) is None
    write(tmp_path / "ledger.jsonl", entry(1))
    assert find_ledger(None, tmp_path / "no", tmp_path) == tmp_path / "ledger.jsonl"
    assert find_ledger(tmp_path / "own", tmp_path) == tmp_path / "own"


def test_every_weight_file_of_every_variant_is_in_it() -> None:
    variants = make_run("run").info.variants
    found = files_of(variants)
    assert [one.sha256 for one in found] == [file.sha256 for variant in variants for file in variant.files]
    assert {one.role for one in found} >= {"unet of base", "lora:0 of spo"}
