"""``merge``: a recipe becomes one ``.safetensors`` file in the single-file (LDM) layout, tensor by tensor."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from importlib import metadata as packages
from io import FileIO
from pathlib import Path
from typing import Any

import msgspec
import torch

from bench import documents
from bench.checkpoints.checkpoint import Checkpoint, component_of
from bench.checkpoints.families import CONV_IN, FAMILIES, family_tensors, inpainting_shape
from bench.checkpoints.ldm_layout import TEXT_2, LdmTensor, join, ldm_tensors
from bench.checkpoints.safetensors_files import Stored, read_header, read_stored, weights_sha256
from bench.documents import FileState, file_state
from bench.errors import MachineError, UsageError, WeightsError
from bench.formatting import quantity
from bench.lora.algorithms import weights_of
from bench.machine import lone_threads
from bench.merge.load import located, open_recipe
from bench.merge.merged import Merged, components_of
from bench.metrics import training_of_metrics
from bench.records import Progress, Record, Variant, WeightFile
from bench.store.journal import TEMPORARY, writing
from bench.trained_on import NONE, TRAINED_ON, find_training

CODES = {"int64": "I64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}
"""What is written: torch's name of a dtype -> the format's."""

WIDTHS = {"int64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
HASHING = 2
"""How many input files are hashed at a time."""
AHEAD = 2
"""How many finished tensors may wait for the disk."""
MAKERS = 2
"""How many tensors are made at a time."""


class MergedFile(Record, frozen=True):
    """A merged checkpoint, written."""

    path: str
    sha256: str
    size_bytes: int
    tensors: dict[str, int]
    """How many the file has, by component."""
    dtypes: dict[str, str]
    """Precision by component; several are joined by ``+``."""
    inputs: tuple[WeightFile, ...]
    notes: tuple[str, ...] = ()
    """What was done that the recipe does not show, in sentences."""


def merge(
    recipe: Path, output: Path, *, weights_dir: Path | None, force: bool = False, progress: Progress
) -> MergedFile:
    """Write what a recipe makes as one ``.safetensors`` file in the single-file layout.

    Everything is computed in float32, one tensor at a time, and cast once. The file takes its place when it is whole
    and on the disk; until then, and where anything fails, what was there stays. The same recipe and inputs give the
    same bytes.

    Args:
        recipe: the ``.toml`` file.
        output: the file to be.
        weights_dir: a folder to look in before the Hub.
        force: whether a file that is there may be replaced.
        progress: told of the stages ``hash`` and ``merge``.

    Raises:
        SuiteError: a bad recipe.
        UsageError: an output that cannot be used.
        WeightsError: a source that is missing, damaged or does not fit; values that are not finite; a family that
            people do not share as single files.
        MachineError: no room on the disk, or it will not write.
    """
    target = _check_output(output, force)
    merged = open_recipe(recipe, weights_dir)
    _refuse_an_input(target, merged)
    _refuse_other_precisions(merged)
    _refuse_unknown_family(merged)
    layout = ldm_tensors(merged.tensors)
    unused = _unused(merged)
    entries = [*layout, *_marks(merged), *unused]
    check_room(target, sum(map(size_of, entries)))
    before = _stamps(merged)
    inputs = _hash(merged, progress)
    texts = modelspec_texts(merged, {path: file.sha256 for path, file in inputs.items()})
    texts = dict(sorted({**texts, **training_text(recipe, weights_dir)}.items()))
    with replacing(target) as file:
        sha256, size_bytes = write_tensors(
            file, target, entries, texts, lambda one: _tensor(merged, one, unused), progress
        )
        _refuse_changed(before, _stamps(merged))
    return MergedFile(
        path=str(output),
        sha256=sha256,
        size_bytes=size_bytes,
        tensors=dict(Counter(map(_component, (*layout, *unused)))),
        dtypes=merged.facts.dtypes,
        inputs=tuple(inputs.values()),
        notes=merged.notes,
    )


def _check_output(output: Path, force: bool) -> Path:
    """Where the file goes, a link followed; UsageError where it cannot."""
    target = documents.resolved(output)
    if target.suffix != ".safetensors":
        raise UsageError(f"{output}: a merged checkpoint is a .safetensors file.", f"-o {output}.safetensors")
    if target.exists() and not target.is_file():
        raise UsageError(f"{output}: is a folder or a device, not a file.")
    if not target.parent.is_dir():
        raise UsageError(f"{output}: there is no folder {target.parent}.", f"mkdir -p {target.parent}")
    if target.exists() and not force:
        raise UsageError(f"{output}: is there already.", "--force replaces it once the new one is whole")
    return target


def _refuse_an_input(target: Path, merged: Merged) -> None:
    for _, path in merged.files:
        if target.exists() and path.samefile(target):
            raise UsageError(f"{target}: is an input of the recipe ({path.name}); choose another name with -o.")


def _refuse_other_precisions(merged: Merged) -> None:
    for component, dtypes in merged.facts.dtypes.items():
        other = [dtype for dtype in dtypes.split("+") if dtype not in CODES]
        if other:
            raise WeightsError(
                f"{merged.models[0].what}: its {component} is stored in {', '.join(other)}, which is not written here.",
                'set dtype = "float16", "bfloat16" or "float32" in the recipe',
            )


def _refuse_unknown_family(merged: Merged) -> None:
    """Refuses what nothing could read as a single file: such a file has no configuration, only shapes.

    Raises:
        WeightsError: the components that were merged have not just the tensors of one of the known families.
    """
    found = {name: tensor.shape for name, tensor in merged.tensors.items()}
    for family in FAMILIES:
        shapes = {
            name: tensor.shape
            for name, tensor in family_tensors(family).items()
            if component_of(name) in components_of(merged)
        }
        if merged.facts.inpainting and CONV_IN in shapes:
            shapes[CONV_IN] = inpainting_shape(shapes[CONV_IN])
        if shapes == found:
            return
    raise WeightsError(
        f"{merged.models[0].what}: has the shapes of no family that people share as single files (SDXL, SD 1.5), so "
        "that nothing could read the merged one: it would lack the configuration.",
        f'the recipe itself is a checkpoint: checkpoint = "{merged.path.name}" in a suite beside it',
    )


def _marks(merged: Merged) -> list[LdmTensor]:
    """The empty tensors by which single files say what they predict, and by which schedule they were trained."""
    facts = merged.facts
    marks = {"v_pred": facts.prediction == "v_prediction", "ztsnr": facts.zero_terminal_snr}
    return [LdmTensor(key, (0,), "float32") for key, is_so in marks.items() if is_so]


def _hash(merged: Merged, progress: Progress) -> dict[Path, WeightFile]:
    """Every weight file that goes in, by its path, each hashed once; two at a time."""
    components: dict[Path, str] = {}
    for component, path in merged.files:
        components.setdefault(path, component)
    found: dict[Path, WeightFile] = {}
    with ThreadPoolExecutor(HASHING) as threads:
        for done, (path, sha256) in enumerate(zip(components, threads.map(weights_sha256, components), strict=True)):
            progress("hash", done, len(components), path.name)
            size_bytes = path.stat().st_size
            found[path] = WeightFile(component=components[path], name=path.name, sha256=sha256, size_bytes=size_bytes)
    progress("hash", len(components), len(components))
    return found


def _stamps(merged: Merged) -> dict[Path, FileState]:
    """The state of every input: what shows that a file was written to meanwhile."""
    return {path: file_state(path) for _, path in merged.files}


def _refuse_changed(before: Mapping[Path, object], after: Mapping[Path, object]) -> None:
    changed = [path.name for path in before if before[path] != after[path]]
    if changed:
        raise WeightsError(
            f"{', '.join(changed)}: was written to while it was merged: its hash is not the hash of what was read.",
            "give the same command again, once nothing writes to it",
        )


UNUSED_TEXT = re.compile(
    r"conditioner\.embedders\.1\.model\.logit_scale|cond_stage_model\.(.*\.)?logit_scale"
    r"|(cond_stage_model|conditioner\.embedders\.0)\.transformer\.text_projection\.weight"
)
"""Tensors of the text encoders that published files have and no pipeline reads; nothing is merged of them."""


def _unused(merged: Merged) -> dict[LdmTensor, Stored]:
    """What the first model's file has of ``UNUSED_TEXT``, which goes into the merged one."""
    file = _first_file(merged)
    found = {} if file is None else read_header(file).tensors
    return {
        LdmTensor(
            key, stored.shape, merged.recipe.dtype or (stored.dtype if stored.dtype in CODES else "float32")
        ): stored
        for key, stored in found.items()
        if UNUSED_TEXT.fullmatch(key)
    }


