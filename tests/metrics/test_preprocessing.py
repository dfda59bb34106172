"""The official preprocessings, against the libraries that the official codes call."""

from __future__ import annotations

import pytest
import torch
from clip_panel import CASES, draw
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv
from transformers import CLIPImageProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from bench.metrics.declare import NoScoreError
from bench.metrics.encoders import MEAN, STD, normalise, torchvision_crop, transformers_crop, whole_on_black

PICTURES = sorted({tuple(size_mode) for *size_mode, _ in CASES} | {(224, 224, "RGB"), (224, 100, "RGB")})
LEVEL = 1 / 255 / min(STD)
"""One 8-bit level, normalised."""


def openai_official(image: Image.Image) -> Tensor:
    return transforms.Compose(
        [
            transforms.Resize(224, interpolation=InterpolationMode.BICUBIC),
            transforms.CenterCrop(224),
            lambda cropped: cropped.convert("RGB"),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )(image)


def transformers_official(image: Image.Image) -> Tensor:
    return CLIPImageProcessorPil()(image.convert("RGB"), return_tensors="pt").pixel_values[0]


def hps_official(image: Image.Image) -> Tensor:
    """As HPSv2 resizes; it pads nothing where the longest side is 224 already, and then fails."""
    pixels = tv.to_tensor(image.convert("RGB"))
    scale = 224 / float(max(image.size))
    height, width = round(image.height * scale), round(image.width * scale)
    pixels = tv.resize(pixels, [height, width], InterpolationMode.BICUBIC, antialias=True)
    pad_h, pad_w = 224 - height, 224 - width
    pixels = tv.pad(pixels, [pad_w // 2, pad_h // 2, pad_w - pad_w // 2, pad_h - pad_h // 2], fill=0)
    return tv.normalize(pixels, MEAN, STD)


OFFICIAL = (
    (torchvision_crop, openai_official),
    (transformers_crop, transformers_official),
    (whole_on_black, hps_official),
)


@pytest.mark.parametrize("picture", PICTURES, ids=str)
@pytest.mark.parametrize(("ours", "official"), OFFICIAL, ids=lambda made: made.__name__)
def test_the_pixels_are_the_official_ones(ours, official, picture) -> None:
    image = draw(*picture)
    before = image.tobytes()
    found = ours(image, 224)
    torch.testing.assert_close(found, official(image), rtol=0, atol=1e-5)
    assert (found.shape, found.dtype, found.is_contiguous()) == ((3, 224, 224), torch.float32, True)
    assert image.tobytes() == before


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 400),
    st.integers(1, 400),
    st.sampled_from(["RGB", "RGBA", "L", "LA", "P", "CMYK", "1"]),
    st.integers(0, 2),
)
def test_the_pixels_are_the_official_ones_of_any_size(width: int, height: int, mode: str, which: int) -> None:
    ours, official = OFFICIAL[which]
    long, short = max(width, height), min(width, height)
    if which == 2 and round(short * 224 / long) == 0:
        return
    image = draw(width, height, mode)
    torch.testing.assert_close(ours(image, 224), official(image), rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(1024, 1024), (512, 512), (224, 224), (64, 64), (513, 385), (97, 61)])
def test_the_two_crops_give_the_same_pixels_where_the_margin_is_even(size: tuple[int, int]) -> None:
    image = draw(*size)
    assert torch.equal(torchvision_crop(image, 224), transformers_crop(image, 224))


def test_each_level_of_each_channel_is_normalised_bit_for_bit_as_torch_does() -> None:
    levels = torch.arange(256, dtype=torch.uint8).reshape(16, 16)
    image = Image.fromarray(torch.stack([levels, levels.flip(0), levels.T], dim=2).numpy())
    assert torch.equal(normalise(image), tv.normalize(tv.to_tensor(image), MEAN, STD))


