"""What makes two runs, machines and protocols comparable, with every differing fact named."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import msgspec

from bench.errors import IncomparableError, UsageError
from bench.formatting import did_you_mean, listed
from bench.records import Machine, MetricFacts, Prompt, Run, RunInfo, Suite

# What must agree before work of two occasions may lie in one run folder.

HINT = "choose another folder with -o, or start over with --fresh"


def refuse_other_protocol(path: Path, info: RunInfo, suite: Suite) -> NoReturn:
    """Refuse to continue a run of another protocol.

    Args:
        path: the run folder.
        info: what it holds.
        suite: what was asked for, of another protocol digest.

    Raises:
        IncomparableError: always; the sentence names every fact that differs.
    """
    differences = _protocol_differences(info.suite, suite) or ["the protocol digest"]
    raise IncomparableError(f"{path}: holds a run of another protocol: {'; '.join(differences)}.", HINT)


def check_same_machine(info: RunInfo, machine: Machine, packages: Mapping[str, str]) -> None:
    """Refuse to render into a run on other environment than it was begun on: its images would not be of one kind.

    The kind of device (cpu, cuda, mps), its name, on a CPU the number of threads, and the versions of torch and
    diffusers must agree: each of them changes pixels.

    Args:
        info: what the folder holds.
        machine: this machine.
        packages: the versions that are installed here.

    Raises:
        IncomparableError: naming every fact that differs.
    """
    differences = environment_differences(info, machine, packages)
    if differences:
        raise IncomparableError(
            f"The run {info.id} was begun on another machine or other packages, and its images must not mix: "
            f"{'; '.join(differences)}.",
            HINT,
        )


def environment_differences(info: RunInfo, machine: Machine, packages: Mapping[str, str]) -> list[str]:
    """What of a machine and its packages differs from where a run was begun, one sentence's part each."""
    here, there = _ground(machine, packages), _ground(info.machine, info.packages)
    return [_difference(name, there[name], here[name]) for name in here if here[name] != there[name]]


def _ground(machine: Machine, packages: Mapping[str, str]) -> dict[str, object]:
    kind = machine.device.split(":")[0]
    return {
        "device": kind,
        "device name": machine.device_name,
        "threads": machine.threads if kind == "cpu" else None,
        "torch": packages.get("torch"),
        "diffusers": packages.get("diffusers"),
    }


def _protocol_differences(there: Suite, here: Suite) -> list[str]:
    facts = [(name, getattr(there, name), getattr(here, name)) for name in ("schema", "samples", "seed", "limit")]
    facts += [
        (f"settings.{field.name}", getattr(there.settings, field.name), getattr(here.settings, field.name))
        for field in msgspec.structs.fields(here.settings)
    ]
    differences = [_difference(name, old, new) for name, old, new in facts if old != new]
    return differences + _case_differences(there, here)


def _case_differences(there: Suite, here: Suite) -> list[str]:
    old = {prompt.id: (prompt.text, prompt.negative) for prompt in there.prompts}
    new = {prompt.id: (prompt.text, prompt.negative) for prompt in here.prompts}
    groups = {
        "prompts only there": old.keys() - new.keys(),
        "prompts only here": new.keys() - old.keys(),
        "prompts with another prompt": {prompt for prompt in old.keys() & new.keys() if old[prompt] != new[prompt]},
    }
    differences = [f"{name}: {listed(prompts, 3)}" for name, prompts in groups.items() if prompts]
    if not differences and list(old) != list(new):
        differences.append("the order of the prompts")
    return differences


def _difference(name: str, there: object, here: object) -> str:
    return f"{name} is {_said(there)} there and {_said(here)} here"


def _said(value: object) -> str:
    return "not set" if value is None else str(value)


# Whether two runs may be compared, and every fact in which they differ, said at once.


def run_labels(candidate: Run, reference: Run) -> tuple[str, str]:
    """Two names that tell the runs apart: their folders' names, else their ids, else their paths.

    Raises:
        UsageError: both are the same run folder.
    """
    if Path(candidate.path).resolve() == Path(reference.path).resolve():
        raise UsageError(
            f"The run {candidate.path} is compared with itself.",
            hint=f"Name two folders, or compare this one's variants: hotart-bench compare {candidate.path}",
        )
    names = Path(candidate.path).name, Path(reference.path).name
    ids = candidate.info.id, reference.info.id
    return next((pair for pair in (names, ids) if pair[0] != pair[1]), (candidate.path, reference.path))


def check_names(asked: Iterable[str], known: Collection[str], owner: str) -> None:
    """Refuses the first name that is not known: "<owner> 'spoo' (did you mean 'spo'?); it has base, spo."

    Raises:
        UsageError: a name in ``asked`` is not in ``known``.
    """
    for name in asked:
        if name not in known:
            near = did_you_mean(name, known)
            raise UsageError(f"{owner} {name!r}{near}; it has {listed(known) or 'none'}.")


