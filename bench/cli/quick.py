"""``quick``: checkpoints and LoRAs side by side, without a suite file to write first."""

from __future__ import annotations

import tempfile
import tomllib
from pathlib import Path
from typing import NamedTuple

import msgspec

from bench.checkpoints.locate import places
from bench.cli import options
from bench.cli.cost import say_run_cost
from bench.cli.init import tell_draft
from bench.cli.options import Checkpoints, Device, DryRun, Fresh, Limit, Loras, Output, Quiet, Ray, Runtimes, WeightsDir
from bench.cli.printing import DONE, say
from bench.cli.stages import do_stage
from bench.cli.targets import as_place, names_run, read_suite
from bench.documents import exists, read_text
from bench.draft.make import Draft, make_draft, prompts_text, quick_name, quick_suite, usable_metrics
from bench.draft.suite_text import suite_text, with_metrics
from bench.errors import UsageError, WeightsError
from bench.formatting import argument, listed, quantity
from bench.machine import pick_device
from bench.metrics import installed
from bench.metrics.catalogue import find_entry
from bench.metrics.registry import Registry, weights_of
from bench.published_files import look_up
from bench.records import Suite
from bench.run.status import NOT_SCORED
from bench.store.journal import make_folder, write_whole
from bench.store.objects import is_url
from bench.store.reading import RUNS

HEADING = (
    "What `hotart-bench quick` drew: up to 8 portraits and 8 landscapes with each variant. For a comparison that can",
    "tell a small difference, `hotart-bench init` writes a suite of a few hundred images of each.",
)


class Files(NamedTuple):
    """The files of a quick run, before they are written."""

    suite: Suite
    suite_file: Path
    prompt_file: Path
    missing: tuple[str, ...]
    """Metrics that are left out, since their weights are not here."""

    def texts(self, folder: Path) -> dict[Path, str]:
        """What is written into a folder, from which relative sources start."""
        return {
            folder / self.suite_file.name: suite_text(self.suite, folder, HEADING),
            folder / self.prompt_file.name: prompts_text(self.suite.prompts),
        }


def quick(
    checkpoint: Checkpoints,
    lora: Loras = None,
    runtime: Runtimes = None,
    output: Output = None,
    device: Device = "auto",
    limit: Limit = None,
    weights_dir: WeightsDir = None,
    ray: Ray = None,
    fresh: Fresh = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
) -> int:
    """Checkpoints and LoRAs side by side on 16 prompts, without a suite file.

    Each checkpoint, each once more with each LoRA, and all of these once more with each runtime, draws 8 portraits and
    8 landscapes from the same noise; they are scored by the metrics whose weights are here, and shown in a report.
    Nothing is timed. The suite is written beside the run folder, so that `hotart-bench run` takes it; the same command
    again continues.

    Examples:
      hotart-bench quick --checkpoint mini --lora mini:spo
      hotart-bench quick --checkpoint old.safetensors --checkpoint new.safetensors
      hotart-bench quick --checkpoint old.safetensors --lora spo.safetensors:0.8
      hotart-bench quick --checkpoint mini --runtime deepcache:3
      hotart-bench quick --checkpoint mini --lora mini:spo --limit 4 -o runs/look
      hotart-bench quick --checkpoint mini --lora mini:spo:0.5 --dry-run
    """
    options.check_device(device)
    options.check_weights_dir(weights_dir)
    draft = make_draft(checkpoint, lora or (), weights_dir, runtime or ())
    _refuse_lost(draft, weights_dir)
    name = quick_name(draft)
    place = RUNS / name if output is None else as_place(output)
    files = _files(draft, name, place, weights_dir)
    with tempfile.TemporaryDirectory() as aside:  # so that what is refused leaves nothing
        suite = msgspec.structs.replace(_write(files, Path(aside), limit), source=str(files.suite_file))
    folder = RUNS / f"{name}-limit-{limit}" if output is None and suite.limit is not None else place
    notes = _notes(files)
    if not quiet or dry_run:
        tell_draft(draft, suite)
        if draft.family != "mini" and ray is None and (is_url(folder) or not names_run(str(folder))):
            _tell_of_processor(device)
    if dry_run:
        for note in notes:
            say(note)
        say_run_cost(suite, folder, device=device, weights_dir=weights_dir, ray=ray, fresh=fresh)
        return DONE
    command = f"hotart-bench run {argument(files.suite_file)}"
    if output is not None:  # without it, another folder is begun and all is drawn again
        command += f" -o {argument(output)}" + (f" --limit {suite.limit}" if suite.limit is not None else "")
    _make_room(files, command, fresh=fresh)
    _write(files, files.suite_file.parent, limit)
    do_stage("all", suite, folder, quiet, device=device, weights_dir=weights_dir, ray=ray, fresh=fresh, notes=notes)
    if not quiet:
        say(f"  its suite and prompts, to change and go on with: {command}")
    return DONE


