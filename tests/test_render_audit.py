"""What rendering writes into run.json of the weights, and how far fusing moves pixels."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import tiny
from PIL import Image
from safetensors.numpy import save_file

from bench.pipeline.switch import fused_by_recipe, switch_variant
from bench.records import Lora, RunOptions
from bench.render.unfused import compare_with_runtime
from bench.run import run_stage
from bench.store import load_run
from bench.suite import load_suite

replace = msgspec.structs.replace


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    return load_suite(str(tiny.write_tiny(tmp_path_factory.mktemp("suite"))))


@pytest.fixture(scope="module")
def run(suite, tmp_path_factory):
    """Base, a LoRA fused, and the same LoRA unfused, rendered for real."""
    _, fused = suite.variants
    variants = (*suite.variants, replace(fused, name="beside", fuse=False))
    folder = tmp_path_factory.mktemp("run") / "run"
    run_stage("render", replace(suite, variants=variants), folder, RunOptions(device="cpu"))
    return load_run(folder)


def pixels(run, variant):
    names = sorted(one.image for one in run.renders if one.variant == variant)
    return np.stack([np.asarray(Image.open(f"{run.path}/{name}")).astype(int) for name in names])


def test_each_variant_has_its_audit(run):
    prints = {one.name: one for one in run.info.variants}
    assert {name: one.lora_mode for name, one in prints.items()} == {
        "base": "none",
        "spo": "fused",
        "beside": "unfused",
    }
    assert prints["base"].audit.loras == ()
    for name in ("spo", "beside"):
        (lora,) = prints[name].audit.loras
        assert lora.keys == sum(lora.applied.values()) == 2 * len(lora.modules)
        assert min(prints[name].audit.blocks.values()) > 0
    assert prints["spo"].audit.loras == prints["beside"].audit.loras


def test_fusing_moves_pixels_by_rounding_alone_and_the_audit_says_so(run):
    found = {one.name: one.audit.fused_against_runtime for one in run.info.variants}
    assert found["base"] is None
    distance = np.abs(pixels(run, "spo") - pixels(run, "beside"))
    assert distance.max() <= 2
    assert np.abs(pixels(run, "spo") - pixels(run, "base")).mean() > 1
    for name in ("spo", "beside"):
        assert found[name].images == 2
        assert found[name].max <= 2
        assert found[name].mean == pytest.approx(distance.mean(), abs=0.02)


RECIPE = """schema = 1
method = "copy"
models = ["mini"]
loras = [{ path = "own.safetensors", weight = 0.5 }]
"""


@pytest.fixture(scope="module")
def of_recipe(suite, tmp_path_factory):
    """The LoRA fused by a recipe, with another LoRA of the variant's own, fused and unfused."""
    place = tmp_path_factory.mktemp("recipe")
    tiny.write_lora(place / "own.safetensors", 1)
    (place / "r.toml").write_text(RECIPE, encoding="utf-8")
    alone = replace(suite.variants[0], name="recipe", checkpoint=str(place / "r.toml"))
    own = replace(alone, name="own", loras=(Lora(path="mini:dpo", weight=2.0),))
    variants = (alone, own, replace(own, name="beside", fuse=False))
    run_stage("render", replace(suite, variants=variants), place / "run", RunOptions(device="cpu"))
    return load_run(place / "run")


def test_a_recipes_loras_are_drawn_beside_the_weights_too(of_recipe, run):
    found = {one.name: one.audit.fused_against_runtime for one in of_recipe.info.variants}
    for name in ("recipe", "own", "beside"):
        assert found[name].images == 2, name
        assert found[name].max <= 2, name
    assert np.array_equal(pixels(of_recipe, "recipe"), pixels(run, "spo")), "and then put back as the recipe has them"
    assert np.abs(pixels(of_recipe, "own") - pixels(of_recipe, "beside")).max() <= 2
    assert np.abs(pixels(of_recipe, "own") - pixels(of_recipe, "recipe")).mean() > 0.5


def test_a_recipes_lora_that_is_lost_would_be_seen(of_recipe, monkeypatch, suite):
    """With the LoRA taken out and not run beside, the pixels differ as they do without it."""
    monkeypatch.setattr("bench.pipeline.switch.attach_loras", lambda *_: None)
    recipe = of_recipe.info.suite.variants[0]
    model, _ = switch_variant(None, recipe, suite.settings, device="cpu", weights_dir=None)
    difference = compare_with_runtime(model, recipe, suite, None)
    assert difference.max > 20


def test_of_a_recipes_lora_only_what_the_recipe_gives_is_run_beside(suite, tmp_path, monkeypatch):
    """The recipe gives the UNet alone; the change of the text encoder was never in the run."""
    lora = tiny.lora_tensors(1)
    module = "text_encoder.text_model.encoder.layers.0.mlp.fc1"
    lora |= {f"{module}.lora_A.weight": np.full((1, 64), 0.5, np.float32)}
    lora |= {f"{module}.lora_B.weight": np.full((256, 1), 0.5, np.float32)}
    save_file(lora, tmp_path / "own.safetensors")
    (tmp_path / "r.toml").write_text(RECIPE, encoding="utf-8")
    recipe = replace(suite.variants[0], unet=str(tmp_path / "r.toml"))
    model, _ = switch_variant(None, recipe, suite.settings, device="cpu", weights_dir=None)
    assert {change.tensor.split(".")[0] for one in fused_by_recipe(model) for change in one.adapter.changes} == {"unet"}
    assert compare_with_runtime(model, recipe, suite, None).max <= 2
    whole = replace(suite.variants[0], checkpoint=str(tmp_path / "r.toml"))
    model, _ = switch_variant(None, whole, suite.settings, device="cpu", weights_dir=None)
    found = {change.tensor.split(".")[0] for one in fused_by_recipe(model) for change in one.adapter.changes}
    assert found == {"unet", "text_encoder"}
    assert compare_with_runtime(model, whole, suite, None).max <= 2


def test_a_recipes_lora_that_can_only_be_fused_is_not_compared(suite, tmp_path):
    lora = tiny.lora_tensors(1)
    module = next(iter(lora)).rpartition(".lora_")[0]
    down, up = lora[f"{module}.lora_A.weight"], lora[f"{module}.lora_B.weight"]
    save_file(
        {f"lora_unet_{module.removeprefix('unet.').replace('.', '_')}.diff": up @ down}, tmp_path / "own.safetensors"
    )
    (tmp_path / "r.toml").write_text(RECIPE, encoding="utf-8")
    recipe = replace(suite.variants[0], checkpoint=str(tmp_path / "r.toml"))
    model, _ = switch_variant(None, recipe, suite.settings, device="cpu", weights_dir=None)
    assert compare_with_runtime(model, recipe, suite, None) is None


def test_an_audit_is_made_once_for_the_same_weights(run, suite, tmp_path):
    import shutil

    folder = shutil.copytree(run.path, tmp_path / "run")
    (folder / next(one.image for one in run.renders if one.variant == "spo")).unlink()
    run_stage("render", run.info.suite, folder, RunOptions(device="cpu"))
    assert load_run(folder).info.variants == run.info.variants
