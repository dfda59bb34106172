"""Where a variant's weights come from, found without loading them. Imports no torch.

A checkpoint is a shipped family (``mini``), random weights (``random:sdxl``), a diffusers folder, a single
``.safetensors`` file, a recipe (``.toml``), or a repository of the Hub: ``owner/name``, or one file of it,
``owner/name:file.safetensors``; ``owner/name@revision`` pins a commit, branch or tag. A UNet or VAE can be taken from
any of these too. A LoRA is a shipped one (``mini:spo``), a ``.safetensors`` file, or one file of the Hub. A folder
given by ``--weights-dir`` or ``HOTART_WEIGHTS`` is searched before the Hub: it holds ``owner/name/`` or ``name/``.
"""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

from msgspec import structs

from bench import documents, downloads
from bench.checkpoints.configurations import PipelineIndex, read_config
from bench.checkpoints.families import COMPONENTS, FAMILIES, config_folder
from bench.checkpoints.safetensors_files import weight_files
from bench.errors import WeightsError
from bench.formatting import did_you_mean
from bench.lora.peft import PEFT_CONFIG, PEFT_FILE
from bench.mini import weights as mini
from bench.records import Record, Variant

PICKLES = (".ckpt", ".bin", ".pt", ".pth", ".pkl")
"""Suffixes of files that can run any code when they are read."""

CONVERT = (
    "import sys, torch; from safetensors.torch import save_file; "
    "d = torch.load(sys.argv[1], map_location='cpu', weights_only=True); d = d.get('state_dict', d); "
    "save_file({k: v.contiguous().clone() for k, v in d.items() if isinstance(v, torch.Tensor)}, sys.argv[2])"
)
"""Reads a pickle without running what is in it (``weights_only``), and writes its tensors as safetensors."""


def refuse_pickle(name: str) -> None:
    """Raises WeightsError for a name that ends as pickled weights do, with the command that converts them."""
    if Path(name).suffix.lower() in PICKLES:
        raise WeightsError(
            f"{name}: is a pickle, which may run any code when it is read; only .safetensors files are read.",
            convert_hint(Path(name)),
        )


def convert_hint(path: Path) -> str:
    """The command that writes a pickle's tensors as safetensors next to it, under the name that is read."""
    stem = "model" if path.stem == "pytorch_model" else path.stem  # transformers' names
    return f'convert it: python -c "{CONVERT}" {shlex.join([str(path), str(path.with_name(stem + ".safetensors"))])}'


SHIPPED = ("mini",)
RANDOM = tuple(f"random:{family}" for family in FAMILIES)

LORA_FILES = ("pytorch_lora_weights.safetensors", PEFT_FILE)
"""What diffusers and PEFT call the file when they save a LoRA into a folder."""

FILES = (".safetensors", ".toml")

HUB_NAME = re.compile(
    r"(?P<repository>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w./-]+))?(:(?P<file>.+))?", re.ASCII
)

HUB_PATTERNS = ("*.json", "*.txt", "README.md", "*/*.safetensors", "diffusion_pytorch_model*.safetensors")
"""A pipeline's components, or a lone UNet or VAE; not the single-file copies next to them."""

HALF = "*.fp16*"

SKIPPED_PARTS = ("*.non_ema*", "*onnx*", "*openvino*", "*flax*", "vae_1_0/*")


class Place(Record, frozen=True):
    """A weight source as the suite names it, and where it lies on this machine."""

    what: str
    path: str | None
    """None while it is missing."""
    repository: str | None = None
    """The Hub repository it can be had from."""
    revision: str | None = None
    file: str | None = None
    """The one file that is wanted of the repository; None for all of it."""


def places(variant: Variant, weights_dir: Path | None) -> dict[str, Place]:
    """Everything a variant is made of, by role: ``checkpoint``, ``unet``, ``vae``, ``lora:0``, ...

    Raises:
        WeightsError: a path or name that cannot be one of these.
    """
    found = {"checkpoint": find_checkpoint(variant.checkpoint, variant.revision, weights_dir)}
    for role, name in (("unet", variant.unet), ("vae", variant.vae)):
        if name is not None:
            found[role] = find_checkpoint(name, None, weights_dir)
    for index, lora in enumerate(variant.loras):
        found[f"lora:{index}"] = find_lora(lora.path, weights_dir)
    return found


