"""``gate``: whether a run lost more than is allowed."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from bench.baseline import freeze_to_check, read_baseline
from bench.baseline.pictures import find_pictures
from bench.cli import options
from bench.cli.ledger import note_in_ledger
from bench.cli.options import LedgerPath, RunFolder, file_option
from bench.cli.printing import print_table, say, show, show_command
from bench.cli.progress import show_progress
from bench.cli.targets import at_hand, names_run
from bench.documents import resolved, utc_now
from bench.errors import HotartError, MachineError, UsageError
from bench.formatting import argument, plural
from bench.gate import check_limits, like_named
from bench.gate.ci import github_annotations, junit_xml
from bench.gate.outcomes import WORDS, WORST_FIRST, formatted, unexplained, worst_first
from bench.gate.summary import summary_markdown
from bench.ledger import files_of, find_ledger, new_entry
from bench.records import Baseline, FrozenVariant, Gate, LedgerEntry, Outcome, Progress, Run, Verdict
from bench.report import gate_page
from bench.store import gate_json, load_run, write_gate
from bench.store.journal import INFO, make_folder, write_whole
from bench.store.objects import is_url
from bench.store.reading import folder_of

HELP = "hotart-bench gate --help"
EXIT_CODES: dict[Outcome, int] = {"pass": 0, "fail": 1, "inconclusive": 5, "invalid": 5}

MEANING: dict[Outcome, str] = {
    "pass": "nothing that is gated lost more than its limit allows",
    "fail": "something that is gated lost more than its limit allows",
    "inconclusive": "what was measured does not decide it, which is not a pass",
    "invalid": "something is missing, is broken or tells nothing, so there is no verdict",
}
Inconclusive = Literal["fail", "warn"]


Candidate = Annotated[
    str | None,
    typer.Option("--candidate", metavar="V", help="The variant that is gated.  [default: each, by its name]"),
]
Reference = Annotated[
    str | None,
    typer.Option("--reference", metavar="V", help="What it is compared with.  [default: the like-named one]"),
]


def gate(
    run: RunFolder,
    baseline: Annotated[
        str | None,
        typer.Option("--baseline", metavar="PATH", help="A frozen baseline, or another run folder."),
    ] = None,
    candidate: Candidate = None,
    reference: Reference = None,
    other_machine: Annotated[
        bool,
        typer.Option("--other-machine", help="Quality only: the baseline's timings are of another machine."),
    ] = False,
    inconclusive: Annotated[
        str,
        typer.Option("--inconclusive", metavar="fail|warn", help="warn: inconclusive alone ends with 0."),
    ] = "fail",
    junit: Annotated[Path | None, file_option("--junit", "Write the verdicts as JUnit XML.")] = None,
    summary: Annotated[Path | None, file_option("--summary", "Write a markdown summary.")] = None,
    json: Annotated[Path | None, file_option("--json", "Write the verdicts as JSON.")] = None,
    page: Annotated[
        Path | None, file_option("--page", "Write the run's page with the verdicts, one HTML file.")
    ] = None,
    image_base: Annotated[
        str | None,
        typer.Option("--image-base", metavar="URL", help="Where the run folders lie, for images in the summary."),
    ] = None,
    ledger: LedgerPath = None,
) -> int:
    """Verdicts: did a variant lose more than is allowed?

    The suite's [limits] say what is allowed; those of the baseline count. Ends with 0 if all that is gated
    passed, 1 if something failed, 5 if it is inconclusive or invalid.

    Examples:
      hotart-bench gate runs/new --baseline baseline.json
      hotart-bench gate runs/new --baseline runs/old --junit gate.xml
      hotart-bench gate runs/new --baseline baseline.json --page gate.html
      hotart-bench gate runs/new --candidate spo --reference base
    """
    options.check_known((inconclusive,), "--inconclusive", ("fail", "warn"), HELP)
    _refuse_overwriting(baseline, {"--junit": junit, "--summary": summary, "--json": json, "--page": page})
    mode = cast(Inconclusive, inconclusive)
    with show_progress(quiet=False) as progress:
        sides = read_sides(run, baseline, progress)
    found = _check(sides, choose_pairs(sides, candidate, reference), run, quality_only=other_machine)
    _keep(found, run)
    if junit is not None:
        _write(junit, junit_xml(found, inconclusive=mode))
    if summary is not None:
        _write(summary, _summary(found, sides, image_base))
    if json is not None:
        _write(json, gate_json(found))
    if page is not None:
        _write_page(page, sides.run, found)
    print_gate(found)
    for line in github_annotations(found) if os.environ.get("GITHUB_ACTIONS") == "true" else ():
        show_command(line)
    beside = () if found.baseline_is_run else (Path(found.baseline).parent,)
    place = find_ledger(ledger, *beside)
    if place is not None:
        _note(place, sides, found)
    return exit_code(found, mode)


def _summary(found: Gate, sides: Sides, image_base: str | None) -> str:
    frozen = None if found.baseline_is_run else find_pictures(found.baseline, found.baseline_id)
    return summary_markdown(found, sides.run, sides.reference_run, image_base=image_base, frozen=frozen)


def _write_page(path: Path, run: Run, found: Gate) -> None:
    """The run's page; one that cannot be made changes no verdict."""
    try:
        _write(path, gate_page(run, found))
    except HotartError as error:
        say(f"--page: {path} is not written: {error.message}")


