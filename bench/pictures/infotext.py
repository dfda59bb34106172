"""A1111's text: the prompt, the negative prompt and one line of ``key: value`` -> what a picture says.

Forge, SD.Next, Fooocus (its scheme ``a1111``), ComfyUI's nodes for saving, Civitai and this program write it too; which
of them it was is told by ``Version``, ``App`` or ``Generator``. The rules are those of A1111's own reader, with what
others do on top: values that are JSON, and lines of templates about the last one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import NamedTuple

from bench.pictures.parameters import GENERATOR
from bench.pictures.values import facts, misread, real, size_of, whole, word
from bench.records import Hires, PictureFacts, PictureLora
from bench.suite.prompt_weights import tags_in, without_tags

KEY = re.compile(r"\s*(\w[\w \-/]+):\s*")
LEAST_PAIRS = 3
"""A line with fewer of them belongs to the prompt."""
NEGATIVE = "Negative prompt:"
TEMPLATE = re.compile(r"(negative )?template:", re.IGNORECASE)
LORA_TAGS = ("lora", "lyco")
SCHEDULES_IN_NAMES = (" Karras", " Exponential", " SGM Uniform")
"""How samplers ended before ``Schedule type`` was a key."""
DEFAULTS = ("A1111", "Forge")
"""Programs that leave a key out where its value is the default."""
TAKEN = (
    "Steps", "Sampler", "Schedule type", "CFG scale", "Seed", "Size", "Model", "Model hash", "Clip skip", "CLiP-skip",
    "RNG", "Version", "Lora hashes", "Hires upscale", "Hires steps", "Hires upscaler", "Hires resize",
)  # fmt: skip
"""Keys that have a field of their own; the others stay among ``PictureFacts.other``."""


class Infotext(NamedTuple):
    """The three parts of the text."""

    prompt: str
    negative: str
    settings: dict[str, str]
    """By key; empty where no line is one of settings."""


def split_infotext(text: str) -> Infotext:
    """The parts of the text; one without a line of settings is all prompt."""
    lines = text.strip().split("\n")
    end = len(lines)
    while end > 1 and TEMPLATE.match(lines[end - 1].strip()):
        end -= 1
    settings = read_settings(lines[end - 1])
    if len(settings) < LEAST_PAIRS:
        settings, end = {}, len(lines) + 1
    words = lines[: end - 1]
    while settings and words and TEMPLATE.match(words[-1].strip()):
        words.pop()
    prompt: list[str] = []
    negative: list[str] = []
    part = prompt
    for line in (one.strip() for one in words):
        if line.startswith(NEGATIVE):
            part, line = negative, line.removeprefix(NEGATIVE).strip()
        part.append(line)
    return Infotext("\n".join(prompt).strip("\n"), "\n".join(negative).strip("\n"), settings)


def read_settings(line: str) -> dict[str, str]:
    """The values of a line by their keys: quoted as JSON, JSON itself, or up to a comma. The last of a key wins."""
    found: dict[str, str] = {}
    at = 0
    while at < len(line):
        key = KEY.match(line, at)
        if key is None:
            at = _comma(line, at) + 1
            continue
        found[key[1].strip()], at = _value(line, key.end())
    return found


def _comma(line: str, at: int) -> int:
    place = line.find(",", at)
    return place if place >= 0 else len(line)


def _value(line: str, at: int) -> tuple[str, int]:
    """A value and where the next key begins."""
    if line[at : at + 1] in ('"', "[", "{"):
        try:
            value, end = json.JSONDecoder().raw_decode(line, at)
            rest = line[end : end + 64].lstrip()
            if not rest or rest[0] == ",":
                text = value if isinstance(value, str) else line[at:end]
                text.encode()  # an escape may hold half of a surrogate pair
                return text, _comma(line, end) + 1
        except (ValueError, RecursionError):
            pass  # no JSON: a value such as {red|blue}
    end = _comma(line, at)
    return line[at:end].strip(), end + 1


def tidy_without_tags(prompt: str) -> str:
    """A prompt without its extra networks, and without the space that they leave at its ends or twice within it."""
    bare = without_tags(prompt)
    if bare == prompt:
        return prompt
    lines = (re.sub(r"[ \t]{2,}", " ", line).strip() for line in bare.split("\n"))
    return "\n".join(lines).strip()


def read_infotext(text: str) -> PictureFacts | None:
    """What a text of A1111's kind says; None where it has no line of settings."""
    found = split_infotext(text)
    if not found.settings:
        return None
    program = _program(found.settings)
    return facts_of_settings(program, found)


