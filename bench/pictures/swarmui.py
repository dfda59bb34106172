"""SwarmUI: the JSON of ``parameters`` with ``sui_image_params`` -> what a picture says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.pictures.values import both, facts, misread, real, size_of, whole, word
from bench.records import PictureFacts, PictureLora

TAKEN = (
    "prompt", "negativeprompt", "model", "seed", "steps", "cfgscale", "width", "height", "sampler", "scheduler",
    "loras", "loraweights", "loratencweights", "clipstopatlayer", "swarm_version", "aspectratio",
)  # fmt: skip
PARAMETERS = "sui_image_params"


def read_swarm(table: Mapping[str, Any]) -> PictureFacts | None:
    """What the decoded JSON says; None where it is not SwarmUI's."""
    said = table.get(PARAMETERS)
    if not isinstance(said, dict):
        return None
    other = {name: str(value) for name, value in said.items() if name not in TAKEN}
    tensors = _tensor_hash(table.get("sui_models"))
    if tensors is not None:
        other["tensor_hash"] = tensors
    stop = real(said.get("clipstopatlayer"))
    loras = _loras(said)
    no_hash = "SwarmUI's hash is one of the tensors, not of the file" if tensors else "the picture has no hash"
    size = both(said.get("width"), said.get("height"))
    why = misread(seed=said.get("seed"), steps=said.get("steps"), cfg=said.get("cfgscale"), size=size)
    why |= {"model_hash": no_hash} | ({"loras": "names and weights are not as many"} if loras is None else {})
    return facts(
        "SwarmUI",
        why,
        version=word(said.get("swarm_version")),
        prompt=said.get("prompt") if isinstance(said.get("prompt"), str) else None,
        negative=said.get("negativeprompt") if isinstance(said.get("negativeprompt"), str) else None,
        seed=whole(said.get("seed")),
        steps=whole(said.get("steps")),
        sampler=word(said.get("sampler")),
        schedule=word(said.get("scheduler")),
        cfg=real(said.get("cfgscale")),
        size=size_of(said.get("width"), said.get("height")),
        model=word(said.get("model")),
        loras=loras,
        clip_skip=-int(stop) if stop is not None and -100 <= stop < 0 else None,
        other=other,
    )


def _tensor_hash(models: object) -> str | None:
    for one in models if isinstance(models, list) else ():
        if isinstance(one, dict) and one.get("param") == "model":
            return word(one.get("hash"))
    return None


def _loras(said: Mapping[str, Any]) -> tuple[PictureLora, ...] | None:
    names, weights = _list(said.get("loras")), _list(said.get("loraweights"))
    text_weights = _list(said.get("loratencweights")) or weights
    if not len(names) == len(weights) == len(text_weights):
        return None
    rows = zip(names, weights, text_weights, strict=True)
    return tuple(
        PictureLora(name=str(name), text_weight=real(text), unet_weight=real(unet)) for name, unet, text in rows
    )


def _list(value: object) -> list[Any]:
    if isinstance(value, str):
        return [one.strip() for one in value.split(",") if one.strip()]
    return value if isinstance(value, list) else []
