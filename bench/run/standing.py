"""How far a run has come: what its folder lacks, and whether ``run.json`` may call it complete. Imports no torch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import msgspec

from bench.cells import missing_batches, missing_cells
from bench.errors import HotartError
from bench.measure import open_jobs
from bench.records import Status, Suite, Variant
from bench.score import missing_scores
from bench.store import RunFolder


def unrendered(suite: Suite, folder: RunFolder, chosen: Sequence[Variant]) -> int:
    """How many images of these variants have no record, or have lost their file."""
    renders = folder.renders()
    return sum(len(missing_cells(suite, variant.name, renders, folder.path)) for variant in chosen)


def unrendered_batches(suite: Suite, folder: RunFolder, chosen: Sequence[Variant]) -> int:
    """How many planned batches those images are in."""
    renders = folder.renders()
    return sum(len(missing_batches(suite, variant.name, renders, folder.path)) for variant in chosen)


def is_complete(folder: RunFolder) -> bool:
    """Whether the folder holds every image, score and timing of the suite in its ``run.json``."""
    info = folder.info
    if info is None:
        return False
    suite = info.suite
    checks: tuple[Callable[[], bool], ...] = (
        lambda: not unrendered(suite, folder, suite.variants),
        lambda: not missing_scores(folder, suite.metrics),
        lambda: not open_jobs(suite, suite.variants, folder.timings(), info.machine.device),
    )
    return all(check() for check in checks)


def mark_failed(folder: RunFolder) -> None:
    """Let ``run.json`` say that the run ended with an error, unless it is complete all the same."""
    info = folder.info
    if info is not None and info.status == "started":
        with contextlib.suppress(HotartError, OSError):  # it may be the disk that failed
            status: Status = "complete" if is_complete(folder) else "failed"
            folder.write_info(msgspec.structs.replace(info, status=status))


def settle(folder: RunFolder, end: str | None) -> None:
    """Make the status in ``run.json`` what is true now; the end of the run is ``end``, or stays where it is None.

    A run that failed stays so until it is complete.
    """
    info = folder.info
    if info is None:
        return
    unfinished: Status = "failed" if info.status == "failed" else "started"
    status = "complete" if is_complete(folder) else unfinished
    new = msgspec.structs.replace(info, status=status, end=end if end is not None else info.end)
    if new != info:
        folder.write_info(new)
