"""``plan`` and ``calibrate`` on the command line: tables, JSON, flags, files, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from unittest.mock import create_autospec

import msgspec
import pytest
from fakes import make_run, write_run
from msgspec.structs import replace

import bench.calibrate
import bench.cli.calibrate
from bench import documents
from bench.cli.calibrate import round_up
from bench.records import Calibration, MetricNoise, SessionNoise, SizePlan, SourceNoise
from bench.suite import load_suite, protocol_digest


@pytest.fixture
def pilot(home) -> Path:
    """A run with the settings of own.toml, which gains a limit on what the run has scores of."""
    text = (home / "own.toml").read_text("utf-8").replace('["saturation"]', '["mini-clip", "mini-aesthetic"]')
    limits = '\n[limits]\nmini-clip = "0.1sd"\nmini-aesthetic = "0.3sd"\nend_to_end = "5%"\n'
    (home / "own.toml").write_text(text + limits, "utf-8")
    suite = load_suite("own.toml")
    run = make_run("pilot", prompts=20)
    changed = replace(run.info.suite, settings=suite.settings)
    info = replace(run.info, suite=changed, protocol_digest=protocol_digest(changed))
    return write_run(replace(run, info=info), home / "pilot")


# --- plan ----------------------------------------------------------------------------------


def test_plan_prints_prompts_by_samples_and_what_the_runs_cost(cli, pilot):
    answer = cli("plan", "own.toml", "--from", "pilot")
    assert (answer.code, answer.err) == (0, "")
    plan = documents.convert(json.loads(cli("plan", "own.toml", "--from", "pilot", "--json").out), SizePlan)
    lines = answer.out.splitlines()
    row = next(line for line in lines if line.startswith("mini-clip") and "spo - base" in line).split()
    (metric,) = [one for one in plan.metrics if (one.metric, one.candidate) == ("mini-clip", "spo")]
    assert row[4] == "0.1sd"
    assert row[6:10] == [f"{size.prompts:,}" for size in metric.sizes]
    for run in plan.runs:
        assert any(line.split()[:3] == [str(run.samples), f"{run.prompts:,}", f"{run.images:,}"] for line in lines)
    assert (plan.suite, plan.pilot, plan.prompts_now, plan.samples_now) == ("own.toml", "pilot", 2, 2)
    for note in plan.notes:
        assert note in answer.out
    assert "upper bound" in answer.out


def test_target_margins_and_power_arrive(cli, pilot):
    flags = "--margin mini-clip=0.05 --margin mini-aesthetic=0.1 --power 0.9 --candidate spo --reference dpo --json"
    plan = documents.convert(json.loads(cli("plan", "own.toml", "--from", "pilot", *flags.split()).out), SizePlan)
    assert {one.metric: one.limit.text for one in plan.metrics} == {"mini-clip": "0.05", "mini-aesthetic": "0.1"}
    assert {(one.candidate, one.reference) for one in plan.metrics} == {("spo", "dpo")}
    assert plan.power == 0.9


@pytest.mark.parametrize(
    ("code", "flags", "words"),
    [
        (2, [], ("--from",)),
        (2, ["--from", "nowhere"], ("nowhere", "no run")),
        (2, ["--from", "pilot", "--margin", "mini-clip"], ("METRIC=LIMIT",)),
        (2, ["--from", "pilot", "--margin", "=0.1"], ("METRIC=LIMIT",)),
        (2, ["--from", "pilot", "--margin", "mini-clip=1", "--margin", "mini-clip=2"], ("given twice",)),
        (2, ["--from", "pilot", "--margin", "mini-clap=1"], ("'mini-clap'", "'mini-clip'")),
        (2, ["--from", "pilot", "--margin", "mini-clip=5ms"], ("mini-clip",)),
        (2, ["--from", "pilot", "--margin", "mini-clip=nan"], ("mini-clip",)),
        (2, ["--from", "pilot", "--margin", "mini-clip=0"], ("mini-clip",)),
        (2, ["--from", "pilot", "--power", "80"], ("power is 80", "0.8")),
        (2, ["--from", "pilot", "--power", "much"], ("--power",)),
        (2, ["--from", "pilot", "--candidate", "spi"], ("'spi'", "'spo'")),
        (2, ["--from", "pilot", "--candidate", "base"], ("its own reference",)),
    ],
)
def test_bad_flags_of_plan_are_refused_in_a_sentence(cli, pilot, code, flags, words):
    answer = cli("plan", "own.toml", *flags)
    assert (answer.code, answer.out) == (code, "")
    assert "Traceback" not in answer.err
    assert "  next: " in answer.err
    assert all(word in answer.err for word in words), answer.err


def test_a_pilot_of_other_settings_is_not_comparable(cli, pilot):
    answer = cli("plan", "mini", "--from", "pilot")
    assert answer.code == 4
    assert "steps is 4 there and 20 here" in answer.err


def test_plan_imports_no_torch(pilot):
    code = (
        "import sys; from bench.cli import run_command_line as run; "
        "assert run(['plan', 'own.toml', '--from', 'pilot']) == 0; sys.exit('torch' in sys.modules)"
    )
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(command, cwd=pilot.parent, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_narrow_terminal_gets_lists(cli, pilot, monkeypatch):
    wide = cli("plan", "own.toml", "--from", "pilot").out
    monkeypatch.setenv("COLUMNS", "20")
    plan = cli("plan", "own.toml", "--from", "pilot")
    assert plan.code == 0
    assert plan.out != wide
    assert "  limit: 0.1sd\n" in plan.out


# --- calibrate -----------------------------------------------------------------------------


def noise(metric, **changes) -> MetricNoise:
    process, seed = (
        SourceNoise(source=source, pairs=1, prompts=2, mean_absolute=size, mean=-size / 2, sd=size, half_width=size / 4)
        for source, size in (("process", 0.0), ("seed", 0.04))
    )
    facts = {"floor": 0.0, "margin": 0.01234, "margin_sd": 0.251, **changes}
    return MetricNoise(variant="base", metric=metric, unit="cosine", sources=(process, seed), **facts)


@pytest.fixture
def calls(monkeypatch):
    found = []
    info = make_run("run").info

    def stand_in(suite, folder, **flags):
        flags.pop("progress")("first: render", 1, 1)
        found.append({"suite": suite, "folder": folder, **flags})
        return Calibration(
            schema=2,
            kind="hotart-bench calibration",
            suite=suite.name,
            protocol_digest=protocol_digest(suite),
            prompts=len(suite.prompts),
            samples=suite.samples,
            machine=info.machine,
            packages=info.packages,
            noise=(noise("mini-clip"), noise("saturation", margin=None, margin_sd=None, reason="it only describes")),
            session_noise=(SessionNoise(name="end_to_end", sd_log_ratio=0.0123, sessions=3),),
            notes=("A note.",),
            time="2025-01-02T03:04:05+00:00",
        )

    monkeypatch.setattr(
        bench.cli.calibrate, "run_calibration", create_autospec(bench.calibrate.calibrate, side_effect=stand_in)
    )
    return found


def test_calibrate_writes_its_file_and_prints_the_noise(cli, calls, home):
    answer = cli("calibrate", "own.toml")
    assert answer.code == 0
    file = Path("reports/runs/calibrate-own/calibration.json")
    written = documents.convert(documents.loads(file.read_text("utf-8")), Calibration)
    assert written.suite == "own"
    assert f"--calibration {file}" in answer.err
    rows = [line.split() for line in answer.out.splitlines()]
    assert ["mini-clip", "process", "0.000", "0.000", "0.000"] in rows
    assert ["mini-clip", "seed", "0.040", "−0.020", "0.010"] in rows
    assert ["mini-clip", "0", "0.013", "0.26", "–"] in rows
    assert ["end_to_end", "1.2", "%", "3", "2"] in rows
    assert "only its lower bound" in answer.out
    assert "saturation has no margin: it only describes." in answer.out
    assert answer.out.endswith("A note.\n")


def test_calibrate_without_flags_means_the_whole_suite_and_its_first_variant(cli, calls, home):
    cli("calibrate", "own.toml", "--json")
    (call,) = calls
    assert call.pop("suite").name == "own"
    assert call == {
        "folder": Path("reports/runs/calibrate-own"),
        "variants": None,
        "metrics": None,
        "device": "auto",
        "beside": None,
        "seeds": 2,
        "sessions": 3,
        "fresh": False,
        "weights_dir": None,
    }


def test_every_flag_of_calibrate_arrives(cli, calls, home):
    flags = "--variants spo --metrics sharpness --device cpu --other-device cuda:1 --seeds 4 --sessions 0 --fresh"
    answer = cli("calibrate", "own.toml", *flags.split(), "--weights-dir", ".", "-o", "there", "--limit", "1", "--json")
    (call,) = calls
    assert call["suite"].limit == 1
    assert (call["folder"], call["variants"], call["metrics"]) == (Path("there"), ("spo",), ("sharpness",))
    assert (call["device"], call["beside"], call["seeds"], call["sessions"]) == ("cpu", "cuda:1", 4, 0)
    assert (call["fresh"], call["weights_dir"]) == (True, Path())
    assert documents.convert(json.loads(answer.out), Calibration) == msgspec.json.decode(
        Path("there/calibration.json").read_bytes(), type=Calibration
    )


def test_the_result_alone_may_go_to_a_file(cli, calls, home):
    assert cli("calibrate", "own.toml", "-o", "kept/noise.json", "--limit", "1", "--quiet").err == ""
    assert Path("kept/noise.json").is_file()
    assert calls[0]["folder"] == Path("reports/runs/calibrate-own-limit-1")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["nope"], ("'nope'",)),
        (["own.toml", "--variants", "spi"], ("'spi'", "'spo'")),
        (["own.toml", "--device", "cudo"], ("'cudo'", "'cuda'")),
        (["own.toml", "--other-device", "gpu"], ("'gpu'",)),
        (["own.toml", "--weights-dir", "nowhere"], ("nowhere",)),
        (["own.toml", "--seeds", "0"], ("--seeds is 0", "1 to 100")),
        (["own.toml", "--sessions", "1"], ("--sessions is 1", "2 to 100")),
        (["own.toml", "--metrics", "sharpnes"], ("sharpness",)),
        (["own.toml", "--limit", "1"], ("one prompt",)),
    ],
)
def test_bad_flags_of_calibrate_are_refused_before_any_work(refuses, flags, words):
    refuses(2, ["calibrate", *flags, "--device", "cpu"] if "--device" not in flags else ["calibrate", *flags], *words)


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0.0, "0"), (0.01234, "0.013"), (0.012, "0.012"), (0.0999, "0.100"), (3.21, "3.3"), (1234.0, "1300")],
)
def test_margins_are_rounded_up_to_two_figures(value, text):
    assert round_up(value) == text