def find_checkpoint(name: str, revision: str | None, weights_dir: Path | None) -> Place:
    """Where a checkpoint (or a UNet or VAE taken from one) lies.

    Args:
        name: as the suite or recipe has it.
        revision: of a Hub repository, where ``name`` does not pin one itself.
        weights_dir: a folder to look in before the Hub.

    Raises:
        WeightsError: a name or path that cannot be one, or a pickle.
    """
    _refuse_bad_name(name)
    if name in SHIPPED:
        return Place(what=name, path=str(mini.pipeline_folder()))
    if name in RANDOM:
        return Place(what=name, path=str(config_folder(name.removeprefix("random:"))))
    if name.startswith("random:"):
        raise WeightsError(
            f"{name}: random weights have the shape of {', '.join(FAMILIES)}{did_you_mean(name, RANDOM)}."
        )
    refuse_pickle(name)
    path = Path(name).expanduser()
    is_file = os.path.isfile(path)  # noqa: PTH113 -- Path.is_file raises for a name that is too long
    if os.path.isdir(path) or (is_file and path.suffix in FILES):  # noqa: PTH112
        return Place(what=name, path=str(documents.resolved(path)))
    hub = None if is_file else _parse_hub_name(name)
    if hub is not None and (Path(hub.file).suffix == ".safetensors" if hub.file else path.suffix not in FILES):
        return _find_repository(hub, revision, weights_dir)
    raise WeightsError(
        f"{name}: no such folder or .safetensors file, and neither a Hub id (owner/name) nor a shipped family "
        f"({', '.join((*SHIPPED, *RANDOM))}){did_you_mean(name, (*SHIPPED, *RANDOM))}.",
        "hotart-bench list variants",
    )


def find_lora(name: str, weights_dir: Path | None) -> Place:
    """Where a LoRA file lies.

    Raises:
        WeightsError: a name or path that cannot be one, or a pickle.
    """
    _refuse_bad_name(name)
    refuse_pickle(name)
    family, _, part = name.partition(":")
    if family in SHIPPED and part:
        return Place(what=name, path=str(mini.lora_file(part)))
    path = Path(name).expanduser()
    path = lora_in(path) or path
    if os.path.isfile(path):  # noqa: PTH113
        return Place(what=name, path=str(documents.resolved(path)))
    hub = _parse_hub_name(name)
    if hub is not None and hub.file is not None and hub.file.endswith(".safetensors"):
        return _find_repository(hub, None, weights_dir)
    raise WeightsError(
        f"{name}: no such LoRA file; a LoRA is a .safetensors file, a folder with {LORA_FILES[0]} or "
        f"{LORA_FILES[1]}, owner/name:file.safetensors of the Hub, "
        f"or a shipped one ({', '.join(f'mini:{lora}' for lora in mini.LORAS)}).",
        "hotart-bench list variants",
    )


def lora_in(folder: Path) -> Path | None:
    """The one LoRA file of a folder as diffusers and PEFT save them; None of a pipeline, or of more than one."""
    if os.path.isfile(folder / "model_index.json"):  # noqa: PTH113
        return None
    found = [folder / name for name in LORA_FILES if os.path.isfile(folder / name)]  # noqa: PTH113
    return found[0] if len(found) == 1 else None


def _refuse_bad_name(name: str) -> None:
    if "\0" in name or not name.strip():
        raise WeightsError(f"{name!r}: the name of a weight source is empty or holds a zero byte.")


def _parse_hub_name(name: str) -> Place | None:
    """``owner/name@revision:file`` as a place that is not found yet; None where the Hub could have no such repository.

    Raises:
        WeightsError: the file part leads out of the repository.
    """
    match = HUB_NAME.fullmatch(name)
    if match is None:
        return None
    repository, revision, file = match["repository"], match["revision"], match["file"]
    # The Hub has no name with -- or .., or with an odd end, or of more than 96 characters.
    if re.search(r"--|\.\.|[-.]$|[-.]/", repository) or len(repository) > 96:
        return None
    steps = re.split(r"[/\\]", file or "x")
    if not all(steps) or ".." in steps or ".." in (revision or "").split("/"):
        raise WeightsError(f"{name}: a file of a Hub repository is named by its path in it, without '..'.")
    return Place(what=name, path=None, repository=repository, revision=revision, file=file)


