"""A/A test: runs of the same weights, and how far apart chance alone puts them.

``runs`` makes the runs, ``noise`` computes what they say.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from bench import documents
from bench.calibrate.noise import metric_noise, session_noise
from bench.calibrate.runs import FIRST, Condition, plan_conditions, run_condition
from bench.comparability import check_environment, pixel_facts, timing_facts
from bench.compare.pairing import usable_scores
from bench.errors import UsageError
from bench.formatting import plural
from bench.machine import other_device, pick_device
from bench.measure import pick_variants
from bench.metrics import facts_for
from bench.questions.registry import registry_of_suite
from bench.records import SCHEMA, Calibration, MetricNoise, NoiseSource, Progress, Run, Suite
from bench.store import load_run
from bench.store.journal import make_folder, write_whole
from bench.suite import protocol_digest

__all__ = ["calibrate", "write_calibration"]

MOST = 100
"""Seeds or sessions."""


def calibrate(
    suite: Suite,
    folder: Path,
    *,
    variants: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
    device: str = "auto",
    beside: str | None = None,
    seeds: int = 2,
    sessions: int = 3,
    fresh: bool = False,
    weights_dir: Path | None = None,
    progress: Progress | None = None,
) -> Calibration:
    """Noise floor of each metric and timed quantity: the same weights rendered, scored and timed several times.

    One run, then others that differ in one thing each: another process, half the batch size, another device
    where there is one, other seeds. Every condition is a run folder below ``folder``; the same call continues where it
    stopped, and more seeds or sessions are added to those that are there.

    Args:
        suite: what is calibrated; its prompts and samples are the size that margins are proposed for.
        folder: where the runs lie.
        variants: names; None means the first.
        metrics: names; None means those of the suite. Distances to the reference have no noise of their own.
        device: as ``bench.machine.pick_device`` takes it.
        beside: the other device; None means one like the first, or an accelerator, where there is one.
        seeds: how many runs with other seeds, 1 to 100.
        sessions: how many sessions of timing, 0 or 2 to 100.
        fresh: start over; old runs are kept beside the new ones.
        weights_dir: local weights instead of downloads.
        progress: called with how far each run is.

    Raises:
        UsageError: a number out of range, fewer than 2 prompts, an unknown variant or metric, a folder that
            is a run.
        IncomparableError: a run is of another protocol, machine, torch or diffusers.
        WeightsError, InvalidError, MachineError: as ``bench.run.run_stage``.
    """
    _check(suite, folder, seeds, sessions)
    names = _noisy(suite, metrics if metrics is not None else suite.metrics)
    small = msgspec.structs.replace(
        suite, variants=pick_variants(suite, variants or [suite.variants[0].name]), metrics=names
    )
    main = pick_device(device)
    other = _other(main, beside)
    done: list[tuple[Condition, Run]] = []
    for condition in plan_conditions(small, main, other, seeds, sessions):
        run_condition(condition, folder, names, fresh=fresh, weights_dir=weights_dir, progress=progress)
        run = load_run(folder / condition.name)
        done.append((condition, run))
        if condition.source != "device":
            facts = timing_facts if condition.is_session else pixel_facts
            check_environment(done[0][1].info, run.info.machine, run.info.packages, facts)
    return _calibration(small, done, _notes(suite, [run for _, run in done], main, other, sessions))


def _calibration(small: Suite, done: Sequence[tuple[Condition, Run]], notes: tuple[str, ...]) -> Calibration:
    first = next(run for condition, run in done if condition.name == FIRST)
    timed = [run for condition, run in done if condition.is_session]
    return Calibration(
        schema=SCHEMA,
        kind="hotart-bench calibration",
        suite=small.name,
        protocol_digest=protocol_digest(small),
        prompts=len(small.prompts),
        samples=small.samples,
        machine=first.info.machine,
        packages=first.info.packages,
        noise=_noise(small, first, done),
        session_noise=session_noise(timed, [variant.name for variant in small.variants]) if timed else (),
        notes=notes,
        time=documents.utc_now(),
    )


def write_calibration(calibration: Calibration, path: Path) -> None:
    """Write ``calibration.json``, whole or not at all; its folder is made.

    Raises:
        MachineError: the file cannot be written.
    """
    text = documents.dumps(msgspec.to_builtins(calibration))
    make_folder(path.parent)
    write_whole(path, msgspec.json.format(text.encode(), indent=2) + b"\n")


def _check(suite: Suite, folder: Path, seeds: int, sessions: int) -> None:
    if not 1 <= seeds <= MOST:
        raise UsageError(f"--seeds is {seeds}; allowed is 1 to {MOST}, since equal seeds alone show no noise.")
    if sessions != 0 and not 2 <= sessions <= MOST:
        raise UsageError(f"--sessions is {sessions}; allowed is 0 for none, or 2 to {MOST}: one differs from nothing.")
    if len(suite.prompts) < 2:
        raise UsageError(f"The suite {suite.name} has one prompt; noise over prompts needs 2, and 30 are good.")
    if (folder / "run.json").exists():
        raise UsageError(f"{folder}: is a run folder; a calibration needs one of its own.", "choose another with -o")


def _noisy(suite: Suite, metrics: Sequence[str]) -> tuple[str, ...]:
    known = facts_for(metrics, registry_of_suite(suite))
    names = tuple(facts.name for facts in known if facts.over == "image" and facts.category != "distance")
    if not names:
        raise UsageError(
            "There is no metric to calibrate; distances to the reference and set metrics do not count.",
            "hotart-bench list metrics",
        )
    return names


def _other(device: str, beside: str | None) -> str | None:
    if beside is None:
        return other_device(device)
    other = pick_device(beside)
    if other == device:
        raise UsageError(f"--other-device is {beside}, which is {device}: the device that everything is rendered on.")
    return other


def _noise(suite: Suite, first: Run, done: Sequence[tuple[Condition, Run]]) -> tuple[MetricNoise, ...]:
    others: dict[NoiseSource, list[dict[tuple[str, str], dict[tuple[str, int], float]]]] = {}
    for condition, run in done:
        if condition.source is not None:
            others.setdefault(condition.source, []).append(usable_scores(run))
    table = usable_scores(first)
    return tuple(
        metric_noise(suite, variant.name, facts, table, others)
        for variant in suite.variants
        for facts in facts_for(suite.metrics, registry_of_suite(suite, recorded=first.info.metrics))
    )


def _notes(suite: Suite, runs: Sequence[Run], device: str, other: str | None, sessions: int) -> tuple[str, ...]:
    notes = []
    if other is None:
        notes.append(
            f"There is no other device to compare {device} with; name one with --other-device, which may be the CPU."
        )
    if sessions == 0:
        notes.append("No sessions were timed, so a gate on timings between two runs stays inconclusive.")
    elif sessions < 5:
        notes.append(
            f"{plural(sessions, 'session')} of one day: sessions of other days differ more. "
            "The same command with a larger --sessions adds to them."
        )
    if suite.limit is not None:
        notes.append(f"The suite is limited to {plural(suite.limit, 'prompt')}: for trying out.")
    failed = sum(render.error is not None for run in runs for render in run.renders)
    if failed:
        notes.append(f"{plural(failed, 'image')} of all runs failed and are left out with their pairs.")
    return tuple(notes)
