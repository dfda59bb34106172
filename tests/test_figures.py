"""What the figures are made of: medians, ratios, goals, the table, and the watch on memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from figures import large_work
from figures.commands import GIB, timed, watched
from figures.figure import figure_of, ratio_figure, table

import bench.render
from bench.store import load_run

ROOT = Path(__file__).parent.parent


def test_a_figure_is_one_line_of_json_as_the_contract_has_it() -> None:
    figure = figure_of("run_s", [100.0, 120.06, 90.0], "<", 180)
    assert json.loads(figure.line()) == {
        "figure": "run_s",
        "value": 100.0,
        "goal": "< 180",
        "holds": True,
        "n": 3,
        "min": 90.0,
        "max": 120.1,
        "where": "cpu",
    }
    assert "\n" not in figure.line()


@pytest.mark.parametrize(
    ("value", "relation", "holds"),
    [(2.99, "<", True), (3.0, "<", False), (3.0, "<=", True), (3.00001, "<=", False), (3.1, "<", False)],
)
def test_a_goal_is_compared_before_rounding(value: float, relation: str, holds: bool) -> None:
    assert figure_of("x", [value], relation, 3).holds is holds  # type: ignore[arg-type]


def test_a_ratio_is_of_medians_and_its_spread_of_turns() -> None:
    figure = ratio_figure("x", [2.0, 9.0, 4.0], [1.0, 3.0, 4.0], "<=", 1.25)
    assert figure.value == 4.0 / 3.0
    assert (figure.min, figure.max, figure.n, figure.holds) == (1.0, 3.0, 3, False)


def test_the_table_shows_what_falls_short() -> None:
    lines = table([figure_of("a", [1.0], "<", 2), figure_of("longer", [3.0], "<", 2)]).splitlines()
    assert [line.split()[0] for line in lines] == ["figure", "a", "longer"]
    assert lines[1].split()[4] == "yes"
    assert lines[2].split()[4] == "NO"


def test_memory_is_that_of_all_processes_of_a_command() -> None:
    hold = "import time; block = b'x' * (150 * 2**20); time.sleep(0.8)"
    both = f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {hold!r}]); {hold}; p.wait()"
    wall_s, peak_bytes = watched([sys.executable, "-c", both])
    assert wall_s >= 0.8
    assert 300 * 2**20 < peak_bytes < GIB / 2


def test_the_peak_is_not_that_of_the_process_that_started_this_one() -> None:
    block = b"x" * (GIB // 2)
    ask = "from tests.figures.peak import peak_bytes; block = b'x' * (150 * 2**20); print(peak_bytes())"
    done = subprocess.run([sys.executable, "-c", ask], cwd=ROOT, stdout=subprocess.PIPE, check=True)
    assert 150 * 2**20 < int(done.stdout) < len(block) / 2


def test_a_painted_run_is_made_whole_and_resumed_from_its_half(tmp_path, monkeypatch, capsys) -> None:
    for name in ("switch_variant", "encode_prompts", "launch", "settle"):
        monkeypatch.setattr(bench.render, name, None)  # put back afterwards: the worker takes their places
    large_work.main(40, tmp_path)
    found = json.loads(capsys.readouterr().out)
    assert found.keys() == {"wall_s", "peak_bytes", "resume_start_s"}
    assert min(found.values()) > 0
    assert len(load_run(tmp_path / "whole").renders) == 40
    assert len(load_run(tmp_path / "half").renders) == 20


@pytest.mark.parametrize("watch", [timed, watched])
def test_a_command_that_fails_gives_no_figure(watch: object) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('it broke')"]
    with pytest.raises(SystemExit, match="ended with 1:\nit broke"):
        watch(command)  # type: ignore[operator]
