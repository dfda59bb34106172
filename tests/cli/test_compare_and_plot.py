import io
import json
import re
from html import unescape
from unittest.mock import create_autospec

import msgspec
import pandas as pd
import pytest
from fakes import make_run, write_run
from markdown_it import MarkdownIt
from msgspec.structs import replace

import bench.cli.plot
from bench.compare import compare_run, compare_runs, rank_variants, summarize_timings, timing_ratios, variant_pairs
from bench.compare.finding import find_in_run, find_in_runs
from bench.store import load_run


def printed(answer):
    assert (answer.code, answer.err) == (0, "")
    return json.loads(answer.out)


def builtins(**found):
    return json.loads(msgspec.json.encode(found))


def test_json_is_what_the_rooms_below_found(cli, run_folder):
    run = load_run(run_folder)
    assert printed(cli("compare", run_folder, "--format", "json")) == builtins(
        findings=find_in_run(run, variant_pairs(run.info.suite)),
        deltas=compare_run(run),
        ratios=timing_ratios(run, pairs=variant_pairs(run.info.suite)),
        timings=summarize_timings(run),
        rankings=rank_variants(run),
        rates=(),
        sets=(),
        votes=None,
    )


def test_three_variants_are_ranked_below_the_table(cli, run_folder):
    out = cli("compare", run_folder).out
    for ranking in rank_variants(load_run(run_folder)):
        table = out.split(f"\nRanking by {ranking.metric} (8 prompts)\n\n")[1].split("\n\n")[0].splitlines()
        assert [line.split()[0] for line in table[2:]] == [one.variant for one in ranking.strengths]
        for line, one in zip(table[2:], ranking.strengths, strict=True):
            assert f" {one.wins} / {one.ties} / {one.losses} " in line
            assert float(line.split()[1].replace("\N{MINUS SIGN}", "-")) == pytest.approx(one.strength, abs=0.06)
    assert "share a letter" in out


@pytest.mark.parametrize("flags", [("--pairs", "spo:base"), ("--tag", "landscape")])
def test_a_choice_of_pairs_or_prompts_is_not_ranked(cli, run_folder, flags):
    assert "Ranking" not in cli("compare", run_folder, *flags).out
    assert printed(cli("compare", run_folder, *flags, "--format", "json"))["rankings"] == []


def test_what_holds_after_holm_is_marked(cli, tmp_path):
    folder = write_run(make_run(tmp_path, prompts=24), tmp_path)
    deltas = compare_run(load_run(folder), pairs=[("spo", "base")], tags=False)
    out = cli("compare", folder, "--pairs", "spo:base").out
    marked = {line.split()[0] for line in out.splitlines() if "]†" in line}
    assert marked == {delta.metric for delta in deltas if delta.p_holm <= 0.05}
    assert 0 < len(marked) < len(deltas)
    assert "† holds at 5%, by Holm over the metrics of a pair" in out


def test_json_of_two_runs_has_no_ratio_across_machines(cli, run_folder, other_folder):
    found = printed(cli("compare", run_folder, other_folder, "--format", "json"))
    runs = load_run(run_folder), load_run(other_folder)
    findings = find_in_runs(*runs, [(one.name, one.name) for one in runs[0].info.suite.variants])
    deltas = compare_runs(*runs)
    nothing = dict.fromkeys(("ratios", "timings", "rankings", "rates", "sets"), ())
    assert found == builtins(findings=findings, deltas=deltas, **nothing, votes=None)


def test_csv_is_one_tidy_table_of_unrounded_numbers(cli, run_folder):
    run = load_run(run_folder)
    answer = cli("compare", run_folder, "--format", "csv")
    assert (answer.code, answer.err) == (0, "")
    table = pd.read_csv(io.StringIO(answer.out), keep_default_na=False, na_values={"value": [""], "p": [""]})
    differences = table[table.kind == "difference"]
    deltas = compare_run(run)
    assert any(delta.tag is not None for delta in deltas)
    keys = ["candidate", "reference", "name", "tag"]
    by_key = differences.set_index(keys)
    assert len(by_key) == len(deltas)
    for delta in deltas:
        row = by_key.loc[(delta.candidate, delta.reference, delta.metric, delta.tag or "")]
        assert row.value == delta.mean
        assert float(row.low) == delta.interval.low
        assert (int(row.wins), int(row.prompts), float(row.p)) == (delta.wins, delta.prompts, delta.p)
    ratios = table[table.kind == "ratio"]
    assert list(ratios.value) == [ratio.ratio for ratio in timing_ratios(run, pairs=variant_pairs(run.info.suite))]
    strengths = table[table.kind == "strength"]
    assert list(strengths.value) == [one.strength for ranking in rank_variants(run) for one in ranking.strengths]


