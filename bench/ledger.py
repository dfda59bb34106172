"""The ledger: an append-only file of what was built, tried, voted on, accepted and shipped, found again by hashes.

A line is an entry, and an entry never changes. Whoever writes holds a lock beside the file, so that two processes do
not write at once; two machines that wrote each its own copy put them together with ``merge_ledgers``, and so does git
with ``merge=union``, since doubles and the order of lines mean nothing. A last line without its end was cut short by
a crash: it does not count, and whoever reads is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from bench import documents
from bench.errors import InvalidError, MachineError, UsageError
from bench.formatting import argument, plural
from bench.records import LEDGER_SCHEMA, Fingerprint, LedgerEntry, LedgerEvent, LedgerFile
from bench.store.journal import append_records, make_folder, record_lines, write_whole
from bench.store.lock import file_locked

LEDGER = "ledger.jsonl"
"""How a ledger is called that no flag names: it lies beside the baseline."""
WAIT_S = 10.0
"""How long an entry waits for another process that is writing one."""
LEAST_DIGITS = 6
"""Of a hash that is looked for."""


@dataclass(frozen=True)
class Ledger:
    """A ledger as it was read."""

    path: Path
    entries: tuple[LedgerEntry, ...]
    """By time, each once."""
    torn: bool
    """Whether the last line was cut short; it is not among the entries."""


def find_ledger(given: Path | None, *near: Path) -> Path | None:
    """The ledger that counts: the one that a flag names, else the first ``ledger.jsonl`` of these folders; or None."""
    if given is not None:
        documents.refuse_url(given)
        return given
    return next((folder / LEDGER for folder in near if documents.exists(folder / LEDGER)), None)


def new_entry(
    event: LedgerEvent, what: str, files: Iterable[LedgerFile], facts: Mapping[str, str] | None = None, by: str = ""
) -> LedgerEntry:
    """An entry of this moment, with its id."""
    bare = LedgerEntry(
        schema=LEDGER_SCHEMA,
        event=event,
        time=datetime.now(UTC).isoformat(timespec="milliseconds"),  # two events of a second keep their order
        what=what,
        files=tuple(files),
        facts=dict(facts or {}),
        by=by,
    )
    return msgspec.structs.replace(bare, id=entry_id(bare))


def entry_id(entry: LedgerEntry) -> str:
    """sha256 of the entry's canonical JSON without its id."""
    return documents.sha256_of(documents.canonical(msgspec.to_builtins(msgspec.structs.replace(entry, id=""))))


def files_of(variants: Iterable[Fingerprint]) -> tuple[LedgerFile, ...]:
    """The weight files of variants, each once for each role that it has."""
    return tuple(
        LedgerFile(role=f"{file.component} of {variant.name}", name=Path(file.name).name, sha256=file.sha256)
        for variant in variants
        for file in variant.files
    )


def add_entry(path: Path, entry: LedgerEntry) -> bool:
    """Append an entry to a ledger, which is made where there is none; on the disk on return.

    Returns:
        False where it has an entry that differs in nothing but its time: the same command again is no event.

    Raises:
        InUse: another process writes to it for longer than ``WAIT_S``.
        InvalidError, IncomparableError, MachineError: as ``read_ledger``; or it cannot be written.
    """
    documents.refuse_url(path)
    make_folder(path.parent)
    with file_locked(path, WAIT_S):
        known = read_ledger(path).entries if documents.exists(path) else ()
        if any(_but_time(one) == _but_time(entry) for one in known):
            return False
        append_records(path, [entry])
    return True


def _but_time(entry: LedgerEntry) -> LedgerEntry:
    return msgspec.structs.replace(entry, time="", id="")


