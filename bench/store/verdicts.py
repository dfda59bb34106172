"""``gate.json``: the last gate on a run, beside its journals."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from bench import strict_json
from bench.errors import IncomparableError, InvalidError, MachineError
from bench.records import SCHEMA, Gate
from bench.store.journal import write_whole
from bench.store.reading import folder_of
from bench.store.remote import is_url

GATE = "gate.json"


def write_gate(run_path: str | Path, gate: Gate) -> Path:
    """Write ``gate.json`` of a run folder, whole or not at all, in the place of an earlier one; returns its path.

    Raises:
        MachineError: the disk is full, read-only or otherwise unwilling.
    """
    path, data = folder_of(run_path) / GATE, gate_json(gate).encode()
    write_whole(path, data)
    if is_url(run_path):
        from bench.store.mirror import put_file

        put_file(str(run_path), GATE, data)
    return path


def read_gate(run_path: str | Path) -> Gate | None:
    """The last gate on a run, from its folder or ``run.json``; None where there was none.

    It may have judged what lay in the folder before: ``Gate.run_id`` tells.

    Raises:
        IncomparableError: its schema is newer than this program.
        InvalidError: the file is damaged.
        MachineError: it cannot be read.
    """
    path = folder_of(run_path) / GATE
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise MachineError(f"{path}: cannot be read: {error.strerror}.") from error
    try:
        table = strict_json.loads(data.decode())
        schema = table.get("schema") if isinstance(table, dict) else None
        if type(schema) is int and schema > SCHEMA:
            raise IncomparableError(
                f"{path}: has schema {schema}; this hotart-bench knows gates up to schema {SCHEMA}.",
                "pip install --upgrade hotart-bench",
            )
        return strict_json.convert(table, Gate)
    except ValueError as error:
        raise InvalidError(
            f"{path}: is no record of a gate: {error}.", "run hotart-bench gate again, or delete the file"
        ) from error


def gate_json(gate: Gate) -> str:
    """The gate as indented JSON text that ends with a line feed.

    Raises:
        ValueError: a number that is not finite (a bug of the caller: JSON has none).
    """
    return json.dumps(msgspec.to_builtins(gate), ensure_ascii=False, allow_nan=False, indent=2) + "\n"
