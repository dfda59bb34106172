"""The wheel holds every package: a room that is not listed works in a checkout and is missing once installed."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_package_of_the_checkout_is_listed() -> None:
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    found = {".".join(init.parent.relative_to(ROOT).parts) for init in (ROOT / "bench").rglob("__init__.py")}
    assert set(setup["packages"]) == found | {"bench.prompts", "bench.templates"}
