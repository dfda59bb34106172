"""What makes two pictures a pair: everything that they say but their model."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bench.pictures.folders import Picture
from bench.pictures.infotext import tidy_without_tags
from bench.pictures.parameters import GENERATOR, SYNTAX_OF_A1111
from bench.pictures.read import our_names
from bench.records import PictureFacts, PictureLora, PromptSyntax

TAGGED = ("A1111", "Forge", "SD.Next", "A1111-like")
"""Programs in whose prompts ``<lora:...>`` is a LoRA and no word."""
OF_COMFYUI = ("ComfyUI", "SwarmUI", "Fooocus")
"""Programs in whose prompts ``(word:1.2)`` is a weight as ComfyUI has it."""
IGNORED = (
    "User", "Template", "Negative Template", "Negative template", "TI hashes", "Hashes", "Civitai resources",
    "Civitai metadata", "Created Date", "Script", "X Type", "X Values", "Fixed X Values", "Y Type", "Y Values",
    "Fixed Y Values", "Z Type", "Z Values", "Fixed Z Values", "Batch size", "Batch pos", "Generator", "App",
    "model_hash", "tensor_hash", "signed_hash", "date", "generation_time", "created_by", "Hires VAE", "batch_size",
    "Model hash", "Grid",
)  # fmt: skip
"""Of ``PictureFacts.other``, what changes no pixel or says the model again."""
OWN_MODEL = ("Variant", "Runtime", "UNet", "UNet hash", "VAE", "VAE hash", "Lora weights")
"""Of pictures of ours, what names the variant: parts of a checkpoint are variants too."""
INPAINTED = ("Mask blur", "Inpaint area", "Masked area padding", "Mask mode")
Value = str | int | float | None
Key = tuple[tuple[str, Value], ...]


def typed_prompt(said: PictureFacts) -> str:
    """The prompt as it was typed, weights included, without LoRA tags where the program takes them out."""
    prompt = said.prompt or ""
    return tidy_without_tags(prompt) if said.program in TAGGED else prompt


def syntax_of(said: PictureFacts) -> PromptSyntax | None:
    """Whose syntax the prompt is written in; None where its words are the same in any."""
    if said.other.get("Emphasis") == "None":
        return "plain"
    if said.program == GENERATOR:
        if said.other.get("Prompt syntax") == "ComfyUI":
            return "comfyui"
        return None if SYNTAX_OF_A1111.isdisjoint(said.prompt or "") else "a1111"
    return "a1111" if said.program in TAGGED else "comfyui" if said.program in OF_COMFYUI else "plain"


def model_of(said: PictureFacts) -> str:
    """What a picture's model is known by: its hash, else its name, of ours the variant; empty where none is told."""
    return own_variant(said) or said.model_hash or said.model or ""


def own_variant(said: PictureFacts) -> str:
    """The variant that a picture of ours names; empty for those of other programs."""
    return said.other.get("Variant", "") if said.program == GENERATOR else ""


def lora_text(loras: Sequence[PictureLora] | None, *, hashes: bool = False) -> str:
    """LoRAs with their weights, and their hashes where that is asked for, as one text: ``glow-0.8+ink-0.5-1``."""
    if loras is None:
        return "unknown-loras"
    words = []
    for one in loras:
        name = re.sub(r"\.safetensors$", "", one.name.replace("\\", "/").rpartition("/")[2])
        weights = dict.fromkeys(f"{weight:g}" for weight in (one.text_weight, one.unet_weight) if weight is not None)
        words.append("-".join([name, *weights]) + (f" ({one.hash})" if hashes and one.hash else ""))
    return "+".join(sorted(words))


def key_of(picture: Picture, *, with_loras: bool) -> Key:
    """Everything that a picture says but its model, and its LoRAs where these tell variants apart."""
    said = picture.facts
    names = our_names(said)
    automatic = said.schedule == "Automatic" and names.schedule is None
    seed: Value = said.seed if picture.source == "picture" else picture.place
    values: dict[str, Value] = {
        "program": said.program,
        "prompt": typed_prompt(said),
        "negative prompt": said.negative,
        "seed": seed,
        "steps": said.steps,
        "sampler": names.sampler or said.sampler,
        "schedule": "Automatic" if automatic else names.schedule or said.schedule,
        "CFG": said.cfg,
        "size": None if said.size is None else "{} x {}".format(*said.size),
        "clip skip": said.clip_skip,
        "RNG": said.rng,
        "second pass": None if said.hires is None else str(said.hires),
    }
    ours = bool(own_variant(said))
    if with_loras and not ours:
        values["LoRAs"] = None if said.loras is None else lora_text(said.loras, hashes=True)
    unlike = (*IGNORED, *OWN_MODEL) if ours else IGNORED
    other = {name: value for name, value in said.other.items() if name not in unlike}
    if "VAE hash" in other:
        other.pop("VAE", None)
    return (*values.items(), *sorted(other.items()))


def unpairable(picture: Picture) -> str | None:
    """Why a picture has no partner whatever the other side has; None where it may have one."""
    said = picture.facts
    if picture.source != "picture":
        return None
    if said.seed is None:
        return f"the seed cannot be told: {said.unknown['seed']}"
    if said.other.get("batch_size", "1") != "1" and said.program == "ComfyUI":
        return "one of a batch, and which one is not stored"
    if set(INPAINTED) & said.other.keys():
        return "inpainted"
    if "initimagecreativity" in said.other:
        return "drawn from another picture, which is not named"
    first_pass = {
        "Init image hash",
        "First pass size",
    } & said.other.keys()  # the second as before 2023, of a second pass
    if "Denoising strength" in said.other and not first_pass and said.program in TAGGED:
        return "drawn from another picture, which is not named"
    if "Hires checkpoint" in said.other:
        return "another model drew the second pass"
    return None
