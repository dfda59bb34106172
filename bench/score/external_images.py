"""Images from anywhere -> a run folder, so that ``score``, ``report``, ``compare`` and ``gate`` work on them.

The files are copied as they are, bytes and format: the sha256 in the folder is that of the user's file, and
what the folder says stays true when the originals move. What is not known of them (seeds, settings, weights) is
recorded as not known. Imports no torch.
"""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from bench.documents import sha256_of, utc_now
from bench.errors import InvalidError
from bench.formatting import is_good_name, plural
from bench.machine import git_state, package_versions
from bench.metrics.image_checks import broken
from bench.metrics.registry import installed, metrics_of_run
from bench.records import (
    SCHEMA,
    ExternalImages,
    Fingerprint,
    Limit,
    Machine,
    Plan,
    Progress,
    Prompt,
    Render,
    RunInfo,
    Settings,
    Suite,
    Variant,
)
from bench.score.images import ImageFileError, decode
from bench.store import RunFolder, run_id
from bench.suite import protocol_digest
from bench.suite.images_table import NOT_GIVEN, Pair, unnamed_images
from bench.suite.prompt_files import make_id

# A look at image files from anywhere, before they are judged: which can be, and why others cannot.

SUFFIX = {"PNG": ".png", "JPEG": ".jpg", "MPO": ".jpg", "WEBP": ".webp"}

"""By Pillow's name of the format, how a file of it is called in a run folder."""

WORKERS = min(8, os.cpu_count() or 1)


class Seen(NamedTuple):
    """What a look at an image file found."""

    sha256: str
    size: tuple[int, int] | None
    """Width and height in pixels; None with ``error``."""
    suffix: str
    error: str | None


def probe_images(files: Sequence[Path], progress: Progress | None) -> list[Seen]:
    """What ``probe_image`` finds of each file, in their order; ``progress`` is told ``("read", files seen, files)``."""
    seen: list[Seen] = []
    with ThreadPoolExecutor(WORKERS, thread_name_prefix="read") as pool:
        for found in pool.map(probe_image, files):
            seen.append(found)
            if progress is not None:
                progress("read", len(seen), len(files))
    return seen


def probe_image(path: Path) -> Seen:
    """Whether a file is an image that can be judged: decoded whole, and neither black nor uniform."""
    try:
        data = path.read_bytes()
    except OSError as error:
        return Seen("", None, "", f"the file {path.name} cannot be read: {error.strerror}")
    digest = sha256_of(data)
    if not data:
        return Seen(digest, None, "", f"the file {path.name} is empty")
    try:
        image = decode(data)
        suffix = _suffix(data)
        reason = broken(np.asarray(image.convert("RGB")), image.width, image.height)
    except ImageFileError as error:
        return Seen(digest, None, "", f"{path.name}: {error}")
    except Exception as error:  # Pillow's decoders raise whatever a damaged file leads them to
        return Seen(digest, None, "", f"the file {path.name} is no whole image: {type(error).__name__}")
    if reason is not None:
        return Seen(digest, None, "", f"{path.name}: {reason}")
    return Seen(digest, image.size, suffix, None)


def _suffix(data: bytes) -> str:
    with Image.open(io.BytesIO(data)) as image:
        if image.format not in SUFFIX:
            raise ImageFileError(f"the image is {image.format}, not PNG, JPEG or WebP")
        return SUFFIX[image.format]


# Images from anywhere -> a run folder, so that ``score``, ``report``, ``compare`` and ``gate`` work on them.

KNOWN = "images"

"""What stands where a variant's checkpoint would: its images are all that is known of it."""


class Placed(NamedTuple):
    """An image and the cell that it fills."""

    pair: Pair
    prompt_id: str
    sample: int
    seen: Seen


def import_images(
    pairs: Sequence[Pair],
    given: ExternalImages,
    output: Path | str,
    *,
    metrics: Sequence[str],
    limits: Sequence[Limit],
    machine: Machine,
    fresh: bool = False,
    progress: Progress | None = None,
) -> Suite:
    """Copy the images into a run folder, new or of the same prompts, and give the suite that it stands for.

    Equal prompts are one case; a variant's images of a prompt are its samples, in the table's order. A file that
    is no image, an animation, too large, or black or uniform becomes a record with its error and costs nothing
    else; so does a sample that one variant has and another lacks.

    Args:
        pairs: what ``bench.suite.images_table.read_pairs`` gave.
        given: folder and table, as the user named them.
        output: the run folder.
        metrics: what is to be scored.
        limits: how much worse is allowed, for a later gate.
        machine: the facts of this machine.
        fresh: start over; the old folder is kept beside it.
        progress: told ``("read", images read, images)``.

    Raises:
        InvalidError: none of the files can be judged.
        IncomparableError, UsageError, MachineError: as ``RunFolder.open``.
    """
    placed = _place(pairs, probe_images([pair.image for pair in pairs], progress))
    suite = _suite(placed, given, metrics, limits)
    with RunFolder.open(output, suite=suite, protocol_digest=protocol_digest(suite), fresh=fresh) as folder:
        known = {(item.variant, item.prompt_id, item.sample): item for item in folder.renders()}
        _write_card(folder, suite, placed, machine, unnamed_images(tuple(pairs), Path(given.images)))
        for item in placed:
            old = known.pop((item.pair.variant, item.prompt_id, item.sample), None)
            if old is None or not _holds(folder, old, item.seen):
                folder.append_renders([_copy(folder, item)])
        lacking = _lacking(suite, placed)
        folder.append_renders(
            [item for item in lacking if known.get((item.variant, item.prompt_id, item.sample)) != item]
        )
    return suite


