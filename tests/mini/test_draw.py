"""Drawing: the same bytes again, every attribute visible, and each quality moving what it is called after."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from scipy import ndimage

from bench.mini import draw, world

QUALITIES = tuple(world.CRAFT_WEIGHTS)
N = 48
Images = NDArray[np.float64]


def scenes(kind: str, n: int = N, seed: int = 0, **qualities: float) -> world.Scenes:
    """n scenes of perfect craft but for the named qualities; the same ones for the same seed."""
    craft = np.ones((n, 6), np.float32)
    for name, value in qualities.items():
        craft[:, QUALITIES.index(name)] = value
    return world.sample(kind, n, np.random.default_rng(seed), craft=craft)


def drawn(batch: world.Scenes) -> Images:
    return draw.draw(batch).astype(np.float64) / 255


def luma(images: Images) -> Images:
    return np.tensordot([0.2126, 0.7152, 0.0722], images, axes=(0, 1))


@pytest.mark.parametrize("kind", world.KINDS)
def test_same_scenes_give_the_same_bytes(kind: str) -> None:
    batch = world.sample(kind, 8, np.random.default_rng(1))
    first = draw.draw(batch)
    assert (first.shape, first.dtype) == ((8, 3, 64, 64), np.uint8)
    assert first.tobytes() == draw.draw(batch).tobytes()


@pytest.mark.parametrize("kind", world.KINDS)
def test_a_scene_does_not_depend_on_its_batch_mates(kind: str) -> None:
    batch = world.sample(kind, 6, np.random.default_rng(2))
    together = draw.draw(batch).astype(int)
    for row in range(6):
        part = slice(row, row + 1)
        alone = world.Scenes(kind, batch.content[part], batch.craft[part], batch.nuisance[part])
        assert np.abs(draw.draw(alone).astype(int) - together[part]).max() <= 1


@pytest.mark.parametrize("kind", world.KINDS)
def test_pictures_are_neither_blank_nor_alike(kind: str) -> None:
    images = drawn(world.sample(kind, N, np.random.default_rng(3)))
    assert images.std((1, 2, 3)).min() > 0.03
    assert 0.2 < images.mean() < 0.8
    assert len({image.tobytes() for image in images}) == N


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from(tuple(world.KINDS)),
    arrays.arrays(np.float32, (2, 6), elements=st.floats(0, 1, width=32)),
    arrays.arrays(np.float32, (2, 24), elements=st.floats(0, 1, width=32)),
    st.integers(0, 287),
)
def test_every_craft_and_nuisance_of_the_range_can_be_drawn(
    kind: str, craft: NDArray[np.float32], nuisance: NDArray[np.float32], row: int
) -> None:
    content = np.asarray([world.combinations(kind)[row]] * 2, np.int64)
    images = draw.draw(world.Scenes(kind, content, craft, nuisance))
    assert images.shape == (2, 3, 64, 64)
    assert images.std() > 0


# --- craft ---------------------------------------------------------------------------------


def laplacian_variance(images: Images) -> float:
    return float(np.mean([ndimage.laplace(image, mode="nearest").var() for image in luma(images)]))


def spread(images: Images) -> float:
    return float(images.std((1, 2, 3)).mean())


@pytest.mark.parametrize("kind", world.KINDS)
@pytest.mark.parametrize(("quality", "measure"), [("sharpness", laplacian_variance), ("contrast", spread)])
def test_quality_raises_its_measure_step_by_step(kind: str, quality: str, measure: Callable[[Images], float]) -> None:
    values = [measure(drawn(scenes(kind, **{quality: value}))) for value in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert values == sorted(values)
    assert values[-1] > 1.2 * values[0]


@pytest.mark.parametrize("kind", world.KINDS)
def test_contrast_scales_the_picture_about_its_mean(kind: str) -> None:
    """From half to 1.1 of the natural contrast, where nothing is clipped."""
    low, high = (drawn(scenes(kind, contrast=value)) for value in (0.0, 0.5))
    slope = [np.polyfit(a.ravel(), b.ravel(), 1)[0] for a, b in zip(low, high, strict=True)]
    assert np.median(slope) == pytest.approx(0.8 / 0.5, rel=0.03)


@pytest.mark.parametrize("kind", world.KINDS)
def test_noise_quality_takes_grain_away(kind: str) -> None:
    clean = drawn(scenes(kind, contrast=0.0))
    sigmas = []
    for value in (0.0, 0.5, 1.0):
        grain = drawn(scenes(kind, contrast=0.0, noise=value)) - clean
        sigmas.append(grain.std())
        assert abs(grain.mean()) < 0.002
        assert np.abs(grain - grain.mean(1, keepdims=True)).mean() < 0.004  # of luminance, but for 8 bits and clipping
    assert sigmas[0] == pytest.approx(0.032, rel=0.1)
    assert sigmas[1] == pytest.approx(0.016, rel=0.1)
    assert sigmas[2] == 0


@pytest.mark.parametrize("kind", world.KINDS)
def test_level_is_a_rotation_about_the_centre(kind: str) -> None:
    """Whole pictures turn by 14 degrees at level 0, to the side that the nuisance says, as scipy turns them."""
    level, tilted = (drawn(scenes(kind, level=value)) for value in (1.0, 0.0))
    batch = scenes(kind)
    y, x = np.mgrid[:64, :64] - 31.5
    inside = np.hypot(x, y) < 26
    closer = 0
    for row in range(N):
        degrees = -14.0 if batch.nuisance[row, 0] < 0.5 else 14.0
        errors = [
            np.abs(ndimage.rotate(level[row], angle, axes=(1, 2), reshape=False, order=1) - tilted[row])[:, inside]
            for angle in (degrees, -degrees, 0.0)
        ]
        closer += int(np.argmin([error.mean() for error in errors]) == 0)
    assert closer >= 0.9 * N


@pytest.mark.parametrize("kind", world.KINDS)
def test_harmony_takes_the_cast_away(kind: str) -> None:
    """A cast pulls the hue of every pixel to one: the spread of colour about grey's axis shrinks, the mean moves."""
    natural = drawn(scenes(kind))
    away = []
    for value in (0.0, 0.5, 1.0):
        images = drawn(scenes(kind, harmony=value))
        away.append(float(np.abs(images.mean((2, 3)) - natural.mean((2, 3))).mean()))
    assert away[0] > 1.5 * away[1] > 0.01
    assert away[2] == 0
    chroma = [images - images.mean(1, keepdims=True) for images in (drawn(scenes(kind, harmony=0.0)), natural)]
    assert chroma[0].std((2, 3)).mean() < 0.85 * chroma[1].std((2, 3)).mean()


