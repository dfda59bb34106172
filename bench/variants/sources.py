"""Where a variant's weights come from, found without loading them. Imports no torch.

A checkpoint is a shipped family (``mini``), a diffusers folder, or a Hub id; a LoRA is a shipped one
(``mini:spo``), a ``.safetensors`` file, or ``owner/name:file.safetensors`` of the Hub. A folder given by
``--weights-dir`` or ``HOTART_WEIGHTS`` is asked before the Hub: it holds ``owner/name/`` or ``name/``.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from bench.errors import WeightsError
from bench.mini import weights as mini
from bench.names import did_you_mean
from bench.records import Record, Suite, Variant
from bench.variants.headers import weight_files

FAMILIES = ("mini",)
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
WEIGHTED = ("unet", "vae", "text_encoder", "text_encoder_2")
HUB_PATTERNS = ("*.json", "*.txt", "*/*.safetensors", "diffusion_pytorch_model*.safetensors")
"""A pipeline's components, or a lone UNet or VAE; not the single-file copies that lie beside them."""
SKIPPED_PARTS = ("*.fp16*", "*.non_ema*", "*onnx*", "*openvino*", "*flax*", "vae_1_0/*")


class Place(Record, frozen=True):
    """A weight source as the suite names it, and the local path where it lies; None while it is missing."""

    what: str
    path: str | None
    repository: str | None = None
    """The Hub repository it can be had from."""
    revision: str | None = None
    file: str | None = None
    """The one file that is wanted of the repository; None for all of it."""


class Needed(Record, frozen=True):
    """One thing that a variant needs, for ``doctor``."""

    variant: str
    what: str
    present: bool
    path: str | None
    size_bytes: int | None
    get: str
    """The command that gets it; empty when it is present."""


def places(variant: Variant, weights_dir: Path | None) -> dict[str, Place]:
    """Everything a variant is made of, by role: ``checkpoint``, ``unet``, ``vae``, ``lora:0``, ...

    Raises:
        WeightsError: a path or name that can be nothing of the kind.
    """
    found = {"checkpoint": find_checkpoint(variant.checkpoint, variant.revision, weights_dir)}
    for role, name in (("unet", variant.unet), ("vae", variant.vae)):
        if name is not None:
            found[role] = find_checkpoint(name, None, weights_dir)
    for index, lora in enumerate(variant.loras):
        found[f"lora:{index}"] = find_lora(lora.path, weights_dir)
    return found


def find_checkpoint(name: str, revision: str | None, weights_dir: Path | None) -> Place:
    """Where a checkpoint (or a UNet or VAE taken from one) lies."""
    if name in FAMILIES:
        return Place(what=name, path=str(mini.pipeline_folder()))
    path = Path(name).expanduser()
    if path.is_dir():
        return Place(what=name, path=str(path.resolve()))
    if path.is_file() or path.suffix in {".safetensors", ".ckpt", ".bin", ".pt", ".pth"}:
        raise WeightsError(
            f"{name}: a checkpoint is a diffusers folder, a Hub id or a shipped family ({', '.join(FAMILIES)}); "
            "single files are not read.",
            "Convert it once with diffusers: StableDiffusionXLPipeline.from_single_file(FILE).save_pretrained(FOLDER)",
        )
    if not _is_hub_id(name):
        raise WeightsError(
            f"{name}: no such folder, and neither a Hub id (owner/name) nor a shipped family"
            f" ({', '.join(FAMILIES)}){did_you_mean(name, FAMILIES)}.",
            "hotart-bench list variants",
        )
    return _find_repository(name, revision, None, weights_dir)


def find_lora(name: str, weights_dir: Path | None) -> Place:
    """Where a LoRA file lies."""
    family, _, part = name.partition(":")
    if family in FAMILIES and part:
        return Place(what=name, path=str(mini.lora_file(part)))
    path = Path(name).expanduser()
    if path.is_file():
        return Place(what=name, path=str(path.resolve()))
    if _is_hub_id(family) and part.endswith(".safetensors"):
        return _find_repository(family, None, part, weights_dir)
    raise WeightsError(
        f"{name}: no such LoRA file; a LoRA is a .safetensors file, owner/name:file.safetensors of the Hub, "
        f"or a shipped one ({', '.join(f'mini:{lora}' for lora in mini.LORAS)}).",
        "hotart-bench list variants",
    )


def _is_hub_id(name: str) -> bool:
    """Whether the Hub could have a repository of this name: no ``--`` or ``..``, no odd end, at most 96 characters."""
    return bool(HUB_ID.fullmatch(name)) and not re.search(r"--|\.\.|[-.]$|[-.]/", name) and len(name) <= 96


def _find_repository(name: str, revision: str | None, file: str | None, weights_dir: Path | None) -> Place:
    what = name if file is None else f"{name}:{file}"
    place = Place(what=what, path=None, repository=name, revision=revision, file=file)
    for folder in () if weights_dir is None else (weights_dir / name, weights_dir / name.split("/")[1]):
        wanted = folder if file is None else folder / file
        if wanted.exists():
            return _at(place, wanted)
    return _at(place, _cached(place))


def _at(place: Place, path: Path | None) -> Place:
    return Place(
        what=place.what,
        path=None if path is None else str(path.resolve()) if place.file is None else str(path),
        repository=place.repository,
        revision=place.revision,
        file=place.file,
    )


def _cached(place: Place) -> Path | None:
    """The place in the Hub's local cache, without asking the network."""
    from huggingface_hub import try_to_load_from_cache

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
        return bool(weight_files(folder) or weight_files(folder / "unet"))
    parts = json.loads(index.read_text("utf-8"))
    return all(weight_files(folder / part) for part in WEIGHTED if part in parts)


def fetch(place: Place) -> Place:
    """The same place, downloaded from the Hub if it was missing.

    Raises:
        WeightsError: it cannot be had: no network, no such repository or revision.
    """
    if place.path is not None:
        return place
    import huggingface_hub

    repository = place.repository or ""
    try:
        if place.file is not None:
            return _at(place, Path(huggingface_hub.hf_hub_download(repository, place.file, revision=place.revision)))
        folder = huggingface_hub.snapshot_download(
            repository,
            revision=place.revision,
            allow_patterns=list(HUB_PATTERNS),
            ignore_patterns=list(SKIPPED_PARTS),
        )
    except Exception as error:  # the Hub's client, its transport and the disk each have errors of their own
        raise WeightsError(
            f"{place.what}: is not on this machine and could not be downloaded ({type(error).__name__}).",
            f"{get_command(place)}, or give a folder that holds {repository}/ with --weights-dir",
        ) from error
    return _at(place, Path(folder))


def get_command(place: Place) -> str:
    """The command that downloads a place into the Hub's cache."""
    parts = ["hf download", place.repository or ""]
    parts += [place.file] if place.file else []
    parts += [f"--revision {place.revision}"] if place.revision else []
    return " ".join(parts)


def weights_needed(suite: Suite, weights_dir: Path | None) -> tuple[Needed, ...]:
    """What every variant of a suite needs and whether it is on this machine."""
    return tuple(
        _need(variant.name, place) for variant in suite.variants for place in places(variant, weights_dir).values()
    )


def _need(variant: str, place: Place) -> Needed:
    return Needed(
        variant=variant,
        what=place.what,
        present=place.path is not None,
        path=place.path,
        size_bytes=None if place.path is None else _size(Path(place.path)),
        get="" if place.path is not None else get_command(place),
    )


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*.safetensors"))
