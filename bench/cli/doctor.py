"""``doctor``: what this machine has, what a suite needs, and the command that gets what is missing."""

from __future__ import annotations

import platform
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cli import options
from bench.cli.foretold import forecast_notes, foretell, memory_advice, memory_words, time_words
from bench.cli.judge_weights import JudgeFile, entries_needed, print_judges
from bench.cli.options import AsJson, Device, Limit, Output, SuiteName, WeightsDir
from bench.cli.places import disk_for
from bench.cli.printing import Column, print_json, print_table, printable, say
from bench.cli.targets import default_folder, read_suite
from bench.cli.verbs import group, verb
from bench.errors import MachineError, WeightsError
from bench.names import listed
from bench.records import Machine, MemoryForecast, Record, Suite, TimeForecast
from bench.wording import plural, quantity

if TYPE_CHECKING:
    from bench.variants import Needed

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
    memory: MemoryForecast | None
    """None where torch is missing or the sizes of the weights are not known."""
    time: TimeForecast | None
    """None where torch is missing."""
    judges: tuple[JudgeFile, ...]
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
    from bench.machine import package_versions
    from bench.suite.contamination import training_cases
    from bench.variants import weights_needed
    from bench.weights import lock_path, look_up

    machine, problem = _machine(device)
    needed = weights_needed(suite, weights_dir)
    memory, time = (None, None) if machine is None else foretell(suite, machine, needed, folder)
    settings = suite.settings
    images = len(suite.cases) * suite.samples * len(suite.variants)
    return Checkup(
        machine=machine,
        torch_problem=problem,
        packages=package_versions(),
        folder=str(folder),
        disk_free_bytes=shutil.disk_usage(_nearest_existing(folder)).free,
        suite=suite.name,
        left_out=suite.left_out,
        trained_on=training_cases(suite.cases),
        images=images,
        images_bytes=images * settings.width * settings.height * BYTES_PER_PIXEL,
        weights=needed,
        weights_bytes=_largest_variant_bytes(needed),
        memory=memory,
        time=time,
        judges=tuple(
            JudgeFile(metrics=metrics, file=file)
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
    from bench.suite.text_files import exists

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
    for label, cases in (("left out", checkup.left_out), ("kept", checkup.trained_on)):
        if cases:
            rows.append((label, f"{plural(len(cases), 'prompt')} that SPO was trained on: {listed(cases)}"))
    print()
    print_table([Column(f"suite {checkup.suite}"), Column("", text=True)], rows)
    for note in forecast_notes(checkup.memory, checkup.time):
        print(printable(note))
    print()
    _print_weights(checkup.weights)
    if checkup.judges:
        print()
        print_judges(checkup.judges, checkup.lock)


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
