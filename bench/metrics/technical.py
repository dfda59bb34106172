"""Technical quality without a reference, and how much the samples of a prompt differ; no weights, no download.

The learnt judges of technical quality (ARNIQA, MUSIQ, BRISQUE, NIQE) come with weights or fitted statistics of
photographs. What is taken here instead is a published measure of blur that has no parameters to fit, since softness
is what tuning and merging do to an image first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.metrics.pixels import luma
from bench.metrics.registry import Inputs, NoScoreError, metric
from bench.records import MetricFacts

if TYPE_CHECKING:
    import torch

BLUR_WIDTH = 11
"""Pixels of the box filter that the image is blurred with again."""
FLAT = 1e-12
"""Sum of absolute differences, in luma, up to which a direction has no edges."""
MS_SSIM_SIDE = 176
"""Shortest side in pixels that MS-SSIM takes: halved four times it must still hold the window of 11 pixels."""


@metric(
    MetricFacts(
        name="blur",
        version="1",
        summary="No-reference perceptual blur: how little a second blur changes; 0 crisp, 1 without an edge left.",
        unit="share",
        higher_is_better=False,
        low=0.0,
        high=1.0,
        axis="pixels",
        tower=None,
        trained_on="nothing",
        standing="held-out",
        licence="Apache-2.0",
        reference="F. Crete et al., The blur effect: perception and estimation with a new no-reference perceptual blur "
        "metric, SPIE 6492, 2007, doi:10.1117/12.702790; as scikit-image's measure.blur_effect defines it",
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


@metric(
    MetricFacts(
        name="diversity",
        version="1",
        summary="1 - MS-SSIM to the other samples of the prompt, averaged: 0 where all are one image.",
        unit="1 - ms-ssim",
        higher_is_better=True,
        low=0.0,
        high=1.0,
        axis="pixels",
        tower=None,
        trained_on="nothing",
        standing="held-out",
        licence="Apache-2.0",
        reference="Z. Wang et al., Multiscale structural similarity, Asilomar 2003, doi:10.1109/ACSSC.2003.1292216; "
        "as a measure of diversity: A. Odena et al., arXiv 1610.09585; torchmetrics' implementation",
    ),
    needs_siblings=True,
)
def diversity(inputs: Inputs) -> torch.Tensor:
    """Mean of 1 - MS-SSIM between the image and each other sample of its prompt and variant.

    The mean over a prompt's images is the mean over its pairs of samples, which is the diversity of the prompt. Five
    scales with the weights of the paper, each averaged over the channels, windows of 11 x 11 pixels (sigma 1.5), the
    border mirrored at the last scale and left out at the others, negative similarity set to 0.
    (1, 3, H, W) in [0, 1] and its siblings -> (1,) float32 in [0, 1].

    Raises:
        NoScoreError: no other sample, one of another size, or a side under 176 pixels.
    """
    import torch
    from torchmetrics.functional.image.ssim import multiscale_structural_similarity_index_measure as ms_ssim

    image, others = inputs.pixels, inputs.sibling_pixels
    if not others:
        raise NoScoreError("the prompt has no other sample to compare with")
    height, width = image.shape[-2:]
    if min(height, width) < MS_SSIM_SIDE:
        raise NoScoreError(f"the image is {width} x {height} pixels; MS-SSIM needs {MS_SSIM_SIDE} x {MS_SSIM_SIDE}")
    if any(other.shape != image.shape for other in others):
        raise NoScoreError("the samples of the prompt differ in size")
    similarities = [ms_ssim(image, other, data_range=1.0, reduction="none").reshape(1) for other in others]
    return (1.0 - torch.cat(similarities)).mean().clamp(0.0, 1.0).reshape(1)
