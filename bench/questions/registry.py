"""The registry with the judges of a suite and their metrics, and who these judges are. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import msgspec

from bench.metrics.declare import Judge, LoadedJudge, Metric, Place
from bench.metrics.registry import Registry, installed, trained_names
from bench.metrics.training_data import check_training_names, with_their_data
from bench.questions.endpoint import EndpointJudge
from bench.questions.metrics import question_metrics, with_version
from bench.questions.process import ProcessJudge
from bench.questions.weights import identify_vlm
from bench.records import Dtype, MetricFacts, Suite
from bench.records import Judge as JudgeTable

DTYPES: tuple[Dtype, ...] = ("float32", "float16", "bfloat16")


def registry_of_suite(
    suite: Suite,
    registry: Registry | None = None,
    *,
    identified: Mapping[str, str] | None = None,
    recorded: Sequence[MetricFacts] = (),
) -> Registry:
    """The registry with the suite's judges and their metrics; the versions of these are of the suite's questions.

    Args:
        suite: whose judges and questions.
        registry: what there is besides; by default all that is installed.
        identified: who the judges are, as of ``identities``; of others it is not known yet.
        recorded: what the run's card says; the version of a metric without an entry in ``identified`` stays so.

    Raises:
        UsageError: a judge was trained on a name that is neither a metric nor a data set.
    """
    known = registry if registry is not None else installed()
    declared = [_declared(table) for table in suite.judges]
    trained = trained_names(known)
    own = [metric for table in suite.judges for metric in question_metrics(table.name, _facts(table, trained))]
    metrics = {**known.metrics, **{metric.facts.name: metric for metric in own}}
    versions = {facts.name: facts.version for facts in recorded}
    for name, metric in metrics.items():
        if metric.judge is not None:
            metrics[name] = _versioned(metric, suite, identified or {}, versions)
    return replace(known, metrics=metrics, judges={**known.judges, **{judge.name: judge for judge in declared}})


def training_for_suite(suite: Suite) -> dict[str, tuple[str, ...] | None]:
    """What each metric was trained on, by its name, those of the suite's judges included; None where nobody says."""
    return trained_names(registry_of_suite(suite))


def identities(names: Iterable[str], registry: Registry, place: Place) -> dict[str, str]:
    """Who the judges of these metrics are: their versions and weights. A program is started for that, and ended.

    Raises:
        UsageError: an endpoint that is not of this machine, without leave; a key that is not set.
        WeightsError: a program that does not start; weights that are not there.
    """
    judges = dict.fromkeys(registry.metrics[name].judge for name in names if name in registry.metrics)
    return {name: registry.judges[name].identify(place) for name in judges if name is not None}


def _versioned(metric: Metric, suite: Suite, identified: Mapping[str, str], versions: Mapping[str, str]) -> Metric:
    identity = identified.get(metric.judge or "")
    if identity is not None:
        return with_version(metric, identity, suite.prompts)
    version = versions.get(metric.facts.name, metric.facts.version)
    return replace(metric, facts=msgspec.structs.replace(metric.facts, version=version))


def _facts(table: JudgeTable, trained: Mapping[str, Sequence[str] | None]) -> MetricFacts:
    """What is known of a suite's judge: how it is reached, and what the suite says that it was trained on."""
    said = table.trained_on
    check_training_names(said or (), f"judges.{table.name}.trained_on", trained)
    what = "a program" if table.command else f"{table.model} at an endpoint" if table.endpoint else table.vlm
    return MetricFacts(
        name="",
        version="",
        summary=f"the judge {table.name}: {what}",
        unit="",
        higher_is_better=True,
        low=0.0,
        high=1.0,
        category="alignment",
        encoder=None,
        trained_on=None if said is None else with_their_data(said, trained),
        training_data="a judge of the suite; not said" if said is None else "as the suite says of its judge",
        licence="unknown",
        reference="",
    )


def _declared(table: JudgeTable) -> Judge:
    if table.command:
        return Judge(table.name, lambda place: _identify_program(table), lambda place: ProcessJudge(table))
    if table.endpoint:
        return Judge(
            table.name,
            lambda place: EndpointJudge(table, allow_remote=place.allow_remote).identify(),
            lambda place: EndpointJudge(table, allow_remote=place.allow_remote),
        )
    return Judge(
        table.name,
        lambda place: identify_vlm(table.vlm, place.weights_dir),
        lambda place: _load_vlm(table, place),
        DTYPES,
    )


def _identify_program(table: JudgeTable) -> str:
    program = ProcessJudge(table)
    try:
        return program.identify()
    finally:
        program.close()


def _load_vlm(table: JudgeTable, place: Place) -> LoadedJudge:
    from bench.questions.vlm import VisionLanguageJudge  # torch and transformers

    return VisionLanguageJudge(table.vlm, place)
