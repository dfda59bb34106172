"""The pictures of a card: which are shown, and their files beside it, byte for byte, with the settings that they carry.

They are chosen by their place in the suite, evenly over it, not by their looks or scores: a card that shows the best
ones tells nothing of a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from bench import documents
from bench.errors import UsageError
from bench.records import Prompt, Render, Run
from bench.score.images import ImageFileError, image_bytes
from bench.store.journal import make_folder, write_whole

FOLDER = "images"
"""Beside the card."""


@dataclass(frozen=True)
class CardPicture:
    """A prompt with the picture of the variant, and that of the reference where there is one."""

    prompt: Prompt
    seed: int | None
    file: str
    """Relative to the card, with forward slashes."""
    reference_file: str
    """Empty where there is none."""
    bare: bool
    """Whether the file carries no settings of its own."""


@dataclass(frozen=True)
class CardPictures:
    """The pictures of a card, and what could not be shown."""

    shown: tuple[CardPicture, ...]
    files: dict[str, bytes]
    """By path relative to the card."""
    note: str
    """How they were chosen, and which are gone."""


def choose_pictures(run: Run, variant: str, reference: str, count: int) -> CardPictures:
    """Up to ``count`` prompts, evenly over the suite, with the first sample's pictures.

    Args:
        run: the run, its images on this machine.
        variant: whose pictures they are.
        reference: a variant of the run that they are shown beside; empty for none.
        count: how many prompts; 0 for none.
    """
    if run.url and count:
        return CardPictures((), {}, f"The pictures lie at {run.url} and are not copied.")
    prompts = run.info.suite.prompts
    chosen = [prompts[number * len(prompts) // count] for number in range(min(count, len(prompts)))] if count else []
    renders = {(one.variant, one.prompt_id): one for one in run.renders if one.sample == 0 and one.image is not None}
    shown, files, gone = [], {}, 0
    for prompt in chosen:
        render = renders.get((variant, prompt.id))
        data = _bytes(run, render)
        if render is None or data is None:
            gone += 1
            continue
        place = _place(render)
        files[place] = data
        other = renders.get((reference, prompt.id)) if reference else None
        other_data = _bytes(run, other)
        if other is not None and other_data is not None:
            files[_place(other)] = other_data
        there = _place(other) if other is not None and other_data is not None else ""
        shown.append(CardPicture(prompt, render.seed, place, there, bare=_is_bare(data)))
    return CardPictures(tuple(shown), files, _note(len(chosen), shown, gone))


def _note(chosen: int, shown: Sequence[CardPicture], gone: int) -> str:
    said = (
        ["Chosen by their place in the suite, evenly over its prompts, not by their looks or scores."] if shown else []
    )
    if gone:
        said.append(f"{gone} of {chosen} pictures are gone or cannot be read, and are not shown.")
    if any(one.bare for one in shown):
        said.append("Some carry no settings of their own.")
    elif shown:
        said.append("Each file carries its settings.")
    return " ".join(said)


def _bytes(run: Run, render: Render | None) -> bytes | None:
    """The file of an image; None where it is gone, or is not the one that was recorded."""
    if render is None:
        return None
    try:
        return image_bytes(Path(run.path), render)
    except (OSError, ImageFileError):
        return None


def _place(render: Render) -> str:
    """``images/spo-fox-0.png``: one folder for all, as a model page takes them."""
    return f"{FOLDER}/{render.variant}-{PurePosixPath(str(render.image)).name}"


def _is_bare(data: bytes) -> bool:
    """Whether a file has neither A1111's ``parameters`` nor anything in their place."""
    return b"parameters\0" not in data[: 1 << 16] and b"UNICODE\0" not in data and b"Exif" not in data


def write_pictures(pictures: CardPictures, folder: Path, *, force: bool) -> int:
    """Write the pictures beside a card; how many bytes they are.

    Raises:
        UsageError: another file of a picture's name is there, and ``force`` is not given.
        MachineError: they cannot be written.
    """
    for name, data in pictures.files.items():
        path = folder / name
        if documents.exists(path) and not force and documents.read_bytes(path, documents.IMAGE_BYTES) != data:
            raise UsageError(f"{path}: another picture is there already.", "--force replaces it")
    for name, data in pictures.files.items():
        make_folder((folder / name).parent)
        write_whole(folder / name, data)
    return sum(map(len, pictures.files.values()))
