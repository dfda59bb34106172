"""What makes two runs, machines and protocols comparable: the one list of facts, every differing one named at once.

There are three lists, each a dict from the name of a fact to its value: ``protocol_facts`` (what an image is of),
``pixel_facts`` (where it was made) and ``timing_facts`` (where it was timed). ``differences`` compares two of them.
A suite and a baseline that was frozen from its run give the same facts, and so do a run and a calibration.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from bench.documents import resolved
from bench.errors import IncomparableError, UsageError
from bench.formatting import argument, did_you_mean, listed, making, plural
from bench.records import Baseline, Machine, MetricFacts, Prompt, Run, RunInfo, Settings, Suite

Places = tuple[str, str]
"""How a sentence names the two sides: ("there", "here"), ("in new", "in old")."""
PACKAGES = ("torch", "diffusers", "transformers")
"""Those whose code draws an image: another version is other pixels and another speed."""
PROMPTS = "prompts"
GIB = 2**30
HINT = "choose another folder with -o, or start over with --fresh"


# The facts, and how two sides differ in them.


def protocol_facts(side: Suite | Baseline) -> dict[str, object]:
    """What must agree for the images of two sides to be compared pair by pair: settings, samples, seed, prompts.

    Facts of ``bench.suite.protocol_digest``; the prompts stand as a dict from id to ``prompt_digest``, in order.
    """
    if isinstance(side, Baseline):
        digests = side.prompts
    else:
        digests = {prompt.id: prompt_digest(prompt) for prompt in side.prompts}
    return {
        "samples": side.samples,
        "seed": side.seed,
        "the source of the images": "a folder of images" if side.settings.sampler == "none" else "a renderer",
        **settings_facts(side.settings),
        PROMPTS: digests,
    }


def settings_facts(settings: Settings) -> dict[str, object]:
    """Every field of the settings by its name in the suite file, such as ``settings.steps``."""
    return {f"settings.{name}": value for name, value in settings.told().items()}


def prompt_digest(prompt: Prompt) -> str:
    """First 12 hex digits of the sha256 of the prompt, a zero byte, and the negative prompt, in UTF-8."""
    return hashlib.sha256(f"{prompt.text}\0{prompt.negative}".encode()).hexdigest()[:12]


def pixel_facts(machine: Machine, packages: Mapping[str, str]) -> dict[str, object]:
    """The environment that images are made in: each of these facts changes pixels.

    The kind of device (cpu, cuda, mps), its name, on a CPU the number of threads, and ``PACKAGES``.
    """
    kind = machine.device.split(":")[0]
    return {
        "the kind of device": kind,
        "the device name": machine.device_name,
        "the number of threads": machine.threads if kind == "cpu" else None,
        **{name: packages.get(name) for name in PACKAGES},
    }


def timing_facts(machine: Machine, packages: Mapping[str, str]) -> dict[str, object]:
    """The environment that timings are made in: ``pixel_facts``, and what else sets the speed.

    The system's release is not among them: it changes with every update and moves little.
    """
    device_memory = machine.device_memory_bytes
    return {
        **pixel_facts(machine, packages),
        "the number of threads": machine.threads,
        "the device memory in GiB": None if device_memory is None else round(device_memory / GIB),
        "the driver": machine.driver,
        "the CPU": machine.cpu,
        "the number of cores": machine.cores,
        "the memory in GiB": round(machine.memory_bytes / GIB),
    }


def differences(ours: Mapping[str, object], theirs: Mapping[str, object], places: Places) -> list[str]:
    """The facts that differ, one clause each: "seed is 7 in new and 0 in old"."""
    clauses = [
        f"{name} is {_said(ours[name])} {places[0]} and {_said(theirs[name])} {places[1]}"
        for name in ours
        if ours[name] != theirs[name] and name != PROMPTS
    ]
    above, below = ours.get(PROMPTS), theirs.get(PROMPTS)
    if isinstance(above, Mapping) and isinstance(below, Mapping):
        clauses += _prompt_differences(above, below, places)
    return clauses


def _said(value: object) -> str:
    return "not set" if value is None else str(value)


def _prompt_differences(ours: Mapping[str, str], theirs: Mapping[str, str], places: Places) -> list[str]:
    clauses = [
        f"{plural(len(alone), 'prompt')} only {place} ({listed(alone, 5)})"
        for place, alone in zip(places, (ours.keys() - theirs.keys(), theirs.keys() - ours.keys()), strict=True)
        if alone
    ]
    shared = [name for name in ours if name in theirs]
    changed = [name for name in shared if ours[name] != theirs[name]]
    if changed:
        clauses.append(f"{plural(len(changed), 'prompt')} with another text or negative prompt ({listed(changed, 5)})")
    if shared != [name for name in theirs if name in ours]:
        clauses.append("the prompts stand in another order, which changes batches and so pixels")
    return clauses


def _protocol_differences(
    ours: Suite | Baseline, theirs: Suite | Baseline, digests: tuple[str, str], places: Places
) -> list[str]:
    found = differences(protocol_facts(ours), protocol_facts(theirs), places)
    if not found and digests[0] != digests[1]:
        found = [f"the protocol digest is {digests[0][:12]} {places[0]} and {digests[1][:12]} {places[1]}"]
    return found


def _version_differences(
    ours: Mapping[str, MetricFacts], theirs: Mapping[str, MetricFacts], names: Iterable[str], places: Places
) -> dict[str, str]:
    """By name of the metric, a clause for each that both sides have in another version."""
    return {
        name: f"metric {name} is version {ours[name].full_version} {places[0]} "
        f"and {theirs[name].full_version} {places[1]}"
        for name in names
        if name in ours and name in theirs and ours[name].full_version != theirs[name].full_version
    }


# Work of two occasions in one run folder.


def refuse_other_protocol(path: Path, info: RunInfo, suite: Suite) -> NoReturn:
    """Refuse to continue a run of another protocol.

    Args:
        path: the run folder.
        info: what it holds.
        suite: what is to be run, of another protocol digest.

    Raises:
        IncomparableError: always; the sentence names every fact that differs.
    """
    limits = {"limit": info.suite.limit}, {"limit": suite.limit}
    found = differences(*limits, ("there", "here"))
    found += differences(protocol_facts(info.suite), protocol_facts(suite), ("there", "here"))
    raise IncomparableError(
        f"{path}: holds a run of another protocol: {'; '.join(found or ['the protocol digest'])}.", HINT
    )


def check_environment(
    info: RunInfo,
    machine: Machine,
    packages: Mapping[str, str],
    facts: Callable[[Machine, Mapping[str, str]], dict[str, object]] = pixel_facts,
) -> None:
    """Refuse to add to a run what is made in another environment: images, or timings, would not be of one kind.

    Args:
        info: what the folder holds.
        machine: this machine.
        packages: the versions that are installed here.
        facts: ``pixel_facts`` for images, ``timing_facts`` for timings.

    Raises:
        IncomparableError: naming every fact that differs.
    """
    found = differences(facts(info.machine, info.packages), facts(machine, packages), ("there", "here"))
    if found:
        what = "images" if facts is pixel_facts else "timings"
        raise IncomparableError(
            f"The run {info.id} was begun in another environment, and its {what} must not mix: {'; '.join(found)}.",
            HINT,
        )


# Two runs side by side.


def run_labels(candidate: Run, reference: Run) -> tuple[str, str]:
    """Two names that tell the runs apart: their folders' names, else their ids, else their paths.

    Raises:
        UsageError: both are the same run folder.
    """
    if resolved(candidate.path) == resolved(reference.path):
        several = len(candidate.info.suite.variants) > 1
        inner = f", or compare this one's variants: hotart-bench compare {argument(candidate.path)}" if several else ""
        raise UsageError(f"The run {candidate.path} is compared with itself.", hint=f"name two folders{inner}")
    names = Path(candidate.path).name, Path(reference.path).name
    ids = candidate.info.id, reference.info.id
    return next((pair for pair in (names, ids) if pair[0] != pair[1]), (candidate.path, reference.path))


def check_names(names: Iterable[str], known: Collection[str], owner: str) -> None:
    """Refuse the first name that is not known: "<owner> 'spoo' (did you mean 'spo'?); it has base, spo."

    Raises:
        UsageError: one of ``names`` is not in ``known``.
    """
    for name in names:
        if name not in known:
            near = did_you_mean(name, known)
            raise UsageError(f"{owner} {name!r}{near}; it has {listed(known) or 'none'}.")


def common_metrics(
    candidate: Run, reference: Run, labels: tuple[str, str], metrics: Sequence[str] | None = None
) -> tuple[MetricFacts, ...]:
    """The metrics that two comparable runs share, those that are named or all, in the candidate's order.

    Raises:
        IncomparableError: another protocol, a metric of another version, no metric in common: all that
            differs in one message.
        UsageError: a metric is named that one of the runs does not have.
    """
    ours, theirs = ({facts.name: facts for facts in run.info.metrics} for run in (candidate, reference))
    for known, label in ((ours, labels[0]), (theirs, labels[1])):
        check_names(metrics or (), known, f"The run {label} has no metric")
    places = f"in {labels[0]}", f"in {labels[1]}"
    shared = [name for name in ours if name in theirs and (metrics is None or name in metrics)]
    digests = candidate.info.protocol_digest, reference.info.protocol_digest
    protocol = _protocol_differences(candidate.info.suite, reference.info.suite, digests, places)
    versions = _version_differences(ours, theirs, shared, places)
    reasons = [*protocol, *versions.values()]
    if not shared:
        has = [listed(known) or "none" for known in (ours, theirs)]
        reasons.append(f"they share no metric ({labels[0]} has {has[0]}, {labels[1]} has {has[1]})")
    if reasons:
        both = [f"hotart-bench score {argument(run.path)}" for run in (candidate, reference)]
        hint = f"Score both with this version: {'; '.join(both)}"
        same = [name for name in shared if name not in versions]
        if protocol:
            hint = f"Make both from one suite, for instance: {making(reference.info.suite)} -o DIR"
        elif same:
            hint += f"; or compare the others alone: --metrics {','.join(same)}"
        raise IncomparableError(f"The runs {labels[0]} and {labels[1]} cannot be compared: {'; '.join(reasons)}.", hint)
    return tuple(ours[name] for name in shared)


# The runs of a grid.


def refuse_unlike_runs(runs: Mapping[str, Run]) -> None:
    """Refuse runs that differ in more than their settings.

    Args:
        runs: by the words for their setting.

    Raises:
        IncomparableError: a variant with other weights, or a metric of another version, each named once.
    """
    first, *others = runs.items()
    reasons: dict[str, str] = {}
    for label, run in others:
        places = f"at {first[0]}", f"at {label}"
        ours, theirs = ({one.name: one for one in side.info.metrics} for side in (first[1], run))
        reasons = _version_differences(ours, theirs, ours, places) | reasons
        digests = [{one.name: one.digest for one in side.info.variants} for side in (first[1], run)]
        for name in digests[0]:
            if digests[1].get(name, digests[0][name]) != digests[0][name]:
                reasons.setdefault(f"variant {name}", f"variant {name} has other weights {places[1]} than {places[0]}")
    if reasons:
        raise IncomparableError(
            f"The runs of the grid are not of the same variants and metrics: {'; '.join(reasons.values())}.",
            "the same hotart-bench grid command draws and scores again what changed",
        )


# A run and its baseline, both frozen.


def machine_differences(candidate: Baseline, reference: Baseline, labels: tuple[str, str]) -> list[str]:
    """What makes the timings of two sides those of other environments, one clause for each of ``timing_facts``."""
    ours, theirs = (timing_facts(side.machine, side.packages) for side in (candidate, reference))
    return differences(ours, theirs, (f"in {labels[0]}", f"in {labels[1]}"))


def refuse_incomparable(
    candidate: Baseline, reference: Baseline, metrics: Iterable[str], timed: bool, labels: tuple[str, str]
) -> None:
    """Refuse another protocol, another version of a gated metric and, for timings, another environment.

    Args:
        candidate: the run that is gated.
        reference: the baseline.
        metrics: the gated ones.
        timed: whether a timed quantity is gated.
        labels: how messages name the two sides, candidate first.

    Raises:
        IncomparableError: all differing facts in one message.
    """
    places = f"in {labels[0]}", f"in {labels[1]}"
    digests = candidate.protocol_digest, reference.protocol_digest
    protocol = _protocol_differences(candidate, reference, digests, places)
    ours, theirs = ({facts.name: facts for facts in side.metrics} for side in (candidate, reference))
    versions = list(_version_differences(ours, theirs, metrics, places).values())
    machine = machine_differences(candidate, reference, labels) if timed else []
    reasons = protocol + versions + machine
    if not reasons:
        return
    if protocol:
        hint = f"Render the suite that the baseline was made with, {reference.suite}: hotart-bench run SUITE -o DIR"
    elif versions:
        hint = "Score the baseline's run with this version too, and freeze it again: hotart-bench score RUN"
    else:
        hint = "leave speed and memory out with --other-machine, or measure the baseline on this machine"
    raise IncomparableError(f"{labels[0]} cannot be compared with {labels[1]}: {'; '.join(reasons)}.", hint)
