"""Score a few pictures with the named towers, one after another, and print the peak resident memory in bytes."""

from __future__ import annotations

import os
import resource
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.metrics import Metric, Place, Tower, registry_of
from bench.metrics.clip_score import clip_score
from bench.metrics.hps import hpsv2, load_hps
from bench.metrics.open_clip_model import ClipShape
from bench.metrics.openai_clip import load_openai_clip
from bench.metrics.pickscore import load_pickscore, pickscore
from bench.score import score
from bench.weights import read_tensors
from tests.metrics.official_layouts import random_clip, write_hps, write_openai, write_pickscore

from .judges import picture, run_folder

SHAPE = ClipShape(768, 768, 12, 64, 768, 12, 12, quick_gelu=False, patch_px=56)
PICTURES = 3


def main(names: Sequence[str]) -> None:
    """Write the weights in a child, so that making them is no part of the peak, then score."""
    with tempfile.TemporaryDirectory() as place:
        child = os.fork()
        if child == 0:
            write(Path(place), names)
            os._exit(0)
        if os.waitpid(child, 0)[1] != 0:
            raise SystemExit("The weights could not be written.")
        declared = [item for name in names for item in judge(Path(place), name)]
        registry = registry_of(*declared)
        metrics = tuple(registry.metrics)
        with run_folder(Path(place) / "run", metrics, [picture(number) for number in range(PICTURES)]) as folder:
            score(folder, metrics=metrics, registry=registry)
            if any(item.value is None for item in folder.scores()):
                raise SystemExit(f"No score: {next(item.reason for item in folder.scores() if item.value is None)}")
    sys.stdout.write(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}\n")


def write(place: Path, names: Sequence[str]) -> None:
    """The files of the named towers, with the same random weights."""
    state = random_clip(SHAPE, 0)
    if "openai" in names:
        write_openai(place, state)
    if "pickscore" in names:
        write_pickscore(place, state, SHAPE)
    if "hpsv2" in names:
        write_hps(place, state, "hpsv2")


def judge(place: Path, name: str) -> tuple[Metric, Tower]:
    """A metric and its tower of the small shape."""
    if name == "openai":
        file = write_path(place, "*/*/open_clip_model.safetensors")
        return clip_score, Tower("openai-vit-l14", lambda at: load_openai_clip(read_tensors(file), at, file, SHAPE))
    if name == "pickscore":
        folder = write_path(place, "*/*/config.json").parent
        return pickscore, Tower("pickscore-vit-h14", lambda at: load_pickscore(folder, at))
    checkpoint = write_path(place, "*/*/HPS_v2_compressed.pt")

    def load(at: Place):
        return load_hps(read_tensors(checkpoint), at, checkpoint, SHAPE)

    return hpsv2, Tower("hpsv2-vit-h14", load)


def write_path(place: Path, pattern: str) -> Path:
    """The one file of that pattern."""
    (found,) = place.glob(pattern)
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
