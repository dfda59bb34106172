"""What a ``.safetensors`` file holds, read from its header alone: no torch, no weights in memory.

A file that is cut short, or a LoRA of another model, is found before the first image is drawn.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from bench.errors import WeightsError
from bench.names import listed
from bench.variants.stored import read_header

Shape = tuple[int, ...]

LORA_KEY = re.compile(r"(?P<module>(?:unet|text_encoder(?:_2)?)\..+)\.(?:lora_|lora\.)(?P<side>A|B|down|up)\.weight")
IN_SIDES = ("A", "down")
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


def lora_modules(path: Path) -> dict[str, tuple[int, int]]:
    """Outputs and inputs of every module that a LoRA file in the diffusers/PEFT layout changes, by its name.

    Raises:
        WeightsError: no readable safetensors, keys of another layout, or matrices that do not multiply.
    """
    shapes = read_shapes(path)
    matched = {key: LORA_KEY.fullmatch(key) for key in shapes}
    other = [key for key, match in matched.items() if match is None]
    if other or not shapes:
        raise WeightsError(
            f"{path}: {len(other)} of {len(shapes)} keys are not in the diffusers/PEFT layout "
            f"(unet.*.lora_A.weight or unet.*.lora.down.weight), such as {', '.join(other[:3]) or 'none at all'}."
        )
    sides: dict[str, dict[bool, Shape]] = {}
    for key, match in matched.items():
        if match is not None:
            sides.setdefault(match["module"], {})[match["side"] in IN_SIDES] = shapes[key]
    broken = [module for module, pair in sides.items() if not _multiply(pair.get(False, ()), pair.get(True, ()))]
    if broken:
        raise WeightsError(
            f"{path}: {len(broken)} of {len(sides)} modules lack one of their two matrices, or these do not multiply: "
            f"{listed(broken, 3)}."
        )
    return {module: (pair[False][0], pair[True][1]) for module, pair in sides.items()}


def _multiply(b: Shape, a: Shape) -> bool:
    """Whether B (out, rank, ...) and A (rank, in, ...) are matrices, or convolutions, of one rank."""
    return len(a) in (2, 4) and len(a) == len(b) and b[1] == a[0]


def changed_modules(path: Path, unet: Mapping[str, Shape]) -> set[str]:
    """The modules that a LoRA file changes, once it is sure that the UNet has those of its own, in their shapes.

    Args:
        path: the LoRA.
        unet: shapes of the UNet's tensors by name, as ``read_shapes`` gives them.

    Raises:
        WeightsError: as ``lora_modules``, or a part of it fits no module of the UNet.
    """
    modules = lora_modules(path)
    # Text encoders are left to the loading: their names in LoRA files and in checkpoints differ by version.
    misfits = [
        module
        for module, sides in modules.items()
        if module.startswith("unet.") and unet.get(f"{module.removeprefix('unet.')}.weight", ())[:2] != sides
    ]
    if misfits:
        raise misfit(path, misfits, len(modules))
    return set(modules)


def misfit(path: Path, modules: list[str], total: int) -> WeightsError:
    """The error for a LoRA of another model."""
    return WeightsError(
        f"{path}: {len(modules)} of {total} modules of the LoRA fit no module of the checkpoint, "
        f"such as {', '.join(sorted(modules)[:3])}.",
        "check that the LoRA was trained for this family of checkpoints",
    )


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its type where it has none."""
    text = str(error).strip()
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__
