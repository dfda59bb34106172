"""What a merged file says of itself: the texts of its header. Nothing in them depends on when or where it was made.

``modelspec.*`` and ``ss_*`` are the first model's, kept, with what is true of it alone left out (its hash, date and
thumbnail) and what the recipe says put in; ``hotart.recipe`` is the recipe with every input's sha256 instead of
its path. Source: the Stability AI model metadata standard, ModelSpec 1.0.0.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib import metadata as packages
from pathlib import Path
from typing import Any

import msgspec

from bench import strict_json
from bench.variants.checkpoint import Checkpoint
from bench.variants.recipes.merged import Merged
from bench.variants.stored import read_header

KEPT = ("modelspec.", "ss_")
OF_ONE_FILE = ("modelspec.hash_sha256", "modelspec.date", "modelspec.thumbnail")
ARCHITECTURES = {"sdxl": "stable-diffusion-xl-v1-base", "sd15": "stable-diffusion-v1"}
RESOLUTIONS = {"sdxl": "1024x1024", "sd15": "512x512"}
PREDICTIONS = {"epsilon": "epsilon", "v_prediction": "v"}

Hashes = Mapping[Path, str]
"""sha256 by file."""


def header_texts(merged: Merged, hashes: Hashes) -> dict[str, str]:
    """The metadata of the merged file, sorted by name.

    Args:
        merged: the recipe.
        hashes: the sha256 of every weight file that goes into it.
    """
    facts, first = merged.facts, _metadata(merged)
    texts = {name: text for name, text in first.items() if name.startswith(KEPT) and name not in OF_ONE_FILE}
    texts.setdefault("modelspec.title", _title(merged.models[0]))
    texts.setdefault("modelspec.resolution", RESOLUTIONS[facts.family])
    texts |= {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": ARCHITECTURES[facts.family] + ("/inpaint" if facts.inpainting else ""),
        "modelspec.implementation": "sgm" if facts.family == "sdxl" else "ldm",
        "modelspec.prediction_type": PREDICTIONS[facts.prediction],
        "modelspec.merged_from": ", ".join(_title(model) for model in merged.models),
        "hotart.version": packages.version("hotart-bench"),
        "hotart.recipe": strict_json.canonical(recipe_facts(merged, hashes)).decode(),
    }
    own = msgspec.structs.asdict(merged.recipe.metadata)
    texts |= {f"modelspec.{name}": text for name, text in own.items() if text is not None}
    return dict(sorted(texts.items()))


def recipe_facts(merged: Merged, hashes: Hashes) -> dict[str, Any]:
    """A recipe without paths: what was asked, and of each source its name and the sha256 of its files."""
    recipe: dict[str, Any] = msgspec.to_builtins(merged.recipe)
    recipe["models"] = [_source_facts(model, hashes) for model in merged.models]
    recipe["vae"] = None if merged.vae is None else _source_facts(merged.vae, hashes)
    for lora, one in zip(recipe["loras"], merged.loras, strict=True):
        scales = hashlib.sha256(strict_json.canonical(one.adapter.scales)).hexdigest()
        lora |= {"path": without_folder(one.what), "sha256": hashes[one.file], "scales_sha256": scales}
    return recipe


def without_folder(what: str) -> str:
    """A source as a header may name it: of a path the last part, a Hub id or a shipped name as it is.

    Sources that are paths are opened by absolute ones (``opening``), so that the two cannot be taken for each other.
    """
    return Path(what).name if Path(what).is_absolute() else what


def _source_facts(source: Checkpoint, hashes: Hashes) -> dict[str, Any]:
    if isinstance(source, Merged):
        return recipe_facts(source, hashes)
    files = [{"component": component, "sha256": hashes[path]} for component, path in source.files]
    return {"source": without_folder(source.what), "files": files}


def _title(model: Checkpoint) -> str:
    return model.facts.title or Path(without_folder(model.what)).stem


def _metadata(merged: Merged) -> Mapping[str, str]:
    """What the first model's file says of itself; nothing where it is none, or several."""
    first = merged.models[0]
    if isinstance(first, Merged):
        return _metadata(first)
    return read_header(first.files[0][1]).metadata if first.facts.layout == "single-file" else {}
