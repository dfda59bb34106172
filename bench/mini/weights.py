"""The shipped weights of the embedded family: where they lie, and the check of their sha256. No torch.

``weights/manifest.json`` names every file with its sha256 and size; a file is checked before it is used.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path

from bench.documents import sha256_of
from bench.errors import WeightsError

FOLDER = Path(__file__).parent / "weights"
LORAS = ("dpo", "spo", "dpo-seed1", "spo-seed1")
"""The two LoRAs, and both once more from another training seed."""
REINSTALL = "install hotart-bench again: pip install --force-reinstall --no-deps hotart-bench"


def pipeline_folder() -> Path:
    """The checked diffusers folder of the base pipeline."""
    for name in manifest():
        if name.startswith("pipeline/"):
            weight_file(name)
    return FOLDER / "pipeline"


def lora_file(name: str) -> Path:
    """The checked LoRA file of a variant.

    Raises:
        WeightsError: there is no such LoRA.
    """
    if name not in LORAS:
        raise WeightsError(f"mini:{name}: the embedded family has the LoRAs {', '.join(LORAS)}.")
    return weight_file(f"loras/{name}.safetensors")


@functools.cache
def weight_file(name: str) -> Path:
    """A checked file of the embedded family, by its name in the manifest.

    Raises:
        WeightsError: it is missing, or is not what the manifest says.
    """
    path = FOLDER / name
    expected = manifest()[name]["sha256"]
    try:
        found = sha256_of(path)
    except OSError as error:
        raise WeightsError(f"{path}: a shipped weight file is missing.", REINSTALL) from error
    if found != expected:
        raise WeightsError(f"{path}: is damaged: its sha256 is {found}, not {expected}.", REINSTALL)
    return path


@functools.cache
def manifest() -> dict[str, dict[str, str | int]]:
    """Name -> sha256 and size_bytes of every shipped file."""
    path = FOLDER / "manifest.json"
    try:
        files: dict[str, dict[str, str | int]] = json.loads(path.read_text("utf-8"))["files"]
    except (OSError, ValueError, KeyError) as error:
        raise WeightsError(f"{path}: the list of shipped weights cannot be read.", REINSTALL) from error
    return files
