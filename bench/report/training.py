"""What the variants of a run were trained on, and what the metrics share with it, in words."""

from __future__ import annotations

from collections.abc import Mapping

from bench.compare.headline import headline_metrics
from bench.formatting import joined
from bench.metrics.training_data import SAY_IT, overlap_with
from bench.records import Run, TrainedOn, TrainedPart, TrainingOverlap, TrainingSource

WHO: Mapping[TrainingSource, str] = {
    "suite": "as the suite says",
    "name": "known by name only",
    "modelspec": "as its metadata say",
    "shipped": "of this package",
}


def overlap_rows(run: Run) -> dict[str, tuple[TrainingOverlap, ...]]:
    """By metric of the headline, its overlap with each variant of the suite, in order."""
    trained = run.info.trained_on
    return {
        facts.name: tuple(overlap_with(facts, trained.get(variant.name)) for variant in run.info.suite.variants)
        for facts in headline_metrics(run.info.metrics)
    }


def training_lines(run: Run) -> tuple[str, ...]:
    """A sentence on what each variant was trained on and who says so, and the notes where two differ."""
    lines = []
    for variant in run.info.suite.variants:
        found = run.info.trained_on.get(variant.name)
        lines.append(f"{variant.name}: {training_sentence(found)}")
        lines += () if found is None else found.notes
    return tuple(lines)


def training_sentence(found: TrainedOn | None) -> str:
    """What a variant was trained on after its base, part by part; None where the run does not say."""
    if found is None:
        return "what it was trained on is unknown."
    said = "; ".join(_part(part) for part in found.parts)
    return f"{said}." + (f" Overlaps stay open: {SAY_IT}." if found.unknown else "")


def _part(part: TrainedPart) -> str:
    if part.names is None or part.source is None:
        return f"{part.what}: unknown"
    names = f"trained on {joined(part.names)}" if part.names else "trained on no preferences and no metric"
    return f"{part.what}: {names} ({WHO[part.source]})"