def _component(entry: LdmTensor) -> str:
    """What a tensor belongs to; those without parts are of the text encoders."""
    if entry.parts:
        return component_of(entry.parts[0])
    return "text_encoder_2" if entry.key.startswith(TEXT_2) else "text_encoder"


def _tensor(merged: Merged, entry: LdmTensor, unused: Mapping[LdmTensor, Stored]) -> torch.Tensor:
    """A stored tensor in the precision of the output; an empty one for a mark."""
    if not math.prod(entry.shape):
        return torch.zeros(0)
    dtype: torch.dtype = getattr(torch, entry.dtype)
    if entry in unused:
        return read_stored(unused[entry]).to(dtype)
    return join(entry, [merged.read(name, dtype) for name in entry.parts])


# --- what a merged file says of itself (modelspec); nothing in it depends on when or where it was made ---------------

OF_ONE_FILE = ("modelspec.hash_sha256", "modelspec.date", "modelspec.thumbnail", TRAINED_ON)
ARCHITECTURES = {"sdxl": "stable-diffusion-xl-v1-base", "sd15": "stable-diffusion-v1"}
RESOLUTIONS = {"sdxl": "1024x1024", "sd15": "512x512"}
PREDICTIONS = {"epsilon": "epsilon", "v_prediction": "v"}


