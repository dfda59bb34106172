"""Human Preference Score v2 and v2.1, each with a ViT-H/14 of its own. Importing this module imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import WeightsError
from bench.metrics.declare import Inputs, LoadedEncoder, Place, encoder, metric
from bench.metrics.weights import FETCH_AGAIN, find_weights, read_tensors
from bench.records import MetricFacts

if TYPE_CHECKING:
    import torch

    from bench.metrics.encoders import ClipShape

VERSION = "1-tensor-bicubic-antialias"
UNIT = "100 x cosine"
LICENCE = "Apache-2.0"
REFERENCE = "X. Wu et al., Human Preference Score v2, arXiv 2306.09341"


@encoder("hpsv2-vit-h14", weights=("hpsv2",))
def hpsv2_vit_h14(place: Place) -> LoadedEncoder:
    """The ViT-H/14 of HPSv2, with the exact GELU."""
    file = find_weights("hpsv2", place.weights_dir)
    return load_hps(read_tensors(file), place, file)


@encoder("hpsv2.1-vit-h14", weights=("hpsv2.1",))
def hpsv21_vit_h14(place: Place) -> LoadedEncoder:
    """The ViT-H/14 of HPSv2.1, with the exact GELU."""
    file = find_weights("hpsv2.1", place.weights_dir)
    return load_hps(read_tensors(file), place, file)


def load_hps(
    checkpoint: Mapping[str, MutableMapping[str, torch.Tensor]],
    place: Place,
    file: Path,
    shape: ClipShape | None = None,
) -> LoadedEncoder:
    """The encoder with the weights under ``state_dict`` of a published checkpoint; ViT-H/14 by default.

    Raises:
        WeightsError: no ``state_dict``, or a key in it is missing, unknown or of another shape.
    """
    from bench.metrics.encoders import VIT_H14, load_open_clip, whole_on_black

    if not isinstance(checkpoint, Mapping) or not isinstance(checkpoint.get("state_dict"), MutableMapping):
        raise WeightsError(f"{file}: not a checkpoint of HPSv2: it has no 'state_dict'.", FETCH_AGAIN)
    return load_open_clip(
        checkpoint["state_dict"],
        place,
        file,
        what="HPSv2's ViT-H/14",
        shape=shape or VIT_H14,
        preprocessings={"": whole_on_black},
    )


@metric(
    MetricFacts(
        name="hpsv2",
        version=VERSION,
        summary="Which picture people would prefer for this prompt; saturation can buy it. Typically 24 to 32.",
        unit=UNIT,
        higher_is_better=True,
        low=-100.0,
        high=100.0,
        category="preference",
        encoder=hpsv2_vit_h14.name,
        trained_on=("hpd-v2",),
        training_data=(
            "HPD v2: 798,090 choices between pictures of diffusion and other models, DiffusionDB among them; not "
            "Pick-a-Pic, but the same kind of choices as DPO and SPO learnt from"
        ),
        licence=LICENCE,
        reference=REFERENCE,
    )
)
def hpsv2(inputs: Inputs) -> torch.Tensor:
    """HPSv2 as its tables print it: 100 cos(image, text), without the logit scale, (n,) float32 in [-100, 100]."""
    return 100.0 * inputs.cosines()


@metric(
    MetricFacts(
        name="hpsv2.1",
        version=VERSION,
        summary="HPSv2 trained on better data, not to be mixed with v2; saturation can buy it. Typically 24 to 32.",
        unit=UNIT,
        higher_is_better=True,
        low=-100.0,
        high=100.0,
        category="preference",
        encoder=hpsv21_vit_h14.name,
        trained_on=("hpd-v2",),
        training_data=(
            "HPD v2 with choices of higher quality, of which nothing more is published; not Pick-a-Pic, but the same "
            "kind of choices as DPO and SPO learnt from"
        ),
        licence=LICENCE,
        reference=f"{REFERENCE}, release 2.1 of its code",
    )
)
def hpsv21(inputs: Inputs) -> torch.Tensor:
    """HPSv2.1: 100 cos(image, text), without the logit scale, (n,) float32 in [-100, 100]."""
    return 100.0 * inputs.cosines()
