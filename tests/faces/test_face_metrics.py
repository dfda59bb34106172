"""Metrics of faces on boxes that are given: by hand, and against scipy and Pillow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from face_pictures import photo
from PIL import Image
from scipy.ndimage import laplace

from bench.faces.metrics import face_count, face_found, face_sharpness, face_size
from bench.metrics import Inputs, Metric, NoScoreError
from bench.metrics.pixels import luma
from bench.records import Face, FacesAsked, FoundFaces

BOX = (68.0, 56.0, 156.0, 172.0)


def face(box: tuple[float, float, float, float]) -> Face:
    return Face(**dict(zip(("x1", "y1", "x2", "y2"), box, strict=True)), probability=0.99)


def found(*boxes: tuple[float, float, float, float], least: int = 1, most: int | None = 1) -> FoundFaces:
    return FoundFaces(
        variant="base",
        prompt_id="p",
        sample=0,
        image_sha256="0" * 64,
        detector="test",
        asked=FacesAsked(least=least, most=most),
        faces=tuple(map(face, boxes)),
    )


def value(metric: Metric, faces: FoundFaces, picture: Image.Image | None = None) -> float:
    pixels = torch.from_numpy(np.array(picture or photo())).permute(2, 0, 1)[None].float() / 255
    result = metric(Inputs(prompts=("a portrait",), pixels=pixels, faces=(faces,)))
    assert result.shape == (1,)
    assert result.dtype == torch.float32
    return float(result)


def test_a_face_is_found_or_not() -> None:
    assert value(face_found, found(BOX)) == 1.0
    assert value(face_found, found()) == 0.0


@pytest.mark.parametrize(
    ("count", "least", "most", "right"),
    [
        (1, 1, 1, 1.0),
        (0, 1, 1, 0.0),
        (2, 1, 1, 0.0),
        (1, 2, None, 0.0),
        (2, 2, None, 1.0),
        (7, 2, None, 1.0),
        (3, 3, 3, 1.0),
    ],
)
def test_the_count_is_right_where_it_is_one_that_the_prompt_asks_for(
    count: int, least: int, most: int | None, right: float
) -> None:
    assert value(face_count, found(*[BOX] * count, least=least, most=most)) == right


def test_size_is_the_side_of_the_largest_over_the_shorter_side() -> None:
    wide = Image.new("RGB", (400, 200))
    assert value(face_size, found((0, 0, 20, 20), (100, 50, 200, 90)), wide) == pytest.approx((100 * 40) ** 0.5 / 200)


def test_sharpness_is_the_variance_of_the_laplacian_at_112_pixels() -> None:
    levels = luma(torch.from_numpy(np.array(photo())).permute(2, 0, 1)[None].float())[0].numpy()
    crop = Image.fromarray(levels[55:173, 67:157].astype(np.float32))
    resized = np.asarray(crop.resize((112, 112), Image.Resampling.BILINEAR), dtype=np.float64)
    wanted = laplace(resized, mode="mirror").var()
    assert value(face_sharpness, found(BOX)) == pytest.approx(wanted, rel=1e-4)


def test_sharpness_hardly_grows_with_the_face_and_falls_with_blur() -> None:
    plain = value(face_sharpness, found(BOX))
    twice = photo().resize((448, 448), Image.Resampling.BICUBIC)
    doubled = value(face_sharpness, found(tuple(2 * end for end in BOX)), twice)  # type: ignore[arg-type]
    blurred = photo().resize((56, 56)).resize((224, 224), Image.Resampling.BICUBIC)
    assert doubled == pytest.approx(plain, rel=0.4)
    assert value(face_sharpness, found(BOX), blurred) < plain / 4


@pytest.mark.parametrize("metric", [face_size, face_sharpness])
def test_without_a_face_there_is_no_size_and_no_sharpness(metric: Metric) -> None:
    with pytest.raises(NoScoreError, match="no face was found"):
        value(metric, found())


@pytest.mark.parametrize("metric", [face_found, face_count, face_size, face_sharpness])
def test_a_metric_that_was_given_no_faces_says_so(metric: Metric) -> None:
    with pytest.raises(ValueError, match="needs_faces"):
        metric(Inputs(prompts=("a",), pixels=torch.zeros(1, 3, 128, 128)))
