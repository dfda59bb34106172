"""Interrupts commands at random moments and looks at what they leave: ``python tests/interrupts.py [MOMENTS [SEED]]``.

Each command is the installed one, on the embedded family. It is run once undisturbed, which gives its duration and its
results, and then again and again from the same beginning, each time with a SIGINT or SIGTERM at a moment drawn from
that duration. What must hold then is in ``problems``. Linux only: whether the command has begun is read from ``/proc``.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

from PIL import Image
from tiny_checkpoints import write_recipe
from tiny_checkpoints import write_tiny as write_checkpoint

from bench import documents
from bench.errors import Interrupted
from bench.records import Render, Score, Timing
from bench.store.journal import read_records

COMMAND = Path(sys.executable).with_name("hotart-bench")
SUITE = """\
schema = 2
name = "tiny"
prompts = ["tiny.txt"]
samples = 2
seed = 7
metrics = ["mini-clip", "saturation", "sharpness"]
[settings]
width = 64
height = 64
steps = 3
guidance_scale = 3.0
sampler = "ddim"
batch = 4
[variants.base]
checkpoint = "mini"
[limits]
mini-clip = "0.5sd"
[measure]
rounds = 1
images = 1
warmups = 0
"""
PROMPTS = "a yellow tent by the sea at noon\nclear dawn over the dunes\nportrait of a woman with red hair\n"
RECIPE = 'method = "weighted_sum"\nmodels = ["a.safetensors", "b.safetensors"]\nalpha = 0.3\n'
GATE_FILES = ("--junit", "gate.xml", "--summary", "gate.md", "--json", "gate.json")
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
"""Of each command: the pictures are too small for more threads to help."""
JOBS: dict[str, tuple[str, ...]] = {
    "run": ("run", "tiny.toml", "-o", "run", "--device", "cpu"),
    "render": ("render", "tiny.toml", "-o", "run", "--device", "cpu"),
    "score": ("score", "rendered", "--device", "cpu"),
    "gate": ("gate", "new", "--baseline", "baseline.json", *GATE_FILES),
    "compare": ("compare", "new", "old"),
    "merge": ("merge", "recipe.toml", "-o", "merged.safetensors", "--force"),
}
"""Each command; all are given in a folder that ``prepare`` made."""
SHARES = {"run": 2, "render": 4, "score": 4, "gate": 8, "compare": 8, "merge": 4}
"""How the moments are divided: quick commands get more of them."""
RECORDS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "renders.jsonl": (Render, ("sha256", "error")),
    "scores.jsonl": (Score, ("metric", "value", "image_sha256")),
    "timings.jsonl": (Timing, ("name", "round")),
}
"""The journals, and what of a record is the same in every run."""


class Moment(NamedTuple):
    """One command that was interrupted, and how it ended."""

    verb: str
    number: signal.Signals
    after_s: float
    ours: bool
    """Whether the command had the signals in hand; before it begins and once it is over, Python itself answers them."""
    code: int
    done: bool
    """Whether the results are those of an undisturbed command."""
    problems: tuple[str, ...]


# What a command has done, as values that are equal whenever it was.


def state_of(place: Path, stdout: bytes = b"") -> dict[str, object]:
    """Every file below a folder by its name, as a value without times and ids; raises where one is half written."""
    found: dict[str, object] = {"stdout": stdout}
    for path in sorted(place.rglob("*")):
        if path.is_file() and not path.name.startswith("."):  # a lock, or what is not whole yet
            found[str(path.relative_to(place))] = value_of(path)
    return found


def value_of(path: Path) -> object:
    """What a file holds that is the same in every run."""
    if path.name in RECORDS:
        kind, fields = RECORDS[path.name]
        records = read_records(path, kind)
        return {
            tuple(getattr(one, name, None) for name in ("variant", "prompt_id", "sample", *fields)) for one in records
        }
    match path.suffix:
        case ".json":
            table = documents.loads(path.read_text("utf-8"))
            return {name: table.get(name) for name in ("status", "outcome", "verdicts", "kind")}
        case ".xml":
            return re.sub(r'timestamp="[^"]*"', "", ElementTree.canonicalize(path.read_text("utf-8")))
        case ".html":
            return path.read_text("utf-8").rstrip().endswith("</html>")
        case ".png":
            with Image.open(path) as image:
                image.load()
            return documents.sha256_of(path) if path.parent.parent.name == "images" else True
        case ".md":
            return re.sub(r", checked .*", "", path.read_text("utf-8")) if path.stem == "gate" else True
    return documents.sha256_of(path)


def problems(code: int, said: str, ours: bool, left: Mapping[str, object], done: bool) -> list[str]:
    """What an interrupted command must not do."""
    found = []
    if code == 0 and not done:
        found.append("ended with 0, and its work is not done")
    if ours and code not in (0, Interrupted.exit_code):
        found.append(f"ended with {code}")
    if ours and ("Traceback" in said or "Exception ignored" in said):
        found.append("showed a traceback")
    if ours and code != 0 and "Stopped" not in said:
        found.append("ended without a word")
    found += [f"{name}: {value}" for name, value in left.items() if isinstance(value, Exception)]
    return found


# The commands.


def begin(place: Path) -> None:
    """A folder with what is written by hand: all that ``run``, ``render`` and ``merge`` read."""
    place.mkdir()
    (place / "tiny.toml").write_text(SUITE, "utf-8")
    (place / "tiny.txt").write_text(PROMPTS, "utf-8")
    write_checkpoint(place / "a.safetensors", 1)
    write_checkpoint(place / "b.safetensors", 2)
    write_recipe(place / "recipe.toml", RECIPE)


def prepare(place: Path) -> None:
    """Beside a run that was made there, all that ``score``, ``gate`` and ``compare`` read."""
    (place / "run").rename(place / "new")
    shutil.copytree(place / "new", place / "old")
    table = json.loads((place / "old" / "run.json").read_text("utf-8"))
    (place / "old" / "run.json").write_text(json.dumps({**table, "id": "20250101-000000-0123456789ab"}), "utf-8")
    code, _ = end_of(place, ("baseline", "old", "-o", "baseline.json", "--by", "nobody"))
    if code != 0:
        raise RuntimeError(f"baseline ended with {code}")
    shutil.copytree(place / "new", place / "rendered")
    for path in (place / "rendered").iterdir():
        if path.name not in ("run.json", "renders.jsonl", "images"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def end_of(place: Path, arguments: tuple[str, ...]) -> tuple[int, dict[str, object]]:
    """Run a command to its end; its exit code, and the state that it leaves."""
    ended = subprocess.run([COMMAND, *arguments], cwd=place, env=ENVIRONMENT, capture_output=True, check=False)
    return ended.returncode, state_of(place, ended.stdout)


def has_signals(process: int) -> bool:
    """Whether a process catches SIGTERM, which Python does not by itself."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        status = Path(f"/proc/{process}/status").read_text("ascii")
        return bool(int(re.findall(r"SigCgt:\s*(\w+)", status)[0], 16) >> (signal.SIGTERM - 1) & 1)
    return True


