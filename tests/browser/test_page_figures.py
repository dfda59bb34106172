"""``nox -s page`` on a small run: the painted run is a run, and every figure is measured."""

from __future__ import annotations

from pathlib import Path

import pytest
from figures import page as page_figures

from bench.score.images import read_picture
from bench.store import load_run


def test_what_is_painted_is_a_run_of_different_files(tmp_path: Path) -> None:
    page_figures.write_painted(page_figures.SHAPES["tiny"], tmp_path / "run")
    run = load_run(tmp_path / "run")
    assert len({one.sha256 for one in run.renders}) == len(run.renders) == 12
    assert all(read_picture(tmp_path / "run", one).size == (64, 64) for one in run.renders)


def test_every_figure_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blank_plots: None) -> None:
    monkeypatch.setattr(page_figures, "TURNS", 1)
    found = {one.figure: one for one in page_figures.figures_of("tiny", tmp_path)}
    for kind in ("page", "report"):
        assert 0 < found[f"{kind}_tiny_first_paint_s"].value < 30
        assert found[f"{kind}_tiny_elements"].value > 100
        assert found[f"{kind}_tiny_renderer_mib"].value > 20
    assert found["page_tiny_search_s"].goal == "< 0.2"
    assert found["report_tiny_search_s"].goal == "none"
