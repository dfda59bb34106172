"""What is said of a pairing: by what, of which models, with which settings, and what was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from bench.formatting import joined, listed, plural
from bench.pictures.folders import Picture
from bench.pictures.keys import lora_text, own_variant, syntax_of
from bench.records import PictureFacts

EXAMPLES = 3
MOST_REASONS = 12


def settings_of(said: Sequence[PictureFacts]) -> str:
    """What all pictures say of their settings, and what of it differs among them; empty where none says anything."""
    words = []
    for label, values in _settings(said):
        known = list(dict.fromkeys(value for value in values if value is not None))
        if known:
            words.append(f"{label} {listed(known, EXAMPLES)}" if label else listed(known, EXAMPLES))
    return ", ".join(words)


def _settings(said: Sequence[PictureFacts]) -> Iterable[tuple[str, list[str | None]]]:
    yield "", [None if one.program in ("unknown", "text file") else one.program for one in said]
    yield "sampler", [one.sampler for one in said]
    yield "schedule", [one.schedule for one in said]
    yield "steps", [None if one.steps is None else str(one.steps) for one in said]
    yield "CFG", [None if one.cfg is None else f"{one.cfg:g}" for one in said]
    yield "size", [None if one.size is None else "{} × {}".format(*one.size) for one in said]
    yield "clip skip", [None if one.clip_skip is None else str(one.clip_skip) for one in said]


def seed_word(found: Sequence[Picture]) -> str:
    """What the pictures' noise is known by."""
    return "seed" if all(one.source == "picture" for one in found) else "place within the folder"


def made_by(own: Sequence[PictureFacts]) -> str:
    """The models of a variant's pictures, with hashes and LoRAs."""
    models = Counter(
        f"{one.model or 'a model that cannot be told'}" + (f" ({one.model_hash})" if one.model_hash else "")
        for one in own
    )
    loras = Counter(lora_text(one.loras) for one in own if one.loras)
    if len(models) > 1:
        return f"the pictures are of several models: {listed(models, EXAMPLES)}"
    text = next(iter(models))
    if not loras:
        return text
    if len(loras) == 1 and sum(loras.values()) == len(own):
        return f"{text} with {next(iter(loras))}"
    return f"{text}, with LoRAs that change from prompt to prompt: {listed(loras, EXAMPLES)}"


def equal_models(own: Mapping[str, Sequence[PictureFacts]]) -> Iterable[str]:
    """A sentence on variants whose pictures all name one model, by its hash, with the same LoRAs."""
    named: dict[tuple[str, frozenset[str]], list[str]] = {}
    for variant, said in own.items():
        hashes = {one.model_hash for one in said if not own_variant(one)}  # of ours, variants have parts of their own
        if len(hashes) == 1 and (digest := hashes.pop()) is not None:
            named.setdefault((digest, frozenset(lora_text(one.loras, hashes=True) for one in said)), []).append(variant)
    for (digest, _), names in named.items():
        if len(names) > 1:
            yield f"{joined(names)} name the same model ({digest}), so that the same pictures may be compared twice."


def doubts(found: Sequence[Picture], kept: Sequence[str]) -> Iterable[str]:
    """What a reader of a comparison should know of the pictures."""
    versions = {one.facts.version for one in found if one.facts.version and one.facts.program != "unknown"}
    if len(kept) > 1 and len(versions) > 1:
        yield (
            f"The pictures come from several versions of their program ({listed(versions, EXAMPLES)}): the "
            "same seed may begin with other noise."
        )
    syntaxes = {syntax for one in found if (syntax := syntax_of(one.facts)) is not None}
    if len(syntaxes) > 1:
        yield "The prompts are in the syntax of several programs, so metrics read their weights and brackets as words."
    hashes = {len(one.facts.model_hash) for one in found if one.facts.model_hash}
    if hashes >= {8, 10}:
        yield "Some hashes of models have 8 digits and some 10; the same model has two, which cannot be matched."
    sizes = [
        one.name
        for one in found
        if one.size and one.facts.size and one.facts.hires is None and one.size != one.facts.size
    ]
    if sizes:
        yield f"{plural(len(sizes), 'picture')} of another size than was asked for: {_examples(sizes)}."
    read = [one.name for one in found if one.facts.notes]
    if read:
        said = dict.fromkeys(note for one in found for note in one.facts.notes)
        yield f"{plural(len(read), 'picture')} read with a remark: {'; '.join(list(said)[:EXAMPLES])}."


def left_out_notes(left_out: Mapping[str, list[str]]) -> list[str]:
    """A sentence on each reason for which pictures were left out, most first; rare reasons are counted together."""
    order = sorted(left_out.items(), key=lambda one: -len(one[1]))
    notes = [f"{plural(len(names), 'picture')} left out, {why}: {_examples(names)}." for why, names in order]
    rest = [name for _, names in order[MOST_REASONS:] for name in names]
    more = [f"{plural(len(rest), 'more picture')} left out, for other reasons: {_examples(rest)}."] if rest else []
    return notes[:MOST_REASONS] + more


def _examples(names: Sequence[str]) -> str:
    return listed(names, EXAMPLES)
