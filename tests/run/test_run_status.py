"""What run.json and the reports say of a run that goes on after it was finished: never more than is true."""

from __future__ import annotations

from pathlib import Path

import msgspec
import painted
import pytest
from fakes import make_run, write_run
from msgspec.structs import replace

from bench import documents
from bench.errors import InvalidError, WeightsError
from bench.records import Lora, MeasurePlan, RunOptions, Suite
from bench.report import write_report
from bench.report.facts import is_current
from bench.run import run_all, run_stage
from bench.run.status import FUSED, NOT_SCORED, UNFUSED, lora_notes
from bench.store import journal, load_run

SUITE = replace(painted.SUITE, measure=MeasurePlan(rounds=0))
SPO = replace(SUITE.variants[0], name="spo", loras=(Lora(path="mini:spo"),))
WIDER = replace(SUITE, variants=(*SUITE.variants, SPO))
LIGHTER = replace(WIDER, variants=(*SUITE.variants, replace(SPO, loras=(Lora(path="mini:spo", weight=0.5),))))


@pytest.fixture
def worker(monkeypatch):
    return painted.paint(monkeypatch)


@pytest.fixture
def path(worker, tmp_path) -> Path:
    """A finished run."""
    outcome = run(tmp_path / "run")
    assert not outcome.done_before
    assert status(tmp_path / "run") == "complete"
    return tmp_path / "run"


def run(path, suite=SUITE, **flags):
    return run_all(suite, path, RunOptions(device="cpu", **flags))


def stage(name, path, suite=SUITE, **flags):
    return run_stage(name, suite, path, RunOptions(device="cpu", **flags))


def status(path) -> str:
    return load_run(path).info.status


def said(path) -> str:
    return (path / "report.md").read_text("utf-8")


def settled(path, suite=SUITE) -> bool:
    """Whether a finished run is complete, and left alone by the same command."""
    before = {file: file.stat().st_mtime_ns for file in path.rglob("*") if file.is_file()}
    done_before = run(path, suite).done_before
    same = {file: file.stat().st_mtime_ns for file in path.rglob("*") if file.is_file()} == before
    return done_before and same and status(path) == "complete"


def test_a_finished_run_is_left_alone(path):
    assert settled(path)
    assert is_current(load_run(path))


def test_a_run_that_lost_an_image_is_complete_no_more_until_it_is_there_again(path):
    (path / "images" / "other" / "b-1.png").unlink()
    end = load_run(path).info.end
    with pytest.raises(InvalidError, match="1 image is gone"):
        stage("report", path)
    assert status(path) == "started"
    assert "not finished" in said(path)
    stage("render", path)
    assert (status(path), load_run(path).info.end) == ("complete", end)
    assert not is_current(load_run(path))
    assert not run(path).done_before
    assert "not finished" not in said(path)
    assert settled(path)


def test_a_run_without_an_end_that_lost_an_image_is_reported_anew(worker, tmp_path):
    path = tmp_path / "run"
    stage("render", path)
    write_report(path)
    (path / "images" / "other" / "b-1.png").unlink()
    assert not is_current(load_run(path))
    write_report(path)
    assert is_current(load_run(path))
    stage("render", path)
    assert not is_current(load_run(path))


def test_a_metric_that_was_scored_later_comes_into_the_reports(path):
    stage("score", path, metrics=["contrast"])
    assert status(path) == "complete"
    assert "| contrast" not in said(path)
    assert not run(path).done_before
    assert "| contrast" in said(path)
    assert "contrast" in (path / "report.html").read_text("utf-8")
    assert settled(path)


def test_a_variant_that_was_added_and_only_rendered_leaves_the_run_unfinished(path):
    stage("render", path, WIDER, variants=["spo"])
    assert status(path) == "started"
    stage("score", path, WIDER)
    assert status(path) == "complete"
    assert "spo" not in said(path)
    assert not run(path, WIDER).done_before
    assert "| spo |" in said(path)
    assert settled(path, WIDER)


def test_a_variant_that_was_not_chosen_yet_leaves_the_run_unfinished(path):
    assert not run(path, WIDER, variants=["base"]).done_before
    assert status(path) == "started"
    assert "not finished" in said(path)
    assert "not loaded in this run" in said(path)


@pytest.mark.parametrize("suite", [SUITE, WIDER], ids=["an image lost", "a variant added"])
def test_a_run_that_is_stopped_while_it_goes_on_is_not_complete(path, worker, monkeypatch, suite):
    if suite is SUITE:
        (path / "images" / "other" / "b-1.png").unlink()

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(painted.bench.render, "launch", stop)
    with pytest.raises(KeyboardInterrupt):
        run(path, suite)
    assert status(path) == "started"
    monkeypatch.setattr(painted.bench.render, "launch", worker.launch)
    run(path, suite)
    assert status(path) == "complete"


def test_a_run_that_ends_with_an_error_has_failed_until_it_goes_on(worker, tmp_path, monkeypatch):
    path = tmp_path / "run"

    def fail(*_):
        raise WeightsError("A part of them is gone.")

    with monkeypatch.context() as patch:
        patch.setattr(painted.bench.render, "launch", fail)
        with pytest.raises(WeightsError):
            run(path)
    assert status(path) == "failed"
    stage("render", path, variants=["base"])
    assert status(path) == "started"
    with monkeypatch.context() as patch:
        patch.setattr(painted.bench.render, "launch", fail)
        with pytest.raises(WeightsError):
            run(path)
    stage("report", path)
    assert status(path) == "failed"
    assert "ended with an error" in said(path)
    run(path)
    assert status(path) == "complete"
    assert "ended with an error" not in said(path)
    assert settled(path)


