"""``compare_over_before``, ``compare_over_scipy``: processor time of ``compare`` on 158,000 scores."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from .before import ROOT, source_of, turns
from .figure import Figure, ratio_figure

BEFORE = "3603c28"
"""The last commit that drew the bootstrap's samples anew for each series."""
TURNS = 3
WRITE = """
import sys
from pathlib import Path
import msgspec
from fakes import make_run

names = ("base", "dpo", "spo", "dare", "ties", "slerp", "sum")
run = make_run(sys.argv[1], prompts=718, samples=4, variants=names)
folder = Path(sys.argv[1])
folder.mkdir()
(folder / "run.json").write_bytes(msgspec.json.encode(run.info))
for name, records in {"renders": run.renders, "scores": run.scores, "timings": run.timings}.items():
    (folder / f"{name}.jsonl").write_bytes(b"".join(msgspec.json.encode(one) + b"\\n" for one in records))
"""
"""7 variants x 718 prompts x 4 samples, 8 metrics, one of which has no scores of the first variant."""
COMMAND = """
import json, os, resource, subprocess, sys
import bench
subprocess.run({command}, env=os.environ | {{"OMP_NUM_THREADS": "1"}}, check=True, stdout=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps({{"value": used.ru_utime + used.ru_stime, "bench": bench.__file__}}))
"""
SCRIPT = """
import sys
import numpy as np
import pandas as pd
from scipy.stats import bootstrap

scores = pd.read_json(sys.argv[1] + "/scores.jsonl", lines=True)
means = scores.pivot_table("value", ["metric", "prompt_id"], "variant", aggfunc="mean")
pairs = [(name, "base") for name in ("dpo", "spo", "dare", "ties", "slerp", "sum")] + [("spo", "dpo")]
for metric, table in means.groupby(level=0):
    for candidate, reference in pairs:
        differences = (table[candidate] - table[reference]).dropna().to_numpy()
        if len(differences):
            found = bootstrap((differences,), np.mean, n_resamples=10_000, method="BCa", rng=np.random.default_rng(0))
            ends = found.confidence_interval
            print(metric, candidate, reference, len(differences), differences.mean(), ends.low, ends.high)
"""
"""What a user would write for the 50 intervals of ``compare``, with as many resamples; no ranking, no finding."""


def figure_compare() -> tuple[Figure, ...]:
    """Processor seconds of ``compare`` from the start of its process: over those of the state before, in turns, and
    over those of a script with pandas and scipy."""
    with tempfile.TemporaryDirectory() as place:
        run = f"{place}/run"
        with source_of(BEFORE) as older:  # its runs are read by both
            write_with(older, WRITE, run)
        ours, before = turns(command(["-P", "-m", "bench", "compare", run]), BEFORE, TURNS)
        pairs = [(cpu_s(["-P", "-m", "bench", "compare", run]), cpu_s(["-c", SCRIPT, run])) for _ in range(TURNS)]
    again, scipy = zip(*pairs, strict=True)
    return (
        ratio_figure("compare_over_before", ours, before, "<=", 0.45),
        ratio_figure("compare_over_scipy", again, scipy, "<=", 0.5),
    )


def command(arguments: list[str]) -> str:
    """A program for ``before.turns``: the processor seconds of a Python with these arguments."""
    return COMMAND.format(command="[sys.executable, " + ", ".join(map(repr, arguments)) + "]")


def cpu_s(arguments: list[str], source: Path = ROOT) -> float:
    """Processor seconds of a Python with these arguments and the source of a commit."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", command(arguments)], env=environment(source), check=True, stdout=subprocess.PIPE
    )
    return float(json.loads(done.stdout.splitlines()[-1])["value"])


def write_with(source: Path, program: str, *arguments: str) -> None:
    """Run a program that writes a run, with the source and the fakes of a commit."""
    subprocess.run([sys.executable, "-P", "-c", program, *arguments], env=environment(source), check=True)


def environment(source: Path) -> dict[str, str]:
    """That of a process with this source: its package and its fakes, one thread for each library."""
    return {**os.environ, "PYTHONPATH": f"{source}{os.pathsep}{source / 'tests'}", "OMP_NUM_THREADS": "1"}
