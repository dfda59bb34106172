"""What a recipe is made of is part of what its variant needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.errors import WeightsError
from bench.merge.load import every_place
from bench.mini import weights
from bench.records import Lora, Variant

INNER = """\
schema = 1
method = "weighted_sum"
models = ["mini", "owner/name@main"]
alpha = 0.5
loras = [{ path = "mini:spo" }]
"""
OUTER = """\
schema = 1
method = "copy"
models = ["inner.toml"]
vae = "owner/vae"
"""


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_recipes_sources_follow_it_and_those_of_the_recipes_in_it(tmp_path: Path) -> None:
    inner, outer = write(tmp_path, "inner.toml", INNER), write(tmp_path, "outer.toml", OUTER)
    variant = Variant(name="x", checkpoint=str(outer), loras=(Lora(path="mini:dpo"),))
    found = every_place(variant, None)
    assert [place.what for place in found] == [
        *(str(outer), str(inner), "mini", "owner/name@main", "mini:spo", "owner/vae", "mini:dpo"),
    ]
    assert [place.path is None for place in found] == [False, False, False, True, False, True, False]
    assert {place.what: place.repository for place in found if place.path is None} == {
        "owner/name@main": "owner/name",
        "owner/vae": "owner/vae",
    }
    assert str(weights.lora_file("spo")) in {place.path for place in found}


def test_a_recipe_within_itself_ends(tmp_path: Path) -> None:
    path = write(tmp_path, "own.toml", OUTER.replace("inner", "own"))
    assert [place.what for place in every_place(Variant(name="x", checkpoint=str(path)), None)] == [
        str(path),
        "owner/vae",
    ]


def test_a_source_that_cannot_be_one_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "r.toml", OUTER.replace("inner.toml", "gone.safetensors"))
    with pytest.raises(WeightsError, match=r"gone\.safetensors"):
        every_place(Variant(name="x", checkpoint=str(path)), None)
