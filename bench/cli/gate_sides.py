"""What a gate compares: the two sides behind RUN and --baseline, and which of their variants are paired."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from bench.cli import options
from bench.cli.places import at_hand
from bench.errors import UsageError
from bench.records import Baseline, FrozenVariant, Run

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
    from bench.store.reading import INFO, folder_of

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
