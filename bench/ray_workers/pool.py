"""The Ray workers of one run: started when they are needed, given batches, replaced when they are lost."""

from __future__ import annotations

import contextlib
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from bench.errors import IncomparableError, MachineError
from bench.machine import package_versions
from bench.pictures.png import PackedImage
from bench.ray_workers import cluster
from bench.records import Audit, Machine, PlannedImage, Suite, Variant
from bench.steps.plan import StepJob

Environment = tuple[Machine, dict[str, str]]
"""Where a worker draws: its machine, and the versions of its packages."""
Result = Any
"""What a worker made of a batch: ``Drawing``, or ``bench.steps.paths.Painted`` where its steps were scored."""
Drawing = tuple[tuple[PackedImage, ...], Audit | None, str]
"""A batch that was drawn; what was loaded and changed for the variant; and a warning about the variant. The last two
only where they are wanted."""
MOST_LOSSES = 3
"""A batch that took so many workers down is not given to another one."""
MOST_FALSE_STARTS = 3
"""So many workers lost in a row before they drew anything: the next would be too."""
IN_FLIGHT = 2
"""Batches that a worker has: one that it draws, and one so that it need not wait. More would pile up."""


class Batch(NamedTuple):
    """One planned batch of one variant."""

    variant: Variant
    images: tuple[PlannedImage, ...]
    job: StepJob | None = None
    """Where its steps are scored too, which of them and by what."""


class Work:
    """The batches that are still to be drawn, by variant, in the suite's order."""

    def __init__(self, batches: Iterable[Batch]) -> None:
        self._waiting: dict[str, deque[Batch]] = {}
        for batch in batches:
            self._waiting.setdefault(batch.variant.name, deque()).append(batch)
        self._losses: Counter[tuple[str, int]] = Counter()
        self.left = sum(len(batches) for batches in self._waiting.values())
        """Batches that are not done, those that a worker has included."""
        self.images = sum(len(batch.images) for batches in self._waiting.values() for batch in batches)
        """Images of all of them, at the start."""

    def next_for(self, loaded: str | None, workers: Mapping[str, int]) -> Batch | None:
        """The next batch for a worker, or None where none waits.

        Of the variant that it has loaded, since another one costs a load; else of the variant with the most
        batches for each of its workers.

        Args:
            loaded: name of the variant that the worker has.
            workers: how many workers have each variant.
        """
        batches = self._waiting.get(loaded or "")
        if not batches:
            batches = max(
                self._waiting.values(),
                key=lambda some: len(some) / (1 + workers.get(some[0].variant.name, 0)) if some else 0,
                default=None,
            )
        return batches.popleft() if batches else None

    def done(self) -> None:
        """A batch was drawn."""
        self.left -= 1

    def back(self, batches: Sequence[Batch]) -> None:
        """The batches of a worker that was lost wait again, first of all.

        Args:
            batches: in the order that the worker had them: it was lost while it drew the first.

        Raises:
            MachineError: the first took ``MOST_LOSSES`` workers down.
        """
        for batch in reversed(batches):
            self._waiting[batch.variant.name].appendleft(batch)
        for batch in batches[:1]:
            which = (batch.variant.name, batch.images[0].batch)
            self._losses[which] += 1
            if self._losses[which] == MOST_LOSSES:
                raise MachineError(
                    f"Batch {which[1]} of variant {which[0]} was given to {MOST_LOSSES} workers and "
                    "each was lost over it, most often for want of memory. What was finished is kept.",
                    "see the workers' logs (ray logs cluster); a smaller `batch` in the suite's "
                    "[settings] needs less memory, and is another protocol",
                )


@dataclass
class Worker:
    """One worker, as the driver sees it."""

    handle: Any
    starting: Any
    """The reference that its environment will come under; None once it is there."""
    variant: str | None = None
    """The variant of the last batch that it was given."""
    batches: dict[Any, Batch] = field(default_factory=dict)
    """Its batches by the reference that their images will come under, in order."""


