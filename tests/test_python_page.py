"""The code of docs/python.md runs as it stands, on run folders of that name; and the public names fit together."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from fakes import make_run, write_run
from grid_runs import make_grid_runs, write_grid

import bench
from bench.errors import UsageError
from bench.suite.limits import parse_limits

PAGE = Path(__file__).parents[1] / "docs" / "python.md"
LIMITS = parse_limits({"mini-clip": "0.5sd", "mini-aesthetic": "0.5sd"})


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[bench.Run, bench.Run]:
    """``reports/runs/mini`` and ``other``, with limits, in the present folder."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("mini", "other")):
        run = make_run(f"reports/runs/{name}", prompts=12, seed=seed)
        limited = msgspec.structs.replace(run.info.suite, limits=LIMITS)
        run = msgspec.structs.replace(run, info=msgspec.structs.replace(run.info, suite=limited))
        write_run(run, Path("reports/runs", name))
    grid = make_grid_runs(Path("reports/runs/grid-mini"), axes={"guidance_scale": ("3", "7.5")}, prompts=4)
    write_grid(grid, Path("reports/runs/grid-mini"))
    return bench.load_run("reports/runs/mini"), bench.load_run("reports/runs/other")


@pytest.mark.usefixtures("runs")
def test_the_code_of_the_page_runs_from_top_to_bottom(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 9
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    told = capsys.readouterr().out
    for words in ("fake", "spo - base, mini-clip: ", "no/such/folder", "mini-aesthetic of spo"):
        assert words in told


def test_the_frame_of_findings_has_a_row_for_each_metric_and_names_are_checked(
    runs: tuple[bench.Run, bench.Run],
) -> None:
    run, other = runs
    found = bench.findings(run)
    assert [(one.candidate, one.reference) for one in found] == [("dpo", "base"), ("spo", "base"), ("spo", "dpo")]
    rows = found.to_frame()
    assert len(rows) == sum(len(one.metrics) for one in found)
    row = rows[(rows.candidate == "spo") & (rows.reference == "base") & (rows.metric == "mini-preference")].iloc[0]
    metric = next(one for one in found[1].metrics if one.metric == "mini-preference")
    assert (row.word, row.reads, row.interval_low) == (found[1].word, metric.reads, metric.interval.low)
    assert row.prompt_spreads == metric.mean / metric.prompt_sd
    (across,) = bench.findings(other, run, pairs=[("spo", "base")])
    assert (across.candidate, across.reference) == ("spo@other", "base@mini")
    for wrong in (
        lambda: bench.findings(run, pairs=[("spoo", "base")]),
        lambda: bench.findings(other, run, pairs=[("spo", "bass")]),
    ):
        with pytest.raises(UsageError, match="did you mean"):
            wrong()


def test_a_frame_holds_the_numbers_of_its_records(runs: tuple[bench.Run, bench.Run]) -> None:
    run, other = runs
    for found in (bench.compare_run(run), bench.compare_runs(other, run)):
        rows = found.to_frame().to_dict("records")
        assert [row["mean"] for row in rows] == [delta.mean for delta in found]
        assert [row["interval_low"] for row in rows] == [delta.interval.low for delta in found if delta.interval]
    means = bench.metric_means(run)
    assert means.to_frame()["mean"].tolist() == [one.mean for one in means]


def test_a_ranking_is_a_row_a_variant(runs: tuple[bench.Run, bench.Run]) -> None:
    rankings = bench.rank_variants(runs[0])
    rows = rankings.to_frame().to_dict("records")
    expected = [(one.metric, strength.variant) for one in rankings for strength in one.strengths]
    assert [(row["metric"], row["variant"]) for row in rows] == expected
    assert {row["tied_sets"] for row in rows} <= {"a", "b", "c", "a b", "b c", "a b c"}


def test_limits_are_checked_against_a_run_a_frozen_one_and_a_variant_of_the_same(
    runs: tuple[bench.Run, bench.Run],
) -> None:
    run, other = runs
    by_run, by_file = bench.check_limits(other, run), bench.check_limits(other, bench.freeze(run))
    assert [one.loss for one in by_run] == [one.loss for one in by_file]
    assert by_run.gate.outcome in ("pass", "fail", "inconclusive")
    assert set(by_run.to_frame()["name"]) == {"mini-clip", "mini-aesthetic"}
    within = bench.check_limits(run, run, pairs=[("spo", "base")])
    assert {(one.candidate, one.reference) for one in within} == {("spo", "base")}
    with pytest.raises(UsageError, match="cannot be its own reference"):
        bench.check_limits(run, run)


def test_scores_carry_prompt_tags_and_seed(runs: tuple[bench.Run, bench.Run]) -> None:
    run = runs[0]
    prompts = {prompt.id: prompt for prompt in run.info.suite.prompts}
    seeds = {(one.variant, one.prompt_id, one.sample): one.seed for one in run.record.renders}
    for row in run.scores.to_dict("records"):
        assert (row["prompt"], row["tags"]) == (prompts[row["prompt_id"]].text, prompts[row["prompt_id"]].tags)
        assert row["seed"] == seeds[row["variant"], row["prompt_id"], row["sample"]]


def test_dir_shows_the_public_names_and_each_is_there() -> None:
    assert dir(bench) == sorted(bench.__all__)
    for name in bench.__all__:
        assert getattr(bench, name).__doc__
    with pytest.raises(AttributeError, match=r"no attribute 'jugde'; it has .*load_run"):
        _ = bench.jugde


def test_import_bench_imports_nothing_large() -> None:
    code = "import sys, bench; print([m for m in ('numpy', 'pandas', 'torch', 'msgspec') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
