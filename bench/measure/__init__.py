"""Variants x rounds, interleaved, each timed in a fresh child process (``bench.measure.worker``).

Processes differ more from one another than images within one do, and a machine drifts; so every round runs
each variant once in a new process (A B C A B C), and the figures are compared over rounds. Some of them are started
together, so that their imports, which no figure holds, are done side by side; then one is timed after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bench.errors import UsageError
from bench.formatting import did_you_mean, listed, plural
from bench.machine import has_context, release_memory
from bench.measure.process import WORKER, Reply, Request, children_at_once, run_child, start_children
from bench.measure.stopwatch import Shot, device_kind
from bench.records import Progress, Suite, Timing, TimingName, Variant
from bench.store import RunFolder
from bench.suite import image_seed
from bench.suite.runtimes import runtime_of

Job = tuple[Variant, int]
"""One child to start: a variant and the number of the round, from 0."""
ALWAYS: tuple[TimingName, ...] = (
    *("load", "first_image", "text_encode", "denoise_step", "vae_decode", "end_to_end"),
    "peak_rss",
)
"""Quantities that every child measures."""


def measure(
    suite: Suite,
    folder: RunFolder,
    *,
    variants: Sequence[str] | None,
    device: str,
    weights_dir: Path | None,
    progress: Progress | None,
    command: Sequence[str] = WORKER,
) -> tuple[int, tuple[str, ...]]:
    """Time each variant in fresh processes and append raw values to ``timings.jsonl``, child by child.

    Latency is of one image at a time (batch 1), the wait that a user feels, whatever batch the suite renders
    with. All values are in seconds, bytes or joules: ``load`` (pipeline from disk to device, without Python's imports),
    ``first_image``, then after ``warmups`` images at full shape and step count ``text_encode``,
    ``denoise_step`` (each step of each image), ``vae_decode`` and ``end_to_end`` (prompt to uint8 pixels in
    host memory) of ``suite.measure.images`` images, the same prompts and seeds for every variant and round;
    ``peak_rss`` (the whole process, loading included), and on a GPU, in a pass of its own, ``peak_allocated`` and
    ``peak_reserved``. With ``suite.measure.batches``, ``per_image_at_batch`` is the seconds of a batch of the suite's
    size over its images, of each after the first. ``nvidia-ml-py`` adds ``peak_process`` and ``energy_per_image``, and
    the conditions of the timing. With ``settings.compile``, ``compile`` is the time in which torch compiles, each time
    from nothing.

    A (variant, round) that the folder already holds completely is skipped.

    Args:
        suite: ``suite.measure`` says how many rounds, images and warm-ups.
        folder: the open run folder.
        variants: names of the variants to time; None for all.
        device: torch device string.
        weights_dir: local weights instead of downloads.
        progress: called with stage ``measure`` and images done and to do.
        command: the child, without arguments of the request; tests give their own.

    Returns:
        How many records were appended, and sentences for ``settings_notes``: how it was timed, and what could not be
        measured.

    Raises:
        UsageError: a name in ``variants`` that the suite does not have.
        WeightsError, MachineError: the child met it, or was killed (out of memory, most often).
        HotartError: the child ended in a way it should not; its last lines of stderr are quoted.
        KeyboardInterrupt: passed on once the child and whatever it started are gone.
    """
    jobs = open_jobs(suite, pick_variants(suite, variants), folder.timings(), device)
    shots = plan_shots(suite)
    replies: list[Reply] = []
    if jobs:
        release_memory()
    for together in _groups(jobs, children_at_once()):
        requests = [_request(suite, job, shots, device, weights_dir) for job in together]
        with start_children(command, requests) as children:
            for job, child in zip(together, children, strict=True):
                report = _image_counter(progress, job, len(replies) * len(shots), len(jobs) * len(shots))
                report(0)
                reply = run_child(child, report)
                folder.append_timings(reply.timings)
                replies.append(reply)
    return sum(len(reply.timings) for reply in replies), outcome_notes(suite, replies)


# --- what is to do -------------------------------------------------------------------------


def pick_variants(suite: Suite, names: Sequence[str] | None) -> tuple[Variant, ...]:
    """Return the suite's variants called ``names``, in the suite's order; all for None.

    Raises:
        UsageError: a name the suite does not have.
    """
    known = {variant.name: variant for variant in suite.variants}
    for name in names or ():
        if name not in known:
            raise UsageError(
                f"Suite {suite.name} has no variant {name!r}{did_you_mean(name, known)}; it has {listed(known)}.",
                "hotart-bench list variants",
            )
    return tuple(variant for name, variant in known.items() if names is None or name in names)


def open_jobs(suite: Suite, variants: Sequence[Variant], timings: Sequence[Timing], device: str) -> tuple[Job, ...]:
    """Return the children to start, in order: round by round, in each the variants one after another."""
    jobs = [(variant, number) for number in range(suite.measure.rounds) for variant in variants]
    return tuple(job for job in jobs if not is_complete(job, timings, suite, device))


def is_complete(job: Job, timings: Sequence[Timing], suite: Suite, device: str) -> bool:
    """Whether ``timings`` hold every name of a job, from one process, with as many images as are planned.

    ``peak_process`` and ``energy_per_image`` are never needed: not every machine can measure them.
    """
    variant, number = job
    found = {t.name: t for t in timings if (t.variant, t.round) == (variant.name, number)}
    needed = {*ALWAYS}
    if suite.settings.compile or runtime_of(variant).compiled:
        needed.add("compile")
    if device_kind(device) in ("cuda", "mps"):
        needed |= {"peak_allocated", "peak_reserved"}
    if suite.measure.batches:
        needed.add("per_image_at_batch")
    if not needed <= found.keys() or len({found[name].process for name in needed}) != 1:
        return False
    if suite.measure.batches and len(found["per_image_at_batch"].values) != suite.measure.batches:
        return False
    images = found["end_to_end"]
    return (len(images.values), len(images.warmups)) == (suite.measure.images, suite.measure.warmups)


def _groups(jobs: Sequence[Job], size: int) -> Iterator[Sequence[Job]]:
    return (jobs[start : start + size] for start in range(0, len(jobs), size))


def plan_shots(suite: Suite) -> tuple[Shot, ...]:
    """Return the images that every child draws: first, warm-ups, timed; over the prompts in turn.

    The timed ones begin with the suite's first prompt; the first image and the warm-ups are of that prompt too.
    """
    plan = suite.measure
    return tuple(_shot(suite, number) for number in [0] * (1 + plan.warmups) + list(range(plan.images)))


def plan_batches(suite: Suite) -> tuple[tuple[Shot, ...], ...]:
    """Return the batches that every child draws for the throughput, the prompts in turn: one more than is timed."""
    size = suite.settings.batch or 1
    count = suite.measure.batches + 1 if suite.measure.batches else 0
    return tuple(tuple(_shot(suite, number * size + place) for place in range(size)) for number in range(count))


def _shot(suite: Suite, number: int) -> Shot:
    sample, place = divmod(number, len(suite.prompts))
    prompt = suite.prompts[place]
    seed = image_seed(suite.seed, prompt.id, sample)
    return Shot(prompt=prompt.text, negative=prompt.negative, seed=seed)


def _request(suite: Suite, job: Job, shots: tuple[Shot, ...], device: str, weights_dir: Path | None) -> Request:
    return Request(
        variant=job[0],
        settings=suite.settings,
        device=device,
        weights_dir=None if weights_dir is None else str(weights_dir),
        round=job[1],
        warmups=suite.measure.warmups,
        shots=shots,
        batches=plan_batches(suite),
        parents=int(has_context()),
    )


def _image_counter(progress: Progress | None, job: Job, before: int, total: int) -> Callable[[int], None]:
    """Turn the count of one child's images into progress over all children's."""

    def report(done: int) -> None:
        if progress is not None:
            progress("measure", before + done, total, f"{job[0].name}, round {job[1] + 1}")

    return report


# --- how it was timed ----------------------------------------------------------------------


def outcome_notes(suite: Suite, replies: Sequence[Reply]) -> tuple[str, ...]:
    """Return sentences on how it was timed; none if nothing was timed.

    What makes single figures weak is said on reading, from the timings and their conditions.
    """
    if not replies:
        return ()
    plan, settings = suite.measure, suite.settings
    threads = listed({str(reply.threads) for reply in replies})
    notes = [
        f"Latency is of one image at a time (batch 1, {settings.width}x{settings.height}, {settings.steps} "
        f"steps): {plural(plan.rounds, 'interleaved round')}, each a fresh process a variant of {plan.images} images "
        f"after the first one and {plan.warmups} to warm up.",
        f"CPU threads of the timing processes: {threads}.",
        "peak_rss is the whole timing process: interpreter, libraries, loading and drawing.",
    ]
    notes += dict.fromkeys(note for reply in replies for note in reply.notes)
    return tuple(notes)
