"""``card``: what a finished variant is, for the Hub and for a model page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from bench.card.civitai import civitai_page
from bench.card.facts import CardFacts, Wishes, card_facts
from bench.card.hub import hub_card
from bench.card.pictures import CardPictures, choose_pictures, write_pictures
from bench.checkpoints.locate import HUB_NAME
from bench.cli import options
from bench.cli.ledger import check_ledger, note_in_ledger
from bench.cli.options import LedgerPath, WeightsDir, file_option
from bench.cli.printing import DONE, say, show
from bench.cli.progress import show_progress
from bench.documents import exists, resolved, sha256_of
from bench.errors import UsageError
from bench.formatting import argument, plural, quantity
from bench.ledger import find_ledger, new_entry
from bench.records import Gate, LedgerEntry, LedgerFile, Run
from bench.report import gate_of
from bench.store import image_hashes, load_run, read_gate_file
from bench.store.grid import GridRuns, is_grid, load_grid
from bench.store.journal import make_folder, write_whole
from bench.suite.grid import own_value

HELP = "hotart-bench card --help"
MOST_PICTURES = 100

Pictures = Annotated[int, typer.Option("--pictures", metavar="N", help="How many prompts are shown, 0 to 100.")]
LicencesOf = Annotated[
    list[str] | None,
    typer.Option("--license-of", metavar="NAME=ID", help="Of an input that does not name its own; may be repeated."),
]
BaseModels = Annotated[
    list[str] | None,
    typer.Option("--base-model", metavar="OWNER/NAME", help="Instead of those found; may be repeated."),
]


def card(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A finished run folder, or a grid's.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="The card, such as README.md.")],
    variant: Annotated[
        str | None, typer.Option("--variant", metavar="V", help="Which one.  [default: the only one, or the advised]")
    ] = None,
    gate: Annotated[
        Path | None, file_option("--gate", "A gate on the run, of gate --json.  [default: the run's last]")
    ] = None,
    civitai: Annotated[Path | None, file_option("--civitai", "Also write a text for a model page, as HTML.")] = None,
    licence: Annotated[
        str | None, typer.Option("--license", metavar="ID", help="What it is published under.  [default: worked out]")
    ] = None,
    licences_of: LicencesOf = None,
    base_models: BaseModels = None,
    title: Annotated[str | None, typer.Option("--title", metavar="TEXT", help="[default: the variant's name]")] = None,
    pictures: Pictures = 6,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
    weights_dir: WeightsDir = None,
    ledger: LedgerPath = None,
) -> int:
    """A model card for the Hub, and a text for a model page, of a finished run.

    What it is made of with hashes and licences, how to use it, what was found and what got worse, what else was
    tried, and pictures beside it in images/. A licence that allows no merge ends with exit code 2, a run that is not
    finished with 5.

    Examples:
      hotart-bench card reports/runs/mini --variant spo -o card/README.md
      hotart-bench card runs/mine -o README.md --civitai page.html
      hotart-bench card runs/mine -o README.md --gate gate.json --license mit
      hotart-bench card runs/mine -o README.md --license-of x.safetensors=mit
    """
    options.check_weights_dir(weights_dir)
    _refuse_outputs(output, civitai, force)
    if not 0 <= pictures <= MOST_PICTURES:
        raise UsageError(f"--pictures is {pictures}; it must be 0 to {MOST_PICTURES}.", HELP)
    _check_base_models(base_models or ())
    loaded, grid = _read(run)
    with show_progress(quiet=False) as progress:
        hashes = image_hashes(loaded, progress)
    wishes = Wishes(variant, title, licence, _licences(licences_of or ()), tuple(base_models or ()))
    found = card_facts(loaded, hashes, wishes, gate=_gate(gate, loaded), grid=grid, weights_dir=weights_dir)
    _refuse_forbidden(found)
    place = find_ledger(ledger, *_beside_baseline(found.gate))
    check_ledger(place)
    first = loaded.info.suite.variants[0].name
    beside = first if found.variant.name != first else ""
    chosen = choose_pictures(loaded, found.variant.name, beside, pictures)
    _write(found, chosen, output, civitai, force=force)
    _say(found, chosen)
    if place is not None:
        note_in_ledger(place, _shipped(found, output))
    show(str(output))
    return DONE


def _beside_baseline(gate: Gate | None) -> tuple[Path, ...]:
    """The folder of the frozen baseline that the gate names; none without one."""
    return () if gate is None or gate.baseline_is_run else (Path(gate.baseline).parent,)


def _refuse_outputs(output: Path, civitai: Path | None, force: bool) -> None:
    if civitai is not None and resolved(civitai) == resolved(output):
        raise UsageError(f"--civitai: {civitai} is what -o names already.", HELP)
    for path in (output, civitai):
        if path is not None and exists(path) and not force:
            raise UsageError(f"{path}: is there already.", "--force replaces it, and pictures of the same names")


def _check_base_models(names: Sequence[str]) -> None:
    for name in names:
        if HUB_NAME.fullmatch(name) is None or ":" in name or "@" in name:
            raise UsageError(f"--base-model: {name!r} is no repository of the Hub, which is owner/name.", HELP)


def _licences(texts: Sequence[str]) -> dict[str, str]:
    """By name the licence that ``NAME=ID`` gives it."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, licence = text.rpartition("=")
        if not equals or not name.strip() or not licence.strip():
            raise UsageError(f"--license-of: {text!r} is not NAME=ID, such as base.safetensors=openrail++.", HELP)
        if name in found:
            raise UsageError(f"--license-of: {name!r} is given twice.", HELP)
        found[name.strip()] = licence.strip()
    return found


