"""Metrics of the pixels alone: statistics, technical quality, distance to the reference; no weights, no download."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.metrics.declare import Inputs, NoScoreError, metric
from bench.records import Category, MetricFacts

if TYPE_CHECKING:
    import torch

# Statistics of the pixels: they say how an image is, not whether it is good.

LAPLACIAN_BOUND = (4.0 * 255.0) ** 2
"""Largest variance of the 4-neighbour Laplacian of 8-bit luma: a black and white checkerboard's."""


def pixel_facts(
    name: str,
    summary: str,
    unit: str,
    high: float,
    reference: str,
    *,
    low: float = 0.0,
    higher_is_better: bool | None = None,
    category: Category = "pixels",
) -> MetricFacts:
    """The facts that metrics of the pixels share, with those that they do not."""
    return MetricFacts(
        name=name,
        version="1",
        summary=summary,
        unit=unit,
        higher_is_better=higher_is_better,
        low=low,
        high=high,
        category=category,
        encoder=None,
        trained_on=(),
        training_data="nothing",
        licence="Apache-2.0",
        reference=reference,
    )


def luma(pixels: torch.Tensor) -> torch.Tensor:
    """Rec. 709 luma Y' = 0.2126 R' + 0.7152 G' + 0.0722 B' of (n, 3, H, W), as (n, H, W) in [0, 1].

    R', G', B' are the gamma-encoded channels as saved. Source: ITU-R BT.709-6, item 3.2.
    """
    red, green, blue = pixels.unbind(dim=1)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@metric(
    pixel_facts(
        "saturation",
        "Mean HSV saturation of the pixels: 0 for a grey image, 1 for pure colours.",
        "share",
        1.0,
        "A. R. Smith, Color gamut transform pairs, SIGGRAPH 1978, doi:10.1145/800248.807361",
    )
)
def saturation(inputs: Inputs) -> torch.Tensor:
    """Mean HSV saturation: the mean over pixels of (max - min) / max of R', G', B', 0 where max is 0.

    (n, 3, H, W) -> (n,) float32 in [0, 1].
    """
    high, low = inputs.pixels.amax(dim=1), inputs.pixels.amin(dim=1)
    return ((high - low) / high.clamp_min(1e-6)).mean(dim=(1, 2))


@metric(
    pixel_facts(
        "contrast",
        "RMS contrast: standard deviation of Rec. 709 luma in [0, 1].",
        "luma",
        0.5,
        "E. Peli, Contrast in complex images, JOSA A 7(10), 1990, doi:10.1364/JOSAA.7.002032",
    )
)
def contrast(inputs: Inputs) -> torch.Tensor:
    """RMS contrast: sqrt(mean((Y' - mean(Y'))^2)) over the pixels, Y' the Rec. 709 luma in [0, 1].

    (n, 3, H, W) -> (n,) float32 in [0, 0.5].
    """
    return luma(inputs.pixels).std(dim=(1, 2), correction=0)


@metric(
    pixel_facts(
        "sharpness",
        "Variance of the 4-neighbour Laplacian of 8-bit Rec. 709 luma; noise raises it as detail does.",
        "squared 8-bit level",
        LAPLACIAN_BOUND,
        "J. L. Pech-Pacheco et al., Diatom autofocusing in brightfield microscopy, ICPR 2000, "
        "doi:10.1109/ICPR.2000.903548",
    )
)
def sharpness(inputs: Inputs) -> torch.Tensor:
    """Variance of the Laplacian: var(L * 255 Y') over the pixels, Y' the Rec. 709 luma in [0, 1].

    L is the kernel [[0, 1, 0], [1, -4, 1], [0, 1, 0]]; beyond the border the image is mirrored without
    repeating its edge (OpenCV's ``BORDER_REFLECT_101``, so ``cv2.Laplacian(luma, CV_64F).var()`` is this
    number). (n, 3, H, W) with H, W >= 2 -> (n,) float32 in [0, 1020^2], in squared 8-bit levels.
    """
    return laplacian_variance(255.0 * luma(inputs.pixels))


