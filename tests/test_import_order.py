"""The order of the rooms (docs/design/rooms.md), and the promises that hang on it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "bench"

PARTS = {
    # A room of several files is a package; of the files that stand alone, this says whose they are.
    "names": "errors",
    "wording": "errors",
    "strict_json": "errors",
    "cells": "render",
    "frames": "compare",
}

NO_TORCH = ("bench.records", "bench.suite", "bench.store", "bench.metrics.registry", "bench.machine", "bench.memory")


def rooms_in_order() -> list[list[str]]:
    """The levels as rooms.md draws them, lowest first."""
    text = (ROOT / "docs" / "design" / "rooms.md").read_text(encoding="utf-8")
    drawing = text[text.index("`errors records") : text.index("| room |")]
    return [level.split() for level in re.findall(r"`([^`]+)`", drawing)]


LEVEL = {room: level for level, rooms in enumerate(rooms_in_order()) for room in rooms}
MODULES = sorted(PACKAGE.rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    first = module.split(".")[1]
    return PARTS.get(first, first)


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """Every module of ``bench`` that a file imports, inside functions too, with the line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            # "from bench import suite" imports the room; "from bench.records import Case" the module named.
            whole = node.module == "bench"
            names = [f"bench.{alias.name}" for alias in node.names] if whole else [node.module or ""]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name.split(".")[0] == "bench")


def test_the_map_is_read_as_it_is_drawn() -> None:
    assert rooms_in_order()[0] == ["errors", "records", "stats"]
    assert LEVEL["store"] < LEVEL["suite"] == LEVEL["mini"] < LEVEL["render"] < LEVEL["compare"] < LEVEL["cli"]


def test_every_module_has_a_room() -> None:
    modules = [module_name(path) for path in MODULES]
    rooms = {name: room_of(name) for name in modules if name not in ("bench", "bench.__main__")}
    lost = {name for name, room in rooms.items() if room not in LEVEL}
    assert not lost, "give these a room in docs/design/rooms.md, or in PARTS above"
    assert set(PARTS) <= {name.split(".")[1] for name in rooms}


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_lower_never_imports_higher(path: Path) -> None:
    name = module_name(path)
    if name in ("bench", "bench.__main__"):  # the front doors: they hand out what lies behind
        return
    own = LEVEL[room_of(name)]
    for line, target in imports_of(path):
        if target == "bench":
            continue
        assert LEVEL[room_of(target)] <= own, f"{path.relative_to(ROOT)}:{line}: {name} imports {target}"


def test_the_reader_of_imports_sees_all_of_them(tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    path.write_text(
        "import torch, bench.run as r\nfrom bench import cli\n"
        "def f():\n    from bench.score import score\n    raise SystemExit(print(1))\n",
        encoding="utf-8",
    )
    assert list(imports_of(path)) == [(1, "bench.run"), (2, "bench.cli"), (4, "bench.score")]
    said = {speaks(node) for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))}
    assert said == {"", "SystemExit", "print"}


def test_records_import_nothing_of_ours_and_suites_nothing_beside_them() -> None:
    for path in (PACKAGE / "records").glob("*.py"):
        assert {room_of(target) for _, target in imports_of(path)} <= {"records"}
    beside = {"variants", "metrics", "mini"}
    for path in MODULES:
        if module_name(path) != "bench" and room_of(module_name(path)) == "suite":
            assert not beside & {room_of(target) for _, target in imports_of(path)}


def speaks(node: ast.AST) -> str:
    """What a node does that only the command line may: print or end the program; else empty."""
    if isinstance(node, ast.Call):
        called = ast.unparse(node.func)
        return called if called in {"print", "sys.exit", "exit", "quit", "os._exit"} else ""
    raises = isinstance(node, ast.Raise) and node.exc is not None and "SystemExit" in ast.unparse(node.exc)
    return "SystemExit" if raises else ""


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_only_the_command_line_prints_or_exits(path: Path) -> None:
    name = module_name(path)
    if name.startswith(("bench.cli", "bench.mini.train", "bench.mini.evidence")) or name == "bench.__main__":
        return
    # The worker is a process of its own, whose watchdog thread must end it when its parent is gone.
    allowed = {"", "os._exit"} if name == "bench.worker" else {""}
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    found = [node.lineno for node in nodes if isinstance(node, ast.expr | ast.stmt) and speaks(node) not in allowed]
    assert not found, f"{path.relative_to(ROOT)}: prints or exits in the lines {found}"


def test_rooms_without_models_import_no_torch() -> None:
    heavy = {"torch", "diffusers", "transformers"}
    code = f"import sys, {', '.join(NO_TORCH)}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
