"""The largest face, its side and its crop, against FaceScore's own crop written out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.faces.boxes import crop_of, largest, searched_size, side_px
from bench.metrics import NoScoreError
from bench.records import Face


def face(x1: float, y1: float, x2: float, y2: float) -> Face:
    return Face(x1=x1, y1=y1, x2=x2, y2=y2, probability=0.99)


def facescore_crop(picture: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    """As FaceScore's ``crop_face_image`` slices: from int(x1 - 1), int(x2 + 1) - int(x1 - 1) pixels wide."""
    x, y = int(box[0] - 1), int(box[1] - 1)
    width, height = int(box[2] + 1) - x, int(box[3] + 1) - y
    return picture[y : y + height, x : x + width]


@given(st.lists(st.floats(1, 99), min_size=4, max_size=4, unique=True))
def test_within_the_picture_the_crop_is_facescores(ends: list[float]) -> None:
    picture = np.arange(100 * 100).reshape(100, 100)
    (x1, x2), (y1, y2) = sorted(ends[:2]), sorted(ends[2:])
    left, top, right, bottom = crop_of(face(x1, y1, x2, y2), 100, 100)
    assert np.array_equal(picture[top:bottom, left:right], facescore_crop(picture, (x1, y1, x2, y2)))


@given(st.floats(0, 40), st.floats(0, 40), st.floats(1, 60), st.floats(1, 60))
def test_a_crop_is_never_empty_and_never_leaves_the_picture(x: float, y: float, width: float, height: float) -> None:
    left, top, right, bottom = crop_of(face(x, y, min(x + width, 50.0), min(y + height, 45.0)), 50, 45)
    assert 0 <= left < right <= 50
    assert 0 <= top < bottom <= 45


def test_at_the_left_edge_facescores_crop_is_empty_and_ours_is_not() -> None:
    picture = np.ones((50, 50))
    assert facescore_crop(picture, (0.0, 10.0, 20.0, 30.0)).size == 0
    assert crop_of(face(0.0, 10.0, 20.0, 30.0), 50, 50) == (0, 9, 21, 31)


def test_the_largest_is_by_area_and_its_side_that_of_the_equal_square() -> None:
    small, wide, high = face(0, 0, 20, 20), face(0, 0, 50, 10), face(30, 30, 40, 80)
    assert largest([small, wide, high]) == wide
    assert side_px(face(5, 5, 9, 14)) == pytest.approx(6.0)
    with pytest.raises(NoScoreError, match="no face was found"):
        largest([])


@pytest.mark.parametrize(
    ("size", "searched"),
    [((1024, 1024), (640, 640)), ((832, 1216), (438, 640)), ((512, 640), (512, 640)), ((128, 130), (128, 130))],
)
def test_a_picture_is_shrunk_to_640_and_never_enlarged(size: tuple[int, int], searched: tuple[int, int]) -> None:
    assert searched_size(*size) == searched
