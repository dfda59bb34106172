"""Oracles: the records themselves, and the files written as a run folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pandas as pd
import pytest
from fakes import make_run, write_run
from grid_runs import make_grid_runs, write_grid
from vote_runs import make_voted, panel

from bench.compare import metric_means
from bench.errors import HotartError
from bench.frames import Run, compare_grid, load_grid, load_run, vote_results
from bench.records import Render, Score, Vote
from bench.store import RunFolder
from bench.votes.read import add_votes

FAILED = ("spo", "case-003", 1)


def test_a_folder_becomes_frames(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", failed=[FAILED])
    frames = load_run(write_run(run, tmp_path / "run"))
    assert frames.info == run.info
    assert (len(frames.renders), len(frames.scores)) == (len(run.renders), len(run.scores))
    assert len(frames.timings) == sum(len(t.values) + len(t.warmups) for t in run.timings)


def test_columns_are_the_records_fields(tmp_path: Path) -> None:
    frames = Run(make_run(tmp_path))
    assert tuple(frames.renders.columns) == Render.__struct_fields__
    first = ("variant", "prompt_id", "prompt", "tags", "seed", "sample", "metric", "value")
    assert tuple(frames.scores.columns)[:8] == first
    assert set(frames.scores.columns) == {*Score.__struct_fields__, *first}


def test_values_and_gaps_survive(tmp_path: Path) -> None:
    run = make_run(tmp_path, failed=[FAILED])
    frames = Run(run)
    for record, row in zip(run.scores, frames.scores.to_dict("records"), strict=True):
        for field, expected in msgspec.structs.asdict(record).items():
            assert pd.isna(row[field]) if expected is None else row[field] == expected
    for record, row in zip(run.renders, frames.renders.to_dict("records"), strict=True):
        for field, expected in msgspec.structs.asdict(record).items():
            assert pd.isna(row[field]) if expected is None else row[field] == expected


def test_dtypes(tmp_path: Path) -> None:
    frames = Run(make_run(tmp_path))
    assert frames.scores.dtypes["value"] == "float64"
    assert frames.renders.dtypes["seed"] == "int64"
    assert frames.timings.dtypes["warmup"] == "bool"
    assert list(frames.scores["variant"].cat.categories) == ["base", "dpo", "spo"]
    assert frames.scores["metric"].cat.ordered
    # Ordered categories: a table groups in the suite's order, not the alphabet's.
    assert frames.timings["name"].min() == "load"


def test_group_means_agree_with_metric_means(tmp_path: Path) -> None:
    run = make_run(tmp_path, failed=[FAILED])
    scores = Run(run).scores
    by_prompt = scores.groupby(["variant", "metric", "prompt_id"], observed=True)["value"].mean()
    means = by_prompt.groupby(["variant", "metric"], observed=True).mean()
    for found in metric_means(run):
        assert means[found.variant, found.metric] == pytest.approx(found.mean)


def test_timings_keep_raw_values_in_order(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    timings = Run(run).timings
    for record in run.timings[:9]:
        rows = timings[
            (timings["variant"] == record.variant)
            & (timings["name"] == record.name)
            & (timings["round"] == record.round)
        ]
        assert tuple(rows[~rows["warmup"]].sort_values("index")["value"]) == record.values
        assert tuple(rows[rows["warmup"]]["value"]) == record.warmups


def test_wide_scores_have_one_row_an_image(tmp_path: Path) -> None:
    run = make_run(tmp_path, failed=[FAILED])
    wide = Run(run).scores_wide()
    metrics = [facts.name for facts in run.info.metrics]
    assert list(wide.columns) == ["variant", "prompt_id", "sample", "tags", "image", "error", *metrics]
    assert list(wide["image"].dropna()) == [render.image for render in run.renders if render.image]
    values = {(s.variant, s.prompt_id, s.sample, s.metric): s.value for s in run.scores}
    for row in wide.to_dict("records"):
        for metric in metrics:
            expected = values.get((row["variant"], row["prompt_id"], row["sample"], metric))
            assert pd.isna(row[metric]) if expected is None else row[metric] == expected
    assert wide.loc[0, "tags"] == ("portrait", "light")


def test_an_unfinished_run_has_empty_frames(tmp_path: Path) -> None:
    run = msgspec.structs.replace(make_run(tmp_path), renders=(), scores=(), timings=())
    frames = Run(run)
    assert len(frames.renders) == len(frames.scores) == len(frames.timings) == 0
    assert frames.scores.dtypes["value"] == "float64"
    assert frames.scores_wide().empty


def test_scores_of_a_metric_that_the_run_no_longer_lists_are_kept(tmp_path: Path) -> None:
    run = make_run(tmp_path, prompts=2)
    listed = run.info.metrics[1:]
    older = msgspec.structs.replace(run, info=msgspec.structs.replace(run.info, metrics=listed))
    scores = Run(older).scores
    assert scores["metric"].isna().sum() == 0
    assert scores["metric"].cat.categories[-1] == "mini-clip"


def test_no_run_folder_is_refused_as_the_store_does(tmp_path: Path) -> None:
    with pytest.raises(HotartError, match="nothing-here"):
        load_run(tmp_path / "nothing-here")


def test_importing_frames_imports_neither_pandas_nor_torch() -> None:
    code = "import sys, bench.frames, bench.compare; print([m for m in ('pandas', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_grid_is_one_table_of_scores_and_two_of_differences(tmp_path: Path) -> None:
    axes = {"guidance_scale": ("3", "7.5"), "seed": ("0", "1")}
    found = make_grid_runs(tmp_path, axes=axes, prompts=4)
    grid = load_grid(write_grid(found, tmp_path / "grid"))
    assert len(grid.scores) == sum(len(run.scores) for run in found.runs)
    assert list(grid.scores.columns[:2]) == ["guidance_scale", "suite_seed"]
    chosen = grid.scores.query("guidance_scale == 7.5 and suite_seed == 1 and metric == 'mini-clip'")
    assert sorted(chosen["value"]) == sorted(s.value for s in found.runs[3].scores if s.metric == "mini-clip")
    differences = compare_grid(grid, metrics=["mini-clip"], pairs=[("spo", "base")])
    frame, axes_frame = differences.to_frame(), differences.axes_frame()
    assert frame["guidance_scale"].tolist() == [3.0, 7.5]
    assert frame["mean"].tolist() == [cell.mean for cell in differences[0].cells]
    assert (frame["interval_low"] < frame["mean"]).all()
    assert axes_frame[["axis", "value"]].to_numpy().tolist() == [
        ["guidance_scale", 3.0], ["guidance_scale", 7.5], ["seed", 0], ["seed", 1],
    ]  # fmt: skip
    assert axes_frame["change"].isna().tolist() == [True, False, True, False]


def test_votes_are_a_frame_and_their_results_a_record(tmp_path: Path) -> None:
    folder, _ = make_voted(tmp_path, prompts=3)
    assert load_run(folder).votes.empty
    assert vote_results(load_run(folder)) is None
    with RunFolder.reopen(folder) as opened:
        add_votes(opened, panel(folder, tmp_path / "files", 2))
    frames = load_run(folder)
    assert tuple(frames.votes.columns) == Vote.__struct_fields__
    assert len(frames.votes) == len(frames.record.votes)
    assert (frames.votes.dtypes["seconds"], frames.votes.dtypes["edited"]) == ("float64", "bool")
    results = vote_results(frames, pairs=[("spo", "base")])
    assert results is not None
    assert [one.voters for one in results.pairs] == [2]
