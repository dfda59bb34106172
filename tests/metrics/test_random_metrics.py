"""All seven metrics at once, from one folder of random weights as the figures write it."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType

import pytest
from clip_panel import draw, encoded
from fake_metrics import put_image, rendered
from official_imagereward import Layout
from official_layouts import SMALL_H14, SMALL_L14

from bench.metrics.catalogue import CATALOGUE
from bench.score import score
from bench.weights_lock import lock_path


@pytest.fixture
def panel(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of the figures, which is run from the repository's root."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    from tests.figures import random_metrics

    return random_metrics


def scored(place: Path, weights: Path, panel: ModuleType, metrics: tuple[str, ...]) -> dict[tuple[str, ...], float]:
    with panel.unpinned(weights), rendered(place, metrics=metrics, prompts=2, samples=1, variants=("base",)) as folder:
        for number, item in enumerate(folder.renders()):
            put_image(folder, (item.variant, item.prompt_id, item.sample), encoded(draw(96 + 40 * number, 128)))
        score(folder, metrics=metrics, weights_dir=weights, registry=panel.panel_of(tiny(panel)))
        assert all(item.value is not None for item in folder.scores())
        return {(item.metric, item.prompt_id): item.value for item in folder.scores()}


def tiny(panel: ModuleType) -> object:
    return panel.Sizes(SMALL_L14, SMALL_H14, Layout())


def test_the_panel_scores_from_them_as_each_metric_does_alone(panel: ModuleType, tmp_path: Path) -> None:
    weights, pinned, lock = tmp_path / "weights", dict(CATALOGUE), os.environ["HOTART_WEIGHTS_LOCK"]
    panel.write_weights(weights, tiny(panel))
    together = scored(tmp_path / "all", weights, panel, panel.PANEL)
    assert len(set(together.values())) == 2 * len(panel.PANEL) == 14
    alone = [scored(tmp_path / name, weights, panel, (name,)) for name in panel.PANEL]
    assert together == {cell: value for found in alone for cell, value in found.items()}
    assert (dict(CATALOGUE), os.environ["HOTART_WEIGHTS_LOCK"]) == (pinned, lock)
    assert str(weights) not in (lock_path().read_text("utf-8") if lock_path().exists() else "")


def test_the_published_sizes_are_those_of_the_encoders(panel: ModuleType) -> None:
    from bench.metrics.blip import VISION
    from bench.metrics.encoders import VIT_H14, VIT_L14

    sizes = panel.PUBLISHED_SIZES
    assert (sizes.l14, sizes.h14) == (VIT_L14, VIT_H14)
    assert sizes.reward.vision() == VISION
