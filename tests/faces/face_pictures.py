"""Pictures with faces: a photograph, others made of it, and portraits of the embedded world with their true boxes."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bench.mini import draw, world

PHOTO = Path(__file__).with_name("astronaut.png")
"""The middle of NASA's portrait of Eileen Collins, in the public domain, out of scikit-image: 224 pixels a side."""
SIDE_PX = 1024


def photo() -> Image.Image:
    return Image.open(PHOTO).convert("RGB")


def photo_of(side_px: int) -> Image.Image:
    return photo().resize((side_px, side_px), Image.Resampling.BICUBIC)


def four_faces() -> Image.Image:
    """900 x 600 pixels with the face in three sizes, and once cut by the left edge and mirrored."""
    picture = Image.new("RGB", (900, 600), (90, 110, 120))
    face = photo().crop((48, 36, 188, 196))
    picture.paste(face, (60, 80))
    picture.paste(face.resize((70, 80), Image.Resampling.BILINEAR), (500, 300))
    picture.paste(face.resize((280, 320), Image.Resampling.BILINEAR), (600, 200))
    picture.paste(face.transpose(Image.Transpose.FLIP_LEFT_RIGHT), (-40, 400))
    return picture


def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8))


def scenes(count: int, seed: int = 0) -> world.Scenes:
    """Portraits without tilt, blur or grain, in any framing."""
    rng = np.random.default_rng(seed)
    return world.sample("portrait", count, rng, craft=np.ones((count, len(world.CRAFT_WEIGHTS)), np.float32))


@cache
def drawn(number: int) -> Image.Image:
    """One of eight scenes as the world's program draws it, at 1024 pixels a side instead of its 64."""
    every = scenes(8)
    parts = (part[number : number + 1] for part in (every.content, every.craft, every.nuisance))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(draw, "SIZE_PX", SIDE_PX)
        return Image.fromarray(draw.draw(world.Scenes(every.kind, *parts))[0].transpose(1, 2, 0))


def true_boxes(which: world.Scenes, side_px: int = SIDE_PX) -> torch.Tensor:
    """Left, top, right and bottom of the ellipse that is the face, (n, 4) in pixels, as ``draw`` places it."""
    content, craft, u = map(torch.from_numpy, (which.content, which.craft, which.nuisance))
    close, off = content[:, 5] == 0, 1 - craft[:, 0]
    side = torch.where(close, 0.235, 0.140) * (0.95 + 0.1 * u[:, 5])
    signs = [torch.where(u[:, at] < 0.5, -1.0, 1.0) for at in (1, 2, 3)]
    x = 0.5 + signs[1] * 0.14 + signs[2] * off * 0.20
    y = torch.where(close, 0.44, 0.34) + signs[0] * off * 0.11
    edges = (x - 0.78 * side, y - side, x + 0.78 * side, y + side)
    return side_px * torch.stack(edges, dim=1)


PICTURES = {
    "photo": photo,
    "photo 640": lambda: photo_of(640),
    "photo 1024": lambda: photo_of(1024),
    "four faces": four_faces,
    "grey": lambda: photo().convert("L"),
    "drawn": lambda: drawn(7),
    "noise": noise,
}
