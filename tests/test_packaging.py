"""The wheel holds all that the checkout has: what is not listed works in a checkout and is missing once installed."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_every_package_of_the_checkout_is_listed() -> None:
    found = {".".join(init.parent.relative_to(ROOT).parts) for init in (ROOT / "bench").rglob("__init__.py")}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == found | {"bench.prompts", "bench.templates"}


def test_every_data_file_of_the_checkout_is_listed() -> None:
    setup = PROJECT["tool"]["setuptools"]
    listed: set[Path] = set()
    for package, patterns in setup["package-data"].items():
        folder = ROOT / setup["package-dir"].get(package, package.replace(".", "/"))
        listed |= {path for pattern in patterns for path in folder.glob(pattern)}
    data = {path for folder in ("bench", "prompts") for path in (ROOT / folder).rglob("*") if path.is_file()}
    data = {path for path in data if path.suffix not in (".py", ".pyc", ".md")}
    assert data - listed == set()


def test_only_training_imports_what_only_the_extra_train_installs() -> None:
    (needed,) = PROJECT["project"]["optional-dependencies"]["train"]
    package = re.split(r"\W", needed)[0]
    users = {
        path.relative_to(ROOT).parent.as_posix()
        for path in (ROOT / "bench").rglob("*.py")
        if re.search(rf"^\s*(import|from) {package}\b", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert users == {"bench/mini/train"}
    assert package not in {re.split(r"\W", item)[0] for item in PROJECT["project"]["dependencies"]}
