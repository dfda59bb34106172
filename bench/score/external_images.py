"""External images -> a run folder, so that ``score``, ``report``, ``compare`` and ``gate`` work on them.

The files are copied as they are, bytes and format: the sha256 in the folder is that of the user's file, and
what the folder says stays true when the originals move. What is not known of them (seeds, settings, weights) is
recorded as not known. Imports no torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench.documents import IMAGE_BYTES, read_bytes, resolved, sha256_of, utc_now
from bench.errors import InvalidError
from bench.formatting import is_good_name, listed, plural
from bench.machine import git_state, package_versions
from bench.metrics import facts_of_run
from bench.metrics.image_checks import broken
from bench.pictures.png import pixels_sha256
from bench.records import (
    RUN_SCHEMA,
    SCHEMA,
    ExternalImages,
    Fingerprint,
    Limit,
    Machine,
    MeasurePlan,
    Progress,
    Prompt,
    PromptSyntax,
    Render,
    RunInfo,
    Settings,
    Suite,
    Variant,
)
from bench.score.images import (
    ON_WHITE,
    TURNED,
    WORKERS,
    ImageFileError,
    header_pixels,
    open_picture,
    refuse_missing_pixels,
    stream,
)
from bench.store import RunFolder, run_id
from bench.suite import protocol_digest
from bench.suite.images_table import NOT_GIVEN, Pair, unnamed_images

SUFFIX = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp"}
"""By Pillow's name of the format, how a file of it is called in a run folder."""
UNKNOWN = "images"
"""What stands where a variant's checkpoint would: its images are all that is known of it."""


class ImageFacts(NamedTuple):
    """What a file holds."""

    sha256: str = ""
    """Empty where the file cannot be read."""
    size: tuple[int, int] | None = None
    """Width and height in pixels; None with ``error``."""
    suffix: str = ""
    notes: tuple[str, ...] = ()
    """How what is scored differs from the stored pixels."""
    error: str | None = None
    """Why the file cannot be scored."""
    pixels_sha256: str | None = None
    """Of the pixels that are scored; None with ``error``."""


@dataclass(frozen=True)
class ExternalImage:
    """One line of the table, and what its file holds."""

    pair: Pair
    sample: int
    file: ImageFacts

    @property
    def key(self) -> tuple[str, str, int]:
        """Variant, prompt and sample."""
        return self.pair.variant, self.pair.prompt_id, self.sample


def import_images(
    pairs: Sequence[Pair],
    source: ExternalImages,
    output: Path | str,
    *,
    metrics: Sequence[str],
    limits: Sequence[Limit],
    machine: Machine,
    notes: Sequence[str] = (),
    steps: int = 0,
    guidance_scale: float = 0.0,
    prompt_syntax: PromptSyntax = "plain",
    fresh: bool = False,
    progress: Progress | None = None,
) -> Suite:
    """Copy the images into a run folder, new or of the same prompts, and give the suite that it stands for.

    Lines of equal text are one prompt; a variant's images of a prompt are its samples, by the names of their files,
    so that the order of the table does not count. Without a table each image stands alone. A file that is not an
    image, cut short, an animation, too large, transparent, black or uniform becomes a record with its error and costs
    nothing else; so does a sample that one variant has and another lacks.

    Args:
        pairs: what ``bench.suite.images_table.read_pairs`` gave.
        source: folder and table, as the user named them.
        output: the run folder.
        metrics: what is to be scored.
        limits: how much worse is allowed, for a later gate.
        machine: the facts of this machine.
        notes: sentences on how the images were paired, where that was by what they say themselves.
        steps: that all images say they have, which makes them comparable only with their like; 0 where they differ, or
            do not say.
        guidance_scale: likewise.
        prompt_syntax: what their prompts are written in, so that metrics are given the words alone.
        fresh: start over; the old folder is kept beside it.
        progress: told ``("read", images read, images)``.

    Raises:
        InvalidError: none of the files can be scored.
        IncomparableError, UsageError, MachineError: as ``RunFolder.open``.
    """
    images = _probe_images(pairs, progress)
    suite = _suite(images, source, metrics, limits, steps, guidance_scale, prompt_syntax)
    with RunFolder.open(output, suite=suite, protocol_digest=protocol_digest(suite), fresh=fresh) as folder:
        known = {(item.variant, item.prompt_id, item.sample): item for item in folder.renders()}
        said = (*_what_is_known(notes), *_notes(suite, images))
        folder.write_info(_run_info(folder.info, suite, images, machine, said))
        for image in images:
            old = known.pop(image.key, None)
            if old is None or not _holds(folder, old, image):
                folder.append_renders([_copy(folder, image)])
        variants, filled = [variant.name for variant in suite.variants], {image.key for image in images}
        planned = [
            (variant, prompt.id, n) for variant in variants for prompt in suite.prompts for n in range(suite.samples)
        ]
        lacking = {key: _render(*key, error=NOT_GIVEN) for key in planned if key not in filled}
        folder.append_renders([render for key, render in lacking.items() if known.get(key) != render])
    return suite


