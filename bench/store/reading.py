"""Reading a run folder: its files by name, and a run as it stands on disk."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from bench import documents
from bench.errors import InvalidError, MachineError, UsageError
from bench.records import SCHEMA, Render, Run, RunInfo, Score, Timing
from bench.store.journal import read_records
from bench.store.objects import is_url

INFO = "run.json"
RENDERS = "renders.jsonl"
SCORES = "scores.jsonl"
TIMINGS = "timings.jsonl"
IMAGE_SUFFIXES = (".png", ".jpg", ".webp")
"""How the name of an image ends: rendered ones are PNG, given ones keep their format."""


def load_run(path: str | Path) -> Run:
    """A run as it stands on disk, from its folder or its ``run.json``.

    The newest record of each cell counts; records come in the suite's order of variants, prompts and samples,
    scores by metric within. Records of variants that the suite no longer has are left out. A torn last line
    of a journal is left out too: another process may be writing it.

    Raises:
        UsageError: there is no run.
        IncomparableError: its schema is newer than this program.
        InvalidError: ``run.json`` or a journal line is damaged, or names a prompt that the suite has not.
        MachineError: a file cannot be read.
    """
    folder = folder_of(path)
    info = read_info(folder)
    variants = {variant.name: index for index, variant in enumerate(info.suite.variants)}
    prompts = {prompt.id: index for index, prompt in enumerate(info.suite.prompts)}
    metrics = {facts.name: index for index, facts in enumerate(info.metrics)}

    def place(record: Render | Score) -> tuple[int, int, int]:
        if record.prompt_id not in prompts:
            journal = RENDERS if isinstance(record, Render) else SCORES
            raise InvalidError(
                f"{folder / journal}: names the prompt {record.prompt_id!r}, which the suite in {INFO} has not.",
                "start over with --fresh",
            )
        return variants[record.variant], prompts[record.prompt_id], record.sample

    renders = [item for item in read_renders(folder) if item.variant in variants]
    scores = read_scores(folder)
    return Run(
        path=str(folder),
        info=info,
        renders=tuple(sorted(renders, key=place)),
        scores=tuple(
            sorted(
                (item for item in scores if item.variant in variants),
                key=lambda item: (*place(item), metrics.get(item.metric, len(metrics)), item.metric),
            )
        ),
        timings=tuple(item for item in read_timings(folder) if item.variant in variants),
    )


def read_info(folder: Path) -> RunInfo:
    """``run.json`` of a run folder.

    Raises:
        UsageError, IncomparableError, InvalidError, MachineError: as ``load_run``.
    """
    path = folder / INFO
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(f"{folder}: there is no run here (no {INFO}).", f"hotart-bench run -o {folder}") from error
    except OSError as error:
        raise MachineError(f"{path}: cannot be read: {error.strerror}.") from error
    try:
        table = documents.loads(data.decode())
        schema = table.get("schema") if isinstance(table, dict) else None
        if isinstance(table, dict):
            documents.refuse_other_schema(path, schema, SCHEMA, "runs", f"hotart-bench run --fresh -o {folder}")
        return documents.convert(table, RunInfo)
    except ValueError as error:
        raise InvalidError(f"{path}: is no card of a run: {error}.", "start over with --fresh") from error


def read_renders(folder: Path) -> tuple[Render, ...]:
    """The newest record of each (variant, prompt, sample), in the order they were first made.

    Raises:
        InvalidError: a damaged line, or one with neither an image at the cell's place nor an error.
    """
    newest: dict[tuple[str, str, int], Render] = {}
    for where, item in read_records(folder / RENDERS, Render):
        # A report embeds these files: a folder from elsewhere must not name /etc/passwd.
        names = [image_name(item.variant, item.prompt_id, item.sample, suffix) for suffix in IMAGE_SUFFIXES]
        good = item.image in names and item.sha256 is not None
        if not good and (item.image is not None or item.error is None):
            raise InvalidError(
                f"{folder}/{where}: the image is {item.image!r}; it must be "
                f"{image_name(item.variant, item.prompt_id, item.sample)!r} with a sha256, or null with an error.",
                "take the line out to have its work done again, or start over with --fresh",
            )
        newest[item.variant, item.prompt_id, item.sample] = item
    return tuple(newest.values())


def read_scores(folder: Path) -> tuple[Score, ...]:
    """The newest record of each (variant, prompt, sample, metric), in the order they were first made.

    Raises:
        InvalidError: a damaged line.
    """
    newest = {
        (item.variant, item.prompt_id, item.sample, item.metric): item
        for _, item in read_records(folder / SCORES, Score)
    }
    return tuple(newest.values())


def read_timings(folder: Path) -> tuple[Timing, ...]:
    """The newest record of each (variant, name, round), in the order they were first made.

    Raises:
        InvalidError: a damaged line.
    """
    newest = {(item.variant, item.name, item.round): item for _, item in read_records(folder / TIMINGS, Timing)}
    return tuple(newest.values())


def folder_of(path: str | Path) -> Path:
    """The run folder that is meant by its own path or by that of its ``run.json``.

    Of a run on an object store it is a copy that was brought here just now, without the images.
    """
    if is_url(path):
        from bench.store.object_store import read_copy

        return read_copy(str(path))
    path = Path(path)
    return path.parent if path.name == INFO else path


def scores_csv(run: Run) -> str:
    """The table of ``write_scores_csv`` as text, lines ended by a line feed."""
    values = {(score.variant, score.prompt_id, score.sample, score.metric): score.value for score in run.scores}
    metrics = list(dict.fromkeys([facts.name for facts in run.info.metrics] + [s.metric for s in run.scores]))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["variant", "prompt_id", "sample", "seed", "image", "error", *metrics])
    for item in run.renders:
        cell = (item.variant, item.prompt_id, item.sample)
        scores = [values.get((*cell, metric)) for metric in metrics]
        writer.writerow([*cell, item.seed, item.image, item.error, *scores])
    return out.getvalue()


def image_name(variant: str, prompt_id: str, sample: int, suffix: str = ".png") -> str:
    """Where the image of a cell lies, relative to the run folder, with forward slashes."""
    return f"images/{variant}/{prompt_id}-{sample}{suffix}"
