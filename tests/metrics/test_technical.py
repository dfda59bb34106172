"""Blur against scikit-image's own numbers, diversity against MS-SSIM written out with scipy."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from scipy import ndimage

from bench.metrics import Inputs, NoScoreError
from bench.metrics.pixels import blur, diversity, ms_ssim

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al. 2003, section 3.2


def inputs(*images: torch.Tensor) -> Inputs:
    """The first image as the one to judge, with its similarity to each of the others."""
    return Inputs(
        prompts=("a",) * len(images[0]),
        pixels=images[0],
        reference_pixels=None,
        image_embeds=None,
        text_embeds=None,
        logit_scale=1.0,
        head=None,
        pair_values=tuple(ms_ssim(images[0], other) for other in images[1:]),
    )


def drawn(width: int, height: int, radius: float = 0.0, seed: int = 1) -> torch.Tensor:
    """Discs and lines on blue, blurred by ``radius``: (1, 3, H, W)."""
    picture = Image.new("RGB", (width, height), (40, 90, 160))
    draw = ImageDraw.Draw(picture)
    for k in range(12):
        x, y = (k * 37 * seed) % width, (k * 53) % height
        draw.ellipse([x, y, x + width // 5, y + height // 7], fill=((k * 20) % 256, (k * 70) % 256, 255 - k * 15))
        draw.line([0, y, width, x % height], fill=(250, 250, 240), width=2)
    blurred = picture.filter(ImageFilter.GaussianBlur(radius))
    return torch.from_numpy(np.array(blurred)).permute(2, 0, 1)[None].float() / 255


def luma(image: torch.Tensor) -> NDArray[np.float64]:
    return np.tensordot(np.array([0.2126, 0.7152, 0.0722]), image[0].double().numpy(), axes=1)


def blur_by_scipy(grey: NDArray[np.float64]) -> float:
    """The definition with scipy's filters."""
    shares = []
    for axis in (0, 1):
        soft = ndimage.uniform_filter1d(grey, 11, axis=axis)
        edges = [np.abs(ndimage.sobel(one, axis=axis))[2:-1, 2:-1] for one in (grey, soft)]
        shares.append(1 - np.maximum(0, edges[0] - edges[1]).sum() / edges[0].sum())
    return float(max(shares))


@pytest.mark.parametrize(
    ("size", "radius", "by_scikit_image"),
    [  # skimage.measure.blur_effect of scikit-image 0.26.0 on the luma of these drawings
        ((97, 64), 0, 0.23458546937908945),
        ((64, 97), 1.5, 0.4556558976197976),
        ((11, 30), 4, 0.8686499524853797),
        ((200, 180), 4, 0.8780107951644123),
    ],
)
def test_blur_is_the_number_of_scikit_image(size: tuple[int, int], radius: float, by_scikit_image: float) -> None:
    assert float(blur(inputs(drawn(*size, radius)))) == pytest.approx(by_scikit_image, abs=1e-6)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), height=st.integers(11, 40), width=st.integers(11, 40))
def test_blur_is_the_definition_on_noise_of_any_size(seed: int, height: int, width: int) -> None:
    image = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))
    found = float(blur(inputs(image)))
    assert found == pytest.approx(blur_by_scipy(luma(image)), abs=1e-6)
    assert 0 <= found <= 1


def test_a_blurred_image_is_more_blurred_and_contrast_changes_nothing() -> None:
    levels = [float(blur(inputs(drawn(128, 128, radius)))) for radius in (0, 0.7, 1.5, 3)]
    assert levels == sorted(levels)
    assert levels[-1] - levels[0] > 0.4
    pale = 0.4 + 0.2 * drawn(128, 128, 1.5)
    assert float(blur(inputs(pale))) == pytest.approx(levels[2], abs=1e-5)


def test_edges_in_one_direction_alone_decide() -> None:
    stripes = (torch.arange(32) % 4 < 2).float().expand(1, 3, 24, 32).clone()
    both = [float(blur(inputs(one))) for one in (stripes, stripes.transpose(2, 3))]
    assert both[0] == pytest.approx(both[1])
    assert both[0] < 0.5


@pytest.mark.parametrize(("shape", "reason"), [((1, 1), "1 x 1"), ((10, 40), "40 x 10"), ((20, 20), "no edges")])
def test_what_has_no_blur_says_why(shape: tuple[int, int], reason: str) -> None:
    with pytest.raises(NoScoreError, match=reason):
        blur(inputs(torch.full((1, 3, *shape), 0.5)))


