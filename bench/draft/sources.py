"""What ``--checkpoint`` and ``--lora`` name: sources and weights, the variants that they make, and their names."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

import msgspec

from bench.checkpoints.locate import FILES, HUB_NAME, LORA_FILES, SHIPPED
from bench.documents import exists
from bench.errors import UsageError
from bench.formatting import is_good_name
from bench.records import HEAVIEST_LORA, Lora, Variant
from bench.suite.runtimes import parse_runtime

_WEIGHT = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d{1,3})?", re.IGNORECASE | re.ASCII)
_SUFFIXES = re.compile(rf"({'|'.join(map(re.escape, FILES))})$", re.IGNORECASE)
LONGEST_STEM = 40
"""Characters of a file's name that go into a variant's, which has up to three of them and at most 100."""


def read_lora(text: str) -> tuple[Lora, bool]:
    """A LoRA as ``--lora`` names it, and whether its weight was given: ``SOURCE`` or ``SOURCE:WEIGHT``.

    Only a number after the last colon is a weight, since drives (``C:\\x.safetensors``), files of the Hub
    (``owner/name:file.safetensors``) and shipped LoRAs (``mini:spo``) have colons of their own.

    Raises:
        UsageError: the source is empty, what follows ``.safetensors:`` is no number, or the weight is too large.
    """
    source, colon, last = text.rpartition(":")
    if colon and _WEIGHT.fullmatch(last):
        weight = float(last)
        if not abs(weight) <= HEAVIEST_LORA:
            raise UsageError(f"--lora: the weight {last} of {source} is beyond {HEAVIEST_LORA:g}.")
        return Lora(path=_named(source, "--lora"), weight=weight), True
    if colon and _SUFFIXES.search(source):
        number = last.replace(",", ".")
        better = f"{source}:{number}" if _WEIGHT.fullmatch(number) else f"{source}:0.8"
        raise UsageError(f"--lora: {last!r} after the last colon is no weight; write it as in {better}.")
    return Lora(path=_named(text, "--lora")), False


def read_checkpoint(text: str) -> str:
    """A checkpoint as ``--checkpoint`` names it; UsageError where it is empty or has a weight, as LoRAs do."""
    source, colon, last = text.rpartition(":")
    if colon and _SUFFIXES.search(source) and _WEIGHT.fullmatch(last):
        raise UsageError(f"--checkpoint: {text} has a weight, which only a LoRA has.", f"--lora {text}")
    return _named(text, "--checkpoint")


def _named(source: str, flag: str) -> str:
    if not source.strip():
        raise UsageError(f"{flag}: {source!r} names nothing.")
    if not source.isprintable() and any(character < " " or character == "\x7f" for character in source):
        raise UsageError(f"{flag}: {source!r} holds a control character, which no suite may name; rename the file.")
    return source


# The variants.


def make_variants(checkpoints: Sequence[str], loras: Sequence[Lora]) -> tuple[Variant, ...]:
    """Each checkpoint, the first the reference, then each once more with each LoRA.

    A variant is called as its files are: ``old``, ``old-spo``; with a weight other than 1, ``old-spo-0.8``.

    Raises:
        UsageError: no checkpoint, or one of either is given twice.
    """
    if not checkpoints:
        raise UsageError("There is no checkpoint; name one.", "add --checkpoint old.safetensors")
    _refuse_twice("--checkpoint", checkpoints)
    _refuse_twice("--lora", [f"{lora.path}:{lora.weight:g}" for lora in loras])
    names = _unique([stem_of(source, "checkpoint") for source in checkpoints])
    plain = [Variant(name=name, checkpoint=source) for name, source in zip(names, checkpoints, strict=True)]
    ends = _unique([_end_of(lora) for lora in loras])
    with_loras = [
        Variant(name=f"{one.name}-{end}", checkpoint=one.checkpoint, loras=(lora,))
        for one in plain
        for end, lora in zip(ends, loras, strict=True)
    ]
    every = _unique([one.name for one in (*plain, *with_loras)])
    return tuple(
        Variant(name=name, checkpoint=one.checkpoint, loras=one.loras)
        for name, one in zip(every, (*plain, *with_loras), strict=True)
    )


def with_runtimes(variants: Sequence[Variant], runtimes: Sequence[str]) -> tuple[Variant, ...]:
    """The variants, then all of them once more with each runtime: ``old``, ``old-deepcache-3``.

    Raises:
        UsageError: a runtime that there is not, or one that is given twice.
    """
    try:
        texts = [parse_runtime(text).text for text in runtimes]
    except UsageError as error:
        raise UsageError(f"--runtime: {error.message}", error.hint) from error
    _refuse_twice("--runtime", texts)
    faster = [
        msgspec.structs.replace(one, name=f"{one.name}-{re.sub('[:+]', '-', text)}", runtime=text)
        for text in texts
        for one in variants
    ]
    names = _unique([one.name for one in (*variants, *faster)])
    named = zip(names, (*variants, *faster), strict=True)
    return tuple(msgspec.structs.replace(one, name=name) for name, one in named)


def _refuse_twice(flag: str, texts: Sequence[str]) -> None:
    for index, text in enumerate(texts):
        if text in texts[:index]:
            raise UsageError(f"{flag}: {text} is given twice.")


def _end_of(lora: Lora) -> str:
    stem = stem_of(lora.path, "lora")
    return stem if lora.weight == 1 else f"{stem}-{lora.weight:g}".replace("+", "")


def _unique(names: Sequence[str]) -> list[str]:
    """The names, a number after those that were there before; folders of images may not differ in case alone."""
    found: list[str] = []
    taken: set[str] = set()
    for name in names:
        free = name
        for number in range(2, 2 + len(names)):
            if free.casefold() not in taken:
                break
            free = f"{name}-{number}"
        taken.add(free.casefold())
        found.append(free)
    return found


def stem_of(source: str, otherwise: str) -> str:
    """What a source is called, as a good name: its file's or repository's name without its ending.

    Paths of Windows and of Linux are told apart by nothing here: both kinds of separators end a folder's name. A file
    that trainers always call the same has its folder's name.

    Args:
        source: a path, a Hub id, or a shipped family or LoRA.
        otherwise: the name where nothing of the source's can be kept.
    """
    parts = [part for part in re.split(r"[/\\:]", source) if part.strip(" .")]
    if len(parts) > 1 and parts[-1] in LORA_FILES:
        parts.pop()
    last = parts[-1] if parts else ""
    stem = _SUFFIXES.sub("", last)
    stem = stem if stem != last else last.partition("@")[0]  # owner/name@revision
    plain = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode()
    name = re.sub(r"\.{2,}", ".", re.sub(r"[^A-Za-z0-9._-]+", "-", plain))
    name = name.lstrip("._-")[:LONGEST_STEM].rstrip("._-") or otherwise
    return name if is_good_name(name) else f"{otherwise}-{name}"


# Where a source is, as a suite file names it.


def is_file_name(source: str) -> bool:
    """Whether a source can only be a path of this machine: neither a shipped one nor of the Hub."""
    if source == "mini" or source.startswith(("mini:", "random:")):
        return False
    found = HUB_NAME.fullmatch(source)
    return found is None or (found["file"] is None and _SUFFIXES.search(source) is not None)


def from_folder(source: str, folder: Path) -> str:
    """A source as a suite file in ``folder`` names it, so that the same file is found from there.

    Absolute paths of any system, Hub ids and shipped names stay. A relative path that is there, or that can be nothing
    else, starts from the suite's folder; on Windows one of another drive becomes absolute.
    """
    if not _is_relative(source):
        return source
    try:
        found = os.path.relpath(source, folder)
    except ValueError:
        return str(Path(source).absolute())
    # A folder that is called as a shipped family or a Hub id is: only with a dot before it is it a path.
    return found if is_file_name(found) else str(os.path.join(os.curdir, found))  # noqa: PTH118 -- Path drops the dot


def _is_relative(source: str) -> bool:
    if source.startswith("~") or PurePosixPath(source).is_absolute() or PureWindowsPath(source).drive:
        return False
    return is_file_name(source) or (source not in SHIPPED and exists(Path(source)))
