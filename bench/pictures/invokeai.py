"""InvokeAI: the JSON of ``invokeai_metadata`` and of its older ``sd-metadata`` -> what a picture says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.pictures.values import both, facts, misread, real, size_of, whole, word
from bench.records import PictureFacts, PictureLora

NAME, OLD_NAME = "invokeai_metadata", "sd-metadata"
TAKEN = (
    "positive_prompt", "negative_prompt", "seed", "rand_device", "cfg_scale", "steps", "scheduler", "width", "height",
    "model", "loras", "app_version", "clip_skip",
)  # fmt: skip
KARRAS = "_k"
"""How schedulers end that follow Karras' noise levels."""


def read_invoke(table: Mapping[str, Any]) -> PictureFacts:
    """What the decoded JSON of ``invokeai_metadata`` says."""
    sampler, schedule = _scheduler(table.get("scheduler"))
    model = _table(table.get("model"))
    loras = _loras(table.get("loras"))
    why = _misread(table) | {"model_hash": "InvokeAI's hash is not the sha256 of the file"}
    if schedule is None:
        why["schedule"] = "the scheduler's name holds none"
    if loras is None:
        why["loras"] = "their list is not one of models and weights"
    other = {name: str(value) for name, value in table.items() if name not in TAKEN and value is not None}
    if word(model.get("hash")):
        other["model_hash"] = str(model["hash"])
    return facts(
        "InvokeAI",
        why,
        version=word(table.get("app_version")),
        prompt=table["positive_prompt"] if isinstance(table.get("positive_prompt"), str) else None,
        negative=table["negative_prompt"] if isinstance(table.get("negative_prompt"), str) else None,
        seed=whole(table.get("seed")),
        steps=whole(table.get("steps")),
        sampler=sampler,
        schedule=schedule,
        cfg=real(table.get("cfg_scale")),
        size=size_of(table.get("width"), table.get("height")),
        model=word(model.get("name", model.get("model_name"))),
        loras=loras,
        clip_skip=_clip_skip(table.get("clip_skip")),
        rng=_device(table.get("rand_device")),
        other=other,
    )


def _misread(table: Mapping[str, Any]) -> dict[str, str]:
    size = both(table.get("width"), table.get("height"))
    return misread(seed=table.get("seed"), steps=table.get("steps"), cfg=table.get("cfg_scale"), size=size)


def _table(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _scheduler(value: object) -> tuple[str | None, str | None]:
    name = word(value)
    if name is not None and name.endswith(KARRAS):
        return name.removesuffix(KARRAS), "karras"
    return name, None


def _clip_skip(value: object) -> int | None:
    # InvokeAI counts the layers that are skipped, A1111 the layer that is taken.
    skipped = whole(value)
    return None if skipped is None else skipped + 1


def _device(value: object) -> str | None:
    name = word(value)
    return {"cpu": "CPU", "cuda": "GPU"}.get(name, name) if name is not None else None


def _loras(value: object) -> tuple[PictureLora, ...] | None:
    if value is None:
        return ()
    found = []
    for one in value if isinstance(value, list) else [None]:
        model = (one.get("model") or one.get("lora")) if isinstance(one, dict) else None
        name = word(model.get("name", model.get("model_name"))) if isinstance(model, dict) else None
        if name is None or not isinstance(one, dict):
            return None
        weight = real(one.get("weight"))
        found.append(PictureLora(name=name, text_weight=weight, unet_weight=weight))
    return tuple(found)


def read_old_invoke(table: Mapping[str, Any]) -> PictureFacts:
    """What ``sd-metadata`` says; its prompt may hold the negative one in square brackets, so that is not told."""
    image = _table(table.get("image"))
    sampler, schedule = _scheduler(image.get("sampler"))
    return facts(
        "InvokeAI",
        _misread(image)
        | {
            "negative": "it stood within the prompt, in square brackets",
            "model_hash": "it is not the sha256 of the file",
        },
        version=word(table.get("app_version")),
        prompt=_old_prompt(image.get("prompt")),
        seed=whole(image.get("seed")),
        steps=whole(image.get("steps")),
        sampler=sampler,
        schedule=schedule,
        cfg=real(image.get("cfg_scale")),
        size=size_of(image.get("width"), image.get("height")),
        model=word(table.get("model_weights")),
    )


def _old_prompt(value: object) -> str | None:
    """A text, or one of a list with its weight; of several none is the prompt."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        value = value[0].get("prompt")
    return value if isinstance(value, str) else None
