"""Suite x Variant -> Renders: seeded, batched, resumable; never scores.

Batches are those of the whole suite, so a resumed run forms the same ones and its images have the same
bytes. While a GPU draws a batch, threads write the PNGs of the one before, and append its records when
all its images are on the disk. Variants of one checkpoint are drawn with one loaded pipeline.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

from bench.cells import missing_batches
from bench.memory import is_out_of_memory, release_memory
from bench.records import Audit, Cell, Progress, Render, Suite, Variant
from bench.render.audits import fingerprint_of, is_audited, keep_audit, with_pixels
from bench.render.draw import Launched, draw_batch, encode_cases, launch, settle, settle_again
from bench.render.first_batch import first_batch_doubt
from bench.render.fitting import largest_batch, too_large
from bench.render.write import encode_png, write_batch
from bench.store import RunFolder
from bench.variants import stages
from bench.variants.models import Model, base_of, turn_into

__all__ = [
    "draw_batch",
    "encode_cases",
    "encode_png",
    "first_batch_doubt",
    "is_audited",
    "keep_audit",
    "largest_batch",
    "render",
    "render_batches",
    "too_large",
    "with_pixels",
]

WRITERS = 2
Batches = list[tuple[Cell, ...]]


def render(
    suite: Suite,
    folder: RunFolder,
    *,
    variants: Sequence[Variant],
    device: str,
    weights_dir: Path | None = None,
    progress: Progress | None = None,
) -> int:
    """Render what the run folder lacks of these variants; returns the number of images that were made.

    An image that cannot be had (NaN even with the VAE in float32, black, uniform, wrong size) becomes a
    record with ``error``. When it is stopped, batches whose images are written are kept. What was loaded and
    changed for a variant goes into ``run.json`` before its first image.

    Raises:
        WeightsError: a variant cannot be loaded.
        OutOfMemory: the device cannot hold a batch.
        MachineError: the folder cannot be written.
    """
    try:
        return _render(suite, folder, variants, device, weights_dir, progress)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise too_large(suite, suite.settings.batch or 1, device) from error
    finally:
        release_memory()  # the judges need it


def _render(
    suite: Suite,
    folder: RunFolder,
    variants: Sequence[Variant],
    device: str,
    weights_dir: Path | None,
    progress: Progress | None,
) -> int:
    todo = _plan(suite, folder, variants)
    total = sum(len(cells) for _, batches in todo for cells in batches)
    encodings: dict[object, dict[str, stages.Encoded]] = {}
    model: Model | None = None
    done = 0
    for variant, batches in todo:
        if progress is not None:
            progress("render", done, total, f"loading {variant.name}")
        model, audit = turn_into(model, variant, suite.settings, device=device, weights_dir=weights_dir)
        if not is_audited(folder, variant):
            keep_audit(folder, variant, with_pixels(model, variant, suite, audit, weights_dir))
        known = encodings.setdefault(_text_key(folder, variant, audit), {})
        known |= encode_cases(model.pipe, suite, batches, known)
        label = ""
        with closing(render_batches(model.pipe, suite, variant.name, batches, folder, known)) as drawn:
            for written in drawn:
                done += len(written)
                label = label or _label(folder, suite, variant, written, model)
                if progress is not None:
                    progress("render", done, total, label)
    return done


def _label(folder: RunFolder, suite: Suite, variant: Variant, written: Sequence[Render], model: Model) -> str:
    """What progress calls a variant, once its first batch is written; what that batch tells becomes the run's note."""
    doubt = first_batch_doubt(written, suite.settings, stages.decode_dtype_name(model.pipe, suite.settings))
    if not doubt:
        return variant.name
    folder.add_notes([f"Variant {variant.name}: {doubt}."])
    return f"{variant.name}: {doubt}"


def _plan(suite: Suite, folder: RunFolder, variants: Sequence[Variant]) -> list[tuple[Variant, Batches]]:
    """The batches that variants lack, those of one checkpoint one after another."""
    renders = folder.renders()
    bases = list(dict.fromkeys(base_of(variant) for variant in variants))
    ordered = sorted(variants, key=lambda variant: bases.index(base_of(variant)))
    todo = [(variant, missing_batches(suite, variant.name, renders, folder.path)) for variant in ordered]
    return [(variant, batches) for variant, batches in todo if batches]


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
    batches: Sequence[tuple[Cell, ...]],
    folder: RunFolder,
    encoded: Mapping[str, stages.Encoded],
) -> Generator[tuple[Render, ...], None, None]:
    """Draw batches with a loaded pipeline and append their records, batch by batch."""
    pending: Future[tuple[Render, ...] | Launched] | None = None
    settings = suite.settings
    # A processor has drawn a batch once it is launched, so each is on record before the next is begun: a crash would
    # lose both. On CUDA that holds until a batch has come through with its images finite: decoding again must wait for
    # the device.
    overlaps = pipe.device.type == "cuda"
    careful = True
    # Records are appended by a thread of their own, as soon as the PNGs are there: were it left to this one,
    # a crash would lose the batch that is being drawn and the one before.
    with ThreadPoolExecutor(WRITERS) as writers, ThreadPoolExecutor(1) as appender:

        def finish(launched: Launched) -> tuple[Render, ...] | Launched:
            drawn = settle(launched, settings)
            return launched if drawn is None else write_batch(writers, folder, variant, launched.cells, drawn)

        def records_of(future: Future[tuple[Render, ...] | Launched]) -> tuple[Render, ...]:
            nonlocal careful
            found = future.result()
            careful = not overlaps or isinstance(found, Launched)
            if not isinstance(found, Launched):
                return found
            drawn = settle_again(pipe, found, settings)  # here, since the decoder serves one thread at a time
            return appender.submit(write_batch, writers, folder, variant, found.cells, drawn).result()

        try:
            for cells in batches:
                launched = launch(pipe, settings, cells, encoded)
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
