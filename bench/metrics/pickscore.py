"""PickScore, a CLIP ViT-H/14 in transformers' layout. Importing this module imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import WeightsError
from bench.metrics.declare import Inputs, LoadedEncoder, Place, encoder, metric
from bench.metrics.weights import FETCH_AGAIN, find_weights, read_tensors
from bench.records import MetricFacts

if TYPE_CHECKING:
    import torch

WEIGHTS = "pickscore"
FILES = ("model.safetensors", "pytorch_model.bin")
"""Either holds the weights; the first that is there is read."""


@encoder("pickscore-vit-h14", weights=(WEIGHTS,))
def pickscore_vit_h14(place: Place) -> LoadedEncoder:
    """PickScore's ViT-H/14, from the published folder: ``config.json``, and safetensors or bin."""
    return load_pickscore(find_weights(WEIGHTS, place.weights_dir), place)


def load_pickscore(folder: Path, place: Place) -> LoadedEncoder:
    """The encoder of the sizes that ``config.json`` names, with the weights beside it.

    Raises:
        WeightsError: no weights, no such ``config.json``, or a key is missing, unknown or of another shape.
    """
    import torch
    from transformers import CLIPModel

    from bench.metrics.encoders import TORCH_DTYPES, ClipEncoder, fill_model, transformers_crop, transformers_tokens

    file = next((folder / name for name in FILES if (folder / name).is_file()), folder / FILES[0])
    config = read_clip_config(folder / "config.json")
    with torch.device("meta"):
        model = CLIPModel(config)
    for half in (model.text_model, model.vision_model):
        # A buffer of 0, 1, 2, ... that no file has to fill; on the device "meta" it is empty.
        ids = half.embeddings.position_ids
        half.embeddings.position_ids = torch.arange(ids.shape[1], device=place.device).unsqueeze(0)
    state = _without_position_ids(read_tensors(file))
    logit_scale = fill_model(model, state, place, file, "PickScore's CLIP")
    return ClipEncoder(
        encode_image=lambda pixels: _pooled(model.get_image_features(pixel_values=pixels)),
        encode_text=lambda ids: _pooled(model.get_text_features(input_ids=ids)),
        tokenize=transformers_tokens(),
        preprocessings={"": transformers_crop},
        side_px=config.vision_config.image_size,
        logit_scale=logit_scale,
        device=place.device,
        dtype=TORCH_DTYPES[place.dtype],
    )


def _without_position_ids(state: Any) -> Any:
    """Older files hold these buffers of 0, 1, 2, ... too."""
    if not isinstance(state, dict):
        return state
    return {key: value for key, value in state.items() if not key.endswith(".embeddings.position_ids")}


def read_clip_config(file: Path) -> Any:
    """transformers' ``CLIPConfig`` of a ``config.json``; WeightsError where it is missing or damaged."""
    from transformers import CLIPConfig

    try:
        return CLIPConfig.from_json_file(file)
    except Exception as error:  # json and transformers each have errors of their own for what is damaged
        raise WeightsError(f"{file}: cannot be read as the configuration of a CLIP: {error}.", FETCH_AGAIN) from error


def _pooled(output: Any) -> torch.Tensor:
    """transformers 5 wraps the projected features."""
    features: torch.Tensor = output.pooler_output
    return features


@metric(
    MetricFacts(
        name="pickscore",
        version="1-pil-bicubic",
        summary="Which picture people would prefer for this prompt, with the logit scale; typically 18 to 24.",
        unit="exp(logit_scale) x cosine",
        higher_is_better=True,
        low=None,
        high=None,
        category="preference",
        encoder=pickscore_vit_h14.name,
        trained_on=("pick-a-pic",),
        training_data=(
            "Pick-a-Pic v1: choices of users of a web application between diffusion pictures. DPO and SPO learnt "
            "from Pick-a-Pic too, and SPO's step metric starts from this one"
        ),
        licence="none stated; MIT of the model it was trained from, LAION's CLIP ViT-H/14",
        reference="Y. Kirstain et al., Pick-a-Pic, arXiv 2305.01569",
    )
)
def pickscore(inputs: Inputs) -> torch.Tensor:
    """PickScore: exp(logit_scale) cos(image, text), (n,) float32, within +-exp(logit_scale), about 100.

    Some repositories leave out the scale (about 0.2), or divide by 26 or by 100.
    """
    return inputs.logit_scale * inputs.cosines()
