"""Every name that LoRA files give to a checkpoint's modules."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from bench.variants.blocks import PUBLISHED_UNET, BlockMap, find_published

KOHYA, DOTTED = "kohya", "PEFT"
SGM, DIFFUSERS = "SGM blocks", "diffusers blocks"

OLD_ATTENTION = {
    "to_q": ("to_q", "q_proj"),
    "to_k": ("to_k", "k_proj"),
    "to_v": ("to_v", "v_proj"),
    "to_out": ("to_out.0", "out_proj"),
}
"""diffusers' attention processors had names of their own: -> those of the UNet's and of the text encoders' modules."""


class Place(NamedTuple):
    """What a name may stand for."""

    layout: str
    modules: tuple[str, ...]
    """Canonical modules; several where the name does not tell which text encoder is meant."""


def module_names(tensors: Iterable[str], blocks: BlockMap) -> dict[str, Place]:
    """Every spelling of every module that has a weight or a bias.

    Args:
        tensors: canonical names of a whole checkpoint's tensors.
        blocks: the shape of its UNet.
    """
    modules = sorted({name.rpartition(".")[0] for name in tensors if name.endswith((".weight", ".bias"))})
    two_encoders = any(module.startswith("text_encoder_2.") for module in modules)
    found: dict[str, Place] = {}
    for module in modules:
        for layout, name in _spellings(module, two_encoders, blocks):
            before = found.get(name)
            found[name] = Place(layout, (*before.modules, module) if before else (module,))
    return found


def _spellings(module: str, two_encoders: bool, blocks: BlockMap) -> Iterator[tuple[str, str]]:
    """Layout and name of every way to write a module; without its component's name where files leave that away."""
    component, _, path = module.partition(".")
    flat = path.replace(".", "_")
    yield DOTTED, module
    yield DOTTED, path
    if component == "unet":
        yield f"{KOHYA}, {DIFFUSERS}", f"lora_unet_{flat}"
        yield f"lycoris, {DIFFUSERS}", f"lycoris_{flat}"
        published = (find_published(f"{module}.weight", blocks) or "").removesuffix(".weight")
        if not published:
            return
        inner = published.removeprefix(PUBLISHED_UNET)
        yield f"{KOHYA}, {SGM}", f"lora_unet_{inner.replace('.', '_')}"
        yield f"ComfyUI, {SGM}", published
        yield f"ComfyUI, {SGM}", f"diffusion_model.{inner}"
    elif component in ("text_encoder", "text_encoder_2"):
        # kohya's scripts number the text encoders of SDXL, and SD 1.5 has one without a number.
        number = {"text_encoder": "1", "text_encoder_2": "2"}[component] if two_encoders else ""
        yield KOHYA, f"lora_te{number}_{flat}"
        yield "lycoris", f"lycoris_{flat}"
        if path.startswith("text_model."):  # transformers 5 left it away in CLIPTextModel
            short = path.removeprefix("text_model.")
            yield DOTTED, f"{component}.{short}"
            yield DOTTED, short


def look_up(name: str, names: Mapping[str, Place]) -> Place | None:
    """The place of a module in a file's own spelling; None where the checkpoint has no such module."""
    for spelling in _likely(name.removeprefix("base_model.model.")):
        if spelling in names:
            return names[spelling]
    return None


def _likely(name: str) -> Iterator[str]:
    """The name itself, then what diffusers' attention processors meant by it."""
    yield name
    plain = name.replace(".processor.", ".")
    yield plain
    stem, _, last = plain.rpartition(".")
    for now in OLD_ATTENTION.get(last, ()):
        yield f"{stem}.{now}"


_COMPONENTS = (
    (
        re.compile(r"(base_model\.model\.)?(text_encoder_2|lora_te2_|clip_g|conditioner\.embedders\.1\.)"),
        "text_encoder_2",
    ),
    (
        re.compile(
            r"(base_model\.model\.)?"
            r"(text_encoder|lora_te|text_model|lycoris_text_model|clip_l|conditioner\.|cond_stage_model\.)"
        ),
        "text_encoder",
    ),
    (re.compile(r"(base_model\.model\.)?(vae\.|first_stage_model|lora_vae)"), "vae"),
    (re.compile(r".*(unet|(down|mid|up|input|middle|output)_blocks?)"), "unet"),
)


def component_guess(key: str) -> str:
    """The component that a key without a place seems to mean, ``unknown`` where nothing tells."""
    return next((component for pattern, component in _COMPONENTS if pattern.match(key)), "unknown")