def test_a_picture_in_two_preprocessings_is_resized_once(monkeypatch: pytest.MonkeyPatch) -> None:
    resized, resize = [], Image.Image.resize

    def counting(image: Image.Image, *args: object) -> Image.Image:
        resized.append(image)
        return resize(image, *args)

    monkeypatch.setattr(Image.Image, "resize", counting)
    first, second = draw(832, 1216).copy(), draw(832, 1216).copy()
    for image in (first, second):
        torchvision_crop(image, 224)
        transformers_crop(image, 224)
    assert [one is image for one, image in zip(resized, (first, second), strict=True)] == [True, True]
    torchvision_crop(second, 112)
    assert len(resized) == 3


@pytest.mark.parametrize("size", [(832, 1216), (1216, 832)])
def test_the_two_crops_differ_by_a_pixel_where_the_margin_is_odd(size: tuple[int, int]) -> None:
    image = draw(*size)
    nearest, down = torchvision_crop(image, 224), transformers_crop(image, 224)
    along = 2 if size[0] > size[1] else 1
    assert not torch.allclose(nearest, down, atol=LEVEL)
    assert torch.equal(nearest.narrow(along, 0, 223), down.narrow(along, 1, 223))


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_the_order_of_conversion_shows_where_there_is_alpha_or_a_palette(mode: str) -> None:
    image = draw(512, 512, mode)
    assert (torchvision_crop(image, 224) - transformers_crop(image, 224)).abs().max() > 10 * LEVEL


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_transformers_newer_processor_differs_by_rounding_alone(mode: str) -> None:
    image = draw(832, 1216, mode)
    newer = CLIPImageProcessor()(image, return_tensors="pt").pixel_values[0]
    difference = (transformers_crop(image, 224) - newer).abs()
    assert difference.max() < 2.5 * LEVEL
    assert (difference > 1e-5).float().mean() < 0.01


def test_without_antialiasing_the_pixels_would_be_others() -> None:
    pixels = tv.to_tensor(draw(1024, 1024))
    aliased = tv.normalize(tv.resize(pixels, [224, 224], InterpolationMode.BICUBIC, antialias=False), MEAN, STD)
    assert (whole_on_black(draw(1024, 1024), 224) - aliased).abs().max() > 10 * LEVEL


def test_a_picture_keeps_its_edges_and_stands_on_black() -> None:
    image = Image.new("RGB", (448, 224), "white")
    pixels = whole_on_black(image, 224)
    black = -torch.tensor(MEAN) / torch.tensor(STD)
    torch.testing.assert_close(pixels[:, 0, 0], black)
    torch.testing.assert_close(pixels[:, 223, 223], black)
    white = (1 - torch.tensor(MEAN)) / torch.tensor(STD)
    torch.testing.assert_close(pixels[:, 112, [0, 100, 223]], white[:, None].expand(3, 3))


@pytest.mark.parametrize(
    ("preprocessing", "size", "reason"),
    [
        (torchvision_crop, (20000, 3), "the image is 20000 x 3 pixels; with a short side of 224"),
        (transformers_crop, (3, 20000), "the image is 3 x 20000 pixels; with a short side of 224"),
        (whole_on_black, (20000, 3), "the image is 20000 x 3 pixels; its short side vanishes"),
    ],
)
def test_a_picture_too_long_to_judge_is_refused_with_its_size(preprocessing, size, reason: str) -> None:
    with pytest.raises(NoScoreError, match=reason):
        preprocessing(Image.new("RGB", size), 224)


@pytest.mark.parametrize(("preprocessing", "_official"), OFFICIAL, ids=lambda made: made.__name__)
def test_a_single_pixel_is_judged(preprocessing, _official) -> None:
    colour = torch.tensor([200, 100, 50]) / 255
    expected = ((colour - torch.tensor(MEAN)) / torch.tensor(STD))[:, None, None].expand(3, 224, 224)
    torch.testing.assert_close(
        preprocessing(Image.new("RGB", (1, 1), (200, 100, 50)), 224), expected, atol=1e-4, rtol=0
    )
