"""A whole run on an S3-compatible server: its driver killed, the same command on another machine, verbs by URL."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from fakes import blank_figure
from object_stores import s3_server

import bench.run.stages
from bench.measure import measure
from bench.store import load_run
from bench.store.objects import Objects

TESTS = Path(__file__).parents[1]

DRIVER = """
import os, signal, sys, torch
from bench.run import RunOptions, run_stage
from bench.suite import load_suite

def die(stage, done, total, note=""):
    if done == 4:
        os.kill(os.getpid(), signal.SIGKILL)

torch.set_num_threads(1)
run_stage("render", load_suite(sys.argv[1]), sys.argv[2], RunOptions(device="cpu"), progress=die)
"""


@pytest.fixture(scope="module")
def suite_file(tmp_path_factory):
    """The tiny suite with something to judge by."""
    return tiny.write_tiny(tmp_path_factory.mktemp("suite"), "[measure]", '[limits]\nmini-clip = "0.1sd"\n\n[measure]')


@pytest.fixture(scope="module")
def killed(suite_file, tmp_path_factory):
    """The URL of the tiny suite's run, whose driver was killed after its first batch, as another machine."""
    with s3_server() as bucket, pytest.MonkeyPatch.context() as patch:
        url, caches = f"{bucket}/runs/tiny", tmp_path_factory.mktemp("caches")
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "HOTART_RUNS_CACHE": str(caches / "first"),
            "PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}",
        }
        command = [sys.executable, "-c", DRIVER, str(suite_file), url]
        done = subprocess.run(command, env=environment, check=False, timeout=300)
        assert done.returncode == -signal.SIGKILL
        patch.setenv("HOTART_RUNS_CACHE", str(caches / "second"))
        patch.setattr(bench.run.stages, "measure", functools.partial(measure, command=tiny.TIMER))
        patch.setattr("bench.plots.style.figure_bytes", blank_figure)
        yield url


@pytest.fixture(scope="module")
def stored(killed):
    """What lay on the store when the driver was killed."""
    objects = Objects(killed)
    return objects.get_all(objects.names())


@pytest.fixture(scope="module")
def continued(killed, stored, suite_file):
    """The run once the same command was given again, elsewhere."""
    from bench.cli import run_command_line

    assert run_command_line(["run", str(suite_file), "-o", killed, "--device", "cpu", "--quiet"]) == 0
    return killed


def test_a_killed_driver_leaves_whole_batches(stored):
    chunks = [name for name in stored if name.startswith("chunks/")]
    assert len(chunks) == 1
    assert stored[chunks[0]].count(b"\n") == 4
    assert {".lock.json", "run.json"} <= stored.keys()


def test_the_same_command_elsewhere_ends_with_the_same_run(continued, tiny_run):
    objects = Objects(continued)
    here = objects.get_all(objects.names())
    there = {
        path.relative_to(tiny_run.folder).as_posix(): path.read_bytes()
        for path in tiny_run.folder.rglob("*")
        if path.is_file()
    }
    assert here.keys() == there.keys(), "no lock, no chunk"
    alike = [name for name in there if name.startswith("images/") or name == "scores.csv"]
    assert {name: here[name] for name in alike} == {name: there[name] for name in alike}
    assert load_run(continued).renders == load_run(tiny_run.folder).renders
    assert load_run(continued).info.status == "complete"


def test_a_finished_run_is_left_alone(continued, suite_file, cli):
    objects = Objects(continued)
    before = objects.get_all(objects.names())
    answer = cli("run", suite_file, "-o", continued, "--device", "cpu")
    assert (answer.code, answer.out) == (0, f"{continued}/report.html\n")
    assert "Nothing was left to do: 12 images, 72 scores, " in answer.err
    assert f"timings in {continued}." in answer.err
    assert objects.get_all(objects.names()) == before


def test_verbs_take_the_url(continued, tiny_run, cli, tmp_path):
    local = cli("compare", tiny_run.folder, "--format", "json")
    remote = cli("compare", continued, "--format", "json")
    assert remote.code == local.code == 0
    assert '"deltas"' in remote.out
    frozen = tmp_path / "baseline.json"
    assert cli("baseline", continued, "-o", frozen, "--by", "tests").code == 0
    verdict = cli("gate", continued, "--candidate", "spo", "--reference", "base")
    assert verdict.code in (0, 1, 5), verdict.err
    assert "gate.json" in Objects(continued).names()
    assert cli("report", continued, "--quiet").out == f"{continued}/report.html\n"
    assert cli("score", continued, "--metrics", "contrast", "--device", "cpu", "--quiet").code == 0
    assert b"contrast" in (Objects(continued).get("scores.csv") or b"").splitlines()[0]
    assert "gate.json" not in Objects(continued).names(), "it was on other scores"


def test_a_url_without_a_run_is_bad_usage(killed, cli):
    answer = cli("compare", killed + "-not")
    assert answer.code == 2
    assert f"{killed}-not: there is no run here (no run.json)" in answer.err