def modelspec_texts(merged: Merged, hashes: Mapping[Path, str]) -> dict[str, str]:
    """The metadata of the merged file, sorted by name.

    Args:
        merged: the recipe.
        hashes: the sha256 of every weight file that goes into it.
    """
    facts, first = merged.facts, _metadata(merged)
    kept = [name for name in first if name.startswith(("modelspec.", "ss_")) and name not in OF_ONE_FILE]
    texts = {name: first[name] for name in kept}
    texts.setdefault("modelspec.title", _title(merged.models[0]))
    texts.setdefault("modelspec.resolution", RESOLUTIONS[facts.family])
    texts |= {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": ARCHITECTURES[facts.family] + ("/inpaint" if facts.inpainting else ""),
        "modelspec.implementation": "sgm" if facts.family == "sdxl" else "ldm",
        "modelspec.prediction_type": PREDICTIONS[facts.prediction],
        "modelspec.merged_from": ", ".join(_title(model) for model in merged.models),
        "hotart.version": packages.version("hotart-bench"),
        "hotart.recipe": documents.canonical(recipe_facts(merged, hashes)).decode(),
    }
    own = msgspec.structs.asdict(merged.recipe.metadata)
    texts |= {f"modelspec.{name}": text for name, text in own.items() if text is not None}
    return dict(sorted(texts.items()))


def training_text(recipe: Path, weights_dir: Path | None) -> dict[str, str]:
    """What the sources and LoRAs of a recipe were trained on, as the file's metadata; nothing where one is unknown."""
    found = find_training(Variant(name="merged", checkpoint=str(recipe)), weights_dir, training_of_metrics())
    return {} if found.unknown else {TRAINED_ON: ", ".join(found.names) or NONE}


def recipe_facts(merged: Merged, hashes: Mapping[Path, str]) -> dict[str, Any]:
    """A recipe without paths: its fields, and of each source its name and the sha256 of its files."""
    recipe: dict[str, Any] = msgspec.to_builtins(merged.recipe)
    recipe["models"] = [_source_facts(model, hashes) for model in merged.models]
    recipe["vae"] = None if merged.vae is None else _source_facts(merged.vae, hashes)
    recipe["loras"] = [
        {
            **weights_of(one.lora),
            "path": without_folder(located(one.lora.path, merged.path.parent)),
            "sha256": hashes[one.adapter.path],
            "scales_sha256": documents.sha256_of(documents.canonical(one.adapter.scales)),
        }
        for one in merged.loras
    ]
    return recipe


def without_folder(what: str) -> str:
    """A source as a header may name it: of a path the last part, a Hub id or a shipped name as it is.

    Sources that are paths are opened by absolute ones (``located``), so that the two cannot be taken for each other.
    """
    return Path(what).name if Path(what).is_absolute() else what


def _source_facts(source: Checkpoint, hashes: Mapping[Path, str]) -> dict[str, Any]:
    if isinstance(source, Merged):
        return recipe_facts(source, hashes)
    files = [{"component": component, "sha256": hashes[path]} for component, path in source.files]
    return {"source": without_folder(source.what), "files": files}


def _title(model: Checkpoint) -> str:
    return model.facts.title or Path(without_folder(model.what)).stem


def _metadata(merged: Merged) -> Mapping[str, str]:
    """What the first model's file says of itself; nothing where it is not one file."""
    file = _first_file(merged)
    return {} if file is None else read_header(file).metadata


def _first_file(merged: Merged) -> Path | None:
    """The file of the first model, or of that one's first where it is a recipe; None where it is not one file."""
    first = merged.models[0]
    if isinstance(first, Merged):
        return _first_file(first)
    return first.files[0][1] if first.facts.layout == "single-file" else None


# --- one .safetensors file, written tensor by tensor, whole or not at all --------------------------------------------


def size_of(entry: LdmTensor) -> int:
    """Bytes that a tensor takes in the file."""
    return math.prod(entry.shape) * WIDTHS[entry.dtype]


