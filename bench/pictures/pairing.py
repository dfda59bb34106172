"""Pictures with what they say -> pairs: the same prompt, seed and settings drawn by several models.

The key of a picture is everything that it says but its model: prompt, negative prompt, seed, steps, sampler, schedule,
CFG, size, clip skip, random numbers, second pass, program, and whatever else it names. Pictures of two variants with
one key are a pair; LoRAs are part of the key unless they are what tells the variants apart. Nothing is paired by
likeness: what has no partner is left out, with the setting in which it differs from the nearest.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.documents import IMAGE_BYTES, read_bytes, sha256_of
from bench.errors import IncomparableError, SuiteError
from bench.formatting import joined, listed, plural
from bench.pictures.folders import Picture, Pictures
from bench.pictures.keys import TAGGED, Key, Value, key_of, syntax_of, typed_prompt, unpairable
from bench.pictures.remarks import EXAMPLES, doubts, equal_models, left_out_notes, made_by, seed_word, settings_of
from bench.pictures.variants import Split, in_order, split_variants
from bench.records import PromptSyntax
from bench.score.images import ImageFileError, open_picture
from bench.suite.images_table import ONE_VARIANT, Pair
from bench.suite.prompt_files import make_id

GRID_NAMES = re.compile(r"(xyz_)?grid(-\d.*)?", re.IGNORECASE)
LARGER = 1.9
"""So many times the pixels that were asked for are those of a grid, or of a picture that was upscaled after."""


@dataclass
class Pairing:
    """What a folder's pictures are as a table of images and prompts."""

    pairs: tuple[Pair, ...] = ()
    notes: list[str] = field(default_factory=list)
    """Sentences: what was paired by what, what was left out and why."""
    settings: str = ""
    """What all pictures say of their settings, in a line; empty where they say nothing."""
    steps: int = 0
    """Of all pictures; 0 where they differ or do not say."""
    cfg: float = 0.0
    """Likewise."""
    syntax: PromptSyntax = "plain"
    """Of all prompts; ``plain`` where they are of several programs."""


def pair_pictures(pictures: Pictures, folder: Path, chosen: Sequence[str] | None = None) -> Pairing:
    """The pairs among a folder's pictures, the reference's first.

    Args:
        pictures: what ``read_pictures`` found, at least one with a prompt.
        folder: for messages.
        chosen: the variants to compare, the first of them the reference; None for all, by their names.

    Raises:
        SuiteError: no picture can be used.
        UsageError: ``chosen`` names a variant that is not there.
        IncomparableError: the variants have no picture in common; the sentence says what each has. Of models that only
            the pictures tell apart, all are one variant then, unless some were chosen.
    """
    unused = {reason: list(names) for reason, names in pictures.left_out.items()}
    usable = _usable(pictures.found, unused)
    if not usable:
        raise SuiteError(f"{folder}: no picture of it can be used. {' '.join(left_out_notes(unused))}", _HINT)
    told = {reason: list(names) for reason, names in unused.items()}
    split = split_variants(usable, bool(pictures.folders), told)
    try:
        return _pairing(pictures, split, in_order(split.variants, chosen), folder, told)
    except IncomparableError:
        if pictures.folders or chosen is not None:
            raise
    alone = Split({ONE_VARIANT: usable}, "", False)
    found = _pairing(pictures, alone, alone.variants, folder, unused)
    names = joined(list(split.variants)) if len(split.variants) < 5 else f"{len(split.variants)} models"
    found.notes.insert(0, f"No picture of {names} is a pair with one of another, so all are one variant.")
    return found


def _pairing(
    pictures: Pictures,
    split: Split,
    variants: Mapping[str, list[Picture]],
    folder: Path,
    left_out: dict[str, list[str]],
) -> Pairing:
    keyed = {name: _by_key(found, split.loras_tell, left_out, len(variants)) for name, found in variants.items()}
    pairing = _paired(keyed, folder, left_out)
    pairing.notes = [*_about(keyed, pairing, pictures, split), *left_out_notes(left_out)]
    return pairing


