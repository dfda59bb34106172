"""Who gets which batch, and what becomes of a batch whose worker is lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.errors import MachineError
from bench.ray_workers.pool import MOST_LOSSES, Batch, Work
from bench.records import Lora, PlannedImage, Variant

VARIANTS = [Variant(name=name, checkpoint="mini", loras=(Lora(path="l", blocks={"M00": 0.5}),)) for name in "abc"]


def batches(count: int) -> list[tuple[PlannedImage, ...]]:
    return [(PlannedImage(prompt_id=f"c{number}", sample=0, seed=number, batch=number),) for number in range(count)]


def work_of(*counts: int) -> Work:
    pairs = zip(VARIANTS, counts, strict=False)
    return Work(Batch(variant, images) for variant, count in pairs for images in batches(count))


def named(batch: Batch | None) -> tuple[str, int] | None:
    return None if batch is None else (batch.variant.name, batch.images[0].batch)


def test_a_worker_stays_with_its_variant_as_long_as_that_has_batches() -> None:
    work = work_of(2, 5)
    assert [named(work.next_for("a", {"b": 1})) for _ in range(3)] == [("a", 0), ("a", 1), ("b", 0)]


def test_a_free_worker_takes_the_variant_with_the_most_batches_for_each_of_its_workers() -> None:
    work = work_of(4, 5, 3)
    assert named(work.next_for(None, {})) == ("b", 0)
    assert named(work.next_for(None, {"b": 1})) == ("a", 0)
    assert named(work.next_for(None, {"b": 1, "a": 1})) == ("c", 0)
    assert named(work.next_for(None, {"b": 1, "a": 1, "c": 1})) == ("b", 1)


def test_a_lost_workers_batches_are_the_next_ones_in_their_order() -> None:
    work = work_of(4)
    mine = [batch for batch in (work.next_for("a", {}), work.next_for("a", {})) if batch is not None]
    work.back(mine)
    assert [named(work.next_for("a", {})) for _ in range(4)] == [("a", number) for number in range(4)]
    assert (work.next_for("a", {}), work.left) == (None, 4)


def test_a_batch_that_takes_every_worker_down_ends_the_run_and_the_one_behind_it_does_not() -> None:
    work = work_of(2)
    for turn in range(1, MOST_LOSSES + 1):
        guilty, behind = work.next_for("a", {}), work.next_for("a", {})
        assert guilty is not None
        assert behind is not None
        if turn == MOST_LOSSES:
            with pytest.raises(MachineError, match=f"Batch 0 of variant a was given to {MOST_LOSSES} workers"):
                work.back([guilty, behind])
        else:
            work.back([guilty, behind])


@given(st.lists(st.integers(0, 6), min_size=1, max_size=3), st.data())
def test_whatever_is_lost_every_batch_is_done_once(counts: list[int], data: st.DataObject) -> None:
    work, workers, lost, finished = work_of(*counts), {1: [], 2: []}, 0, []
    loaded: dict[int, str] = {}
    while work.left:
        for worker, batches in workers.items():
            while len(batches) < 2 and (batch := work.next_for(loaded.get(worker), {})) is not None:
                batches.append(batch)
                loaded[worker] = batch.variant.name
        worker = data.draw(st.sampled_from([worker for worker, batches in workers.items() if batches]))
        if lost < MOST_LOSSES - 1 and data.draw(st.booleans()):
            lost += 1
            work.back(workers[worker])
            workers[worker], loaded = [], {key: value for key, value in loaded.items() if key != worker}
        else:
            finished.append(named(workers[worker].pop(0)))
            work.done()
    assert sorted(finished) == [
        (name, number) for name, count in zip("abc", counts, strict=False) for number in range(count)
    ]
