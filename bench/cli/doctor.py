"""``doctor``: what this machine has, what a suite needs, and the command that gets what is missing."""

from __future__ import annotations

import platform
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cli import options
from bench.cli.fetch import MetricFile, entries_needed, print_metric_files
from bench.cli.options import AsJson, Device, Limit, Output, SuiteName, WeightsDir
from bench.cli.printing import Column, print_json, print_table, printable, say
from bench.cli.targets import default_folder, disk_for, read_suite
from bench.cli.verbs import group, verb
from bench.errors import MachineError, WeightsError
from bench.formatting import listed, plural, quantity
from bench.records import Machine, MemoryEstimate, Record, Suite, TimeEstimate

if TYPE_CHECKING:
    from bench.checkpoints.fingerprint import Needed

# What ``doctor`` estimates of memory and time, in words.


def estimate(
    suite: Suite, machine: Machine, needed: tuple[Needed, ...], folder: Path
) -> tuple[MemoryEstimate | None, TimeEstimate]:
    """Memory and time of a suite on this machine, from headers and from the timings that its folder may hold.

    Raises:
        WeightsError: the header of a file of weights cannot be read.
        HotartError: the folder holds a run that cannot be read.
    """
    from bench.plan.memory import estimate_memory, parts_of
    from bench.plan.time import estimate_time
    from bench.store import load_run

    run = load_run(folder) if (folder / "run.json").is_file() else None
    parts = parts_of(suite.variants[0], needed)
    return estimate_memory(suite, machine, needed, run), estimate_time(suite, machine, run, parts)


def memory_words(found: MemoryEstimate | None, weights_bytes: int | None) -> str:
    """The row on memory: peak and need against what there is; without a forecast what the weights alone take."""
    if found is None:
        if weights_bytes is None:
            return "unknown until the weights are here"
        return f"{quantity(weights_bytes, 'byte')} for the largest variant's weights, and working space"
    part = "decoding" if found.decode_bytes >= found.denoise_bytes else "denoising"
    fits = "which fits" if found.fits else "which does NOT fit"
    return (
        f"about {quantity(found.peak_bytes, 'byte')} at the peak ({part}, {found.variant}); with context and reserve "
        f"{quantity(found.needed_bytes, 'byte')} of {quantity(found.available_bytes, 'byte')}, {fits}"
    )


def time_words(found: TimeEstimate | None) -> str:
    """The row on time: rendering and measuring, or that it cannot be told."""
    if found is None or found.render_s is None or found.measure_s is None:
        return "not known"
    return f"about {clock_words(found.render_s)} to render, {clock_words(found.measure_s)} to measure; scoring on top"


def clock_words(seconds: float) -> str:
    """A span to the accuracy of a forecast: ``50 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def memory_advice(found: MemoryEstimate) -> str:
    """The settings that would fit, in a sentence; nothing where there are none, or the suite's do."""
    return f"In [settings], {'; or '.join(found.advice)}. Each makes another protocol." if found.advice else ""


def forecast_notes(memory: MemoryEstimate | None, time: TimeEstimate | None) -> tuple[str, ...]:
    """What the forecasts rest on, and which settings would fit."""
    notes: list[str] = []
    if memory is not None:
        notes.append(memory.basis)
        if memory.advice:
            notes.append(memory_advice(memory))
    if time is not None:
        notes.append(time.basis)
    return tuple(notes)


# ``doctor``: what this machine has, what a suite needs, and the command that gets what is missing.

app = group("What there is and what is missing.")

BYTES_PER_PIXEL = 3

"""A PNG of noise takes as much as its pixels; a photograph about half."""


