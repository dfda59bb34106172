"""Records of what a picture says of how it was made."""

from __future__ import annotations

import msgspec

from bench.records.base import Record


class PictureLora(Record, frozen=True, omit_defaults=True):
    """A LoRA that a picture names."""

    name: str
    text_weight: float | None = None
    """Of the text encoders; None where it cannot be told, as the next two."""
    unet_weight: float | None = None
    hash: str | None = None
    """As the program writes it: 12 hex digits of A1111, 10 of Fooocus."""


class Hires(Record, frozen=True, omit_defaults=True):
    """The second pass of a picture, larger than the first."""

    scale: float | None = None
    steps: int | None = None
    denoise: float | None = None
    upscaler: str | None = None
    size: str | None = None
    """Width and height in pixels as the program writes them, where these were asked for and not a scale."""


class PictureFacts(Record, frozen=True, omit_defaults=True):
    """What a picture says of how it was made. A field is None where that cannot be told; ``unknown`` says why."""

    program: str
    """``A1111``, ``Forge``, ``SD.Next``, ``ComfyUI``, ``InvokeAI``, ``SwarmUI``, ``Fooocus``, ``NovelAI``,
    ``hotart-bench``, ``A1111-like`` (its text without a version), or ``unknown``."""
    version: str | None = None
    """Of the program, as it writes it."""
    prompt: str | None = None
    """As it was typed, weights and LoRA tags included."""
    negative: str | None = None
    """Empty where the picture tells that there is none."""
    seed: int | None = None
    steps: int | None = None
    """Of the first pass."""
    sampler: str | None = None
    """In the program's own words, without the schedule."""
    schedule: str | None = None
    """Likewise; ``Automatic`` is the program's own choice for that sampler."""
    cfg: float | None = None
    size: tuple[int, int] | None = None
    """Width and height in pixels that the first pass was asked for, not those of the file."""
    model: str | None = None
    model_hash: str | None = None
    """Hex digits of the model's file: the first ten of its sha256, or eight as A1111 had them before 2023."""
    loras: tuple[PictureLora, ...] | None = None
    """() where the picture tells that there is none."""
    clip_skip: int | None = None
    """As A1111 counts: 1 is the last layer."""
    rng: str | None = None
    """Where the noise came from: ``GPU``, ``CPU`` or ``NV``."""
    hires: Hires | None = None
    """None where there was no second pass."""
    other: dict[str, str] = msgspec.field(default_factory=dict)
    """Whatever else the picture says, by the program's own names."""
    unknown: dict[str, str] = msgspec.field(default_factory=dict)
    """By field, why it cannot be told."""
    notes: tuple[str, ...] = ()
    """Sentences on what a reader of the picture should know."""
    edited: str | None = None
    """How the file differs from what the program drew, such as an upscaling after it; None where it does not say."""
