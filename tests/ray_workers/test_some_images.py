"""Images that were named alone: workers are given the batches that hold them, and just those images are written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tiny

from bench.pictures.png import pack
from bench.ray_workers import render_on_workers
from bench.ray_workers.pool import Batch, Work
from bench.store import RunFolder, load_run
from bench.suite import load_suite, protocol_digest


class Pool:
    """Stands for the workers: paints each image of a batch in one colour."""

    size = 1

    def __init__(self) -> None:
        self.batches: list[list[tuple[str, int]]] = []

    def draw(self, work: Work, *_: Any) -> Iterator[tuple[Batch, Any]]:
        while (batch := work.next_for(None, {})) is not None:
            self.batches.append([(one.prompt_id, one.sample) for one in batch.images])
            pixels = [np.full((64, 64, 3), one.seed % 256, np.uint8) for one in batch.images]
            work.done()
            yield batch, ([pack(one, "float32", None) for one in pixels], None, "")


def test_of_the_batches_just_the_images_that_are_wanted_are_written(tiny_run, tmp_path):
    suite = load_suite(str(tiny_run.suite_file))
    info, pool = load_run(tiny_run.folder).info, Pool()
    with RunFolder.open(tmp_path / "run", suite=suite, protocol_digest=protocol_digest(suite)) as folder:
        folder.write_info(info)
        only = {("woman", 1), ("tent", 0)}
        first = only - {("tent", 0)}
        render_on_workers(suite, folder, pool, variants=suite.variants[1:], only=first)  # type: ignore[arg-type]
        assert pool.batches == [[("woman", 0), ("woman", 1)]]
        assert [(one.variant, one.prompt_id, one.sample) for one in folder.renders()] == [("spo", "woman", 1)]
        render_on_workers(suite, folder, pool, variants=suite.variants[1:], only=only)  # type: ignore[arg-type]
        assert {(one.prompt_id, one.sample) for one in folder.renders()} == only
        assert len(pool.batches) == 2
    assert {(one.variant, one.prompt_id, one.sample) for one in load_run(tmp_path / "run").renders} < tiny.CELLS
