"""``doctor``: what this machine has, what a suite needs, and the command that gets what is missing."""

from __future__ import annotations

import platform
import shutil
from pathlib import Path

import msgspec

from bench.checkpoints.fingerprint import Needed, weights_needed
from bench.cli import options
from bench.cli.fetch import entries_needed, print_metric_files
from bench.cli.options import AsJson, Device, Limit, Output, SuiteName, WeightsDir
from bench.cli.printing import DONE, print_json, print_table, say, show
from bench.cli.targets import default_folder, disk_for, read_suite
from bench.documents import exists
from bench.errors import MachineError, WeightsError
from bench.formatting import argument, duration, listed, plural, quantity
from bench.machine import machine_facts, package_versions, pick_device
from bench.metrics.catalogue import find_entry
from bench.plan.memory import download_bytes, estimate_memory, most_disk_bytes, parts_of
from bench.plan.time import estimate_time
from bench.published_files import Stored, look_up
from bench.questions.registry import registry_of_suite
from bench.questions.states import JudgeState, judges_asked, state_of
from bench.records import Machine, MemoryEstimate, Record, Suite, TimeEstimate, Variant
from bench.store import load_run
from bench.suite.runtimes import missing_of, refuse_runtimes, told_runtime
from bench.suite.sampling import sampling_notes
from bench.suite.training_prompts import training_prompts_in
from bench.weights_lock import lock_path


class Checkup(Record, frozen=True):
    """What ``doctor`` found."""

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
    notes: tuple[str, ...]
    """What the readers of the prompt files say."""
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
    metric_files: tuple[tuple[Stored, list[str]], ...]
    """The weight files of the suite's metrics, each with the metrics that need it; empty where none needs any."""
    questions: int
    """How many its prompts have together."""
    judges: tuple[JudgeState, ...]
    """Who is to answer them, for the suite's metrics."""
    runtimes: dict[str, str]
    """By variant, how those are run that are not run as they are written, or what is missing for it."""
    lock: str
    """Where the hashes of unpinned weights are recorded."""


def doctor(
    suite: SuiteName = "mini",
    output: Output = None,
    device: Device = "auto",
    limit: Limit = None,
    weights_dir: WeightsDir = None,
    json: AsJson = False,
) -> int:
    """What this machine has, what a suite needs, what is missing.

    Ends with 0 when the suite can run, with 3 when weights are missing, with 6 when the machine lacks
    something, or memory by the estimate.

    Examples:
      hotart-bench doctor
      hotart-bench doctor sdxl
      hotart-bench doctor my-suite.toml -o /data/runs/mine --weights-dir weights
    """
    options.check_device(device)
    options.check_weights_dir(weights_dir)
    checked = read_suite(suite, limit)
    checkup = examine(checked, disk_for(output or default_folder(checked)), device, weights_dir)
    if json:
        files = [{"metrics": metrics, "file": file} for file, metrics in checkup.metric_files]
        print_json(msgspec.structs.asdict(checkup) | {"metric_files": files})
    else:
        _print_checkup(checkup, checked)
    _refuse(checkup, suite)
    refuse_runtimes(checked.variants, None if checkup.machine is None else checkup.machine.device)
    say(f"Ready: hotart-bench run {argument(suite)}")
    return DONE


def examine(suite: Suite, folder: Path, device: str, weights_dir: Path | None) -> Checkup:
    """The machine and the suite side by side, with an estimate; nothing is written, downloaded or loaded."""
    machine, torch_problem = None, None
    try:
        machine = machine_facts(pick_device(device))
    except (ImportError, OSError) as error:  # OSError is how a torch without its CUDA libraries fails to load
        torch_problem = f"{type(error).__name__}: {error}"
    needed = weights_needed(suite, weights_dir)
    memory, time = (None, None) if machine is None else estimate(suite, machine, needed, folder)
    settings = suite.settings
    images = len(suite.prompts) * suite.samples * len(suite.variants)
    there = next(path for path in (folder, *folder.absolute().parents) if exists(path))
    return Checkup(
        machine=machine,
        torch_problem=torch_problem,
        packages=package_versions(),
        folder=str(folder),
        disk_free_bytes=shutil.disk_usage(there).free,
        suite=suite.name,
        left_out=suite.left_out,
        notes=suite.notes,
        trained_on=training_prompts_in(suite.prompts),
        images=images,
        images_bytes=most_disk_bytes(images, settings),
        weights=needed,
        weights_bytes=_largest_variant_bytes(needed),
        memory=memory,
        time=time,
        metric_files=tuple(
            (file, metrics)
            for entry, metrics in entries_needed(suite, suite.metrics).items()
            for file in look_up(find_entry(entry), weights_dir)
        ),
        questions=sum(len(prompt.questions) for prompt in suite.prompts),
        judges=tuple(
            state_of(judge, weights_dir) for judge in judges_asked(suite, suite.metrics, registry_of_suite(suite))
        ),
        runtimes={one.name: _runtime_words(one, machine) for one in suite.variants if one.runtime is not None},
        lock=str(lock_path()),
    )


def estimate(
    suite: Suite, machine: Machine, needed: tuple[Needed, ...], folder: Path
) -> tuple[MemoryEstimate | None, TimeEstimate]:
    """Memory and time of a suite on this machine, from headers and from the timings that its folder may hold.

    Raises:
        WeightsError: the header of a file of weights cannot be read.
        HotartError: the folder holds a run that cannot be read.
    """
    run = load_run(folder) if (folder / "run.json").is_file() else None
    parts = parts_of(suite.variants[0], needed)
    return estimate_memory(suite, machine, needed), estimate_time(suite, machine, run, parts)


