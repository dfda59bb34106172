"""The stage ``steps`` on a real run: what it writes, that it goes on, and what it refuses."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image

from bench.documents import sha256_of
from bench.errors import IncomparableError, UsageError
from bench.metrics.declare import Metric, StepMetric
from bench.metrics.registry import Registry, installed
from bench.records import RunOptions, StepPlan
from bench.report import write_report
from bench.run import run_all, run_stage
from bench.steps import paths
from bench.steps.plan import open_step_jobs, step_metrics_of
from bench.store import RunFolder, load_run, load_steps
from bench.suite import load_suite

METRICS = ("mini-preference", "mini-step-aware", "saturation")
PLAN = StepPlan(metrics=METRICS, at=(1, 3))
CPU = RunOptions(device="cpu", steps=PLAN)


@pytest.fixture(scope="module")
def stepped(tiny_run, tmp_path_factory) -> Path:
    """The tiny run with its steps scored."""
    folder = shutil.copytree(tiny_run.folder, tmp_path_factory.mktemp("steps") / "run")
    outcome = run_stage("steps", load_run(folder).info.suite, folder, CPU)
    assert not outcome.done_before
    return folder


@pytest.fixture
def copied(stepped, tmp_path) -> Path:
    return shutil.copytree(stepped, tmp_path / "run")


def test_every_image_step_and_metric_has_its_score(stepped, tiny_run):
    scores = load_steps(stepped)
    run = load_run(stepped)
    assert len(scores) == len(run.renders) * 2 * 3
    assert all(one.value is not None for one in scores)
    images = {(one.variant, one.prompt_id, one.sample): one.sha256 for one in run.renders}
    assert all(one.image_sha256 == images[one.variant, one.prompt_id, one.sample] for one in scores)
    assert {(one.step, one.timestep) for one in scores} == {(1, 667.0), (3, 1.0)}
    assert load_run(tiny_run.folder).renders == run.renders  # not one image was drawn into the run
    assert run.scores == load_run(tiny_run.folder).scores


def test_the_last_step_is_near_the_final_image_and_the_first_is_not(stepped):
    run = load_run(stepped)
    final = {(s.variant, s.prompt_id, s.sample): s.value for s in run.scores if s.metric == "saturation"}
    off = {step: [] for step in (1, 3)}
    for one in load_steps(stepped):
        if one.metric == "saturation":
            off[one.step].append(abs(one.value - final[one.variant, one.prompt_id, one.sample]))
    assert np.mean(off[3]) < 0.2 * np.mean(off[1])


def test_nothing_is_left_and_one_more_metric_costs_only_itself(copied):
    suite = load_run(copied).info.suite
    before = load_steps(copied)
    assert run_stage("steps", suite, copied, CPU).done_before
    more = StepPlan(metrics=(*METRICS, "contrast"), at=(1, 3))
    assert not run_stage("steps", suite, copied, RunOptions(device="cpu", steps=more)).done_before
    after = load_steps(copied)
    assert set(before) < set(after)
    assert {one.metric for one in set(after) - set(before)} == {"contrast"}


def test_it_goes_on_where_it_was_stopped(copied, stepped, monkeypatch):
    journal = copied / "steps.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:30]) + lines[30][:20])  # a batch of 24, six of the next, and a torn line
    run_stage("steps", load_run(copied).info.suite, copied, CPU)
    assert set(load_steps(copied)) == set(load_steps(stepped))


def test_small_pictures_of_the_first_prompts_are_kept(stepped):
    found = sorted(path.relative_to(stepped / "steps").as_posix() for path in (stepped / "steps").rglob("*.webp"))
    wanted = [(v, p, s) for v in ("base", "spo") for p in ("dunes", "tent", "woman") for s in (1, 3)]
    assert found == [f"{variant}/{prompt}/{step:03d}.webp" for variant, prompt, step in wanted]
    image = next(one.image for one in load_run(stepped).renders if (one.variant, one.prompt_id) == ("base", "tent"))
    with Image.open(stepped / "steps" / "base" / "tent" / "003.webp") as small, Image.open(stepped / image) as final:
        assert small.size == (64, 64)
        apart = np.abs(np.asarray(small.convert("RGB")).astype(int) - np.asarray(final.convert("RGB")).astype(int))
        assert apart.mean() < 20


def test_images_that_the_run_lacks_are_drawn_as_render_draws_them(tiny_run, tmp_path):
    suite = load_suite(str(tiny_run.suite_file))
    run_stage("steps", suite, tmp_path / "run", RunOptions(device="cpu", steps=PLAN, variants=["spo"]))
    own = {one.image: one.sha256 for one in load_run(tmp_path / "run").renders}
    there = {one.image: one.sha256 for one in load_run(tiny_run.folder).renders if one.variant == "spo"}
    assert own == there


def test_a_suite_that_names_steps_scores_them_in_every_run(tiny_run, tmp_path, blank_plots):
    text = tiny_run.suite_file.read_text("utf-8").replace("rounds = 1", "rounds = 0")
    folder = shutil.copytree(tiny_run.suite_file.parent, tmp_path / "suite", ignore=shutil.ignore_patterns("run"))
    file = folder / "steps.toml"
    file.write_text(f'{text}\n[step_metrics]\nmetrics = ["mini-step-aware"]\nat = "every 3"\n', "utf-8")
    run_all(load_suite(str(file)), tmp_path / "run", RunOptions(device="cpu"))
    assert {(one.metric, one.step) for one in load_steps(tmp_path / "run")} == {("mini-step-aware", 3)}
    assert load_run(tmp_path / "run").info.status == "complete"


def test_a_path_that_ends_in_other_pixels_is_refused(copied):
    run = load_run(copied)
    victim = next(one for one in run.renders if one.variant == "spo")
    journal = copied / "renders.jsonl"
    journal.write_text(journal.read_text("utf-8").replace(victim.pixels_sha256, "0" * 64), "utf-8")
    (copied / "steps.jsonl").unlink()
    with pytest.raises(IncomparableError, match="came out with other pixels"):
        run_stage("steps", run.info.suite, copied, CPU)


def test_the_same_pixels_packed_otherwise_are_the_same_picture(copied):
    run = load_run(copied)
    victim = next(one for one in run.renders if one.variant == "spo")
    with Image.open(copied / victim.image) as image:
        image.save(copied / victim.image, compress_level=9)
    digest = sha256_of(copied / victim.image)
    assert digest != victim.sha256
    journal = copied / "renders.jsonl"
    journal.write_text(journal.read_text("utf-8").replace(victim.sha256, digest), "utf-8")
    run_stage("steps", run.info.suite, copied, CPU)
    assert any(one.image_sha256 == digest for one in load_steps(copied))


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ("ssim-to-base", "compares images with each other"),
        ("spo-step-aware-sd15", "is for sd15"),
        ("mini-preferense", "There is no metric"),
    ],
)
def test_a_metric_that_cannot_score_steps_is_refused(metric, words, tiny_run, tmp_path, monkeypatch):
    folder = shutil.copytree(tiny_run.folder, tmp_path / "run")
    plan = StepPlan(metrics=(metric,), at=(1,))
    with pytest.raises(UsageError, match=words):
        run_stage("steps", load_run(folder).info.suite, folder, RunOptions(device="cpu", steps=plan))
    assert not (folder / "steps.jsonl").exists()


class Odd:
    """A step metric that fails on some rows, and says what it was given."""

    batch = 2

    def __init__(self) -> None:
        self.seen: list[torch.Tensor] = []

    def score(self, seen, timesteps, prompts):
        self.seen.append(seen)
        if any("yellow tent" in prompt for prompt in prompts):
            raise ValueError("no tents")
        return torch.full((len(prompts),), float("nan")) if "woman" in prompts[0] else timesteps

    def truncated(self, prompts):
        return ["dunes" in prompt for prompt in prompts]


def registry_with(odd: Odd, reads: str) -> Registry:
    known = installed()
    facts = msgspec.structs.replace(known.step_metrics["mini-step-aware"].facts, name="odd")
    return with_more(known, {"odd": StepMetric(facts, lambda place: odd, reads)})


def with_more(known: Registry, more: dict[str, StepMetric]) -> Registry:
    metrics: dict[str, Metric] = dict(known.metrics)
    return Registry(metrics, known.encoders, {**known.step_metrics, **more})


@pytest.mark.parametrize(("reads", "shape"), [("picture", (3, 64, 64)), ("latent", (16, 8, 8))])
def test_what_a_step_metric_is_given_and_what_becomes_of_its_errors(reads, shape, tiny_run, tmp_path):
    folder = shutil.copytree(tiny_run.folder, tmp_path / "run")
    suite = load_run(folder).info.suite
    odd = Odd()
    registry = registry_with(odd, reads)
    facts = [one.facts for one in step_metrics_of(["odd"], registry, None)]
    with RunFolder.reopen(folder) as open_folder:
        jobs = open_step_jobs(suite, ["base"], facts, (2,), open_folder.renders(), ())
        paths.score_steps(suite, open_folder, jobs, device="cpu", registry=registry)
        found = {(one.prompt_id, one.sample): one for one in open_folder.step_scores()}
    assert {one.shape[1:] for one in odd.seen} == {shape}
    assert {one.shape[0] for one in odd.seen} == {2}
    assert "no tents" in found["tent", 0].reason
    assert found["woman", 1].reason == "odd gave nan"
    assert found["dunes", 0].value == found["dunes", 0].timestep == 334.0
    assert found["dunes", 0].prompt_cut
    assert not found["woman", 0].prompt_cut


def test_what_is_not_finite_at_a_step_is_a_null_and_no_failed_image(tiny_run, tmp_path, monkeypatch):
    folder = shutil.copytree(tiny_run.folder, tmp_path / "run")
    look = paths.view

    def spoilt(scheduler, seen):
        found = look(scheduler, seen)
        if found.step == 1:
            found.predicted[0, 0, 0, 0] = float("nan")
        return found._replace(predicted=None) if found.step == 2 else found

    monkeypatch.setattr(paths, "view", spoilt)
    plan = StepPlan(metrics=("mini-preference",), at=(1, 2, 3))
    run_stage("steps", load_run(folder).info.suite, folder, RunOptions(device="cpu", steps=plan))
    reasons = {step: {one.reason for one in load_steps(folder) if one.step == step} for step in (1, 2, 3)}
    assert reasons[1] == {None, "the predicted image is not finite"}
    assert len(reasons[2]) == 1
    assert "pure noise" in next(iter(reasons[2]))
    assert reasons[3] == {None}


def test_the_report_shows_steps(stepped, tmp_path):
    folder = shutil.copytree(stepped, tmp_path / "run")
    page, note = write_report(folder)
    html, markdown = page.read_text("utf-8"), note.read_text("utf-8")
    assert 'id="steps"' in html
    assert html.count("data-strip") >= 3
    assert "predicted at step 3" in html
    assert "## Steps" in markdown
    assert {"steps.png", "orders.png"} <= {path.name for path in (folder / "plots").iterdir()}