def test_markdown_holds_the_same_tables_and_notes(cli, run_folder):
    answer = cli("compare", run_folder, "--format", "markdown")
    assert (answer.code, answer.err) == (0, "")
    html = MarkdownIt("commonmark", {"html": False}).enable("table").render(answer.out)
    tables = pd.read_html(io.StringIO(html))
    plain = cli("compare", run_folder).out
    assert len(tables) == plain.count("median of") + len(re.findall(r"wins +overlap", plain)) + plain.count(
        "Ranking by"
    )
    first = tables[0]
    assert list(first.columns) == ["metric", "reference", "candidate", "delta", "interval", "wins", "overlap"]
    line = next(line for line in plain.splitlines() if line.startswith("mini-aesthetic"))
    row = first[first.metric == "mini-aesthetic"].iloc[0]
    assert str(row.delta) in line
    assert str(row.interval) in line
    for note in plain.rstrip().rsplit("\n\n", 1)[1].splitlines():
        assert note in unescape(re.sub("<[^>]+>", "", html))


def test_latex_is_a_booktabs_tabular_for_each_table(cli, run_folder):
    answer = cli("compare", run_folder, "--pairs", "spo:base", "--format", "latex")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.count(r"\begin{tabular}{lrrrrrl}") == 1  # scores
    assert answer.out.count(r"\begin{tabular}{lrrrr}") == 1  # times
    for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\end{tabular}"):
        assert answer.out.count(rule) == 2
    rows = [line for line in answer.out.splitlines() if line.endswith(r" \\")]
    assert {line.count(" & ") for line in rows} == {4, 6}
    assert not re.search(r"(?<!\\)[%&_#]", re.sub(r"^% .*$| & ", "", answer.out, flags=re.MULTILINE))
    assert answer.out.isascii()


def test_pairs_metrics_and_tag_choose(cli, run_folder):
    flags = ("--pairs", "spo:dpo,dpo:spo", "--metrics", "mini-clip", "--tag", "landscape", "--format", "json")
    found = printed(cli("compare", run_folder, *flags))
    names = ("candidate", "reference", "metric", "tag")
    assert [tuple(delta[name] for name in names) for delta in found["deltas"]] == [
        ("spo", "dpo", "mini-clip", "landscape"),
        ("dpo", "spo", "mini-clip", "landscape"),
    ]
    assert {(ratio["candidate"], ratio["reference"]) for ratio in found["ratios"]} == {("spo", "dpo"), ("dpo", "spo")}