def _runtime_words(variant: Variant, machine: Machine | None) -> str:
    lacks = [what for what, _ in missing_of(variant, None if machine is None else machine.device)]
    return f"{variant.runtime}: {'; '.join(lacks)}" if lacks else told_runtime(variant)


def _largest_variant_bytes(needed: tuple[Needed, ...]) -> int | None:
    totals: dict[str, int] = {}
    for item in needed:
        if item.size_bytes is None:
            return None
        totals[item.variant] = totals.get(item.variant, 0) + item.size_bytes
    return max(totals.values(), default=None)


# --- in words --------------------------------------------------------------------------------


def _print_checkup(checkup: Checkup, suite: Suite) -> None:
    disk = f"{quantity(checkup.disk_free_bytes, 'byte')} free for {checkup.folder}"
    packages = ", ".join(f"{name} {version}" for name, version in checkup.packages.items())
    machine_rows = [*_machine_rows(checkup), ("disk", disk), ("packages", packages)]
    print_table({"this machine": "name", "": "text"}, machine_rows)
    size = f"{suite.settings.width}x{suite.settings.height}"
    rows = [
        ("images", f"{checkup.images:,} of {size}, at most {quantity(checkup.images_bytes, 'byte')} of disk"),
        ("memory", _memory_words(checkup.memory, checkup.weights_bytes)),
        ("time", time_words(checkup.time)),
    ]
    for label, prompts in (("left out", checkup.left_out), ("kept", checkup.trained_on)):
        if prompts:
            rows.append((label, f"{plural(len(prompts), 'prompt')} that SPO was trained on: {listed(prompts)}"))
    rows += [(f"variant {name}", f"runs by {words}") for name, words in checkup.runtimes.items()]
    of_settings = sampling_notes(suite)
    rows += [("settings" if note in of_settings else "prompts", note) for note in checkup.notes]
    if checkup.questions:
        asked = sum(bool(prompt.questions) for prompt in suite.prompts)
        rows.append(("questions", f"{checkup.questions:,} about {plural(asked, 'prompt')} of {len(suite.prompts):,}"))
    show()
    print_table({f"suite {checkup.suite}": "name", "": "text"}, rows)
    if checkup.memory is not None:
        show(checkup.memory.basis)
        if checkup.memory.advice:
            show(_memory_advice(checkup.memory))
    if checkup.time is not None:
        show(checkup.time.basis)
    show()
    _print_weights(checkup.weights)
    if checkup.judges:
        show()
        judges = [(one.judge, one.what, one.state) for one in checkup.judges]
        print_table({"judge": "name", "how": "text", "state": "text"}, judges)
    if checkup.metric_files:
        show()
        print_metric_files(checkup.metric_files, checkup.lock)


def _machine_rows(checkup: Checkup) -> list[tuple[str, str]]:
    machine = checkup.machine
    if machine is None:
        device = f"none: torch cannot be imported ({checkup.torch_problem})"
        return [("system", platform.platform()), ("device", device)]
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
    for name, (first, *others) in by_name.items():
        variants = ", ".join(dict.fromkeys(item.variant for item in (first, *others)))
        rows.append([name, variants, "there" if first.present else "missing", _size_words(first)])
    print_table({"weights": "text", "of": "text", "state": "name", "size": "number"}, rows)


def _size_words(item: Needed) -> str:
    """Stored size, or what a known checkpoint's download takes; empty where neither is known."""
    if item.size_bytes is not None:
        return quantity(item.size_bytes, "byte")
    known = download_bytes(item.what)
    return "" if known is None else f"about {quantity(known, 'byte')}"


def _memory_words(found: MemoryEstimate | None, weights_bytes: int | None) -> str:
    """Peak and need against what there is; without an estimate what the weights alone take."""
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


def _memory_advice(found: MemoryEstimate) -> str:
    """The settings that would fit, in a sentence; empty where there are no such settings, or the suite fits already."""
    return f"In [settings], {'; or '.join(found.advice)}. Each makes another protocol." if found.advice else ""


def time_words(found: TimeEstimate | None) -> str:
    """How long rendering and measuring take, or that it is not known."""
    if found is None or found.render_s is None or found.measure_s is None:
        return "not known"
    return f"about {duration(found.render_s)} to render, {duration(found.measure_s)} to measure; scoring on top"


def _refuse(checkup: Checkup, suite: str) -> None:
    """Raises MachineError or WeightsError for the first thing that keeps the suite from running."""
    if checkup.torch_problem is not None:
        raise MachineError(f"torch cannot be imported ({checkup.torch_problem}).", "pip install torch")
    missing = [item.what for item in checkup.weights if not item.present]
    missing += [file.what for file, _ in checkup.metric_files if file.path is None]
    missing += [one.what for one in checkup.judges if one.weights]
    if missing:
        names = ", ".join(dict.fromkeys(missing))
        raise WeightsError(
            f"Weights are missing for suite {checkup.suite}: {names}.", f"hotart-bench fetch {argument(suite)}"
        )
    absent = next((one for one in checkup.judges if not one.found), None)
    if absent is not None:
        raise MachineError(f"The judge {absent.judge!r} cannot be asked: {absent.state}.", "docs/questions.md")
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
            "by the estimate.",
            _memory_advice(checkup.memory) or "choose a device with more memory, or a smaller size or batch",
        )