class Checkup(Record, frozen=True):
    """What ``doctor`` found; ``--json`` prints it as it is."""

    machine: Machine | None
    """None where torch cannot be imported."""
    torch_problem: str | None
    packages: dict[str, str]
    folder: str
    """Where the run would lie."""
    disk_free_bytes: int
    suite: str
    left_out: tuple[str, ...]
    """Ids of prompts that SPO was trained on, which the suite leaves out."""
    trained_on: tuple[str, ...]
    """Ids of such prompts that the suite keeps, because its file says so."""
    images: int
    images_bytes: int
    """At most, for the PNG files."""
    weights: tuple[Needed, ...]
    weights_bytes: int | None
    """Stored size of the largest variant's weights, the least memory that it takes; None where unknown."""
    memory: MemoryEstimate | None
    """None where torch is missing or the sizes of the weights are not known."""
    time: TimeEstimate | None
    """None where torch is missing."""
    judges: tuple[MetricFile, ...]
    """The weight files of the suite's metrics; empty where they bring their own."""
    lock: str
    """Where the hashes of unpinned weights are recorded."""


@verb(
    app,
    "doctor",
    "hotart-bench doctor",
    "hotart-bench doctor sdxl",
    "hotart-bench doctor my-suite.toml -o /data/runs/mine --weights-dir weights",
)
def doctor(
    suite: SuiteName = "mini",
    output: Output = None,
    device: Device = "auto",
    limit: Limit = None,
    weights_dir: WeightsDir = None,
    json: AsJson = False,
) -> None:
    """What this machine has, what a suite needs, what is missing.

    Ends with 0 when the suite can run, with 3 when weights are missing, with 6 when the machine lacks
    something, or memory by the forecast.
    """
    options.check_device(device)
    options.check_weights_dir(weights_dir)
    asked = read_suite(suite, limit)
    checkup = examine(asked, disk_for(output or default_folder(asked)), device, weights_dir)
    if json:
        print_json(checkup)
    else:
        _print_checkup(checkup, asked)
    _refuse(checkup, suite)
    say(f"Ready: hotart-bench run {suite}")


def examine(suite: Suite, folder: Path, device: str, weights_dir: Path | None) -> Checkup:
    """The machine and the suite side by side, and a forecast; nothing is written, downloaded or loaded."""
    from bench.checkpoints.fingerprint import weights_needed
    from bench.machine import package_versions
    from bench.metrics.weights import lock_path, look_up
    from bench.suite.training_prompts import training_prompts_in

    machine, problem = _machine(device)
    needed = weights_needed(suite, weights_dir)
    memory, time = (None, None) if machine is None else estimate(suite, machine, needed, folder)
    settings = suite.settings
    images = len(suite.prompts) * suite.samples * len(suite.variants)
    return Checkup(
        machine=machine,
        torch_problem=problem,
        packages=package_versions(),
        folder=str(folder),
        disk_free_bytes=shutil.disk_usage(_nearest_existing(folder)).free,
        suite=suite.name,
        left_out=suite.left_out,
        trained_on=training_prompts_in(suite.prompts),
        images=images,
        images_bytes=images * settings.width * settings.height * BYTES_PER_PIXEL,
        weights=needed,
        weights_bytes=_largest_variant_bytes(needed),
        memory=memory,
        time=time,
        judges=tuple(
            MetricFile(metrics=metrics, file=file)
            for entry, metrics in entries_needed(suite.metrics).items()
            for file in look_up(entry, weights_dir)
        ),
        lock=str(lock_path()),
    )


def _machine(device: str) -> tuple[Machine | None, str | None]:
    from bench.machine import machine_facts, pick_device

    try:
        return machine_facts(pick_device(device)), None
    except (ImportError, OSError) as error:
        # OSError is how a torch without its CUDA libraries fails to load.
        return None, f"{type(error).__name__}: {error}"


def _nearest_existing(folder: Path) -> Path:
    from bench.documents import exists

    return next(path for path in (folder, *folder.absolute().parents) if exists(path))


def _largest_variant_bytes(needed: tuple[Needed, ...]) -> int | None:
    totals: dict[str, int] = {}
    for item in needed:
        if item.size_bytes is None:
            return None
        totals[item.variant] = totals.get(item.variant, 0) + item.size_bytes
    return max(totals.values(), default=None)


