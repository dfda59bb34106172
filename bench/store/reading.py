"""Reading a run folder without a lock: the run as it stands on disk, its ``run.json``, and the last gate on it."""

from __future__ import annotations

import csv
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from bench import documents
from bench.errors import InvalidError, MachineError
from bench.formatting import argument
from bench.records import (
    RUN_SCHEMA,
    SCHEMA,
    Answer,
    FoundFaces,
    Gate,
    Progress,
    Render,
    Run,
    RunInfo,
    Score,
    SetScore,
    StepScore,
    Timing,
    Vote,
)
from bench.store.journal import ANSWERS, FACES, INFO, RENDERS, SCORES, SETS, STEPS, TIMINGS, VOTES, Journal
from bench.store.object_store import read_copy, run_url
from bench.store.objects import CONNECTIONS, Objects, is_url
from bench.suite import list_suites

RUNS = Path("reports") / "runs"
"""Where runs lie unless it is said otherwise."""
GRID = "grid.json"
"""What a folder of runs under several settings has, in the place of ``run.json`` (``bench.store.grid``)."""
GATE = "gate.json"
"""The last gate on a run, beside its journals."""
LARGEST = 1e305
"""No gate gives a number of this size, and per cent of it would overflow."""


def load_run(path: str | Path) -> Run:
    """A run as it stands on disk, from its folder, its ``run.json``, or its URL on an object store.

    The newest record of each image, score, set score, timing and vote counts; records come in the suite's order of
    variants, prompts and samples, or tags, scores by metric within. Records of variants or tags that the suite no
    longer has are left out. A torn last line of a journal is left out too: another process may be writing it.

    Raises:
        UsageError: there is no run.
        IncomparableError: it is of another schema.
        InvalidError: ``run.json`` or a journal line is damaged, or names a prompt that the suite does not have.
        MachineError: a file cannot be read.
    """
    folder = folder_of(path)
    info = read_info(folder)
    renders, scores = Journal(folder / RENDERS, Render), Journal(folder / SCORES, Score)
    timings, sets = Journal(folder / TIMINGS, Timing), Journal(folder / SETS, SetScore)
    votes = Journal(folder / VOTES, Vote).records()
    run = run_of(folder, info, renders.records(), scores.records(), timings.records(), sets.records(), votes)
    return msgspec.structs.replace(run, url=run_url(str(path))) if is_url(path) else run


def load_steps(path: str | Path) -> tuple[StepScore, ...]:
    """The step scores of a run, the newest of each; none where no step was scored. Errors as ``load_run``."""
    return Journal(folder_of(path) / STEPS, StepScore).records()


def load_faces(path: str | Path) -> tuple[FoundFaces, ...]:
    """What was found of faces in a run's images, the newest of each; none where none was looked for.

    Errors as ``load_run``.
    """
    return Journal(folder_of(path) / FACES, FoundFaces).records()


def load_answers(path: str | Path) -> tuple[Answer, ...]:
    """What judges said of a run's images, the newest of each; none where nobody was asked. Errors as ``load_run``."""
    return Journal(folder_of(path) / ANSWERS, Answer).records()


def run_of(
    folder: Path,
    info: RunInfo,
    renders: tuple[Render, ...],
    scores: tuple[Score, ...],
    timings: tuple[Timing, ...],
    set_scores: tuple[SetScore, ...] = (),
    votes: tuple[Vote, ...] = (),
) -> Run:
    """The run of these records, in the order and with the errors of ``load_run``."""
    variants = {variant.name: index for index, variant in enumerate(info.suite.variants)}
    prompts = {prompt.id: index for index, prompt in enumerate(info.suite.prompts)}
    every_tag = dict.fromkeys((None, *(tag for prompt in info.suite.prompts for tag in prompt.tags)))
    tags = {tag: index for index, tag in enumerate(every_tag)}
    scored = {score.metric for score in scores} | {score.metric for score in set_scores}
    known = [facts.name for facts in info.metrics]
    metrics = {name: index for index, name in enumerate([*known, *sorted(scored.difference(known))])}

    def prompt_of(journal: str, prompt_id: str) -> int:
        if prompt_id not in prompts:
            raise InvalidError(
                f"{folder / journal}: names the prompt {prompt_id!r}, which the suite in {INFO} does not have.",
                "start over with --fresh",
            )
        return prompts[prompt_id]

    def place(one: Render) -> tuple[int, ...]:
        return variants[one.variant], prompt_of(RENDERS, one.prompt_id), one.sample

    def place_of_score(one: Score) -> tuple[int, ...]:
        return variants[one.variant], prompt_of(SCORES, one.prompt_id), one.sample, metrics[one.metric]

    def place_of_set(one: SetScore) -> tuple[int, ...]:
        prompt = -1 if one.prompt_id is None else prompt_of(SETS, one.prompt_id)
        return variants[one.variant], prompt, tags[one.tag], metrics[one.metric]

    for vote in votes:
        prompt_of(VOTES, vote.prompt_id)
    sets = [item for item in set_scores if item.variant in variants and item.tag in tags]
    return Run(
        path=str(folder),
        info=info,
        renders=tuple(sorted((item for item in renders if item.variant in variants), key=place)),
        scores=tuple(sorted((item for item in scores if item.variant in variants), key=place_of_score)),
        timings=tuple(item for item in timings if item.variant in variants),
        set_scores=tuple(sorted(sets, key=place_of_set)),
        votes=tuple(item for item in votes if item.left in variants and item.right in variants),
    )