_HINT = "hotart-bench score --images DIR --prompts FILE.csv, with a table of images and prompts"


# Which pictures can be used.


def _usable(found: Sequence[Picture], left_out: dict[str, list[str]]) -> list[Picture]:
    """Those that are one picture as a program drew it, with a prompt; the others by reason in ``left_out``."""
    usable = []
    for picture in found:
        reason = unusable(picture)
        if reason is None:
            usable.append(picture)
        else:
            left_out.setdefault(reason, []).append(picture.name)
    return usable


def unusable(picture: Picture) -> str | None:
    """Why a picture is none to be compared; None where it is one."""
    said = picture.facts
    if said.edited is not None:
        return "changed after being drawn (A1111's Extras)"
    if GRID_NAMES.fullmatch(picture.path.stem) or {"Script", "X Type"} & said.other.keys():
        return "a grid of pictures"
    if _too_large(picture):
        return "far larger than what was asked for: a grid, or upscaled after being drawn"
    if said.prompt is None:
        return f"the prompt cannot be told: {said.unknown['prompt']}"
    if not typed_prompt(said).strip():
        return "the prompt is empty"
    return None


def _too_large(picture: Picture) -> bool:
    said = picture.facts
    if picture.size is None or said.size is None or said.hires is not None or said.program not in TAGGED:
        return False
    return picture.size[0] * picture.size[1] > LARGER * said.size[0] * said.size[1]


# The pictures of a variant by their keys.


def _by_key(
    found: Sequence[Picture], loras_tell: bool, left_out: dict[str, list[str]], variants: int
) -> dict[Key, list[Picture]]:
    """A variant's pictures by key: one each, or where nothing is to be paired all that differ."""
    keyed: dict[Key, list[Picture]] = defaultdict(list)
    for picture in found:
        reason = unpairable(picture) if variants > 1 else None
        if reason is None:
            keyed[key_of(picture, with_loras=not loras_tell)].append(picture)
        else:
            left_out.setdefault(reason, []).append(picture.name)
    result = {}
    for key, several in keyed.items():
        kept = _without_copies(several, left_out)
        if len(kept) > 1 and variants > 1:
            why = "equal to another in all that is said, and yet of other pixels"
            left_out.setdefault(why, []).extend(one.name for one in kept)
        else:
            result[key] = kept
    return result


def _without_copies(several: list[Picture], left_out: dict[str, list[str]]) -> list[Picture]:
    """One of each picture that is there under several names; beside a PNG, a JPEG or WebP is its copy."""
    if len(several) == 1:
        return several
    kept: list[Picture] = []
    seen: set[str] = set()
    for one in sorted(several, key=lambda one: (one.path.suffix.lower() != ".png", one.name)):
        pixels = _pixels(one)
        if pixels in seen:
            left_out.setdefault("the same picture under another name", []).append(one.name)
        elif kept and kept[0].path.suffix.lower() == ".png" != one.path.suffix.lower():
            left_out.setdefault("a copy of a picture in another format", []).append(one.name)
        else:
            kept.append(one)
        seen.add(pixels)
    return kept


def _pixels(picture: Picture) -> str:
    try:
        image = open_picture(read_bytes(picture.path, IMAGE_BYTES)).image
    except (ImageFileError, OSError):
        return picture.sha256
    return sha256_of(f"{image.mode} {image.size}".encode() + image.tobytes())


# The pairs.


