"""Small pictures beside a frozen baseline, so that a gate that fails shows both sides without the old run.

``baseline.json`` has them in ``baseline-pictures/``: ``VARIANT/PROMPT-0.webp``, the first sample of each prompt, and
``pictures.json``, which says of which run they are and what each file's sha256 is. The baseline file itself does not
know of them, so that they can be left out of a repository, or deleted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple

from bench import documents
from bench.errors import HotartError, UsageError
from bench.formatting import argument, is_good_name, plural
from bench.records import SCHEMA, Progress, Record, Render, Run
from bench.score.images import ImageFileError, image_bytes, open_picture, webp_copy
from bench.store.journal import make_folder, write_whole

KIND: Final[Literal["hotart-bench baseline pictures"]] = "hotart-bench baseline pictures"
INDEX = "pictures.json"
SIDE_PX = 320
"""Longest side of a picture."""
PIXEL_ART_PX = 128
"""Pictures up to this side are kept to the last bit: they are as small, and every pixel is seen."""
SAMPLE = 0
"""Which sample of a prompt is kept."""


class BaselinePictures(Record, frozen=True):
    """``pictures.json``."""

    kind: Literal["hotart-bench baseline pictures"]
    schema: int
    run_id: str
    """Of the run that the baseline was frozen from."""
    pictures: dict[str, dict[str, str]]
    """By variant and prompt the sha256 of the file."""


class Kept(NamedTuple):
    """What was kept beside a baseline."""

    folder: Path
    pictures: int
    size_bytes: int
    lost: int
    """Pictures of the run that are gone or cannot be read."""


class FrozenPictures(NamedTuple):
    """What a baseline has of pictures."""

    files: dict[tuple[str, str], tuple[Path, str]]
    """By variant and prompt the file and its sha256."""
    note: str
    """What they are, or why there are none, in a sentence."""


def pictures_folder(baseline: Path) -> Path:
    """Where the pictures of a baseline file lie."""
    return baseline.with_name(f"{baseline.stem}-pictures")


def keep_pictures(run: Run, variants: Sequence[str], baseline: Path, progress: Progress | None = None) -> Kept:
    """Write small WebP copies of the first sample of each prompt beside a baseline, in the place of earlier ones.

    Args:
        run: the run that was frozen, on this machine.
        variants: names of those that the baseline has.
        baseline: its file.
        progress: told ``("pictures", pictures made, pictures)``.

    Raises:
        UsageError: the run lies on an object store, or what is in the folder are no pictures of a baseline.
        MachineError: the folder cannot be written.
    """
    if run.url:
        raise UsageError(
            f"{run.url}: the pictures of a baseline are made of a run folder on this machine.",
            f"bring the folder here, then hotart-bench baseline FOLDER -o {argument(baseline)} --pictures",
        )
    folder = pictures_folder(baseline)
    _take_out_earlier(folder)
    wanted = [one for one in run.renders if one.sample == SAMPLE and one.variant in variants and one.image is not None]
    made: dict[str, dict[str, str]] = {}
    size, lost = 0, 0
    for done, render in enumerate(wanted, start=1):
        data = _small(Path(run.path), render)
        if data is None:
            lost += 1
        else:
            place = folder / _name(render.variant, render.prompt_id)
            make_folder(place.parent)
            write_whole(place, data)
            made.setdefault(render.variant, {})[render.prompt_id] = documents.sha256_of(data)
            size += len(data)
        if progress is not None:
            progress("pictures", done, len(wanted))
    index = {"kind": KIND, "schema": SCHEMA, "run_id": run.info.id, "pictures": made}
    make_folder(folder)
    write_whole(folder / INDEX, f"{documents.dumps(index)}\n".encode())
    return Kept(folder, sum(map(len, made.values())), size, lost)


def _small(folder: Path, render: Render) -> bytes | None:
    """The copy of an image; None where it is gone or cannot be read."""
    try:
        opened = open_picture(image_bytes(folder, render), SIDE_PX)
    except (OSError, ImageFileError):
        return None
    return webp_copy(opened, SIDE_PX, lossless=max(opened.size) <= PIXEL_ART_PX)


def _name(variant: str, prompt_id: str) -> str:
    return f"{variant}/{prompt_id}-{SAMPLE}.webp"


def _take_out_earlier(folder: Path) -> None:
    """Takes out the files that the folder's own index names; anything else in it is not touched."""
    if not documents.exists(folder):
        return
    if not (folder / INDEX).is_file():
        if any(folder.iterdir()):
            raise UsageError(
                f"{folder}: is where the pictures of the baseline would lie, and it holds something else (no {INDEX}).",
                "take it away, or choose another -o",
            )
        return
    for variant, prompts in read_index(folder).pictures.items():
        for prompt_id in prompts:
            (folder / _name(variant, prompt_id)).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not empty: somebody keeps other files there
            (folder / variant).rmdir()
    (folder / INDEX).unlink()


