"""``--dry-run``: images, time and disk of every verb that draws, and nothing written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from msgspec.structs import replace

from bench.plan.cost import RunCost, drawing_seconds, run_cost
from bench.records import Machine
from bench.store import load_run
from bench.suite import load_suite
from bench.suite.planned_images import plan_images

VERBS = (
    ["run", "own.toml"],
    ["render", "own.toml"],
    ["sweep", "own.toml", "--lora", "spo"],
    ["steps", "own.toml", "--attribute", "spo", "--windows", "2"],
    ["grid", "own.toml", "--steps", "3,4"],
    ["quick", "--checkpoint", "mini", "--lora", "mini:spo"],
)


@pytest.mark.parametrize("arguments", VERBS, ids=lambda arguments: arguments[0])
def test_every_verb_that_draws_says_its_cost_and_writes_nothing(cli, stages, home, arguments):
    before = sorted(home.rglob("*"))
    answer = cli(*arguments, "--dry-run", "--device", "cpu")
    assert answer.code == 0, answer.err
    assert " of them to draw, at most " in answer.err
    assert "Time: not known for this device and model" in answer.err
    assert stages.calls == []
    assert sorted(home.rglob("*")) == before


def test_a_finished_run_has_nothing_to_draw(cli, tiny_run):
    for verb in ("run", "render"):
        place = ["-o", tiny_run.folder] if verb == "run" else []
        what = tiny_run.suite_file if verb == "run" else tiny_run.folder
        answer = cli(verb, what, *place, "--dry-run")
        assert answer.code == 0, answer.err
        assert answer.err.endswith(
            "2 variants x 6 images: 12 images, 0 of them to draw (12 done already), at most 0 B on the disk.\n"
        )


def test_what_is_missing_is_counted_and_timed_by_the_runs_own_timings(cli, tiny_run, tmp_path):
    folder = Path(shutil.copytree(tiny_run.folder, tmp_path / "run"))
    run = load_run(folder)
    lost = [one for one in run.renders if one.variant == "spo" and one.prompt_id == "tent"]
    for one in lost:
        (folder / str(one.image)).unlink()
    answer = cli("run", tiny_run.suite_file, "-o", folder, "--dry-run", "--device", "cpu")
    said = "12 images, 2 of them to draw (10 done already), with the rest of their batches 4, at most 24.0 KiB"
    assert said in answer.err
    assert f"to draw by the timings in {folder}" in answer.err
    assert "loading, scoring and timing on top" in answer.err
    fresh = cli("run", tiny_run.suite_file, "-o", folder, "--dry-run", "--fresh", "--device", "cpu")
    assert "12 images, 12 of them to draw, at most 144 KiB" in fresh.err


def test_another_run_of_the_same_reference_tells_the_time(cli, tiny_run, home):
    shutil.copytree(tiny_run.folder, home / "reports" / "runs" / "earlier")
    answer = cli("run", "own.toml", "--dry-run", "--device", "cpu")
    assert "by the timings in reports/runs/earlier" in answer.err
    (home / "reports" / "runs" / "earlier" / "run.json").write_text("{", "utf-8")
    assert "Time: not known" in cli("run", "own.toml", "--dry-run", "--device", "cpu").err
    other = (home / "own.toml").read_text("utf-8").replace('checkpoint = "mini"', 'checkpoint = "random:tiny"')
    (home / "other.toml").write_text(other, "utf-8")
    assert "Time: not known" in cli("run", "other.toml", "--dry-run", "--device", "cpu").err


def test_with_ray_no_time_is_made_up(cli, home):
    assert "the workers' devices are not known here" in cli("run", "own.toml", "--ray", "auto", "--dry-run").err


def test_bad_flags_are_refused_as_ever(cli, home):
    assert cli("run", "own.toml", "--dry-run", "--variants", "spoo").code == 2
    assert cli("render", "own.toml", "--dry-run", "--device", "gpu").code == 2


# The arithmetic.


def test_the_images_to_draw_are_those_of_whole_batches(tiny_run, tmp_path):
    suite = load_suite(str(tiny_run.suite_file))
    keys = [(one.prompt_id, one.sample) for one in plan_images(suite)]
    found = run_cost(suite, None, tmp_path, ["spo"], only=frozenset(keys[:1]))
    assert found == RunCost(1, {"spo": 1}, {"spo": 4}, 64 * 64 * 3)
    last = run_cost(suite, None, tmp_path, None, only=frozenset(keys[-1:]))
    assert (last.images, last.drawn) == (2, {"base": 2, "spo": 2})


def test_a_batch_that_a_run_has_chosen_counts(tiny_run):
    run = load_run(tiny_run.folder)
    suite = replace(run.info.suite, settings=replace(run.info.suite.settings, batch=None))
    gone = replace(run, renders=run.renders[1:])
    found = run_cost(suite, gone, tiny_run.folder)
    assert sum(found.missing.values()) == 1
    assert sum(found.drawn.values()) == 4


def test_a_run_on_a_store_is_counted_by_its_records(tiny_run, tmp_path):
    run = replace(load_run(tiny_run.folder), path=str(tmp_path), url="s3://bucket/run")
    assert sum(run_cost(run.info.suite, run, tmp_path).missing.values()) == 0


def test_a_variant_that_was_not_timed_counts_as_the_slowest(tiny_run):
    run = load_run(tiny_run.folder)
    suite, machine = run.info.suite, run.info.machine
    seconds, _ = drawing_seconds(suite, {"base": 3, "spo": 0}, machine, run, None)
    both = [drawing_seconds(suite, {name: 1}, machine, run, None)[0] or 0.0 for name in ("base", "spo")]
    assert seconds == pytest.approx(3 * both[0])
    other, basis = drawing_seconds(suite, {"new": 2}, machine, run, None)
    assert other == pytest.approx(2 * max(both))
    assert "its slowest variant for those that it has not" in basis


def test_a_known_card_tells_the_time_of_sdxl_and_no_other_does():
    suite = load_suite("sdxl")
    card = Machine(
        os="Linux", cpu="", cores=1, memory_bytes=1, device="cuda", device_name="NVIDIA H100 80GB HBM3",
        device_memory_bytes=1,
    )  # fmt: skip
    seconds, basis = drawing_seconds(suite, {"base": 10}, card, None, None)
    assert seconds == pytest.approx(10 * (30 * 0.0365 + 0.125))
    assert "H100" in basis
    assert drawing_seconds(suite, {"base": 10}, replace(card, device_name="other"), None, None)[0] is None
