"""Scoring a run folder: complete, only what is missing, each thing done once, and always the same bits."""

from __future__ import annotations

import csv
import math
import subprocess
import sys
import tempfile
import threading
import weakref
from pathlib import Path

import msgspec
import numpy as np
import pytest
from fake_metrics import (
    ALIGNMENT,
    ALL,
    OTHER_ALIGNMENT,
    ConvTower,
    FakeMetrics,
    Values,
    journal_lines,
    of_metric,
    put_image,
    rendered,
    values,
)
from fakes import make_run, png_bytes, write_run
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bench.errors import UsageError
from bench.metrics import Encoder, Metric, Place, registry_of
from bench.records import Render, Run
from bench.score import score
from bench.score.images import read_image
from bench.store import RunFolder, load_run

ROOT = Path(__file__).parents[1]
CELLS = 3 * 5 * 2


def test_every_cell_gets_one_score(tmp_path: Path) -> None:
    with rendered(tmp_path) as folder:
        assert score(folder, registry=FakeMetrics().registry) == CELLS * len(ALL)
        assert journal_lines(folder) == CELLS * len(ALL)
        found = values(folder)
        shas = {(r.variant, r.prompt_id, r.sample): r.sha256 for r in folder.renders()}
        assert {key[3] for key in found} == set(ALL)
        for item in folder.scores():
            assert item.image_sha256 == shas[item.variant, item.prompt_id, item.sample]
            assert item.version == "1"
            if item.metric == "ssim-to-base":
                assert item.reference_sha256 == shas["base", item.prompt_id, item.sample]
                assert (item.value is None) == (item.variant == "base")
                assert item.reason == ("is the reference" if item.variant == "base" else None)
            else:
                assert item.reference_sha256 is None
                assert item.reason is None
                assert item.value is not None
                assert math.isfinite(item.value)


def test_values_are_those_of_the_files_on_disk(tmp_path: Path) -> None:
    with rendered(tmp_path) as folder:
        score(folder, registry=FakeMetrics().registry)
        prompts = {prompt.id: prompt.text for prompt in load_run(tmp_path).info.suite.prompts}
        encoder = ConvTower(1, 1, [], [])
        for item in of_metric(folder, "alignment") + of_metric(folder, "saturation"):
            with Image.open(folder.image_path(item.variant, item.prompt_id, item.sample)) as image:
                if item.metric == "alignment":
                    alone = encoder.embed_images(encoder.preprocess(image)[None])
                    expected = 100 * float(alone @ encoder.embed_texts([prompts[item.prompt_id]]).T)
                else:
                    pixels = np.asarray(image, dtype=np.float64)
                    high, low = pixels.max(axis=2), pixels.min(axis=2)
                    expected = float(np.mean(np.where(high > 0, (high - low) / np.maximum(high, 1), 0)))
            assert item.value == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_the_table_is_written(tmp_path: Path) -> None:
    with rendered(tmp_path, metrics=("saturation", "ssim-to-base")) as folder:
        score(folder, registry=FakeMetrics().registry)
        rows = list(csv.DictReader((tmp_path / "scores.csv").read_text(encoding="utf-8").splitlines()))
    assert len(rows) == CELLS
    assert all(0 < float(row["saturation"]) < 1 for row in rows)
    assert [row["variant"] for row in rows if not row["ssim-to-base"]] == ["base"] * 10


def test_each_image_is_decoded_once_and_each_prompt_read_once_an_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declared, decoded = FakeMetrics(), list[str]()

    def reading(folder: Path, render: Render) -> Image.Image:
        decoded.append(str(render.image))
        return read_image(folder, render)

    monkeypatch.setattr("bench.score.decoded.read_image", reading)
    with rendered(tmp_path) as folder:
        score(folder, registry=declared.registry)
        images = sorted(str(item.image) for item in folder.renders())
        prompts = {prompt.text for prompt in load_run(tmp_path).info.suite.prompts}
    assert sorted(decoded) == images
    assert len(declared.images) == 2 * CELLS
    assert declared.loads == ["conv", "other"]
    assert set(declared.texts) == prompts
    assert len(declared.texts) == 8 + 6  # 5 prompts in two batches of 4, and in two of 3


