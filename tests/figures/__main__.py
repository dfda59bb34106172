"""Print the figures, one JSON object a line as each is known, then a table; none of them fails the program."""

from __future__ import annotations

import importlib
import os
import sys

from .figure import Figure, table

CORES = 2
"""The goals are set for a machine of this many cores; a larger one uses no more."""
FIGURES = {
    "help_over_python": "commands.figure_help",
    "start_over_plain_python": "commands.figure_start",
    "run_s": "commands.figure_run",
    "quick_mini_s": "commands.figure_quick",
    "run_peak_gib": "commands.figure_run",
    "rerun_of_finished_run_s": "commands.figure_run",
    "render_over_floor": "rendering.figure_render",
    "steps_over_parts": "steps.figure_steps",
    "range_over_plain": "steps.figure_range",
    **{f"{name}_over_plain": "runtimes.figure_runtimes" for name in ("deepcache_2", "deepcache_3")},
    **{f"{name}_over_plain": "runtimes.figure_runtimes" for name in ("torchao_int8", "torchao_int8_weights")},
    "steps_peak_10k_over_100": "steps.figure_memory",
    "steps_peak_all_over_one": "steps.figure_memory",
    "script_over_render": "script.figure_script",
    "script_same_batch_over_render": "script.figure_batched_script",
    "script_same_batch_over_render_and_score": "script.figure_batched_script",
    "script_same_batch_over_score": "script.figure_batched_script",
    "gate_passes_at_margin": "gating.figure_gating",
    "gate_false_alarms": "gating.figure_gating",
    "gate_catches_loss": "gating.figure_gating",
    "finding_wrongly_earned": "findings.figure_findings",
    "finding_right_word": "findings.figure_findings",
    "votes_least_coverage": "votes.figure_votes",
    "votes_most_coverage": "votes.figure_votes",
    "gate_seconds": "gate_speed.figure_gate",
    "panel_over_separate": "metric_panel.figure_panel",
    "separate_over_shared_forwards": "metric_panel.figure_panel",
    "score_over_encoders": "metric_panel.figure_panel",
    "score_decodes_per_picture": "decoding.figure_decodes",
    "score_cpu_over_before": "decoding.figure_decodes",
    "measure_over_before": "timing.figure_measure",
    "compare_over_before": "comparing.figure_compare",
    "compare_over_scipy": "comparing.figure_compare",
    "report_160_over_before": "reporting.figure_pictures",
    "report_again_over_first": "reporting.figure_pictures",
    "report_10k_over_before": "reporting.figure_report",
    "panel_memory_over_largest": "metric_panel.figure_memory",
    "faces_s": "faces.figure_faces",
    "panel_with_set_metrics": "set_panel.figure_sets",
    "merge_over_io": "merging.figure_merge",
    "merge_over_script": "merging.figure_merge",
    "merge_peak_gib": "merging.figure_merge",
    "reload_over_switch": "switching.figure_switch",
    "full_size_cpu_peak_gib": "full_size_cpu.figure_full_size",
    "full_size_cpu_estimate_over_peak": "full_size_cpu.figure_full_size",
    "lora_apply_over_diffusers": "switching.figure_apply",
    "ray_two_over_one": "ray_workers.figure_ray",
    "ray_overhead": "ray_workers.figure_ray",
    "resume_start_s": "large.figure_large",
    "cost_per_image_10k_over_100": "large.figure_large",
    "peak_10k_over_100": "large.figure_large",
    "encode_peak_10k_over_100": "large.figure_encoding",
    "report_marginal_10k_over_1k": "large.figure_large",
}
"""Figure -> module and function, which are imported when computed: torch and scipy would weigh on the other figures."""


def main(names: list[str]) -> None:
    """Compute the named figures, or all of them."""
    unknown = [name for name in names if name not in FIGURES]
    if unknown:
        raise SystemExit(f"There is no figure {unknown[0]!r}; there are {', '.join(FIGURES)}.")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    found: list[Figure] = []
    for place in dict.fromkeys(FIGURES[name] for name in names or FIGURES):
        module, _, function = place.partition(".")
        compute = getattr(importlib.import_module(f".{module}", __package__), function)
        for figure in compute():
            sys.stdout.write(figure.line() + "\n")
            sys.stdout.flush()
            found.append(figure)
    sys.stdout.write("\n" + table(found) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