def red_tents(n: int, composition: float) -> tuple[Images, world.Scenes]:
    """Red tents on dunes at noon, alone in their hue."""
    batch = scenes("landscape", n, composition=composition)
    content = np.tile(np.asarray([1, 1, 0, 0, 0], np.int64), (n, 1))
    same = world.Scenes("landscape", content, batch.craft, batch.nuisance)
    return drawn(same), same


def test_composition_brings_the_subject_to_the_thirds() -> None:
    places = []
    for composition in (0.0, 1.0):
        images, batch = red_tents(N, composition)
        red = (images[:, 0] > 0.5) & (images[:, 1] < 0.25) & (images[:, 2] < 0.25)
        assert red.any((1, 2)).all()
        x = (np.arange(64) + 0.5) / 64
        centre = (red.sum(1) * x).sum(1) / red.sum((1, 2))
        third = 0.5 - np.where(batch.nuisance[:, 2] < 0.5, -1, 1) / 6
        places.append(np.abs(centre - third))
    assert places[1].max() < 0.05
    assert places[0].mean() > 0.15


def test_composition_brings_the_horizon_to_one_height() -> None:
    rows = {}
    for composition in (0.0, 1.0):
        images, batch = red_tents(N, composition)
        jump = np.abs(np.diff(images, axis=2)).sum(1)[:, :, [2, 61]].mean(2)  # beside sun and tent
        rows[composition] = jump.argmax(1) / 64
        sign = np.where(batch.nuisance[:, 1] < 0.5, -1, 1)
    assert np.corrcoef(rows[0.0], sign)[0, 1] > 0.8
    assert rows[0.0].std() > 2 * rows[1.0].std()


