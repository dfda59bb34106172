"""Which prompt belongs to which image: the table that comes with external images.

``.csv`` with a header line, or ``.jsonl`` with one object a line: ``image`` or ``file_name`` (a path within the folder
of images), ``prompt``, and, where several models are compared, ``variant``; ``group`` where prompts are not independent
(``Prompt.group``), and ``tags`` as in a prompt file. Names of columns are found by their letters and digits; other
columns are left alone, and a note of the run says so; one that looks like a slip of the pen is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from bench.documents import exists, read_text, resolved
from bench.errors import SuiteError, UsageError
from bench.formatting import NAME_RULE, did_you_mean, is_good_name, listed, quoted
from bench.suite.prompt_files import by_key, check_prompt, make_id, present, refuse_slips, tags_of
from bench.suite.prompt_formats import PROMPT_KEYS, csv_rows, delimiter_of, read_jsonl, read_table

SUFFIXES = (".csv", ".jsonl")
IMAGE_FILES = (".png", ".jpg", ".jpeg", ".webp")
NO_IMAGES = "hotart-bench score --images DIR, with a folder that holds pictures, or folders of them"
"""The hint where a folder holds none."""
NOT_GIVEN = "no image was given"
"""The error of a sample that other variants or prompts have and this one lacks."""
ONE_VARIANT = "images"
"""What the only variant is called where the table names none."""
COLUMNS = {
    "image": ("image", "filename", "imagepath"),
    "prompt": PROMPT_KEYS,
    "variant": ("variant",),
    "group": ("group",),
    "tags": ("tags", "tag"),
}
"""What each column may be called, by ``field_key``."""


class Pair(NamedTuple):
    """One line of the table."""

    image: Path
    """The file, which is there."""
    prompt: str
    """Empty where there is no table."""
    prompt_id: str
    """Made from the prompt; where there is no table from the file's name, so that each image stands alone."""
    variant: str
    where: str
    """File and line, for messages."""
    group: str = ""
    """Of the prompt."""
    tags: tuple[str, ...] = ()
    """Likewise."""
    left_alone: tuple[str, ...] = ()
    """Columns that were not taken."""
    negative: str = ""
    """Of the prompt, where pictures say it themselves."""
    sample: int | None = None
    """Which sample of its prompt it is, where the seeds of pictures say so; None for the order of the files' names."""


def read_pairs(path: Path | None, folder: Path) -> tuple[Pair, ...]:
    """The lines of the table, in its order, each with an image file that is there.

    Args:
        path: the table; None for the image files of the folder by their names, without prompts.
        folder: where the images lie.

    Raises:
        UsageError: ``folder`` is not a folder.
        SuiteError: the table cannot be read, holds nothing, or a line of it is wrong: no image, one that is
            missing, outside the folder or not PNG, JPEG or WebP by its name, an empty prompt, a variant's name
            that will not do, or an image that is named twice for one variant.
    """
    refuse_no_folder(folder)
    if path is None:
        return _without_prompts(folder)
    if path.suffix.lower() not in SUFFIXES:
        raise SuiteError(f"{path}: the table of images and prompts ends in {' or '.join(SUFFIXES)}.")
    text = read_text(path)
    if path.suffix.lower() == ".jsonl":
        entries = read_jsonl(path, text).found
    else:
        entries = list(read_table(path, csv_rows(path, text, delimiter_of(path, text, COLUMNS["image"]))))
    pairs = tuple(_pair(where, value, folder) for where, value in entries)
    if not pairs:
        raise SuiteError(f"{path}: names no image.")
    _refuse_double(pairs)
    return pairs


def refuse_no_folder(folder: Path) -> None:
    """Raises UsageError unless there is a folder of this name."""
    if not exists(folder) or not folder.is_dir():
        raise UsageError(f"--images: {folder} is not a folder.")


def unnamed_images(pairs: tuple[Pair, ...], folder: Path) -> int:
    """How many image files of the folder no line of the table names; folders within it are not looked into."""
    named = {resolved(pair.image) for pair in pairs}
    return sum(resolved(path) not in named for path in _images_in(folder))


