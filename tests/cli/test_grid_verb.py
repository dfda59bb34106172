"""The verb: what it renders, goes on with and refuses; and how ``compare``, ``report``, ``plot``, ``gate`` read it."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from grid_runs import make_grid_runs, write_grid

import bench.run.grid
from bench.documents import sha256_of
from bench.store import load_run
from bench.store.grid import load_grid, read_grid


@pytest.fixture(scope="module")
def grid_folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("grids")
    effect = {3.0: 3.0, 7.5: -3.0}
    found = make_grid_runs(
        place / "g", lambda setting: {"spo": {"mini-preference": effect[setting["guidance_scale"]]}}, prompts=6
    )
    return write_grid(found, place / "g")


@pytest.fixture
def copied(grid_folder, tmp_path) -> Path:
    return Path(shutil.copytree(grid_folder, tmp_path / "g"))


def test_it_renders_goes_on_and_adds_what_is_new(cli, tiny_run, tmp_path, monkeypatch, blank_plots):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "g"
    flags = ["-o", folder, "--device", "cpu", "--limit", "2", "--metrics", "mini-preference,mini-clip"]
    first = cli("grid", tiny_run.suite_file, "--guidance-scale", "5", "--sampler", "ddim", *flags)
    assert first.code == 0, first.err
    assert "1 setting x 2 variants x 4 images: 8 images, 8 of them to draw" in first.err
    assert first.out == f"{folder}/report.html\n"
    begun = folder / "guidance-scale-5_sampler-ddim"
    images = {path: (sha256_of(path), path.stat().st_mtime_ns) for path in begun.rglob("images/*/*.png")}
    assert len(images) == 8

    drawn = []
    kept = bench.run.grid.run_all

    def counted(suite, path, *arguments, **named):
        drawn.append(path.name)
        return kept(suite, path, *arguments, **named)

    monkeypatch.setattr(bench.run.grid, "run_all", counted)
    more = cli("grid", tiny_run.suite_file, "--guidance-scale", "3,5", "--sampler", "ddim", *flags)
    assert more.code == 0, more.err
    assert "2 settings x 2 variants x 4 images: 16 images, 8 of them to draw" in more.err
    assert drawn == ["guidance-scale-3_sampler-ddim", "guidance-scale-5_sampler-ddim"]
    assert {path: (sha256_of(path), path.stat().st_mtime_ns) for path in begun.rglob("images/*/*.png")} == images

    # A setting of the grid that is the suite's own has the pixels of the suite's own run.
    own = {(r.variant, r.prompt_id, r.sample): r.sha256 for r in load_run(tiny_run.folder).renders}
    member = load_run(folder / "guidance-scale-3_sampler-ddim")
    assert len(member.renders) == 8
    batch_of_four = [r for r in member.renders if r.prompt_id in ("tent", "dunes")]
    assert all(own[r.variant, r.prompt_id, r.sample] == r.sha256 for r in batch_of_four)
    assert member.info.suite.settings.guidance_scale == 3.0
    assert member.timings == ()

    again = cli("grid", tiny_run.suite_file, "--guidance-scale", "3,5", "--sampler", "ddim", *flags)
    assert "Nothing was left to do: 2 runs, 16 images" in again.err
    assert "0 of them to draw" in again.err
    less = cli("grid", tiny_run.suite_file, "--guidance-scale", "3", "--sampler", "ddim", *flags)
    assert less.code == 4
    assert "guidance_scale 5 only there" in less.err
    told = cli("compare", folder)
    assert told.code == 0, told.err
    assert "in any of 2 settings" in told.out or "of 2 settings" in told.out


def test_a_dry_run_tells_the_cost_and_does_nothing(cli, tiny_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answer = cli("grid", tiny_run.suite_file, "--steps", "3,4", "--seed", "0,1", "--variants", "spo", "--dry-run")
    assert answer.code == 0, answer.err
    assert "4 settings x 1 variant x 6 images: 24 images, 24 of them to draw, at most 288 KiB" in answer.err
    assert "steps-4_seed-1" in answer.out
    assert list(tmp_path.iterdir()) == []


def test_the_time_is_told_by_the_timings_of_the_suites_own_run(cli, tiny_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_run.folder, tmp_path / "reports" / "runs" / "tiny")
    answer = cli("grid", tiny_run.suite_file, "--steps", "3,6", "--dry-run", "--device", "cpu")
    assert answer.code == 0, answer.err
    assert "to draw by the timings in reports/runs/tiny" in answer.err
    assert "loading and scoring on top" in answer.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "A grid needs values of a setting"),
        (["--guidance-scale", ""], "empty name"),
        (["--guidance-scale", "3,x"], "--guidance-scale: 'x' is not a number"),
        (["--sampler", "ddim,euler", "--eta", "0,1"], "only the samplers ddim and tcd have an eta, not euler"),
        (["--sampler", "ddim", "--schedule", "karras"], "ddim cannot follow the schedule karras"),
        (["--steps", "20", "--variants", "spoo"], "'spoo' is not one of base, spo"),
        (["--steps", "20", "--metrics", "mini-clap"], "did you mean 'mini-clip'"),
        (["--steps", "20", "--device", "gpu"], "'gpu' is not one of"),
        (["--steps", "20", "--limit", "0"], "--limit is 0"),
        (["--steps", "20", "-o", "s3://bucket/grid"], "is a URL"),
    ],
)
def test_bad_input_is_refused_before_anything_is_drawn(cli, home, monkeypatch, arguments, said):
    monkeypatch.setattr(bench.run.grid, "run_all", None)
    answer = cli("grid", "own.toml", *arguments)
    assert answer.code == 2
    assert said in answer.err
    assert not (home / "reports").exists()


def test_a_run_folder_is_no_place_for_a_grid(cli, home, run_folder):
    answer = cli("grid", "own.toml", "--steps", "4", "-o", run_folder)
    assert answer.code == 2
    assert "holds no grid" in answer.err


def test_an_interrupted_grid_keeps_what_is_there(cli, home, monkeypatch):
    def stop(suite, path, *arguments, **named):
        path.mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(bench.run.grid, "run_all", stop)
    answer = cli("grid", "own.toml", "--steps", "4,5", "-o", "g", "--device", "cpu")
    assert answer.code == 130
    assert [axis.values for axis in read_grid(home / "g").axes] == [(4, 5)]


# What the other verbs say of it.


def test_compare_prints_differences_changes_and_sentences(cli, grid_folder):
    answer = cli("compare", grid_folder)
    assert answer.code == 0, answer.err
    assert "mini-preference: spo over base holds in 2 of 4 settings, flips at guidance scale 7.5." in answer.out
    assert "mini-preference: difference under each setting" in answer.out
    assert "change of guidance scale from 3 to 7.5" in answer.out
    assert "saturation: difference" not in answer.out
    assert "Not shown, since they only describe: " in answer.out
    named = cli("compare", grid_folder, "--metrics", "saturation", "--pairs", "spo:dpo")
    assert "saturation: difference under each setting" in named.out
    assert "spo − dpo" in named.out
    assert "spo − base" not in named.out


def test_compare_as_json_csv_markdown_and_latex(cli, grid_folder):
    found = json.loads(cli("compare", grid_folder, "--format", "json").out)
    one = next(d for d in found["differences"] if (d["metric"], d["candidate"]) == ("mini-preference", "spo"))
    rows = list(csv.DictReader(cli("compare", grid_folder, "--format", "csv").out.splitlines()))
    own = [r for r in rows if (r["metric"], r["candidate"], r["reference"]) == ("mini-preference", "spo", "base")]
    cells = [row for row in own if row["kind"] == "difference"]
    assert [float(row["value"]) for row in cells] == [cell["mean"] for cell in one["cells"]]
    assert [row["order"] for row in cells] == ["holds", "holds", "flips", "flips"]
    assert {(row["guidance_scale"], row["sampler"]) for row in cells} >= {("7.5", "dpmpp_2m")}
    changes = [row for row in own if row["kind"] == "change"]
    assert [float(row["p"]) for row in changes] == [effect["p"] for effect in one["axes"]]
    assert "| setting |" in cli("compare", grid_folder, "--format", "markdown").out
    assert r"\begin{tabular}" in cli("compare", grid_folder, "--format", "latex").out


def test_what_goes_with_a_run_is_refused(cli, grid_folder, run_folder):
    for more in (["--tag", "portrait"], [run_folder]):
        answer = cli("compare", grid_folder, *more)
        assert answer.code == 2
        assert "is a grid" in answer.err
    for verb in (["gate"], ["baseline", "-o", "b.json"], ["score"], ["render"], ["steps"], ["measure"]):
        answer = cli(verb[0], grid_folder, *verb[1:])
        assert answer.code == 2, verb
        assert "is a grid" in answer.err, verb
    answer = cli("run", grid_folder)
    assert answer.code == 2
    assert "is a grid" in answer.err


def test_a_gate_takes_a_run_of_the_grid(cli, grid_folder):
    run = grid_folder / load_grid(grid_folder).grid.members[0].folder
    answer = cli("gate", run, "--pairs", "spo:base", "--limits", "mini-preference=0.5sd")
    assert answer.code in (0, 1, 2), answer.err
    assert "is a grid" not in answer.err


def test_report_and_plot_take_the_grid(cli, copied):
    answer = cli("report", copied)
    assert answer.code == 0, answer.err
    assert answer.out == f"{copied}/report.html\n"
    page, note = ((copied / name).read_text("utf-8") for name in ("report.html", "report.md"))
    for text in (page, note):
        assert "spo over base holds in 2 of 4 settings, flips at guidance scale 7.5." in text
        assert "guidance-scale-7.5_sampler-dpmpp_2m/report" in text
        assert "hotart-bench grid fake --guidance-scale 3,7.5 --sampler ddim,dpmpp_2m" in text
    assert "<script" not in page
    assert "default-src &#39;none&#39;" in page
    assert "plots/grid.png" in note
    drawn = cli("plot", copied, "--format", "svg", "-o", copied / "figures")
    assert drawn.out == f"{copied}/figures/grid.svg\n"
    assert "guidance scale 7.5" in (copied / "figures" / "grid.svg").read_text("utf-8")
    assert cli("report", copied, "--limit", "3").code == 2
