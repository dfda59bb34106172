"""Runs that are killed, stopped or refused, and what the same command makes of what they left."""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import tiny

import bench.run.stages
from bench.measure import measure
from bench.records import Render, Score
from bench.store import load_run
from bench.store.journal import RENDERS, SCORES, Journal, append_records, read_records

TESTS = Path(__file__).parents[1]
pytestmark = pytest.mark.usefixtures("blank_plots")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}"}
KILLED = -signal.SIGKILL


def content(folder):
    """Every file by name, with its sha256."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def images(folder):
    return {name: digest for name, digest in content(folder).items() if name.startswith("images/")}


def journal(folder, kind):
    path = folder / {Render: "renders.jsonl", Score: "scores.jsonl"}[kind]
    return read_records(path, kind)


@pytest.fixture
def no_clock(monkeypatch):
    """Timing processes that take no time."""
    monkeypatch.setattr(bench.run.stages, "measure", functools.partial(measure, command=tiny.TIMER))


# --- killed at every kind of moment --------------------------------------------------------


@pytest.fixture(scope="module")
def killed(tiny_run, tmp_path_factory):
    """The tiny suite, run by a command that was killed six times and stopped once: folder, ends, states between."""
    place = tmp_path_factory.mktemp("killed")
    (place / "states").mkdir()
    driver = [sys.executable, str(TESTS / "kill_driver.py")]
    done = subprocess.run(
        [*driver, str(tiny_run.suite_file), str(place / "run"), str(place / "states")],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        check=True,
        timeout=600,
    )
    return place / "run", json.loads(done.stdout), place / "states"


STATES = {
    # point: how it ends, cells on record in renders.jsonl and scores.jsonl, and the file that was being written
    "png": (KILLED, 0, 0, "dunes-0.png"),
    "batch": (KILLED, 4, 0, None),
    "journal": (KILLED, 5, 0, "renders.jsonl"),
    "interrupt": (130, 10, 0, None),
    "scores": (KILLED, 12, 3, "scores.jsonl"),
    "measure": (KILLED, 12, 72, None),
    "report": (KILLED, 12, 72, None),
}


@pytest.mark.parametrize("point", STATES)
def test_a_kill_loses_at_most_the_batch_that_was_being_made(point, killed, tiny_run):
    _, ends, states = killed
    end, renders, scores, torn = STATES[point]
    state = states / point
    assert ends[point] == end, (states / f"{point}.err").read_text("utf-8")
    assert len(Journal(state / RENDERS, Render).records()) == renders
    assert len(Journal(state / SCORES, Score).records()) == scores
    ends_torn = [path.name for path in state.glob("*.jsonl") if not path.read_bytes().endswith(b"\n")]
    assert ends_torn == ([torn] if point in ("journal", "scores") else [])
    halves = [path for path in state.rglob("*.tmp") if path.name.startswith(f".{torn}.")]
    assert len(halves) == (point == "png")
    whole = images(tiny_run.folder)
    assert all(whole[one.image] == one.sha256 for one in Journal(state / RENDERS, Render).records())
    assert all(whole[name] == digest for name, digest in images(state).items() if name.endswith(".png"))


def test_ctrl_c_ends_with_130_and_a_sentence(killed):
    said = (killed[2] / "interrupt.err").read_text("utf-8")
    assert said.startswith("hotart-bench: Stopped. What was finished is kept; the same command continues")
    assert len(said.splitlines()) == 1


def test_a_killed_run_that_is_continued_equals_an_undisturbed_one_byte_for_byte(killed, tiny_run, cli, no_clock):
    folder = killed[0]
    answer = cli("run", tiny_run.suite_file, "-o", folder, "--device", "cpu")
    assert (answer.code, answer.out) == (0, f"{folder / 'report.html'}\n")
    assert "Done: 12 images, 72 scores" in answer.err
    assert images(folder) == images(tiny_run.folder)
    run, undisturbed = load_run(folder), load_run(tiny_run.folder)
    assert run.renders == undisturbed.renders
    assert run.scores == undisturbed.scores
    assert set(journal(folder, Render)) == set(undisturbed.renders)
    assert (folder / "scores.csv").read_bytes() == (tiny_run.folder / "scores.csv").read_bytes()
    assert content(folder).keys() == content(tiny_run.folder).keys(), "no temporary file and no lock is left"
    assert run.info.status == "complete"
    assert len(run.timings) == len(undisturbed.timings)


# --- a finished run ------------------------------------------------------------------------

AGAIN = """
import sys
from bench.cli import run_command_line
code = run_command_line(sys.argv[1:])
heavy = {"torch", "diffusers", "transformers", "peft", "open_clip", "torchmetrics", "matplotlib"}
print(code, *sorted(heavy & {name.partition(".")[0] for name in sys.modules}))
"""


def test_a_finished_run_is_left_alone_without_importing_torch(tiny_run, tmp_path):
    folder = shutil.copytree(tiny_run.folder, tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    done = subprocess.run(
        [sys.executable, "-c", AGAIN, "run", str(tiny_run.suite_file), "-o", str(folder)],
        env=ENVIRONMENT,
        capture_output=True,
        encoding="utf-8",
        check=True,
        timeout=120,
    )
    assert done.stdout.splitlines() == [str(folder / "report.html"), "0"]
    assert "Nothing was left to do: 12 images, 72 scores" in done.stderr
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before


def test_a_lost_report_is_written_again_and_nothing_else(tiny_run, tmp_path, cli, monkeypatch):
    folder = shutil.copytree(tiny_run.folder, tmp_path / "run")
    (folder / "report.md").unlink()
    monkeypatch.setattr("bench.run.stages.write_report", lambda run: Path(run.path, "report.md").write_text("again"))
    assert cli("run", tiny_run.suite_file, "-o", folder).code == 0
    assert (folder / "report.md").read_text() == "again"
    assert {**content(tiny_run.folder), "report.md": ""} == {**content(folder), "report.md": ""}


# --- weights that change -------------------------------------------------------------------


@pytest.fixture
def moved(tiny_run, tmp_path):
    """The suite and its run, at another place."""
    suite_file = tiny.write_tiny(tmp_path)
    return suite_file, shutil.copytree(tiny_run.folder, tmp_path / "run")


def test_the_same_weights_at_another_place_are_the_same_variant(moved, cli):
    suite_file, folder = moved
    before = content(folder)
    answer = cli("run", suite_file, "-o", folder)
    assert answer.code == 0
    assert "Nothing was left to do" in answer.err
    after = content(folder)
    assert {name for name in after if after[name] != before[name]} <= {"run.json"}


def test_a_variant_whose_lora_changed_is_rendered_anew_and_no_other(moved, tiny_run, cli, no_clock, monkeypatch):
    suite_file, folder = moved
    monkeypatch.setattr("bench.run.stages.write_report", lambda run: Path(run.path, "report.html").write_text("new"))
    tiny.write_lora(suite_file.parent / "own.safetensors", 2)
    old = load_run(tiny_run.folder)
    stamps = {path: path.stat().st_mtime_ns for path in (folder / "images" / "base").iterdir()}
    answer = cli("run", suite_file, "-o", folder, "--device", "cpu")
    assert answer.code == 0, answer.err
    assert "render: 6 of 6" in answer.err
    assert {path: path.stat().st_mtime_ns for path in (folder / "images" / "base").iterdir()} == stamps
    new = load_run(folder)
    assert [one for one in new.renders if one.variant == "base"] == [
        one for one in old.renders if one.variant == "base"
    ]
    pairs = zip(*([one for one in run.renders if one.variant == "spo"] for run in (old, new)), strict=True)
    for before, after in pairs:
        assert (before.prompt_id, before.sample, before.seed) == (after.prompt_id, after.sample, after.seed)
        assert before.sha256 != after.sha256
        assert hashlib.sha256((folder / after.image).read_bytes()).hexdigest() == after.sha256
    assert new.info.variants[0] == old.info.variants[0]
    assert new.info.variants[1].digest != old.info.variants[1].digest
    assert {one for one in new.scores if one.variant == "base"} == {one for one in old.scores if one.variant == "base"}
    shas = {one.sha256 for one in new.renders}
    assert all(one.image_sha256 in shas for one in new.scores)
    assert [one for one in new.timings if one.variant == "base"] == [
        one for one in old.timings if one.variant == "base"
    ]
    assert {one.process for one in new.timings}.isdisjoint(one.process for one in old.timings if one.variant == "spo")
    assert new.info.status == "complete"


def test_a_lora_that_is_damaged_later_costs_no_old_result(moved, cli):
    suite_file, folder = moved
    before = content(folder)
    lora = suite_file.parent / "own.safetensors"
    lora.write_bytes(lora.read_bytes()[:-1])
    answer = cli("run", suite_file, "-o", folder, "--device", "cpu")
    assert answer.code == 3
    assert "own.safetensors: is damaged, cut short" in answer.err
    assert content(folder) == before


# --- what is refused -----------------------------------------------------------------------


def refused(answer, code, *words):
    assert answer.code == code, answer.err
    assert answer.out == ""
    assert "Traceback" not in answer.err
    told = [line for line in answer.err.splitlines() if not line.startswith(("render: ", "score: "))]
    assert [line.partition(":")[0].strip() for line in told] == ["hotart-bench", "next"]
    assert all(word in answer.err for word in words), answer.err


def test_another_protocol_in_the_folder_is_refused_with_every_difference(moved, tmp_path, cli):
    _, folder = moved
    before = content(folder)
    other = tiny.write_tiny(tmp_path / "other", "steps = 3", "steps = 4")
    answer = cli("run", other, "-o", folder)
    refused(answer, 4, str(folder), "settings.steps is 3 there and 4 here", "--fresh")
    assert content(folder) == before
    limited = cli("run", moved[0], "-o", folder, "--limit", "1")
    refused(limited, 4, "limit is not set there and 1 here", "2 prompts only there (dunes, woman)")
    assert content(folder) == before


def lose_an_image(folder):
    (folder / "images" / "base" / "tent-0.png").unlink()


@pytest.mark.parametrize(("package", "version"), [("torch", "1.0"), ("diffusers", "0.1")])
def test_other_packages_than_the_run_began_with_are_refused(package, version, moved, cli):
    suite_file, folder = moved
    info = load_run(folder).info
    changed = msgspec.structs.replace(info, packages={**info.packages, package: version})
    (folder / "run.json").write_bytes(msgspec.json.encode(changed))
    assert cli("run", suite_file, "-o", folder).code == 0, "nothing is rendered, so nothing can mix"
    lose_an_image(folder)
    before = content(folder)
    answer = cli("run", suite_file, "-o", folder, "--device", "cpu")
    refused(answer, 4, f"{package} is {version} there and {info.packages[package]} here", info.id)
    assert content(folder) == before


HOLDER = """
import sys, time
from pathlib import Path
from bench.store.lock import lock_folder
lock_folder(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def test_a_second_process_is_kept_out_and_the_lock_of_a_killed_one_is_not_in_the_way(moved, cli):
    suite_file, folder = moved
    before = content(folder)
    command = [sys.executable, "-c", HOLDER, str(folder)]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline().strip() == b"held"
        for verb in (["run", suite_file, "-o", folder], ["score", folder], ["report", folder]):
            refused(cli(*verb), 6, f"{folder}: in use by process {holder.pid}", "-o")
        holder.kill()
    assert {**before, ".lock": ""} == {**content(folder), ".lock": ""}
    assert cli("run", suite_file, "-o", folder).code == 0
    assert not (folder / ".lock").exists()


def test_a_disk_that_fills_up_ends_with_6_and_the_same_command_continues(tiny_run, tmp_path, cli, monkeypatch):
    real_sync, folder = os.fsync, tmp_path / "run"

    def full(file):
        if (folder / "images" / "spo").exists() and os.fstat(file).st_size > 1000:
            raise OSError(errno.ENOSPC, "No space left on device")
        real_sync(file)

    command = ("render", tiny_run.suite_file, "-o", folder, "--device", "cpu")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        refused(cli(*command), 6, str(folder / "images" / "spo"), "the disk is full", "it continues")
    kept = journal(folder, Render)
    assert {one.variant for one in kept} == {"base"}
    assert not list(folder.rglob("*.tmp"))
    assert not (folder / ".lock").exists()
    assert cli(*command).code == 0
    assert images(folder) == images(tiny_run.folder)
    assert set(journal(folder, Render)) == set(journal(tiny_run.folder, Render))


def test_a_disk_that_may_not_be_written_ends_with_6(moved, tmp_path, cli, monkeypatch):
    suite_file, folder = moved
    before = content(folder)

    def read_only(path, *_, **__):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "mkdir", read_only)
    refused(cli("run", suite_file, "-o", tmp_path / "new"), 6, str(tmp_path / "new"), "Read-only file system")
    monkeypatch.undo()
    there = os.open
    monkeypatch.setattr(
        "bench.store.lock.os.open",
        lambda path, flags, *rest, **kind: read_only(path) if flags & os.O_CREAT else there(path, flags, *rest, **kind),
    )
    refused(cli("run", suite_file, "-o", folder), 6, str(folder), "Read-only file system")
    monkeypatch.undo()
    assert not (tmp_path / "new").exists()
    assert content(folder) == before


def test_a_journal_that_was_damaged_is_named_with_its_line(moved, tiny_run, cli):
    folder = moved[1]
    lines = (folder / "renders.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "renders.jsonl").write_bytes(b"".join([*lines[:2], b"garbage\n", *lines[2:]]))
    before = content(folder)
    refused(cli("run", tiny_run.suite_file, "-o", folder), 5, "renders.jsonl:3", "--fresh")
    assert content(folder) == before


def test_a_journal_may_be_torn_at_any_byte_of_its_last_record(moved, tiny_run):
    """What a kill in the middle of a write can leave is always the records before it, and goes on cleanly."""
    path = moved[1] / "renders.jsonl"
    whole = path.read_bytes()
    records = journal(tiny_run.folder, Render)
    start = whole.rindex(b"\n", 0, -1) + 1
    for cut in range(start, len(whole), 7):
        path.write_bytes(whole[:cut])
        assert journal(moved[1], Render) == records[:-1]
    append_records(path, records[-1:])
    assert path.read_bytes() == whole
