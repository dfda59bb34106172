"""``gate``: whether a run lost more than is allowed."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from bench.cli import options
from bench.cli.options import RunFolder, file_option
from bench.cli.printing import say, utc_now
from bench.cli.verbs import group, verb
from bench.errors import MachineError, UsageError
from bench.records import Gate, Outcome

if TYPE_CHECKING:
    from bench.cli.gate_sides import Sides

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
    from bench.cli.gate_sides import choose_pairs, read_sides

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
    from bench.gate import judge

    return judge(
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
    from bench.gate.junit import junit_xml
    from bench.gate.summary import summary_markdown
    from bench.store.verdicts import gate_json

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
    from bench.cli.verdicts import print_gate
    from bench.gate.annotations import annotations

    try:
        print_gate(found)
        for line in annotations(found) if os.environ.get("GITHUB_ACTIONS") == "true" else ():
            print(line)
    except BrokenPipeError:
        # Whoever read it left early (`| head`); the flush at the end meets it again, and the verdict stands.
        return
