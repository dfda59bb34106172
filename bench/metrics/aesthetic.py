"""LAION's two aesthetic predictors on openai's ViT-L/14. Importing this module imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.errors import WeightsError
from bench.metrics.declare import Inputs, Place, metric
from bench.metrics.openai_clip import openai_vit_l14
from bench.metrics.weights import FETCH_AGAIN, find_weights, read_tensors
from bench.records import MetricFacts

if TYPE_CHECKING:
    import torch

WIDTH = 768
"""Numbers in an embedding of ViT-L/14."""
LAYERS = (0, 2, 4, 6, 7)
"""Linear layers in the file of the second predictor; between them stand dropouts, which do nothing here."""
WIDTHS = (WIDTH, 1024, 128, 64, 16, 1)
VERSION = "1-pil-bicubic"


Layers = tuple[tuple["torch.Tensor", "torch.Tensor"], ...]
"""Weight (out, in) and bias (out,) of each linear layer, float32 on the place's device."""


def load_v1(place: Place) -> Layers:
    """The first predictor: one layer, 768 to 1; raises as ``load_v2``."""
    return _load("aesthetic-v1", ("",), (WIDTH, 1), place)


def load_v2(place: Place) -> Layers:
    """The second predictor's five layers.

    Raises:
        WeightsError: the file is not there, or holds other layers than these, or of other widths.
    """
    return _load("aesthetic-v2", tuple(f"layers.{number}." for number in LAYERS), WIDTHS, place)


def _load(entry: str, names: tuple[str, ...], widths: tuple[int, ...], place: Place) -> Layers:
    file = find_weights(entry, place.weights_dir)
    state = read_tensors(file)
    shapes: dict[str, tuple[int, ...]] = {}
    for name, before, after in zip(names, widths[:-1], widths[1:], strict=True):
        shapes |= {f"{name}weight": (after, before), f"{name}bias": (after,)}
    found = {key: tuple(value.shape) for key, value in state.items()} if isinstance(state, dict) else {}
    if found != shapes:
        wrong = sorted(key for key in {*found, *shapes} if found.get(key) != shapes.get(key))[0]
        raise WeightsError(
            f"{file}: not this aesthetic predictor: {wrong} has shape {found.get(wrong, 'none, it is missing')}, "
            f"not {shapes.get(wrong, 'any, it is unknown')}.",
            FETCH_AGAIN,
        )
    tensors = {key: value.to(place.device).float() for key, value in state.items()}
    return tuple((tensors[f"{name}weight"], tensors[f"{name}bias"]) for name in names)


@metric(
    MetricFacts(
        name="aesthetic-v2",
        version=VERSION,
        summary="How beautiful the picture is, whatever the prompt, by LAION's improved predictor; SDXL 5.9 to 6.4.",
        unit="rating, about 1 to 10",
        higher_is_better=True,
        low=None,
        high=None,
        category="aesthetic",
        encoder=openai_vit_l14.name,
        trained_on=("simulacra", "laion-logos", "ava"),
        training_data=(
            "ratings of the Simulacra Aesthetic Captions, LAION-Logos and AVA: photographs, logos and early diffusion "
            "pictures; nothing that DPO or SPO learnt from, though the data of Stable Diffusion was chosen with it"
        ),
        licence="Apache-2.0",
        reference="C. Schuhmann, improved-aesthetic-predictor, 2022; LAION-5B, arXiv 2210.08402",
    ),
    load_head=load_v2,
    needs_text=False,
    weights=("aesthetic-v2",),
    preprocessing="torchvision",
)
def aesthetic_v2(inputs: Inputs) -> torch.Tensor:
    """Rating by five linear layers with nothing between them, so affine: (n, 768) of unit norm -> (n,) float32."""
    return _regress(inputs)


@metric(
    MetricFacts(
        name="aesthetic-v1",
        version=VERSION,
        summary="How beautiful the picture is, whatever the prompt, by LAION's first predictor; typically 4 to 8.",
        unit="rating, about 1 to 10",
        higher_is_better=True,
        low=None,
        high=None,
        category="aesthetic",
        encoder=openai_vit_l14.name,
        trained_on=("simulacra",),
        training_data=(
            "ratings of the Simulacra Aesthetic Captions, early diffusion pictures; nothing that DPO or SPO learnt "
            "from, though the data of Stable Diffusion was chosen with it"
        ),
        licence="MIT",
        reference="LAION-AI, aesthetic-predictor, 2022; LAION-5B, arXiv 2210.08402",
    ),
    load_head=load_v1,
    needs_text=False,
    weights=("aesthetic-v1",),
    preprocessing="torchvision",
)
def aesthetic_v1(inputs: Inputs) -> torch.Tensor:
    """Rating w . e + b by one linear layer: embeddings (n, 768) of unit norm -> (n,) float32."""
    return _regress(inputs)


def _regress(inputs: Inputs) -> torch.Tensor:
    import torch

    values: Any = inputs.image_embeds
    for weight, bias in inputs.head:
        values = torch.nn.functional.linear(values, weight, bias)
    rating: torch.Tensor = values.squeeze(1)
    return rating
