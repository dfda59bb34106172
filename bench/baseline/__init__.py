"""A run frozen to what a gate needs: per-prompt means, medians of rounds, no images. ``file`` reads and writes it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

import msgspec

from bench import documents
from bench.baseline.file import KIND, read_baseline, write_baseline
from bench.comparability import check_names, differences, prompt_digest, timing_facts
from bench.compare.pairing import ImageScores, usable_scores
from bench.compare.votes import EVEN, FACTS, frozen_shares
from bench.errors import IncomparableError, InvalidError, UsageError
from bench.formatting import argument, making
from bench.records import (
    BASELINE_SCHEMA,
    SCHEMA,
    VOTES_METRIC,
    Acceptance,
    Baseline,
    Calibration,
    Fingerprint,
    FrozenRound,
    FrozenVariant,
    FrozenVotes,
    Progress,
    Run,
    RunInfo,
    SessionNoise,
    Settings,
    TimingName,
)
from bench.soundness import Hashes, doubts, pruned_note
from bench.stats.votes import VoteShare
from bench.store import image_hashes
from bench.suite.images_table import NOT_GIVEN

__all__ = [
    "NOT_ACCEPTED",
    "freeze",
    "freeze_round",
    "freeze_to_check",
    "read_baseline",
    "read_session_noise",
    "write_baseline",
]

NOT_ACCEPTED = Acceptance(by="", time="")
"""Of a run that is frozen only to be checked; no file is written of it."""
SCORE_DIGITS = 5
"""Significant digits of a score: far finer than prompts differ (docs/design/baseline.md has the numbers)."""
TIMING_DIGITS = 7
CALIBRATION_KIND = "hotart-bench calibration"


def freeze(
    run: Run,
    *,
    acceptance: Acceptance = NOT_ACCEPTED,
    variants: Sequence[str] | None = None,
    session_noise: Sequence[SessionNoise] = (),
    hashes: Hashes | None = None,
) -> Baseline:
    """Each prompt's mean over its samples, of each metric and variant, and each round's median of what was timed.

    A mean is None unless every sample of the prompt has a score that counts (``bench.compare.pairing``), so a
    run that was cut short can be frozen, and what is missing in it shows. A metric of category "distance" measures
    how far a variant is from the first one, which has none itself. Means are rounded to 5 significant digits and
    medians to 7, here and not on writing, so that a run and the file of it are the same numbers. Of absolute
    paths in the fingerprints the last part is kept.

    Every image is read and compared with its record; why nothing can be said of a variant is in its ``doubts``.

    Args:
        run: a run as it was read.
        acceptance: who accepts it as the baseline.
        variants: names; None means all that the run has.
        session_noise: of ``calibrate``.
        hashes: what ``bench.store.image_hashes`` gives of the run; None to read its images here.

    Raises:
        UsageError: the run is limited to the first prompts of its suite, or it does not have such a variant.
        InvalidError: it has neither a score that counts nor a timing.
        MachineError: an image cannot be read.
    """
    suite, scores, shares = run.info.suite, usable_scores(run), frozen_shares(run)
    check_names(variants or (), [one.name for one in run.info.variants], f"The run {run.path} has no variant")
    _refuse_limited(run)
    doubtful = doubts(run, image_hashes(run) if hashes is None else hashes)
    if not scores and not any(timing.values for timing in run.timings) and not any(doubtful.values()):
        hint = f"hotart-bench score {argument(run.path)}"
        raise InvalidError(f"{run.path}: has no score and no timing to check.", hint)
    return Baseline(
        schema=BASELINE_SCHEMA,
        kind=KIND,
        suite=suite.name,
        run_id=run.info.id,
        protocol_digest=run.info.protocol_digest,
        settings=_settings_without_folders(suite.settings),
        samples=suite.samples,
        seed=suite.seed,
        limits=suite.limits,
        prompts={prompt.id: prompt_digest(prompt) for prompt in suite.prompts},
        metrics=(*run.info.metrics, FACTS) if shares else run.info.metrics,
        variants=tuple(
            _with_votes(_variant(run, fingerprint, scores, doubtful.get(fingerprint.name, ())), run, shares)
            for fingerprint in run.info.variants
            if variants is None or fingerprint.name in variants
        ),
        machine=run.info.machine,
        packages=run.info.packages,
        git=run.info.git,
        acceptance=acceptance,
        session_noise=tuple(session_noise),
    )


def _refuse_limited(run: Run) -> None:
    suite = run.info.suite
    if suite.limit is not None:
        raise UsageError(
            f"{run.path}: holds only the first {suite.limit} prompts of its suite (--limit), to try things out; "
            "no gate takes it.",
            f"{making(suite)} -o DIR",
        )


def freeze_to_check(run: Run, progress: Progress | None = None) -> tuple[Baseline, tuple[str, ...]]:
    """The run, frozen once its images are read, and notes on variants whose images are gone; errors as ``freeze``.

    ``progress`` is told how many images are read.
    """
    hashes = image_hashes(run, progress)
    return freeze(run, hashes=hashes), pruned_note(run, hashes)


def _variant(
    run: Run, fingerprint: Fingerprint, scores: Mapping[tuple[str, str], ImageScores], doubtful: tuple[str, ...]
) -> FrozenVariant:
    suite, name = run.info.suite, fingerprint.name
    values = {}
    for facts in run.info.metrics:
        if facts.over not in ("image", "prompt") or (facts.category == "distance" and name == suite.variants[0].name):
            continue
        found = scores.get((name, facts.name), {})
        keys = _samples_there(run)
        values[facts.name] = tuple(_mean([found.get(key) for key in prompt]) for prompt in keys)
    timings: dict[TimingName, list[FrozenRound]] = {}
    for timing in sorted(run.timings, key=lambda timing: (timing.name, timing.round)):
        if timing.variant == name and timing.values:
            timings.setdefault(timing.name, []).append(freeze_round(timing.values))
    return FrozenVariant(
        fingerprint=_without_folders(fingerprint),
        values=values,
        timings={quantity: tuple(rounds) for quantity, rounds in timings.items()},
        trained_on=run.info.trained_on.get(name),
        doubts=doubtful,
    )


def _samples_there(run: Run) -> list[list[tuple[str, int]]]:
    """Of each prompt its samples, without those of external images that no variant has: prompts may have fewer."""
    suite = run.info.suite
    there = {(one.prompt_id, one.sample) for one in run.renders if one.error != NOT_GIVEN}
    planned = ([(prompt.id, sample) for sample in range(suite.samples)] for prompt in suite.prompts)
    if suite.external_images is None:
        return list(planned)
    return [[key for key in keys if key in there] for keys in planned]


def _with_votes(frozen: FrozenVariant, run: Run, shares: Mapping[str, VoteShare]) -> FrozenVariant:
    """The variant with its share of the votes on each prompt; None where nobody voted on that."""
    name, suite = frozen.fingerprint.name, run.info.suite
    if shares and name == suite.variants[0].name:
        return msgspec.structs.replace(frozen, values={**frozen.values, VOTES_METRIC: (EVEN,) * len(suite.prompts)})
    if name not in shares:
        return frozen
    share = shares[name]
    known = [share.by_prompt.get(prompt.id) for prompt in suite.prompts]
    values = tuple(None if one is None else _rounded(one, SCORE_DIGITS) for one in known)
    spread = share.spread
    votes = FrozenVotes(
        voters=spread.voters,
        extra=_rounded(spread.extra, SCORE_DIGITS),
        noise=_rounded(spread.noise, SCORE_DIGITS),
    )
    return msgspec.structs.replace(frozen, values={**frozen.values, VOTES_METRIC: values}, votes=votes)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    # Divided first, because the sum of two of the largest numbers is infinite.
    return _rounded(math.fsum(value / len(known) for value in known), SCORE_DIGITS)


def freeze_round(values: Sequence[float]) -> FrozenRound:
    """The median of a round's values, in their unit to 7 significant digits, and their number, 1 or more.

    The median is None where a value is 0 or less, infinite or not a number: the gate calls that invalid.
    """
    sound = all(0 < value < math.inf for value in values)
    return FrozenRound(median=_rounded(statistics.median(values), TIMING_DIGITS) if sound else None, values=len(values))


def _rounded(value: float, digits: int) -> float:
    return float(f"{value:.{digits}g}") + 0.0  # the sum makes one zero of two


def _without_folders(fingerprint: Fingerprint) -> Fingerprint:
    """The same weights by their own names: a file that is committed does not tell where they lay on a disk."""
    loras = tuple(msgspec.structs.replace(lora, path=_own_name(lora.path)) for lora in fingerprint.loras)
    name = _own_name(fingerprint.checkpoint)
    return msgspec.structs.replace(fingerprint, checkpoint=name, loras=loras, audit=None)


def _settings_without_folders(settings: Settings) -> Settings:
    """The same settings, embeddings by their own names."""
    embeddings = tuple(msgspec.structs.replace(one, path=_own_name(one.path)) for one in settings.embeddings)
    return msgspec.structs.replace(settings, embeddings=embeddings)


def _own_name(place: str) -> str:
    for kind in (PurePosixPath, PureWindowsPath):
        path = kind(place)
        if path.is_absolute():
            return path.name or place
    return place


# The noise between sessions that a baseline takes over from a calibration.


def read_session_noise(path: str | Path, info: RunInfo) -> tuple[SessionNoise, ...]:
    """The noise between sessions, from the file that ``calibrate`` wrote for the suite and machine of a run.

    Raises:
        UsageError: there is no such file, it is something else, or it has no sessions of timing.
        IncomparableError: of another protocol or environment, with all that differs, or of another schema.
        InvalidError: the file is damaged.
        MachineError: it cannot be read.
    """
    path, make = Path(path), "hotart-bench calibrate SUITE"
    again = f"hotart-bench calibrate {argument(info.suite.source or info.suite.name)}"
    found = documents.read_document(
        path, Calibration, schema=SCHEMA, what="calibration", make=make, remake=make, kind=CALIBRATION_KIND
    )
    theirs, ours = (timing_facts(side.machine, side.packages) for side in (found, info))
    differing = differences(theirs, ours, ("there", "in the run"))
    if found.protocol_digest != info.protocol_digest:
        suite = f"the suite is {found.suite} with another protocol (its prompts, samples, seed or settings)"
        differing = [suite, *differing]
    if differing:
        raise IncomparableError(
            f"{path}: was measured otherwise than the run {info.id}: {'; '.join(differing)}.", again
        )
    if not found.session_noise:
        raise UsageError(f"{path}: holds no sessions of timing.", f"{again} --sessions 3")
    return found.session_noise
