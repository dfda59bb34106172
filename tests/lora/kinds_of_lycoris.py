"""Random parts of the low-rank kinds, with what lycoris makes of them."""

from __future__ import annotations

import torch
from checkpoints import Weights, checkpoint, random
from lycoris.functional import loha
from lycoris.functional.locon import diff_weight as locon

LINEAR, CONV = "unet.mid_block.attentions.0.proj_in", "unet.down_blocks.1.resnets.0.conv1"
POINT = "unet.down_blocks.1.resnets.0.conv_shortcut"
RANK, ALPHA = 4, 3.0


def shape(module: str) -> tuple[int, ...]:
    return tuple(checkpoint("sdxl")[f"{module}.weight"].shape)


def low_rank(module: str, kind: str) -> tuple[Weights, torch.Tensor]:
    """Random parts of one kind for a module, and what lycoris makes of them at alpha / rank."""
    torch.manual_seed(1)
    out, into, *kernel = shape(module)
    ones = [1 for _ in kernel]
    if kind == "lora":
        up, down = random(out, RANK, *ones), random(RANK, into, *kernel)
        return {"lora_up.weight": up, "lora_down.weight": down}, locon(down, up, None, gamma=ALPHA / RANK)
    if kind == "tucker":
        up, down, mid = random(out, RANK, *ones), random(RANK, into, *ones), random(RANK, RANK, *kernel)
        parts = {"lora_up.weight": up, "lora_down.weight": down, "lora_mid.weight": mid}
        return parts, locon(down, up, mid, gamma=ALPHA / RANK)
    if kind == "loha":
        a1, b1, a2, b2 = random(out, RANK), random(RANK, into, *kernel), random(out, RANK), random(RANK, into, *kernel)
        parts = {"hada_w1_a": a1, "hada_w1_b": b1.flatten(1), "hada_w2_a": a2, "hada_w2_b": b2.flatten(1)}
        return parts, loha.diff_weight(b1, a1, b2, a2, None, None, gamma=ALPHA / RANK)
    a1, b1, a2, b2 = random(RANK, out), random(RANK, into), random(RANK, out), random(RANK, into)
    t1, t2 = random(RANK, RANK, *kernel), random(RANK, RANK, *kernel)
    parts = {"hada_w1_a": a1, "hada_w1_b": b1, "hada_w2_a": a2, "hada_w2_b": b2, "hada_t1": t1, "hada_t2": t2}
    return parts, loha.diff_weight(b1, a1, b2, a2, t1, t2, gamma=ALPHA / RANK)
