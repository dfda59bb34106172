"""Where a vision-language model's files lie, and which they are. Imports no torch."""

from __future__ import annotations

import hashlib
from pathlib import Path

import huggingface_hub

from bench import documents, downloads
from bench.checkpoints.configurations import read_config
from bench.checkpoints.locate import HUB_NAME
from bench.errors import WeightsError
from bench.weights_lock import hash_once

FAMILIES = ("qwen2_5_vl", "qwen3_vl")
"""What ``model_type`` may be in the model's ``config.json``: the layouts whose prompts and tokens are known here."""
PATTERNS = ("*.json", "*.safetensors", "*.jinja", "*.txt")
"""The files of a repository that are fetched: no pickles."""
TEXTS = (
    *("config.json", "preprocessor_config.json", "processor_config.json", "chat_template.json", "chat_template.jinja"),
    *("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"),
)
"""What besides the weights decides the answers: sizes of images, the words of the turn, the vocabulary."""


def find_vlm(name: str, weights_dir: Path | None) -> Path | None:
    """The folder of a model: the one named, ``owner/name`` or ``name`` in the user's, or the Hub's cache; else None."""
    if (Path(name) / "config.json").is_file():
        return Path(name)
    repository, revision = _parts(name)
    if weights_dir is not None:
        places = [weights_dir / repository, weights_dir / repository.split("/")[-1]]
        return next((place for place in places if (place / "config.json").is_file()), None)
    found = huggingface_hub.try_to_load_from_cache(repository, "config.json", revision=revision)
    return Path(found).parent if isinstance(found, str) else None


def fetch_vlm(name: str, weights_dir: Path | None) -> Path:
    """The folder of a model, downloaded where it is not there and no folder of weights is named.

    Raises:
        WeightsError: it cannot be downloaded, or is not in the folder of weights.
        MachineError: the disk is full, or the cache must not be written.
    """
    there = find_vlm(name, weights_dir)
    if there is not None and (weights_dir is not None or there == Path(name)):
        return there
    repository, revision = _parts(name)
    if weights_dir is not None or (why := downloads.no_connection(downloads.HUB)) is not None:
        if there is not None:
            return there
        where = f"in {weights_dir}" if weights_dir is not None else f"on this machine, and {why}"
        raise WeightsError(f"{name}: is not {where}.", downloads.ELSEWHERE)
    try:
        return Path(huggingface_hub.snapshot_download(repository, revision=revision, allow_patterns=list(PATTERNS)))
    except Exception as error:  # the Hub's client, its transport and the disk each have errors of their own
        raise downloads.failed(name, error) from error


def located_vlm(name: str, weights_dir: Path | None) -> Path:
    """The folder of a model that is there and of a known layout.

    Raises:
        WeightsError: it is not there, of another layout, or without weights.
    """
    folder = find_vlm(name, weights_dir)
    if folder is None:
        raise WeightsError(f"{name}: the judge's model is not on this machine.", downloads.ELSEWHERE)
    kind = read_config(folder / "config.json").get("model_type")
    if kind not in FAMILIES:
        raise WeightsError(f"{name}: is a {kind!r}; a judge is one of {', '.join(FAMILIES)}.")
    if not any(folder.glob("*.safetensors")):
        raise WeightsError(f"{folder}: holds no .safetensors file.", "hotart-bench fetch SUITE")
    return folder


def identify_vlm(name: str, weights_dir: Path | None) -> str:
    """Name and sha256 of all files that decide the answers; raises as ``located_vlm``."""
    folder = located_vlm(name, weights_dir)
    digest = hashlib.sha256()
    for file in (*sorted(folder.glob("*.safetensors")), *(folder / text for text in TEXTS)):
        if file.is_file():
            found = hash_once(file) if file.suffix == ".safetensors" else documents.sha256_of(file)
            digest.update(f"{file.name} {found}\n".encode())
    return f"{Path(name).name if folder == Path(name) else name} {digest.hexdigest()[:12]}".replace(";", ",")


def _parts(name: str) -> tuple[str, str | None]:
    found = HUB_NAME.fullmatch(name)
    if found is None or found["file"]:
        raise WeightsError(
            f"{name}: is neither a folder with a config.json nor a model of the Hub (owner/name@revision)."
        )
    return found["repository"], found["revision"]