def _place(pairs: Sequence[Pair], seen: Sequence[Seen]) -> tuple[Placed, ...]:
    counts: Counter[tuple[str, str]] = Counter()
    placed = []
    for pair, found in zip(pairs, seen, strict=True):
        prompt_id = make_id(pair.prompt)
        placed.append(Placed(pair, prompt_id, counts[pair.variant, prompt_id], found))
        counts[pair.variant, prompt_id] += 1
    return tuple(placed)


def _suite(placed: Sequence[Placed], given: ExternalImages, metrics: Sequence[str], limits: Sequence[Limit]) -> Suite:
    sizes = Counter(item.seen.size for item in placed if item.seen.size is not None)
    if not sizes:
        raise InvalidError(
            f"{given.images}: none of the {plural(len(placed), 'image')} can be judged: {placed[0].seen.error}."
        )
    width, height = sizes.most_common(1)[0][0]
    name = Path(given.images).resolve().name
    prompts = {item.prompt_id: item.pair.prompt for item in placed}
    return Suite(
        schema=SCHEMA,
        name=name if is_good_name(name) else KNOWN,
        prompt_files=(Path(given.prompts).name,),
        prompts=tuple(Prompt(id=prompt_id, text=prompt) for prompt_id, prompt in prompts.items()),
        samples=1 + max(item.sample for item in placed),
        seed=0,
        metrics=tuple(metrics),
        settings=Settings(width=width, height=height, steps=0, guidance_scale=0.0, sampler="none"),
        variants=tuple(Variant(name=name, checkpoint=KNOWN) for name in _variants(placed)),
        limits=tuple(limits),
        measure=Plan(rounds=0, images=0, warmups=0),
        source=given.prompts,
        external_images=given,
    )


def _variants(placed: Sequence[Placed]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(item.pair.variant for item in placed))


def _holds(folder: RunFolder, old: Render, seen: Seen) -> bool:
    """Whether the folder has the image already; a copy that was lost or changed is made again."""
    if seen.error is not None or old.image is None:
        return old.error == seen.error
    copy = folder.path / old.image
    return old.sha256 == seen.sha256 and copy.is_file() and sha256_of(copy) == seen.sha256


def _copy(folder: RunFolder, item: Placed) -> Render:
    variant, error = item.pair.variant, item.seen.error
    image = sha256 = None
    if error is None:
        data = item.pair.image.read_bytes()
        if sha256_of(data) == item.seen.sha256:
            image, sha256 = folder.write_image(variant, item.prompt_id, item.sample, data, item.seen.suffix)
        else:
            error = f"the file {item.pair.image.name} changed while it was read"
    return _render(variant, item.prompt_id, item.sample, image, sha256, error)


def _render(
    variant: str, prompt_id: str, sample: int, image: str | None, sha256: str | None, error: str | None
) -> Render:
    return Render(
        variant=variant,
        prompt_id=prompt_id,
        sample=sample,
        seed=None,
        batch=None,
        decode_dtype=None,
        image=image,
        sha256=sha256,
        error=error,
    )


def _lacking(suite: Suite, placed: Sequence[Placed]) -> list[Render]:
    """A record of each cell that no line of the table fills."""
    filled = {(item.pair.variant, item.prompt_id, item.sample) for item in placed}
    cells = [
        (variant.name, prompt.id, sample)
        for variant in suite.variants
        for prompt in suite.prompts
        for sample in range(suite.samples)
    ]
    return [_render(*cell, None, None, NOT_GIVEN) for cell in cells if cell not in filled]


def _write_card(folder: RunFolder, suite: Suite, placed: Sequence[Placed], machine: Machine, unnamed: int) -> None:
    old = folder.info
    recorded = old.metrics if old is not None else ()
    names = tuple(dict.fromkeys([*suite.metrics, *(facts.name for facts in recorded)]))
    info = RunInfo(
        schema=SCHEMA,
        id=old.id if old is not None else run_id(),
        status="started",
        suite=suite,
        protocol_digest=protocol_digest(suite),
        variants=_fingerprints(placed),
        metrics=tuple(metric.facts for metric in metrics_of_run(names, recorded, installed())),
        machine=machine,
        packages=package_versions(),
        git=git_state(Path.cwd()),
        start=old.start if old is not None else utc_now(),
        end=None,
        settings_notes=_notes(suite, placed, unnamed),
    )
    folder.write_info(info)


def _fingerprints(placed: Sequence[Placed]) -> tuple[Fingerprint, ...]:
    """Of each variant the sha256 over its images, since its weights are unknown."""
    return tuple(
        Fingerprint(
            name=variant,
            digest=sha256_of("".join(_line(item) for item in placed if item.pair.variant == variant).encode()),
            checkpoint=KNOWN,
            pipeline="unknown",
            files=(),
        )
        for variant in _variants(placed)
    )


def _line(item: Placed) -> str:
    return f"{item.prompt_id} {item.sample} {item.seen.sha256}\n"


def _notes(suite: Suite, placed: Sequence[Placed], unnamed: int) -> tuple[str, ...]:
    notes = [
        "The images were given, not rendered: seeds, settings and weights are unknown, a variant's digest is that of "
        "its images, and samples of two variants need not start from the same noise."
    ]
    size = suite.settings.width, suite.settings.height
    others = sum(item.seen.size not in (size, None) for item in placed)
    if others:
        notes.append(
            f"{plural(others, 'image')} of {len(placed)} have another size than {size[0]} x {size[1]} pixels; "
            "statistics of the pixels depend on the size."
        )
    if unnamed:
        notes.append(f"{plural(unnamed, 'image file')} of the folder stand in no line of the table and were left out.")
    return tuple(notes)
