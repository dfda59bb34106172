"""Which variant each picture is of: its folder's, or that of its model and LoRAs."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from bench.documents import sha256_of
from bench.errors import UsageError
from bench.formatting import did_you_mean, is_good_name
from bench.pictures.folders import Picture
from bench.pictures.keys import Key, key_of, lora_text, model_of, own_variant
from bench.suite.images_table import ONE_VARIANT

Side = TypeVar("Side")


class Split(NamedTuple):
    """Pictures by variant."""

    variants: dict[str, list[Picture]]
    by: str
    """What told them apart, for a note."""
    loras_tell: bool
    """Whether LoRAs tell variants apart, so that they are no part of the key."""


def split_variants(usable: list[Picture], are_folders: bool, left_out: dict[str, list[str]]) -> Split:
    """The pictures of each variant, the reference first.

    Folders are variants where there are such. Else it is the model, by its hash or name, and the LoRAs too if the same
    prompt, seed and settings were drawn with several sets of them; LoRAs that each prompt has of its own tell nothing
    apart. Models without LoRAs come first, then by name.

    Args:
        usable: the pictures.
        are_folders: whether folders are variants.
        left_out: gets the pictures whose model cannot be told, where that of others can.
    """
    if are_folders:
        names = _names({folder: folder for folder in sorted({one.folder for one in usable})})
        variants = {name: [one for one in usable if one.folder == folder] for folder, name in names.items()}
        return Split(variants, "folder", _loras_tell(usable))
    known = [one for one in usable if model_of(one.facts)]
    if not known:
        return Split({ONE_VARIANT: usable}, "", False)
    for one in usable:
        if not model_of(one.facts):
            why = one.facts.unknown.get("model", "")
            left_out.setdefault(f"the model cannot be told: {why}", []).append(one.name)
    tell = _loras_tell(known)
    groups: dict[tuple[str, str], list[Picture]] = defaultdict(list)
    for one in known:
        loras = lora_text(one.facts.loras, hashes=True) if tell and not own_variant(one.facts) else ""
        groups[model_of(one.facts), loras].append(one)
    order = sorted(groups, key=lambda side: (side[1].count("+"), side[1] != "", _model_name(groups[side]), side))
    called = _names({side: _called(groups[side], side[1] != "") for side in order})
    return Split({called[side]: groups[side] for side in order}, "model and LoRAs" if tell else "model", tell)


def _model_name(found: Sequence[Picture]) -> str:
    said = found[0].facts
    name = own_variant(said) or said.model or said.model_hash or ""
    return re.sub(r"\.(safetensors|ckpt|sft|gguf)$", "", name.replace("\\", "/").rpartition("/")[2])


def _called(found: Sequence[Picture], with_loras: bool) -> str:
    loras = lora_text(found[0].facts.loras) if with_loras else ""
    return _model_name(found) + (f"+{loras}" if loras else "")


def _loras_tell(found: Iterable[Picture]) -> bool:
    """Whether what is equal but for the LoRAs was drawn with several sets of them."""
    seen: dict[Key, set[str]] = defaultdict(set)
    for one in found:
        seen[key_of(one, with_loras=False)].add(lora_text(one.facts.loras, hashes=True))
    return any(len(texts) > 1 for texts in seen.values())


def _names(wanted: Mapping[Side, str]) -> dict[Side, str]:
    """Good names of variants, near what is wanted, each another without case."""
    names: dict[Side, str] = {}
    taken: set[str] = set()
    for side, text in wanted.items():
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", text.replace("+", "_"))
        name = re.sub(r"\.{2,}", ".", name).strip("-._")[:80].rstrip(".")
        name = name if is_good_name(name) else f"variant-{sha256_of(text.encode('utf-8', 'replace'))[:6]}"
        tried, number = name, 2
        while tried.lower() in taken:
            tried, number = f"{name}-{number}", number + 1
        taken.add(tried.lower())
        names[side] = tried
    return names


def in_order(variants: Mapping[str, list[Picture]], chosen: Sequence[str] | None) -> dict[str, list[Picture]]:
    """The chosen variants in their order; UsageError for one that is not there."""
    if chosen is None:
        return dict(variants)
    for name in chosen:
        if name not in variants:
            near = did_you_mean(name, variants)
            raise UsageError(f"--variants: {name!r} is not one of {', '.join(variants)}{near}.")
    return {name: variants[name] for name in chosen}
