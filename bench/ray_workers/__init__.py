"""Rendering on many GPUs and machines: workers on a Ray cluster draw, this process writes the run folder.

A worker holds one pipeline on one device of its own. What it is given is a planned batch of the suite, so its
images are the same bytes as from one process on that kind of device. Neither Ray nor torch is imported before
there is something to render.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial

from bench.comparability import check_environment
from bench.errors import UsageError
from bench.formatting import plural
from bench.pictures.parameters import Captions
from bench.pictures.png import write_picture
from bench.ray_workers.pool import Batch, Work, WorkerPool
from bench.records import Progress, Suite, Variant
from bench.steps.plan import StepJob
from bench.store import RunFolder
from bench.suite.planned_images import is_wanted, missing_batches

__all__ = ["WorkerPool", "render_on_workers", "score_steps_on_workers"]

WRITERS = 4
"""Threads that write image files; on an object store each file is a request."""


def render_on_workers(
    suite: Suite,
    folder: RunFolder,
    pool: WorkerPool,
    *,
    variants: Sequence[Variant],
    only: Collection[tuple[str, int]] | None = None,
    progress: Progress | None = None,
) -> int:
    """Render what the run folder lacks of these variants; returns the number of images that were made.

    Batches, and of them what is written, are those of ``bench.render.render``, and so are their images, byte for byte,
    on the kind of device and the number of threads that the run was begun with. A batch is on record once all its
    images are written; batches of a worker that is lost are drawn again by others.

    Raises:
        UsageError: the folder has no ``run.json`` yet.
        IncomparableError: a worker is in another environment than the run.
        WeightsError: a worker cannot load a variant.
        MachineError: workers are lost again and again, or the folder cannot be written.
    """
    from bench.render import is_audited, keep_audit  # imports torch

    info = folder.info
    if info is None:
        raise UsageError(f"{folder.path}: has no run.json yet.")
    renders = folder.renders()
    work = Work(
        Batch(variant, images)
        for variant in variants
        for images in missing_batches(suite, variant.name, renders, folder.path, only)
    )
    total, done = work.images, 0
    captions = Captions(info)
    digests = {known.name: known.digest for known in info.variants}
    audited = {variant.name for variant in variants if is_audited(folder, variant)}

    def tell(note: str) -> None:
        if progress is not None:
            progress("render", done, total, note)

    tell("waiting for Ray workers")
    drawn = pool.draw(work, digests, audited, partial(check_environment, info))
    with ThreadPoolExecutor(WRITERS) as writers, closing(drawn) as batches:
        for (variant, images, _), (results, audit, warning) in batches:
            if audit is not None and variant.name not in audited:
                keep_audit(folder, variant, audit)
                audited.add(variant.name)
            if warning:
                folder.add_notes([f"Variant {variant.name}: {warning}."])
            wanted = [pair for pair in zip(images, results, strict=True) if is_wanted(pair[0], only)]
            write = partial(write_picture, folder, captions, variant.name)
            folder.append_renders(list(writers.map(write, *zip(*wanted, strict=True))))
            done += len(images)
            tell(f"{variant.name}, {plural(pool.size, 'worker')}")
    return done


def score_steps_on_workers(
    suite: Suite, folder: RunFolder, pool: WorkerPool, jobs: Sequence[StepJob], *, progress: Progress | None = None
) -> int:
    """Score steps of a run's images on the workers; the number of records that were added.

    Paths and scores are those of ``bench.steps.paths.score_steps`` on that kind of device.

    Raises:
        UsageError: the folder has no ``run.json`` yet, or a metric is for another family than the checkpoint's.
        IncomparableError: a worker is in another environment than the run, or a path ends in other pixels.
        WeightsError, MachineError: as ``render_on_workers``.
    """
    from bench.steps.paths import keep  # imports torch

    info = folder.info
    if info is None:
        raise UsageError(f"{folder.path}: has no run.json yet.")
    variants = {variant.name: variant for variant in suite.variants}
    work = Work(Batch(variants[job.variant], job.images, job) for job in jobs)
    digests = {known.name: known.digest for known in info.variants}
    done = added = 0
    if progress is not None:
        progress("steps", 0, work.images, "waiting for Ray workers")
    painted = pool.draw(work, digests, frozenset(digests), partial(check_environment, info))
    with closing(painted) as batches:
        for batch, found in batches:
            if batch.job is not None:
                added += keep(folder, batch.job, found)
            done += len(batch.images)
            if progress is not None:
                progress("steps", done, work.images, f"{batch.variant.name}, {plural(pool.size, 'worker')}")
    return added
