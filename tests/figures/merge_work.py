"""The work of ``merging``, one part a process; prints its peak memory and the size of the largest tensor, in bytes."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from pathlib import Path

from .peak import peak_bytes

RECIPE = """\
schema = 1
method = "weighted_sum"
models = ["a.safetensors", "b.safetensors"]
alpha = 0.4
loras = [{ path = "lora.safetensors", weight = 0.8 }]
"""
RANK = 32
LAYERS = r"attn\d\.to_(q|k|v|out\.0)|ff\.net\.(0\.proj|2)"
ALPHA, WEIGHT = 0.4, 0.8
"""What the recipe says."""
KEYS = "keys.json"


def write_inputs(folder: Path, shape: str) -> None:
    """Two checkpoints of other numbers, a LoRA on every matrix of the UNet's attentions, and the recipe."""
    import torch

    from bench.checkpoints.ldm_layout import LdmTensor, join, ldm_tensors
    from bench.checkpoints.random_weights import open_random
    from bench.merge.write import replacing, write_tensors

    source = open_random(shape)
    entries = ldm_tensors(source.tensors)
    for name, sign in (("a", 1), ("b", -1)):

        def read(entry: LdmTensor, sign: int = sign) -> torch.Tensor:
            return join(entry, [source.read(part).mul_(sign) for part in entry.parts])

        path = folder / f"{name}.safetensors"
        with replacing(path) as file:
            write_tensors(file, path, entries, {}, read, lambda *_: None)
    write_lora(folder / "lora.safetensors", shape)
    keys = {entry.parts[0].removesuffix(".weight"): entry.key for entry in entries if len(entry.parts) == 1}
    (folder / KEYS).write_text(json.dumps(keys), encoding="utf-8")
    (folder / "r.toml").write_text(RECIPE, encoding="utf-8")


def write_lora(path: Path, shape: str, seed: int = 0, rank: int = RANK, layers: str = LAYERS) -> None:
    """A LoRA of random numbers on every matrix of the UNet's attentions and feed-forward layers, in float16.

    ``layers`` is a pattern of fewer.
    """
    import torch
    from safetensors.torch import save_file

    from bench.checkpoints.random_weights import open_random

    generator = torch.Generator().manual_seed(seed)
    lora = {}
    for name, (sizes, _) in open_random(shape).tensors.items():
        if re.fullmatch(rf"unet\..*\.({layers})\.weight", name):
            module = name.removesuffix(".weight")
            lora[f"{module}.lora_B.weight"] = torch.randn(sizes[0], rank, generator=generator).mul_(0.01).half()
            lora[f"{module}.lora_A.weight"] = torch.randn(rank, sizes[1], generator=generator).mul_(0.1).half()
    save_file(lora, path)


def plain(folder: Path) -> None:
    """Hash both inputs, read every tensor of both, write one: what a script with safetensors would do."""
    from safetensors.torch import load_file, save_file

    for name in ("a", "b"):
        with (folder / f"{name}.safetensors").open("rb") as file:
            hashlib.file_digest(file, "sha256")
    for tensor in load_file(folder / "b.safetensors").values():
        tensor.clone()  # a mapped tensor is not read until somebody looks at it
    save_file(load_file(folder / "a.safetensors"), folder / "out.safetensors")
    to_disk(folder)


def script(folder: Path) -> None:
    """The same merge by a plain script: all in memory, float32 from end to end, the VAE of the first file."""
    import torch
    from safetensors.torch import load_file, save_file

    keys = json.loads((folder / KEYS).read_text(encoding="utf-8"))
    merged, other, lora = (load_file(folder / f"{name}.safetensors") for name in ("a", "b", "lora"))
    ups = {keys[name.removesuffix(".lora_B.weight")]: name for name in lora if name.endswith(".lora_B.weight")}
    for key, tensor in merged.items():
        if key.startswith("first_stage_model."):
            continue
        weight = torch.lerp(tensor.float(), other[key].float(), ALPHA)
        if key in ups:
            down = ups[key].replace(".lora_B.", ".lora_A.")
            weight += WEIGHT * (lora[ups[key]].float() @ lora[down].float())
        merged[key] = weight.to(tensor.dtype)
    save_file(merged, folder / "out.safetensors")
    to_disk(folder)


def to_disk(folder: Path) -> None:
    """Wait until the output is on the disk."""
    for path in (folder / "out.safetensors", folder):
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)


def merge(folder: Path) -> None:
    """The verb itself."""
    from bench.cli import run_command_line

    arguments = ["merge", str(folder / "r.toml"), "-o", str(folder / "out.safetensors"), "--quiet"]
    code = run_command_line(arguments)
    if code:
        raise SystemExit(code)


def largest_bytes(folder: Path) -> int:
    """The largest tensor of the first input, as it is stored."""
    from bench.checkpoints.safetensors_files import read_header

    return max(one.end - one.start for one in read_header(folder / "a.safetensors").tensors.values())


def main(what: str, place: str, *shape: str) -> None:
    """One part of the work."""
    folder = Path(place)
    {"inputs": write_inputs, "plain": plain, "script": script, "merge": merge}[what](folder, *shape)
    sys.stdout.write(f"{peak_bytes()} {largest_bytes(folder)}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
