"""What rendering writes into run.json of the weights, and how far fusing LoRAs moves pixels."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
import tiny
from PIL import Image
from safetensors.numpy import save_file

from bench.pipeline.switch import fused_by_recipe, switch_variant
from bench.records import Lora, PixelDifference, RunOptions
from bench.render.unfused import compare_unfused, with_pixel_difference
from bench.report.audits import describe, unfused
from bench.run import run_stage
from bench.store import load_run
from bench.suite import load_suite, protocol_digest

replace = msgspec.structs.replace
DIFFERENCE = PixelDifference(prompt_id="a", mean=0.1, max=1, changed=0.1)


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    return load_suite(str(tiny.write_tiny(tmp_path_factory.mktemp("suite"))))


@pytest.fixture(scope="module")
def run(suite, tmp_path_factory):
    """Base, a LoRA fused, and the same LoRA unfused."""
    _, fused = suite.variants
    variants = (*suite.variants, replace(fused, name="unfused", fuse=False))
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
        "unfused": "unfused",
    }
    assert prints["base"].audit.loras == ()
    for name in ("spo", "unfused"):
        (lora,) = prints[name].audit.loras
        assert lora.keys == sum(lora.applied.values()) == 2 * len(lora.modules)
        assert min(prints[name].audit.blocks.values()) > 0
    assert prints["spo"].audit.loras == prints["unfused"].audit.loras


def test_equal_weights_draw_equal_pixels_and_what_their_folder_wishes_is_named(run, suite, mini_copy, tmp_path):
    scheduler, index = mini_copy / "scheduler" / "scheduler_config.json", mini_copy / "model_index.json"
    edit(scheduler, _class_name="EulerDiscreteScheduler", clip_sample=True, timestep_spacing="trailing")
    edit(index, force_zeros_for_empty_prompt=False)
    base = replace(suite.variants[0], checkpoint=str(mini_copy))
    other = replace(suite, variants=(base,))
    run_stage("render", other, tmp_path / "run", RunOptions(device="cpu"))
    found = load_run(tmp_path / "run")
    assert np.array_equal(pixels(found, "base"), pixels(run, "base"))
    aside = 'clip_sample = true, timestep_spacing = "trailing" and force_zeros_for_empty_prompt = false'
    (note,) = found.info.settings_notes
    assert note.startswith(f"Variant base: {aside} of the checkpoint's saved pipeline left aside")
    (audit,) = [one.audit for one in found.info.variants]
    assert f"left aside: {aside}" in describe(audit.checkpoint)
    assert run.info.variants[0].audit.checkpoint.left_aside == ()


def edit(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | fields), "utf-8")


def test_fusing_moves_pixels_by_rounding_alone_and_the_audit_says_so(run):
    found = {one.name: one.audit.fused_against_unfused for one in run.info.variants}
    distance = np.abs(pixels(run, "spo") - pixels(run, "unfused"))
    assert distance.max() <= 2
    assert np.abs(pixels(run, "spo") - pixels(run, "base")).mean() > 1
    assert found["spo"].prompt_id == run.info.suite.prompts[0].id
    assert found["spo"].max <= 2
    assert found["spo"].mean == pytest.approx(distance.mean(), abs=0.02)


def test_fused_and_unfused_are_compared_once_a_lora_file(run, monkeypatch, suite):
    assert [one.name for one in run.info.variants if one.audit.fused_against_unfused is not None] == ["spo"]
    base, spo = suite.variants
    dpo = Lora(path="mini:dpo")
    variants = (base, spo, replace(spo, name="weak", loras=(replace(spo.loras[0], weight=0.1),)))
    variants += (replace(spo, name="both", loras=(*spo.loras, dpo)), replace(spo, name="dpo", loras=(dpo,)))
    monkeypatch.setattr("bench.render.unfused.compare_unfused", lambda model, variant, suite: DIFFERENCE)
    audit = next(one.audit for one in run.info.variants if one.name == "base")
    asked = replace(suite, variants=variants)
    found = {one.name: with_pixel_difference(None, one, asked, audit).fused_against_unfused for one in variants[1:]}
    assert found == {"spo": DIFFERENCE, "weak": None, "both": DIFFERENCE, "dpo": None}


def test_a_suite_may_leave_the_comparison_out_and_its_protocol_and_images_stay_the_same(
    run, suite, tmp_path, monkeypatch
):
    path = tiny.write_tiny(tmp_path, "samples", "compare_unfused = false\nsamples")
    without = load_suite(str(path))
    assert not without.compare_unfused
    assert protocol_digest(without) == protocol_digest(suite)
    monkeypatch.setattr("bench.render.unfused.compare_unfused", None)
    run_stage("render", without, tmp_path / "run", RunOptions(device="cpu"))
    found = load_run(tmp_path / "run")
    assert [one.audit.fused_against_unfused for one in found.info.variants] == [None, None]
    assert {one.sha256 for one in found.renders} == {one.sha256 for one in run.renders if one.variant != "unfused"}
    said = {one.name: unfused(found, one.audit) for one in found.info.variants if one.audit is not None}
    assert said == {"base": "", "spo": "Fused and unfused LoRAs were not compared (compare_unfused = false)."}


def test_the_report_says_which_image_was_compared(run):
    said = {one.name: unfused(run, one.audit) for one in run.info.variants if one.audit is not None}
    assert said["base"] == said["unfused"] == ""
    assert said["spo"].startswith(
        f"Fused against unfused LoRAs, first image of prompt {run.info.suite.prompts[0].id}: pixels differ by "
    )


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
    variants = (alone, own, replace(own, name="unfused", fuse=False))
    run_stage("render", replace(suite, variants=variants), place / "run", RunOptions(device="cpu"))
    return load_run(place / "run")


def test_a_recipes_loras_are_drawn_unfused_too(of_recipe, run, suite):
    found = {one.name: one.audit.fused_against_unfused for one in of_recipe.info.variants}
    assert found["unfused"] is None, "its LoRAs are those of the variants before"
    unfused = of_recipe.info.suite.variants[2]
    model, _ = switch_variant(None, unfused, suite.settings, device="cpu", weights_dir=None)
    found["unfused"] = compare_unfused(model, unfused, suite)
    for name in ("recipe", "own", "unfused"):
        assert found[name].max <= 2, name
    assert np.array_equal(pixels(of_recipe, "recipe"), pixels(run, "spo")), "and then put back as the recipe has them"
    assert np.abs(pixels(of_recipe, "own") - pixels(of_recipe, "unfused")).max() <= 2
    assert np.abs(pixels(of_recipe, "own") - pixels(of_recipe, "recipe")).mean() > 0.5


def test_a_recipes_lora_that_is_lost_would_be_seen(of_recipe, monkeypatch, suite):
    """With the LoRA taken out and not run unfused, the pixels differ as they do without it."""
    monkeypatch.setattr("bench.pipeline.switch.attach", lambda *_: SimpleNamespace(remove=lambda: None))
    recipe = of_recipe.info.suite.variants[0]
    model, _ = switch_variant(None, recipe, suite.settings, device="cpu", weights_dir=None)
    difference = compare_unfused(model, recipe, suite)
    assert difference.max > 20


def components_of(loras):
    return {change.tensor.split(".")[0] for _, adapter in loras for change in adapter.changes}


def test_of_a_recipes_lora_only_what_the_recipe_gives_runs_unfused(suite, tmp_path, monkeypatch):
    """The recipe gives the UNet alone; the change of the text encoder was never in the run."""
    lora = tiny.lora_tensors(1)
    module = "text_encoder.text_model.encoder.layers.0.mlp.fc1"
    lora |= {f"{module}.lora_A.weight": np.full((1, 64), 0.5, np.float32)}
    lora |= {f"{module}.lora_B.weight": np.full((256, 1), 0.5, np.float32)}
    save_file(lora, tmp_path / "own.safetensors")
    (tmp_path / "r.toml").write_text(RECIPE, encoding="utf-8")
    recipe = replace(suite.variants[0], unet=str(tmp_path / "r.toml"))
    model, _ = switch_variant(None, recipe, suite.settings, device="cpu", weights_dir=None)
    assert {change.tensor.split(".")[0] for _, adapter in fused_by_recipe(model) for change in adapter.changes} == {
        "unet"
    }
    assert compare_unfused(model, recipe, suite).max <= 2
    whole = replace(suite.variants[0], checkpoint=str(tmp_path / "r.toml"))
    model, _ = switch_variant(None, whole, suite.settings, device="cpu", weights_dir=None)
    assert components_of(fused_by_recipe(model)) == {"unet", "text_encoder"}
    assert compare_unfused(model, whole, suite).max <= 2


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
    assert compare_unfused(model, recipe, suite) is None


def test_an_audit_is_made_once_for_the_same_weights(run, suite, tmp_path):
    folder = shutil.copytree(run.path, tmp_path / "run")
    (folder / next(one.image for one in run.renders if one.variant == "spo")).unlink()
    run_stage("render", run.info.suite, folder, RunOptions(device="cpu"))
    assert load_run(folder).info.variants == run.info.variants
