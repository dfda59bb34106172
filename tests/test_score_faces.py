"""Faces in the engine: looked for once an image, kept, current, and the cause of nulls with their reasons."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from fake_metrics import FakeMetrics, facts, journal_lines, nulls, of_metric, put_image, rendered
from PIL import Image

from bench.errors import UsageError, WeightsError
from bench.faces import detector
from bench.faces.asked import NOT_ASKED
from bench.faces.boxes import DETECTOR, crop_of
from bench.faces.metrics import face_count, face_found, face_size
from bench.frames import load_run as load_frames
from bench.metrics import Encoder, Inputs, Metric, metric
from bench.metrics.pixels import saturation
from bench.metrics.registry import installed
from bench.records import FacesAsked
from bench.score import faces, missing_scores, score
from bench.steps.plan import step_metrics_of
from bench.store import RunFolder, load_faces

PHOTO = Path(__file__).with_name("faces") / "astronaut.png"
PORTRAIT, LANDSCAPE, OLD_MAN = "case-000", "case-001", "case-002"
"""Prompts of the fake run: tagged portrait, landscape and portrait."""
NAMES = ("face-found", "face-size", "saturation")


class MeanOfCrop:
    """A reward model of a test: the mean level of what it sees, and how large that was."""

    batch = 4

    def __init__(self) -> None:
        self.sizes: list[tuple[int, int]] = []

    def preprocess(self, image: Image.Image, preprocessing: str = "") -> torch.Tensor:
        self.sizes.append(image.size)
        return torch.full((3, 2, 2), float(np.asarray(image, dtype=np.float64).mean()))

    def score(self, pixels: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        assert len(pixels) == len(prompts) == self.batch
        return pixels.mean(dim=(1, 2, 3))

    def truncated(self, prompts: Sequence[str]) -> list[bool]:
        return [False] * len(prompts)


def _reward(inputs: Inputs) -> torch.Tensor:
    assert inputs.reward is not None
    return inputs.reward


CROP = metric(facts("crop-level", "mean"), needs_faces=True)(_reward)
WHOLE = metric(facts("image-level", "mean"))(_reward)


def png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def photo_png(red: int) -> bytes:
    """The photograph with one pixel of its own, so that no two images are duplicates."""
    picture = Image.open(PHOTO).convert("RGB")
    picture.putpixel((0, 0), (red, 0, 0))
    return png(picture)


@pytest.fixture
def model() -> MeanOfCrop:
    return MeanOfCrop()


@pytest.fixture
def registry(model: MeanOfCrop):
    found: tuple[Metric | Encoder, ...] = (face_found, face_count, face_size, CROP, WHOLE)
    return FakeMetrics(*found, Encoder("mean", lambda place: model)).registry


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[RunFolder]:
    """Three prompts, two variants: a face in both images of the portrait, one in one of the old man's two."""
    with rendered(tmp_path / "run", metrics=NAMES, prompts=3, samples=1, variants=("base", "spo")) as run:
        put_image(run, ("base", PORTRAIT, 0), photo_png(1))
        put_image(run, ("spo", PORTRAIT, 0), photo_png(2))
        put_image(run, ("base", OLD_MAN, 0), photo_png(3))
        put_image(run, ("spo", OLD_MAN, 0), png(Image.radial_gradient("L").convert("RGB")))
        yield run


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The sizes of the pictures that were searched."""
    seen: list[tuple[int, int]] = []

    def noted(cascade: detector.Cascade, image: Image.Image):
        seen.append(image.size)
        return detector.find_faces(cascade, image)

    monkeypatch.setattr(faces, "find_faces", noted)
    return seen


def scored(folder: RunFolder, name: str) -> dict[tuple[str, str], float | None]:
    return {(one.variant, one.prompt_id): one.value for one in of_metric(folder, name)}


def with_tags(folder: RunFolder, prompt_id: str, *tags: str) -> None:
    info = folder.run().info
    prompts = tuple(
        msgspec.structs.replace(prompt, tags=tags) if prompt.id == prompt_id else prompt
        for prompt in info.suite.prompts
    )
    folder.write_info(msgspec.structs.replace(info, suite=msgspec.structs.replace(info.suite, prompts=prompts)))


# --- once an image ---------------------------------------------------------------------------


def test_faces_are_looked_for_once_an_image_for_all_metrics_and_kept(folder, registry, searches) -> None:
    score(folder, metrics=("face-found", "face-size", "face-count", "crop-level"), registry=registry)
    assert searches == [(224, 224), (224, 224), (224, 224), (256, 256)]
    kept = {(one.variant, one.prompt_id): one for one in load_faces(folder.path)}
    assert {key: len(one.faces) for key, one in kept.items()} == {
        ("base", PORTRAIT): 1,
        ("spo", PORTRAIT): 1,
        ("base", OLD_MAN): 1,
        ("spo", OLD_MAN): 0,
    }
    assert {one.asked for one in kept.values()} == {FacesAsked(least=1, most=1)}
    assert scored(folder, "face-found") == {
        ("base", PORTRAIT): 1.0,
        ("spo", PORTRAIT): 1.0,
        ("base", OLD_MAN): 1.0,
        ("spo", OLD_MAN): 0.0,
        ("base", LANDSCAPE): None,
        ("spo", LANDSCAPE): None,
    }


def test_a_later_metric_finds_the_faces_in_the_folder(folder, registry, searches) -> None:
    score(folder, metrics=("face-found",), registry=registry)
    searches.clear()
    score(folder, metrics=("face-size", "crop-level"), registry=registry)
    assert searches == []
    assert all(value == pytest.approx(0.46, abs=0.03) for value in scored(folder, "face-size").values() if value)


def test_nothing_is_done_twice_and_nothing_is_left(folder, registry, searches) -> None:
    score(folder, metrics=NAMES, registry=registry)
    lines, found = journal_lines(folder), len(searches)
    assert missing_scores(folder, NAMES, registry=registry) == 0
    assert score(folder, metrics=NAMES, registry=registry) == 0
    assert (journal_lines(folder), len(searches)) == (lines, found)


def test_an_encoder_sees_the_crop_of_the_largest_face_and_beside_it_the_whole_image(folder, registry, model) -> None:
    score(folder, metrics=("crop-level", "image-level"), registry=registry)
    for one in load_faces(folder.path):
        if one.faces:
            picture = Image.open(folder.path / f"images/{one.variant}/{one.prompt_id}-0.png").convert("RGB")
            box = crop_of(one.faces[0], *picture.size)
            level = float(np.asarray(picture.crop(box), dtype=np.float64).mean())
            whole = float(np.asarray(picture, dtype=np.float64).mean())
            assert scored(folder, "crop-level")[one.variant, one.prompt_id] == pytest.approx(level, rel=1e-6)
            assert scored(folder, "image-level")[one.variant, one.prompt_id] == pytest.approx(whole, rel=1e-6)
    assert (224, 224) in model.sizes
    assert min(model.sizes) < (110, 140)


# --- nulls -----------------------------------------------------------------------------------


def test_a_prompt_that_asks_for_no_face_and_an_image_without_one_are_nulls_with_their_reasons(folder, registry) -> None:
    score(folder, metrics=("face-size", "crop-level"), registry=registry)
    for name in ("face-size", "crop-level"):
        assert nulls(folder, name) == {
            ("base", LANDSCAPE, 0): NOT_ASKED,
            ("spo", LANDSCAPE, 0): NOT_ASKED,
            ("spo", OLD_MAN, 0): "no face was found",
        }


def test_a_small_image_is_a_null_never_0(tmp_path: Path, registry, searches) -> None:
    with rendered(tmp_path / "run", metrics=NAMES, prompts=1, samples=1, variants=("base", "spo")) as run:
        score(run, metrics=("face-found", "crop-level"), registry=registry)
        reason = "the image is 64 x 64 pixels; faces are looked for from 128 a side on"
        for name in ("face-found", "crop-level"):
            assert set(nulls(run, name).values()) == {reason}
        assert missing_scores(run, ("face-found", "crop-level"), registry=registry) == 0


def test_an_image_that_cannot_be_read_is_tried_again(folder, registry, searches) -> None:
    path = folder.path / f"images/base/{PORTRAIT}-0.png"
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    score(folder, metrics=("face-found", "crop-level"), registry=registry)
    for name in ("face-found", "crop-level"):
        assert "changed since it was rendered" in str(nulls(folder, name)["base", PORTRAIT, 0])
    path.write_bytes(whole)
    searches.clear()
    assert score(folder, metrics=("face-found", "crop-level"), registry=registry) == 2
    assert searches == [(224, 224)]


# --- what is current -------------------------------------------------------------------------


def test_an_image_rendered_anew_is_searched_anew(folder, registry, searches) -> None:
    score(folder, metrics=("face-found",), registry=registry)
    searches.clear()
    put_image(folder, ("spo", OLD_MAN, 0), photo_png(9))
    assert score(folder, metrics=("face-found",), registry=registry) == 1
    assert len(searches) == 1
    assert scored(folder, "face-found")["spo", OLD_MAN] == 1.0


def test_a_frame_has_a_row_an_image_that_was_searched(folder, registry) -> None:
    score(folder, metrics=("face-found",), registry=registry)
    frame = load_frames(folder.path).faces
    found = load_faces(folder.path)
    assert [(*one,) for one in frame[["variant", "prompt_id", "sample"]].itertuples(index=False)] == [
        (one.variant, one.prompt_id, one.sample) for one in found
    ]
    assert frame["count"].tolist() == [len(one.faces) for one in found]
    assert sorted(frame["count"]) == [0, 1, 1, 1]
    assert frame["faces"].tolist() == [one.faces for one in found]
    assert (frame["least"] == 1).all()
    assert len(frame.explode("faces").dropna(subset="faces")) == 3


def test_the_detector_is_part_of_the_version_of_what_looks_at_faces() -> None:
    looking = [one for one in installed().metrics.values() if one.needs_faces]
    assert len(looking) == 5
    assert all(DETECTOR in one.facts.version for one in looking)


def test_other_tags_ask_for_other_faces(folder, registry) -> None:
    score(folder, metrics=("face-count",), registry=registry)
    assert scored(folder, "face-count")["base", PORTRAIT] == 1.0
    with_tags(folder, PORTRAIT, "group")
    with_tags(folder, OLD_MAN, "landscape")
    score(folder, metrics=("face-count",), registry=registry)
    assert scored(folder, "face-count")["base", PORTRAIT] == 0.0
    assert nulls(folder, "face-count")["base", OLD_MAN, 0] == NOT_ASKED
    with_tags(folder, OLD_MAN, "person")
    score(folder, metrics=("face-count",), registry=registry)
    assert scored(folder, "face-count")["base", OLD_MAN] == 1.0


def test_the_faces_of_a_variant_go_with_it(folder, registry) -> None:
    score(folder, metrics=("face-found",), registry=registry)
    folder.drop_variant("spo")
    assert {one.variant for one in folder.faces()} == {"base"}


# --- weights, and where faces are not looked for ---------------------------------------------


def test_a_damaged_detector_costs_the_metrics_of_faces_and_no_other(folder, registry, tmp_path, monkeypatch) -> None:
    damaged = tmp_path / "mtcnn.safetensors"
    shutil.copy(detector.WEIGHTS, damaged)
    with damaged.open("r+b") as file:
        file.truncate(1000)
    monkeypatch.setattr(faces, "load_cascade", lambda: detector.load_cascade(damaged))
    with pytest.raises(WeightsError, match="is damaged"):
        score(folder, metrics=("face-found", "saturation", "crop-level"), registry=registry)
    assert len(of_metric(folder, "saturation")) == 6
    monkeypatch.undo()
    score(folder, metrics=("face-found", "saturation", "crop-level"), registry=registry)
    assert len(of_metric(folder, "face-found")) == len(of_metric(folder, "crop-level")) == 6


def test_faces_go_with_neither_references_nor_other_samples_nor_steps(registry) -> None:
    for needs in ({"needs_reference": True}, {"needs_other_samples": True}):
        with pytest.raises(UsageError, match="needs_faces goes with neither"):
            metric(facts("x"), needs_faces=True, **needs)
    with pytest.raises(UsageError, match="face-found looks at faces, which are found in finished images only"):
        step_metrics_of(["face-found"], registry, None)


def test_without_metrics_of_faces_none_is_looked_for(folder, registry, searches) -> None:
    score(folder, metrics=("saturation", "image-level"), registry=registry)
    assert searches == []
    assert not (folder.path / "faces.jsonl").exists()
    assert saturation.needs_faces is False