def read_index(folder: Path) -> BaselinePictures:
    """``pictures.json`` of a folder.

    Raises:
        UsageError, InvalidError, IncomparableError, MachineError: as ``documents.read_document``; names that cannot
            be those of variants and prompts are none of a baseline's.
    """
    remake = "delete the folder, or make it anew: hotart-bench baseline RUN -o FILE --replace --pictures"
    path = folder / INDEX
    what = "index of a baseline's pictures"
    found = documents.read_document(
        path, BaselinePictures, schema=SCHEMA, what=what, make=remake, remake=remake, kind=KIND
    )
    names = [*found.pictures, *(prompt_id for prompts in found.pictures.values() for prompt_id in prompts)]
    wrong = next((name for name in names if not is_good_name(name)), None)
    if wrong is not None:  # a name with ../ in it would be another file
        raise UsageError(f"{path}: is not an {what}: {wrong!r} is the name of no variant or prompt.", remake)
    return found


def find_pictures(baseline: str, run_id: str) -> FrozenPictures:
    """The pictures beside a baseline file, if there are any of the run that it was frozen from; never an error.

    Args:
        baseline: path of the baseline file, as the gate names it.
        run_id: of the run that it was frozen from.
    """
    folder = pictures_folder(Path(baseline))
    if not documents.exists(folder / INDEX):
        return FrozenPictures(
            {},
            f"The candidate's images alone: there are no pictures at {folder}; `hotart-bench baseline --pictures` "
            "keeps small ones of the reference beside the file.",
        )
    try:
        found = read_index(folder)
    except HotartError as error:
        return FrozenPictures({}, f"The candidate's images alone: {error.message}")
    if found.run_id != run_id:
        said = f"the pictures at {folder} are of another run ({found.run_id}) than the baseline ({run_id})"
        return FrozenPictures({}, f"The candidate's images alone: {said}.")
    files = {
        (variant, prompt_id): (folder / _name(variant, prompt_id), sha256)
        for variant, prompts in found.pictures.items()
        for prompt_id, sha256 in prompts.items()
    }
    gone = sum(not documents.exists(path) for path, _ in files.values())
    lost = f" {plural(gone, 'file')} of {len(files):,} {'is' if gone == 1 else 'are'} gone." if gone else ""
    return FrozenPictures(
        files,
        "The reference's pictures are the small copies that lie beside the baseline, of each prompt's first "
        f"sample.{lost}",
    )


def frozen_bytes(path: Path, sha256: str) -> bytes:
    """The bytes of a kept picture.

    Raises:
        OSError: it is gone or cannot be read.
        ImageFileError: it is not the file that was kept.
    """
    data = documents.read_bytes(path, documents.IMAGE_BYTES)
    if documents.sha256_of(data) != sha256:
        raise ImageFileError("it is not the file that was kept with the baseline")
    return data
