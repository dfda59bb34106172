"""What is left to draw, who gets which batch next, and what becomes of a batch whose worker is lost. Knows no Ray."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from bench.errors import MachineError
from bench.records import Cell, Variant

MOST_LOSSES = 3
"""A batch that took so many workers down is not given to another one."""


class Unit(NamedTuple):
    """One planned batch of one variant."""

    variant: Variant
    cells: tuple[Cell, ...]


class Work:
    """The batches that are still to be drawn, by variant, in the suite's order."""

    def __init__(self, batches: Iterable[tuple[Variant, Sequence[tuple[Cell, ...]]]]) -> None:
        self._waiting = {variant.name: deque(Unit(variant, cells) for cells in units) for variant, units in batches}
        self._losses: Counter[tuple[str, int]] = Counter()
        self.left = sum(len(units) for units in self._waiting.values())
        """Batches that are not done, those that a worker has included."""

    @property
    def images(self) -> int:
        """Images of the batches that no worker has yet."""
        return sum(len(unit.cells) for units in self._waiting.values() for unit in units)

    def next_for(self, loaded: str | None, workers: Mapping[str, int]) -> Unit | None:
        """The next batch for a worker, or None where none waits.

        Of the variant that it has loaded, since another one costs a load; else of the variant with the most
        batches for each of its workers.

        Args:
            loaded: name of the variant that the worker has.
            workers: how many workers have each variant.
        """
        units = self._waiting.get(loaded or "")
        if not units:
            units = max(
                self._waiting.values(),
                key=lambda some: len(some) / (1 + workers.get(some[0].variant.name, 0)) if some else 0,
                default=None,
            )
        return units.popleft() if units else None

    def done(self) -> None:
        """A batch was drawn."""
        self.left -= 1

    def back(self, units: Sequence[Unit]) -> None:
        """The batches of a worker that was lost wait again, first of all.

        Args:
            units: in the order that the worker had them: it was lost while it drew the first.

        Raises:
            MachineError: the first took ``MOST_LOSSES`` workers down.
        """
        for unit in reversed(units):
            self._waiting[unit.variant.name].appendleft(unit)
        for unit in units[:1]:
            which = (unit.variant.name, unit.cells[0].batch)
            self._losses[which] += 1
            if self._losses[which] == MOST_LOSSES:
                raise MachineError(
                    f"Batch {which[1]} of variant {which[0]} was given to {MOST_LOSSES} workers and "
                    "each was lost over it, most often for want of memory. What was finished is kept.",
                    "see the workers' logs (ray logs cluster); a smaller `batch` in the suite's "
                    "[settings] needs less memory, and is another protocol",
                )
