"""``python -m bench.mini.evidence``: what the shipped weights can do, measured anew and printed as markdown.

Contents that no training stage has seen, noise that is the same for every variant, prompts as the unit,
95 % BCa bootstrap intervals over prompts. The judge of craft and attributes is the held-out instrument.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from bench.mini import evidence_judges, evidence_renders
from bench.stats import bootstrap_bca

WEIGHTS = (0.0, 0.5, 1.0, 1.5, 2.0)
GUIDANCES = (1.5, 3.0, 5.0, 7.5)


def main() -> None:
    """Measure and print everything."""
    parser = argparse.ArgumentParser(prog="python -m bench.mini.evidence", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2, help="images a prompt in the tables of variants")
    parser.add_argument("--sheet", type=Path, default=None, help="write the contact sheet to this PNG")
    chosen = parser.parse_args()
    torch.manual_seed(0)
    _section("The autoencoder and the judges, on held-out scenes", evidence_judges.rows())
    _section("The step-aware model against the plain one, pairs in the true order", evidence_judges.step_aware_rows())
    found = evidence_renders.judge_variants(chosen.seeds)
    evidence_renders.print_main(found)
    evidence_renders.print_seeds(found)
    evidence_renders.print_weights(WEIGHTS)
    evidence_renders.print_settings(GUIDANCES, found)
    if chosen.sheet is not None:
        evidence_renders.write_sheet(chosen.sheet)


def _section(title: str, rows: Sequence[tuple[str, ...]]) -> None:
    print(f"\n### {title}\n")
    print_table(rows)


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows as a markdown table; the first one is the head."""
    print("| " + " | ".join(rows[0]) + " |")
    print("|" + "---|" * len(rows[0]))
    for row in rows[1:]:
        print("| " + " | ".join(row) + " |", flush=True)


def with_interval(values: np.ndarray) -> str:
    """Mean and 95 % interval over prompts of per-prompt values (n,)."""
    low, high = bootstrap_bca(values)
    return f"{values.mean():+.3f} [{low:+.3f}, {high:+.3f}]"


if __name__ == "__main__":
    main()
