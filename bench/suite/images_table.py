"""Which prompt belongs to which image: the table that comes with external images.

``.csv`` with a header line, or ``.jsonl`` with one object a line: ``image`` (a path within the folder of images),
``prompt``, and, where several models are compared, ``variant``. Names of columns count without case; other
columns are left alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from bench.documents import exists, read_text, resolved
from bench.errors import SuiteError, UsageError
from bench.formatting import NAME_RULE, did_you_mean, is_good_name, listed
from bench.suite.prompt_files import csv_rows, read_jsonl, read_table

SUFFIXES = (".csv", ".jsonl")
IMAGE_FILES = (".png", ".jpg", ".jpeg", ".webp")
NOT_GIVEN = "no image was given"
"""The error of a sample that other variants or prompts have and this one lacks."""
ONE_VARIANT = "images"
"""What the only variant is called where the table names none."""


class Pair(NamedTuple):
    """One line of the table."""

    image: Path
    """The file, which is there."""
    prompt: str
    variant: str
    where: str
    """File and line, for messages."""


def read_pairs(path: Path, folder: Path) -> tuple[Pair, ...]:
    """The lines of the table, in its order, each with an image file that is there.

    Args:
        path: the table.
        folder: where the images lie.

    Raises:
        UsageError: ``folder`` is not a folder.
        SuiteError: the table cannot be read, holds nothing, or a line of it is wrong: no image, one that is
            missing, outside the folder or not PNG, JPEG or WebP by its name, an empty prompt, a variant's name
            that will not do, or an image that is named twice for one variant.
    """
    if not exists(folder) or not folder.is_dir():
        raise UsageError(f"--images: {folder} is not a folder.")
    if path.suffix.lower() not in SUFFIXES:
        raise SuiteError(f"{path}: the table of images and prompts ends in {' or '.join(SUFFIXES)}.")
    text = read_text(path)
    if path.suffix.lower() == ".jsonl":
        entries = read_jsonl(path, text)
    else:
        entries = read_table(path, csv_rows(path, text), _refuse_missing_columns)
    pairs = tuple(_pair(where, value, folder) for where, value in entries)
    if not pairs:
        raise SuiteError(f"{path}: names no image.")
    _refuse_double(pairs)
    return pairs


def unnamed_images(pairs: tuple[Pair, ...], folder: Path) -> int:
    """How many image files of the folder no line of the table names; folders within it are not looked into."""
    named = {resolved(pair.image) for pair in pairs}
    there = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_FILES and path.is_file()]
    return sum(resolved(path) not in named for path in there)


def _refuse_missing_columns(where: str, columns: list[str]) -> None:
    for needed in ("image", "prompt"):
        if needed not in columns:
            near = next(filter(None, (did_you_mean(name, (needed,)) for name in columns)), "")
            raise SuiteError(
                f"{where}: there is no {needed!r}{near}; needed are image and prompt, and variant where there are "
                f"several; it has {listed(columns)}."
            )


def _pair(where: str, value: object, folder: Path) -> Pair:
    if not isinstance(value, dict):
        raise SuiteError(f'{where}: a line is an object such as {{"image": "1.png", "prompt": "a fox"}}.')
    fields = {str(name).strip().lower(): one for name, one in value.items()}
    _refuse_missing_columns(where, list(fields))
    prompt = _text(where, "prompt", fields)
    if not prompt.strip():
        raise SuiteError(f"{where}: the prompt is empty; an image is scored against its prompt.")
    variant = _text(where, "variant", fields) if fields.get("variant") else ONE_VARIANT
    if not is_good_name(variant):
        raise SuiteError(f"{where}: the variant name {variant!r} will not do; it is {NAME_RULE}.")
    return Pair(_image(where, _text(where, "image", fields), folder), prompt, variant, where)


def _text(where: str, name: str, fields: Mapping[str, object]) -> str:
    value = fields[name]
    if not isinstance(value, str):
        raise SuiteError(f"{where}: {name} is {value!r}; it must be a text.")
    return value


def _image(where: str, name: str, folder: Path) -> Path:
    path = folder / name
    if path.suffix.lower() not in IMAGE_FILES:
        raise SuiteError(f"{where}: {name!r} is not an image by its name, which ends in {', '.join(IMAGE_FILES)}.")
    if not exists(path) or not path.is_file():
        near = did_you_mean(path.name, (file.name for file in folder.iterdir()))
        raise SuiteError(f"{where}: there is no image {name!r} in {folder}{near}.")
    # A table from elsewhere must not bring any file of this machine into a report.
    if not resolved(path).is_relative_to(resolved(folder)):
        raise SuiteError(f"{where}: the image {name!r} lies outside {folder}.")
    return path


def _refuse_double(pairs: tuple[Pair, ...]) -> None:
    folded: dict[str, str] = {}
    seen: dict[tuple[str, Path], str] = {}
    for pair in pairs:
        other = folded.setdefault(pair.variant.lower(), pair.variant)
        if other != pair.variant:
            raise SuiteError(f"{pair.where}: the variants {other!r} and {pair.variant!r} differ only in case.")
        first = seen.setdefault((pair.variant, resolved(pair.image)), pair.where)
        if first != pair.where:
            raise SuiteError(
                f"{pair.where}: the image {pair.image.name!r} is named twice for {pair.variant!r}; first at {first}."
            )
