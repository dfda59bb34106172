"""The faces that the page's large view marks: boxes, and how many the prompt asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.records import FacesAsked, FoundFaces, Run

NOTE = (
    "Of the prompts whose tags ask for faces. The detector was made on photographs: where it finds fewer faces, they "
    "may be there, painted or drawn. The large view of an image marks what was found. Size, sharpness and FaceScore "
    "are of the images with a face, their differences of the pairs in which both have one."
)
MAX_SHOWN = 50
"""Boxes of one image that the page holds, the largest first."""


def face_data(
    run: Run, rows: Sequence[tuple[str, int]], found: Sequence[FoundFaces]
) -> list[list[dict[str, Any] | None]]:
    """Of each row (prompt, sample) and each variant what was found in the image that is there; [] where nothing was.

    ``boxes`` are [left, top, right, bottom] in pixels, to a tenth, with the probability; ``count`` is of all of them.
    """
    images = {(one.variant, one.prompt_id, one.sample): one.sha256 for one in run.renders}
    current: Mapping[tuple[str, str, int], FoundFaces] = {
        key: one
        for one in found
        if images.get(key := (one.variant, one.prompt_id, one.sample)) == one.image_sha256 is not None
    }
    if not current:
        return []
    names = [variant.name for variant in run.info.suite.variants]
    table = [[current.get((name, *row)) for name in names] for row in rows]
    return [[None if one is None else _image_data(one) for one in line] for line in table]


def _image_data(found: FoundFaces) -> dict[str, Any]:
    return {
        "asked": asked_words(found.asked),
        "count": len(found.faces),
        "reason": found.reason,
        "boxes": [
            [*(round(edge, 1) for edge in (one.x1, one.y1, one.x2, one.y2)), round(one.probability, 3)]
            for one in found.faces[:MAX_SHOWN]
        ],
    }


def asked_words(asked: FacesAsked) -> str:
    """How many faces a prompt asks for: ``1``, ``2 or more``."""
    if asked.most == asked.least:
        return str(asked.least)
    return f"{asked.least} or more" if asked.most is None else f"{asked.least} to {asked.most}"
