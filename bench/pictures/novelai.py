"""NovelAI: PNG texts ``Description`` and ``Comment`` (JSON) -> what a picture says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.pictures.values import both, facts, misread, real, size_of, whole, word
from bench.records import PictureFacts

TAKEN = ("prompt", "uc", "seed", "steps", "sampler", "noise_schedule", "scale", "width", "height")


def read_novel(description: str | None, source: str | None, table: Mapping[str, Any]) -> PictureFacts:
    """What the texts of a picture of NovelAI say. Its brackets ``{}`` are weights of its own.

    Args:
        description: the text ``Description``, which is the prompt.
        source: the text ``Source``, which names the model.
        table: the decoded JSON of ``Comment``.
    """
    prompt = table.get("prompt", description)
    size = both(table.get("width"), table.get("height"))
    unread = misread(seed=table.get("seed"), steps=table.get("steps"), cfg=table.get("scale"), size=size)
    return facts(
        "NovelAI",
        unread | {"model_hash": "the name of the model holds no sha256", "clip_skip": "NovelAI does not write it"},
        prompt=prompt if isinstance(prompt, str) else description,
        negative=table["uc"] if isinstance(table.get("uc"), str) else None,
        seed=whole(table.get("seed")),
        steps=whole(table.get("steps")),
        sampler=word(table.get("sampler")),
        schedule=word(table.get("noise_schedule")),
        cfg=real(table.get("scale")),
        size=size_of(table.get("width"), table.get("height")),
        model=word(source),
        other={name: str(value) for name, value in table.items() if name not in TAKEN},
    )
