"""The run folder: write, read, resume. What lies in it is section "A run folder" of the contract.

``RunFolder`` is a folder that this process holds the lock of; ``load_run`` reads one without a lock. Journals
only grow, and the newest record of an image, score or timing counts, so that work which is done again needs nothing
deleted. An open folder remembers: each of its files is read once, and grows in memory with what is written.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import msgspec

from bench import documents
from bench.comparability import refuse_other_protocol
from bench.errors import IncomparableError, InvalidError
from bench.records import (
    VOTES_METRIC,
    VOTES_UNJUDGED,
    Answer,
    FoundFaces,
    Gate,
    Render,
    Run,
    RunInfo,
    Score,
    SetScore,
    StepScore,
    Suite,
    Timing,
    Vote,
)
from bench.store.journal import (
    ANSWERS,
    FACES,
    INFO,
    RENDERS,
    SCORES,
    SETS,
    STEPS,
    TIMINGS,
    VOTES,
    Journal,
    image_name,
    make_folder,
    write_whole,
    writing,
)
from bench.store.lock import (
    clear_temporary,
    lock_folder,
    make_folders,
    move_aside,
    refuse_foreign,
    remove_folders,
    unlock_folder,
)
from bench.store.object_store import ObjectStoreSync, forget_empty, is_run_at, run_url
from bench.store.objects import Objects, is_url
from bench.store.reading import (
    GATE,
    folder_of,
    image_hashes,
    load_answers,
    load_faces,
    load_run,
    load_steps,
    read_gate,
    read_gate_file,
    read_info,
    run_of,
    scores_csv,
)

R = TypeVar("R", Answer, Render, Score, SetScore, StepScore, FoundFaces, Timing, Vote)

__all__ = [
    "RunFolder",
    "batch_of",
    "forget_empty_run",
    "image_hashes",
    "load_answers",
    "load_faces",
    "load_run",
    "load_steps",
    "read_gate",
    "read_gate_file",
    "read_info",
    "run_id",
    "write_gate",
]


class RunFolder:
    """A run folder that this process alone may write, until ``close`` or the end of its ``with`` block.

    Appends are for one thread; ``write_image`` may be called from several.
    """

    def __init__(self, path: Path, lock: int, made: Sequence[Path] = (), *, outdated: bool = False) -> None:
        self.path = path
        self._sync: ObjectStoreSync | None = None
        self._info: RunInfo | None = None
        self._lock: int | None = lock
        self._made = made
        self._outdated = outdated
        """Whether what lies in the folder is a run that is moved aside before anything is written."""
        self._renders = Journal(path / RENDERS, Render, empty=outdated)
        self._scores = Journal(path / SCORES, Score, empty=outdated)
        self._timings = Journal(path / TIMINGS, Timing, empty=outdated)
        self._sets = Journal(path / SETS, SetScore, empty=outdated)
        self._steps = Journal(path / STEPS, StepScore, empty=outdated, kept=False)  # an image has dozens
        self._faces = Journal(path / FACES, FoundFaces, empty=outdated)
        self._answers = Journal(path / ANSWERS, Answer, empty=outdated)
        self._votes = Journal(path / VOTES, Vote, empty=outdated)
        self._run: Run | None = None

    @classmethod
    def open(cls, path: str | Path, *, suite: Suite, protocol_digest: str, fresh: bool = False) -> RunFolder:
        """Lock a folder for a suite: a new one, or one that holds the same protocol and is to be continued.

        Args:
            path: made where it is missing; a URL such as ``s3://bucket/run`` is a folder on an object store.
            suite: what is to be run.
            protocol_digest: ``bench.suite.protocol_digest(suite)``.
            fresh: start over; a run that is there is moved beside, to ``<name>.old-<n>``, once something is written.

        Raises:
            UsageError: ``path`` is a file, or a folder with something else in it.
            IncomparableError: the run in it is of another protocol (each differing fact is named), or of
                another schema.
            InvalidError: its ``run.json`` is damaged.
            MachineError: another process holds it, or it cannot be written.
        """
        if not is_url(path):
            return cls._open_here(Path(path), suite, protocol_digest, fresh)
        sync = ObjectStoreSync(str(path), fresh=fresh)
        try:
            folder = cls._open_here(sync.folder, suite, protocol_digest, fresh=False)
        except BaseException:
            sync.release()
            raise
        folder._sync = sync
        return folder

    @classmethod
    def _open_here(cls, path: Path, suite: Suite, protocol_digest: str, fresh: bool) -> RunFolder:
        refuse_foreign(path)
        made = make_folders(path)
        try:
            folder = cls(path, lock_folder(path), made, outdated=fresh and (path / INFO).exists())
        except BaseException:
            remove_folders(made)
            raise
        with _closed_on_error(folder):
            if not folder._outdated and (path / INFO).exists():
                folder._info = read_info(path)
                if folder._info.protocol_digest != protocol_digest:
                    refuse_other_protocol(path, folder._info, suite)
            clear_temporary(path)
        return folder

    @classmethod
    def reopen(cls, path: str | Path) -> RunFolder:
        """Lock the run folder of a run of this machine that was begun before, to score, measure or report it.

        Raises:
            UsageError: there is no run at ``path``.
            IncomparableError, InvalidError, MachineError: as ``open``.
        """
        path = folder_of(path)
        if not (path / INFO).exists():
            read_info(path)  # says what is missing, and makes no lock file
        folder = cls(path, lock_folder(path))
        with _closed_on_error(folder):
            folder._info = read_info(path)
            clear_temporary(path)
        return folder

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None and self._sync is not None and self._info is not None:
                self._sync.finish()
        finally:
            self.close()

    def close(self) -> None:
        """Give the lock back; a second call does nothing. A folder that nothing was written to is gone."""
        if self._lock is None:
            return
        unlock_folder(self.path, self._lock)
        self._lock = None
        if self._info is None:
            remove_folders(self._made)
        if self._sync is not None:
            self._sync.release()

    # What the folder holds.

    @property
    def info(self) -> RunInfo | None:
        """``run.json`` as it was found or last written; None in a folder without one: a new run."""
        return self._info

    def renders(self) -> tuple[Render, ...]:
        """The newest record of each (variant, prompt, sample), in the order they were first made."""
        return self._renders.records()

    def scores(self) -> tuple[Score, ...]:
        """The newest record of each (variant, prompt, sample, metric), in the order they were first made."""
        return self._scores.records()

    def set_scores(self) -> tuple[SetScore, ...]:
        """The newest record of each (variant, prompt or tag, metric), in the order they were first made."""
        return self._sets.records()

    def timings(self) -> tuple[Timing, ...]:
        """The newest record of each (variant, name, round), in the order they were made."""
        return self._timings.records()

    def step_scores(self) -> tuple[StepScore, ...]:
        """The newest record of each (variant, prompt, sample, step, metric), in the order they were first made.

        They are read from the disk at each call.
        """
        return self._steps.records()

    def faces(self) -> tuple[FoundFaces, ...]:
        """The newest record of each (variant, prompt, sample), in the order they were first made."""
        return self._faces.records()

    def answers(self) -> tuple[Answer, ...]:
        """The newest record of each (judge, its identity, image, question), in the order they were first made."""
        return self._answers.records()

    def votes(self) -> tuple[Vote, ...]:
        """The newest record of each (page, voter, pair), in the order they were first made."""
        return self._votes.records()

    def run(self) -> Run:
        """The run as ``load_run`` would give it, from memory.

        Raises:
            UsageError: the folder has no ``run.json`` yet.
            InvalidError, MachineError: as ``load_run``.
        """
        if self._run is None:
            info = self._info if self._info is not None else read_info(self.path)
            journals = self.renders(), self.scores(), self.timings(), self.set_scores(), self.votes()
            self._run = run_of(self.path, info, *journals)
        return self._run

    # What is written.

    def write_info(self, info: RunInfo) -> None:
        """Write ``run.json``, whole or not at all."""
        text = documents.dumps(msgspec.to_builtins(info))
        self.write_bytes(INFO, msgspec.json.format(text.encode(), indent=2) + b"\n")
        self._info, self._run = documents.convert(msgspec.to_builtins(info), RunInfo), None

    def add_notes(self, notes: Sequence[str]) -> None:
        """Add notes to the run's in ``run.json``, each once; nothing before there is one."""
        if self._info is None or set(notes) <= set(self._info.settings_notes):
            return
        every = tuple(dict.fromkeys((*self._info.settings_notes, *notes)))
        self.write_info(msgspec.structs.replace(self._info, settings_notes=every))

    def append_renders(self, records: Iterable[Render]) -> None:
        """Append to ``renders.jsonl``; on the disk on return. Write the images first."""
        self._append(self._renders, tuple(records))

    def append_scores(self, records: Iterable[Score]) -> None:
        """Append to ``scores.jsonl``; on the disk on return."""
        self._append(self._scores, tuple(records))

    def append_set_scores(self, records: Iterable[SetScore]) -> None:
        """Append to ``sets.jsonl``; on the disk on return."""
        self._append(self._sets, tuple(records))

    def append_timings(self, records: Iterable[Timing]) -> None:
        """Append to ``timings.jsonl``; on the disk on return."""
        self._append(self._timings, tuple(records))

    def append_step_scores(self, records: Iterable[StepScore]) -> None:
        """Append to ``steps.jsonl``, of which a gate knows nothing; on the disk on return."""
        self._append(self._steps, tuple(records), gated=False)

    def append_faces(self, records: Iterable[FoundFaces]) -> None:
        """Append to ``faces.jsonl``, of which a gate knows nothing; on the disk on return."""
        self._append(self._faces, tuple(records), gated=False)

    def append_answers(self, records: Iterable[Answer]) -> None:
        """Append to ``answers.jsonl``, from which scores are made; on the disk on return."""
        self._append(self._answers, tuple(records), gated=False)

    def append_votes(self, records: Iterable[Vote]) -> bool:
        """Append to ``votes.jsonl``; on the disk on return.

        A gate without a limit on votes stays. Returns whether a gate's verdict was taken out.
        """
        found = tuple(records)
        outdated = bool(found) and self._has_gate_on_votes()
        self._append(self._votes, found, gated=outdated)
        return outdated

    def _has_gate_on_votes(self) -> bool:
        """Whether the last gate judged votes, or would have; true of a file that cannot be read as a gate."""
        try:
            gate = read_gate(self.path)
        except (InvalidError, IncomparableError):
            return True
        if gate is None:
            return False
        judged = any(one.name == VOTES_METRIC for one in gate.verdicts)
        unjudged = any(note.startswith(VOTES_UNJUDGED) for note in gate.notes)
        return judged or unjudged or any(limit.name == VOTES_METRIC for limit in self.run().info.suite.limits)

    def _append(self, journal: Journal[R], records: tuple[R, ...], *, gated: bool = True) -> None:
        self._move_old_run_aside()
        if gated:
            self._remove_gate()
        self._run = None
        journal.append(records)
        if self._sync is not None:
            self._sync.append(journal.path.name, records)

    def _move_old_run_aside(self) -> None:
        """Before the first write of a fresh run: what is refused until then costs nothing."""
        if self._outdated and self._lock is not None:
            lock, self._lock = self._lock, None
            self._lock = move_aside(self.path, lock)
            self._outdated = False

    def _remove_gate(self) -> None:
        """Take a gate's verdicts out: the folder keeps its id, and they were on what it held before."""
        gate = self.path / GATE
        if not gate.exists():
            return
        with writing(gate):
            gate.unlink()
        if self._sync is not None:
            self._sync.remove(GATE)

    def drop_variant(self, name: str) -> None:
        """Take a variant out of all journals, before it is rendered anew because its fingerprint changed.

        Do this before ``write_info`` records the new fingerprint: then a crash in between repeats it.
        """
        self._remove_gate()
        self._run = None
        self._timings.drop_variant(name)
        self._steps.drop_variant(name)
        self._faces.drop_variant(name)
        self._sets.drop_variant(name)
        self._scores.drop_variant(name)
        self._renders.drop_variant(name)
        if self._sync is not None:
            self._sync.compact()  # or the chunks would bring it back

    def image_path(self, variant: str, prompt_id: str, sample: int) -> Path:
        """Where the PNG of an image lies."""
        return self.path / image_name(variant, prompt_id, sample)

    def write_image(
        self, variant: str, prompt_id: str, sample: int, data: bytes, suffix: str = ".png"
    ) -> tuple[str, str]:
        """Write an image file, whole or not at all; returns ``Render.image`` and ``Render.sha256``."""
        name = image_name(variant, prompt_id, sample, suffix)
        self.write_bytes(name, data)
        return name, documents.sha256_of(data)

    def write_text(self, name: str, text: str) -> Path:
        """Write a text file in UTF-8, ``name`` relative to the folder, whole or not at all."""
        return self.write_bytes(name, text.encode())

    def write_bytes(self, name: str, data: bytes) -> Path:
        """Write a file, ``name`` relative to the folder, whole or not at all; its folder is made."""
        self._move_old_run_aside()
        path = self.path / name
        make_folder(path.parent)
        write_whole(path, data)
        if self._sync is not None:
            self._sync.put(name, data)
        return path

    def write_scores_csv(self) -> Path:
        """Write ``scores.csv``: one row an image, one column a metric, both in the order of the run.

        Columns: variant, prompt_id, sample, seed, image, error, then the metrics. An empty field is "no value".
        """
        return self.write_text("scores.csv", scores_csv(self.run()))


