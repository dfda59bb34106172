"""A folder of pictures, and of folders of them -> each picture with what is known of it.

What a picture was made of is told by the first of these that is there: a benchmark's layout (GenEval's
``00000/samples/0000.png`` beside ``metadata.jsonl``; HPDv2's ``anime/00000.jpg`` with ``anime.json``, and its
``test.json`` and ``train.json``), the picture itself, a ``.txt`` file of its name.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Literal, NamedTuple

from bench import documents
from bench.documents import DOCUMENT_BYTES, IMAGE_BYTES, read_bytes, sha256_of
from bench.errors import SuiteError
from bench.pictures.read import UNKNOWN, read_picture, read_text
from bench.pictures.values import FIELDS, facts
from bench.records import PictureFacts, Progress
from bench.score.images import OPENERS, WORKERS, ImageFileError, header_pixels, kind_of, stream
from bench.suite.images_table import IMAGE_FILES, NO_IMAGES

Source = Literal["picture", "text file", "layout", "nothing"]
"""Who says what a picture was made of."""

NO_PICTURES = re.compile(r"(.*-)?grids?|extras-images", re.IGNORECASE)
"""Folders of A1111 that hold grids, and pictures that were upscaled after they were drawn."""
NO_VARIANT = re.compile(
    r"\d{4}-\d{2}-\d{2}|\d+|(txt2img|img2img)-images|(txt2img|img2img)|outputs?|samples|raw|images", re.IGNORECASE
)
"""Folders by which programs and benchmarks sort pictures, whatever model drew them: dates, numbers, verbs."""
ANNOTATIONS = ("test.json", "train.json")
"""HPDv2's lists of prompts with the names of their pictures."""


class Picture(NamedTuple):
    """One picture of the folder."""

    path: Path
    name: str
    """Its path within the folder, for messages."""
    folder: str
    """The folder of its variant; empty where variants are not folders."""
    place: str
    """Its path within the folder of its variant: what stands for a seed where none is told."""
    facts: PictureFacts
    source: Source
    sha256: str
    size: tuple[int, int] | None
    """Width and height in pixels by its header; None where it has none that can be read."""
    tags: tuple[str, ...] = ()
    """Of a layout: the skill or style that the prompt belongs to."""


class Pictures(NamedTuple):
    """What a folder holds."""

    found: list[Picture]
    left_out: dict[str, list[str]]
    """By reason, the names of pictures that were not read."""
    folders: tuple[str, ...]
    """The folders of the variants; () where variants are not folders."""


def read_pictures(folder: Path, progress: Progress | None = None) -> Pictures:
    """Every picture of a folder and of the folders within it, in the order of their names.

    Folders right within it are variants, unless pictures lie beside them, or they have the names that programs sort
    their pictures by: dates, numbers, ``txt2img-images``. Links out of the folder are not followed.

    Args:
        folder: the folder; it is there.
        progress: told ``("look", pictures read, pictures)``.

    Raises:
        SuiteError: no file of it is an image by its name, or a layout's file of prompts cannot be read.
    """
    paths, left_out = _image_files(folder)
    if not paths:
        raise SuiteError(f"{folder}: holds no image by its name, which ends in {', '.join(IMAGE_FILES)}.", NO_IMAGES)
    benchmarks = _benchmarks(folder, paths)
    folders = _variant_folders(folder, paths, benchmarks)
    found: list[Picture] = []

    def look(path: Path) -> Picture:
        return _look(path, folder, bool(folders), benchmarks)

    with closing(stream(paths, look, 2 * WORKERS, header_pixels)) as read:
        for path, picture in read:
            if isinstance(picture, OSError):
                left_out.setdefault("the file cannot be read", []).append(_name(path, folder))
            elif isinstance(picture, Exception):
                raise picture
            else:
                found.append(picture)
            if progress is not None:
                progress("look", len(found), len(paths))
    return Pictures(found, left_out, folders)


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _image_files(folder: Path) -> tuple[list[Path], dict[str, list[str]]]:
    found: list[Path] = []
    left_out: dict[str, list[str]] = {}
    for place, names, files in os.walk(folder):
        kept = [name for name in names if not name.startswith(".")]
        names[:] = [name for name in kept if not NO_PICTURES.fullmatch(name)]
        for name in sorted(set(kept) - set(names)):
            left_out.setdefault("a folder of grids or of pictures changed after being drawn", []).append(name)
        paths = (Path(place) / file for file in files if not file.startswith("."))
        found += [path for path in paths if path.suffix.lower() in IMAGE_FILES and _is_within(path)]
    return sorted(found), left_out


def _is_within(path: Path) -> bool:
    # A link would bring any file of this machine into a report.
    return path.is_file() and not path.is_symlink()


def _variant_folders(folder: Path, paths: list[Path], benchmarks: Benchmarks) -> tuple[str, ...]:
    parts = [path.relative_to(folder).parts for path in paths]
    if any(len(one) == 1 for one in parts):
        return ()
    names = sorted({one[0] for one in parts})
    if any(NO_VARIANT.fullmatch(name) or folder / name in benchmarks.styles for name in names):
        return ()
    return tuple(names)


def _look(path: Path, folder: Path, is_variant: bool, benchmarks: Benchmarks) -> Picture:
    data = read_bytes(path, IMAGE_BYTES)
    name = _name(path, folder)
    variant, _, place = name.partition("/") if is_variant else ("", "", name)
    told, source, tags = _told(path, data, benchmarks)
    return Picture(path, name, variant, place, told, source, sha256_of(data), _size(data), tags)


