"""A1111's ``parameters`` of our own pictures, so that PNG Info and Civitai read how they were made. No torch.

The prompt, a line with the negative prompt where there is one, and one line of ``key: value``: keys and names are
A1111's where it has them. Nothing in it tells a path, a date or a version of this program, so equal work gives equal
bytes. What the prompt says is not changed: LoRAs stand in keys of their own, not as ``<lora:...>`` in the text.

Sources: AUTOMATIC1111/stable-diffusion-webui (``create_infotext``), civitai/civitai (its reader of that text, which
wants ``Steps`` first and the JSON of ``Hashes`` last).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from bench.records import Embedding, Fingerprint, Lora, PlannedImage, RunInfo, Settings, Variant, WeightFile
from bench.suite.prompt_syntax import embeddings_of
from bench.suite.prompt_weights import without_tags
from bench.suite.sampler_names import a1111_names

GENERATOR = "hotart-bench"
SYNTAX_OF_A1111 = frozenset("()[]\\")
"""Characters that A1111 would read as weights or escapes."""
SHORT, SHORT_LORA, SHORT_EMBEDDING = 10, 12, 12
"""Hex digits of a hash: of a file's sha256 (AutoV2), of that over a LoRA's tensors (AutoV3), of an embedding's file."""

Fields = Mapping[str, object]


class Captions:
    """What the images of a run say of themselves.

    Args:
        info: of the run; its fingerprints name the weights.
    """

    def __init__(self, info: RunInfo) -> None:
        suite = info.suite
        self._settings = suite.settings
        self._prompts = {prompt.id: prompt for prompt in suite.prompts}
        self._texts: dict[str, tuple[str, str, Sequence[Embedding]]] = {}
        prints = {one.name: one for one in info.variants}
        self._models = {one.name: _model(one, prints.get(one.name)) for one in suite.variants}

    def of(self, variant: str, planned: PlannedImage) -> str:
        """The text of one image."""
        text, negative, embeddings = self._prompt(planned.prompt_id)
        model, hashes = self._models[variant]
        fields = {**_sampling(self._settings, planned.seed), **model, **_syntax(self._settings, text + negative)}
        if embeddings:
            told = ", ".join(f"{one.name}: {one.sha256[:SHORT_EMBEDDING]}" for one in embeddings)
            fields, hashes = fields | {"TI hashes": told}, hashes | _embedding_hashes(embeddings)
        fields |= {"Variant": variant, "Generator": GENERATOR}
        line = ", ".join(f"{name}: {_quoted(value)}" for name, value in fields.items())
        last = f"{line}, Hashes: {json.dumps(hashes)}" if hashes else line
        return "\n".join([text, *([f"Negative prompt: {negative}"] if negative else []), last])

    def _prompt(self, prompt_id: str) -> tuple[str, str, Sequence[Embedding]]:
        """Text and negative without the tags that were left out, and the embeddings that they use; found once."""
        if prompt_id not in self._texts:
            prompt, settings = self._prompts[prompt_id], self._settings
            texts = prompt.text, prompt.negative
            if settings.prompt_loras == "ignore":
                texts = without_tags(prompt.text), without_tags(prompt.negative)
            self._texts[prompt_id] = (*texts, embeddings_of(prompt, settings))
        return self._texts[prompt_id]


def _sampling(settings: Settings, seed: int) -> dict[str, object]:
    sampler, schedule = a1111_names(settings.sampler, settings.schedule)
    # What A1111 has no name for stands by ours: read as "Automatic" there, and as itself here.
    fields: dict[str, object] = {"Steps": settings.steps}
    fields |= {"Sampler": sampler or settings.sampler, "Schedule type": schedule or settings.schedule}
    fields |= {"CFG scale": f"{settings.guidance_scale:g}", "Seed": seed}
    fields |= {"Size": f"{settings.width}x{settings.height}"}
    if settings.clip_skip is not None and settings.clip_skip > 1:
        fields["Clip skip"] = settings.clip_skip
    if settings.eta:
        fields["Eta"] = f"{settings.eta:g}"
    if settings.guidance_rescale:
        fields["CFG rescale"] = f"{settings.guidance_rescale:g}"
    return fields | _conditioning(settings) | {"RNG": "CPU"}