def facts_of_settings(program: str, found: Infotext) -> PictureFacts:
    """The record of a text's parts."""
    said, defaults = found.settings, program in DEFAULTS
    sampler, schedule = _sampler(said, defaults)
    loras, why, notes = (_own_loras(said), "", []) if program == GENERATOR else _loras(found)
    skip = said.get("Clip skip", said.get("CLiP-skip"))
    raw = {"seed": "Seed", "steps": "Steps", "cfg": "CFG scale", "size": "Size"}
    unread = misread(clip_skip=skip, **{name: said.get(key) for name, key in raw.items()})
    hires = _hires(said)
    other = {key: value for key, value in said.items() if key not in TAKEN}
    if hires is not None:
        other.pop("Denoising strength", None)
    return facts(
        program,
        unread | ({"loras": why} if why else {}),
        version=word(said.get("Version")) or word(said.get("App")),
        prompt=found.prompt,
        negative=found.negative,
        seed=whole(said.get("Seed")),
        steps=whole(said.get("Steps")),
        sampler=sampler,
        schedule=schedule,
        cfg=real(said.get("CFG scale")),
        size=_size(said.get("Size", "")),
        model=word(said.get("Model")),
        model_hash=word(said.get("Model hash")),
        loras=loras,
        clip_skip=whole(skip) if skip is not None else (1 if defaults else None),
        rng=word(said.get("RNG")) or ("GPU" if defaults else None),
        hires=hires,
        other=other,
        notes=tuple(notes),
    )


def _program(said: Mapping[str, str]) -> str:
    version = said.get("Version", "")
    if said.get("Generator") == GENERATOR:
        return GENERATOR
    if said.get("App") == "SD.Next":
        return "SD.Next"
    for name in ("Fooocus", "ComfyUI"):
        if version.startswith(name):
            return name
    if re.match(r"f\d", version) or version in ("neo", "classic"):
        return "Forge"
    return "A1111" if re.match(r"v?\d+\.\d+", version) else "A1111-like"


def _sampler(said: Mapping[str, str], defaults: bool) -> tuple[str | None, str | None]:
    """Sampler and schedule, of one name too."""
    sampler, schedule = word(said.get("Sampler")), word(said.get("Schedule type"))
    if sampler is None or schedule is not None:
        return sampler, schedule
    for ending in SCHEDULES_IN_NAMES:
        if sampler.endswith(ending):
            return sampler.removesuffix(ending), ending.strip()
    return sampler, "Automatic" if defaults else None


def _size(text: str) -> tuple[int, int] | None:
    width, _, height = text.partition("x")
    return size_of(width, height)


def _hires(said: Mapping[str, str]) -> Hires | None:
    if not {"Hires upscale", "Hires resize"} & said.keys():
        return None
    return Hires(
        scale=real(said.get("Hires upscale")),
        steps=whole(said.get("Hires steps")),
        denoise=real(said.get("Denoising strength")),
        upscaler=word(said.get("Hires upscaler")),
        size=word(said.get("Hires resize")),
    )


def _loras(found: Infotext) -> tuple[tuple[PictureLora, ...] | None, str, list[str]]:
    """The LoRAs of the prompt's tags with their hashes, or why they cannot be told; and notes."""
    hashes = named_values(found.settings.get("Lora hashes", ""))
    loras: list[PictureLora] = []
    for tag in tags_in(found.prompt):
        kind, _, text = tag[1:-1].partition(":")
        if kind not in LORA_TAGS:
            continue
        lora = read_tag(text)
        if lora is None:
            return None, f"the tag <{kind}:{text[:60]}> has a weight that is not a number", []
        # Names within Lora hashes have lost their colons and commas.
        key = lora.name.replace(":", "").replace(",", "")
        loras.append(
            PictureLora(
                name=lora.name, text_weight=lora.text_weight, unet_weight=lora.unet_weight, hash=hashes.get(key)
            )
        )
    extra = sorted(hashes.keys() - {one.name.replace(":", "").replace(",", "") for one in loras})
    notes = [f"LoRAs with a hash and without a tag in the prompt: {', '.join(extra)[:200]}"] if extra else []
    return tuple(loras), "", notes


def _own_loras(said: Mapping[str, str]) -> tuple[PictureLora, ...]:
    """The LoRAs of a picture of ours, whose weights stand in a key: ``glow: 0.8; te 0.5``, also parts and steps."""
    hashes = named_values(said.get("Lora hashes", ""))
    loras = []
    for name, text in named_values(said.get("Lora weights", "")).items():
        weight, *parts = (part.strip() for part in text.split(";"))
        own = dict(part.rpartition(" ")[::2] for part in parts)
        te, unet = (real(own.pop(part, weight)) for part in ("te", "unet"))
        called = f"{name} ({', '.join(f'{part} {value}' for part, value in own.items())})" if own else name
        loras.append(PictureLora(name=called, text_weight=te, unet_weight=unet, hash=hashes.get(name)))
    return tuple(loras)


def named_values(text: str) -> dict[str, str]:
    """``name: value, name: value`` by name, in whose values neither colon nor comma stands."""
    pairs = (one.rpartition(":") for one in text.split(","))
    return {name.strip(): value.strip() for name, colon, value in pairs if colon and name.strip()}


class _Tag(NamedTuple):
    name: str
    text_weight: float
    unet_weight: float


def read_tag(text: str) -> _Tag | None:
    """``name:text:unet``, also with ``te=`` and ``unet=``; None where a weight is not a number.

    A weight that is left out is 1, and the UNet's is the text encoder's.
    """
    name, *parts = text.split(":")
    named = dict(part.split("=", 1) for part in parts if "=" in part)
    plain = [part for part in parts if "=" not in part]
    text_weight = real(named.get("te", plain[0] if plain else "1"))
    if text_weight is None:
        return None
    unet_weight = real(named.get("unet", plain[1] if len(plain) > 1 else text_weight))
    return None if unet_weight is None else _Tag(name, text_weight, unet_weight)
