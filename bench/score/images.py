"""Images as their files were rendered, read by threads, and results row by row at one fixed batch shape."""

from __future__ import annotations

import io
import math
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image

from bench.documents import sha256_of
from bench.errors import MachineError
from bench.machine import is_out_of_memory
from bench.metrics.registry import Inputs, Metric, NoScoreError
from bench.records import Render, Score
from bench.score.plan import Job, make_score

# From the bytes of an image file to a picture of 8 bits a channel, in the mode that the file has.

MAX_PIXELS = 2**26

"""Most pixels of an image that is decoded (8192 x 8192): a worker's memory stays under 300 MB."""

STILL_FORMATS = ("MPO",)

"""Formats of several pictures of which the first is the photograph and no frame of an animation."""

DEEP_GREY = ("I;16", "I;16L", "I;16B", "I;16N")


class ImageFileError(Exception):
    """An image file that is not the one that was rendered, or that cannot be judged, as a sentence."""


def decode(data: bytes) -> Image.Image:
    """The picture in its own mode (L, P, RGB, RGBA, CMYK, ...), 8 bits a channel.

    Of 16-bit channels the high byte is kept: Pillow does so with colours on opening; grey is treated alike,
    which Pillow's own conversion would clip to white.

    Raises:
        ImageFileError: an animation, more than ``MAX_PIXELS`` pixels, or 32-bit values, whose white is unknown.
        Exception: as Pillow says, where the bytes are no image or are cut short.
    """
    try:
        opened = Image.open(io.BytesIO(data))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageFileError(f"the image has more than {MAX_PIXELS:,} pixels, the most that are read") from error
    with opened as image:
        if image.width * image.height > MAX_PIXELS:
            raise ImageFileError(
                f"the image is {image.width} x {image.height} pixels; at most {MAX_PIXELS:,} in all are read"
            )
        frames = getattr(image, "n_frames", 1)
        if frames > 1 and image.format not in STILL_FORMATS:
            raise ImageFileError(f"the image is an animation of {frames} frames; save one of them as an image")
        image.load()
        return _eight_bit(image)


