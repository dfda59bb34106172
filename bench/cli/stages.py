"""What ``run``, ``sweep`` and the single stages share: check the flags, do the work, say how it went."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from bench.cli import options
from bench.cli.printing import say, show
from bench.cli.progress import show_progress
from bench.formatting import argument, plural
from bench.questions.registry import registry_of_suite
from bench.records import RunOptions, StepPlan, Suite
from bench.run import Outcome, run_all, run_stage
from bench.score.plan import set_notes
from bench.suite.step_ranges import step_notes

Stage = Literal["all", "render", "score", "steps", "measure", "report"]


def do_stage(
    stage: Stage,
    suite: Suite,
    folder: str | Path,
    quiet: bool,
    *,
    variants: str | None = None,
    metrics: str | None = None,
    device: str = "auto",
    weights_dir: Path | None = None,
    metric_dtype: str | None = None,
    ray: str | None = None,
    fresh: bool = False,
    allow_remote: bool = False,
    steps: StepPlan | None = None,
    only: frozenset[tuple[str, int]] | None = None,
    notes: tuple[str, ...] = (),
) -> None:
    """Checks the flags, does the work with its progress shown, and tells how it went."""
    work: Callable[..., Outcome] = run_all if stage == "all" else functools.partial(run_stage, stage)
    chosen_variants = options.variants_of(suite, variants)
    chosen_metrics = options.split_names(metrics, "--metrics")
    if chosen_metrics is not None:
        options.check_known(
            chosen_metrics, "--metrics", sorted(registry_of_suite(suite).scored), "hotart-bench list metrics"
        )
    options.check_device(device)
    options.check_weights_dir(weights_dir)
    dtype = options.check_dtype(metric_dtype)
    for note in () if quiet else (*notes, *suite.notes, *step_notes(suite), *_set_notes(stage, suite, chosen_metrics)):
        say(note)
    with show_progress(quiet) as progress:
        outcome = work(
            suite,
            folder,
            RunOptions(
                variants=chosen_variants,
                metrics=chosen_metrics,
                device=device,
                fresh=fresh,
                weights_dir=weights_dir,
                metric_dtype=dtype,
                ray=ray,
                allow_remote=allow_remote,
                steps=steps,
                only=only,
                notes=notes,
            ),
            progress=progress,
        )
    _tell(stage, outcome, quiet, str(folder), len(suite.variants))


def _set_notes(stage: Stage, suite: Suite, metrics: Sequence[str] | None) -> tuple[str, ...]:
    """What can be told before of set metrics that will have no number, where the stage scores."""
    if stage not in ("all", "score"):
        return ()
    known = registry_of_suite(suite).scored
    return set_notes(suite, [known[name] for name in metrics or suite.metrics if name in known])


def _tell(stage: Stage, outcome: Outcome, quiet: bool, folder: str, variants: int) -> None:
    """Notes and counts on stderr, and on stdout the path of what was made; of a run on a store, its URL."""
    if not quiet or outcome.failed or outcome.missing:
        for note in outcome.notes:
            say(note)
    if not quiet:
        counts = ", ".join(
            (plural(outcome.images, "image"), plural(outcome.scores, "score"), plural(outcome.timings, "timing"))
        )
        counts += f", {plural(outcome.missing, 'image')} still to render" if outcome.missing else ""
        say(f"{'Nothing was left to do' if outcome.done_before else 'Done'}: {counts} in {folder}.")
        for finding in outcome.findings:
            say(f"  {finding}")
        if stage in ("all", "report"):
            verb, with_what = ("compare", "") if variants > 1 else ("gate", " --baseline PATH")
            say(f"  next: hotart-bench {verb} {argument(folder)}{with_what}")
    made = stage in ("all", "report") and (Path(outcome.path) / "report.html").is_file()
    show(f"{folder.rstrip('/')}/report.html" if made else folder)