def laplacian_variance(levels: torch.Tensor) -> torch.Tensor:
    """Variance of the Laplacian, as ``sharpness`` defines it, of grey levels (n, H, W) -> (n,)."""
    from torch.nn.functional import pad

    level = pad(levels.unsqueeze(1), (1, 1, 1, 1), mode="reflect").squeeze(1)
    neighbours = level[:, :-2, 1:-1] + level[:, 2:, 1:-1] + level[:, 1:-1, :-2] + level[:, 1:-1, 2:]
    return (neighbours - 4.0 * level[:, 1:-1, 1:-1]).var(dim=(1, 2), correction=0)


@metric(
    pixel_facts(
        "clipped",
        "Share of the pixels with a channel at its end, 0 or 255: lost shadows, highlights or colours.",
        "share",
        1.0,
        "this project; the count that a camera's clipping warning shows",
    )
)
def clipped(inputs: Inputs) -> torch.Tensor:
    """Clipped share: the share of the pixels with any of R', G', B' at exactly 0 or 1 (0 or 255 as saved).

    (n, 3, H, W) -> (n,) float32 in [0, 1].
    """
    at_end = (inputs.pixels <= 0.0) | (inputs.pixels >= 1.0)
    return at_end.any(dim=1).float().mean(dim=(1, 2))


# Technical quality without a reference, and how much the samples of a prompt differ; no weights, no download.

BLUR_WIDTH = 11
"""Pixels of the box filter that the image is blurred with again."""
FLAT = 1e-12
"""Sum of absolute differences, in luma, up to which a direction has no edges."""
MS_SSIM_SIDE = 176
"""Shortest side in pixels that MS-SSIM takes: halved four times it must still hold the window of 11 pixels."""


@metric(
    pixel_facts(
        "blur",
        "No-reference perceptual blur: how little a second blur changes; 0 crisp, 1 without an edge left.",
        "share",
        1.0,
        "F. Crete et al., The blur effect: perception and estimation with a new no-reference perceptual blur "
        "metric, SPIE 6492, 2007, doi:10.1117/12.702790; as scikit-image's measure.blur_effect defines it",
        higher_is_better=False,
    )
)
def blur(inputs: Inputs) -> torch.Tensor:
    """Perceptual blur: the larger, of both directions, of 1 - sum(max(0, |S y| - |S b|)) / sum(|S y|).

    y is the Rec. 709 luma, b = y under a box of 11 pixels along the direction (the border mirrored with its edge
    repeated), S the Sobel operator along it; sums leave out the first two and the last row and column. A direction
    without an edge is left out. (n, 3, H, W) in [0, 1] -> (n,) float32 in [0, 1].

    Raises:
        NoScoreError: a side shorter than the box, or an image without an edge.
    """
    import torch

    if min(inputs.pixels.shape[-2:]) < BLUR_WIDTH:
        height, width = inputs.pixels.shape[-2:]
        raise NoScoreError(f"the image is {width} x {height} pixels; its blur needs {BLUR_WIDTH} x {BLUR_WIDTH}")
    levels = luma(inputs.pixels.double())
    shares = [_blur_along(one, down) for one in levels for down in (False, True)]
    pairs = [[share for share in shares[at : at + 2] if share is not None] for at in range(0, len(shares), 2)]
    if not all(pairs):
        raise NoScoreError("the image has no edges, so it is neither crisp nor blurred")
    return torch.tensor([max(pair) for pair in pairs], dtype=torch.float32)


def _blur_along(level: torch.Tensor, down: bool) -> float | None:
    """The blur of an image (H, W) along its rows, or down its columns; None where it has no edge that way."""
    import torch
    from torch.nn.functional import avg_pool1d

    image = level.T if down else level
    half = BLUR_WIDTH // 2
    padded = torch.cat([image[:, :half].flip(1), image, image[:, -half:].flip(1)], dim=1)
    again = avg_pool1d(padded.unsqueeze(1), BLUR_WIDTH, stride=1).squeeze(1)
    sharp, soft = (_sobel(one)[1:, 1:].abs() for one in (image, again))
    total = float(sharp.sum())
    if total <= FLAT:
        return None
    return 1.0 - float((sharp - soft).clamp_min(0.0).sum()) / total


def _sobel(image: torch.Tensor) -> torch.Tensor:
    """Differences along the rows, smoothed across them by (1, 2, 1) / 4: (H, W) -> (H - 2, W - 2)."""
    edges = (image[:, 2:] - image[:, :-2]) / 2.0
    return (edges[:-2] + 2.0 * edges[1:-1] + edges[2:]) / 4.0


