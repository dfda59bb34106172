"""Whether two frozen runs may be judged against each other, with every fact that speaks against it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from bench.errors import IncomparableError
from bench.formatting import listed, plural
from bench.records import Baseline, MetricFacts

TIMING_PACKAGES = ("torch", "diffusers", "transformers")
"""Those whose code runs while something is timed: another version is another speed."""
GIB = 2**30


def refuse_incomparable(
    candidate: Baseline, reference: Baseline, metrics: Iterable[str], timed: bool, labels: tuple[str, str]
) -> None:
    """Refuses another protocol, another version of a gated metric and, for timings, another kind of machine.

    Args:
        candidate: the run that is judged.
        reference: the baseline.
        metrics: the gated ones.
        timed: whether a timed quantity is gated.
        labels: how messages name the two sides, candidate first.

    Raises:
        IncomparableError: all differing facts in one message.
    """
    protocol = protocol_differences(candidate, reference, labels)
    versions = _version_differences(candidate, reference, metrics, labels)
    machine = machine_differences(candidate, reference, labels) if timed else []
    reasons = protocol + versions + machine
    if not reasons:
        return
    if protocol:
        hint = f"Render the suite that the baseline was made with: hotart-bench run {reference.suite} -o DIR"
    elif versions:
        hint = "Score the baseline's run with this version too, and freeze it again: hotart-bench score RUN"
    else:
        hint = "leave speed and memory out with --other-machine, or measure the baseline on this machine"
    raise IncomparableError(f"{labels[0]} cannot be judged against {labels[1]}: {'; '.join(reasons)}.", hint)


def protocol_differences(candidate: Baseline, reference: Baseline, labels: tuple[str, str]) -> list[str]:
    """What keeps the scores of two sides from being paired: settings, samples, seed, prompts; one clause a fact."""
    ours, theirs = (_plain_facts(side) for side in (candidate, reference))
    found = _unequal(ours, theirs, labels) + _case_differences(candidate, reference, labels)
    if not found and candidate.protocol_digest != reference.protocol_digest:
        digests = candidate.protocol_digest[:12], reference.protocol_digest[:12]
        found = [f"the protocol digest is {digests[0]} in {labels[0]} and {digests[1]} in {labels[1]}"]
    return found


def machine_differences(candidate: Baseline, reference: Baseline, labels: tuple[str, str]) -> list[str]:
    """What makes the timings of two sides those of unlike machines, one clause a fact.

    Facts that set the speed: the kind and name of the device and its memory, the driver, the CPU, its cores and
    threads, the memory in GiB, and the versions of the packages that run. The system's release is not one of
    them: it changes with every update and moves little.
    """
    return _unequal(_machine_facts(candidate), _machine_facts(reference), labels)


def _machine_facts(side: Baseline) -> dict[str, object]:
    machine = side.machine
    device_memory = machine.device_memory_bytes
    return {
        "the kind of device": machine.device.split(":")[0],
        "the device": machine.device_name,
        "its memory in GiB": None if device_memory is None else round(device_memory / GIB),
        "the driver": machine.driver,
        "the CPU": machine.cpu,
        "the number of cores": machine.cores,
        "the memory in GiB": round(machine.memory_bytes / GIB),
        "the number of threads": machine.threads,
        **{name: side.packages.get(name) for name in TIMING_PACKAGES},
    }


def _plain_facts(side: Baseline) -> dict[str, object]:
    settings = msgspec.to_builtins(side.settings)
    return {
        "samples": side.samples,
        "seed": side.seed,
        **{f"settings.{name}": value for name, value in settings.items()},
    }


def _unequal(ours: dict[str, object], theirs: dict[str, object], labels: tuple[str, str]) -> list[str]:
    return [
        f"{name} is {_said(ours[name])} in {labels[0]} and {_said(theirs[name])} in {labels[1]}"
        for name in ours
        if ours[name] != theirs[name]
    ]


def _said(value: object) -> str:
    return "not known" if value is None else str(value)


def _case_differences(candidate: Baseline, reference: Baseline, labels: tuple[str, str]) -> list[str]:
    ours, theirs = (side.prompts for side in (candidate, reference))
    found = [
        f"{plural(len(alone), 'prompt')} only in {label} ({listed(alone, 5)})"
        for label, alone in zip(labels, (ours.keys() - theirs.keys(), theirs.keys() - ours.keys()), strict=True)
        if alone
    ]
    shared = [name for name in ours if name in theirs]
    changed = [name for name in shared if ours[name] != theirs[name]]
    if changed:
        found.append(f"{plural(len(changed), 'prompt')} with another text ({listed(changed, 5)})")
    if shared != [name for name in theirs if name in ours]:
        found.append("the prompts stand in another order, which changes batches and so pixels")
    return found


def _version_differences(
    candidate: Baseline, reference: Baseline, metrics: Iterable[str], labels: Sequence[str]
) -> list[str]:
    ours, theirs = facts_by_name(candidate), facts_by_name(reference)
    return [
        f"metric {name} is version {ours[name].version} in {labels[0]} and {theirs[name].version} in {labels[1]}"
        for name in metrics
        if name in ours and name in theirs and ours[name].version != theirs[name].version
    ]


def facts_by_name(side: Baseline) -> dict[str, MetricFacts]:
    """The metrics of a side by name."""
    return {known.name: known for known in side.metrics}