def _refuse_lost(draft: Draft, weights_dir: Path | None) -> None:
    """Raises WeightsError for a checkpoint or LoRA that is neither here nor of the Hub, before anything is written."""
    if draft.lost:
        raise WeightsError(draft.lost[0], "check the path; hotart-bench quick --help shows what may be named")
    for variant in draft.variants:
        places(variant, weights_dir)


def _tell_of_processor(device: str) -> None:
    """Says what large images take where no GPU is found, as with a torch that was built without."""
    if pick_device(device) == "cpu":
        say(
            "It is drawn on the CPU, where an image takes minutes; a GPU needs a torch that was built for it: "
            "https://pytorch.org/get-started/locally/"
        )


def _files(draft: Draft, name: str, place: Path | str, weights_dir: Path | None) -> Files:
    """The suite with the metrics whose weights are here, and where it and its prompts lie: beside the run folder."""
    beside = RUNS / str(place).rstrip("/").rpartition("/")[2] if is_url(place) else Path(place)
    if beside.name in ("", ".."):
        raise UsageError(f"-o: {place} names no folder that the suite could lie beside.", "-o runs/look, for example")
    suite_file, prompt_file = (beside.with_name(f"{beside.name}{end}") for end in (".toml", ".jsonl"))
    suite, registry = quick_suite(draft, name, prompt_file.name), installed()
    usable = usable_metrics(suite, registry)
    missing = tuple(one for one in usable if not _is_here(one, registry, weights_dir))
    there = [one for one in usable if one not in missing]
    return Files(with_metrics(suite, there), suite_file, prompt_file, missing)


def _is_here(metric: str, registry: Registry, weights_dir: Path | None) -> bool:
    entries = map(find_entry, weights_of(metric, registry))
    return all(file.path is not None for entry in entries for file in look_up(entry, weights_dir))


def _write(files: Files, folder: Path, limit: int | None) -> Suite:
    """Writes the suite and its prompts into a folder, and reads them as `run` would."""
    make_folder(folder)
    for path, text in files.texts(folder).items():
        write_whole(path, text.encode())
    return read_suite(str(folder / files.suite_file.name), limit)


def _changed(files: Files) -> list[Path]:
    """The files that are there and that these arguments would not have made; metrics may have come since."""
    texts = files.texts(files.suite_file.parent)
    return [
        path
        for path, text in texts.items()
        if exists(path) and _without_metrics(read_text(path)) != _without_metrics(text)
    ]


def _make_room(files: Files, command: str, *, fresh: bool) -> None:
    """Keeps what the user changed: with ``fresh`` under another name; else raises UsageError."""
    for path in _changed(files):
        if not fresh:
            raise UsageError(
                f"{path}: is there, and is not what this command would write.",
                f"{command} goes on with it; --fresh begins anew, -o takes another folder",
            )
        path.replace(path.with_name(f"{path.name}.old"))
        say(f"{path} was changed, and is now {path.name}.old.")


def _without_metrics(text: str) -> object:
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return text
    return {name: value for name, value in table.items() if name not in ("metrics", "limits")}


def _notes(files: Files) -> tuple[str, ...]:
    """What the missing metrics are, and the command that gets them."""
    if not files.missing:
        return ()
    registry = installed()
    entries = dict.fromkeys(entry for name in files.missing for entry in weights_of(name, registry))
    stored = [file for entry in map(find_entry, entries) for file in look_up(entry, None) if file.path is None]
    size = sum(file.size_bytes or 0 for file in stored)
    named = [name for name in files.missing if name in registry.metrics]
    command = f"hotart-bench fetch {argument(files.suite_file)} --metrics {','.join(named)}"
    return (
        f"{NOT_SCORED}{listed(files.missing)}. `{command}` gets them (about {quantity(float(size), 'byte')}); then "
        "the same command scores them.",
    )
