"""What must agree before work of two occasions may lie in one run folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import msgspec

from bench.errors import IncomparableError
from bench.names import listed
from bench.records import Machine, RunInfo, Suite

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
    """Refuse to render into a run on other ground than it was begun on: its images would not be of one kind.

    The kind of device (cpu, cuda, mps), its name, on a CPU the number of threads, and the versions of torch and
    diffusers must agree: each of them changes pixels.

    Args:
        info: what the folder holds.
        machine: this machine.
        packages: the versions that are installed here.

    Raises:
        IncomparableError: naming every fact that differs.
    """
    differences = ground_differences(info, machine, packages)
    if differences:
        raise IncomparableError(
            f"The run {info.id} was begun on another machine or other packages, and its images must not mix: "
            f"{'; '.join(differences)}.",
            HINT,
        )


def ground_differences(info: RunInfo, machine: Machine, packages: Mapping[str, str]) -> list[str]:
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
    old = {case.id: (case.prompt, case.negative) for case in there.cases}
    new = {case.id: (case.prompt, case.negative) for case in here.cases}
    groups = {
        "cases only there": old.keys() - new.keys(),
        "cases only here": new.keys() - old.keys(),
        "cases with another prompt": {case for case in old.keys() & new.keys() if old[case] != new[case]},
    }
    differences = [f"{name}: {listed(cases, 3)}" for name, cases in groups.items() if cases]
    if not differences and list(old) != list(new):
        differences.append("the order of the cases")
    return differences


def _difference(name: str, there: object, here: object) -> str:
    return f"{name} is {_said(there)} there and {_said(here)} here"


def _said(value: object) -> str:
    return "not set" if value is None else str(value)