def _note(place: Path, sides: Sides, found: Gate) -> None:
    """Notes a gate in the ledger; one that cannot be written changes no verdict."""
    try:
        note_in_ledger(place, _tried(sides, found))
    except HotartError as error:
        say(f"The gate is not noted in the ledger: {error.message}")


def _tried(sides: Sides, found: Gate) -> LedgerEntry:
    gated = {one.candidate for one in found.verdicts}
    variants = [one for one in sides.run.info.variants if one.name in gated]
    what = f"The run {resolved(sides.run.path).name} was gated against {Path(found.baseline).name}: {found.outcome}."
    facts = {"run": found.run_id, "baseline run": found.baseline_id, "outcome": found.outcome}
    facts |= {"protocol": found.protocol_digest, "candidates": ", ".join(sorted(gated))}
    facts |= {"baseline": sides.reference.checksum} if sides.reference.checksum else {}
    return new_entry("tried", what, files_of(variants), facts)


def _check(sides: Sides, pairs: Sequence[tuple[str, str]], run: str, *, quality_only: bool) -> Gate:
    return check_limits(
        sides.candidate,
        sides.reference,
        pairs,
        quality_only=quality_only,
        prompts=sides.run.info.suite.prompts,
        notes=sides.notes,
        run=run,
        baseline=sides.baseline,
        baseline_is_run=sides.reference_run is not None,
        time=utc_now(),
    )


def exit_code(found: Gate, inconclusive: Inconclusive) -> int:
    """0 passed, 1 failed, 5 inconclusive or invalid; "warn" lets inconclusive alone end with 0."""
    return 0 if found.outcome == "inconclusive" and inconclusive == "warn" else EXIT_CODES[found.outcome]


def _refuse_overwriting(baseline: str | None, outputs: dict[str, Path | None]) -> None:
    """A file that is written must be neither the baseline nor another one that is written."""
    taken = {} if baseline is None else {resolved(baseline): "--baseline"}
    for flag, path in outputs.items():
        if path is None:
            continue
        other = taken.setdefault(resolved(path), flag)
        if other != flag:
            raise UsageError(f"{flag}: {path} is what {other} names already.", HELP)


def _keep(found: Gate, run: str) -> None:
    """Puts the gate into the run folder, for its report; one that cannot be written changes no verdict."""
    try:
        path = write_gate(run, found)
    except MachineError as error:
        say(f"The verdicts are not kept for the report: {error.message}")
    else:
        say(f"Kept in {path}; `hotart-bench report {argument(path.parent)}` shows it.")


def _write(path: Path, text: str) -> None:
    make_folder(path.parent)
    write_whole(path, text.encode())


# --- what is compared: the two sides, and which of their variants are paired -------------------


@dataclass(frozen=True)
class Sides:
    """Candidate and reference, frozen, with the runs that they were frozen from."""

    run: Run
    candidate: Baseline
    reference: Baseline
    reference_run: Run | None
    """None where the reference is a frozen file."""
    baseline: str
    """The reference's path as it was given; the run's own where two of its variants are compared."""
    notes: tuple[str, ...] = ()
    """On images that are gone."""


def read_sides(run: str, baseline: str | None, progress: Progress | None = None) -> Sides:
    """Both sides of a gate; without a baseline the run is both.

    Raises:
        UsageError: there is no run or no baseline, or a run is limited.
        IncomparableError, InvalidError, MachineError: as ``load_run``, ``freeze`` and ``read_baseline``.
    """
    if is_url(baseline) and not names_run(str(baseline)):
        raise UsageError(
            f"--baseline: there is no run at {baseline}, and a frozen baseline is read from a file of this machine.",
            "bring the file here and give its path",
        )
    there = None if baseline is None else at_hand(baseline)
    if baseline is not None and there is not None and not there.exists():
        raise UsageError(
            f"--baseline: there is nothing at {baseline}; a gate without a baseline has no verdict.",
            f"make one from an accepted run: hotart-bench baseline RUN -o {argument(baseline)}",
        )
    loaded = load_run(run)
    ours, notes = freeze_to_check(loaded, progress)
    if baseline is None or there is None or resolved(folder_of(there)) == resolved(loaded.path):
        return Sides(loaded, ours, ours, loaded, baseline or run, notes)
    if there.is_dir() or there.name == INFO:
        other = load_run(baseline)
        theirs, more = freeze_to_check(other, progress)
        return Sides(loaded, ours, theirs, other, baseline, (*notes, *more))
    return Sides(loaded, ours, read_baseline(there), None, baseline, notes)


