"""A recipe as a checkpoint: what each tensor is made of, the identities, and models that do not go together."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from fake_checkpoints import SDXL, SHAPES, Fake, fake

from bench.errors import SuiteError, WeightsError
from bench.merge.compute import finite
from bench.merge.merged import Merged
from bench.merge.recipe import Recipe

PATH = Path("r.toml")
IN_BLOCK = "unet.down_blocks.0.resnets.1.conv1.weight"  # IN02 of two levels of two layers
VAE = "vae.decoder.conv_in.weight"


def recipe(method: str = "weighted_sum", **fields) -> Recipe:
    count = {"add_difference": 3, "copy": 1}.get(method, 2)
    return Recipe(**{"schema": 1, "method": method, "models": ("m",) * count, "alpha": 0.3, **fields})


def merged(asked: Recipe, *models: Fake, **fields) -> Merged:
    return Merged(PATH, asked, models, **fields)


def float64(tensor: torch.Tensor) -> np.ndarray:
    return tensor.numpy().astype(np.float64)


# --- what a tensor is made of --------------------------------------------------------------


def test_merged_components_are_float32_and_the_vae_is_the_first_models() -> None:
    a, b = fake(1), fake(2)
    result = merged(recipe(), a, b)
    for name in SHAPES:
        tensor = result.read(name)
        if name == VAE:
            assert torch.equal(tensor, a.held[name])
            continue
        assert tensor.dtype == torch.float32
        expected = 0.7 * float64(a.held[name]) + 0.3 * float64(b.held[name])
        np.testing.assert_allclose(tensor, expected, atol=1e-6)
    assert VAE not in b.reads


@pytest.mark.parametrize("method", ["weighted_sum", "add_difference", "slerp", "ties", "dare"])
def test_a_weight_of_0_is_the_first_model_bit_for_bit(method: str) -> None:
    fields = {"ties": {"density": 0.5}, "dare": {"drop": 0.5, "seed": 3}}.get(method, {})
    a = fake(1)
    a.held["unet.conv_in.bias"][0] = -0.0
    others = [fake(seed) for seed in range(2, 4 if method == "add_difference" else 3)]
    result = merged(recipe(method, alpha=0.0, **fields), a, *others)
    for name, tensor in a.held.items():
        assert result.read(name).to(tensor.dtype).numpy().tobytes() == tensor.numpy().tobytes()
    assert not any(other.reads for other in others)


@pytest.mark.parametrize("method", ["weighted_sum", "slerp"])
def test_a_weight_of_1_is_the_second_model(method: str) -> None:
    a, b = fake(1), fake(2)
    result = merged(recipe(method, alpha=1.0), a, b)
    assert all(torch.equal(result.read(name), b.held[name].float()) for name in SHAPES if name != VAE)
    assert torch.equal(result.read(VAE), a.held[VAE])


def test_a_difference_of_equal_models_is_nothing() -> None:
    a, b = fake(1), fake(2)
    result = merged(recipe("add_difference", alpha=0.9), a, b, fake(2))
    assert all(torch.equal(result.read(name).to(torch.float16), a.held[name]) for name in SHAPES)


def test_reading_changes_no_model() -> None:
    models = [fake(seed, dtype=torch.float32) for seed in (1, 2, 3)]
    kept = [{name: tensor.clone() for name, tensor in model.held.items()} for model in models]
    for model in models:
        model.read = model.held.__getitem__  # type: ignore[method-assign]  # hands out its own memory
    result = merged(recipe("add_difference"), *models)
    for name in SHAPES:
        result.read(name)
    for model, before in zip(models, kept, strict=True):
        assert all(torch.equal(model.held[name], before[name]) for name in SHAPES)


def test_blocks_have_numbers_of_their_own_and_text_encoders_the_common_one() -> None:
    a, b = fake(1), fake(2)
    result = merged(recipe(alpha=0.0, blocks={"IN02": 1.0, "BASE": 0.5}), a, b)
    assert torch.equal(result.read(IN_BLOCK), b.held[IN_BLOCK].float())
    mean = (a.held["unet.conv_out.weight"].double() + b.held["unet.conv_out.weight"].double()) / 2
    assert torch.allclose(result.read("unet.conv_out.weight").double(), mean, atol=1e-7)
    for name in ("unet.conv_in.weight", "unet.mid_block.resnets.0.conv1.weight", *result.tensors):
        if not name.startswith("unet.") or name == "unet.conv_in.weight":
            assert torch.equal(result.read(name), a.held[name].to(result.read(name).dtype)), name


def test_components_that_are_not_named_are_the_first_models() -> None:
    a, b = fake(1), fake(2, only=["unet"])
    result = merged(recipe(components=("unet",)), a, b)
    for name in SHAPES:
        assert torch.equal(result.read(name), a.held[name].to(result.read(name).dtype)) != name.startswith("unet.")


def test_a_vae_is_averaged_only_where_it_is_named() -> None:
    a, b = fake(1), fake(2)
    result = merged(recipe(components=("vae",), alpha=0.5), a, b)
    mean = (a.held[VAE].float() + b.held[VAE].float()) / 2
    assert torch.allclose(result.read(VAE), mean, atol=1e-6)
    assert torch.equal(result.read("unet.conv_in.bias"), a.held["unet.conv_in.bias"])


def test_a_vae_is_taken_whole_from_its_source() -> None:
    a, b, vae = fake(1), fake(2), fake(3, only=["vae"], dtype=torch.float32, config=Path("vae-config"))
    result = merged(recipe(), a, b, vae=vae)
    assert torch.equal(result.read(VAE), vae.held[VAE])
    assert result.tensors[VAE].dtype == "float32"
    assert result.other_configs == {"vae": Path("vae-config/vae")}
    assert result.facts.dtypes["vae"] == "float32"
    assert result.facts.dtypes["unet"] == "float16"


def test_ties_and_dare_weigh_each_model() -> None:
    base, b, c = (fake(seed) for seed in (1, 2, 3))
    models = ("m",) * 3
    ties = merged(recipe("ties", models=models, density=1.0, alpha=1.0, weights=(1.0, 0.0)), base, b, c)
    assert torch.allclose(ties.read(IN_BLOCK), b.held[IN_BLOCK].float(), atol=1e-5)
    dare = merged(recipe("dare", models=models, drop=0.0, seed=0, alpha=0.5, weights=(1.0, 2.0)), base, b, c)
    x, y, z = (float64(model.held[IN_BLOCK]) for model in (base, b, c))
    np.testing.assert_allclose(dare.read(IN_BLOCK), x + 0.5 * ((y - x) + 2 * (z - x)), atol=1e-5)


def test_dare_draws_by_seed_model_and_tensor_in_whatever_order_they_are_read() -> None:
    def result(seed: int) -> Merged:
        return merged(recipe("dare", drop=0.5, seed=seed, alpha=1.0), fake(1), fake(2))

    one, other = result(0), result(0)
    backwards = {name: other.read(name) for name in reversed(SHAPES)}
    assert all(torch.equal(one.read(name), backwards[name]) for name in SHAPES)
    assert not torch.equal(result(1).read(IN_BLOCK), one.read(IN_BLOCK))
    base, changed = fake(1).held[IN_BLOCK].float(), one.read(IN_BLOCK)
    assert 0.35 < float((changed == base).float().mean()) < 0.65


def test_a_recipe_within_a_recipe_is_not_rounded_in_between() -> None:
    a, b, c = (fake(seed) for seed in (1, 2, 3))
    inner = merged(recipe(dtype="float16"), a, b)
    outer = merged(recipe(alpha=0.5, dtype="float16"), inner, c)  # type: ignore[arg-type]
    x, y, z = (float64(model.held[IN_BLOCK]) for model in (a, b, c))
    np.testing.assert_allclose(outer.read(IN_BLOCK), 0.5 * (0.7 * x + 0.3 * y) + 0.5 * z, rtol=0, atol=3e-7)


def test_the_precision_is_the_first_models_unless_the_recipe_names_one() -> None:
    a, b = fake(1), fake(2, dtype=torch.float32)
    a.held[VAE] = a.held[VAE].float()
    kept = merged(recipe(), a, b)
    assert (kept.facts.dtypes["unet"], kept.facts.dtypes["vae"]) == ("float16", "float32")
    asked = merged(recipe(dtype="bfloat16"), a, b)
    assert set(asked.facts.dtypes.values()) == {"bfloat16"}
    assert asked.facts.layout == "recipe"


def test_files_and_identity_tell_recipes_apart_and_do_not_depend_on_names() -> None:
    files = [(("checkpoint", Path(f"/{name}")),) for name in "ab"]
    a, b = fake(1, files=files[0]), fake(2, files=files[1])
    one = merged(recipe(), a, b)
    assert one.files == (*files[0], *files[1])
    others = [
        recipe(alpha=0.31),
        recipe("slerp"),
        recipe(blocks={"M00": 0.1}),
        recipe(components=("unet",)),
        recipe(models=("m", "m")),
    ]
    identities = {merged(other, a, b).identity for other in others[:-1]} | {one.identity}
    assert len(identities) == len(others)
    renamed = msgspec.structs.replace(recipe(), models=("x", "y"), dtype="float16")
    assert merged(renamed, a, b).identity == one.identity
    assert merged(recipe(), a, b, vae=fake(3, only=["vae"])).identity != one.identity


# --- what is refused ------------------------------------------------------------------------


def test_models_that_do_not_go_together_are_refused_with_all_that_differs() -> None:
    other = msgspec.structs.replace(SDXL, family="sd15", prediction="v_prediction", inpainting=True)
    with pytest.raises(WeightsError) as caught:
        merged(recipe(), fake(1, "a.safetensors"), fake(2, "b.safetensors", facts=other))
    said = caught.value.message
    assert "family is sdxl (a.safetensors), sd15 (b.safetensors)" in said
    assert "prediction is epsilon (a.safetensors), v_prediction (b.safetensors)" in said
    assert "inpainting is False (a.safetensors), True (b.safetensors)" in said
    assert caught.value.exit_code == 3


def test_all_three_models_of_a_difference_must_go_together() -> None:
    v = msgspec.structs.replace(SDXL, prediction="v_prediction", zero_terminal_snr=True)
    with pytest.raises(WeightsError, match=r"prediction is .*; zero_terminal_snr is .*"):
        merged(recipe("add_difference"), fake(1, facts=v), fake(2), fake(3))


def test_a_vae_alone_tells_neither_family_nor_inpainting() -> None:
    facts = msgspec.structs.replace(SDXL, family="sd15", inpainting=True)
    alone = fake(2, "vae.safetensors", only=["vae"])
    found = merged(recipe(components=("vae",), alpha=0.5), fake(1, facts=facts), alone)
    name = "vae.decoder.conv_in.weight"
    expected = 0.5 * float64(fake(1).held[name]) + 0.5 * float64(alone.held[name])
    np.testing.assert_allclose(float64(found.read(name)), expected, atol=1e-6)


def test_a_lone_unet_asks_for_components() -> None:
    with pytest.raises(WeightsError, match="model-2 has no text_encoder, text_encoder_2, and the recipe") as caught:
        merged(recipe(), fake(1), fake(2, only=["unet"]))
    assert 'components = ["unet"]' in caught.value.hint


def test_sd15_has_one_text_encoder() -> None:
    facts = msgspec.structs.replace(SDXL, family="sd15")
    only = ["unet", "text_encoder.", "vae"]
    result = merged(recipe(), fake(1, facts=facts, only=only), fake(2, facts=facts, only=only))
    assert result.read("text_encoder.text_model.final_layer_norm.weight").dtype == torch.float32
    with pytest.raises(WeightsError, match="has no text_encoder_2"):
        merged(recipe(components=("text_encoder_2",)), fake(1, facts=facts, only=only), fake(2, facts=facts, only=only))


def test_other_tensors_and_other_shapes_are_refused_at_once() -> None:
    a, b = fake(1), fake(2)
    b.held["unet.time_embedding.cond_proj.weight"] = torch.zeros(2)
    del b.held["unet.conv_in.bias"]
    b.held["unet.conv_in.weight"] = torch.zeros(8, 9, 3, 3)
    with pytest.raises(WeightsError) as caught:
        merged(recipe(), a, b)
    said = caught.value.message
    assert "1 tensors that model-2 lacks, such as unet.conv_in.bias" in said
    assert "1 tensors that model-1 lacks, such as unet.time_embedding.cond_proj.weight" in said
    assert "unet.conv_in.weight [8, 4, 3, 3] and [8, 9, 3, 3]" in said


def test_blocks_that_the_unet_does_not_have() -> None:
    with pytest.raises(SuiteError, match=r"r\.toml: blocks: 'IN9' is not a block of this UNet"):
        merged(recipe(blocks={"IN9": 0.1}), fake(1), fake(2))


@pytest.mark.parametrize("method", ["weighted_sum", "slerp", "ties", "dare"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_counted_and_named(method: str, value: float) -> None:
    fields = {"ties": {"density": 0.5}, "dare": {"drop": 0.5, "seed": 0}}.get(method, {})
    a, b = fake(1), fake(2, "bad.safetensors")
    b.held[IN_BLOCK].view(-1)[:3] = value
    result = merged(recipe(method, **fields), a, b)
    with pytest.raises(WeightsError, match=rf"bad\.safetensors: {IN_BLOCK} holds 3 values of 576 that are not finite"):
        result.read(IN_BLOCK)
    result.read("unet.conv_in.bias")


def test_what_is_only_copied_is_looked_at_too_and_so_is_the_result() -> None:
    a, b = fake(1, dtype=torch.float32), fake(2, dtype=torch.float32)
    a.held[VAE][0] = float("nan")
    with pytest.raises(WeightsError, match="model-1: vae"):
        merged(recipe(), a, b).read(VAE)
    a.held[IN_BLOCK][0], b.held[IN_BLOCK][0] = 3e38, -3e38
    c = fake(3, dtype=torch.float32)
    with pytest.raises(WeightsError, match=r"r\.toml: unet\.down_blocks"):
        merged(recipe("add_difference", alpha=1.0), c, a, b).read(IN_BLOCK)


def test_finite_values_may_have_an_infinite_sum() -> None:
    big = torch.full((4,), 60_000.0, dtype=torch.float16)
    assert finite(big, "x", "y") is big
    assert finite(torch.zeros(0), "x", "y").numel() == 0
    assert finite(torch.arange(3), "x", "y").dtype == torch.int64


def test_opening_a_recipe_imports_no_torch() -> None:
    code = "import sys, bench.merge.load; print(sorted({'torch', 'diffusers'} & set(sys.modules)))"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
