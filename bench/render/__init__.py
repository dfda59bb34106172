"""Suite x Variant -> Renders: seeded, batched, resumable; never scores.

Batches are those of the whole suite, so a resumed run forms the same ones and its images have the same
bytes. While a batch is drawn, threads write the PNGs of the one before, and append its records when
all its images are on the disk. Variants of one checkpoint are drawn with one loaded pipeline.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from bench.formatting import joined
from bench.machine import is_out_of_memory, release_memory
from bench.pictures.parameters import Captions
from bench.pipeline import denoise as stages
from bench.pipeline.switch import Model, base_of, switch_variant
from bench.records import Audit, Fingerprint, PlannedImage, Progress, Render, Suite, Variant
from bench.render.auto_batch import largest_batch, too_large
from bench.render.encodings import Batches, Encodings
from bench.render.images import (
    Drawn,
    Launched,
    draw_batch,
    encode_prompts,
    first_batch_warning,
    launch,
    settle,
    settle_again,
    write_batch,
)
from bench.render.unfused import with_pixel_difference
from bench.store import RunFolder
from bench.suite.planned_images import is_wanted, missing_batches
from bench.suite.runtimes import refuse_runtimes

__all__ = [
    "draw_batch",
    "encode_prompts",
    "first_batch_warning",
    "is_audited",
    "keep_audit",
    "largest_batch",
    "render",
    "render_batches",
    "too_large",
    "with_pixel_difference",
]

WRITERS = 2
"""Threads that write PNGs."""


def render(
    suite: Suite,
    folder: RunFolder,
    *,
    variants: Sequence[Variant],
    device: str,
    weights_dir: Path | None = None,
    only: Collection[tuple[str, int]] | None = None,
    progress: Progress | None = None,
) -> int:
    """Render what the run folder lacks of these variants; returns the number of images that were made.

    With ``only`` (prompt, sample) the planned batches that hold one of those are drawn, whole since the size of a batch
    changes pixels, and of them just those are written.

    An image that cannot be had (NaN even with the VAE in float32, black, uniform, wrong size) becomes a
    record with ``error``. When it is stopped, batches whose images are written are kept. What was loaded and
    changed for a variant goes into ``run.json`` before its first image.

    Raises:
        WeightsError: a variant cannot be loaded.
        OutOfMemory: the device cannot hold a batch.
        MachineError: the folder cannot be written, or a variant's runtime is not for this machine.
    """
    try:
        return _render(suite, folder, variants, device, weights_dir, only, progress)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise too_large(suite, suite.settings.batch or 1, device) from error
    finally:
        release_memory()  # the metrics need it


def _render(
    suite: Suite,
    folder: RunFolder,
    variants: Sequence[Variant],
    device: str,
    weights_dir: Path | None,
    only: Collection[tuple[str, int]] | None,
    progress: Progress | None,
) -> int:
    refuse_runtimes(variants, device)  # before the first is drawn
    renders = folder.renders()
    bases = list(dict.fromkeys(map(base_of, variants)))
    ordered = sorted(variants, key=lambda variant: bases.index(base_of(variant)))  # one load a checkpoint
    todo = [(variant, missing_batches(suite, variant.name, renders, folder.path, only)) for variant in ordered]
    total = sum(is_wanted(image, only) for _, batches in todo for batch in batches for image in batch)
    encodings: dict[object, Encodings] = {}
    model: Model | None = None
    done = 0

    def tell(note: str) -> None:
        if progress is not None:
            progress("render", done, total, note)

    for variant, batches in todo:
        if not batches:
            continue
        tell(f"loading {variant.name}")
        model, audit = switch_variant(model, variant, suite.settings, device=device, weights_dir=weights_dir)
        if not is_audited(folder, variant):
            keep_audit(folder, variant, with_pixel_difference(model, variant, suite, audit))
        encoded = encodings.setdefault(_text_key(folder, variant, audit), Encodings(suite))
        label = ""
        with closing(render_batches(model.pipe, suite, variant.name, batches, folder, encoded, only)) as drawn:
            for written in drawn:
                done += len(written)
                label = label or _label(folder, suite, variant, written, model)
                tell(label)
    return done


def _label(folder: RunFolder, suite: Suite, variant: Variant, written: Sequence[Render], model: Model) -> str:
    """What progress calls a variant once its first batch is written, with its warning, which becomes a note too."""
    warning = first_batch_warning(written, suite.settings, stages.decode_dtype_name(model.pipe, suite.settings))
    if not warning:
        return variant.name
    folder.add_notes([f"Variant {variant.name}: {warning}."])
    return f"{variant.name}: {warning}"


def _text_key(folder: RunFolder, variant: Variant, audit: Audit) -> object:
    """Equal for variants whose text encoders are the same, so that a prompt is encoded once for all of them."""
    known = fingerprint_of(folder, variant)
    if known is None or audit.checkpoint.layout == "recipe":
        return variant.name
    encoders = ("checkpoint", "text_encoder", "text_encoder_2")
    files = tuple(file.sha256 for file in known.files if file.component in encoders)
    loras = tuple(
        (number, str(lora), next(file.sha256 for file in known.files if file.component == f"lora:{number}"))
        for number, (lora, found) in enumerate(zip(variant.loras, audit.loras, strict=True))
        if not found.applied.keys().isdisjoint(encoders)
    )
    return (files or known.checkpoint, loras, variant.fuse or not loras)


def render_batches(
    pipe: Any,
    suite: Suite,
    variant: str,
    batches: Sequence[tuple[PlannedImage, ...]],
    folder: RunFolder,
    encoded: Encodings,
    only: Collection[tuple[str, int]] | None = None,
) -> Generator[tuple[Render, ...], None, None]:
    """Draw batches with a loaded pipeline and append their records, or those of ``only``, batch by batch."""
    pending: Future[tuple[Render, ...] | Launched] | None = None
    settings = suite.settings
    captions = None if folder.info is None else Captions(folder.info)
    # A batch is on record before the next is begun until one has come through with its images finite: decoding again
    # must wait for the device, and a crash would lose both.
    careful = True
    # Records are appended by a thread of their own, as soon as the PNGs are there: were it left to this one,
    # a crash would lose the batch that is being drawn and the one before.
    with ThreadPoolExecutor(WRITERS) as writers, ThreadPoolExecutor(1) as appender:

        def encode(window: Batches, known: Mapping[str, stages.Encoded]) -> Mapping[str, stages.Encoded]:
            return encode_prompts(pipe, suite, window, known)

        def write(images: Sequence[PlannedImage], drawn: Sequence[Drawn]) -> tuple[Render, ...]:
            wanted = [pair for pair in zip(images, drawn, strict=True) if is_wanted(pair[0], only)]
            chosen, found = [one for one, _ in wanted], [of for _, of in wanted]
            return write_batch(writers, folder, captions, variant, chosen, found)

        def finish(launched: Launched) -> tuple[Render, ...] | Launched:
            drawn = settle(launched, settings)
            return launched if drawn is None else write(launched.images, drawn)

        def records_of(future: Future[tuple[Render, ...] | Launched]) -> tuple[Render, ...]:
            nonlocal careful
            found = future.result()
            careful = isinstance(found, Launched)
            if not isinstance(found, Launched):
                return found
            drawn = settle_again(pipe, found, settings)  # here, since the decoder serves one thread at a time
            return appender.submit(write, found.images, drawn).result()

        try:
            for number, images in enumerate(batches):
                launched = launch(pipe, settings, images, encoded.of(batches, number, encode))
                before, pending = pending, appender.submit(finish, launched)
                if before is not None:
                    yield records_of(before)
                if careful:
                    done, pending = pending, None
                    yield records_of(done)
        except BaseException:
            if pending is not None:
                pending.result()  # kept when the work is stopped; raises if it could not be
            raise
        if pending is not None:
            yield records_of(pending)


# What was loaded and changed for a variant, kept in ``run.json`` once for its weights.


def fingerprint_of(folder: RunFolder, variant: Variant) -> Fingerprint | None:
    """What ``run.json`` holds of a variant's weights."""
    prints = () if folder.info is None else folder.info.variants
    return next((one for one in prints if one.name == variant.name), None)


def is_audited(folder: RunFolder, variant: Variant) -> bool:
    """Whether there is nothing to keep: the audit is there, or no place for it."""
    known = fingerprint_of(folder, variant)
    return known is None or known.audit is not None


def keep_audit(folder: RunFolder, variant: Variant, audit: Audit) -> None:
    """Write a variant's audit into ``run.json``."""
    if folder.info is None:
        return
    prints = tuple(
        msgspec.structs.replace(one, audit=audit) if one.name == variant.name else one for one in folder.info.variants
    )
    folder.write_info(msgspec.structs.replace(folder.info, variants=prints))
    aside = audit.checkpoint.left_aside
    if aside:
        left = f"{joined(aside)} of the checkpoint's saved pipeline left aside; the suite alone says how it is sampled"
        folder.add_notes([f"Variant {variant.name}: {left}."])
    if audit.non_finite:
        first, count = next(iter(audit.non_finite.items()))
        more = f" and {len(audit.non_finite) - 1} more tensors" if len(audit.non_finite) > 1 else ""
        bad = f"{count} values of {first}{more} are not finite in {audit.dtype}, before any LoRA"
        folder.add_notes([f"Variant {variant.name}: {bad}."])
