"""Score a few pictures with the named metrics, one encoder after another; print the peak resident memory in bytes."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.score import score

from .metric_panel import picture, run_folder
from .peak import peak_bytes
from .random_metrics import SMALL_SIZES, panel_of, unpinned, write_weights

PICTURES = 3


def main(metrics: Sequence[str]) -> None:
    """Write the weights in a child, so that making them is no part of the peak, then score."""
    with tempfile.TemporaryDirectory() as place:
        weights = Path(place) / "weights"
        child = os.fork()
        if child == 0:
            write_weights(weights, SMALL_SIZES, metrics)
            os._exit(0)
        if os.waitpid(child, 0)[1] != 0:
            raise SystemExit("The weights could not be written.")
        pictures = [picture(number) for number in range(PICTURES)]
        with unpinned(weights), run_folder(Path(place) / "run", metrics, pictures) as folder:
            score(folder, metrics=metrics, weights_dir=weights, registry=panel_of(SMALL_SIZES))
            if any(item.value is None for item in folder.scores()):
                raise SystemExit(f"No score: {next(item.reason for item in folder.scores() if item.value is None)}")
    sys.stdout.write(f"{peak_bytes()}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
