"""Set metrics: how alike a variant's images are, and how far they moved from the reference's. Imports no torch.

Every one is arithmetic on the embeddings of an encoder that other metrics load anyway, in float64. What they say and
what they do not is in ``docs/metrics.md``.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from bench.metrics.declare import NoScoreError, SetInputs, set_metric
from bench.metrics.openai_clip import openai_vit_l14
from bench.metrics.similarity import (
    gaussian_kernel,
    log_vendi_score,
    mean_cosine_distance,
    mean_squared_cosine,
    pair_matrix,
    paired_cosine_distance,
    polynomial_kernel,
)
from bench.records import Category, MetricFacts

THOUSAND = 1000.0
"""What squared discrepancies are given in units of, as is usual."""
CROP = "torchvision"
"""The preprocessing, which is that of the aesthetic predictors."""
UNBIASED = "with pairs of one prompt left out, since both sides draw the same prompts"


def set_facts(
    name: str,
    summary: str,
    unit: str,
    category: Category,
    reference: str,
    *,
    higher_is_better: bool | None = None,
    low: float | None = 0.0,
    high: float | None = None,
) -> MetricFacts:
    """The facts of a set metric on openai's CLIP ViT-L/14."""
    return MetricFacts(
        name=name,
        version="1",
        summary=f"{summary}, by the encoder's embeddings.",
        unit=unit,
        higher_is_better=higher_is_better,
        low=low,
        high=high,
        category=category,
        encoder=openai_vit_l14.name,
        trained_on=("webimagetext",),
        training_data="400 million picture and text pairs of the web, contrastive; no preferences",
        licence="MIT",
        reference=reference,
    )


# How alike the images of a prompt, or of the prompts of a tag, are.


@set_metric(
    set_facts(
        "vendi-l14",
        "How many different images a prompt's samples are worth",
        "ln(images)",
        "diversity",
        "D. Friedman, A. B. Dieng, The Vendi score, TMLR 2023, arXiv 2210.02410",
        higher_is_better=True,
    ),
    over="prompt",
    min_samples=2,
    preprocessing=CROP,
)
def vendi(inputs: SetInputs) -> float:
    """The natural logarithm of the Vendi score of order 1 of a prompt's n images, in [0, ln n].

    The logarithm, since a difference of two is the logarithm of the ratio of effective images.
    """
    return log_vendi_score(inputs.images[0])


@set_metric(
    set_facts(
        "sameness-l14",
        "How alike a prompt's samples are, whatever their number: 1 where all are one image",
        "squared cosine",
        "diversity",
        "order 2 of A. Pasarkar, A. B. Dieng, Cousins of the Vendi score, arXiv 2310.12952, without its n",
        higher_is_better=False,
        high=1.0,
    ),
    over="prompt",
    min_samples=2,
    preprocessing=CROP,
)
def sameness(inputs: SetInputs) -> float:
    """Mean squared cosine of every two images of a prompt, in [0, 1]."""
    return mean_squared_cosine(inputs.images[0])


@set_metric(
    set_facts(
        "vendi-tag-l14",
        "How many different images the prompts of a tag are worth: few where every portrait has one face",
        "ln(images)",
        "diversity",
        "D. Friedman, A. B. Dieng, The Vendi score, TMLR 2023, arXiv 2210.02410, of one mean embedding a prompt",
        higher_is_better=True,
    ),
    over="tag",
    preprocessing=CROP,
)
def vendi_of_tag(inputs: SetInputs) -> float:
    """ln of the Vendi score of order 1 of one embedding a prompt, the mean of its images' ones, in [0, ln P]."""
    return log_vendi_score(np.stack([np.add.reduce(rows) for rows in inputs.images]))  # lengths do not count


# How far a variant's images moved from the reference's.


def drift_between_noises(inputs: SetInputs) -> float:
    """Mean of 1 - cosine of every two of the reference's images of the prompt, each of another noise, in [0, 2].

    Raises:
        NoScoreError: the reference has one image of the prompt.
    """
    rows = _reference(inputs)[0]
    if len(rows) < 2:
        raise NoScoreError("the reference has one image of the prompt")
    return mean_cosine_distance(rows)


@set_metric(
    set_facts(
        "drift-l14",
        "How far images moved from the reference's of the same noise; beside how far two noises of the reference lie",
        "1 - cosine",
        "distance",
        "this project",
        high=2.0,
    ),
    over="prompt",
    needs_reference=True,
    scale=drift_between_noises,
    preprocessing=CROP,
)
def drift(inputs: SetInputs) -> float:
    """Mean of 1 - cosine of each image of a prompt and the reference's image of the same noise, in [0, 2]."""
    return paired_cosine_distance(inputs.images[0], _reference(inputs)[0])


@set_metric(
    set_facts(
        "kid-l14",
        "How far a variant's images as a whole lie from the reference's",
        "1000 x squared MMD",
        "distance",
        f"after KID, M. Binkowski et al., arXiv 1801.01401, on unit embeddings times sqrt(d), {UNBIASED}",
        low=None,
    ),
    over="prompt pairs",
    needs_reference=True,
    preprocessing=CROP,
)
def kid(inputs: SetInputs) -> NDArray[np.float64]:
    """1000 x squared MMD of every two prompts' images to the reference's, with k = (x . y / d + 1)^3: (P, P).

    Rows are brought to the length sqrt(d), which those of d standard normal features have; at length 1 the kernel would
    be as good as linear, and would see nothing but the means.
    """
    sides = (inputs.images, _reference(inputs))
    images, reference = ([rows * math.sqrt(rows.shape[1]) for rows in side] for side in sides)
    return THOUSAND * pair_matrix((images, reference), polynomial_kernel)


@set_metric(
    set_facts(
        "cmmd-l14",
        "How far a variant's images as a whole lie from the reference's, with a wide kernel: nearly that of the means",
        "1000 x squared MMD",
        "distance",
        f"after CMMD, S. Jayasumana et al., arXiv 2401.09603, at 224 pixels, {UNBIASED}",
        low=None,
    ),
    over="prompt pairs",
    needs_reference=True,
    preprocessing=CROP,
)
def cmmd(inputs: SetInputs) -> NDArray[np.float64]:
    """1000 x squared MMD of every two prompts' images to the reference's, k = exp(-|x - y|^2 / 200): (P, P)."""
    return THOUSAND * pair_matrix((inputs.images, _reference(inputs)), gaussian_kernel)


def _reference(inputs: SetInputs) -> tuple[NDArray[np.float64], ...]:
    if inputs.reference is None:
        raise ValueError("it compares with the reference's images")
    return inputs.reference