def test_a_finished_folder_costs_nothing(tmp_path: Path) -> None:
    with rendered(tmp_path) as folder:
        score(folder, registry=FakeMetrics().registry)
        before, declared = folder.scores(), FakeMetrics()
        assert score(folder, registry=declared.registry) == 0
        assert folder.scores() == before
    assert (declared.loads, declared.images, declared.texts) == ([], [], [])


def test_a_finished_folder_imports_no_torch(tmp_path: Path) -> None:
    ours = ("bench.metrics.pixels", "bench.metrics.pixels")
    code = (
        "import sys; from bench.metrics.registry import build; from bench.score import score;"
        "from bench.store import RunFolder;"
        f"folder = RunFolder.reopen({str(tmp_path)!r});"
        f"print(score(folder, registry=build({ours!r}, ())), 'torch' in sys.modules)"
    )
    with rendered(tmp_path, metrics=("contrast", "ssim-to-base")) as folder:
        score(folder, registry=FakeMetrics().registry)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "False"]


def test_a_metric_is_added_without_touching_the_others(tmp_path: Path) -> None:
    with rendered(tmp_path, metrics=("saturation", "alignment")) as folder:
        score(folder, registry=FakeMetrics().registry)
        first, declared = values(folder), FakeMetrics()
        assert score(folder, metrics=["beauty"], registry=declared.registry) == CELLS
        assert {key: found for key, found in values(folder).items() if key[3] != "beauty"} == first
    assert declared.loads == ["conv"]
    assert declared.texts == []  # beauty reads no text


def test_a_new_version_scores_that_metric_anew(tmp_path: Path) -> None:
    facts = msgspec.structs.replace(ALIGNMENT.facts, version="2")
    newer = Metric(facts, lambda inputs: ALIGNMENT.compute(inputs) + 1)
    with rendered(tmp_path) as folder:
        declared = FakeMetrics()
        score(folder, registry=declared.registry)
        before = values(folder)
        rest = [found for name, found in declared.registry.metrics.items() if name != "alignment"]
        assert score(folder, registry=registry_of(newer, *declared.encoders, *rest)) == CELLS
        assert {item.version for item in of_metric(folder, "alignment")} == {"2"}
        for key, found in values(folder).items():
            if key[3] == "alignment":
                assert found == pytest.approx((before[key] or 0) + 1, abs=1e-4)
            else:
                assert found == before[key]


def test_an_image_rendered_anew_is_scored_anew_and_so_is_what_is_compared_with_it(tmp_path: Path) -> None:
    with rendered(tmp_path) as folder:
        score(folder, registry=FakeMetrics().registry)
        before = values(folder)
        put_image(folder, ("base", "case-001", 1), png_bytes("dpo", "another", 0, 7))
        # the base's 8 cells, and SSIM of the two variants that are compared with it
        assert score(folder, registry=FakeMetrics().registry) == len(ALL) + 2
        changed = {key for key, found in values(folder).items() if found != before[key]}
    assert {key[:3] for key in changed} == {(name, "case-001", 1) for name in ("base", "dpo", "spo")}
    assert {key[3] for key in changed if key[0] != "base"} == {"ssim-to-base"}


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Run, Values]:
    """A run scored with everything at once, and its values."""
    with rendered(tmp_path_factory.mktemp("whole")) as folder:
        score(folder, registry=FakeMetrics().registry)
        return load_run(folder.path), values(folder)


@given(data=st.data())
@settings(max_examples=12, deadline=None)
def test_a_score_is_bit_identical_alone_among_others_and_in_any_order(
    whole: tuple[Run, Values], data: st.DataObject
) -> None:
    run, expected = whole
    prompts = data.draw(st.permutations(run.info.suite.prompts))
    kept = data.draw(st.sets(st.sampled_from(run.renders), min_size=1))
    metrics = data.draw(st.lists(st.sampled_from(ALL), unique=True, min_size=1))
    suite = msgspec.structs.replace(run.info.suite, prompts=tuple(prompts), metrics=tuple(metrics))
    info = msgspec.structs.replace(run.info, suite=suite)
    part = msgspec.structs.replace(run, info=info, scores=(), renders=tuple(kept))
    with tempfile.TemporaryDirectory() as name, RunFolder.reopen(write_run(part, name)) as folder:
        score(folder, registry=FakeMetrics().registry)
        for item in folder.scores():
            if item.metric != "ssim-to-base" or item.value is not None:
                assert item.value == expected[item.variant, item.prompt_id, item.sample, item.metric]
        assert len(folder.scores()) == len(kept) * len(metrics)


