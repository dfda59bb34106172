"""``python -m fuzz [KIND | KIND:NUMBER ...]``: mutate files, read them, print what is wrong; fail if anything is."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
from pathlib import Path

from .kinds import make_kinds
from .trial import bounded_memory, try_one


def main(arguments: list[str]) -> int:
    """How many readings ended badly, at most 1."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help="such as suite, or suite:17 for one mutation")
    parser.add_argument("--count", type=int, default=2000, help="mutations of each kind")
    options = parser.parse_args(arguments)
    warnings.simplefilter("error", RuntimeWarning)  # numpy's, of numbers that are not
    bad = 0
    with tempfile.TemporaryDirectory() as place:
        kinds = make_kinds(Path(place))
        unknown = {text.partition(":")[0] for text in options.kinds} - kinds.keys()
        if unknown:
            parser.error(f"there is no kind {min(unknown)}; there are {', '.join(kinds)}")
        with bounded_memory():
            for text in options.kinds or kinds:
                name, _, number = text.partition(":")
                start = time.perf_counter()
                found: dict[str, list[int]] = {}
                for one in [int(number)] if number else range(options.count):
                    problem = try_one(kinds[name], one)
                    if problem:
                        found.setdefault(problem, []).append(one)
                bad += len(found)
                sys.stdout.write(f"{name}: {len(found)} problems, {time.perf_counter() - start:.0f} s\n")
                for problem, numbers in found.items():
                    sys.stdout.write(f"{name}:{numbers[0]} ({len(numbers)} times): {problem}\n")
                sys.stdout.flush()
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