def ms_ssim(image: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """MS-SSIM of two images, the same bits in either order.

    Five scales with the weights of the paper, each averaged over the channels, windows of 11 x 11 pixels (sigma 1.5),
    the border mirrored at the last scale and left out at the others, negative similarity set to 0.
    (1, 3, H, W) in [0, 1], twice, -> (1,) float32 in [0, 1].

    Raises:
        NoScoreError: images of two sizes, or a side under 176 pixels.
    """
    from torchmetrics.functional.image.ssim import multiscale_structural_similarity_index_measure

    height, width = image.shape[-2:]
    if other.shape != image.shape:
        raise NoScoreError("the samples of the prompt differ in size")
    if min(height, width) < MS_SSIM_SIDE:
        raise NoScoreError(f"the image is {width} x {height} pixels; MS-SSIM needs {MS_SSIM_SIDE} x {MS_SSIM_SIDE}")
    value: torch.Tensor = multiscale_structural_similarity_index_measure(image, other, data_range=1.0, reduction="none")
    return value.reshape(1)


@metric(
    pixel_facts(
        "diversity",
        "1 - MS-SSIM to the other samples of the prompt, averaged: 0 where all are one image.",
        "1 - ms-ssim",
        1.0,
        "Z. Wang et al., Multiscale structural similarity, Asilomar 2003, doi:10.1109/ACSSC.2003.1292216; "
        "as a measure of diversity: A. Odena et al., arXiv 1610.09585; torchmetrics' implementation",
        higher_is_better=True,
    ),
    needs_other_samples=True,
    of_pair=ms_ssim,
)
def diversity(inputs: Inputs) -> torch.Tensor:
    """Mean of 1 - MS-SSIM between the image and each other sample of its prompt and variant.

    The mean over a prompt's images is the mean over its pairs of samples, which is the diversity of the prompt.
    The values (1,) of its pairs by ``ms_ssim`` -> (1,) float32 in [0, 1].

    Raises:
        NoScoreError: no other sample.
    """
    import torch

    if not inputs.pair_values:
        raise NoScoreError("the prompt has no other sample to compare with")
    return (1.0 - torch.cat(inputs.pair_values)).mean().clamp(0.0, 1.0).reshape(1)


# Distances: how far a variant's image has moved from the reference variant's, at the same seed.

WINDOW = 11
"""Side of the Gaussian window in pixels: sigma 1.5, cut at 3.5 sigma."""


@metric(
    pixel_facts(
        "ssim-to-base",
        "Structural similarity to the reference variant's image of the same prompt and sample; 1 is equal.",
        "ssim",
        1.0,
        "Z. Wang et al., Image quality assessment: from error visibility to structural similarity, "
        "IEEE TIP 13(4), 2004, doi:10.1109/TIP.2003.819861; torchmetrics' implementation",
        low=-1.0,
        category="distance",
    ),
    needs_reference=True,
)
def ssim_to_base(inputs: Inputs) -> torch.Tensor:
    """Mean structural similarity of the image x to the reference variant's image y of the same prompt.

    SSIM = (2 mx my + C1)(2 cxy + C2) / ((mx^2 + my^2 + C1)(vx + vy + C2)), C1 = 0.01^2, C2 = 0.03^2, with the
    local means m, variances v and covariance c under a Gaussian window of 11 x 11 pixels (sigma 1.5), with
    mirrored borders; the mean over all pixels and the three channels. (n, 3, H, W) in [0, 1], twice, ->
    (n,) float32 in [-1, 1]. It says how much changed, not whether for the better.

    Raises:
        NoScoreError: no reference image, one of another size, or a side shorter than the window.
    """
    image, reference = inputs.pixels, inputs.reference_pixels
    if reference is None:
        raise NoScoreError("there is no reference image")
    height, width = image.shape[-2:]
    if reference.shape[-2:] != image.shape[-2:]:
        raise NoScoreError(
            f"the image is {width} x {height} pixels, the reference {reference.shape[-1]} x {reference.shape[-2]}"
        )
    if min(height, width) < WINDOW:
        raise NoScoreError(f"the image is {width} x {height} pixels; SSIM's window needs {WINDOW} x {WINDOW}")
    from torchmetrics.functional.image.ssim import structural_similarity_index_measure as ssim

    value: torch.Tensor = ssim(image, reference, sigma=1.5, data_range=1.0, reduction="none")
    return value