def _read(place: str) -> tuple[Run, GridRuns | None]:
    """The run, and the grid that it is one of; of a grid the run of the suite's own setting.

    Raises:
        UsageError: a grid without a run of its suite's own setting.
    """
    if is_grid(place):
        grid = load_grid(place)
        suite = grid.grid.suite
        for member, run in zip(grid.grid.members, grid.runs, strict=True):
            if run is not None and all(own_value(suite, axis) == value for axis, value in member.setting.items()):
                return run, grid
        raise UsageError(
            f"{place}: the grid has no run of the suite's own settings, so that it is not plain which its card is of.",
            f"name one of its runs: {argument(Path(place) / grid.grid.members[0].folder)}",
        )
    run = load_run(place)
    parent = Path(run.path).parent
    return run, load_grid(parent) if not run.url and run.info.suite.grid_setting and is_grid(parent) else None


def _gate(path: Path | None, run: Run) -> Gate | None:
    if path is not None:
        return read_gate_file(path)
    found = gate_of(run)
    if found is not None:
        say(f"The last gate on the run stands in the card: against {found.baseline}, {found.outcome}.")
    return found


def _refuse_forbidden(found: CardFacts) -> None:
    if found.chain.forbids:
        raise UsageError(
            f"No card: {' '.join(found.chain.forbids)}",
            "leave it out of the merge, or give the licence that you have of it: --license-of NAME=ID",
        )


def _write(found: CardFacts, chosen: CardPictures, output: Path, civitai: Path | None, *, force: bool) -> None:
    text = hub_card(found, chosen)
    page = None if civitai is None else civitai_page(found, chosen)
    make_folder(output.parent)
    write_pictures(chosen, output.parent, force=force)
    write_whole(output, text.encode())
    if civitai is not None and page is not None:
        make_folder(civitai.parent)
        write_whole(civitai, page.encode())


def _say(found: CardFacts, chosen: CardPictures) -> None:
    for line in (*found.warnings, *found.chain.contradictions, *found.chain.unknown):
        say(line)
    chain = found.chain
    licence = chain.terms.name if chain.terms is not None else chain.other
    say(f"Licence: {licence}. {chain.why}" if licence else "The card names no licence; --license gives it one.")
    if found.sources and not found.base_models:
        say("The card names no base model: no input is of the Hub; --base-model gives it one.")
    size = sum(map(len, chosen.files.values()))
    say(f"{plural(len(chosen.files), 'picture')}, {quantity(size, 'byte')}. {chosen.note}".strip())


def _shipped(found: CardFacts, output: Path) -> LedgerEntry:
    """What the ledger keeps of a card: its file, the weights of the variant, the licence and the gate's outcome."""
    card_file = LedgerFile(role="card", name=output.name, sha256=sha256_of(output))
    name = found.variant.name
    weights = [LedgerFile(role=f"{one.component} of {name}", name=one.name, sha256=one.sha256) for one in found.files]
    terms = found.chain.terms
    facts = {"run": found.run.info.id, "variant": name, "licence": terms.id if terms is not None else found.chain.other}
    facts |= {"gate": found.gate.outcome} if found.gate is not None else {}
    facts |= {"finding": found.finding.word} if found.finding is not None else {}
    return new_entry("shipped", f"A card of {found.title} was written.", (card_file, *weights), facts)
