"""What is told of a run folder when the work is done."""

from __future__ import annotations

from collections.abc import Sequence

from bench.records import Record, Render
from bench.run.asked import Work
from bench.run.standing import unrendered
from bench.store import RunFolder, load_run


class Outcome(Record, frozen=True):
    """What a run folder holds after the work, and whether there was any."""

    path: str
    images: int
    failed: int
    scores: int
    missing: int
    """Images that were asked for and have no record."""
    timings: int
    notes: tuple[str, ...]
    done_before: bool


def outcome_of(work: Work, done_before: bool) -> Outcome:
    """Count what a run folder holds; ``done_before`` says that there was nothing to do."""
    folder = work.folder
    renders = folder.renders()
    failed = [render for render in renders if render.error is not None]
    return Outcome(
        path=str(folder.path),
        images=len(renders) - len(failed),
        failed=len(failed),
        scores=len(folder.scores()),
        missing=unrendered(work.suite, folder, work.variants),
        timings=len(folder.timings()),
        notes=_outcome_notes(folder, failed, len(renders)),
        done_before=done_before,
    )


def _outcome_notes(folder: RunFolder, failed: Sequence[Render], images: int) -> tuple[str, ...]:
    """What the user should know of the folder: failed images, cut prompts, prompts that were left out."""
    from bench.report.doubts import cut_notes, left_out_notes

    run = load_run(folder.path)
    one = f"{failed[0].variant}/{failed[0].case}: {failed[0].error}" if failed else ""
    broken = (f"{len(failed)} of {images} images failed, such as {one}.",) if failed else ()
    return (*broken, *cut_notes(run), *left_out_notes(run.info.suite))