def choose_pairs(sides: Sides, candidate: str | None, reference: str | None) -> tuple[tuple[str, str], ...]:
    """(candidate, reference) variants: the pair that the flags name, else those of like name.

    A variant of the baseline that the run lacks is paired all the same, so that it comes out as invalid.

    Raises:
        UsageError: an unknown variant, one of the two where both are needed, or a variant against itself.
    """
    ours, theirs = by_name(sides.candidate), by_name(sides.reference)
    within = sides.reference is sides.candidate
    options.check_known(candidate and (candidate,), "--candidate", list(ours), HELP)
    options.check_known(reference and (reference,), "--reference", list(theirs), HELP)
    if within and (candidate is None or reference is None):
        raise UsageError(
            "Two variants of one run are gated with --candidate and --reference; against another run or a frozen "
            f"baseline, with --baseline. The run has {', '.join(ours)}.",
            HELP,
        )
    if candidate is None and reference is None:
        pairs = like_named(sides.candidate, sides.reference)
    else:
        pairs = (_across(candidate, reference, list(ours), list(theirs)),)
    for one, other in pairs:
        _refuse_itself(sides, ours.get(one), theirs[other])
    return pairs


def by_name(frozen: Baseline) -> dict[str, FrozenVariant]:
    """The variants of a frozen run by name, in its order."""
    return {variant.fingerprint.name: variant for variant in frozen.variants}


def _across(candidate: str | None, reference: str | None, ours: list[str], theirs: list[str]) -> tuple[str, str]:
    """The pair where at least one name was given; the other side's is the like one."""
    one, other = candidate or reference, reference or candidate
    if one is None or one not in ours:
        raise UsageError(f"--reference {other} has no like-named variant in the run; name one with --candidate.", HELP)
    if other is None or other not in theirs:
        raise UsageError(
            f"--candidate {one} has no like-named variant in the baseline, which has {', '.join(theirs)}; "
            "name one with --reference.",
            HELP,
        )
    return one, other


def _refuse_itself(sides: Sides, ours: FrozenVariant | None, theirs: FrozenVariant) -> None:
    """The same weights in the same run are the same images: such a gate could only pass."""
    if ours is None or sides.candidate.run_id != sides.reference.run_id:
        return
    same = ours.fingerprint.name == theirs.fingerprint.name and ours.fingerprint.digest == theirs.fingerprint.digest
    if same:
        raise UsageError(
            f"The baseline {sides.baseline} is of the very run {sides.run.path}: {ours.fingerprint.name} would be "
            "gated against itself.",
            "Name another run, or two variants of this one with --candidate and --reference.",
        )


# --- the verdicts as a table, with a sentence for each that needs one ----------------------------


def print_gate(gate: Gate) -> None:
    """Prints on stdout the verdicts pair by pair, a sentence for each that did not pass, the notes, the whole."""
    for pair in dict.fromkeys((verdict.candidate, verdict.reference) for verdict in gate.verdicts):
        of_baseline = "" if gate.run == gate.baseline else f" of {gate.baseline}"
        show(f"{pair[0]} against {pair[1]}{of_baseline}\n")
        _print_verdicts([one for one in gate.verdicts if (one.candidate, one.reference) == pair])
    not_passed = [one for one in worst_first(gate.verdicts) if one.outcome != "pass"]
    for verdict in not_passed:
        show(f"{WORDS[verdict.outcome].capitalize()}: {verdict.sentence}")
    if not_passed:
        show()
    equal = dict.fromkeys(one.candidate for one in gate.verdicts if one.equal_weights)
    same = f"The weights are equal on both sides: {', '.join(equal)}." if equal else None
    for note in filter(None, (same, *gate.notes, unexplained(gate))):
        show(f"Note: {note}")
    for finding in gate.findings:
        show(f"For information: {finding.sentences[0]}")
    counts = Counter(verdict.outcome for verdict in gate.verdicts)
    parts = [f"{counts[outcome]} {WORDS[outcome]}" for outcome in WORST_FIRST if counts[outcome]]
    show(
        f"The gate {'' if gate.outcome in ('pass', 'fail') else 'is '}{WORDS[gate.outcome]}: {MEANING[gate.outcome]} "
        f"(of {plural(len(gate.verdicts), 'verdict')}: {', '.join(parts) or 'none'})."
    )


def _print_verdicts(verdicts: Sequence[Verdict]) -> None:
    rows = []
    for verdict in verdicts:
        found = formatted(verdict)
        numbers = [found.reference, found.candidate, found.loss, found.interval, found.margin, found.detectable]
        rows.append([verdict.name, WORDS[verdict.outcome], verdict.training_overlap or "", *numbers])
    change = "loss or shift" if any(one.shift is not None for one in verdicts) else "loss"
    headings = ("reference", "candidate", change, "interval", "allowed", "detectable")
    print_table({"gated": "name", "outcome": "name", "overlap": "name", **dict.fromkeys(headings, "number")}, rows)
    show()
