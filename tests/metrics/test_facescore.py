"""FaceScore on random weights in the published layout, against ImageReward's arithmetic written out."""

from __future__ import annotations

import io
from pathlib import Path

import msgspec
import pytest
import torch
from fake_metrics import of_metric, put_image, rendered
from official_imagereward import Layout, draw_weights, official_score, write_published, write_vocabulary
from PIL import Image
from test_imagereward import OfficialTokenizer, official_pixels

from bench.errors import WeightsError
from bench.faces.boxes import crop_of
from bench.faces.metrics import FaceScoreModel, facescore, facescore_model
from bench.metrics import LoadedRewardModel, Place, registry_of
from bench.metrics.catalogue import CATALOGUE
from bench.metrics.imagereward import REWARD_MEAN, REWARD_STD
from bench.score import score

SMALL = Layout()
WEIGHTS = draw_weights(SMALL)
PHOTO = Path(__file__).parents[1] / "faces" / "astronaut.png"


def write_files(folder: Path) -> None:
    """ImageReward's files under FaceScore's names."""
    write_published(folder, SMALL, WEIGHTS)
    (folder / "ImageReward.pt").rename(folder / "FS_model.pt")


def raw_score(ids: list[int], picture: Image.Image) -> float:
    """The reward before ImageReward standardises it."""
    return official_score(WEIGHTS, SMALL, ids, official_pixels(SMALL.image_px)(picture)) * REWARD_STD + REWARD_MEAN


def test_a_run_is_scored_by_the_crop_and_the_words_a_face(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    for name in facescore_model.weights:
        files = [msgspec.structs.replace(file, sha256=None, size_bytes=None) for file in CATALOGUE[name].files]
        monkeypatch.setitem(CATALOGUE, name, msgspec.structs.replace(CATALOGUE[name], files=tuple(files)))
        folder = tmp_path / "weights" / CATALOGUE[name].repository
        write_files(folder) if name == "facescore" else write_vocabulary(folder)
    ids = OfficialTokenizer(folder / "vocab.txt")("A face.")
    monkeypatch.setenv("HOTART_WEIGHTS_LOCK", str(tmp_path / "lock.json"))
    monkeypatch.setattr("bench.metrics.blip.VISION", SMALL.vision())
    picture = Image.open(PHOTO).convert("RGB")
    file = io.BytesIO()
    picture.save(file, "PNG")
    with rendered(tmp_path / "run", metrics=("facescore",), prompts=1, samples=1, variants=("base", "spo")) as run:
        put_image(run, ("base", "case-000", 0), file.getvalue())
        score(run, weights_dir=tmp_path / "weights", registry=registry_of(facescore, facescore_model))
        found, small = sorted(of_metric(run, "facescore"), key=lambda one: one.variant)
        (box,) = run.faces()[0].faces
    assert found.value == pytest.approx(raw_score(ids, picture.crop(crop_of(box, *picture.size))), abs=1e-5)
    assert abs(raw_score(ids, picture) - raw_score(ids, picture.crop(crop_of(box, *picture.size)))) > 1e-3
    assert found.prompt_cut is False
    assert (small.value, small.reason) == (None, "the image is 64 x 64 pixels; faces are looked for from 128 a side on")


def test_the_prompt_does_not_count(tmp_path: Path) -> None:
    write_files(tmp_path)
    model = FaceScoreModel(tmp_path, write_vocabulary(tmp_path), Place(), SMALL.vision())
    pixels = model.preprocess(Image.open(PHOTO)).expand(2, -1, -1, -1)
    one, other = model.score(pixels, ["a cat with birds", ""]).tolist()
    assert one == other
    assert model.truncated(["cat " * 500]) == [False]
    assert isinstance(model, LoadedRewardModel)


def test_another_file_in_its_place_is_refused_by_its_own_name(tmp_path: Path) -> None:
    write_files(tmp_path)
    torch.save({"a": torch.zeros(1)}, tmp_path / "FS_model.pt")
    with pytest.raises(WeightsError, match=r"FS_model\.pt: not the weights"):
        FaceScoreModel(tmp_path, write_vocabulary(tmp_path), Place(), SMALL.vision())