def read_ledger(path: Path) -> Ledger:
    """A ledger, its entries by time, each once.

    Raises:
        UsageError: there is no such file.
        IncomparableError: a line of another schema.
        InvalidError: a line that is no entry, or is not as it was written.
        MachineError: it cannot be read.
    """
    documents.refuse_url(path)
    try:
        data = documents.read_bytes(path, documents.JOURNAL_BYTES)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(
            f"{path}: there is no ledger here.", f"hotart-bench merge RECIPE -o FILE --ledger {argument(path)}"
        ) from error
    except OSError as error:
        raise MachineError(f"{path}: cannot be read: {error.strerror}.") from error
    whole, _, rest = data.rpartition(b"\n")
    lines = whole.split(b"\n") if whole else []
    entries = {one.id: one for number, line in enumerate(lines, start=1) for one in (_entry(path, number, line),)}
    return Ledger(path, _in_order(entries.values()), torn=bool(rest))


def _entry(path: Path, number: int, line: bytes) -> LedgerEntry:
    repair = "restore the file from version control, or take the line out"
    if line.startswith((b"<<<<<<<", b"=======", b">>>>>>>", b"|||||||")):
        raise InvalidError(
            f"{path}:{number}: git left both sides of a merge here.",
            f"git show :2:FILE and :3:FILE into two files, then hotart-bench ledger merge A B -o {argument(path)}",
        )
    try:
        table = documents.loads(line.decode())
        if isinstance(table, dict):
            documents.refuse_other_schema(f"{path}:{number}", table.get("schema"), LEDGER_SCHEMA, "ledgers", repair)
        entry = documents.convert(table, LedgerEntry)
    except ValueError as error:
        raise InvalidError(f"{path}:{number}: is not an entry of a ledger: {error}.", repair) from error
    if entry.id != entry_id(entry):
        raise InvalidError(
            f"{path}:{number}: is not as it was written: its id does not fit it. A ledger is added to, not edited.",
            repair,
        )
    return entry


def _in_order(entries: Iterable[LedgerEntry]) -> tuple[LedgerEntry, ...]:
    return tuple(sorted(entries, key=lambda one: (one.time, one.id)))


def merge_ledgers(paths: Sequence[Path], output: Path) -> tuple[int, int]:
    """Write the entries of several ledgers into one, by time, each once; the output may be one of them.

    Returns:
        How many entries it has, and how many were there more than once.

    Raises:
        UsageError: a ledger that is not there, or an output that is and is none of them.
        InvalidError: a last line that was cut short, which would be lost; or as ``read_ledger``.
        InUse, IncomparableError, MachineError: as ``add_entry``.
    """
    places = [documents.resolved(path) for path in paths]
    if documents.exists(output) and documents.resolved(output) not in places:
        raise UsageError(f"{output}: is there already.", "name it among the ledgers that are merged, or another file")
    make_folder(output.parent)
    with file_locked(output, WAIT_S):
        found = [read_ledger(path) for path in paths]
        for one in found:
            if one.torn:
                raise InvalidError(
                    f"{one.path}: its last line was cut short, and would be lost.",
                    "take the line out if nobody is writing it, then the same command again",
                )
        entries = {entry.id: entry for one in found for entry in one.entries}
        write_whole(output, record_lines(_in_order(entries.values())))
    return len(entries), sum(len(one.entries) for one in found) - len(entries)


def entries_with(entries: Iterable[LedgerEntry], digits: str) -> tuple[LedgerEntry, ...]:
    """The entries of a file whose sha256 begins with these hex digits; case does not matter.

    Raises:
        UsageError: they are not hex digits, or too few.
    """
    wanted = digits.strip().lower()
    if not LEAST_DIGITS <= len(wanted) <= 64 or set(wanted) - set("0123456789abcdef"):
        raise UsageError(
            f"--hash: {digits!r} is not the beginning of a sha256, {LEAST_DIGITS} to 64 of 0-9 and a-f.",
            "hotart-bench inspect FILE shows the sha256 of a file",
        )
    return tuple(one for one in entries if any(file.sha256.startswith(wanted) for file in one.files))


def files_text(entry: LedgerEntry) -> str:
    """The files of an entry in a line, each with the ten digits by which pictures and model pages know it."""
    shown = [f"{file.role} {file.name} {file.sha256[:10]}" for file in entry.files[:6]]
    more = len(entry.files) - len(shown)
    return ", ".join(shown) + (f" and {plural(more, 'more file')}" if more > 0 else "")