def _size(data: bytes) -> tuple[int, int] | None:
    try:
        with OPENERS[kind_of(data)](io.BytesIO(data)) as image:
            return image.size
    except ImageFileError:
        return None
    except Exception:  # whatever is wrong with the file is said where it is decoded
        return None


def _told(path: Path, data: bytes, benchmarks: Benchmarks) -> tuple[PictureFacts, Source, tuple[str, ...]]:
    layout = _geneval(path) or _hpd_style(path, benchmarks) or _hpd_list(path, benchmarks)
    if layout is not None:
        return _of_layout(layout.name, layout.prompt), "layout", layout.tags
    own = read_picture(data)
    if own.program != UNKNOWN:
        return own, "picture", ()
    beside = _text_beside(path)
    if beside is not None:
        return beside, "picture" if beside.program != "text file" else "text file", ()
    return own, "nothing", ()


def _text_beside(path: Path) -> PictureFacts | None:
    """What the ``.txt`` of a picture's name says: A1111 writes its text there on request, others the prompt alone."""
    try:
        text = read_bytes(path.with_suffix(".txt"), 2**20).decode("utf-8-sig")
    except (OSError, ValueError):
        return None
    return read_text(text) or (_of_layout("text file", text.strip()) if text.strip() else None)


def _of_layout(name: str, prompt: str) -> PictureFacts:
    why = dict.fromkeys(FIELDS, "the file beside it holds the prompt alone")
    return facts(name, why, prompt=prompt)


# Benchmarks.


class Layout(NamedTuple):
    """A picture's prompt by its place."""

    name: str
    prompt: str
    tags: tuple[str, ...]


class Benchmarks(NamedTuple):
    """The prompts of HPDv2 that lie in a folder; those of GenEval lie beside each picture."""

    styles: dict[Path, list[str]]
    """By folder of pictures, the prompts in the order of their numbers."""
    by_name: dict[str, str]
    """By name of a picture."""


def _benchmarks(folder: Path, paths: list[Path]) -> Benchmarks:
    styles = {}
    for parent in {path.parent for path in paths}:
        file = _style_file(folder, parent)
        prompts = None if file is None else _json(file)
        if isinstance(prompts, list) and prompts and all(isinstance(one, str) for one in prompts):
            styles[parent] = prompts
    return Benchmarks(styles, _by_name(folder))


def _style_file(folder: Path, parent: Path) -> Path | None:
    """The prompts of a style: beside its folder, beside the folders of the models, or in ``benchmark`` there."""
    if parent == folder:
        return None
    places = (parent.parent, folder, folder / "benchmark", folder / "benchmark_prompts")
    return next((file for place in places if (file := place / f"{parent.name}.json").is_file()), None)


def _by_name(folder: Path) -> dict[str, str]:
    """HPDv2's lists: the prompt of each picture that ``test.json`` or ``train.json`` names."""
    found: dict[str, str] = {}
    for file in (folder / name for name in ANNOTATIONS):
        entries = _json(file) if file.is_file() else None
        for entry in entries if isinstance(entries, list) else ():
            prompt = entry.get("prompt") if isinstance(entry, dict) else None
            if isinstance(prompt, str):
                found |= dict.fromkeys(_names(entry), prompt)
    return found


def _names(entry: Mapping[str, Any]) -> Iterator[str]:
    for field in ("image_path", "file_path"):
        names = entry.get(field)
        for name in names if isinstance(names, list) else ():
            if isinstance(name, str):
                yield name.rpartition("/")[2]


def _geneval(path: Path) -> Layout | None:
    """GenEval: ``<index>/samples/0000.png``, and ``<index>/metadata.jsonl`` with prompt and tag."""
    file = path.parent.parent / "metadata.jsonl"
    if path.parent.name != "samples" or not file.is_file():
        return None
    table = _json(file)
    if not isinstance(table, dict) or not isinstance(table.get("prompt"), str):
        raise SuiteError(f"{file}: is not GenEval's: it needs one object with a text as prompt.")
    tag = table.get("tag")
    return Layout("GenEval", table["prompt"], (tag,) if isinstance(tag, str) and tag.strip() else ())


def _hpd_style(path: Path, benchmarks: Benchmarks) -> Layout | None:
    """HPDv2's benchmark: ``<style>/00000.jpg`` is the prompt of that number in ``<style>.json``."""
    prompts = benchmarks.styles.get(path.parent)
    if prompts is None or not (path.stem.isascii() and path.stem.isdigit() and len(path.stem) < 10):
        return None
    if int(path.stem) >= len(prompts):
        raise SuiteError(f"{path}: {path.parent.name}.json has {len(prompts):,} prompts, and none of this number.")
    return Layout("HPDv2", prompts[int(path.stem)], (path.parent.name,))


def _hpd_list(path: Path, benchmarks: Benchmarks) -> Layout | None:
    prompt = benchmarks.by_name.get(path.name)
    return None if prompt is None else Layout("HPDv2", prompt, ())


def _json(path: Path) -> Any:
    try:
        return documents.loads(read_bytes(path, DOCUMENT_BYTES).decode("utf-8-sig"))
    except OSError as error:
        raise SuiteError(f"{path}: cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise SuiteError(f"{path}: is not valid JSON: {error}.") from error


def says_nothing(found: list[Picture]) -> bool:
    """Whether no picture, no file beside one and no layout says a word."""
    return all(one.source == "nothing" for one in found)
