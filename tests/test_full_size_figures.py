"""The figures of a full-size run, computed at a size that a CPU does in seconds: the code, not the numbers."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from figures import full_size

from bench.metrics import Place
from bench.run import run_stage
from bench.store import load_run


def test_every_figure_comes_out_at_a_small_size(monkeypatch) -> None:
    monkeypatch.setattr(full_size, "TURNS", 1)
    found = {figure.figure: figure for figure in full_size.figures(full_size.TINY)}
    assert list(found) == ["render_over_floor", "switch_s", "score_over_towers", "script_over_render"]
    for figure in found.values():
        assert 0 < figure.value < 1000
        assert figure.where == "cpu"


def test_the_script_gives_the_scores_of_the_panel(tmp_path) -> None:
    """One image at a time, padded by nobody: the same numbers as ``score``, but for rounding."""
    size = dataclasses.replace(full_size.TINY, prompts=1)
    with full_size.set_up(size, tmp_path) as bench_:
        path = bench_.place / "run"
        run_stage("render", bench_.suite, path, device="cpu")
        full_size.score_all(bench_, path, 0)
        run = load_run(bench_.place / "scored-0")
        images = {(item.variant, item.case, item.sample): item.image for item in run.renders}
        prompt = bench_.suite.cases[0].prompt
        place = Place("cpu", bench_.weights)
        for metric in bench_.registry.metrics.values():
            ours = [one for one in run.scores if one.metric == metric.facts.name]
            files = [(bench_.place / "scored-0" / images[one.variant, one.case, one.sample], prompt) for one in ours]
            tower = bench_.registry.towers[metric.facts.tower].load(place)
            head = None if metric.load_head is None else metric.load_head(place)
            assert full_size.call_each(metric, tower, head, files, "cpu") == pytest.approx(
                [one.value for one in ours], abs=2e-3
            )


def test_a_machine_without_cuda_is_told_so(capsys, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    full_size.main()
    assert capsys.readouterr().out.startswith("There is no CUDA device here")
