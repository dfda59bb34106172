"""A/A test: the arithmetic of noise, the parts of a calibration, and a small one that is really rendered."""

from __future__ import annotations

import functools
import math
import multiprocessing
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import pytest
import tiny
import torch
from fakes import make_run
from msgspec.structs import replace
from scipy import stats as scipy_stats

import bench.calibrate
import bench.calibrate.runs
import bench.render
import bench.run.stages
from bench import documents
from bench.calibrate import calibrate, write_calibration
from bench.calibrate.noise import metric_noise, session_noise, source_noise
from bench.calibrate.runs import Condition, other_batch, plan_conditions, render_in_child
from bench.compare.pairing import PromptPair, usable_scores
from bench.errors import IncomparableError, InvalidError, UsageError, WeightsError
from bench.measure import measure
from bench.records import Calibration, Prompt, Render, Timing, Variant
from bench.stats.bounds import detectable_loss, mean_bounds, power_of_pass
from bench.store import load_run
from bench.suite import load_suite, protocol_digest

# --- the arithmetic ------------------------------------------------------------------------


def prompts_of(differences):
    return [PromptPair(Prompt(id=str(n), text="x"), d, 0.0, d, 1) for n, d in enumerate(differences)]


def test_the_noise_of_one_pair_is_that_of_scipys_t_interval():
    differences = np.random.default_rng(1).normal(0.1, 0.4, 17)
    found = source_noise("batch", [prompts_of(differences)])
    low, high = scipy_stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    assert found.half_width == pytest.approx((high - low) / 2)
    assert found.mean == pytest.approx(differences.mean())
    assert found.mean_absolute == pytest.approx(np.abs(differences).mean())
    assert found.sd == pytest.approx(differences.std(ddof=1))
    assert (found.pairs, found.prompts) == (1, 17)


def test_equal_runs_have_no_noise():
    found = source_noise("process", [prompts_of([0.0] * 5)])
    assert (found.mean_absolute, found.mean, found.sd, found.half_width) == (0, 0, 0, 0)


def test_of_several_pairs_the_mean_is_the_largest_and_the_spread_the_mean_one():
    found = source_noise("seed", [prompts_of([0.1, 0.3]), prompts_of([-0.5, -0.1])])
    assert found.mean == pytest.approx(-0.3)
    assert found.mean_absolute == pytest.approx(0.25)
    assert found.sd == pytest.approx(math.sqrt((0.02 + 0.08) / 2))
    assert found.pairs == 2


def tables(runs, metric="mini-clip"):
    return [{key: cells for key, cells in usable_scores(run).items() if key[1] == metric} for run in runs]


def test_seeds_are_paired_with_one_another_and_show_the_spread_between_samples():
    """Two samples of spread 0.02 have means of spread 0.02 / sqrt 2, and their differences one of 0.02."""
    runs = [make_run(f"run-{seed}", prompts=300, variants=("base",), seed=seed) for seed in range(4)]
    first, *others = tables(runs)
    (facts,) = (one for one in runs[0].info.metrics if one.name == "mini-clip")
    found = metric_noise(runs[0].info.suite, "base", facts, first, {"seed": others})
    (seed,) = found.sources
    assert (seed.pairs, seed.prompts) == (6, 300)
    assert seed.sd == pytest.approx(0.02, rel=0.06)
    assert abs(seed.mean) < 3 * 0.02 / math.sqrt(300)
    assert found.floor == 0
    assert found.margin == detectable_loss(300, seed.sd, 0.9)
    means = {}
    for (prompt_id, _), value in first["base", "mini-clip"].items():
        means.setdefault(prompt_id, []).append(value)
    spread = np.std([np.mean(values) for values in means.values()], ddof=1)
    assert found.margin_sd == pytest.approx(found.margin / spread)


def test_a_margin_is_never_under_the_noise_of_process_batch_and_device():
    runs = [make_run(f"run-{seed}", prompts=30, variants=("base",), seed=seed) for seed in range(3)]
    first, second, third = tables(runs)
    (facts,) = (one for one in runs[0].info.metrics if one.name == "mini-clip")
    shifted = {key: {cell: value + 5 for cell, value in cells.items()} for key, cells in second.items()}
    found = metric_noise(runs[0].info.suite, "base", facts, first, {"batch": [shifted], "seed": [third]})
    batch, seed = found.sources
    assert found.floor == pytest.approx(batch.mean + batch.half_width)
    assert found.floor > 5 > detectable_loss(30, seed.sd, 0.9)
    assert found.margin == found.floor


