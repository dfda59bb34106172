"""The boxes of faces: which picture is searched, the largest face, its side and its crop. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bench.metrics.declare import NoScoreError
from bench.records import Face

DETECTOR = "mtcnn-1"
"""What finds the boxes, ``bench.faces.detector``; another number where they would differ. It is part of the version of
every metric that looks at them."""
SEARCHED_PX = 640
"""Longest side of the picture that is searched: a larger one is shrunk to it, a smaller one is taken as it is."""
SHORTEST_PX = 128
"""Shortest side of a picture that is searched."""
SMALLEST_FACE_PX = 30
"""Side of the smallest face that is looked for, in the shrunk picture: 48 pixels of 1024."""


def searched_size(width: int, height: int) -> tuple[int, int]:
    """Width and height in which a picture is searched.

    Raises:
        NoScoreError: a side is under 128 pixels, or no face would fit into the shrunk picture.
    """
    scale = min(1.0, SEARCHED_PX / max(width, height))
    size = (round(width * scale), round(height * scale))
    if min(width, height) < SHORTEST_PX:
        raise NoScoreError(f"the image is {width} x {height} pixels; faces are looked for from {SHORTEST_PX} a side on")
    if min(size) < SMALLEST_FACE_PX:
        raise NoScoreError(
            f"the image is {width} x {height} pixels, searched as {size[0]} x {size[1]}; no face of {SMALLEST_FACE_PX} "
            "pixels fits in"
        )
    return size


def largest(faces: Sequence[Face]) -> Face:
    """The face with the largest box.

    Raises:
        NoScoreError: there is none.
    """
    if not faces:
        raise NoScoreError("no face was found")
    return max(faces, key=side_px)


def side_px(face: Face) -> float:
    """Side of the square that is as large as the box, in pixels."""
    return math.sqrt((face.x2 - face.x1) * (face.y2 - face.y1))


def crop_of(face: Face, width: int, height: int) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the crop of a face in a picture of that size, as FaceScore takes it.

    A pixel more than the box on each side, rounded towards the left and the top. FaceScore's code takes nothing where
    a box begins outside the picture; here the crop ends at the picture's edge.
    """
    left, top = max(int(face.x1 - 1.0), 0), max(int(face.y1 - 1.0), 0)
    return left, top, min(int(face.x2 + 1.0), width), min(int(face.y2 + 1.0), height)
