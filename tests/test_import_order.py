"""Imports go one way, and the promises that hang on it."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "bench"

NO_TORCH = ("bench.records", "bench.suite", "bench.store", "bench.metrics.registry", "bench.machine")


MODULES = sorted(PACKAGE.rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    return module.split(".")[1]


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """Every module of ``bench`` that a file imports, inside functions too, with the line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            # "from bench import suite" imports the room; "from bench.records import Prompt" the module named.
            whole = node.module == "bench"
            names = [f"bench.{alias.name}" for alias in node.names] if whole else [node.module or ""]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name.split(".")[0] == "bench")


def top_imports(path: Path) -> set[str]:
    """The modules of ``bench`` that importing a file imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = [node for node in tree.body if isinstance(node, ast.ImportFrom | ast.Import)]
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        else:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    names = {module_name(other) for other in MODULES}
    inner = {name for name in found & names if any(other.startswith(f"{name}.") for other in found & names)}
    return (found & names) - inner


def test_modules_import_each_other_in_one_direction() -> None:
    graph = {module_name(path): top_imports(path) - {module_name(path)} for path in MODULES}
    tuple(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, which names the cycle


def test_not_even_imports_inside_functions_lead_back() -> None:
    modules = set(map(module_name, MODULES))
    graph = {name: set[str]() for name in modules}
    for path in MODULES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        guarded = {id(node) for block in ast.walk(tree) if is_for_types(block) for node in ast.walk(block)}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and id(node) not in guarded:
                targets = {f"{node.module}.{alias.name}" for alias in node.names} & modules or {node.module} & modules
                graph[module_name(path)] |= targets - {module_name(path)}
    tuple(graphlib.TopologicalSorter(graph).static_order())


def is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


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
    beside = {"checkpoints", "lora", "merge", "pipeline", "metrics", "mini"}
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
    allowed = {"", "os._exit"} if name == "bench.measure.worker" else {""}
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    found = [node.lineno for node in nodes if isinstance(node, ast.expr | ast.stmt) and speaks(node) not in allowed]
    assert not found, f"{path.relative_to(ROOT)}: prints or exits in the lines {found}"


def test_rooms_without_models_import_no_torch() -> None:
    heavy = {"torch", "diffusers", "transformers"}
    code = f"import sys, {', '.join(NO_TORCH)}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