# --- diversity -----------------------------------------------------------------------------


def ms_ssim_by_scipy(one: torch.Tensor, other: torch.Tensor) -> float:
    """The paper's product over five scales, each averaged over the channels; the last one with mirrored borders."""
    terms = []
    a, b = one[0].double().numpy(), other[0].double().numpy()
    for scale in range(5):
        ssim, contrast = _terms(a, b)
        terms.append(ssim.mean() if scale == 4 else contrast[:, 5:-5, 5:-5].mean())
        a, b = _halved(a), _halved(b)
    means = np.maximum(np.stack(terms), 0)
    return float(np.prod(means ** np.array(WEIGHTS)))


def _terms(a: NDArray[np.float64], b: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    def window(x: NDArray[np.float64]) -> NDArray[np.float64]:
        kernel = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
        kernel /= kernel.sum()
        for axis in (1, 2):
            x = ndimage.correlate1d(x, kernel, axis=axis, mode="mirror")
        return x

    c1, c2 = 0.01**2, 0.03**2
    ma, mb = window(a), window(b)
    va, vb, cab = window(a * a) - ma**2, window(b * b) - mb**2, window(a * b) - ma * mb
    contrast = (2 * cab + c2) / (va + vb + c2)
    ssim = contrast * (2 * ma * mb + c1) / (ma**2 + mb**2 + c1)
    return ssim, contrast


def _halved(x: NDArray[np.float64]) -> NDArray[np.float64]:
    h, w = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    return x[:, :h, :w].reshape(3, h // 2, 2, w // 2, 2).mean(axis=(2, 4))


def test_diversity_is_one_minus_ms_ssim_to_the_other_samples() -> None:
    images = [drawn(192, 176, radius=1, seed=seed) for seed in (1, 2, 3)]
    pairs = {pair: 1 - ms_ssim_by_scipy(images[pair[0]], images[pair[1]]) for pair in combinations(range(3), 2)}
    found = [float(diversity(inputs(images[i], *(images[j] for j in range(3) if j != i)))) for i in range(3)]
    expected = [np.mean([value for pair, value in pairs.items() if i in pair]) for i in range(3)]
    assert found == pytest.approx(expected, abs=1e-4)
    assert np.mean(found) == pytest.approx(np.mean(list(pairs.values())), abs=1e-4)


def test_equal_samples_have_no_diversity_and_unlike_ones_much() -> None:
    one, other = drawn(180, 180, seed=1), drawn(180, 180, seed=5)
    assert float(diversity(inputs(one, one.clone()))) == pytest.approx(0, abs=1e-5)
    assert float(diversity(inputs(one, other))) > 0.3
    near = float(diversity(inputs(one, (one + 0.02).clamp(0, 1))))
    assert 0 < near < 0.05


@pytest.mark.parametrize(
    ("others", "reason"),
    [([], "no other sample"), ([(1, 3, 176, 200)], "differ in size"), ([(1, 3, 200, 200)], None)],
)
def test_a_prompt_without_comparable_samples_says_why(others: list[tuple[int, ...]], reason: str | None) -> None:
    own = torch.rand(1, 3, 200, 200)
    images = [torch.rand(shape) for shape in others]
    if reason is None:
        assert 0 < float(diversity(inputs(own, *images))) <= 1
        return
    with pytest.raises(NoScoreError, match=reason):
        diversity(inputs(own, *images))


@given(st.integers(0, 2**32), st.booleans())
@settings(max_examples=8, deadline=None)
def test_similarity_is_the_same_bits_in_either_order(seed: int, alike: bool) -> None:
    levels = np.random.default_rng(seed).integers(0, 256, (2, 180, 201, 3), dtype=np.uint8)
    one, other = (torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255 for pixels in levels)
    if alike:
        other = (one + 0.1 * other).clamp(0, 1)
    assert torch.equal(ms_ssim(one, other), ms_ssim(other, one))


def test_small_images_have_no_diversity_by_its_definition() -> None:
    with pytest.raises(NoScoreError, match="180 x 175 pixels; MS-SSIM needs 176 x 176"):
        diversity(inputs(torch.rand(1, 3, 175, 180), torch.rand(1, 3, 175, 180)))
