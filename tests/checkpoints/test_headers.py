"""Headers of weight files: shapes without weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from bench.checkpoints.safetensors_files import first_line, read_shapes
from bench.errors import WeightsError


def write(path: Path, **shapes: tuple[int, ...]) -> Path:
    save_file({name.replace("__", "."): np.zeros(shape, np.float32) for name, shape in shapes.items()}, path)
    return path


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


@pytest.mark.parametrize(("text", "line"), [("one.\ntwo", "one"), ("  one  ", "one"), ("", "ValueError")])
def test_first_line_of_an_error(text: str, line: str) -> None:
    assert first_line(ValueError(text)) == line
