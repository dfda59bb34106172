"""Stages alone, and what a run does to a folder that holds something already."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import painted
import pytest

from bench.errors import IncomparableError, InvalidError, UsageError, WeightsError
from bench.records import Lora, RunOptions
from bench.run import run_all, run_stage
from bench.store import load_run
from bench.store.journal import append_records


@pytest.fixture(scope="module")
def run(tiny_run):
    return load_run(tiny_run.folder)


# --- stages alone --------------------------------------------------------------------------


@pytest.fixture
def copied(tiny_run, tmp_path, blank_plots) -> Path:
    """A copy of the real run, to be worked on."""
    return shutil.copytree(tiny_run.folder, tmp_path / "run")


def test_an_old_run_gets_a_new_metric_without_rendering(run, copied):
    before = (copied / "renders.jsonl").read_bytes(), (copied / "scores.jsonl").read_bytes()
    outcome = run_stage("score", run.info.suite, copied, RunOptions(metrics=["contrast"], device="cpu"))
    assert (outcome.scores, outcome.done_before) == (len(run.scores) + 12, False)
    after = load_run(copied)
    assert [facts.name for facts in after.info.metrics] == [*run.info.suite.metrics, "contrast"]
    assert {one for one in after.scores if one.metric != "contrast"} == set(run.scores)
    assert (copied / "renders.jsonl").read_bytes() == before[0]
    assert (copied / "scores.jsonl").read_bytes().startswith(before[1])
    assert "contrast" in (copied / "scores.csv").read_text("utf-8").splitlines()[0]
    assert run_stage("score", run.info.suite, copied, RunOptions(metrics=["contrast"], device="cpu")).done_before


def test_a_report_that_is_wanted_is_written_anew_and_leaves_the_end_of_the_run(run, copied):
    ended = msgspec.structs.replace(run.info, end="2026-01-01T00:00:00+00:00")
    (copied / "run.json").write_bytes(msgspec.json.encode(ended))
    (copied / "report.md").write_text("old", "utf-8")
    assert not run_stage("report", run.info.suite, copied).done_before
    assert (copied / "report.md").read_text("utf-8") != "old"
    assert load_run(copied).info.end == ended.end


@pytest.mark.parametrize("stage", ["score", "report"])
def test_what_needs_images_says_that_there_are_none(stage, run, tmp_path):
    with pytest.raises(InvalidError, match="has no images yet") as caught:
        run_stage(stage, run.info.suite, tmp_path / "run")
    assert caught.value.hint.startswith("hotart-bench run ")
    assert not (tmp_path / "run").exists()


# --- what a run does to its folder, with a worker in the place of the model ----------------


@pytest.fixture
def worker(monkeypatch):
    return painted.paint(monkeypatch)


def render(path, suite=painted.SUITE, **flags):
    return run_stage("render", suite, path, RunOptions(device="cpu", **flags))


def test_chosen_variants_are_rendered_alone_and_the_others_later(worker, tmp_path):
    outcome = render(tmp_path / "run", variants=["other"])
    assert (outcome.images, outcome.missing) == (4, 0)
    assert [one.name for one in load_run(tmp_path / "run").info.variants] == ["other"]
    outcome = render(tmp_path / "run")
    assert (outcome.images, outcome.missing) == (8, 0)
    assert [one.name for one in load_run(tmp_path / "run").info.variants] == ["base", "other"]
    assert worker.loaded == ["other", "base"]
    assert load_run(tmp_path / "run").info.status == "started"


def test_what_is_done_is_not_done_again(worker, tmp_path):
    assert not render(tmp_path / "run").done_before
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert render(tmp_path / "run").done_before
    assert worker.loaded == ["base", "other"]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_an_image_that_was_lost_is_made_again_with_its_batch(worker, tmp_path):
    render(tmp_path / "run")
    lost = tmp_path / "run" / "images" / "other" / "b-1.png"
    before = lost.read_bytes()
    lost.unlink()
    worker.batches = 0
    assert render(tmp_path / "run").images == 8
    assert (lost.read_bytes(), worker.batches) == (before, 1)
    assert len(load_run(tmp_path / "run").renders) == 8


def test_fresh_keeps_the_old_folder_beside(worker, tmp_path):
    render(tmp_path / "run")
    old = load_run(tmp_path / "run").info.id
    render(tmp_path / "run", fresh=True)
    assert load_run(tmp_path / "run.old-1").info.id == old
    assert load_run(tmp_path / "run").info.id != old
    assert worker.loaded == ["base", "other"] * 2


def test_a_refused_run_moves_nothing_aside_and_leaves_no_folder(worker, tmp_path):
    lora = Lora(path=str(tmp_path / "gone.safetensors"))
    bad = msgspec.structs.replace(
        painted.SUITE, variants=(msgspec.structs.replace(painted.SUITE.variants[0], loras=(lora,)),)
    )
    with pytest.raises(WeightsError):
        render(tmp_path / "deep" / "below" / "run", bad)
    assert list(tmp_path.iterdir()) == []
    render(tmp_path / "run")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(WeightsError):
        render(tmp_path / "run", bad, fresh=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_other_variants_and_metrics_are_the_same_protocol(worker, tmp_path):
    render(tmp_path / "run")
    third = msgspec.structs.replace(painted.SUITE.variants[0], name="third")
    wider = msgspec.structs.replace(
        painted.SUITE, variants=(*painted.SUITE.variants, third), metrics=("saturation", "contrast")
    )
    assert render(tmp_path / "run", wider).images == 12
    assert load_run(tmp_path / "run").info.suite == wider
    assert worker.loaded == ["base", "other", "third"]


def test_the_environment_is_checked_before_old_results_are_dropped(worker, tmp_path):
    render(tmp_path / "run")
    card = tmp_path / "run" / "run.json"
    info = load_run(tmp_path / "run").info
    changed = [msgspec.structs.replace(one, digest="0" * 64) for one in info.variants]
    moved = msgspec.structs.replace(info, variants=tuple(changed), packages={**info.packages, "torch": "1.0"})
    card.write_bytes(msgspec.json.encode(moved))
    before = (tmp_path / "run" / "renders.jsonl").read_bytes()
    with pytest.raises(IncomparableError, match=r"torch is 1\.0 there and"):
        render(tmp_path / "run")
    assert (tmp_path / "run" / "renders.jsonl").read_bytes() == before
    assert card.read_bytes() == msgspec.json.encode(moved)


def test_a_run_of_nothing_but_failures_is_invalid_and_kept(worker, tmp_path):
    worker.error = "black image: no value is above 0 of 255"
    with pytest.raises(InvalidError, match="all 8 images failed"):
        render(tmp_path / "run")
    renders = load_run(tmp_path / "run").renders
    assert [(one.image, one.sha256, one.error) for one in renders] == [(None, None, worker.error)] * 8
    assert not list((tmp_path / "run").rglob("*.png"))


def test_some_failures_are_told_and_the_run_goes_on(worker, tmp_path):
    render(tmp_path / "run", variants=["base"])
    worker.error = "uniform image: every pixel is about (3, 4, 5)"
    outcome = render(tmp_path / "run")
    assert (outcome.images, outcome.failed, outcome.missing) == (4, 4, 0)
    assert outcome.notes == (f"4 of 8 images failed, such as other/a: {worker.error}.",)


def test_unknown_names_are_refused_before_a_folder_is_made(worker, tmp_path):
    with pytest.raises(UsageError, match="has no variant 'sop'"):
        render(tmp_path / "run", variants=["sop"])
    with pytest.raises(UsageError, match="saturatoin"):
        render(tmp_path / "run", metrics=["saturatoin"])
    assert list(tmp_path.iterdir()) == []
    assert worker.loaded == []


# --- images that are not those of the records ----------------------------------------------


def spoil(folder: Path, how: str) -> str:
    """Changes or takes away an image of a run; returns its name."""
    image = "images/spo/tent-1.png"
    if how == "changed":
        (folder / image).write_bytes((folder / "images/spo/tent-0.png").read_bytes())
    else:
        (folder / image).unlink()
    return image


@pytest.mark.parametrize("stage", ["score", "measure", "report"])
@pytest.mark.parametrize(("how", "said"), [("changed", "changed since it was made"), ("gone", "is gone")])
@pytest.mark.parametrize("metrics", [None, ["contrast"]], ids=["all scored", "to score"])
def test_no_stage_is_done_while_an_image_is_not_the_one_that_was_made(stage, how, said, metrics, run, copied):
    image = spoil(copied, how)
    options = RunOptions(device="cpu", metrics=metrics)
    with pytest.raises(InvalidError, match=rf"1 image {said} \({image}\)") as caught:
        run_stage(stage, run.info.suite, copied, options)
    assert caught.value.exit_code == 5
    assert f"hotart-bench render {copied}, then hotart-bench score {copied}" in caught.value.hint
    assert caught.value.hint.startswith("delete what changed") is (how == "changed")
    # Variants that are not worked on are no matter.
    assert run_stage(stage, run.info.suite, copied, RunOptions(device="cpu", metrics=metrics, variants=["base"]))


def test_a_changed_image_is_not_rendered_over_without_a_word_and_the_hint_repairs_it(run, copied):
    image = spoil(copied, "changed")
    options = RunOptions(device="cpu")
    with pytest.raises(InvalidError, match="1 image changed since"):
        run_all(run.info.suite, copied, options)
    (copied / image).unlink()
    for stage in ("render", "score"):
        run_stage(stage, run.info.suite, copied, options)
    assert load_run(copied).renders == run.renders
    assert load_run(copied).scores == run.scores


def test_a_run_renders_what_is_gone(run, copied):
    spoil(copied, "gone")
    assert run_all(run.info.suite, copied, RunOptions(device="cpu")).missing == 0
    assert load_run(copied).renders == run.renders


def test_a_variant_whose_images_were_all_taken_away_is_done_as_long_as_it_has_its_scores(run, copied):
    shutil.rmtree(copied / "images" / "spo")
    for stage in ("score", "report"):
        run_stage(stage, run.info.suite, copied, RunOptions(device="cpu"))
    with pytest.raises(InvalidError, match="6 images are gone"):
        run_stage("score", run.info.suite, copied, RunOptions(device="cpu", metrics=["contrast"]))


def test_scores_that_could_not_be_made_are_counted_with_a_reason(run, copied):
    (score,) = [
        one
        for one in run.scores
        if (one.variant, one.prompt_id, one.sample, one.metric) == ("base", "tent", 0, "saturation")
    ]
    null = msgspec.structs.replace(score, value=None, image_sha256=None, reason="ValueError: boom")
    append_records(copied / "scores.jsonl", [null])
    notes = run_stage("report", run.info.suite, copied).notes
    assert (
        f"1 of {len(run.scores)} scores could not be made, such as saturation of base/tent: ValueError: boom." in notes
    )
    assert not [note for note in run_stage("score", run.info.suite, copied).notes if "could not be made" in note]
