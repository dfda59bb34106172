"""Writes ``shapes.json`` beside the shipped configurations anew: ``python tests/checkpoints/write_shapes.py``."""

from __future__ import annotations

import json

from bench.checkpoints.families import COMPONENTS, FAMILIES, config_folder
from bench.checkpoints.meta_model import model_shapes


def shapes_text(family: str) -> str:
    """Every tensor of a family with its shape, as diffusers and transformers build the models; one a line."""
    folder = config_folder(family)
    lines = [
        f'"{name}": {json.dumps(shape)}'
        for component in COMPONENTS
        if (folder / component).is_dir()
        for name, shape in sorted(model_shapes(component, folder / component).items())
    ]
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    for family in FAMILIES:
        (config_folder(family) / "shapes.json").write_text(shapes_text(family), encoding="utf-8")
