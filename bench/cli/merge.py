"""``merge``: a recipe becomes one checkpoint file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.checkpoints.safetensors_files import read_header
from bench.cli import options
from bench.cli.ledger import check_ledger, note_in_ledger
from bench.cli.options import AsJson, LedgerPath, Quiet, WeightsDir
from bench.cli.printing import DONE, Columns, print_json, print_table, say, show
from bench.cli.progress import show_progress
from bench.errors import Interrupted
from bench.formatting import plural, quantity
from bench.ledger import new_entry
from bench.merge.load import open_named
from bench.records import LedgerEntry, LedgerFile

if TYPE_CHECKING:
    from bench.merge.write import MergedFile


def merge(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe: a .toml file (docs/merging.md).")],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="The .safetensors file to write.", show_default=False)
    ],
    force: Annotated[
        bool, typer.Option("--force", help="Replace a file that is there, once the new one is whole.")
    ] = False,
    weights_dir: WeightsDir = None,
    ledger: LedgerPath = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> int:
    """Merge checkpoints and LoRAs into one file, as a recipe says.

    It is computed in float32, a tensor at a time, and written in the layout that the community publishes.
    The same recipe and inputs give the same bytes. Its header holds the recipe and the sha256 of each input.

    Examples:
      hotart-bench merge hotart.toml -o hotart.safetensors
      hotart-bench merge hotart.toml -o hotart.safetensors --force --quiet
      hotart-bench merge hotart.toml -o hotart.safetensors --json
      hotart-bench merge hotart.toml -o hotart.safetensors --ledger ledger.jsonl
    """
    from bench.merge.write import merge as write_merged  # imports torch, which --help need not wait for

    options.check_weights_dir(weights_dir)
    check_ledger(ledger)
    try:
        with show_progress(quiet) as progress:
            done = write_merged(recipe, output, weights_dir=weights_dir, force=force, progress=progress)
    except KeyboardInterrupt as stop:
        raise Interrupted("Stopped. Nothing was written; a file that was there before is as it was.") from stop
    if ledger is not None:
        note_in_ledger(ledger, _built(done, recipe), quiet=quiet)
    if as_json:
        print_json(done)
        return DONE
    _print(done)
    for note in done.notes:
        say(note)
    if not quiet:
        say(_try_it(done.path))
    return DONE


def _built(done: MergedFile, recipe: Path) -> LedgerEntry:
    """What the ledger keeps of a merged file: itself, each input, and the recipe as its header has it."""
    output = LedgerFile(role="output", name=Path(done.path).name, sha256=done.sha256)
    inputs = (LedgerFile(role=f"{one.component} input", name=one.name, sha256=one.sha256) for one in done.inputs)
    facts = {"recipe": read_header(Path(done.path)).metadata.get("hotart.recipe", "")}
    what = f"{output.name} was merged from {plural(len(done.inputs), 'file')} by {recipe.name}."
    return new_entry("built", what, (output, *inputs), facts)


def _try_it(path: str) -> str:
    """What can be done with the file, by what its header tells when it is read as any other."""
    found = open_named(path, None, None)
    components = {name.split(".", 1)[0] for name in found.tensors}
    if found.facts.inpainting:
        return f"{path} is an inpainting model: it fills in masked images, so no suite renders it."
    if len(components) == 1:
        return f"Try it: {components.pop()} = {_quoted(path)} beside a checkpoint in a suite."
    return f"Try it: checkpoint = {_quoted(path)} in a suite."


def _quoted(path: str) -> str:
    """A path as a TOML string; TOML reads JSON's."""
    return json.dumps(path, ensure_ascii=False)


def _print(done: MergedFile) -> None:
    print_table(
        {"component": "name", "tensors": "number", "precision": "name"},
        [(name, f"{count:,}", done.dtypes.get(name, "")) for name, count in done.tensors.items()],
    )
    show()
    rows = [("input", one.component, one.name, quantity(one.size_bytes, "byte"), one.sha256) for one in done.inputs]
    rows.append(("output", "checkpoint", done.path, quantity(done.size_bytes, "byte"), done.sha256))
    columns: Columns = {"file": "name", "is": "name", "name": "text", "size": "number", "sha256": "name"}
    print_table(columns, rows)