# What a file holds, before it is copied: whether it can be scored, and why not.


def _probe_images(pairs: Sequence[Pair], progress: Progress | None) -> list[ExternalImage]:
    images: list[ExternalImage] = []
    samples = _samples(pairs)
    files = [pair.image for pair in pairs]
    with closing(stream(files, probe_image, 2 * WORKERS, header_pixels)) as found:
        for pair, (_, facts) in zip(pairs, found, strict=True):
            if isinstance(facts, Exception):
                raise facts
            images.append(ExternalImage(pair, samples[pair], facts))
            if progress is not None:
                progress("read", len(images), len(pairs))
    return images


def _samples(pairs: Sequence[Pair]) -> dict[Pair, int]:
    """Which sample of its variant's prompt each image is: counted by the names of the files, not by the table."""
    samples: dict[Pair, int] = {}
    counts: Counter[tuple[str, str]] = Counter()
    for pair in sorted(pairs, key=lambda pair: pair.image):
        samples[pair] = counts[pair.variant, pair.prompt_id] if pair.sample is None else pair.sample
        counts[pair.variant, pair.prompt_id] += 1
    return samples


def probe_image(path: Path) -> ImageFacts:
    """Whether a file is an image that can be scored: decoded whole, and neither black nor uniform."""
    try:
        data = read_bytes(path, IMAGE_BYTES)
    except OSError as error:
        return ImageFacts(error=f"the file {path.name} cannot be read: {error.strerror}")
    try:
        opened = open_picture(data)
        refuse_missing_pixels(data)
        image = opened.image if opened.image.mode == "RGB" else opened.image.convert("RGB")
        pixels = np.asarray(image)
        reason = broken(pixels, *opened.size)
        if reason is not None:
            raise ImageFileError(reason)
    except ImageFileError as error:
        return ImageFacts(sha256_of(data), error=f"the file {path.name}: {error}")
    facts = ImageFacts(sha256_of(data), opened.size, SUFFIX[opened.kind], opened.notes)
    return facts._replace(pixels_sha256=pixels_sha256(pixels))


# What is written into the run folder.


def _suite(
    images: Sequence[ExternalImage],
    source: ExternalImages,
    metrics: Sequence[str],
    limits: Sequence[Limit],
    steps: int,
    guidance_scale: float,
    prompt_syntax: PromptSyntax,
) -> Suite:
    sizes = Counter(image.file.size for image in images if image.file.size is not None)
    if not sizes:
        raise InvalidError(
            f"{source.images}: none of the {plural(len(images), 'image')} can be scored: {images[0].file.error}."
        )
    width, height = sizes.most_common(1)[0][0]
    name = resolved(source.images).name
    prompts = {image.pair.prompt_id: image.pair for image in images}
    variants = dict.fromkeys(image.pair.variant for image in images)
    return Suite(
        schema=SCHEMA,
        name=name if is_good_name(name) else UNKNOWN,
        prompt_files=(Path(source.prompts).name,) if source.prompts else (),
        prompts=tuple(
            Prompt(id=key, text=pair.prompt, negative=pair.negative, tags=pair.tags, group=pair.group)
            for key, pair in prompts.items()
        ),
        samples=1 + max(image.sample for image in images),
        seed=0,
        metrics=tuple(metrics),
        settings=Settings(
            width=width,
            height=height,
            steps=steps,
            guidance_scale=guidance_scale,
            sampler="none",
            prompt_syntax=prompt_syntax,
        ),
        variants=tuple(Variant(name=variant, checkpoint=UNKNOWN) for variant in variants),
        limits=tuple(limits),
        measure=MeasurePlan(rounds=0, images=0, warmups=0),
        source=source.prompts or source.images,
        external_images=source,
    )