def test_only_one_encoder_is_in_memory_at_a_time(tmp_path: Path) -> None:
    encoders: list[weakref.ref[ConvTower]] = []
    alive: list[int] = []

    def load(device: str) -> ConvTower:
        alive.append(sum(encoder() is not None for encoder in encoders))
        loaded = ConvTower(1, 4, [], [])
        encoders.append(weakref.ref(loaded))
        return loaded

    with rendered(tmp_path, metrics=("alignment", "other-alignment")) as folder:
        others = [Encoder(name, load) for name in ("conv", "other")]
        score(folder, registry=registry_of(ALIGNMENT, OTHER_ALIGNMENT, *others))
    assert alive == [0, 0]


def test_progress_counts_scores_up_to_the_total(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int, str]] = []
    with rendered(tmp_path, failed=[("dpo", "case-000", 0)]) as folder:
        score(folder, registry=FakeMetrics().registry, progress=lambda *told: seen.append(told))  # type: ignore[arg-type]
    assert [told[1] for told in seen] == sorted({told[1] for told in seen})
    assert {(told[0], told[2]) for told in seen} == {("score", CELLS * len(ALL))}
    assert seen[-1][1] == CELLS * len(ALL)
    assert list(dict.fromkeys(told[3] for told in seen)) == ["no image to score", "pixels", "conv", "other"]


@pytest.mark.parametrize("after", [1, 2, 5, 9])
def test_an_interrupted_run_keeps_its_batches_and_goes_on(tmp_path: Path, after: int) -> None:
    told: list[int] = []

    def interrupt(stage: str, done: int, total: int, note: str = "") -> None:
        told.append(done)
        if len(told) == after:
            raise KeyboardInterrupt

    with rendered(tmp_path / "undisturbed") as folder:
        score(folder, registry=FakeMetrics().registry)
        undisturbed = values(folder)
    with rendered(tmp_path / "stopped") as folder:
        with pytest.raises(KeyboardInterrupt):
            score(folder, registry=FakeMetrics().registry, progress=interrupt)
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]
        assert journal_lines(folder) == told[-1] < len(undisturbed)
        assert score(folder, registry=FakeMetrics().registry) == len(undisturbed) - told[-1]
        assert values(folder) == undisturbed


def test_an_unknown_metric_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with rendered(tmp_path) as folder:
        with pytest.raises(UsageError, match=r"no metric 'saturatoin'.*did you mean 'saturation'"):
            score(folder, metrics=["contrast", "saturatoin"], registry=FakeMetrics().registry)
        assert journal_lines(folder) == 0
    assert not (tmp_path / "scores.csv").exists()


def test_a_run_without_images_has_no_scores(tmp_path: Path) -> None:
    run = make_run(tmp_path, prompts=2)
    write_run(msgspec.structs.replace(run, renders=(), scores=()), tmp_path)
    with RunFolder.reopen(tmp_path) as folder:
        assert score(folder, metrics=["contrast"], registry=FakeMetrics().registry) == 0
        assert folder.scores() == ()


def test_towers_are_loaded_on_the_device_asked_for(tmp_path: Path) -> None:
    places: list[Place] = []

    def load(place: Place) -> ConvTower:
        places.append(place)
        return ConvTower(1, 4, [], [])

    with rendered(tmp_path, metrics=("alignment",), prompts=1) as folder:
        score(folder, device="cpu:0", weights_dir=tmp_path, registry=registry_of(ALIGNMENT, Encoder("conv", load)))
    assert places == [Place("cpu:0", tmp_path, "float32")]