def protocol_differences(candidate: Suite, reference: Suite, labels: tuple[str, str]) -> tuple[str, ...]:
    """What keeps the images of two suites from being compared pair by pair, one clause a fact.

    The facts are those of ``bench.suite.protocol_digest``: schema, settings, samples, seed, and the
    prompts' ids, texts and order. ``labels`` names the two sides, candidate first.
    """
    ours, theirs = (_plain_facts(suite) for suite in (candidate, reference))
    differing = [
        f"{name} is {ours[name]} in {labels[0]} and {theirs[name]} in {labels[1]}"
        for name in ours
        if ours[name] != theirs[name]
    ]
    return (*differing, *_prompt_differences(candidate.prompts, reference.prompts, labels))


def common_metrics(
    candidate: Run, reference: Run, labels: tuple[str, str], metrics: Sequence[str] | None = None
) -> tuple[MetricFacts, ...]:
    """The metrics that two comparable runs share, those asked for or all, in the candidate's order.

    Raises:
        IncomparableError: another protocol, a metric of another version, no metric in common: all that
            differs in one message.
        UsageError: a metric is asked for that one of the runs does not have.
    """
    ours, theirs = ({facts.name: facts for facts in run.info.metrics} for run in (candidate, reference))
    for known, label in ((ours, labels[0]), (theirs, labels[1])):
        check_names(metrics or (), known, f"The run {label} has no metric")
    shared = [ours[name] for name in ours if name in theirs and (metrics is None or name in metrics)]
    other = [facts.name for facts in shared if facts.version != theirs[facts.name].version]
    protocol = _digest_differences(candidate, reference, labels)
    reasons = protocol + [
        f"metric {name} is version {ours[name].version} in {labels[0]} and {theirs[name].version} in {labels[1]}"
        for name in other
    ]
    if not shared:
        reasons.append(
            f"they share no metric ({labels[0]} has {listed(ours) or 'none'}, "
            f"{labels[1]} has {listed(theirs) or 'none'})"
        )
    if reasons:
        same = [facts.name for facts in shared if facts.name not in other]
        raise IncomparableError(
            f"The runs {labels[0]} and {labels[1]} cannot be compared: {'; '.join(reasons)}.",
            hint=_way_out(candidate, reference, bool(protocol), same),
        )
    return tuple(shared)


def _plain_facts(suite: Suite) -> dict[str, object]:
    settings = msgspec.to_builtins(suite.settings)
    return {
        "schema": suite.schema,
        "samples": suite.samples,
        "seed": suite.seed,
        "the source of the images": "a renderer" if suite.external_images is None else "a folder of given images",
        **{f"settings.{name}": value for name, value in settings.items()},
    }


def _prompt_differences(candidate: Sequence[Prompt], reference: Sequence[Prompt], labels: tuple[str, str]) -> list[str]:
    ours, theirs = ({prompt.id: prompt for prompt in prompts} for prompts in (candidate, reference))
    shared = [name for name in ours if name in theirs]
    found = [
        f"{_count(alone)} only in {label} ({listed(alone, 5)})"
        for label, alone in zip(labels, (ours.keys() - theirs.keys(), theirs.keys() - ours.keys()), strict=True)
        if alone
    ]
    for what, field in (("text", "text"), ("negative prompt", "negative")):
        changed = [name for name in shared if getattr(ours[name], field) != getattr(theirs[name], field)]
        if changed:
            found.append(f"{_count(changed)} with another {what} ({listed(changed, 5)})")
    if shared != [name for name in theirs if name in ours]:
        found.append("the prompts stand in another order, which changes batches and so pixels")
    return found


def _count(names: Collection[str]) -> str:
    return f"{len(names)} prompt" + ("" if len(names) == 1 else "s")


def _digest_differences(candidate: Run, reference: Run, labels: tuple[str, str]) -> list[str]:
    ours, theirs = candidate.info.protocol_digest, reference.info.protocol_digest
    if ours == theirs:
        return []
    said = protocol_differences(candidate.info.suite, reference.info.suite, labels)
    return list(said) or [f"the protocol digest is {ours[:12]} in {labels[0]} and {theirs[:12]} in {labels[1]}"]


def _way_out(candidate: Run, reference: Run, other_protocol: bool, same_version: list[str]) -> str:
    if other_protocol:
        suite = reference.info.suite
        return f"Render both with one suite, for instance: hotart-bench run {suite.source or suite.name} -o DIR"
    verb = "hotart-bench score"
    score = f"Score both with this version: {verb} {candidate.path}; {verb} {reference.path}"
    if not same_version:
        return score
    return f"{score}; or compare the others alone: --metrics {','.join(same_version)}"