def _run_info(
    old: RunInfo | None, suite: Suite, images: Sequence[ExternalImage], machine: Machine, notes: tuple[str, ...]
) -> RunInfo:
    recorded = old.metrics if old is not None else ()
    names = tuple(dict.fromkeys([*suite.metrics, *(facts.name for facts in recorded)]))
    return RunInfo(
        schema=RUN_SCHEMA,
        id=old.id if old is not None else run_id(),
        status="started",
        suite=suite,
        protocol_digest=protocol_digest(suite),
        variants=tuple(
            Fingerprint(
                name=variant.name,
                digest=_images_digest([image for image in images if image.pair.variant == variant.name]),
                checkpoint=UNKNOWN,
                pipeline="unknown",
                files=(),
            )
            for variant in suite.variants
        ),
        metrics=facts_of_run(names, recorded, (), None),
        machine=machine,
        packages=package_versions(),
        git=git_state(Path.cwd()),
        start=old.start if old is not None else utc_now(),
        end=None,
        settings_notes=notes,
    )


def _images_digest(images: Sequence[ExternalImage]) -> str:
    """The sha256 over a variant's images, which stands for its weights: these are unknown."""
    lines = sorted(f"{image.pair.prompt_id} {image.sample} {image.file.sha256}\n" for image in images)
    return sha256_of("".join(lines).encode())


def _what_is_known(notes: Sequence[str]) -> tuple[str, ...]:
    if not notes:
        return (
            "The images were given, not rendered: seeds, settings and weights are unknown, a variant's digest is that "
            "of its images, and samples of two variants need not start from the same noise.",
        )
    return (
        "The images were given, not rendered: what they say of themselves was believed, a variant's digest is that of "
        "its images, and one seed is one noise only if program, machine and device were the same.",
        *notes,
    )


def _notes(suite: Suite, images: Sequence[ExternalImage]) -> tuple[str, ...]:
    notes = []
    size = suite.settings.width, suite.settings.height
    others = sum(image.file.size not in (size, None) for image in images)
    if others:
        verb = "has" if others == 1 else "have"
        notes.append(
            f"{plural(others, 'image')} of {len(images)} {verb} another size than {size[0]} x {size[1]} pixels; "
            "statistics of the pixels depend on the size."
        )
    source = suite.external_images
    if source is not None and source.prompts:
        pairs = tuple(image.pair for image in images)
        if unnamed := unnamed_images(pairs, Path(source.images)):
            notes.append(
                f"{plural(unnamed, 'image file')} of the folder stand in no line of the table and were left out."
            )
    columns = list(dict.fromkeys(name for image in images for name in image.pair.left_alone))
    if columns:
        notes.append(f"Of the table these columns were not taken: {listed(columns)}.")
    for difference in (ON_WHITE, TURNED):
        names = [image.pair.image.name for image in images if difference in image.file.notes]
        if names:
            notes.append(f"{plural(len(names), 'image')}: {difference}: {listed(names)}.")
    return tuple(notes)


def _holds(folder: RunFolder, old: Render, image: ExternalImage) -> bool:
    """Whether the folder has the image already; a copy that was lost or changed is made again."""
    facts = image.file
    if facts.error is not None or old.image is None:
        return old.error == facts.error
    copy = folder.path / old.image
    if old.sha256 != facts.sha256 or not copy.is_file():
        return False
    return sha256_of(copy) == facts.sha256


def _copy(folder: RunFolder, image: ExternalImage) -> Render:
    if image.file.error is not None:
        return _render(*image.key, error=image.file.error)
    data = read_bytes(image.pair.image, IMAGE_BYTES)
    if sha256_of(data) != image.file.sha256:
        return _render(*image.key, error=f"the file {image.pair.image.name} changed while it was read")
    file = folder.write_image(*image.key, data, image.file.suffix)
    return _render(*image.key, file=file, pixels=image.file.pixels_sha256)


def _render(
    variant: str,
    prompt_id: str,
    sample: int,
    *,
    file: tuple[str, str] | None = None,
    pixels: str | None = None,
    error: str | None = None,
) -> Render:
    image, sha256 = file or (None, None)
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
        pixels_sha256=pixels,
    )
