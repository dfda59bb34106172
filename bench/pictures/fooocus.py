"""Fooocus: both of its schemes, its own JSON and A1111's text -> what a picture says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from bench.pictures.infotext import Infotext, facts_of_settings, named_values
from bench.pictures.values import facts, misread, real, size_of, whole, word
from bench.records import PictureFacts, PictureLora

SCHEME = "fooocus_scheme"
TAKEN = (
    "prompt", "negative_prompt", "seed", "steps", "sampler", "scheduler", "guidance_scale", "resolution", "base_model",
    "base_model_hash", "loras", "clip_skip", "version", "metadata_scheme", "lora_hashes",
)  # fmt: skip


def read_fooocus(table: Mapping[str, Any]) -> PictureFacts | None:
    """What the decoded JSON of scheme ``fooocus`` says; None where it is not Fooocus'."""
    if "base_model" not in table or ("full_prompt" not in table and table.get("metadata_scheme") != "fooocus"):
        return None
    other = {name: _text(value) for name, value in table.items() if name not in TAKEN}
    loras = _loras(table.get("loras"))
    raw = {"cfg": "guidance_scale", "size": "resolution"} | {name: name for name in ("seed", "steps", "clip_skip")}
    why = misread(**{name: table.get(key) for name, key in raw.items()})
    return facts(
        "Fooocus",
        why | ({"loras": "their list is not one of names and weights"} if loras is None else {}),
        version=word(table.get("version")),
        prompt=table["prompt"] if isinstance(table.get("prompt"), str) else None,
        negative=table["negative_prompt"] if isinstance(table.get("negative_prompt"), str) else None,
        seed=whole(table.get("seed")),
        steps=whole(table.get("steps")),
        sampler=word(table.get("sampler")),
        schedule=word(table.get("scheduler")),
        cfg=real(table.get("guidance_scale")),
        size=_size(table.get("resolution")),
        model=word(table.get("base_model")),
        model_hash=word(table.get("base_model_hash")),
        loras=loras,
        clip_skip=whole(table.get("clip_skip")),
        other=other,
    )


def _text(value: object) -> str:
    return "\n".join(map(str, value)) if isinstance(value, list) else str(value)


def _size(value: object) -> tuple[int, int] | None:
    found = re.fullmatch(r"\((\d{1,6}), ?(\d{1,6})\)", value.strip()) if isinstance(value, str) else None
    return None if found is None else size_of(found[1], found[2])


def _loras(value: object) -> tuple[PictureLora, ...] | None:
    """``[[name, weight, hash], ...]``; one weight acts on UNet and text encoders."""
    if value is None:
        return ()
    if not isinstance(value, list):
        return None
    found = []
    for one in value:
        if not isinstance(one, list) or len(one) < 2 or not isinstance(one[0], str) or real(one[1]) is None:
            return None
        weight = real(one[1])
        hashed = word(one[2]) if len(one) > 2 else None
        found.append(PictureLora(name=one[0], text_weight=weight, unet_weight=weight, hash=hashed))
    return tuple(found)


def read_fooocus_text(found: Infotext) -> PictureFacts:
    """What a text of scheme ``a1111`` says: what was typed is its raw prompt, and LoRAs have keys of their own."""
    said = facts_of_settings("Fooocus", found)
    other = dict(said.other)
    raw, raw_negative = other.pop("Raw prompt", None), other.pop("Raw negative prompt", None)
    weights = named_values(other.pop("Lora weights", ""))
    hashes = named_values(found.settings.get("Lora hashes", ""))
    if raw is not None:
        other["full_prompt"] = found.prompt
    if raw_negative is not None:
        other["full_negative_prompt"] = found.negative
    loras = tuple(
        PictureLora(name=name, text_weight=real(weight), unet_weight=real(weight), hash=hashes.get(name))
        for name, weight in weights.items()
    )
    told = bool(weights) or not hashes
    schedule = said.schedule or word(other.pop("Scheduler", None))
    unknown = {name: why for name, why in said.unknown.items() if name not in ("loras", schedule and "schedule")}
    if not told:
        unknown["loras"] = "their hashes stand there without weights"
    return msgspec.structs.replace(
        said,
        prompt=found.prompt if raw is None else raw,
        negative=found.negative if raw_negative is None else raw_negative,
        loras=loras if told else None,
        schedule=schedule,
        other=other,
        unknown=unknown,
        notes=(),
    )
