"""Keys of LoRA files, taken apart: which module, and which part of its change."""

from __future__ import annotations

import re
from typing import NamedTuple

SIDES = {"A": "down", "down": "down", "B": "up", "up": "up", "mid": "mid"}

_NAME = r"(?:\.(?!weight\b)\w+)?"  # the adapter's name, which PEFT leaves in now and then: ".default"
_PART = re.compile(
    rf"""(?P<module>.+?)
    (?: \.lora_(?P<side>A|B|down|up|mid){_NAME}\.weight
      | [._]lora(?:_linear_layer)?\.(?P<old>down|up)\.weight
      | \.(?P<magnitude>lora_magnitude_vector){_NAME}(?:\.weight)?
      | \.(?P<role>alpha|dora_scale|diff_b|diff|w_norm|b_norm
                  |hada_(?:w[12]_[ab]|t[12])|lokr_(?:w[12](?:_[ab])?|t2)){_NAME}
    )""",
    re.VERBOSE,
)


class KeyPart(NamedTuple):
    """A key of a LoRA file, taken apart."""

    module: str
    """The module in the file's own spelling: ``lora_unet_mid_block_attentions_0_proj_in``."""
    role: str
    """``up``, ``down``, ``mid``, ``alpha``, ``magnitude`` (PEFT's DoRA), else as lycoris names it: ``hada_w1_a``."""
    old: bool
    """Whether the ending is that of diffusers before PEFT: ``.lora.up.weight``, ``_lora.down.weight``."""


def take_apart(key: str) -> KeyPart | None:
    """Module and part that a key names; None where its ending is none of a LoRA's that can be applied."""
    match = _PART.fullmatch(key)
    if match is None:
        return None
    side, old, magnitude = match["side"], match["old"], match["magnitude"]
    if magnitude:
        return KeyPart(match["module"], "magnitude", old=False)
    return KeyPart(match["module"], SIDES[side or old] if side or old else match["role"], old=old is not None)
