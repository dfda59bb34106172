"""``python -m bench.mini.train STAGE...``: reproduces the weights of the embedded family from their seeds.

Stages in order: vae, base, base-refine, decoder, clip, aesthetic, preference, instrument, step_aware, dpo, spo, both
preference optimisations from a second seed (dpo-seed1, spo-seed1), the second pair of metrics on scenes of its own
(clip-2, preference-2), ship; ``all`` is all of them. ``shipped`` takes all
that ships from the package, so that any stage from clip on can be trained anew alone; ``curves`` draws the losses of
what was trained. A stage that was interrupted goes on from its checkpoint; one that is done returns at once.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path

import torch

STAGES = (
    *("vae", "base", "base-refine", "decoder"),
    *("clip", "aesthetic", "preference", "instrument", "step_aware"),
    *("dpo", "spo", "dpo-seed1", "spo-seed1"),
    *("clip-2", "preference-2"),
    "ship",
)
ELSEWHERE = {
    "base-refine": ("base", "refine"),
    "clip": ("clip", "run_clip"),
    "clip-2": ("clip", "run_second"),
    "preference-2": ("preference", "run_second"),
    "aesthetic": ("clip", "run_aesthetic"),
    "decoder": ("vae", "run_decoder"),
    "shipped": ("ship", "start"),
}
"""Stages whose module and function have other names than their own and ``run``."""


def stage_function(name: str) -> Callable[[Path], object]:
    """What runs a stage."""
    name, _, seed = name.partition("-seed")
    module, function = ELSEWHERE.get(name, (name, "run"))
    found: Callable[..., object] = getattr(importlib.import_module(f"bench.mini.train.{module}"), function)
    return functools.partial(found, seed=int(seed)) if seed else found


def main() -> None:
    """Parse the command line and run the stages."""
    parser = argparse.ArgumentParser(prog="python -m bench.mini.train", description=__doc__)
    names = [*STAGES, "shipped", "curves", "all"]
    parser.add_argument("stages", nargs="+", choices=names, metavar="STAGE", help=", ".join(names))
    parser.add_argument("--work", type=Path, default=Path("build/mini"), help="folder for pools, checkpoints, logs")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    chosen = parser.parse_args()
    if importlib.util.find_spec("peft") is None:
        parser.error("peft is missing, which adds the LoRAs: pip install 'hotart-bench[train]'")
    torch.set_num_threads(chosen.threads)
    torch.set_default_device(chosen.device)
    chosen.work.mkdir(parents=True, exist_ok=True)
    for name in STAGES if "all" in chosen.stages else chosen.stages:
        print(f"stage {name}", flush=True)
        stage_function(name)(chosen.work)


if __name__ == "__main__":
    main()
