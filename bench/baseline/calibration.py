"""The noise between sessions that a baseline takes over from a calibration of its suite and machine."""

from __future__ import annotations

from pathlib import Path

from bench import strict_json
from bench.errors import IncomparableError, InvalidError, MachineError, UsageError
from bench.records import SCHEMA, Calibration, Machine, RunInfo, SessionNoise

KIND = "hotart-bench calibration"


def read_session_noise(path: str | Path, info: RunInfo) -> tuple[SessionNoise, ...]:
    """The noise between sessions, from the file that ``calibrate`` wrote for the suite and machine of a run.

    Raises:
        UsageError: there is no such file, it is something else, or it has no sessions of timing.
        IncomparableError: of another protocol or machine, with all that differs, or of a newer schema.
        InvalidError: the file is damaged.
        MachineError: it cannot be read.
    """
    path = Path(path)
    found = _read(path)
    differences = _differences(found, info)
    if differences:
        raise IncomparableError(
            f"{path}: was measured otherwise than the run {info.id}: {'; '.join(differences)}.",
            f"hotart-bench calibrate {info.suite.source or info.suite.name}",
        )
    if not found.session_noise:
        raise UsageError(
            f"{path}: holds no sessions of timing.",
            f"hotart-bench calibrate {info.suite.source or info.suite.name} --sessions 3",
        )
    return found.session_noise


def _read(path: Path) -> Calibration:
    try:
        table = strict_json.loads(path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError as error:
        raise UsageError(f"{path}: there is no calibration here.", "hotart-bench calibrate SUITE") from error
    except OSError as error:
        raise MachineError(f"{path}: cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise InvalidError(f"{path}: is no whole JSON file: {error}.", "hotart-bench calibrate SUITE") from error
    if not isinstance(table, dict) or table.get("kind") != KIND:
        raise UsageError(f"{path}: is no calibration (its kind is not {KIND!r}).", "hotart-bench calibrate SUITE")
    schema = table.get("schema")
    if type(schema) is int and schema > SCHEMA:
        raise IncomparableError(
            f"{path}: has schema {schema}; this hotart-bench knows calibrations up to schema {SCHEMA}.",
            "pip install --upgrade hotart-bench",
        )
    try:
        return strict_json.convert(table, Calibration)
    except ValueError as error:
        raise InvalidError(f"{path}: is no calibration: {error}.", "hotart-bench calibrate SUITE") from error


def _differences(found: Calibration, info: RunInfo) -> list[str]:
    ours, theirs = _ground(info.machine), _ground(found.machine)
    differences = [f"{name} is {theirs[name]} there and {ours[name]} in the run" for name in ours]
    differences = [text for text, name in zip(differences, ours, strict=True) if ours[name] != theirs[name]]
    if found.protocol_digest != info.protocol_digest:
        differences.insert(
            0, f"the suite is {found.suite} with another protocol (its prompts, samples, seed or settings)"
        )
    return differences


def _ground(machine: Machine) -> dict[str, object]:
    """What the time of an image hangs on; the system's version, which every update changes, does not count."""
    return {
        "the device": machine.device.split(":")[0],
        "the device's name": machine.device_name,
        "the cpu": machine.cpu,
        "the number of cores": machine.cores,
        "the number of threads": machine.threads,
    }
