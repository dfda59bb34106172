"""What a variant was made of: files, recipes, merged files, Hub names, and what is gone."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file
from tiny_checkpoints import write_lora, write_recipe, write_tiny

from bench.card.sources import find_sources, own_name, recipe_text
from bench.checkpoints.fingerprint import fingerprint
from bench.errors import UsageError
from bench.merge.write import merge
from bench.mini import weights
from bench.records import Fingerprint, Lora, Variant, WeightFile

SUM = 'method = "weighted_sum"\nmodels = ["a.safetensors", "b.safetensors"]\nalpha = 0.3\n'


def with_licence(path: Path, licence: str) -> None:
    save_file(load_file(path), path, {"modelspec.license": licence, "modelspec.title": "T"})


def printed(variant: Variant, *files: tuple[str, Path]) -> Fingerprint:
    """A fingerprint of these files, made by hand: no image is drawn from the tiny ones."""
    found = tuple(
        WeightFile(
            component=component,
            name=path.name,
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            size_bytes=path.stat().st_size,
        )
        for component, path in files
    )
    return Fingerprint(name=variant.name, digest="0", checkpoint=variant.checkpoint, pipeline="P", files=found)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    write_tiny(folder / "a.safetensors", 1)
    write_tiny(folder / "b.safetensors", 2)
    with_licence(folder / "a.safetensors", "openrail++")
    write_lora(folder / "lora.safetensors")
    lora = 'loras = [{ path = "lora.safetensors", weight = 0.5 }]\n'
    write_recipe(folder / "r.toml", SUM + lora + '[metadata]\nlicense = "openrail++"\n')
    merge(folder / "r.toml", folder / "out.safetensors", weights_dir=None, progress=lambda *_: None)
    return folder


def test_a_file_names_its_licence_in_its_header(place: Path) -> None:
    loras = (Lora(path=str(place / "lora.safetensors"), weight=0.8),)
    variant = Variant(name="v", checkpoint=str(place / "a.safetensors"), loras=loras)
    known = printed(variant, ("unet", place / "a.safetensors"), ("lora:0", place / "lora.safetensors"))
    checkpoint, lora = find_sources(variant, known, None, {})
    assert (checkpoint.name, checkpoint.licence, checkpoint.said_by) == ("a.safetensors", "openrail++", "its header")
    assert checkpoint.hashes == (known.files[0].sha256,)
    assert (lora.role, lora.name, lora.licence) == ("LoRA × 0.8", "lora.safetensors", None)
    assert lora.hashes == (known.files[1].sha256,)


@pytest.mark.parametrize("name", ["r.toml", "out.safetensors"])
def test_a_recipe_and_the_file_that_it_made_name_the_same_sources(place: Path, name: str) -> None:
    variant = Variant(name="v", checkpoint=str(place / name))
    known = printed(variant, *(("unet", place / one) for one in ("a.safetensors", "b.safetensors", "lora.safetensors")))
    if name != "r.toml":
        known = printed(variant, ("unet", place / name))
    own, *sources = find_sources(variant, known, None, {})
    assert own.merged
    assert (own.licence, own.name) == ("openrail++", name)
    assert [one.name for one in sources] == ["a.safetensors", "b.safetensors", "lora.safetensors"]
    digests = [hashlib.sha256((place / one.name).read_bytes()).hexdigest() for one in sources]
    assert [one.hashes for one in sources] == [(digest,) for digest in digests]
    table = json.loads(recipe_text((own, *sources)))
    assert table["method"] == "weighted_sum"
    assert str(place) not in json.dumps(table)


def test_a_recipe_that_is_a_source_of_itself_ends(tmp_path: Path) -> None:
    write_recipe(tmp_path / "r.toml", SUM.replace("a.safetensors", "r.toml"))
    variant = Variant(name="v", checkpoint=str(tmp_path / "r.toml"))
    found = find_sources(variant, printed(variant), None, {})
    assert [one.note for one in found] == ["", "is a recipe that is a source of itself", "is not here any more"]


def test_a_diffusers_folder_names_its_licence_in_its_card(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(weights.pipeline_folder(), tmp_path / "model"))
    (folder / "README.md").write_text("---\nlicense: mit\n---\n", encoding="utf-8")
    variant = Variant(name="v", checkpoint=str(folder))
    (one,) = find_sources(variant, fingerprint(variant), None, {})
    assert (one.name, one.licence, one.said_by) == ("model", "mit", "its model card")
    assert len(one.hashes) == 4


def test_a_known_repository_has_a_licence_and_an_unknown_one_none() -> None:
    variant = Variant(name="v", checkpoint="stabilityai/stable-diffusion-xl-base-1.0", unet="some/body")
    checkpoint, unet = find_sources(variant, printed(variant), None, {})
    assert (checkpoint.repository, checkpoint.licence) == (checkpoint.name, "openrail++")
    assert (unet.role, unet.repository, unet.licence) == ("UNet", "some/body", None)


def test_what_is_gone_or_another_file_by_now_is_said_and_not_read(place: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(place / "a.safetensors", tmp_path / "a.safetensors"))
    variant = Variant(name="v", checkpoint=str(path))
    known = printed(variant, ("unet", path))
    save_file({"x": load_file(path).popitem()[1]}, path, {"modelspec.license": "mit"})
    (one,) = find_sources(variant, known, None, {})
    assert (one.licence, "another file by now" in one.note) == (None, True)
    path.unlink()
    (one,) = find_sources(variant, known, None, {})
    assert (one.licence, one.note, one.hashes) == (None, "is not here any more", (known.files[0].sha256,))


def test_the_makers_word_counts_and_a_name_that_is_none_is_refused(place: Path) -> None:
    variant = Variant(name="v", checkpoint=str(place / "b.safetensors"))
    known = printed(variant, ("unet", place / "b.safetensors"))
    (one,) = find_sources(variant, known, None, {"b.safetensors": "mit"})
    assert (one.licence, one.said_by) == ("mit", "the maker")
    with pytest.raises(UsageError, match=r"did you mean 'b\.safetensors'"):
        find_sources(variant, known, None, {"b.safetensor": "mit"})


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("/home/me/x.safetensors", "x.safetensors"),
        ("C:\\models\\x.safetensors", "x.safetensors"),
        ("../models/y.toml", "y.toml"),
        ("models/z.safetensors", "z.safetensors"),
        ("owner/name", "owner/name"),
        ("owner/name:file.safetensors", "owner/name:file.safetensors"),
        ("mini:spo", "mini:spo"),
    ],
)
def test_no_card_tells_the_folders_of_a_disk(name: str, shown: str) -> None:
    assert own_name(name) == shown


def test_external_images_have_no_sources() -> None:
    assert find_sources(Variant(name="v", checkpoint="x"), None, None, {}) == ()