def _print_checkup(checkup: Checkup, suite: Suite) -> None:
    rows = [
        *_machine_rows(checkup),
        ("disk", f"{quantity(checkup.disk_free_bytes, 'byte')} free for {checkup.folder}"),
    ]
    rows.append(("packages", ", ".join(f"{name} {version}" for name, version in checkup.packages.items())))
    print_table([Column("this machine"), Column("", text=True)], rows)
    settings = suite.settings
    size = f"{settings.width}x{settings.height}"
    rows = [
        ("images", f"{checkup.images:,} of {size}, at most {quantity(checkup.images_bytes, 'byte')} of disk"),
        ("memory", memory_words(checkup.memory, checkup.weights_bytes)),
        ("time", time_words(checkup.time)),
    ]
    for label, prompts in (("left out", checkup.left_out), ("kept", checkup.trained_on)):
        if prompts:
            rows.append((label, f"{plural(len(prompts), 'prompt')} that SPO was trained on: {listed(prompts)}"))
    print()
    print_table([Column(f"suite {checkup.suite}"), Column("", text=True)], rows)
    for note in forecast_notes(checkup.memory, checkup.time):
        print(printable(note))
    print()
    _print_weights(checkup.weights)
    if checkup.judges:
        print()
        print_metric_files(checkup.judges, checkup.lock)


def _machine_rows(checkup: Checkup) -> list[tuple[str, str]]:
    machine = checkup.machine
    if machine is None:
        return [
            ("system", platform.platform()),
            ("device", f"none: torch cannot be imported ({checkup.torch_problem})"),
        ]
    memory = ""
    if machine.device_memory_bytes is not None:
        memory = f", {quantity(machine.device_memory_bytes, 'byte')}"
    return [
        ("system", machine.os),
        ("cpu", f"{machine.cpu}, {plural(machine.cores, 'core')}"),
        ("memory", quantity(machine.memory_bytes, "byte")),
        ("device", f"{machine.device}: {machine.device_name}{memory}"),
    ]


def _print_weights(weights: tuple[Needed, ...]) -> None:
    by_name: dict[str, list[Needed]] = {}
    for item in weights:
        by_name.setdefault(item.what, []).append(item)
    rows = []
    for name, items in by_name.items():
        size = items[0].size_bytes
        rows.append(
            [
                name,
                ", ".join(dict.fromkeys(item.variant for item in items)),
                "there" if items[0].present else "missing",
                "" if size is None else quantity(size, "byte"),
            ]
        )
    columns = [Column("weights", text=True), Column("of", text=True), Column("state")]
    print_table([*columns, Column("size", number=True)], rows)
    commands = dict.fromkeys(item.get for item in weights if not item.present)
    if commands:
        print("\nWhat gets those that are missing:")
    for command in commands:
        print(printable(f"  {command}"))


def _refuse(checkup: Checkup, asked: str) -> None:
    """Raises MachineError or WeightsError for the first thing that keeps the suite from running."""
    if checkup.torch_problem is not None:
        raise MachineError(f"torch cannot be imported ({checkup.torch_problem}).", "pip install torch")
    missing = [item for item in checkup.weights if not item.present]
    if missing:
        names = ", ".join(dict.fromkeys(item.what for item in missing))
        raise WeightsError(f"Weights are missing for suite {checkup.suite}: {printable(names)}.", missing[0].get)
    absent = [judge.file.what for judge in checkup.judges if judge.file.path is None]
    if absent:
        raise WeightsError(
            f"Weights of judges are missing for suite {checkup.suite}: {', '.join(absent)}.",
            f"hotart-bench fetch {shlex.quote(asked)}",
        )
    if checkup.images_bytes > checkup.disk_free_bytes:
        raise MachineError(
            f"The disk is too small for {checkup.folder}: {quantity(checkup.disk_free_bytes, 'byte')} free, "
            f"the images of suite {checkup.suite} take up to {quantity(checkup.images_bytes, 'byte')}.",
            "Make room, or choose another folder with -o.",
        )
    if checkup.memory is not None and not checkup.memory.fits:
        raise MachineError(
            f"Suite {checkup.suite} is not expected to fit into memory: it needs about "
            f"{quantity(checkup.memory.needed_bytes, 'byte')} of {quantity(checkup.memory.available_bytes, 'byte')} "
            "by the forecast.",
            memory_advice(checkup.memory) or "choose a device with more memory, or a smaller size or batch",
        )