def _paired(keyed: Mapping[str, dict[Key, list[Picture]]], folder: Path, left_out: dict[str, list[str]]) -> Pairing:
    names = list(keyed)
    if len(names) == 1:
        return _table({names[0]: keyed[names[0]]}, list(keyed[names[0]]), _all_of(keyed))
    reference = names[0]
    kept = [name for name in names if name == reference or keyed[reference].keys() & keyed[name].keys()]
    if len(kept) == 1:
        raise IncomparableError(_nothing_in_common(keyed, folder, left_out), _HINT)
    for name in names:
        if name not in kept:
            why = f"of {name}, which has no picture in common with {reference}"
            left_out.setdefault(why, []).extend(one.name for several in keyed[name].values() for one in several)
    shared = set(keyed[reference]).intersection(*(keyed[name] for name in kept))
    if not shared:
        counts = (f"{name} shares {len(keyed[reference].keys() & keyed[name].keys()):,}" for name in kept[1:])
        raise IncomparableError(
            f"{folder}: no picture of {reference} is there for all of {joined(kept)}: {', '.join(counts)}.",
            f"hotart-bench score --images DIR --variants {reference},{kept[1]}",
        )
    for name in kept:
        _name_unpaired(name, keyed, kept, shared, left_out)
    order = [key for key in keyed[reference] if key in shared]
    used = [one for name in kept for one in _of(keyed[name], order)]
    return _table({name: keyed[name] for name in kept}, order, used)


def _of(by_key: Mapping[Key, list[Picture]], keys: Iterable[Key]) -> list[Picture]:
    return [one for key in keys for one in by_key[key]]


def _all_of(keyed: Mapping[str, dict[Key, list[Picture]]]) -> list[Picture]:
    return [one for by_key in keyed.values() for several in by_key.values() for one in several]


def _table(kept: Mapping[str, dict[Key, list[Picture]]], keys: Sequence[Key], used: Sequence[Picture]) -> Pairing:
    """The lines of the table: of each prompt the keys are its samples, by seed and then by settings."""
    prompts: dict[tuple[str, str], list[Key]] = defaultdict(list)
    for key in keys:
        said = dict(key)
        prompts[str(said["prompt"]), str(said["negative prompt"] or "")].append(key)
    pairs = []
    for (prompt, negative), own in prompts.items():
        own.sort(key=lambda key: [(str(type(dict(key)["seed"])), dict(key)["seed"]), str(key)])
        prompt_id = _prompt_id(prompt, negative)
        for name, by_key in kept.items():
            several = _of(by_key, own)
            pairs += [
                Pair(
                    image=one.path,
                    prompt=prompt,
                    prompt_id=prompt_id,
                    variant=name,
                    where=one.name,
                    tags=one.tags,
                    negative=negative,
                    sample=number,
                )
                for number, one in enumerate(several)
            ]
    syntaxes = {syntax for one in used if (syntax := syntax_of(one.facts)) is not None}
    steps, cfg = {one.facts.steps for one in used}, {one.facts.cfg for one in used}
    return Pairing(
        tuple(pairs),
        settings=settings_of([one.facts for one in used]),
        steps=(steps.pop() or 0) if len(steps) == 1 else 0,
        cfg=(cfg.pop() or 0.0) if len(cfg) == 1 else 0.0,
        syntax=syntaxes.pop() if len(syntaxes) == 1 else "plain",
    )


def _prompt_id(prompt: str, negative: str) -> str:
    """That of the prompt in a prompt file; of one with a negative prompt, the hash is of both."""
    if not negative:
        return make_id(prompt)
    words = make_id(prompt).rpartition("-")[0]
    both = f"{prompt}\nNegative prompt: {negative}"
    return f"{words}-{sha256_of(both.encode())[:8]}"


def _name_unpaired(
    name: str,
    keyed: Mapping[str, dict[Key, list[Picture]]],
    kept: Sequence[str],
    shared: set[Key],
    left_out: dict[str, list[str]],
) -> None:
    """Say of each picture without a partner in which setting it differs from the nearest of another variant."""
    others = [other for other in kept if other != name]
    nearest = {other: _index(keyed[other]) for other in others}
    for key, several in keyed[name].items():
        if key not in shared:
            lacking = next(other for other in others if key not in keyed[other])
            why = f"of {name}, without a partner in {lacking}: {_difference(key, nearest[lacking])}"
            left_out.setdefault(why, []).extend(one.name for one in several)


