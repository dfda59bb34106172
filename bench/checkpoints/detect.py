"""What a ``.safetensors`` file looks like, told from the names and shapes in its header. No torch."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Literal, Protocol

from bench.checkpoints.checkpoint import Shape
from bench.errors import WeightsError
from bench.formatting import listed

# What keys that fit nothing look like, so that the error can say what the file is.

_GUESSES = tuple(
    (re.compile(pattern), words)
    for pattern, words in (
        (r"oft_(blocks|diag|R)|boft_", "OFT, which is not supported"),
        (r"\.ia3_|\.on_input$", "(IA)^3, which is not supported"),
        (r"\.(a1|a2|b1|b2|bm1|bm2)(\.weight)?$", "GLoRA, which is not supported"),
        (r"\.lora_B(\.\w+)?\.bias$", "PEFT's lora_bias, which is not supported"),
        (r"lora_embedding_[AB]", "a LoRA of a token embedding, which is not supported"),
        (r"^(emb_params|string_to_param|string_to_token|clip_[lg]$|bundle_emb)|^<.*>$", "a textual inversion"),
        (r"^lora_unet_(double|single)_blocks|^(transformer\.)?(single_)?transformer_blocks\.\d", "a LoRA of Flux"),
        (r"^lora_unet_joint_blocks|joint_transformer_blocks", "a LoRA of Stable Diffusion 3"),
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


def looks_like(keys: Iterable[str]) -> str:
    """What most of the keys look like, in words that end a sentence beginning with "They look like"."""
    return guess(keys) or "no layout of LoRA files that is known here"


def guess(keys: Iterable[str]) -> str | None:
    """The same; None where nobody can tell."""
    votes = Counter(next((words for pattern, words in _GUESSES if pattern.search(key)), "") for key in keys)
    votes.pop("", None)
    return votes.most_common(1)[0][0] if votes else None


# What a ``.safetensors`` file looks like, told from the names and shapes in its header. No torch.

Kind = Literal["checkpoint", "unet", "vae"]

"""A whole pipeline (or what is left of one), a lone UNet, a lone VAE: what is read."""

LORA = re.compile(
    r"lora_(down|up|mid|A|B)\b|[._]lora\.(down|up)\.|\.(hada_w|lokr_w|dora_scale|diff(_b)?$)|^lora_(unet|te)"
)

EMBEDDING = {"emb_params", "clip_l", "clip_g", "string_to_param", "string_to_token"}

EDM = {"edm_mean", "edm_std", "edm_vpred.sigma_max"}

WIDTH_OF_REFINER, CONTEXT_OF_SD2 = 384, 1024

CONV_IN = ("model.diffusion_model.input_blocks.0.0.weight", "input_blocks.0.0.weight", "conv_in.weight")

TEXT_ENCODERS = ("conditioner.", "cond_stage_model.", "text_model.", "transformer.resblocks.", "text_encoders.")

RENDERED = "hotart-bench reads SDXL and SD 1.5."


class Shaped(Protocol):
    """What is known of a tensor here."""

    @property
    def shape(self) -> Shape:
        """Its shape."""


def find_kind(what: str, tensors: Mapping[str, Shaped]) -> Kind:
    """What a file holds.

    Args:
        what: the file, for the message.
        tensors: of its header.

    Raises:
        WeightsError: it is something else, which is named, with what to do about it where there is something.
    """
    for looks, hint, so in _OTHERS:
        if so(tensors):
            raise WeightsError(f"{what}: looks like {looks}.", hint)
    parts = {part for part, begins in _PARTS.items() if _any(tensors, *begins)}
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
        f"{what}: is no checkpoint that is known; its tensors are called {listed(tensors, 3)}.{looks} {RENDERED}"
    )


def _any(tensors: Mapping[str, Shaped], *beginnings: str) -> bool:
    return any(name.startswith(beginnings) for name in tensors)


def _is_embedding(tensors: Mapping[str, Shaped]) -> bool:
    return 0 < len(tensors) <= 4 and bool(EMBEDDING & set(tensors))


def _is_refiner(tensors: Mapping[str, Shaped]) -> bool:
    widths = {tensors[name].shape[:1] for name in CONV_IN if name in tensors}
    return _any(tensors, "conditioner.embedders.0.model.") or (WIDTH_OF_REFINER,) in widths


def _is_sd2(tensors: Mapping[str, Shaped]) -> bool:
    contexts = {tensor.shape[1:] for name, tensor in tensors.items() if name.endswith("attn2.to_k.weight")}
    return _any(tensors, "cond_stage_model.model.") or (CONTEXT_OF_SD2,) in contexts


def _is_flux(tensors: Mapping[str, Shaped]) -> bool:
    return any("double_blocks." in name or "single_transformer_blocks." in name for name in tensors)


def _is_sd3(tensors: Mapping[str, Shaped]) -> bool:
    return any("joint_blocks." in name for name in tensors) or _any(tensors, "transformer_blocks.")


_PARTS = {
    "unet": ("model.diffusion_model.", "input_blocks.", "down_blocks."),
    "vae": ("first_stage_model.", "encoder.conv_in.", "decoder.conv_in."),
    "text": TEXT_ENCODERS,
}

_OTHERS = (
    ("an empty file: it holds no tensors", "get the file again", lambda tensors: not tensors),
    (
        "a LoRA, not a checkpoint",
        "give it to a checkpoint: loras = [{ path = FILE, weight = 1.0 }]",
        lambda tensors: any(LORA.search(name) for name in tensors),
    ),
    ("a textual-inversion embedding, not a checkpoint", "", _is_embedding),
    (
        "a ControlNet, not a checkpoint",
        "",
        lambda tensors: any("control_model." in name or "input_hint_block." in name for name in tensors),
    ),
    (f"a Flux model. {RENDERED[:-1]}", "", _is_flux),
    (f"a Stable Diffusion 3 model or a transformer like it. {RENDERED[:-1]}", "", _is_sd3),
    (f"the SDXL refiner, which needs the images of a base model. {RENDERED[:-1]}", "", _is_refiner),
    (f"a Stable Diffusion 2 model. {RENDERED[:-1]}", "", _is_sd2),
    (
        f"a model trained with EDM's noise (Playground 2.5, CosXL), for which there is no sampler. {RENDERED[:-1]}",
        "",
        lambda tensors: bool(EDM & set(tensors)),
    ),
)
