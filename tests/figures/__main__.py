"""Print the figures, one JSON object a line as each is known, then a table; none of them fails it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from .commands import figure_help, figure_run, figure_start
from .figure import Figure, table

CORES = 2
"""The goals are set for a machine of this many cores; a larger one uses no more."""


def figure_render() -> tuple[Figure, ...]:
    """See ``rendering``; imported late, because torch would weigh on the other figures."""
    from .rendering import figure_render

    return figure_render()


def figure_script() -> tuple[Figure, ...]:
    """See ``script``; imported late, as the others are."""
    from .script import figure_script

    return figure_script()


def figure_gating() -> tuple[Figure, ...]:
    """See ``gating``; imported late, because scipy would weigh on the other figures."""
    from .gating import figure_gating

    return figure_gating()


def figure_gate() -> tuple[Figure, ...]:
    """See ``gate_speed``; imported late, as the others are."""
    from .gate_speed import figure_gate

    return figure_gate()


def figure_panel() -> tuple[Figure, ...]:
    """See ``judges``; imported late, because torch would weigh on the other figures."""
    from .judges import figure_panel

    return figure_panel()


def figure_memory() -> tuple[Figure, ...]:
    """See ``judges``; imported late, as the others are."""
    from .judges import figure_memory

    return figure_memory()


def figure_merge() -> tuple[Figure, ...]:
    """See ``merging``; imported late, as the others are."""
    from .merging import figure_merge

    return figure_merge()


def figure_switch() -> tuple[Figure, ...]:
    """See ``switching``; imported late, as the others are."""
    from .switching import figure_switch

    return figure_switch()


def figure_ray() -> tuple[Figure, ...]:
    """See ``ray_workers``; imported late, as the others are."""
    from .ray_workers import figure_ray

    return figure_ray()


def figure_large() -> tuple[Figure, ...]:
    """See ``large``; imported late, as the others are."""
    from .large import figure_large

    return figure_large()


FIGURES: dict[str, Callable[[], tuple[Figure, ...]]] = {
    "help_over_python": figure_help,
    "start_over_plain_python": figure_start,
    "run_s": figure_run,
    "run_peak_gib": figure_run,
    "rerun_of_finished_run_s": figure_run,
    "render_over_floor": figure_render,
    "script_over_render": figure_script,
    "gate_passes_at_margin": figure_gating,
    "gate_false_alarms": figure_gating,
    "gate_catches_loss": figure_gating,
    "gate_seconds": figure_gate,
    "panel_over_separate": figure_panel,
    "score_over_encoders": figure_panel,
    "panel_memory_over_largest": figure_memory,
    "merge_over_io": figure_merge,
    "merge_peak_gib": figure_merge,
    "reload_over_switch": figure_switch,
    "ray_two_over_one": figure_ray,
    "ray_overhead": figure_ray,
    "resume_start_s": figure_large,
    "cost_per_image_10k_over_100": figure_large,
    "peak_10k_over_100": figure_large,
    "report_marginal_10k_over_1k": figure_large,
}


def main(names: list[str]) -> None:
    """Compute the named figures, or all of them."""
    unknown = [name for name in names if name not in FIGURES]
    if unknown:
        raise SystemExit(f"There is no figure {unknown[0]!r}; there are {', '.join(FIGURES)}.")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    found: list[Figure] = []
    for compute in dict.fromkeys(FIGURES[name] for name in names or FIGURES):
        for figure in compute():
            sys.stdout.write(figure.line() + "\n")
            sys.stdout.flush()
            found.append(figure)
    sys.stdout.write("\n" + table(found) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