def _index(keys: Iterable[Key]) -> dict[tuple[object, ...], Key]:
    """A key by prompt, negative prompt and seed, by prompt and seed, and by its prompt alone; the first of each."""
    found: dict[tuple[object, ...], Key] = {}
    for key in keys:
        said = dict(key)
        for near in _nearness(said):
            found.setdefault(near, key)
    return found


def _nearness(said: Mapping[str, Value]) -> tuple[tuple[object, ...], ...]:
    prompt, negative, seed = said["prompt"], said["negative prompt"], said["seed"]
    return ("all", prompt, negative, seed), ("seed", prompt, seed), ("prompt", prompt)


def _difference(key: Key, index: Mapping[tuple[object, ...], Key]) -> str:
    said = dict(key)
    near = next((index[one] for one in _nearness(said) if one in index), None)
    if near is None:
        return "none has this prompt"
    theirs = dict(near)
    differing = [name for name in dict.fromkeys((*said, *theirs)) if said.get(name) != theirs.get(name)]
    if "program" in differing and "Automatic" in (said["schedule"], theirs["schedule"]):
        differing.remove("schedule")  # Automatic is a name of one of the programs alone
    if "seed" in differing:
        return "none of this prompt has its seed"
    told = [name for name in differing if name != "graph"] or ["another part of the graph"]
    if told == ["another part of the graph"]:
        return f"it differs in {told[0]}"
    shown = [f"{name} ({_short(said.get(name))}, there {_short(theirs.get(name))})" for name in told[:4]]
    return f"it differs in {joined(shown)}"


def _short(value: Value) -> str:
    text = "none" if value is None else " ".join(str(value).split())
    return text if len(text) <= 40 else f"{text[:39]}…"


def _nothing_in_common(
    keyed: Mapping[str, dict[Key, list[Picture]]], folder: Path, left_out: dict[str, list[str]]
) -> str:
    names = list(keyed)
    parts = []
    for name in names:
        prompts = {str(dict(key)["prompt"]) for key in keyed[name]}
        seeds = sorted({str(dict(key)["seed"]) for key in keyed[name]})
        pictures, several = plural(len(keyed[name]), "picture"), plural(len(prompts), "prompt")
        first = next(iter(sorted(prompts)), "")
        has = f"{name} has {pictures} of {several}"
        parts.append(has + (f", such as {_short(first)!r}, seeds {listed(seeds, EXAMPLES)}" if prompts else ""))
    index = _index(keyed[names[1]])
    key = next(iter(keyed[names[0]]), None)
    nearest = f" The nearest: {_difference(key, index)}." if key is not None and index else ""
    return (
        f"{folder}: {joined(names)} have no picture in common, by prompt, negative prompt, seed and settings: "
        f"{'; '.join(parts)}.{nearest} {' '.join(left_out_notes(left_out))}"
    ).rstrip()


# What is said of it.


def _about(
    keyed: Mapping[str, dict[Key, list[Picture]]], pairing: Pairing, pictures: Pictures, split: Split
) -> Iterable[str]:
    """How the pictures were paired, and which model each variant is."""
    used = {pair.where for pair in pairing.pairs}
    kept = list(dict.fromkeys(pair.variant for pair in pairing.pairs))
    prompts = len({pair.prompt_id for pair in pairing.pairs})
    count = len(pairing.pairs) // len(kept)
    found = [one for one in pictures.found if one.name in used]
    if len(kept) > 1:
        yield (
            f"{plural(count, 'picture')} of each of {joined(kept)}, paired by what they say: the same prompt, "
            f"negative prompt, {seed_word(found)} and settings, {plural(prompts, 'prompt')} in all. Variants are told "
            f"apart by {split.by}; {kept[0]} is the reference."
        )
    else:
        yield f"{plural(count, 'picture')} of {plural(prompts, 'prompt')}, all of one variant."
    if pairing.settings:
        yield f"The pictures say of their settings: {pairing.settings}."
    own = {name: [one.facts for one in _all_of({name: keyed[name]}) if one.name in used] for name in kept}
    yield from (f"{name}: {made_by(said)}." for name, said in own.items())
    yield from equal_models(own)
    yield from doubts(found, kept)
