"""What keys that fit nothing look like, so that the error can say what the file is."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

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