def test_what_has_no_margin_says_why():
    runs = [make_run(f"run-{seed}", prompts=30, variants=("base",), seed=seed) for seed in range(2)]
    facts = {one.name: one for one in runs[0].info.metrics}
    suite = runs[0].info.suite
    first, second = tables(runs, "saturation")
    distance = replace(facts["saturation"], category="distance")
    found = metric_noise(suite, "base", distance, first, {"seed": [second]})
    assert (found.margin, found.margin_sd) == (None, None)
    assert "distance" in found.reason
    found = metric_noise(suite, "base", facts["saturation"], first, {"seed": [second]})
    assert found.margin == pytest.approx(detectable_loss(30, found.sources[-1].sd, 0.95)), "both sides must hold"
    first, _ = tables(runs)
    found = metric_noise(suite, "base", facts["mini-clip"], first, {"process": [first], "seed": [first]})
    assert (found.margin, found.floor) == (None, 0)
    assert "same scores" in found.reason


def test_noise_of_less_than_two_prompts_is_refused():
    runs = [make_run(f"run-{seed}", prompts=1, variants=("base",), seed=seed) for seed in range(2)]
    (facts,) = (one for one in runs[0].info.metrics if one.name == "mini-clip")
    first, second = tables(runs)
    with pytest.raises(InvalidError, match="fewer than 2 prompts"):
        metric_noise(runs[0].info.suite, "base", facts, first, {"seed": [second]})
    with pytest.raises(InvalidError, match="'process'"):
        metric_noise(runs[0].info.suite, "base", facts, first, {"process": [{}]})


def margin_of(prompts, sd):
    """The margin that is proposed where two runs with other seeds differ by these prompts' differences."""
    rng = np.random.default_rng(1)
    run = make_run("run", prompts=prompts, samples=1, variants=("base",))
    (facts,) = (one for one in run.info.metrics if one.name == "mini-clip")
    noise = scipy_stats.zscore(rng.normal(size=prompts), ddof=1) * sd
    sides = [
        {
            ("base", "mini-clip"): {
                (prompt.id, 0): float(side * d) for prompt, d in zip(run.info.suite.prompts, noise, strict=True)
            }
        }
        for side in (0, 1)
    ]
    return metric_noise(run.info.suite, "base", facts, sides[0], {"seed": sides[1:]})


@pytest.mark.parametrize(("prompts", "sd"), [(12, 1.0), (40, 0.02), (400, 1e-6)])
def test_the_proposed_margin_is_the_smallest_that_passes_nine_times_in_ten(prompts, sd):
    margin = margin_of(prompts, sd).margin
    assert power_of_pass(prompts, sd, 1.001 * margin, 0.0) >= 0.9
    assert power_of_pass(prompts, sd, 0.99 * margin, 0.0) < 0.9


def test_gates_on_nothing_but_noise_pass_nine_times_in_ten_at_the_proposed_margin():
    rng = np.random.default_rng(7)
    margin = margin_of(40, 0.3).margin
    passed = sum(mean_bounds(rng.normal(0, 0.3, 40))[1] <= margin for _ in range(1500))
    assert passed / 1500 == pytest.approx(0.9, abs=0.03)


def test_too_few_prompts_have_no_margin():
    found = margin_of(4, 0.1)
    assert found.margin is None
    assert "4 prompts never passes" in found.reason


def session(number, **values):
    run = make_run(f"session-{number}", variants=("base",))
    timings = tuple(
        Timing(variant="base", name=name, unit="second", round=0, process=1, warmups=(), values=tuple(found))
        for name, found in values.items()
    )
    return replace(run, timings=timings)


def test_the_noise_between_sessions_is_that_of_the_log_ratio_of_their_medians():
    # Logs of the medians 0 and 0.1: variance 0.005, of their difference twice that, so 0.1.
    runs = [session(1, end_to_end=[1.0, 0.5, 9.0]), session(2, end_to_end=[math.exp(0.1)] * 2, load=[1.0])]
    (found,) = session_noise(runs, ["base"])
    assert found.name == "end_to_end"
    assert found.sd_log_ratio == pytest.approx(0.1)
    assert found.sessions == 2