def _conditioning(settings: Settings) -> dict[str, object]:
    """Timesteps by hand, and what SDXL is told of size and crop, for which A1111 has no keys."""
    fields: dict[str, object] = {}
    if settings.timesteps:
        fields["Timesteps"] = " ".join(map(str, settings.timesteps))
    for key, size in (("Original size", settings.original_size), ("Target size", settings.target_size)):
        if size is not None:
            fields[key] = "{}x{}".format(*size)
    if settings.crop != (0, 0):
        fields["Crop"] = "{}x{}".format(*settings.crop)
    return fields


def _syntax(settings: Settings, text: str) -> Fields:
    """How the prompt is to be read, where A1111 would read it otherwise."""
    if settings.prompt_syntax == "comfyui":
        return {"Prompt syntax": "ComfyUI"}
    if settings.prompt_syntax == "plain" and not SYNTAX_OF_A1111.isdisjoint(text):
        return {"Emphasis": "None"}
    return {}


def _model(variant: Variant, known: Fingerprint | None) -> tuple[Fields, dict[str, str]]:
    """The fields that name a variant's weights, and the map of their hashes.

    A folder of several files has no hash of its own, and gets none.
    """
    files = {file.component: file for file in (() if known is None else known.files)}
    fields: dict[str, object] = {}
    hashes: dict[str, str] = {}
    checkpoint = files.get("checkpoint")
    if checkpoint is not None:
        hashes["model"] = fields["Model hash"] = checkpoint.sha256[:SHORT]
    fields["Model"] = _name(variant.checkpoint if checkpoint is None else checkpoint.name)
    if variant.unet:
        fields |= _part("UNet", variant.unet, files.get("unet"))
    if variant.vae:
        fields |= _part("VAE", variant.vae, files.get("vae"))
        if "vae" in files:
            hashes["vae"] = files["vae"].sha256[:SHORT]
    if variant.runtime is not None:
        fields["Runtime"] = variant.runtime
    loras = [files.get(f"lora:{number}") for number in range(len(variant.loras))]
    fields |= _loras(variant, loras)
    hashes |= {f"lora:{_name(one.name)}": _lora_hash(one) for one in loras if one is not None}
    return fields, hashes


def _embedding_hashes(embeddings: Sequence[Embedding]) -> dict[str, str]:
    return {f"embed:{one.name}": one.sha256[:SHORT] for one in embeddings}


def _part(key: str, source: str, file: WeightFile | None) -> Fields:
    return {**({} if file is None else {f"{key} hash": file.sha256[:SHORT]}), key: _name(source)}


def _loras(variant: Variant, files: Sequence[WeightFile | None]) -> Fields:
    """``Lora hashes`` as A1111 writes it, and the weights, which A1111 has in the prompt."""
    if not variant.loras:
        return {}
    names = [_name(lora.path if file is None else file.name) for lora, file in zip(variant.loras, files, strict=True)]
    known = {name: _lora_hash(file) for name, file in zip(names, files, strict=True) if file is not None}
    told = ", ".join(f"{name}: {_weight(lora)}" for name, lora in zip(names, variant.loras, strict=True))
    hashes = {"Lora hashes": ", ".join(f"{name}: {value}" for name, value in known.items())} if known else {}
    return {**hashes, "Lora weights": told}


def _weight(lora: Lora) -> str:
    """A LoRA's weight, and after it what some parts or steps have of their own."""
    parts = {"unet": lora.unet, "te": lora.text_encoder, "te2": lora.text_encoder_2}
    own = [f"{name} {weight:g}" for name, weight in (parts | lora.blocks).items() if weight is not None]
    own += [f"from {start:g} of the steps {factor:g} times" for start, factor in lora.step_factors]
    return "; ".join([f"{lora.weight:g}", *own])


def _lora_hash(file: WeightFile) -> str:
    return file.autov3 or file.sha256[:SHORT]


def _name(source: str) -> str:
    """The last part of a file's name or of a source, without its ending, commas and colons."""
    last = PurePosixPath(source.replace("\\", "/")).name
    stem = last.rsplit(":", 1)[-1] if ":" in last else last
    for ending in (".safetensors", ".ckpt", ".toml"):
        stem = stem.removesuffix(ending)
    return stem.replace(",", "")


def _quoted(value: object) -> str:
    """A value as A1111 quotes it: as JSON where it holds a comma, a colon or the end of a line."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if set(text) & set(",:\n") else text
