"""Statistics of the pixels: not judgements, but what a preference score may have been bought with.

All of them read the image as it was saved: gamma-encoded sRGB, 8 bits a channel, scaled to [0, 1].
None is better high or low; a shift between variants is what tells. They depend on the image's size
(``sharpness`` most of all), so compare them at equal settings only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.metrics.registry import Inputs, metric
from bench.records import MetricFacts

if TYPE_CHECKING:
    import torch

LAPLACIAN_BOUND = (4.0 * 255.0) ** 2
"""Largest variance of the 4-neighbour Laplacian of 8-bit luma: a black and white checkerboard's."""


def pixel_facts(name: str, summary: str, unit: str, high: float, reference: str) -> MetricFacts:
    """The facts that the statistics of the pixels share, with those that they do not."""
    return MetricFacts(
        name=name,
        version="1",
        summary=summary,
        unit=unit,
        higher_is_better=None,
        low=0.0,
        high=high,
        axis="pixels",
        tower=None,
        trained_on="nothing",
        standing="held-out",
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
    from torch.nn.functional import pad

    level = pad(255.0 * luma(inputs.pixels).unsqueeze(1), (1, 1, 1, 1), mode="reflect").squeeze(1)
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