def image_hashes(run: Run, progress: Progress | None = None) -> dict[str, str | None]:
    """By ``Render.image`` the sha256 of the file that is there now, None where it is gone: every image is read once.

    Args:
        run: as ``load_run`` gives it; where it lies on an object store the images are read from there.
        progress: told ``("check images", images read, images)``.

    Raises:
        MachineError: a file cannot be read, or the store fails.
    """
    names = [one.image for one in run.renders if one.image is not None]
    objects = Objects(run.url) if run.url else None
    there = objects.names() if objects is not None else frozenset[str]()

    def hash_of(name: str) -> str | None:
        if objects is not None:
            data = objects.get(name) if name in there else None
            return None if data is None else documents.sha256_of(data)
        path = Path(run.path) / name
        try:
            return documents.sha256_of(path) if path.is_file() else None
        except FileNotFoundError:
            return None
        except OSError as error:
            raise MachineError(f"{path}: cannot be read: {error.strerror}.") from error

    found: dict[str, str | None] = {}
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        for name, digest in zip(names, pool.map(hash_of, names), strict=True):
            found[name] = digest
            if progress is not None:
                progress("check images", len(found), len(names))
    return found


def read_info(folder: Path) -> RunInfo:
    """``run.json`` of a run folder.

    Raises:
        UsageError, IncomparableError, InvalidError, MachineError: as ``load_run``.
    """
    return documents.read_document(
        folder / INFO,
        RunInfo,
        schema=RUN_SCHEMA,
        what="run",
        make=_where_else(folder),
        remake=f"start over with --fresh: hotart-bench run SUITE --fresh -o {argument(folder)}",
    )


def _where_else(folder: Path) -> str:
    """The hint where there is no run: where a suite is named, which folder is meant; else how a run is made."""
    if str(folder) in list_suites():
        return f"{folder} is a shipped suite; name its run folder, by default {argument(RUNS / folder)}"
    if (folder / GRID).is_file():
        return f"{folder} is a grid; name one of the run folders in it (compare, report and plot take the whole)"
    if folder.suffix == ".toml":
        return f"{folder} is a suite file; name its run folder, by default {RUNS}/ and the suite's name"
    return f"hotart-bench run SUITE -o {argument(folder)}"


def read_gate(run_path: str | Path) -> Gate | None:
    """The last gate on a run, from its folder or ``run.json``; None where there was none.

    It may be of what lay in the folder before: ``Gate.run_id`` tells.

    Raises:
        IncomparableError: it is of another schema.
        InvalidError: the file is damaged.
        MachineError: it cannot be read.
    """
    path = folder_of(run_path) / GATE
    return read_gate_file(path) if path.exists() or path.is_symlink() else None


def read_gate_file(path: Path) -> Gate:
    """A gate from the file that ``gate --json`` wrote, or from a run folder's ``gate.json``.

    Raises:
        UsageError: there is no such file.
        IncomparableError, InvalidError, MachineError: as ``read_gate``.
    """
    remake = "run hotart-bench gate again, or delete the file"
    found = documents.read_document(path, Gate, schema=SCHEMA, what="gate", make=remake, remake=remake)
    if not _largest(msgspec.to_builtins(found)) < LARGEST:
        raise InvalidError(f"{path}: is not a valid gate: no gate gives a number of {LARGEST:g} or more.", remake)
    return found


def _largest(value: object) -> float:
    """The largest size of a number in decoded JSON; 0 without one."""
    if isinstance(value, dict | list | tuple):
        return max((_largest(one) for one in (value.values() if isinstance(value, dict) else value)), default=0.0)
    return float(abs(value)) if isinstance(value, int | float) else 0.0


def folder_of(path: str | Path) -> Path:
    """The run folder that is meant by its own path or by that of its ``run.json``.

    Of a run on an object store it is a copy that was brought here just now, without the images.
    """
    if is_url(path):
        return read_copy(str(path))
    path = Path(path)
    return path.parent if path.name == INFO else path


def scores_csv(run: Run) -> str:
    """The table of ``RunFolder.write_scores_csv`` as text, lines ended by a line feed."""
    values = {(score.variant, score.prompt_id, score.sample, score.metric): score.value for score in run.scores}
    of_images = [facts.name for facts in run.info.metrics if facts.over == "image"]
    metrics = list(dict.fromkeys(of_images + [s.metric for s in run.scores]))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["variant", "prompt_id", "sample", "seed", "image", "error", *metrics])
    for item in run.renders:
        image = (item.variant, item.prompt_id, item.sample)
        scores = [values.get((*image, metric)) for metric in metrics]
        writer.writerow([*image, item.seed, item.image, item.error, *scores])
    return out.getvalue()
