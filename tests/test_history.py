"""Metrics over releases: what is a point, what is the same twice, what cannot be compared."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest
from fakes import make_run, with_facts, with_suite, write_run
from msgspec.structs import replace

from bench.baseline import freeze, write_baseline
from bench.errors import UsageError
from bench.history import History, read_history
from bench.plots.history import draw_history, write_history_plot
from bench.records import Acceptance, Run


def frozen(run: Run, path: Path, day: int, **acceptance: str) -> None:
    accepted = Acceptance(by="me", time=f"2026-01-{day:02d}T00:00:00+00:00", **acceptance)  # type: ignore[arg-type]
    hashes = {str(one.image): one.sha256 for one in run.renders}
    write_baseline(freeze(run, acceptance=accepted, hashes=hashes), path)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Three baselines, of which the last one was made first in time, and what is none."""
    for number, day in ((0, 3), (1, 5), (2, 1)):
        frozen(make_run("r", variants=("base", "spo"), seed=number), tmp_path / f"v{number}.json", day)
    (tmp_path / "notes.txt").write_text("not looked at")
    return tmp_path


def names(found: History) -> list[str]:
    return [one.name for one in found.releases]


def test_releases_stand_by_time_with_the_means_of_their_prompts(place: Path) -> None:
    found = read_history(place)
    assert names(found) == ["v2.json", "v0.json", "v1.json"]
    assert found.variants == ("base", "spo")
    assert found.notes == ()
    table = json.loads((place / "v1.json").read_text())
    spo = next(one for one in table["variants"] if one["fingerprint"]["name"] == "spo")
    column = spo["metrics"].index("mini-clip")
    values = [row[column] for row in spo["values"].values()]
    value = found.releases[2].values["spo", "mini-clip"]
    assert value.mean == pytest.approx(statistics.fmean(values))
    assert value.prompts == 12
    half = 2.200985160082949 * statistics.stdev(values) / 12**0.5  # Student's t of 11 degrees of freedom
    assert value.interval is not None
    assert value.interval.high - value.mean == pytest.approx(half)


def test_a_run_folder_is_a_release_and_one_that_was_frozen_is_not_twice(place: Path) -> None:
    write_run(make_run("r", variants=("base", "spo"), seed=2), place / "old-run")
    write_run(make_run("r", variants=("base", "spo"), seed=4), place / "new-run")
    found = read_history(place)
    assert sorted(names(found)) == ["new-run", "v0.json", "v1.json", "v2.json"]


def test_another_protocol_and_another_version_are_left_out_and_said(place: Path) -> None:
    plain = make_run("r", variants=("base", "spo"), seed=8)
    other = with_suite(plain, settings=replace(plain.info.suite.settings, steps=21))
    frozen(other, place / "other-steps.json", 2)
    newer = with_facts(make_run("r", variants=("base", "spo"), seed=9), "mini-clip", version="2")
    scores = (replace(one, version="2" if one.metric == "mini-clip" else "1") for one in newer.scores)
    newer = replace(newer, scores=tuple(scores))
    frozen(newer, place / "w.json", 9)
    found = read_history(place)
    assert "other-steps.json" not in names(found)
    assert any("other-steps.json" in note for note in found.notes)
    assert sum("another version of mini-clip" in note for note in found.notes) == 3
    assert ("spo", "mini-clip") not in found.releases[0].values
    assert ("spo", "mini-clip") in found.releases[-1].values


def test_a_damaged_file_and_one_of_another_kind_are_said(place: Path) -> None:
    (place / "x.json").write_text("{")
    (place / "y.json").write_text("{}")
    text = (place / "v0.json").read_text()
    (place / "v0.json").write_text(text.replace("0.", "1.", 1))
    notes = " ".join(read_history(place).notes)
    assert "x.json is left out" in notes
    assert "v0.json is left out" in notes
    assert "No baseline and no gate: y.json." in notes


def test_an_empty_folder_or_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no baseline and no run"):
        read_history(tmp_path)
    with pytest.raises(UsageError, match="no such folder"):
        read_history(tmp_path / "gone")


def test_an_unknown_metric_is_refused(place: Path) -> None:
    with pytest.raises(UsageError, match="has no values of 'mini-clap'"):
        read_history(place, ["mini-clap"])
    assert [facts.name for facts in read_history(place, ["contrast", "mini-clip"]).metrics] == ["contrast", "mini-clip"]


def test_the_plot_has_a_panel_a_metric_and_a_line_a_variant(place: Path, tmp_path: Path) -> None:
    found = read_history(place, ["mini-clip", "mini-aesthetic"])
    axes = [ax for ax in draw_history(found).axes if ax.get_visible()]
    assert [ax.get_title(loc="left") or ax.get_title() for ax in axes] == ["mini-clip", "mini-aesthetic"]
    for ax, metric in zip(axes, ("mini-clip", "mini-aesthetic"), strict=True):
        lines = {line.get_label(): list(line.get_ydata()) for line in ax.get_lines()}
        assert lines["spo"] == [one.values["spo", metric].mean for one in found.releases]
    path = write_history_plot(found, tmp_path / "out", "png", 60)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_the_verb_prints_a_table_a_variant(place: Path, cli) -> None:
    answer = cli("history", place, "--metrics", "mini-clip", "-o", place / "plots")
    assert answer.code == 0
    assert answer.out.splitlines()[0] == "base"
    assert answer.out.splitlines()[-1] == str(place / "plots" / "history.png")
    assert "v2.json" in answer.out
    table = json.loads(cli("history", place, "--json").out)
    assert [one["name"] for one in table["releases"]] == ["v2.json", "v0.json", "v1.json"]
