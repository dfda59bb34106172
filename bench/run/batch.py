"""``batch = "auto"``: a batch that fits is found before the first image, and halved where it did not."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from bench.errors import OutOfMemory
from bench.machine import pick_device
from bench.records import Suite
from bench.run.asked import Asked
from bench.run.ground import fleet_for
from bench.run.outcome import Outcome
from bench.store import batch_of, forget_empty_run


def with_batch(asked: Asked, do: Callable[[Asked], Outcome]) -> Outcome:
    """Do the work with a batch where the suite leaves it open; images of two batch sizes never meet in one folder."""
    if asked.suite.settings.batch is not None:
        return do(asked)
    batch = _open_batch(asked)
    while True:
        try:
            return do(asked._replace(suite=_with(asked.suite, batch)))
        except OutOfMemory:
            if batch == 1 or not forget_empty_run(asked.path):
                raise
        # Out here the error is gone, and what it held of the models.
        _tell(asked, f"out of memory: going on with batches of {batch // 2}")
        asked = asked._replace(notes=(f"Batches are of {batch // 2}: the memory did not hold {batch}.",))
        batch //= 2


def _open_batch(asked: Asked) -> int:
    """The batch of the run that is continued, or the largest that the device holds."""
    found = None if asked.fresh else batch_of(asked.path)
    if found is not None:
        return found
    _tell(asked, "looking for the largest batch that fits")
    with fleet_for(asked, None) as fleet:
        if fleet is not None:
            return fleet.largest_batch()
    from bench.render import largest_batch

    return largest_batch(asked.suite, device=pick_device(asked.device), weights_dir=asked.weights_dir)


def _with(suite: Suite, batch: int) -> Suite:
    return msgspec.structs.replace(suite, settings=msgspec.structs.replace(suite.settings, batch=batch))


def _tell(asked: Asked, note: str) -> None:
    if asked.progress is not None:
        asked.progress("render", 0, 1, note)
