"""What a ``.safetensors`` file is, by the names and shapes in its header. No torch."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Literal

from bench.checkpoints.safetensors_files import Stored
from bench.errors import WeightsError
from bench.formatting import listed

_GUESSES = tuple(
    (re.compile(pattern), words)
    for pattern, words in (
        (r"oft_(blocks|diag|R)|boft_", "OFT, which is not supported"),
        (r"\.ia3_|\.on_input$", "(IA)^3, which is not supported"),
        (r"\.(a1|a2|b1|b2|bm1|bm2)(\.weight)?$", "GLoRA, which is not supported"),
        (r"\.lora_B(\.\w+)?\.bias$", "PEFT's lora_bias, which is not supported"),
        (r"lora_embedding_[AB]", "a LoRA of a token embedding, which is not supported"),
        (r"^(emb_params|string_to_param|string_to_token|clip_[lg]$|bundle_emb)|^<.*>$", "a textual inversion"),
        (r"(^|[._])(double|single)_blocks[._]\d|(^|[._])single_transformer_blocks[._]\d", "a LoRA of Flux"),
        (r"(^|[._])joint_blocks[._]\d|joint_transformer_blocks", "a LoRA of Stable Diffusion 3"),
        (
            r"^(transformer[._]|lora_transformer_)?transformer_blocks[._]\d",
            "a LoRA of a diffusion transformer (Flux, Stable Diffusion 3)",
        ),
        (r"^(diffusion_model\.|lora_unet_|transformer\.)(blocks|layers)[._]\d", "a LoRA of a diffusion transformer"),
        (r"^lora_te3_|^text_encoder_3\.", "a LoRA of a T5 text encoder (Flux or Stable Diffusion 3)"),
        (r"motion_modules", "a motion LoRA of AnimateDiff"),
        (r"^(image_proj|ip_adapter)\.", "an IP-Adapter"),
        (r"^(control_model\.|lora_controlnet|input_hint_block|zero_convs|controlnet_)", "a ControlNet"),
        (r"^(model\.diffusion_model|first_stage_model|cond_stage_model|conditioner|model_ema)\.", "a whole checkpoint"),
        (
            r"^(?!.*lora)(unet\.|vae\.|text_model\.|(down|mid|up)_blocks?\.).*\.(weight|bias)$",
            "weights of a whole model",
        ),
        (r"^lora_te_|^lora_unet_(.*_)?(up|down)_blocks_3_", "kohya keys of an SD 1.5 model"),
        (r"^lora_unet_(down_blocks_0|up_blocks_3)_attentions", "kohya keys of an SD 1.5 UNet"),
        (r"^lora_unet_(input_blocks_([12]|9|10|11)_|output_blocks_(9|10|11)_)", "kohya keys of an SD 1.5 UNet"),
        (r"(down_blocks\.0|up_blocks\.3)\.attentions", "keys of an SD 1.5 UNet"),
        (r"^lora_te[12]_|^text_encoder_2\.", "keys of SDXL's text encoders"),
        (r"transformer_blocks[._][1-9]|label_emb|add_embedding", "keys of an SDXL UNet"),
        (r"^lora_unet_", "kohya keys of another UNet"),
        (r"\.lora_[AB]\.|\.lora\.(up|down)\.|lora_(up|down)", "a LoRA of another model"),
    )
)
"""What keys that fit nothing look like, so that the error can say what the file is; the first match of a key counts."""


def looks_like(keys: Iterable[str]) -> str:
    """What most of the keys look like, in words that end a sentence beginning with "They look like"."""
    return guess(keys) or "no layout of LoRA files that is known here"


def guess(keys: Iterable[str]) -> str | None:
    """The same; None where nobody can tell."""
    votes = Counter(next((words for pattern, words in _GUESSES if pattern.search(key)), "") for key in keys)
    votes.pop("", None)
    return votes.most_common(1)[0][0] if votes else None


_TEXT_WIDTH = re.compile(r"attn2[._](processor\.)?to_[kv][._].*(down|lora_A)")


def lora_of(tensors: Mapping[str, Stored]) -> str | None:
    """The family that a LoRA is for, where names alone mislead: Stable Diffusion 2 has those of SD 1.5."""
    widths = Counter(stored.shape[1:2] for name, stored in tensors.items() if _TEXT_WIDTH.search(name))
    common = widths.most_common(1)
    return "a LoRA of Stable Diffusion 2" if common and common[0][0] == (CONTEXT_OF_SD2,) else None


FileKind = Literal["checkpoint", "unet", "vae"]
"""A whole pipeline (or what is left of one), a lone UNet, a lone VAE: what is read."""

LORA = re.compile(
    r"lora_(down|up|mid|A|B)\b|[._]lora\.(down|up)\.|\.(hada_w|lokr_w|dora_scale|diff(_b)?$)|^lora_(unet|te)"
)
EMBEDDING = {"emb_params", "clip_l", "clip_g", "string_to_param", "string_to_token"}
EDM = {"edm_mean", "edm_std", "edm_vpred.sigma_max"}
WIDTH_OF_REFINER, CONTEXT_OF_SD2 = 384, 1024
CONV_IN = ("model.diffusion_model.input_blocks.0.0.weight", "input_blocks.0.0.weight", "conv_in.weight")
RENDERED = "hotart-bench reads SDXL and SD 1.5"
PARTS = {
    "unet": ("model.diffusion_model.", "input_blocks.", "down_blocks."),
    "vae": ("first_stage_model.", "vae.", "encoder.conv_in.", "decoder.conv_in."),
    "text": ("conditioner.", "cond_stage_model.", "text_model.", "transformer.resblocks.", "text_encoders."),
}
"""How the names in a file begin that holds a component."""


def detect(what: str, tensors: Mapping[str, Stored]) -> FileKind:
    """What a file holds.

    Args:
        what: the file, for the message.
        tensors: of its header.

    Raises:
        WeightsError: it is something else, which is named, with what to do about it where there is something.
    """
    other, hint = _other(tensors)
    if other:
        raise WeightsError(f"{what}: looks like {other}.", hint)
    parts = {part for part, beginnings in PARTS.items() if any(name.startswith(beginnings) for name in tensors)}
    if "unet" in parts:
        return "checkpoint" if len(parts) > 1 else "unet"
    if parts == {"vae"}:
        return "vae"
    if parts == {"text"}:
        raise WeightsError(f"{what}: looks like a lone text encoder; a checkpoint has a UNet too.")
    if parts:
        return "checkpoint"
    likely = guess(tensors)
    looks = f" They look like {likely}." if likely else ""
    raise WeightsError(
        f"{what}: is not a checkpoint that is known; its tensors are called {listed(tensors, 3)}.{looks} {RENDERED}."
    )


def _other(tensors: Mapping[str, Stored]) -> tuple[str, str]:
    """What a file is that is not read as a checkpoint, and what to do about it; empty where it may be one."""

    def any_name(pattern: str) -> bool:
        return any(re.search(pattern, name) for name in tensors)

    if not tensors:
        return "an empty file: it holds no tensors", "get the file again"
    if any(LORA.search(name) for name in tensors):
        return "a LoRA, not a checkpoint", (
            "give it to a checkpoint: loras = [{ path = FILE, weight = 1.0 }] in a suite, --lora FILE on a command line"
        )
    if len(tensors) <= 4 and EMBEDDING & tensors.keys():
        return "a textual-inversion embedding, not a checkpoint", ""
    if any_name(r"control_model\.|input_hint_block\."):
        return "a ControlNet, not a checkpoint", ""
    if any_name(r"double_blocks\.|single_transformer_blocks\."):
        return f"a Flux model. {RENDERED}", ""
    if any_name(r"joint_blocks\.|^transformer_blocks\."):
        return f"a Stable Diffusion 3 model or a transformer like it. {RENDERED}", ""
    widths = {tensors[name].shape[:1] for name in CONV_IN if name in tensors}
    if any_name(r"^conditioner\.embedders\.0\.model\.") or (WIDTH_OF_REFINER,) in widths:
        return f"the SDXL refiner, which needs the images of a base model. {RENDERED}", ""
    contexts = {tensor.shape[1:] for name, tensor in tensors.items() if name.endswith("attn2.to_k.weight")}
    if any_name(r"^cond_stage_model\.model\.") or (CONTEXT_OF_SD2,) in contexts:
        return f"a Stable Diffusion 2 model. {RENDERED}", ""
    if all(name.startswith("model_ema.") for name in tensors):
        return "the averaged copy (EMA) of a checkpoint alone, for further training", "get the checkpoint itself"
    if EDM & tensors.keys():
        return (
            f"a model with EDM's noise (Playground 2.5, CosXL), for which there is no sampler. {RENDERED}",
            "",
        )
    return "", ""


_SCALES = (
    (
        r"(^|\.)scaled_fp8$|\.(scale_weight|weight_scale|input_scale|scale_input|comfy_quant)$",
        "scaled fp8",
    ),
    (r"\.(absmax|quant_map|quant_state\.\w+|nested_absmax|SCB)$", "bitsandbytes"),
    (r"\.(qweight|qzeros|scales|g_idx)$", "GPTQ or AWQ"),
)
"""Names of the scales that quantised numbers have to be multiplied with, and who writes them."""


IN_FLOATS = "get the checkpoint in float16, bfloat16 or float32"


def refuse_scaled(what: str, tensors: Mapping[str, Stored]) -> None:
    """Raises WeightsError for quantised weights, whose numbers mean nothing without their scales."""
    for pattern, name in _SCALES:
        scales = [key for key in tensors if re.search(pattern, key)]
        if scales:
            raise WeightsError(
                f"{what}: holds quantised weights ({name}), which are not read; {min(scales)} is one of their scales.",
                IN_FLOATS,
            )


def refuse_whole_numbers(what: str, tensors: Mapping[str, Stored]) -> None:
    """Raises WeightsError where weights are stored as integers or truth values."""
    whole = sorted(name for name, stored in tensors.items() if not re.match(r"b?float", stored.dtype))
    if whole:
        raise WeightsError(
            f"{what}: holds whole numbers where weights belong: {len(whole)} tensors, such as {whole[0]}, which is "
            f"stored as {tensors[whole[0]].dtype}.",
            IN_FLOATS,
        )
