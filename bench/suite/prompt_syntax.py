"""Whose syntax prompts are written in: how each is read, what of it is refused, and which words metrics are given.

``plain`` prompts have none: weights and brackets are drawn as words, and what looks like syntax is named, so that
nobody waits for it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from bench.errors import SuiteError
from bench.formatting import joined, plural, quoted
from bench.records import Embedding, Prompt, Settings
from bench.suite import a1111, comfyui
from bench.suite.embeddings import comfyui_names, find_embeddings, names_in
from bench.suite.prompt_weights import PromptError, Segment, tags_in, without_tags

SYNTAX: dict[str, re.Pattern[str]] = {
    "a weight": re.compile(
        r"\([^()]*:\s{0,4}[-+]?\.?\d[\d.eE+-]{0,16}\s{0,4}\)|\(\([^()]+\)\)"
        r"|(?<![:;(-])\({2,16}\w[^()]{0,20}|(?<![\w.])\d+(?:\.\d+)?::|::-?\d"
    ),
    "an escaped bracket": re.compile(r"\\[()\[\]]"),
    "a word in square brackets": re.compile(r"\[(?!sic\]|\d{1,6}\])[^\[\]:|]{1,60}\]"),
    "a comment": re.compile(r"(?<!\S)#\s[^\n]{0,40}"),
    "a LoRA or embedding tag": re.compile(r"<(?:lora|lyco|hypernet|embedding):[^<>]*>|\bembedding:\w+"),
    "BREAK": re.compile(r"\bBREAK\b"),
    "AND": re.compile(r"\bAND\b"),
    "prompt editing": re.compile(r"\[[^\[\]:|]*[:|][^\[\]]*\]"),
    "alternatives": re.compile(r"\{[^{}|]*\|[^{}]*\}"),
    "a wildcard": re.compile(r"__[\w/*.-]{0,60}\w__"),
    "an option": re.compile(r"(?<!\S)--[a-z]\w*"),
    "an end that A1111 takes for a weight": re.compile(
        r"\S{0,20}:\s{0,4}[-+]?(?:\d{1,9}\.?|\d{0,9}\.\d{1,9})(?=\s*\Z)"
    ),
}
"""What it is called, and how it is recognised: weights of AUTOMATIC1111 and ComfyUI ``(kite:1.2)``, ``((kite`` and
``[kite]``, of Midjourney and Dynamic Prompts ``2::kite``, brackets behind a backslash, tags ``<lora:name:0.8>``,
``BREAK``, ``# note``, ``[kite:boat:0.5]`` and ``[kite|boat]``, ``{red|blue}``, ``__animals__``, ``--ar 16:9``; a prompt
that ends in ``16:9`` would lose ``:9`` in A1111. ``(1910)``, ``[sic]`` and ``[2]`` are no syntax."""
EXAMPLE_LENGTH = 40
"""Longest example in characters."""


MOST_REFUSED = 8
"""Of prompts that one error names; the others are counted."""


# What looks like syntax in plain prompts.


def syntax_notes(prompts: Iterable[Prompt]) -> tuple[str, ...]:
    """A sentence on the syntax that prompts and negative prompts hold, each kind with an example; none without any."""
    found = [
        (prompt.id, kind, match[0])
        for prompt in prompts
        for text in (prompt.text, prompt.negative)
        for kind, pattern in SYNTAX.items()
        if (match := pattern.search(text))
    ]
    if not found:
        return ()
    holding, kinds = _counted(found)
    return (
        f"{holding} syntax of other programs, which is drawn as words here: {kinds}. "
        'prompt_syntax = "a1111" or "comfyui" in [settings] reads it.',
    )


def _counted(found: Sequence[tuple[str, str, str]]) -> tuple[str, str]:
    """How many prompts hold something, and each kind with its first example, of (prompt id, kind, example)."""
    holding = len({prompt_id for prompt_id, _, _ in found})
    examples = {kind: example for _, kind, example in reversed(found)}
    kinds = dict.fromkeys(kind for _, kind, _ in found)
    named = [kind if examples[kind] == kind else f"{kind} ({_cut(examples[kind])})" for kind in kinds]
    return f"{plural(holding, 'prompt')} {'holds' if holding == 1 else 'hold'}", joined(named)


def _cut(text: str) -> str:
    return text if len(text) <= EXAMPLE_LENGTH else f"{text[: EXAMPLE_LENGTH - 1]}…"


# Reading a prompt.


def read_segments(text: str, settings: Settings) -> tuple[Segment, ...]:
    """A prompt's weighted segments in the syntax of the suite, which is not ``plain``; its tags are left out.

    Raises:
        PromptError: it cannot be read; ``check_prompts`` has told so before.
    """
    return _parse(bare_text(text, settings), settings)


def bare_text(text: str, settings: Settings) -> str:
    """A prompt without what its program takes out before it reads it: A1111's comments, and tags."""
    if settings.prompt_syntax == "plain":
        return text
    return without_tags(a1111.without_comments(text) if settings.prompt_syntax == "a1111" else text)


def _parse(text: str, settings: Settings) -> tuple[Segment, ...]:
    return a1111.parse(text) if settings.prompt_syntax == "a1111" else comfyui.parse(text)


def plain_text(text: str, settings: Settings) -> str:
    """The words of a prompt that its picture should show: what metrics and judges are given.

    Without weights, brackets, tags, BREAK and the names of embeddings, white space made single blanks; words whose
    weight is zero or negative are left out. A ``plain`` prompt, and one that cannot be read, as it stands.
    """
    if settings.prompt_syntax == "plain":
        return text
    return _words(text, settings)


@lru_cache(4096)
def _words(text: str, settings: Settings) -> str:
    try:
        segments = read_segments(text, settings)
    except PromptError:  # of a picture from elsewhere; a suite's prompts are checked
        return text
    parts = [" " if one.is_break else one.text for one in segments if one.is_break or one.weight > 0]
    if settings.prompt_syntax == "comfyui":
        parts = [comfyui.without_embeddings(one) for one in parts]
    words = "".join(parts)
    for one in settings.embeddings if settings.prompt_syntax == "a1111" else ():
        words = re.sub(rf"(?<!\w){re.escape(one.name)}(?!\w)", "", words, flags=re.IGNORECASE)
    return " ".join(words.split())


# Checking the prompts of a suite.


def check_prompts(
    file: str, prompts: Sequence[Prompt], settings: Settings, folder: Path | None
) -> tuple[tuple[Embedding, ...], tuple[str, ...]]:
    """The embeddings that prompts in the syntax of another program use, and sentences on what its author should know.

    Args:
        file: of the suite, for messages.
        prompts: of the suite.
        settings: of the suite, whose ``embeddings`` are not looked at.
        folder: of the embeddings; None where the suite names none.

    Raises:
        SuiteError: a prompt that cannot be read, or what is not drawn here, of all prompts at once.
    """
    if settings.prompt_syntax == "plain":
        return (), ()
    there = None if folder is None else find_embeddings(folder)
    if there is not None and settings.prompt_syntax == "comfyui":
        there = comfyui_names(there)
    names = () if there is None else tuple(there.files)
    refused = [
        (prompt.id, clause)
        for prompt in prompts
        for negative, text in enumerate((prompt.text, prompt.negative))
        for clause in _refusals(text, settings, names, negative=bool(negative))
    ]
    if refused:
        raise _refusal(file, refused, settings)
    used = dict.fromkeys(_used(prompts, settings, names))
    embeddings = () if there is None else tuple(there.record(name) for name in sorted(used))
    return embeddings, tuple(_notes(prompts, settings, embeddings, unused=there is not None and not used))


def _refusals(text: str, settings: Settings, names: Collection[str], *, negative: bool) -> Iterator[str]:
    syntax = settings.prompt_syntax
    if settings.prompt_loras == "refuse":
        source = a1111.without_comments(text) if syntax == "a1111" else text
        for tag in tags_in(source):
            yield f'{quoted(tag)} (LoRAs belong to variants; prompt_loras = "ignore" leaves tags out)'
    bare = bare_text(text, settings)
    yield from a1111.refusals(bare, negative=negative) if syntax == "a1111" else comfyui.refusals(bare)
    for kind in ("alternatives", "a wildcard"):
        if found := SYNTAX[kind].search(bare):
            yield f"{quoted(found[0])} ({kind}, of which an extension draws one; write what is to be drawn)"
    try:
        segments = _parse(bare, settings)
        if syntax == "comfyui":
            for one in segments:
                list(comfyui.words(one.text, names))
    except PromptError as error:
        yield str(error)


def _refusal(file: str, refused: Sequence[tuple[str, str]], settings: Settings) -> SuiteError:
    clauses = [f"{prompt_id}: {clause}" for prompt_id, clause in dict.fromkeys(refused)]
    more = f"; and {len(clauses) - MOST_REFUSED:,} more" if len(clauses) > MOST_REFUSED else ""
    return SuiteError(
        f"{file}: what these prompts hold is not drawn here (prompt_syntax = {settings.prompt_syntax!r}): "
        f"{'; '.join(clauses[:MOST_REFUSED])}{more}.",
        "change the prompts; docs/prompts.md has what is read",
    )


def _used(prompts: Iterable[Prompt], settings: Settings, names: Collection[str]) -> Iterator[str]:
    if not names:
        return
    segments = [
        one.text
        for prompt in prompts
        for text in (prompt.text, prompt.negative)
        for one in _parse(bare_text(text, settings), settings)
    ]
    if settings.prompt_syntax == "a1111":
        yield from names_in(dict.fromkeys(segments), names)
        return
    for text in segments:
        yield from (word.text for word in comfyui.words(text, names) if word.is_embedding)


def embeddings_of(prompt: Prompt, settings: Settings) -> tuple[Embedding, ...]:
    """The embeddings of the suite that a prompt or its negative prompt uses."""
    names = [one.name for one in settings.embeddings]
    used = set(_used([prompt], settings, names))
    return tuple(one for one in settings.embeddings if one.name in used)


def _notes(
    prompts: Sequence[Prompt], settings: Settings, embeddings: Sequence[Embedding], *, unused: bool
) -> Iterator[str]:
    if embeddings:
        yield f"Prompts use the embeddings {joined([one.name for one in embeddings])}."
    if unused:
        yield "No prompt uses an embedding of the folder that settings.embeddings names."
    tags = [
        (prompt.id, "tags, which are left out", tag)
        for prompt in prompts
        for text in (prompt.text, prompt.negative)
        for tag in tags_in(text)
    ]
    own = a1111.notes if settings.prompt_syntax == "a1111" else comfyui.notes
    said = [
        (prompt.id, kind, example)
        for prompt in prompts
        for text in (prompt.text, prompt.negative)
        for kind, example in own(without_tags(text))
    ]
    for found in filter(None, (tags, said)):
        holding, kinds = _counted(found)
        yield f"{holding} {kinds}."