class WorkerPool:
    """The workers of one run on a Ray cluster: none before ``environment`` or ``draw``, and no more than batches.

    Args:
        address: as ``bench.ray_workers.cluster.connect`` takes it.
        suite: what is drawn.
        device: ``auto``, ``cpu`` or ``cuda``.
        threads: torch threads of a worker on the CPU.
        weights_dir: local weights, at the same path on every machine.
    """

    def __init__(self, address: str, suite: Suite, *, device: str, threads: int, weights_dir: Path | None) -> None:
        self._address, self._suite, self._device, self._threads = address, suite, device, threads
        self._weights_dir = None if weights_dir is None else str(weights_dir.absolute())
        self._resources: tuple[str, int] | None = None
        self._workers: list[Worker] = []
        self._connected_here = False
        self._false_starts = 0
        self._first: Environment | None = None

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every worker, and the cluster where it was started here; a second call does nothing."""
        if self._resources is None:
            return
        for worker in self._workers:
            _kill(worker)
        self._workers.clear()
        self._resources = None
        if self._connected_here:
            cluster.import_ray().shutdown()

    @property
    def size(self) -> int:
        """Workers that have started."""
        return sum(worker.starting is None for worker in self._workers)

    def environment(self, batches: int) -> Environment:
        """The environment of the first worker that starts; waits for it.

        Args:
            batches: how many are to be drawn.

        Raises:
            UsageError, MachineError: Ray, a device or a worker cannot be had.
        """
        self._start(batches)
        while self._first is None:
            # The first worker of a new run decides what the others must be like.
            self._next_result(Work(()), lambda machine, packages: None)
        return self._first

    def largest_batch(self) -> int:
        """The largest batch that a worker's device holds; one worker is started for it.

        Raises:
            UsageError, MachineError, OutOfMemory, WeightsError: as ``environment`` and ``bench.render.largest_batch``.
        """
        self.environment(1)
        ray = cluster.import_ray()
        worker = next(one for one in self._workers if one.starting is None)
        try:
            size: int = ray.get(worker.handle.largest_batch.remote())
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except ray.exceptions.RayError as error:
            raise MachineError(f"A Ray worker was lost while it looked for the batch: {_reason(error)}.") from error
        return size

    def draw(
        self, work: Work, digests: Mapping[str, str], audited: Set[str], check: Callable[..., None]
    ) -> Generator[tuple[Batch, Result], None, None]:
        """Every batch of ``work`` with its images, in the order in which they are done.

        Args:
            work: the batches; those of a worker that is lost go to others.
            digests: what each variant's weights are known by.
            audited: names of the variants that need no audit any more; the caller may add to it.
            check: called with a worker's machine and packages; refuses another environment than the run's.

        Raises:
            HotartError: what a worker raised, as it raised it.
            MachineError: workers are lost again and again.
        """
        self._start(work.left)
        if self._first is not None:
            check(*self._first)
        while work.left:
            self._hand_out(work, digests, audited)
            done = self._next_result(work, check)
            if done is not None:
                work.done()
                yield done

    def _start(self, batches: int) -> None:
        """Start a worker for each batch, as far as there are resources and beyond those that are there."""
        if self._resources is None:
            self._connected_here = cluster.connect(self._address)
            self._resources = cluster.resources(self._device, self._threads)
        most = cluster.most_workers(*self._resources)
        if most == 0:
            raise MachineError(
                f"--ray {self._address}: no machine of the cluster has {self._threads} free cores for a worker.",
                "give Ray more (ray start --num-cpus N), or fewer threads a worker: OMP_NUM_THREADS=1",
            )
        for _ in range(len(self._workers), min(most, max(batches, 1))):
            self._start_one(*self._resources)

    def _start_one(self, device: str, threads: int) -> None:
        handle = cluster.start_worker(device, threads, self._suite, device, threads, self._weights_dir)
        self._workers.append(Worker(handle, handle.environment.remote()))

    def _hand_out(self, work: Work, digests: Mapping[str, str], audited: Set[str]) -> None:
        # One batch each before anybody gets a second: the last ones are shared evenly.
        for most in range(1, IN_FLIGHT + 1):
            for worker in self._workers:
                if worker.starting is not None or len(worker.batches) >= most:
                    continue
                busy = Counter(other.variant for other in self._workers if other.batches and other.variant)
                batch = work.next_for(worker.variant, busy)
                if batch is None:
                    return
                worker.variant = name = batch.variant.name
                given = (batch.variant, digests[name])
                if batch.job is None:
                    reference = worker.handle.draw.remote(*given, batch.images, name not in audited)
                else:
                    reference = worker.handle.paint.remote(*given, batch.job)
                worker.batches[reference] = batch

    def _next_result(self, work: Work, check: Callable[..., None]) -> tuple[Batch, Result] | None:
        """Wait for what comes next: a batch's images; or None, for a worker that started or was lost."""
        ray = cluster.import_ray()
        references = [worker.starting for worker in self._workers if worker.starting is not None]
        references += [reference for worker in self._workers for reference in worker.batches]
        reference = ray.wait(references, num_returns=1)[0][0]
        worker = next(one for one in self._workers if reference == one.starting or reference in one.batches)
        try:
            result = ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except ray.exceptions.RayError as error:
            self._replace(worker, work, error)
            return None
        if reference != worker.starting:
            self._false_starts = 0
            return worker.batches.pop(reference), result
        here, there = package_versions().get("hotart-bench"), result[1].get("hotart-bench")
        if here != there:
            raise IncomparableError(
                f"A Ray worker has hotart-bench {there}, the driver {here}.", "install one version on every machine"
            )
        check(*result)
        worker.starting = None
        self._first = self._first or result
        return None

    def _replace(self, worker: Worker, work: Work, error: Exception) -> None:
        """Start another worker for one that is lost, where there are too few; its batches wait again."""
        _kill(worker)  # where only a result was lost, or it is half dead
        self._workers.remove(worker)
        if worker.starting is not None:
            self._false_starts += 1
            if self._false_starts == MOST_FALSE_STARTS:
                raise MachineError(
                    f"{MOST_FALSE_STARTS} Ray workers were lost before they could start: {_reason(error)}.",
                    "see that every machine has this hotart-bench installed, in the Python that Ray runs there",
                ) from error
        work.back(tuple(worker.batches.values()))
        if len(self._workers) < max(work.left, 1) and self._resources is not None:
            self._start_one(*self._resources)


def _kill(worker: Worker) -> None:
    ray = cluster.import_ray()
    with contextlib.suppress(ray.exceptions.RayError):  # it may be gone already
        ray.kill(worker.handle)


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else type(error).__name__