def _find_repository(place: Place, revision: str | None, weights_dir: Path | None) -> Place:
    if place.revision is not None and revision not in (None, place.revision):
        raise WeightsError(f"{place.what}: is pinned to two revisions, {place.revision} and {revision}; leave one out.")
    place = structs.replace(place, revision=place.revision or revision)
    repository = place.repository or ""
    for folder in () if weights_dir is None else (weights_dir / repository, weights_dir / repository.split("/")[1]):
        wanted = folder if place.file is None else folder / place.file
        if wanted.exists():
            return _at(place, wanted)
    return _at(place, _cached(place))


def _at(place: Place, path: Path | None) -> Place:
    # A file of the cache is a link; its own name, and not that of its target, ends in .safetensors.
    resolved = path if path is None or place.file is not None else documents.resolved(path)
    return structs.replace(place, path=None if resolved is None else str(resolved))


def _companion(place: Place) -> str | None:
    """The file of a repository without which the wanted one cannot be understood: PEFT's configuration."""
    folder, _, name = (place.file or "").rpartition("/")
    return f"{folder}/{PEFT_CONFIG}".lstrip("/") if name == PEFT_FILE else None


def beside(place: Place) -> str:
    """The file beside the wanted one that says more of it, where there is one: an LDM configuration of its name."""
    return _companion(place) or f"{(place.file or '').removesuffix('.safetensors')}.yaml"


def _cached(place: Place) -> Path | None:
    """The place in the Hub's local cache, without asking the network."""
    from huggingface_hub import try_to_load_from_cache

    companion = _companion(place)
    if companion and try_to_load_from_cache(place.repository or "", companion, revision=place.revision) is None:
        return None  # never downloaded; the cache would know it if the repository had none
    for name in (place.file,) if place.file else ("model_index.json", "config.json", "unet/config.json"):
        found = try_to_load_from_cache(place.repository or "", name, revision=place.revision)
        if isinstance(found, str):
            path = Path(found)
            root = path if place.file else path.parents[len(Path(name).parts) - 1]
            return root if place.file or _is_whole(root) else None
    return None


def _is_whole(folder: Path) -> bool:
    """Whether a cached repository has weights for each part that it names; a download may have been cut short."""
    index = folder / "model_index.json"
    if not index.is_file():
        return _has_weights(folder) or _has_weights(folder / "unet")
    try:
        parts = read_config(index, PipelineIndex)
    except WeightsError:
        return False
    return all(_has_weights(folder / part) for part in COMPONENTS if part in parts)


def _has_weights(folder: Path) -> bool:
    files = weight_files(folder)
    return bool(files) and all(file.is_file() for file in files)


def fetch(place: Place) -> Place:
    """The same place, downloaded from the Hub if it was missing.

    Raises:
        WeightsError: it cannot be had: no network, no such repository or revision.
        MachineError: the disk is full, or the cache must not be written.
    """
    if place.path is not None:
        return place
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    if (why := downloads.no_connection(downloads.HUB)) is not None:
        raise WeightsError(f"{place.what}: is not on this machine, and {why}.", downloads.ELSEWHERE)
    repository = place.repository or ""
    try:
        if place.file is not None:
            try:
                huggingface_hub.hf_hub_download(repository, beside(place), revision=place.revision)
            except EntryNotFoundError as error:
                if isinstance(error, LocalEntryNotFoundError):  # the repository was not asked
                    raise
            return _at(place, Path(huggingface_hub.hf_hub_download(repository, place.file, revision=place.revision)))
        for skipped in ((HALF, *SKIPPED_PARTS), SKIPPED_PARTS):  # some hold nothing but half-precision copies
            folder = Path(
                huggingface_hub.snapshot_download(
                    repository,
                    revision=place.revision,
                    allow_patterns=list(HUB_PATTERNS),
                    ignore_patterns=list(skipped),
                )
            )
            if _is_whole(folder):
                break
    except Exception as error:  # the Hub's client, its transport and the disk each have errors of their own
        raise downloads.failed(place.what, error) from error
    return _at(place, folder)
