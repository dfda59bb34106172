"""Headers of weight files: shapes without weights, and LoRAs that cannot be applied."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from bench.errors import WeightsError
from bench.variants.headers import changed_modules, first_line, lora_modules, read_shapes


def write(path: Path, **shapes: tuple[int, ...]) -> Path:
    save_file({name.replace("__", "."): np.zeros(shape, np.float32) for name, shape in shapes.items()}, path)
    return path


def pair(module: str, a: tuple[int, ...], b: tuple[int, ...], sides: tuple[str, str]) -> dict[str, tuple[int, ...]]:
    return {f"{module}.{sides[0]}.weight": a, f"{module}.{sides[1]}.weight": b}


def test_shapes_by_name(tmp_path: Path) -> None:
    path = write(tmp_path / "x.safetensors", a__weight=(3, 4), bias=(5,))
    assert read_shapes(path) == {"a.weight": (3, 4), "bias": (5,)}


@pytest.mark.parametrize("kept", [0, 4, 20, -1])
def test_file_that_is_cut_short(tmp_path: Path, kept: int) -> None:
    path = write(tmp_path / "x.safetensors", weight=(3, 4))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(WeightsError, match=r"x\.safetensors: is damaged, cut short, or no \.safetensors") as caught:
        read_shapes(path)
    assert caught.value.exit_code == 3


def test_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="gone"):
        read_shapes(tmp_path / "gone.safetensors")


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=200))
def test_bytes_of_any_kind_are_refused_as_damaged(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "x.safetensors"
    path.write_bytes(data)
    with pytest.raises(WeightsError):
        read_shapes(path)


@pytest.mark.parametrize("sides", [("lora_A", "lora_B"), ("lora.down", "lora.up")])
@pytest.mark.parametrize("component", ["unet", "text_encoder", "text_encoder_2"])
def test_modules_of_both_spellings(tmp_path: Path, sides: tuple[str, str], component: str) -> None:
    module = f"{component}.block.0.to_q"
    path = write(tmp_path / "x.safetensors", **pair(module, (2, 7), (5, 2), sides))
    assert lora_modules(path) == {module: (5, 7)}


def test_convolution(tmp_path: Path) -> None:
    path = write(tmp_path / "x.safetensors", **pair("unet.conv", (2, 7, 3, 3), (5, 2, 1, 1), ("lora_A", "lora_B")))
    assert changed_modules(path, {"conv.weight": (5, 7, 3, 3)}) == {"unet.conv"}


@pytest.mark.parametrize(
    "key", ["lora_unet_down_blocks_0.lora_down.weight", "unet.to_q.alpha", "unet.to_q.weight", "vae.x.lora_A.weight"]
)
def test_keys_of_another_layout_are_named(tmp_path: Path, key: str) -> None:
    path = write(tmp_path / "x.safetensors", **{key: (2, 2)})
    with pytest.raises(WeightsError, match=f"1 of 1 keys are not in the diffusers/PEFT layout.*{key}"):
        lora_modules(path)


def test_file_without_tensors(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="none at all"):
        lora_modules(write(tmp_path / "x.safetensors"))


@pytest.mark.parametrize(
    "shapes",
    [
        {"unet.q.lora_A.weight": (2, 7)},
        {"unet.q.lora_B.weight": (7, 2)},
        pair("unet.q", (2, 7), (5, 3), ("lora_A", "lora_B")),
        pair("unet.q", (2, 7), (5, 2, 1, 1), ("lora_A", "lora_B")),
        pair("unet.q", (2,), (2,), ("lora_A", "lora_B")),
    ],
    ids=["without B", "without A", "ranks differ", "matrix and convolution", "vectors"],
)
def test_matrices_that_do_not_multiply(tmp_path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(WeightsError, match=r"1 of 1 modules lack one of their two matrices.*unet\.q"):
        lora_modules(write(tmp_path / "x.safetensors", **shapes))


def test_lora_of_another_unet(tmp_path: Path) -> None:
    shapes = {
        module: side
        for name in ("one", "two", "three")
        for module, side in pair(f"unet.{name}", (2, 7), (5, 2), ("lora_A", "lora_B")).items()
    }
    path = write(tmp_path / "x.safetensors", **shapes)
    unet = {"one.weight": (5, 7), "two.weight": (5, 8)}
    with pytest.raises(WeightsError, match=r"2 of 3 modules .* such as unet.three, unet.two") as caught:
        changed_modules(path, unet)
    assert "this family of checkpoints" in caught.value.hint


@pytest.mark.parametrize(("text", "line"), [("one.\ntwo", "one"), ("  one  ", "one"), ("", "ValueError")])
def test_first_line_of_an_error(text: str, line: str) -> None:
    assert first_line(ValueError(text)) == line