def write_tensors(
    file: FileIO,
    path: Path,
    entries: Sequence[LdmTensor],
    metadata: Mapping[str, str],
    read: Callable[[LdmTensor], torch.Tensor],
    progress: Progress,
) -> tuple[str, int]:
    """Write header and tensors into a new file, in the order of ``ordered``; its sha256 and its bytes.

    Args:
        file: what ``replacing`` gave.
        path: what it is to be, for messages.
        entries: its tensors, in a dtype of ``CODES``.
        metadata: the header's texts.
        read: an entry's tensor, on the CPU, in its shape and dtype; called from ``MAKERS`` threads. While
            some are made, those before them are hashed and written.
        progress: told of each tensor.

    Raises:
        MachineError: there is no room for it, or the system will not write.
        ValueError: ``read`` gave another shape or dtype (a bug of the caller).
    """
    order = ordered(entries)
    head = header(order, metadata)
    size_bytes = len(head) + sum(map(size_of, order))
    check_room(path, size_bytes)
    digest = hashlib.sha256()

    def put(data: bytes | memoryview) -> None:
        with _writing(path):
            _write_all(file, data)
            _start_writing_out(file, len(data))
        digest.update(data)

    with lone_threads(MAKERS) as makers, ThreadPoolExecutor(1) as pen:
        waiting: deque[Future[None]] = deque([pen.submit(put, head)])
        made = _in_order(makers, lambda entry: _bytes_of(read(entry), entry), order)
        for done, (entry, data) in enumerate(zip(order, made, strict=True)):
            progress("merge", done, len(order), entry.key)
            if len(waiting) == AHEAD:
                waiting.popleft().result()
            waiting.append(pen.submit(put, data))
        for one in waiting:
            one.result()
    progress("merge", len(order), len(order))
    return digest.hexdigest(), size_bytes


def _in_order(
    makers: ThreadPoolExecutor, make: Callable[[LdmTensor], memoryview], order: Sequence[LdmTensor]
) -> Iterator[memoryview]:
    """What is made of each entry, in order, ``MAKERS`` of them at a time; no more than that is made ahead."""
    waiting: deque[Future[memoryview]] = deque()
    for entry in order:
        if len(waiting) == MAKERS:
            yield waiting.popleft().result()
        waiting.append(makers.submit(make, entry))
    while waiting:
        yield waiting.popleft().result()


def ordered(entries: Sequence[LdmTensor]) -> list[LdmTensor]:
    """The entries in the order of the file: the wider dtypes first, then by name."""
    return sorted(entries, key=lambda entry: (-WIDTHS[entry.dtype], entry.dtype, entry.key))


def header(order: Sequence[LdmTensor], metadata: Mapping[str, str]) -> bytes:
    """What stands before the tensors: the length as 8 bytes, then JSON, filled up with spaces to 8 bytes."""
    table: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    at = 0
    for entry in order:
        end = at + size_of(entry)
        table[entry.key] = {"dtype": CODES[entry.dtype], "shape": list(entry.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(table, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def check_room(path: Path, size_bytes: int) -> None:
    """Raises MachineError unless the disk has room for a file of this size, the old one kept until it is whole."""
    with _writing(path):
        free_bytes = shutil.disk_usage(path.parent).free
    if free_bytes < size_bytes:
        raise MachineError(
            f"{path}: the disk has {quantity(free_bytes, 'byte')} free, and the file takes "
            f"{quantity(size_bytes, 'byte')}.",
            "make room, or choose another disk with -o",
        )


@contextmanager
def replacing(path: Path) -> Iterator[FileIO]:
    """A new file beside ``path`` that takes its place where the block ends without an error, on the disk for good.

    Until then an old file stays as it is; when anything is raised, an interrupt too, nothing is left behind.

    Raises:
        MachineError: the system will not write.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}{TEMPORARY}")
    try:
        with _writing(path):
            file = temporary.open("wb", buffering=0)  # a buffer's rest would be written once more on closing
        with file:
            yield file
            with _writing(path):
                os.fsync(file.fileno())
        with _writing(path):
            documents.put_in_place(temporary, path)
            _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """``writing``, with a hint that is true of a merge: it begins anew, and has harmed nothing."""
    try:
        with writing(path):
            yield
    except MachineError as error:
        hint = "put that right and give the same command again; a file that was there before is as it was"
        raise MachineError(error.message, hint) from error


def _sync_folder(folder: Path) -> None:
    """Put the folder's new name for the file on the disk too, where the system knows such a thing (not Windows)."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_all(file: FileIO, data: bytes | memoryview) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def _start_writing_out(file: FileIO, count: int) -> None:
    """Let the system begin to put the last ``count`` bytes on the disk, so that little is left for the final fsync.

    On Linux, the advice that they are not needed in memory starts that and does not wait for it.
    """
    if sys.platform == "linux":
        os.posix_fadvise(file.fileno(), file.tell() - count, count, os.POSIX_FADV_DONTNEED)


def _bytes_of(tensor: torch.Tensor, entry: LdmTensor) -> memoryview:
    found = (tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
    if found != (entry.shape, entry.dtype):
        raise ValueError(f"{entry.key}: is {found}, and its entry says {(entry.shape, entry.dtype)}")
    return memoryview(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
