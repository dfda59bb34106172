"""Stage ``ship``: the trained weights, as float16 safetensors with a manifest, into the package."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from diffusers import StableDiffusionXLPipeline
from safetensors.torch import load_file, save_file

from bench.documents import sha256_of
from bench.mini.weights import FOLDER, LORAS

NETWORKS = (
    *("mini-clip", "mini-aesthetic", "mini-preference", "step-aware", "instrument"),
    *("mini-clip-2", "mini-preference-2"),
)
LIMIT_BYTES = 40 * 2**20


def run(work: Path, target: Path = FOLDER) -> None:
    """Write ``target`` anew from what the other stages left in ``work``: whole, or not at all."""
    new = target.with_name(f".{target.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    pipeline = StableDiffusionXLPipeline.from_pretrained(work / "pipeline")
    pipeline.to(torch.float16)
    pipeline.save_pretrained(new / "pipeline", safe_serialization=True)
    forget_place(new / "pipeline")
    (new / "loras").mkdir()
    for name in LORAS:
        shutil.copyfile(work / f"{name}.safetensors", new / "loras" / f"{name}.safetensors")
    (new / "networks").mkdir()
    for name in NETWORKS:
        state = load_file(work / f"{name}.safetensors")
        half = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
        save_file(half, new / "networks" / f"{name}.safetensors")
    write_manifest(new)
    shutil.rmtree(target, ignore_errors=True)
    new.rename(target)


def forget_place(pipeline: Path) -> None:
    """Take the folder that a pipeline was loaded from out of its configurations, where diffusers writes it."""
    for path in (pipeline / "model_index.json", *pipeline.glob("*/config.json")):
        config = json.loads(path.read_text("utf-8"))
        if config.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")


def write_manifest(target: Path) -> None:
    """List every file of ``target`` with its sha256 and size.

    Raises:
        ValueError: the weights are larger than what the package may carry.
    """
    files: dict[str, dict[str, str | int]] = {
        path.relative_to(target).as_posix(): {
            "sha256": sha256_of(path),
            "size_bytes": path.stat().st_size,
        }
        for path in sorted(target.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }
    total = sum(int(facts["size_bytes"]) for facts in files.values())
    if total > LIMIT_BYTES:
        raise ValueError(f"the weights have {total / 2**20:.1f} MiB, more than {LIMIT_BYTES / 2**20:.0f}")
    (target / "manifest.json").write_text(json.dumps({"schema": 1, "files": files}, indent=1) + "\n")


def start(work: Path, source: Path = FOLDER) -> None:
    """Fill ``work`` with all that ships, so that any later stage can be trained anew alone.

    Latents and checkpoints that are there rest on other weights, and go; a folder that was filled from the same
    weights before is left as it is, so that a stage in it goes on.
    """
    manifest, filled = (source / "manifest.json").read_bytes(), work / "shipped.json"
    if filled.is_file() and filled.read_bytes() == manifest:
        return
    for stale in (*work.glob("*.ckpt"), *work.glob("*latents.npy")):
        stale.unlink()
    shutil.copytree(source / "pipeline", work / "pipeline", dirs_exist_ok=True)
    shutil.copytree(source / "pipeline" / "tokenizer", work / "tokenizer", dirs_exist_ok=True)
    for folder, names in (("networks", NETWORKS), ("loras", LORAS)):
        for name in names:
            shutil.copyfile(source / folder / f"{name}.safetensors", work / f"{name}.safetensors")
    filled.write_bytes(manifest)