def test_the_table_has_every_pair_metric_and_timing_in_80_columns(cli, run_folder, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    answer = cli("compare", run_folder)
    run = load_run(run_folder)
    assert (answer.code, answer.err) == (0, "")
    assert max(map(len, answer.out.splitlines())) <= 80
    for candidate, reference in variant_pairs(run.info.suite):
        assert f"{candidate} against {reference} (8 prompts, 16 pairs of images)" in answer.out
    rows = [line.split()[0] for line in answer.out.splitlines() if line]
    deltas = [delta for delta in compare_run(run) if delta.tag is None]
    ratios = timing_ratios(run, pairs=variant_pairs(run.info.suite))
    assert {delta.metric for delta in deltas} | {f"{ratio.name}*" for ratio in ratios} <= set(rows)
    assert rows.count("mini-clip") == 3


def test_the_table_says_what_the_numbers_are(cli, run_folder):
    (delta,) = (
        delta
        for delta in compare_run(load_run(run_folder), pairs=[("spo", "base")])
        if (delta.metric, delta.tag) == ("mini-preference", None)
    )
    out = cli("compare", run_folder, "--pairs", "spo:base").out.splitlines()
    (row,) = (line.split() for line in out if line.startswith("mini-preference"))
    assert float(row[1]) == pytest.approx(delta.reference_mean, abs=0.01)
    assert float(row[2]) == pytest.approx(delta.candidate_mean, abs=0.01)
    assert float(row[3]) == pytest.approx(delta.mean, abs=0.01)
    assert row[-4:] == [f"{round(100 * delta.win_rate)}", "%", "same", "data"]
    assert "Intervals of ratios: 95%, t over 2 rounds; few rounds make them wide." in out


def test_a_metric_that_only_describes_has_no_winner(cli, run_folder):
    out = cli("compare", run_folder, "--pairs", "spo:base").out.splitlines()
    assert not next(line for line in out if line.startswith("saturation")).rstrip().endswith("%")


def test_what_is_missing_is_counted(cli, tmp_path):
    prompts = [("spo", "case-001", 0), ("spo", "case-002", 1)]
    folder = write_run(make_run(tmp_path, prompts=4, failed=prompts), tmp_path)
    assert "2 pairs of images left out" in cli("compare", folder, "--pairs", "spo:base").out


@pytest.mark.parametrize("form", ["table", "csv", "markdown", "latex", "json"])
def test_nothing_to_compare_is_no_success(cli, tmp_path, form):
    folder = write_run(make_run(tmp_path, prompts=2, variants=("base",)), tmp_path)
    answer = cli("compare", folder, "--format", form)
    assert (answer.code, answer.out) == (5, "")
    assert f"There is nothing to compare: {folder} has one variant." in answer.err
    assert f"hotart-bench compare {folder} ANOTHER_RUN" in answer.err


@pytest.mark.parametrize("form", ["table", "csv", "json"])
def test_what_is_not_compared_is_named(cli, tmp_path, form):
    runs = {name: make_run(tmp_path / name, prompts=4, seed=seed) for seed, name in enumerate(("one", "two"))}
    bare = replace(runs["one"], scores=tuple(score for score in runs["one"].scores if score.variant != "spo"))
    one, two = (write_run(run, tmp_path / name) for name, run in (("one", bare), ("two", runs["two"])))
    said = "Not compared, since there are no scores on both sides: "
    assert f"{said}spo against base, spo against dpo." in cli("compare", one, "--format", form).err
    assert f"{said}spo." in cli("compare", one, two, "--format", form).err
    assert said not in cli("compare", two, "--format", form).err


@pytest.mark.parametrize("other", [False, True], ids=["within a run", "two runs"])
def test_runs_without_scores_have_nothing_to_compare(cli, tmp_path, other):
    folders = [write_run(make_run(tmp_path / f"{n}", prompts=2, seed=n), tmp_path / f"{n}") for n in range(1 + other)]
    for folder in folders:
        for journal in ("scores.jsonl", "timings.jsonl"):
            (folder / journal).unlink()
    answer = cli("compare", *folders)
    assert (answer.code, answer.out) == (5, "")
    assert "no scores or timings on both sides" in answer.err
    assert f"hotart-bench score {folders[0]}" in answer.err


def test_runs_of_other_protocols_are_refused_with_4(cli, tmp_path, run_folder):
    other = write_run(make_run(tmp_path, prompts=3), tmp_path)
    answer = cli("compare", run_folder, other)
    assert (answer.code, answer.out) == (4, "")


def test_a_newer_schema_is_refused_with_4(cli, tmp_path, run_folder):
    info = json.loads((run_folder / "run.json").read_text(encoding="utf-8"))
    (tmp_path / "run.json").write_bytes(msgspec.json.encode(info | {"schema": 99}))
    answer = cli("compare", tmp_path)
    assert (answer.code, answer.out) == (4, "")
    assert "99" in answer.err


def test_plots_lie_in_the_folder_of_the_flag(cli, tmp_path):
    folder = write_run(make_run(tmp_path / "mine", prompts=4), tmp_path / "mine")
    answer = cli("plot", folder, "-o", tmp_path / "figures", "--format", "svg")
    assert (answer.code, answer.err) == (0, "")
    files = answer.out.splitlines()
    assert sorted(files) == sorted(str(path) for path in (tmp_path / "figures").iterdir())
    assert all(file.endswith(".svg") for file in files)
    assert files


@pytest.mark.parametrize(
    ("second", "draws", "folder"),
    [(False, "write_plots", "plots"), (True, "write_plots_for_runs", "plots-against-old")],
)
def test_where_plots_lie_by_default(second, draws, folder, cli, run_folder, other_folder, monkeypatch):
    called_with = []

    def draw(*arguments):
        called_with.extend(arguments)
        return ()

    monkeypatch.setattr(bench.cli.plot, draws, create_autospec(getattr(bench.cli.plot, draws), side_effect=draw))
    runs = (run_folder / "run.json", other_folder) if second else (run_folder / "run.json",)
    answer = cli("plot", *runs, "--dpi", "300")
    assert (answer.code, answer.out) == (5, "")
    assert called_with[-3:] == [run_folder / folder, "png", 300]
    assert "nothing to draw" in answer.err
    assert "hotart-bench score" in answer.err