def test_a_time_of_zero_is_refused():
    with pytest.raises(InvalidError, match="0 or less"):
        session_noise([session(1, load=[0.0]), session(2, load=[1.0])], ["base"])


# --- the parts -----------------------------------------------------------------------------


def test_every_part_differs_from_the_first_in_one_thing():
    suite = make_run("run", variants=("base",)).info.suite
    parts = {part.name: part for part in plan_conditions(suite, "cpu", "cuda:0", 2, 3)}
    assert list(parts) == [
        *("session-1", "first", "session-2", "process", "session-3", "batch"),
        *("device", "seed-1", "seed-2"),
    ]
    first = parts["first"]
    assert (first.suite, first.device) == (suite, "cpu")
    assert (parts["process"].suite, parts["process"].device) == (suite, "cpu")
    assert (parts["device"].suite, parts["device"].device) == (suite, "cuda:0")
    assert parts["batch"].suite == replace(suite, settings=replace(suite.settings, batch=8))
    assert [parts[f"seed-{n}"].suite.seed - suite.seed for n in (1, 2)] == [1, 2]
    assert "device" not in {part.name for part in plan_conditions(suite, "cpu", None, 2, 3)}


@pytest.mark.parametrize(("batch", "prompts", "other"), [(16, 12, 8), (1, 12, 2), (64, 3, 3), (3, 12, 1)])
def test_another_batch_size_forms_other_batches(batch, prompts, other):
    suite = make_run("run", prompts=prompts).info.suite
    suite = replace(suite, settings=replace(suite.settings, batch=batch))
    assert other_batch(suite) == other


# --- a small calibration, really rendered --------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Tests and the processes they start share two cores, and both must sum in one order."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    """Three prompts of two samples through the base of the embedded family, judged by their pixels."""
    loaded = load_suite(str(tiny.write_tiny(tmp_path_factory.mktemp("suite"))))
    return replace(loaded, metrics=("sharpness", "saturation", "ssim-to-base"))


class Done(NamedTuple):
    """A calibration whose condition in another process was stopped by the user after a batch, and went on."""

    folder: Path
    found: Calibration
    told: list[str]
    left: list[object]
    """Processes that were there after the stop."""
    kept: tuple[Render, ...]
    """What was on record then."""


@pytest.fixture(scope="module")
def done(suite, tmp_path_factory):
    folder = tmp_path_factory.mktemp("calibration")
    told, left, kept = [], [], []

    def stop(stage, done, total, note=""):
        if done:
            raise KeyboardInterrupt

    def render_in_two_goes(condition, path, **options):
        with pytest.raises(KeyboardInterrupt):
            render_in_child(condition, path, **{**options, "progress": stop})
        left.extend(multiprocessing.active_children())
        kept.extend(load_run(path).renders)
        render_in_child(condition, path, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench.calibrate.runs, "render_in_child", render_in_two_goes)
        patch.setattr(bench.run.stages, "measure", functools.partial(measure, command=tiny.TIMER))
        patch.setattr(bench.render, "switch_variant", counted(bench.render.switch_variant, told))
        found = calibrate(
            suite, folder, device="cpu", sessions=2, progress=lambda stage, *_: told.append(stage) if told else None
        )
    return Done(folder, found, told, left, tuple(kept))


def counted(switch_variant, told):
    def load(*arguments, **flags):
        told.append("loaded here")
        return switch_variant(*arguments, **flags)

    return load


def test_every_condition_is_a_run_folder_of_the_reference_alone(suite, done):
    folder, found = done.folder, done.found
    parts = {path.name: load_run(path) for path in folder.iterdir()}
    assert set(parts) == {"first", "process", "batch", "seed-1", "seed-2", "session-1", "session-2"}
    for name, run in parts.items():
        assert [variant.name for variant in run.info.suite.variants] == ["base"]
        assert (len(run.renders), len(run.scores)) == ((0, 0) if name.startswith("session") else (6, 12))
        assert bool(run.timings) == name.startswith("session")
    assert found.protocol_digest == parts["first"].info.protocol_digest == protocol_digest(suite)


def test_one_condition_is_rendered_by_another_process_and_has_the_same_images(done):
    folder, told = done.folder, done.told
    assert told.count("loaded here") == 4, "first, batch and two seeds, but not the condition 'process'"
    first, process, seed = (load_run(folder / name) for name in ("first", "process", "seed-1"))
    assert [one.sha256 for one in first.renders] == [one.sha256 for one in process.renders]
    assert not {one.sha256 for one in first.renders} & {one.sha256 for one in seed.renders}
    assert "process: render" in told


