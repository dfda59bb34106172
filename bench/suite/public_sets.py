"""Public prompt sets by name, such as ``prompts = ["parti"]``: where each is published, and its file on this machine.

None is shipped. ``hotart-bench fetch`` gets those that lie where it may; any of them may also be put beside the suite
file, under its published name. The hash of the file is recorded when it is first seen and checked from then on
(``bench.published_files``), so that two runs by one name have the same prompts.
"""

from __future__ import annotations

from pathlib import Path

from bench import published_files
from bench.errors import SuiteError
from bench.published_files import Entry, File
from bench.records import Record
from bench.weights_lock import hash_once


class PublicSet(Record, frozen=True):
    """A published prompt set."""

    entry: Entry
    """Its one file. ``Entry.name`` is what a suite calls it."""
    prompts: int
    """How many there are, as published."""
    licence: str
    reference: str
    fetched: bool = True
    """False where the file has no address of its own: the user puts it there."""

    @property
    def file_name(self) -> str:
        """The name of the file, without the folders of its repository."""
        return Path(self.entry.files[0].name).name


_SETS = (
    PublicSet(
        entry=Entry(
            name="parti",
            what="PartiPrompts",
            host="github",
            repository="google-research/parti",
            revision="2c99f6652cbc7f0d0441aa91f4c7e7055bcb0071",
            files=(File(name="PartiPrompts.tsv", about_bytes=150_000),),
        ),
        prompts=1632,
        licence="Apache-2.0",
        reference="J. Yu et al., Scaling autoregressive models for content-rich text-to-image generation, "
        "arXiv 2206.10789",
    ),
    PublicSet(
        entry=Entry(
            name="drawbench",
            what="DrawBench, the table with the columns Prompts and Category saved as CSV",
            host="github",
            repository="google/drawbench",
            files=(File(name="drawbench.csv"),),
        ),
        prompts=200,
        licence="none stated",
        reference="C. Saharia et al., Photorealistic text-to-image diffusion models with deep language understanding, "
        "arXiv 2205.11487",
        fetched=False,
    ),
    PublicSet(
        entry=Entry(
            name="geneval",
            what="GenEval",
            host="github",
            repository="djghosh13/geneval",
            files=(File(name="prompts/evaluation_metadata.jsonl", about_bytes=150_000),),
        ),
        prompts=553,
        licence="MIT",
        reference="D. Ghosh et al., GenEval, arXiv 2310.11513",
    ),
    PublicSet(
        entry=Entry(
            name="dpg",
            what="DPG-Bench",
            host="github",
            repository="TencentQQGYLab/ELLA",
            files=(File(name="dpg_bench/dpg_bench.csv", about_bytes=10_000_000),),
        ),
        prompts=1065,
        licence="Apache-2.0",
        reference="X. Hu et al., ELLA, arXiv 2403.05135",
    ),
)
PUBLIC_SETS = {one.entry.name: one for one in _SETS}


def find_public_set(name: str, folder: Path) -> tuple[Path, str]:
    """The checked file of a public set, and a sentence on what it is; nothing is downloaded.

    Args:
        name: one of ``PUBLIC_SETS``.
        folder: where the suite lies; a file of the published name there comes before an earlier download.

    Raises:
        SuiteError: the file is not on this machine; the hint says how to get it.
        WeightsError: it is another one than was first seen.
        MachineError: the lock file cannot be read or written.
    """
    chosen = PUBLIC_SETS[name]
    path = present(chosen, folder)
    if path is None:
        there = f"put {chosen.entry.what} at {folder / chosen.file_name}"
        hint = f"hotart-bench fetch --prompts {name}, or {there}" if chosen.fetched else there
        raise SuiteError(f"prompts: the public set {name!r} is not on this machine, and none is shipped.", hint)
    published_files.check_file(chosen.entry, chosen.entry.files[0], path)
    said = (
        f"{name}: {chosen.entry.what.split(',')[0]} ({chosen.licence}; {chosen.reference}), {path.name} with sha256 "
        f"{hash_once(path)[:16]}, recorded when it was first seen."
    )
    return path, said


def present(chosen: PublicSet, folder: Path) -> Path | None:
    """Where the file of a set lies: beside the suite, or among earlier downloads; None where it is missing."""
    own = folder / chosen.file_name
    return own if own.is_file() else published_files.present(chosen.entry, chosen.entry.files[0], None)


def fetch_public_set(name: str) -> Path:
    """The file of a public set, downloaded if need be, and checked.

    Raises:
        SuiteError: it has no address of its own.
        WeightsError: it cannot be downloaded, or is another one than was first seen.
        MachineError: the disk is full, or the lock file cannot be written.
    """
    chosen = PUBLIC_SETS[name]
    if not chosen.fetched:
        raise SuiteError(
            f"The public set {name!r} has no address to fetch it from ({chosen.reference}).",
            f"save {chosen.entry.what} as {chosen.file_name} beside your suite file",
        )
    return published_files.find_files(chosen.entry)