# --- content -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", world.KINDS)
def test_every_value_of_every_attribute_changes_what_is_seen(kind: str) -> None:
    """Two scenes that differ in one attribute differ in a visible part of the picture, also at bad craft."""
    names = list(world.KINDS[kind])
    base = world.combinations(kind)[0]
    rng = np.random.default_rng(5)
    for craft in (1.0, 0.0):
        for place, values in enumerate(world.KINDS[kind].values()):
            changed = [(*base[:place], value, *base[place + 1 :]) for value in range(len(values))]
            nuisance = np.repeat(rng.random((1, 24), np.float32), len(changed), 0)
            qualities = np.full((len(changed), 6), craft, np.float32)
            images = drawn(world.Scenes(kind, np.asarray(changed, np.int64), qualities, nuisance))
            for one in range(len(changed)):
                for other in range(one):
                    seen = np.abs(images[one] - images[other]).max(0) > 0.04
                    assert seen.mean() > 0.01, (names[place], one, other, craft)


@pytest.mark.parametrize(
    ("kind", "attribute", "table", "pixels"),
    [
        ("landscape", "tent", draw.TENT, 25),
        ("portrait", "shirt", draw.SHIRT, 100),
        ("portrait", "hair", draw.HAIR, 25),
        ("portrait", "backdrop", draw.BACKDROP, 300),
    ],
)
def test_pixels_have_the_hue_that_the_caption_asks_for(
    kind: str, attribute: str, table: tuple[tuple[float, float, float], ...], pixels: int
) -> None:
    """With every other attribute kept, more pixels come nearer to the asked colour than with any other value."""
    place = list(world.KINDS[kind]).index(attribute)
    content = {"landscape": (1, 1, 0, 0, 0), "portrait": (1, 1, 2, 1, 0, 0)}[kind]
    rows = np.asarray([(*content[:place], value, *content[place + 1 :]) for value in range(4)], np.int64)
    nuisance = np.repeat(np.random.default_rng(6).random((1, 24), np.float32), 4, 0)
    images = drawn(world.Scenes(kind, rows, np.ones((4, 6), np.float32), nuisance))
    colours = np.asarray(table)[:, None, :, None, None]
    lights = np.asarray([1.0, 0.85, 0.7, 0.55])[:, None, None, None]  # sides in the shade, and the light's side
    distances = np.abs(images[None, :, None] - colours[:, :, None] * lights).max(3).min(2)
    near = (distances < 0.08).sum((2, 3))  # (asked colour, picture)
    for value in range(4):
        own, others = near[value, value], np.delete(near[value], value)
        assert own >= others.max() + pixels, (value, near)


def test_tables_have_a_colour_for_every_value() -> None:
    counts = {
        "time": (draw.SKY_TOP, draw.SKY_LOW, draw.LIGHT, draw.SUN, draw.FOG),
        "terrain": (draw.FAR, draw.GROUND),
        "tent": (draw.TENT,),
    }
    for name, tables in counts.items():
        assert {len(table) for table in tables} == {len(world.LANDSCAPE[name])}
    for name, table in (("hair", draw.HAIR), ("shirt", draw.SHIRT), ("backdrop", draw.BACKDROP)):
        assert len(table) == len(world.PORTRAIT[name])
    assert math.degrees(draw.TILT_MAX_RAD) == pytest.approx(14)
