"""The recipe file: what it may say, and how everything else is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.errors import IncomparableError, SuiteError
from bench.merge.recipe import Metadata, read_recipe
from bench.records import Lora

SUM = 'schema = 1\nmethod = "weighted_sum"\nmodels = ["a.safetensors", "b.safetensors"]\nalpha = 0.4\n'
TIES = 'schema = 1\nmethod = "ties"\nmodels = ["a", "b", "c"]\n'
DARE = 'schema = 1\nmethod = "dare"\nmodels = ["a", "b"]\ndrop = 0.9\n'
COPY = 'schema = 1\nmethod = "copy"\nmodels = ["a"]\n'


def read(tmp_path: Path, text: str):
    path = tmp_path / "r.toml"
    path.write_text(text, encoding="utf-8")
    return read_recipe(path)


def test_a_recipe_with_everything(tmp_path: Path) -> None:
    recipe = read(
        tmp_path,
        SUM
        + """\
blocks = { IN00 = 0.2, BASE = 0.3 }
components = ["unet"]
vae = "madebyollin/sdxl-vae-fp16-fix"
dtype = "float16"
loras = [{ path = "spo.safetensors", weight = 0.8, text_encoder = 0, blocks = { M00 = 1 } }]
[metadata]
title = "Mine"
license = "CreativeML Open RAIL++-M"
""",
    )
    assert (recipe.method, recipe.models, recipe.alpha) == ("weighted_sum", ("a.safetensors", "b.safetensors"), 0.4)
    assert recipe.blocks == {"IN00": 0.2, "BASE": 0.3}
    assert recipe.components == ("unet",)
    assert recipe.loras == (Lora(path="spo.safetensors", weight=0.8, text_encoder=0.0, blocks={"M00": 1.0}),)
    assert recipe.metadata == Metadata(title="Mine", license="CreativeML Open RAIL++-M")


def test_what_is_left_out_is_filled_in_and_part_of_the_recipe(tmp_path: Path) -> None:
    ties, dare = read(tmp_path, TIES), read(tmp_path, DARE)
    assert (ties.alpha, ties.density, ties.drop, ties.seed) == (1.0, 0.2, None, None)
    assert (dare.alpha, dare.density, dare.drop, dare.seed) == (1.0, None, 0.9, 0)
    assert read(tmp_path, COPY).alpha is None


BAD = {
    "no TOML": ("schema = ", "is not valid TOML"),
    "doubled": (SUM + "alpha = 0.5\n", "is not valid TOML"),
    "no schema": ('method = "copy"', "schema is missing; recipes have schema = 1"),
    "schema a text": ('schema = "1"', "schema is '1'"),
    "unknown field": (SUM + "alfa = 1\n", r"unknown field alfa \(did you mean 'alpha'\?\); at the top stand"),
    "unknown metadata": (COPY + "[metadata]\ntitel = 'x'\n", r"metadata\.titel \(did you mean 'title'\?\); here stand"),
    "unknown in lora": (COPY + 'loras = [{ path = "x", wieght = 1 }]', r"loras\[0\]\.wieght \(did you mean 'weight'"),
    "method": (SUM.replace("weighted_sum", "weighed_sum"), r"method is 'weighed_sum' \(did you mean 'weighted_sum'"),
    "dtype": (SUM + 'dtype = "fp16"\n', "dtype is 'fp16'.* allowed are float32, float16, bfloat16"),
    "component": (SUM + 'components = ["unet", "text"]', r"components\[1\] is 'text'.*allowed are unet, text_encoder"),
    "component twice": (SUM + 'components = ["unet", "unet"]', "names 'unet' twice"),
    "components empty": (SUM + "components = []", "components is empty; leave it out"),
    "weights empty": (TIES + "weights = []", "weights is empty"),
    "type": (SUM.replace("0.4", '"0.4"'), "alpha: expected .*float.*, got .*str"),
    "one model": (SUM.replace(', "b.safetensors"', ""), r"models names 1; the method weighted_sum .* takes 2\."),
    "two models": (SUM.replace("weighted_sum", "add_difference"), r"takes 3\."),
    "ties of one": (TIES.replace(', "b", "c"', ""), "takes 2 or more"),
    "no alpha": (SUM.replace("alpha = 0.4\n", ""), "alpha is missing; weighted_sum is A"),
    "no drop": (DARE.replace("drop = 0.9\n", ""), "drop is missing"),
    "not of the method": (SUM + "density = 0.2\n", "weighted_sum .* has no density; it goes with ties"),
    "copy with alpha": (COPY + "alpha = 0.2\n", "copy .* has no alpha"),
    "NaN": (SUM.replace("0.4", "nan"), "alpha is nan; allowed is 0 to 1"),
    "above 1": (SUM.replace("0.4", "1.01"), "alpha is 1.01; allowed is 0 to 1"),
    "infinite": (TIES + "alpha = inf\n", "alpha is inf"),
    "block NaN": (SUM + "blocks = { M00 = nan }", r"blocks\.M00 is nan"),
    "density 0": (TIES + "density = 0\n", "density is 0, which keeps nothing"),
    "density 2": (TIES + "density = 2\n", "density is 2.0; allowed is 0 to 1"),
    "drop 1": (DARE.replace("0.9", "1.0"), "drop is 1, which keeps nothing"),
    "seed": (DARE + "seed = -1\n", "seed is -1"),
    "weights of another count": (TIES + "weights = [1.0]\n", "weights names 1; there are 2 models after the first"),
    "weights all 0": (TIES + "weights = [0.0, 0.0]\n", "weights are all 0"),
    "weight NaN": (TIES + "weights = [nan, 1.0]\n", r"weights\[0\] is nan"),
    "lora NaN": (
        COPY + 'loras = [{ path = "x", weight = nan }]',
        r"loras\[0\]\.weight is nan; it must be a number from -1000 to 1000",
    ),
    "lora inf": (COPY + 'loras = [{ path = "x", unet = -inf }]', r"loras\[0\]\.unet is -inf"),
    "left out of a lora": (
        COPY + 'loras = [{ path = "x", leave_out = ["bundle_embs"] }]',
        r"loras\[0\]\.leave_out\[0\] is 'bundle_embs' \(did you mean 'bundle_emb'\?\); allowed are bundle_emb",
    ),
    "lora block": (COPY + 'loras = [{ path = "x", blocks = { M00 = nan } }]', r"loras\[0\]\.blocks\.M00 is nan"),
    "empty model": (SUM.replace("b.safetensors", " "), r"models\[1\] is empty"),
    "zero byte": (SUM.replace("b.safetensors", "b\\u0000"), r"models\[1\] is empty or holds a zero byte"),
    "vae twice": (SUM + 'vae = "x"\ncomponents = ["unet", "vae"]\n', "vae names where the VAE is taken from"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_recipes(tmp_path: Path, name: str) -> None:
    text, said = BAD[name]
    with pytest.raises(SuiteError, match=said) as caught:
        read(tmp_path, text)
    assert "r.toml" in caught.value.message
    assert caught.value.exit_code == 2


def test_a_newer_schema_is_not_guessed_at(tmp_path: Path) -> None:
    with pytest.raises(IncomparableError, match="recipes of schema 1 only"):
        read(tmp_path, SUM.replace("schema = 1", "schema = 2"))


def test_a_recipe_that_is_not_there_and_one_that_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="no such file"):
        read_recipe(tmp_path / "gone.toml")
    (tmp_path / "r.toml").write_bytes(b"\x00\x01")
    with pytest.raises(SuiteError, match="zero bytes"):
        read_recipe(tmp_path / "r.toml")
