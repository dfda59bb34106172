"""``merge``: a recipe becomes one file in the published layout, tensor by tensor."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import UsageError, WeightsError
from bench.records import Progress, Record, WeightFile
from bench.variants.checkpoints.families import FAMILIES, family_tensors
from bench.variants.checkpoints.published import Published, join, published
from bench.variants.checkpoints.single import CONV_IN, INPAINTING_CHANNELS
from bench.variants.recipes.header import header_texts
from bench.variants.recipes.merged import Merged
from bench.variants.recipes.opening import open_recipe
from bench.variants.recipes.writer import CODES, Entry, check_room, replacing, write_tensors

if TYPE_CHECKING:
    import torch

HASHING = 2
"""How many input files are hashed at a time."""


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


def merge(
    recipe: Path, output: Path, *, weights_dir: Path | None, force: bool = False, progress: Progress
) -> MergedFile:
    """Write what a recipe makes as one ``.safetensors`` file in the published layout.

    Everything is computed in float32, one tensor at a time, and cast once. The file takes its place when it is whole
    and on the disk; until then, and where anything fails, what was there stays. The same recipe and inputs give the
    same bytes.

    Args:
        recipe: the ``.toml`` file.
        output: the file to be.
        weights_dir: local weights, asked before the Hub.
        force: whether a file that is there may be replaced.
        progress: told of the stages ``hash`` and ``merge``.

    Raises:
        SuiteError: a bad recipe. UsageError: an output that will not do.
        WeightsError: a source that is missing, damaged or does not fit; values that are not finite; a family that is
            not published as single files.
        MachineError: no room on the disk, or it will not write.
    """
    target = _check_output(output, force)
    merged = open_recipe(recipe, weights_dir)
    _refuse_an_input(target, merged)
    _refuse_other_precisions(merged)
    _refuse_unreadable(merged)
    layout = published(merged.tensors)
    entries = [Entry(one.key, one.shape, one.dtype) for one in layout] + _marks(merged)
    check_room(target, sum(entry.size_bytes for entry in entries))
    before = _stamps(merged)
    inputs = _hash(merged, progress)
    texts = header_texts(merged, {path: file.sha256 for path, file in inputs.items()})
    by_key = {one.key: one for one in layout}
    with replacing(target) as file:
        written = write_tensors(file, target, entries, texts, lambda key: _tensor(merged, by_key.get(key)), progress)
        _refuse_changed(before, _stamps(merged))
    return MergedFile(
        path=str(output),
        sha256=written.sha256,
        size_bytes=written.size_bytes,
        tensors=dict(Counter(_component(one) for one in layout)),
        dtypes=merged.facts.dtypes,
        inputs=tuple(inputs.values()),
    )


def _check_output(output: Path, force: bool) -> Path:
    """Where the file goes, a link followed; UsageError where it cannot."""
    target = output.resolve()
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


def _refuse_unreadable(merged: Merged) -> None:
    """Refuse what would be no checkpoint as a single file.

    Such a file has no configuration: whoever reads it knows the families by the shapes of their tensors.

    Raises:
        WeightsError: the tensors are those of no family that is published as single files.
    """
    if not any(_is_of(family, merged) for family in FAMILIES):
        raise WeightsError(
            f"{merged.models[0].what}: has the shapes of no family that is published as single files "
            "(SDXL, SD 1.5), so that nothing could read the merged one: it would lack the configuration.",
            f'the recipe itself is a checkpoint: checkpoint = "{merged.path.name}" in a suite beside it',
        )


def _is_of(family: str, merged: Merged) -> bool:
    """Whether the components that were merged have a family's tensors; an inpainting UNet has more input channels."""
    held = {name.split(".", 1)[0] for name in merged.tensors}
    shapes = {name: one.shape for name, one in family_tensors(family).items() if name.split(".", 1)[0] in held}
    if merged.facts.inpainting and CONV_IN in shapes:
        out, _, *size = shapes[CONV_IN]
        shapes[CONV_IN] = (out, INPAINTING_CHANNELS, *size)
    return shapes == {name: one.shape for name, one in merged.tensors.items()}


def _marks(merged: Merged) -> list[Entry]:
    """The empty tensors by which published files say what they predict, and by which schedule they were trained."""
    facts = merged.facts
    marks = {"v_pred": facts.prediction == "v_prediction", "ztsnr": facts.zero_terminal_snr}
    return [Entry(key, (0,), "float32") for key, is_so in marks.items() if is_so]


def _hash(merged: Merged, progress: Progress) -> dict[Path, WeightFile]:
    """Every weight file that goes in, by its path, each hashed once; two at a time."""
    components: dict[Path, str] = {}
    for component, path in merged.files:
        components.setdefault(path, component)
    found: dict[Path, WeightFile] = {}
    with ThreadPoolExecutor(HASHING) as threads:
        for done, (path, sha256) in enumerate(zip(components, threads.map(_sha256, components), strict=True)):
            progress("hash", done, len(components), path.name)
            size_bytes = path.stat().st_size
            found[path] = WeightFile(component=components[path], name=path.name, sha256=sha256, size_bytes=size_bytes)
    progress("hash", len(components), len(components))
    return found


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _stamps(merged: Merged) -> dict[Path, tuple[int, int]]:
    """Size and time of change of every input: what shows that a file was written to meanwhile."""
    found = {path: path.stat() for _, path in merged.files}
    return {path: (stat.st_size, stat.st_mtime_ns) for path, stat in found.items()}


def _refuse_changed(before: Mapping[Path, object], after: Mapping[Path, object]) -> None:
    changed = [path.name for path in before if before[path] != after[path]]
    if changed:
        raise WeightsError(
            f"{', '.join(changed)}: was written to while it was merged, so that its hash is not that of what was read.",
            "give the same command again, once nothing writes to it",
        )


def _tensor(merged: Merged, entry: Published | None) -> torch.Tensor:
    """A published tensor in the precision of the output; an empty one for a mark."""
    import torch

    if entry is None:
        return torch.zeros(0)
    dtype = getattr(torch, entry.dtype)
    return join(entry, [merged.read(name, dtype) for name in entry.parts])


def _component(entry: Published) -> str:
    """The component that a published tensor belongs to; the text positions, without parts, are the first encoder's."""
    return entry.parts[0].split(".", 1)[0] if entry.parts else "text_encoder"
