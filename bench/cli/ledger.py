"""``ledger``: what was built, tried, voted on, accepted and shipped; and how verbs note it there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.options import AsJson
from bench.cli.printing import DONE, print_json, print_table, say, show
from bench.documents import exists
from bench.errors import UsageError
from bench.formatting import joined, plural
from bench.ledger import add_entry, entries_with, files_of, files_text, merge_ledgers, new_entry, read_ledger
from bench.records import LedgerEntry
from bench.store import read_info
from bench.store.reading import folder_of
from bench.suite.grid import setting_words

TORN = "{path}: its last line was cut short and does not count; the next entry takes its place."


def check_ledger(path: Path | None) -> None:
    """Refuses a damaged ledger before the work begins that is to be noted in it; None, or one to be made, is fine."""
    if path is not None and exists(path):
        read_ledger(path)


def note_in_ledger(path: Path, entry: LedgerEntry, *, quiet: bool = False) -> None:
    """Appends an entry and says so; errors as ``add_entry``."""
    added = add_entry(path, entry)
    if not quiet:
        say(f"Noted in {path}: {entry.what}" if added else f"{path} has it already: {entry.what}")


def note_run(path: Path, place: str | Path, *, quiet: bool = False) -> None:
    """Notes a run that was made or continued: the weights of its variants, what it was, and how far it is."""
    info = read_info(folder_of(place))
    suite = info.suite
    size = f"{plural(len(suite.prompts), 'prompt')} x {plural(suite.samples, 'sample')}"
    cut = f", the first {suite.limit} prompts only" if suite.limit is not None else ""
    under = f" under {setting_words(suite.grid_setting)}" if suite.grid_setting else ""
    names = joined([variant.name for variant in suite.variants])
    what = f"The suite {suite.name} was run on {names} ({size}{cut}){under}."
    facts = {"run": info.id, "suite": suite.name, "protocol": info.protocol_digest, "status": info.status}
    note_in_ledger(path, new_entry("tried", what, files_of(info.variants), facts), quiet=quiet)


def show_ledger(
    ledger: Annotated[Path, typer.Argument(metavar="FILE", help="A ledger, such as ledger.jsonl.")],
    digits: Annotated[
        str | None,
        typer.Option("--hash", metavar="HEX", help="Only entries of a file whose sha256 begins so; 6 digits or more."),
    ] = None,
    json: AsJson = False,
) -> int:
    """The entries of a ledger, all or those of one file.

    The ten digits of a picture's or a model page's hash (AutoV2) are the beginning of a file's sha256.

    Examples:
      hotart-bench ledger show ledger.jsonl
      hotart-bench ledger show ledger.jsonl --hash 3f9a1c77e2
      hotart-bench ledger show ledger.jsonl --json
    """
    found = read_ledger(ledger)
    if found.torn:
        say(TORN.format(path=ledger))
    chosen = found.entries if digits is None else entries_with(found.entries, digits)
    if json:
        print_json(chosen)
        return DONE
    print_entries(chosen)
    if not chosen:
        show("No entry." if digits is None else f"No entry of a file whose sha256 begins with {digits}.")
    return DONE


def print_entries(entries: tuple[LedgerEntry, ...]) -> None:
    """Prints entries as a table; nothing where there is none."""
    if entries:
        rows = [
            (one.time, one.event, one.what + (f" ({one.by})" if one.by else ""), files_text(one)) for one in entries
        ]
        print_table({"time": "name", "event": "name", "what": "text", "files": "text"}, rows)


def merge_files(
    ledgers: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Two ledgers or more.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="Where to; one of them may be named.")],
) -> int:
    """Put ledgers of several machines together, without doubles.

    An entry is told by its id, the sha256 of what it says; the output has each once, by time.

    Examples:
      hotart-bench ledger merge here.jsonl there.jsonl -o ledger.jsonl
      hotart-bench ledger merge ledger.jsonl from-the-server.jsonl -o ledger.jsonl
    """
    if len(ledgers) < 2:
        raise UsageError("Only one ledger is named; two or more are merged.", "hotart-bench ledger merge --help")
    entries, doubles = merge_ledgers(ledgers, output)
    say(f"Done: {plural(entries, 'entry', 'entries')}, {plural(doubles, 'double')} left out.")
    show(str(output))
    return DONE
