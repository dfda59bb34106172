"""The package of docs/plugins.md, word for word: built, installed beside the program, listed, and scored with."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import make_run, write_run

from bench.metrics import SetInputs, SetMetric, registry_of
from bench.mini.metrics import mini_clip_encoder

PAGE = Path(__file__).parents[2] / "docs" / "plugins.md"


def run(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """One command that sees the folder ``place`` as installed packages."""
    environment = {**os.environ, "PYTHONPATH": str(place)}
    return subprocess.run(
        [sys.executable, *arguments],
        check=False,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the page's package was installed by pip."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("target")
    files = re.findall(r"^`([\w.]+)`:\n\n```\w+\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert [name for name, _ in files] == ["pyproject.toml", "warmth.py"]
    for name, text in files:
        (source / name).write_text(text, encoding="utf-8")
    flags = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--disable-pip-version-check"]
    done = run(source, "-m", "pip", "install", *flags, "--target", str(target), str(source))
    assert done.returncode == 0, done.stderr
    return target


def test_the_module_is_about_thirty_lines() -> None:
    module = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert module is not None
    assert len(module[1].splitlines()) <= 34


def test_it_is_listed_and_scores_a_run_that_was_made_before(place: Path, tmp_path: Path) -> None:
    listed = run(place, "-P", "-m", "bench", "list", "metrics", "--json")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert "warmth" in {row["name"] for row in json.loads(listed.stdout)}
    folder = write_run(make_run(tmp_path / "run", prompts=2), tmp_path / "run")
    scored = run(place, "-P", "-m", "bench", "score", str(folder), "--metrics", "warmth", "--device", "cpu", "-q")
    assert scored.returncode == 0, scored.stderr
    lines = [json.loads(line) for line in (folder / "scores.jsonl").read_text().splitlines()]
    values = [line["value"] for line in lines if line["metric"] == "warmth"]
    assert len(values) == 2 * 2 * 3
    assert all(-1 <= value <= 1 for value in values)
    assert len(set(values)) > 6


def test_the_set_metric_of_the_page_says_what_it_says() -> None:
    _, code = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, str(PAGE), "exec"), names)
    spread = names["spread"]
    assert isinstance(spread, SetMetric)
    assert spread.facts.over == "prompt"
    assert registry_of(spread, mini_clip_encoder).set_metrics == {"spread": spread}
    rows = np.eye(4)[:2]  # each is half a diagonal of the unit square from the mean
    assert spread.compute(SetInputs((rows,))) == pytest.approx(0.5)
