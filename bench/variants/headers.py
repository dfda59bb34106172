"""What a ``.safetensors`` file holds, read from its header alone: no torch, no weights in memory.

A file that is cut short is found before the first image is drawn.
"""

from __future__ import annotations

from pathlib import Path

from bench.variants.stored import read_header

Shape = tuple[int, ...]

WEIGHTS_NAMES = ("diffusion_pytorch_model", "model")


def weight_files(folder: Path) -> list[Path]:
    """The files that diffusers and transformers load from a component's folder: one, or the shards in order.

    The copies in half precision, whose names end in ``.fp16``, are taken where there are no others.
    """
    for half in ("", ".fp16"):
        for name in WEIGHTS_NAMES:
            if (folder / f"{name}{half}.safetensors").is_file():
                return [folder / f"{name}{half}.safetensors"]
        shards = [file for file in folder.glob("*-of-*.safetensors") if (".fp16" in file.name) == bool(half)]
        if shards:
            return sorted(shards)
    return []


def read_shapes(path: Path) -> dict[str, Shape]:
    """Shape of every tensor of a file, by name.

    Raises:
        WeightsError: the file is missing, cut short, or no safetensors.
    """
    return {name: stored.shape for name, stored in read_header(path).tensors.items()}


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its type where it has none."""
    text = str(error).strip()
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__
