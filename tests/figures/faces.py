"""What finding faces costs: seconds of one core for a picture of 1024x1024 pixels, from its file to the boxes."""

from __future__ import annotations

import io
import time
from pathlib import Path

import torch
from PIL import Image

from bench.faces.detector import find_faces, load_cascade
from bench.score.images import decode

from .figure import Figure, figure_of

PHOTO = Path(__file__).parents[1] / "faces" / "astronaut.png"
SIDE_PX, TURNS = 1024, 9
FACES = (1, 4)
"""Faces on each of the pictures."""


def figure_faces() -> tuple[Figure, ...]:
    """Median over turns of the mean over two photographs, with one face and with four, after one that is not counted.

    Decoding the PNG, shrinking it to 640 pixels and the three networks; seconds in which the one thread had a core.
    """
    torch.set_num_threads(1)
    cascade, files = load_cascade(), [picture(faces) for faces in FACES]
    for file, faces in zip(files, FACES, strict=True):
        if len(find_faces(cascade, decode(file))) != faces:
            raise ValueError(f"not {faces} faces were found, where {faces} are")
    seconds = []
    for _ in range(TURNS):
        start = time.process_time()
        for file in files:
            find_faces(cascade, decode(file))
        seconds.append((time.process_time() - start) / len(files))
    return (figure_of("faces_s", seconds, "<=", 0.3),)


def picture(faces: int) -> bytes:
    """A PNG with the photograph once, or four times."""
    across = round(faces**0.5)
    photo = Image.open(PHOTO).convert("RGB").resize((SIDE_PX // across,) * 2, Image.Resampling.BICUBIC)
    whole, file = Image.new("RGB", (SIDE_PX, SIDE_PX)), io.BytesIO()
    for number in range(faces):
        whole.paste(photo, (photo.width * (number % across), photo.height * (number // across)))
    whole.save(file, "PNG")
    return file.getvalue()
