"""The source of an earlier commit beside this one, to be run in alternating turns.

Whatever else the machine does meanwhile slows both sides; only their ratio is a figure.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]


@contextmanager
def source_of(commit: str) -> Iterator[Path]:
    """A folder with ``bench``, ``prompts`` and ``tests`` of a commit, by git.

    Raises:
        SystemExit: there is no git, or no such commit in this clone.
    """
    with tempfile.TemporaryDirectory() as place:
        archive = subprocess.run(
            ["git", "-C", str(ROOT), "archive", commit, "bench", "prompts", "tests"], check=False, capture_output=True
        )
        if archive.returncode:
            raise SystemExit(f"The commit {commit} is not in this clone: {archive.stderr.decode()}")
        subprocess.run(["tar", "-x", "-C", place], input=archive.stdout, check=True)
        yield Path(place)


def turns(program: str, before: str, count: int) -> tuple[list[float], list[float]]:
    """What a program prints, a number, run with this source and with that of the commit ``before``, in turns."""
    with source_of(before) as older:
        pairs = [(_number(program, ROOT), _number(program, older)) for _ in range(count)]
    ours, theirs = zip(*pairs, strict=True)
    return list(ours), list(theirs)


def _number(program: str, source: Path) -> float:
    paths = (str(source), *filter(None, [os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        cwd=source,
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"With the source in {source} it ended with {done.returncode}:\n{done.stderr}")
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    if not Path(str(found["bench"])).is_relative_to(source):
        raise SystemExit(f"{found['bench']} was run, not the source in {source}.")
    return float(str(found["value"]))