def test_other_seeds_show_noise_where_another_process_shows_none(done):
    found = done.found
    assert [one.metric for one in found.noise] == ["sharpness", "saturation"]
    for noise in found.noise:
        sources = {source.source: source for source in noise.sources}
        assert list(sources) == ["process", "batch", "seed"]
        assert sources["process"].mean_absolute == 0
        assert sources["seed"].mean_absolute > sources["batch"].mean_absolute
        assert (sources["seed"].pairs, sources["seed"].prompts) == (3, 3)
        assert noise.margin is None
    assert {one.sessions for one in found.session_noise} == {2}
    assert "end_to_end" in {one.name for one in found.session_noise}


def test_a_finished_calibration_does_nothing_again(suite, done, monkeypatch):
    folder, found = done.folder, done.found
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    monkeypatch.setattr(bench.render, "switch_variant", None)
    monkeypatch.setattr(bench.calibrate.runs, "render_in_child", lambda *_, **__: None)
    again = calibrate(suite, folder, device="cpu", sessions=2)
    assert replace(again, time=found.time) == found
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before


def test_the_file_is_read_back_as_it_was_written(done, tmp_path):
    found = done.found
    write_calibration(found, tmp_path / "new" / "calibration.json")
    text = (tmp_path / "new" / "calibration.json").read_text("utf-8")
    assert documents.convert(documents.loads(text), Calibration) == found
    assert found.kind == msgspec.json.decode(text)["kind"] == "hotart-bench calibration"


def test_another_process_that_is_stopped_leaves_nothing_and_goes_on(done):
    assert done.left == []
    assert 4 <= len(done.kept) <= 6
    assert load_run(done.folder / "process").renders[: len(done.kept)] == done.kept, "and that is not made again"


def test_what_another_process_meets_is_told_as_if_it_were_this_one(suite, tmp_path):
    broken = replace(suite, variants=(Variant(name="base", checkpoint=str(tmp_path / "gone.safetensors")),))
    with pytest.raises((WeightsError, UsageError)) as caught:
        render_in_child(
            Condition("process", "process", broken, "cpu"),
            tmp_path / "run",
            fresh=False,
            weights_dir=None,
            progress=print,
        )
    assert "gone.safetensors" in caught.value.message


# --- what is refused -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"seeds": 0}, "--seeds is 0"),
        ({"seeds": 101}, "1 to 100"),
        ({"sessions": 1}, "--sessions is 1"),
        ({"sessions": -1}, "--sessions is -1"),
        ({"variants": ["bsae"]}, "did you mean 'base'"),
        ({"metrics": ["sharpnes"]}, "sharpness"),
        ({"metrics": ["ssim-to-base"]}, "no metric to calibrate"),
        ({"beside": "cpu"}, "--other-device is cpu"),
    ],
)
def test_flags_that_cannot_be_are_refused_before_any_work(suite, tmp_path, flags, words):
    with pytest.raises(UsageError, match=words):
        calibrate(suite, tmp_path / "new", **{"device": "cpu", **flags})
    assert not (tmp_path / "new").exists()


def test_one_prompt_and_a_run_folder_are_refused(suite, done, tmp_path):
    with pytest.raises(UsageError, match="one prompt"):
        calibrate(replace(suite, prompts=suite.prompts[:1]), tmp_path / "new", device="cpu")
    with pytest.raises(UsageError, match="is a run folder"):
        calibrate(suite, done.folder / "first", device="cpu")


def test_a_run_of_another_machine_is_refused(suite, done, tmp_path, monkeypatch):
    folder = done.folder
    moved = tmp_path / "moved"
    for path in folder.rglob("*"):
        if path.is_file():
            (moved / path.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
            (moved / path.relative_to(folder)).write_bytes(path.read_bytes())
    info = load_run(moved / "seed-1").info
    other = replace(info, machine=replace(info.machine, device_name="Another CPU"))
    (moved / "seed-1" / "run.json").write_bytes(msgspec.json.encode(other))
    monkeypatch.setattr(bench.calibrate.runs, "render_in_child", lambda *_, **__: None)
    with pytest.raises(IncomparableError, match="Another CPU"):
        calibrate(suite, moved, device="cpu", sessions=2)