def _images_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_FILES and path.is_file())


def _without_prompts(folder: Path) -> tuple[Pair, ...]:
    pairs = tuple(Pair(file, "", make_id(file.name), ONE_VARIANT, str(file)) for file in _images_in(folder))
    if not pairs:
        raise SuiteError(f"{folder}: holds no image by its name, which ends in {', '.join(IMAGE_FILES)}.", NO_IMAGES)
    return pairs


def _pair(where: str, value: object, folder: Path) -> Pair:
    if not isinstance(value, dict):
        raise SuiteError(f'{where}: a line is an object such as {{"image": "1.png", "prompt": "a fox"}}.')
    fields = by_key(where, value)
    taken = {column: key for column, keys in COLUMNS.items() if (key := present(fields, keys)) is not None}
    others = {key: name for key, (name, _) in fields.items() if key not in taken.values()}
    refuse_slips(where, others, taken, COLUMNS)
    for needed in ("image", "prompt"):
        if needed not in taken:
            raise SuiteError(
                f"{where}: there is no {needed!r}; needed are image and prompt, and variant where there are several; "
                f"it has {listed(name for name, _ in fields.values())}."
            )
    found = {column: fields[key][1] for column, key in taken.items()}
    prompt = _text(where, "prompt", found["prompt"])
    if not prompt.strip():
        raise SuiteError(f"{where}: the prompt is empty; leave --prompts out to score images without prompts.")
    check_prompt(where, prompt)
    variant = _text(where, "variant", found.get("variant") or ONE_VARIANT)
    if not is_good_name(variant):
        raise SuiteError(f"{where}: the variant name {quoted(variant)} will not do; it is {NAME_RULE}.")
    image = _image(where, _text(where, "image", found["image"]), folder)
    group = _text(where, "group", found.get("group") or "").strip()
    tags = tuple(dict.fromkeys(tags_of(where, "tags", found.get("tags"))))
    return Pair(image, prompt, make_id(prompt), variant, where, group, tags, tuple(others.values()))


def _text(where: str, name: str, value: object) -> str:
    if not isinstance(value, str):
        raise SuiteError(f"{where}: {name} is {value!r}; it must be a text.")
    return value


def _image(where: str, name: str, folder: Path) -> Path:
    path = folder / name
    if path.suffix.lower() not in IMAGE_FILES:
        raise SuiteError(f"{where}: {name!r} is not an image by its name, which ends in {', '.join(IMAGE_FILES)}.")
    if not exists(path) or not path.is_file():
        near = did_you_mean(path.name, (file.name for file in _images_in(folder)))
        raise SuiteError(f"{where}: there is no image {name!r} in {folder}{near}.")
    # A table from elsewhere must not bring any file of this machine into a report.
    if not resolved(path).is_relative_to(resolved(folder)):
        raise SuiteError(f"{where}: the image {name!r} lies outside {folder}.")
    return path


def _refuse_double(pairs: tuple[Pair, ...]) -> None:
    folded: dict[str, str] = {}
    groups: dict[str, Pair] = {}
    seen: dict[tuple[str, Path], str] = {}
    for pair in pairs:
        other = folded.setdefault(pair.variant.lower(), pair.variant)
        if other != pair.variant:
            raise SuiteError(f"{pair.where}: the variants {other!r} and {pair.variant!r} differ only in case.")
        named = groups.setdefault(pair.prompt, pair)
        if named.group != pair.group:
            raise SuiteError(
                f"{pair.where}: the prompt is in the group {pair.group!r} here and in {named.group!r} at {named.where}."
            )
        if set(named.tags) != set(pair.tags):
            ours, theirs = (", ".join(sorted(one.tags)) or "none" for one in (pair, named))
            raise SuiteError(f"{pair.where}: the prompt has the tags {ours} here, and {theirs} at {named.where}.")
        first = seen.setdefault((pair.variant, resolved(pair.image)), pair.where)
        if first != pair.where:
            raise SuiteError(
                f"{pair.where}: the image {pair.image.name!r} is named twice for {pair.variant!r}; first at {first}."
            )
