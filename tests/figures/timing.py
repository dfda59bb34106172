"""``measure_over_before``: the time that timing takes, over when each process was started once the last had ended."""

from __future__ import annotations

from .before import turns
from .figure import Figure, ratio_figure

BEFORE = "f5c5e17"
"""The last commit in which processes were started one after another."""
TURNS = 3
PROGRAM = """
import json, tempfile, time
from pathlib import Path
import bench
from bench.measure import measure
from bench.store import RunFolder
from bench.suite import load_suite, protocol_digest

suite = load_suite("mini")
with tempfile.TemporaryDirectory() as place:
    with RunFolder.open(Path(place) / "run", suite=suite, protocol_digest=protocol_digest(suite)) as folder:
        start = time.perf_counter()
        measure(suite, folder, variants=None, device="cpu", weights_dir=None, progress=None)
        print(json.dumps({"value": time.perf_counter() - start, "bench": bench.__file__}))
"""


def figure_measure() -> tuple[Figure, ...]:
    """Wall seconds of ``measure`` on the suite ``mini``: equal rounds, images and variants, in turns."""
    ours, before = turns(PROGRAM, BEFORE, TURNS)
    return (ratio_figure("measure_over_before", ours, before, "<=", 0.5),)