def interrupt(
    place: Path, verb: str, number: signal.Signals, after_s: float, whole: Mapping[str, object]
) -> Moment | None:
    """Interrupt a command, look at what it left, and give it again; None where it had ended before."""
    command = [COMMAND, *JOBS[verb]]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with subprocess.Popen(
            command, cwd=place, env=ENVIRONMENT, stdout=out, stderr=err, start_new_session=True
        ) as process:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(after_s)
                return None
            ours = has_signals(process.pid)
            # Ctrl-C reaches the whole group, `kill` one process.
            with contextlib.suppress(ProcessLookupError):
                (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
            code = process.wait(60)
        out.seek(0)
        err.seek(0)
        stdout, said = out.read(), err.read().decode(errors="replace")
    if code == -number and "Traceback" not in said:
        ours = False  # it ended between the look and the signal
    try:
        left = state_of(place, stdout)
    except Exception as error:
        left = {"a file": error}
    done = left == whole
    found = problems(code, said, ours, left, done)
    again, now = end_of(place, JOBS[verb])
    if again != 0 or {**now, "stdout": whole["stdout"] if verb != "compare" else now["stdout"]} != whole:
        found.append(f"given again it ended with {again} and left {sorted(_differing(now, whole))}")
    return Moment(verb, number, after_s, ours, code, done, tuple(found))


def _differing(one: Mapping[str, object], other: Mapping[str, object]) -> set[str]:
    return {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)}


def interrupt_all(moments: int, seed: int, tell: Callable[[str], None]) -> list[Moment]:
    """So many commands, interrupted at moments that the seed draws; each from the same beginning."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # what is started inherits it
    draw, found = random.Random(seed), list[Moment]()
    with tempfile.TemporaryDirectory() as home:
        begun, prepared, place = (Path(home) / name for name in ("begun", "prepared", "place"))
        begin(begun)
        for verb, count in _shared(moments).items():
            start = begun if verb in ("run", "render", "merge") else prepared
            shutil.copytree(start, place)
            start_s = time.monotonic()
            code, whole = end_of(place, JOBS[verb])
            duration_s = time.monotonic() - start_s
            if code != 0:
                raise RuntimeError(f"{verb} ended with {code} undisturbed")
            if verb == "run":
                shutil.copytree(place, prepared)
                prepare(prepared)
            while count:
                shutil.rmtree(place)
                shutil.copytree(start, place)
                number, after_s = draw.choice((signal.SIGINT, signal.SIGTERM)), draw.uniform(0, duration_s)
                moment = interrupt(place, verb, number, after_s, whole)
                if moment is None:
                    duration_s = after_s  # it was quicker this time
                    continue
                count -= 1
                found.append(moment)
                tell(f"{verb} {number.name} {after_s:.2f} s: {moment.code} {'; '.join(moment.problems)}")
            shutil.rmtree(place)
    return found


def _shared(moments: int) -> dict[str, int]:
    whole = sum(SHARES.values())
    counts = {verb: moments * share // whole for verb, share in SHARES.items()}
    return {**counts, "gate": counts["gate"] + moments - sum(counts.values())}


def table_of(moments: list[Moment]) -> str:
    """One line a command: how its interrupted calls ended."""
    lines = [f"{'command':8} {'moments':>7} {'0, done':>7} {'130':>5} {'Python':>9} {'problems':>8}"]
    for verb in dict.fromkeys(one.verb for one in moments):
        of = [one for one in moments if one.verb == verb]
        ends = Counter("Python" if not one.ours else one.code for one in of)
        wrong = sum(bool(one.problems) for one in of)
        lines.append(f"{verb:8} {len(of):7} {ends[0]:7} {ends[Interrupted.exit_code]:5} {ends['Python']:9} {wrong:8}")
    return "\n".join(lines)


def main(moments: int = 200, seed: int = 0) -> int:
    """Print what became of each, and the table; 1 where anything must not be."""
    found = interrupt_all(moments, seed, lambda line: print(line, file=sys.stderr, flush=True))  # noqa: T201
    print(table_of(found))  # noqa: T201
    return int(any(one.problems for one in found))


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