def _eight_bit(image: Image.Image) -> Image.Image:
    if image.mode in DEEP_GREY:
        levels = np.asarray(image).astype(np.uint16)
        return Image.fromarray((levels >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ImageFileError(f"the image has 32-bit values (mode {image.mode}); save it with 8 bits a channel")
    return image


# Images as their files were rendered, read by threads, and results row by row at one fixed batch shape.

WORKERS = min(8, os.cpu_count() or 1)

REASON_LENGTH = 300

"""Longest reason in characters; a plug-in's error may hold a whole tensor."""

NORM_TOLERANCE = 1e-3

"""How far from 1 the L2 norm of an encoder's embedding may be; half precision in an encoder stays within."""

Row = TypeVar("Row")

Item = TypeVar("Item")

Loaded = TypeVar("Loaded")


class EmbeddingError(Exception):
    """What an encoder returned is no embedding, as a sentence."""


# --- images --------------------------------------------------------------------------------


def read_image(folder: Path, render: Render) -> Image.Image:
    """The rendered image in its own mode, 8 bits a channel, after its file's sha256 was seen to be the recorded one."""
    name = str(render.image)
    try:
        data = (folder / name).read_bytes()
    except FileNotFoundError as error:
        raise ImageFileError(f"image file {name} is missing; restore it or render again") from error
    if sha256_of(data) != render.sha256:
        raise ImageFileError(
            f"image file {name} changed since it was rendered; restore it, or delete it and render again"
        )
    return decode(data)


def stream(
    items: Iterable[Item], load: Callable[[Item], Loaded], ahead: int
) -> Generator[tuple[Item, Loaded | Exception], None, None]:
    """Each item with what ``load`` makes of it, in order, loaded by threads at most ``ahead`` items early.

    An exception of ``load`` is handed on as the item's result: one bad file must not stop the others.
    """

    def attempt(item: Item) -> Loaded | Exception:
        try:
            return load(item)
        except Exception as error:
            return error

    waiting: deque[tuple[Item, Future[Loaded | Exception]]] = deque()
    with ThreadPoolExecutor(WORKERS, thread_name_prefix="decode") as pool:
        try:
            for item in items:
                waiting.append((item, pool.submit(attempt, item)))
                if len(waiting) > ahead:
                    first, future = waiting.popleft()
                    yield first, future.result()
            for first, future in waiting:
                yield first, future.result()
        finally:
            pool.shutdown(cancel_futures=True)


# --- one batch shape -----------------------------------------------------------------------


def by_row(
    compute: Callable[[list[Row]], torch.Tensor], rows: Sequence[Row], batch: int
) -> list[torch.Tensor | Exception]:
    """One result a row, computed always on exactly ``batch`` rows, so that no row depends on the others.

    At most ``batch`` rows; the last is repeated to fill up. When ``compute`` raises, every row is tried in a
    batch of its own, so that the error stays with the row that causes it.
    """
    if not rows:
        return []
    try:
        with memory_for(f"judging a batch of {batch}"):
            return list(compute([*rows, *[rows[-1]] * (batch - len(rows))])[: len(rows)])
    except MachineError:
        raise
    except Exception as error:
        if len(rows) == 1:
            return [error]
        return [result for row in rows for result in by_row(compute, [row], batch)]


def checked_embeds(embeds: torch.Tensor, n: int) -> torch.Tensor:
    """Refuse what is not (n, d) with unit L2 norm: heads give absurd scores on it, without an error."""
    if embeds.ndim != 2 or len(embeds) != n:
        raise EmbeddingError(f"the encoder gave embeddings of shape {tuple(embeds.shape)}, not ({n}, d)")
    norms = embeds.float().norm(dim=1)
    worst = float(norms[(norms - 1.0).abs().argmax()])
    if not abs(worst - 1.0) <= NORM_TOLERANCE:
        raise EmbeddingError(f"the encoder gave an embedding of L2 norm {worst:.4g}, not 1")
    return embeds.float()


@torch.inference_mode()
def judge(metric: Metric, inputs: Inputs) -> torch.Tensor:
    """The metric's values: (n,) float32 on the CPU; raises ValueError when there are not n of them."""
    values = metric.compute(inputs)
    wanted = (len(inputs.prompts),)
    if not isinstance(values, torch.Tensor):
        raise ValueError(f"it returned {type(values).__name__}, not a tensor of shape {wanted}")
    if values.shape != wanted:
        raise ValueError(f"it returned shape {tuple(values.shape)}, not {wanted}")
    return values.float().cpu()


def result_score(job: Job, metric: Metric, result: torch.Tensor | Exception, *, prompt_cut: bool = False) -> Score:
    """The record of what came of a cell: a finite value, or a null with the reason.

    A null by the metric's definition stands; any other is tried again by the next ``score``.
    """
    make = partial(
        make_score, job.render, metric, job.reference, prompt_cut=prompt_cut, other_samples=job.other_samples
    )
    if isinstance(result, NoScoreError):
        return make(reason=describe(result))
    if isinstance(result, Exception):
        return make(reason=describe(result), judged=False)
    value = float(result)
    if not math.isfinite(value):
        return make(reason=f"{metric.facts.name} gave {value}", judged=False)
    return make(value=value)


def describe(error: Exception) -> str:
    """The error in one line; our own ones without the name of their class."""
    message = " ".join(str(error).split())[:REASON_LENGTH]
    own = isinstance(error, NoScoreError | ImageFileError | EmbeddingError)
    return message if own and message else f"{type(error).__name__}: {message}"


@contextmanager
def memory_for(doing: str) -> Iterator[None]:
    """Turn running out of memory into MachineError: no fault of an image, so no null is recorded."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise MachineError(
            f"Out of memory while {doing}.",
            hint="the same command again continues; --device cpu needs no GPU memory",
        ) from error
