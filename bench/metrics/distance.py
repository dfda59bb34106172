"""Distances: how far a variant's image has moved from the reference variant's, at the same seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.metrics.registry import Inputs, NoScoreError, metric
from bench.records import MetricFacts

if TYPE_CHECKING:
    import torch

WINDOW = 11
"""Side of the Gaussian window in pixels: sigma 1.5, cut at 3.5 sigma."""


@metric(
    MetricFacts(
        name="ssim-to-base",
        version="1",
        summary="Structural similarity to the reference variant's image of the same cell; 1 is equal.",
        unit="ssim",
        higher_is_better=None,
        low=-1.0,
        high=1.0,
        axis="distance",
        tower=None,
        trained_on="nothing",
        standing="held-out",
        licence="Apache-2.0",
        reference="Z. Wang et al., Image quality assessment: from error visibility to structural similarity, "
        "IEEE TIP 13(4), 2004, doi:10.1109/TIP.2003.819861; torchmetrics' implementation",
    ),
    needs_reference=True,
)
def ssim_to_base(inputs: Inputs) -> torch.Tensor:
    """Mean structural similarity of the image x to the reference variant's image y of the same cell.

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