def test_an_error_in_a_run_that_is_complete_leaves_it_so(path, monkeypatch):
    def fail(*_, **__):
        raise WeightsError("An encoder is gone.")

    monkeypatch.setattr("bench.run.stages.score", fail)
    with pytest.raises(WeightsError):
        stage("score", path, metrics=["contrast"])
    assert status(path) == "complete"


def test_scores_are_made_for_the_chosen_variants_alone(path):
    stage("score", path, metrics=["contrast"], variants=["other"])
    found = {one.variant for one in load_run(path).scores if one.metric == "contrast"}
    assert found == {"other"}
    stage("score", path, metrics=["contrast"])
    assert {one.variant for one in load_run(path).scores if one.metric == "contrast"} == {"base", "other"}


def test_a_variant_that_is_not_looked_at_stays_what_its_images_were_made_of(worker, tmp_path):
    path = tmp_path / "run"
    run(path, WIDER)
    for work in (lambda: run(path, LIGHTER, variants=["base"]), lambda: stage("score", path, LIGHTER)):
        work()
        info = load_run(path).info
        assert info.suite.variants == WIDER.variants
        assert (info.status, info.variants[2].loras) == ("complete", SPO.loras)
    assert run(path, LIGHTER).images == 12
    assert load_run(path).info.suite.variants == LIGHTER.variants
    assert "mini:spo × 0.5" in said(path)
    assert worker.loaded == ["base", "other", "spo", "spo"]


def test_images_of_a_variant_that_was_away_are_not_taken_for_those_of_other_weights(worker, tmp_path):
    path = tmp_path / "run"
    run(path, WIDER)
    run(path, SUITE)
    assert "spo" not in said(path)
    run(path, LIGHTER)
    assert worker.loaded == ["base", "other", "spo", "spo"]
    assert settled(path, LIGHTER)


@pytest.mark.parametrize("lost", ["report.html", "report.md"])
def test_a_report_that_lost_a_part_is_written_again(path, lost):
    (path / lost).unlink()
    assert not is_current(load_run(path))
    assert not run(path).done_before
    assert (path / lost).is_file()
    assert settled(path)


def test_a_report_that_lost_a_plot_is_not_current(tmp_path):
    folder = write_run(make_run(tmp_path, prompts=3, samples=1), tmp_path / "run")
    assert not is_current(load_run(folder))
    write_report(folder)
    assert is_current(load_run(folder.rename(tmp_path / "elsewhere")))
    (tmp_path / "elsewhere" / "plots" / "wins.png").unlink()
    assert not is_current(load_run(tmp_path / "elsewhere"))


def test_a_damaged_report_is_written_again(path):
    (path / "report.md").write_bytes(b"\xff")
    assert not is_current(load_run(path))


def test_other_tags_make_other_reports(path):
    tagged = replace(SUITE, prompts=tuple(replace(prompt, tags=("dusk",)) for prompt in SUITE.prompts))
    assert not run(path, tagged).done_before
    assert settled(path, tagged)


# --- notes ---------------------------------------------------------------------------------


def test_how_loras_were_applied_is_told_of_the_variants_that_were_made(worker, tmp_path):
    """Of all at once where they agree, else by name; and anew when the variants change."""
    path = tmp_path / "run"

    def notes(suite: Suite, **flags) -> tuple[str, ...]:
        run(path, suite, **flags)
        return load_run(path).info.settings_notes

    beside = replace(SPO, name="beside", fuse=False)
    mixed = replace(WIDER, variants=(*WIDER.variants, beside))
    assert notes(WIDER, variants=["base"]) == ()
    assert notes(WIDER) == (FUSED,)
    assert notes(mixed) == (
        FUSED.replace("LoRAs", "LoRAs of spo", 1),
        UNFUSED.replace("LoRAs", "LoRAs of beside", 1),
    )
    assert notes(replace(SUITE, variants=(*SUITE.variants, beside))) == (UNFUSED,)
    assert notes(SUITE) == ()


def test_a_note_of_an_older_release_on_loras_that_were_not_fused_is_put_right(worker, tmp_path):
    path = tmp_path / "run"
    suite = replace(WIDER, variants=(*SUITE.variants, replace(SPO, fuse=False)))
    run(path, suite)
    info = load_run(path).info
    assert lora_notes(info.variants) == (UNFUSED,)
    (path / "run.json").write_bytes(msgspec.json.encode(replace(info, settings_notes=(FUSED, "Another note."))))
    run(path, suite)
    assert load_run(path).info.settings_notes == (UNFUSED, "Another note.")


def test_notes_of_the_command_are_kept_and_those_on_missing_weights_until_the_next(worker, tmp_path):
    path = tmp_path / "run"
    run(path, notes=(f"{NOT_SCORED}pickscore.", "Another note."))
    assert load_run(path).info.settings_notes == (f"{NOT_SCORED}pickscore.", "Another note.")
    run(path)
    assert load_run(path).info.settings_notes == ("Another note.",)


# --- what a command reads ------------------------------------------------------------------


@pytest.mark.parametrize("rendered_before", [False, True])
def test_a_command_reads_each_file_of_its_run_folder_once_at_most(worker, tmp_path, monkeypatch, rendered_before):
    path = tmp_path / "run"
    if rendered_before:
        stage("render", path)
    read = []
    for module, name in ((journal, "read_records"), (documents, "read_table")):
        real = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda at, *given, real=real, **more: read.append(at) or real(at, *given, **more)
        )
    run(path, WIDER)
    stage("render", path, WIDER)
    ours = [at for at in read if at.parent == path]
    files = {"run.json": 1, "renders.jsonl": 2, "scores.jsonl": 2, "timings.jsonl": 2}
    if rendered_before:
        files["run.json"] = 2
    assert {name: sum(at.name == name for at in ours) for name in files} == files, "of two commands"
