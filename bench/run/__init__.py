"""The stages in order: render, score, measure, report. Imports torch only when there is work for it."""

from __future__ import annotations

from pathlib import Path

from bench.records import Progress, RunOptions, Suite
from bench.run.stages import run_stages
from bench.run.status import STAGES, STEPS_TOO, Outcome, Stage

__all__ = ["STAGES", "Outcome", "RunOptions", "Stage", "labelled", "run_all", "run_stage"]

_DEFAULTS = RunOptions()


def labelled(progress: Progress | None, label: str) -> Progress:
    """Progress whose stages are told as those of one of several runs: ``label: stage``."""

    def tell(stage: str, done: int, total: int, note: str = "") -> None:
        if progress is not None:
            progress(f"{label}: {stage}", done, total, note)

    return tell


def run_all(
    suite: Suite, path: Path | str, options: RunOptions = _DEFAULTS, *, progress: Progress | None = None
) -> Outcome:
    """The main job: every stage that the run folder still lacks.

    Args:
        suite: what is to be run.
        path: the run folder, or the URL of one on an object store; made where it is missing, continued where it
            holds the same protocol.
        options: what is worked on, where, and with which weights.
        progress: told how far each stage is.

    Raises:
        UsageError, WeightsError, IncomparableError, MachineError: as the stages do.
        InvalidError: every image failed, or an image is not the one that was made: it changed or is gone.
    """
    return run_stages(STAGES if suite.step_metrics is None else STEPS_TOO, suite, path, options, progress)


def run_stage(
    stage: Stage, suite: Suite, path: Path | str, options: RunOptions = _DEFAULTS, *, progress: Progress | None = None
) -> Outcome:
    """One stage alone; arguments and errors as ``run_all``.

    Raises:
        InvalidError: the stage needs images and the folder has none.
    """
    return run_stages((stage,), suite, path, options, progress)
