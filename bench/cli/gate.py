"""``gate``: whether a run lost more than is allowed."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from bench.cli import options
from bench.cli.options import RunFolder, file_option
from bench.cli.printing import Column, print_table, printable, say
from bench.cli.targets import at_hand
from bench.cli.verbs import group, verb
from bench.documents import utc_now
from bench.errors import MachineError, UsageError
from bench.formatting import plural
from bench.records import Baseline, FrozenVariant, Gate, Outcome, Run, Verdict

# What a gate compares: the two sides behind RUN and --baseline, and which of their variants are paired.

HELP = "hotart-bench gate --help"


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


def read_sides(run: str, baseline: str | None) -> Sides:
    """Both sides of a gate; without a baseline the run is both.

    Raises:
        UsageError: there is no run or no baseline, or a run is limited.
        IncomparableError, InvalidError, MachineError: as ``load_run``, ``freeze`` and ``read_baseline``.
    """
    from bench.baseline import freeze, read_baseline
    from bench.store import load_run
    from bench.store.journal import INFO
    from bench.store.reading import folder_of

    there = None if baseline is None else at_hand(baseline)
    if baseline is not None and there is not None and not there.exists():
        raise UsageError(
            f"--baseline: there is nothing at {baseline}; a gate without a baseline has no verdict.",
            f"make one from an accepted run: hotart-bench baseline RUN -o {shlex.quote(baseline)}",
        )
    here = at_hand(run)
    loaded = load_run(here)
    ours = freeze(loaded)
    if baseline is None or there is None or folder_of(there).resolve() == folder_of(here).resolve():
        return Sides(loaded, ours, ours, loaded, baseline or run)
    if there.is_dir() or there.name == INFO:
        other = load_run(there)
        return Sides(loaded, ours, freeze(other), other, baseline)
    return Sides(loaded, ours, read_baseline(there), None, baseline)


def choose_pairs(sides: Sides, candidate: str | None, reference: str | None) -> tuple[tuple[str, str], ...]:
    """(candidate, reference) variants: the pair that was asked for, else those of like name.

    A variant of the baseline that the run lacks is paired all the same, so that it comes out as invalid.

    Raises:
        UsageError: an unknown variant, one of the two where both are needed, or a variant against itself.
    """
    from bench.gate import like_named

    ours, theirs = by_name(sides.candidate), by_name(sides.reference)
    within = sides.reference is sides.candidate
    listing = f"hotart-bench compare {shlex.quote(sides.run.path)}"
    options.check_known(candidate and (candidate,), "--candidate", list(ours), listing)
    options.check_known(reference and (reference,), "--reference", list(theirs), listing)
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


# A gate as a table, with a sentence for each verdict that needs one.

MEANING: dict[Outcome, str] = {
    "pass": "nothing that is gated lost more than its limit allows",
    "fail": "something that is gated lost more than its limit allows",
    "inconclusive": "what was measured does not decide it, which is no pass",
    "invalid": "something is missing, is broken or tells nothing, so there is no verdict",
}


def print_gate(gate: Gate) -> None:
    """Prints on stdout the verdicts pair by pair, a sentence for each that did not pass, the notes, the whole."""
    from bench.gate.outcomes import WORDS, WORST_FIRST, unexplained, worst_first

    for pair in dict.fromkeys((verdict.candidate, verdict.reference) for verdict in gate.verdicts):
        of_pair = [one for one in gate.verdicts if (one.candidate, one.reference) == pair]
        print(printable(f"{pair[0]} against {pair[1]}{_whose(gate)}\n"))
        _print_verdicts(of_pair)
    told = [one for one in worst_first(gate.verdicts) if one.outcome != "pass"]
    for verdict in told:
        print(printable(f"{WORDS[verdict.outcome].capitalize()}: {verdict.sentence}"))
    if told:
        print()
    equal = dict.fromkeys(one.candidate for one in gate.verdicts if one.equal_weights)
    same = f"The weights are equal on both sides: {', '.join(equal)}." if equal else None
    for note in filter(None, (same, *gate.notes, unexplained(gate))):
        print(printable(f"Note: {note}"))
    counts = Counter(verdict.outcome for verdict in gate.verdicts)
    parts = [f"{counts[outcome]} {WORDS[outcome]}" for outcome in WORST_FIRST if counts[outcome]]
    print(
        f"The gate {'' if gate.outcome in ('pass', 'fail') else 'is '}{WORDS[gate.outcome]}: {MEANING[gate.outcome]} "
        f"(of {plural(len(gate.verdicts), 'verdict')}: {', '.join(parts) or 'none'})."
    )


def _whose(gate: Gate) -> str:
    return "" if gate.run == gate.baseline else f" of {gate.baseline}"


def _print_verdicts(verdicts: Sequence[Verdict]) -> None:
    from bench.gate.outcomes import WORDS, formatted

    rows = []
    for verdict in verdicts:
        numbers = formatted(verdict)
        rows.append(
            [
                verdict.name,
                WORDS[verdict.outcome],
                numbers.reference,
                numbers.candidate,
                numbers.loss,
                numbers.interval,
                numbers.margin,
                numbers.detectable,
            ]
        )
    headings = ("reference", "candidate", "loss", "interval", "allowed", "detectable")
    print_table([Column("gated"), Column("outcome"), *(Column(one, number=True) for one in headings)], rows)
    print()


# ``gate``: whether a run lost more than is allowed.

app = group("Regression checks.")

EXIT_CODES: dict[Outcome, int] = {"pass": 0, "fail": 1, "inconclusive": 5, "invalid": 5}

Inconclusive = Literal["fail", "warn"]


@verb(
    app,
    "gate",
    "hotart-bench gate runs/new --baseline baseline.json",
    "hotart-bench gate runs/new --baseline runs/old --junit gate.xml",
    "hotart-bench gate runs/new --candidate spo --reference base",
)
def gate(
    run: RunFolder,
    baseline: Annotated[
        str | None,
        typer.Option("--baseline", metavar="PATH", help="A frozen baseline, or another run folder."),
    ] = None,
    candidate: Annotated[
        str | None,
        typer.Option("--candidate", metavar="V", help="The variant that is judged.  [default: each, by its name]"),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option("--reference", metavar="V", help="What it is judged against.  [default: the like-named one]"),
    ] = None,
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
    image_base: Annotated[
        str | None,
        typer.Option("--image-base", metavar="URL", help="Where the run folders lie, for images in the summary."),
    ] = None,
) -> int:
    """Verdicts: did a variant lose more than is allowed?

    The suite's [limits] say what is allowed; those of the baseline count. Ends with 0 if all that is gated
    passed, 1 if something failed, 5 if it is inconclusive or invalid.
    """

    options.check_known((inconclusive,), "--inconclusive", ("fail", "warn"), "hotart-bench gate --help")
    _refuse_overwriting(baseline, {"--junit": junit, "--summary": summary, "--json": json})
    mode = cast(Inconclusive, inconclusive)
    sides = read_sides(run, baseline)
    found = _judge(sides, choose_pairs(sides, candidate, reference), run, quality_only=other_machine)
    _keep(found, run)
    _write_files(found, sides, mode, junit=junit, summary=summary, json=json, image_base=image_base)
    _print(found)
    return exit_code(found, mode)


def exit_code(found: Gate, inconclusive: Inconclusive) -> int:
    """0 passed, 1 failed, 5 inconclusive or invalid; "warn" lets inconclusive alone end with 0."""
    return 0 if found.outcome == "inconclusive" and inconclusive == "warn" else EXIT_CODES[found.outcome]


def _refuse_overwriting(baseline: str | None, outputs: dict[str, Path | None]) -> None:
    """A file that is written must be neither the baseline nor another one that is written."""
    taken = {} if baseline is None else {Path(baseline).resolve(): "--baseline"}
    for flag, path in outputs.items():
        if path is None:
            continue
        other = taken.setdefault(path.resolve(), flag)
        if other != flag:
            raise UsageError(f"{flag}: {path} is what {other} names already.", "hotart-bench gate --help")


def _judge(sides: Sides, pairs: Iterable[tuple[str, str]], run: str, *, quality_only: bool) -> Gate:
    from bench.gate import check_limits

    return check_limits(
        sides.candidate,
        sides.reference,
        tuple(pairs),
        quality_only=quality_only,
        run=run,
        baseline=sides.baseline,
        baseline_is_run=sides.reference_run is not None,
        time=utc_now(),
    )


def _keep(found: Gate, run: str) -> None:
    """Puts the gate into the run folder, for its report; one that cannot be written changes no verdict."""
    from bench.store import write_gate

    try:
        path = write_gate(run, found)
    except MachineError as error:
        say(f"The verdicts are not kept for the report: {error.message}")
    else:
        say(f"Kept in {path}; `hotart-bench report {shlex.quote(str(path.parent))}` shows it.")


def _write_files(
    found: Gate,
    sides: Sides,
    inconclusive: Inconclusive,
    *,
    junit: Path | None,
    summary: Path | None,
    json: Path | None,
    image_base: str | None,
) -> None:
    from bench.gate.ci import junit_xml
    from bench.gate.summary import summary_markdown
    from bench.store import gate_json

    if junit is not None:
        _write(junit, junit_xml(found, inconclusive=inconclusive))
    if summary is not None:
        _write(summary, summary_markdown(found, sides.run, sides.reference_run, image_base=image_base))
    if json is not None:
        _write(json, gate_json(found))


def _write(path: Path, text: str) -> None:
    from bench.store.journal import write_whole, writing

    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text.encode())


def _print(found: Gate) -> None:
    from bench.gate.ci import github_annotations as annotations

    try:
        print_gate(found)
        for line in annotations(found) if os.environ.get("GITHUB_ACTIONS") == "true" else ():
            print(line)
    except BrokenPipeError:
        # Whoever read it left early (`| head`); the flush at the end meets it again, and the verdict stands.
        return