@contextlib.contextmanager
def _closed_on_error(folder: RunFolder) -> Iterator[None]:
    try:
        yield
    except BaseException:
        folder.close()
        raise


def run_id() -> str:
    """A new run's id: the time in UTC to the second, and 48 random bits."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(6)}"


def write_gate(run_path: str | Path, gate: Gate) -> Path:
    """Write ``gate.json`` of a run folder, whole or not at all, in the place of an earlier one; returns its path.

    Raises:
        MachineError: the disk is full, read-only or otherwise unwilling.
    """
    path, data = folder_of(run_path) / GATE, gate_json(gate).encode()
    write_whole(path, data)
    if is_url(run_path):
        Objects(run_url(str(run_path))).put(GATE, data)
    return path


def gate_json(gate: Gate) -> str:
    """The gate as indented JSON text that ends with a line feed.

    Raises:
        ValueError: a number that is not finite (an internal error: JSON has none).
    """
    return json.dumps(msgspec.to_builtins(gate), ensure_ascii=False, allow_nan=False, indent=2) + "\n"


# What ``batch = "auto"`` needs of a run folder that was begun before: its batch, and to be begun again.


def batch_of(place: Path | str) -> int | None:
    """The batch size of the run in a folder or at a URL; None where there is none."""
    if is_url(place) and not is_run_at(run_url(str(place))):
        return None
    folder = folder_of(place)
    return read_info(folder).suite.settings.batch if (folder / INFO).exists() else None


def forget_empty_run(place: Path | str) -> bool:
    """Take ``run.json`` out of a folder that holds no image yet; whether that was so."""
    if is_url(place):
        return forget_empty(str(place))
    folder = Path(place)
    if Journal(folder / RENDERS, Render).records():
        return False
    with writing(folder):
        (folder / INFO).unlink(missing_ok=True)
    return True
