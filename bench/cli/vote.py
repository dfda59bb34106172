"""``vote make``, ``serve``, ``add`` and ``status``: blind votes of people on the pictures of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.compare import split_pairs
from bench.cli.ledger import check_ledger, note_in_ledger
from bench.cli.options import AsJson, LedgerPath, Quiet
from bench.cli.printing import DONE, print_json, print_tables, say, show
from bench.cli.progress import show_progress
from bench.compare.vote_tables import vote_notes, vote_tables, voter_table
from bench.compare.votes import vote_results
from bench.errors import InvalidError, UsageError
from bench.formatting import argument, joined, plural, quantity
from bench.ledger import files_of, new_entry
from bench.records import LedgerEntry
from bench.store import RunFolder, load_run, read_info
from bench.store.reading import folder_of
from bench.votes.make import LIMIT_MB, make_page
from bench.votes.read import Added, add_votes
from bench.votes.serve import VOTES, open_server

Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder of this machine.")]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A voting page, as vote make writes it.")]
Files = Annotated[
    list[Path], typer.Argument(metavar="FILE...", help="Files that voters gave back, or folders of them.")
]
Output = Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="The page's folder, made new.")]
Pairs = Annotated[
    str | None,
    typer.Option(
        "--pairs",
        metavar="A:B,C:D",
        help="Vote between A and B, and C and D.  [default: each variant with the first, and spo with dpo]",
    ),
]
LimitMb = Annotated[
    int,
    typer.Option("--limit-mb", metavar="N", min=1, max=100_000, help="Most MiB; pictures are made smaller to keep it."),
]
Seed = Annotated[
    int | None,
    typer.Option(
        "--seed", metavar="N", help="Of names, sides and order; keep it to yourself.  [default: drawn at random]"
    ),
]
Port = Annotated[int, typer.Option("--port", metavar="N", min=0, max=65535, help="0 takes a free one.")]
Edited = Annotated[bool, typer.Option("--edited", help="Take files that were changed by hand, and mark their voters.")]
Margin = Annotated[
    float,
    typer.Option("--margin", metavar="POINTS", help="How many votes an interval of so many points either way needs."),
]


def make(
    run: Run,
    output: Output,
    pairs: Pairs = None,
    limit_mb: LimitMb = LIMIT_MB,
    seed: Seed = None,
    quiet: Quiet = False,
) -> int:
    """Write a page on which people vote blind between two pictures.

    The folder works from a disk, or from any web space that serves files. Sides and order are random for each
    voter, and control pairs are hidden among the others. Pictures are encoded anew under random names; which variant is
    which stays in the run folder, in votes.key.json. Voters save their votes as a file and send it back.

    Examples:
      hotart-bench vote make reports/runs/mini -o vote
      hotart-bench vote make runs/mine -o vote --pairs spo:base --limit-mb 50
    """
    with RunFolder.reopen(run) as folder, show_progress(quiet) as progress:
        made = make_page(folder, output, pairs=split_pairs(pairs), limit_mb=limit_mb, seed=seed, progress=progress)
    if not quiet:
        for note in made.notes:
            say(note)
        kinds = [pair.kind for pair in made.ballot.pairs]
        say(
            f"{plural(kinds.count('pair'), 'pair')} of {plural(made.images, 'image')} of the plan and "
            f"{plural(len(kinds) - kinds.count('pair'), 'control pair')}, at most {made.ballot.longest_side_px} px a "
            f"side: {quantity(float(made.size_bytes), 'byte')}."
        )
        say("An interval of +-10 points takes about 100 votes on two variants, of +-5 points about 400, or more.")
        say(f"The key stays in {run}/votes.key.json: give voters {output} alone.")
        say(f"  next: hotart-bench vote serve {argument(output)}, or put the folder on any web space")
    show(f"{output}/index.html")
    return DONE


def serve(folder: Folder, port: Port = 8765) -> int:
    """Serve a voting page on this machine, and save votes as they are cast.

    Only this machine can open it. Each voter's votes are a file in DIR/votes, written anew with every vote, so that
    Ctrl-C loses none.

    Examples:
      hotart-bench vote serve vote
      hotart-bench vote serve vote --port 9000
    """
    with open_server(folder, port) as server:
        say(f"Votes are saved in {folder / VOTES}. Ctrl-C ends it.")
        say(f"  then: hotart-bench vote add RUN {argument(folder / VOTES)}")
        show(server.address)
        server.serve_forever(poll_interval=0.2)
    return DONE


def add(run: Run, files: Files, edited: Edited = False, ledger: LedgerPath = None, quiet: Quiet = False) -> int:
    """Take the files that voters gave back into the run.

    A file that is given again adds only what is new in it. Voters are told apart by a number that their browsers drew.
    compare, report and gate count the votes from then on.

    Examples:
      hotart-bench vote add reports/runs/mini votes-ada-1f2e3d4c.json votes-ben-9a8b7c6d.json
      hotart-bench vote add reports/runs/mini vote/votes
      hotart-bench vote add runs/mine vote/votes --ledger ledger.jsonl
    """
    check_ledger(ledger)
    with RunFolder.reopen(run) as folder:
        added = add_votes(folder, files, edited=edited)
    if not quiet:
        for note in added.notes:
            say(note)
        parts = [f"{added.new:,} new", f"{added.changed:,} changed", f"{added.known:,} there already"]
        say(f"Votes of {joined(added.voters)}: {', '.join(parts)}.")
        say(f"  next: hotart-bench vote status {argument(run)}")
    if ledger is not None and added.new + added.changed:
        note_in_ledger(ledger, _voted(run, added), quiet=quiet)
    return DONE


def _voted(run: Path, added: Added) -> LedgerEntry:
    """What the ledger keeps of votes: on which weights, how many, of how many people; not who they are."""
    info = read_info(folder_of(run))
    votes = plural(added.new + added.changed, "vote")
    what = f"{votes} of {plural(len(added.voters), 'voter')} on a run of {info.suite.name} were added."
    facts = {"run": info.id, "suite": info.suite.name, "protocol": info.protocol_digest}
    return new_entry("voted", what, files_of(info.variants), facts)


def status(run: Run, margin: Margin = 5.0, json: AsJson = False) -> int:
    """What the votes on a run say, who voted, and how their control pairs went.

    Examples:
      hotart-bench vote status reports/runs/mini
      hotart-bench vote status reports/runs/mini --margin 3
    """
    if not 0 < margin <= 50:
        raise UsageError(f"--margin: {margin:g} points is not between 0 and 50.", "hotart-bench vote status --help")
    results = vote_results(load_run(run), margin=margin / 100)
    if results is None:
        raise InvalidError(f"{run}: nobody has voted on it.", f"hotart-bench vote make {argument(run)} -o DIR")
    if json:
        print_json(results)
        return DONE
    left_out = [f"{one.label} {one.left_out}." for one in results.voters if one.left_out]
    tables = [voter_table(results), *vote_tables(results, margin)]
    print_tables("table", tables, [*left_out, *vote_notes(results, names=True)])
    return DONE
