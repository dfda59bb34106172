"""Weight files read by our own reader, against the safetensors library, and files that lie."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from bench.checkpoints.safetensors_files import DTYPES, Stored, read_header, read_stored
from bench.errors import WeightsError

KINDS = [getattr(torch, name) for name, _ in DTYPES.values()]


def write(path: Path, header: Any, data: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def described(kind: str = "F32", shape: object = (2,), offsets: object = (0, 8)) -> dict[str, object]:
    return {"dtype": kind, "shape": shape, "data_offsets": offsets}


@settings(max_examples=60, deadline=None)
@given(
    shapes=st.lists(st.lists(st.integers(0, 4), max_size=4), max_size=5),
    kinds=st.lists(st.sampled_from(KINDS), min_size=5, max_size=5),
    metadata=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2),
)
def test_as_the_library_wrote_it(
    tmp_path_factory: pytest.TempPathFactory,
    shapes: list[list[int]],
    kinds: list[torch.dtype],
    metadata: dict[str, str],
) -> None:
    path = tmp_path_factory.mktemp("any") / "x.safetensors"
    tensors = {
        f"t{row}": torch.randint(0, 2, shape).to(kind)
        for row, (shape, kind) in enumerate(zip(shapes, kinds, strict=False))
    }
    save_file(tensors, path, metadata or None)
    header = read_header(path)
    assert header.metadata == metadata
    assert set(header.tensors) == set(tensors)
    for name, tensor in tensors.items():
        found = read_stored(path, header.tensors[name])
        assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(found.float(), tensor.float())


def test_rows(tmp_path: Path) -> None:
    whole = torch.arange(24.0).view(6, 4)
    save_file({"before": torch.zeros(3), "packed": whole}, tmp_path / "x.safetensors")
    stored = read_header(tmp_path / "x.safetensors").tensors["packed"]
    parts = [read_stored(tmp_path / "x.safetensors", stored.rows(part, 3)) for part in range(3)]
    assert all(torch.equal(part, whole[2 * row : 2 * row + 2]) for row, part in enumerate(parts))


LIES = {
    "nothing": (b"", b"", None),
    "no object": ([], b"", None),
    "a length of 2^60": ({}, b"", 2**60),
    "a length of 2^64-1": ({}, b"", 2**64 - 1),
    "a length past the end": ({}, b"", 3),
    "a tensor past the end": ({"a": described()}, bytes(4), None),
    "bytes after the last tensor": ({"a": described()}, bytes(12), None),
    "a shape that is larger": ({"a": described(shape=(3,))}, bytes(8), None),
    "a shape beyond all counting": ({"a": described(shape=(2**62, 2**62))}, bytes(8), None),
    "a negative length": ({"a": described(shape=(-1, -2))}, bytes(8), None),
    "offsets the wrong way round": ({"a": described(shape=(0,), offsets=(8, 0))}, bytes(8), None),
    "a true number": ({"a": described(shape=(True, 2))}, bytes(8), None),
    "two that lie on each other": ({"a": described(), "b": described()}, bytes(8), None),
    "a hole": ({"a": described(), "b": described(offsets=(12, 20))}, bytes(20), None),
    "an unknown precision": ({"a": described("Q4")}, bytes(8), None),
    "a key twice": (b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],'
                    b'"data_offsets":[4,8]}}', bytes(8), None),
    "metadata of numbers": ({"__metadata__": {"a": 1}}, b"", None),
    "no JSON": (b"{nonsense", b"", None),
    "deep JSON": (b"[" * 100_000, b"", None),
    "no text": (b"\xff\xfe", b"", None),
}  # fmt: skip


@pytest.mark.parametrize("prompt_id", LIES)
def test_a_header_that_lies(prompt_id: str, tmp_path: Path) -> None:
    header, data, length = LIES[prompt_id]
    path = write(tmp_path / "x.safetensors", header, data, length)
    with pytest.raises(WeightsError, match=r"x\.safetensors: is damaged, cut short, or no \.safetensors") as caught:
        read_header(path)
    assert (caught.value.exit_code, "\n" in caught.value.message) == (3, False)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_whatever_the_library_refuses_is_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("any") / "x.safetensors"
    save_file({"a": torch.zeros(2, 3), "b": torch.zeros(4, dtype=torch.float16)}, path, {"k": "v"})
    damage = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        damage[data.draw(st.integers(0, len(damage) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(damage[: data.draw(st.integers(len(damage) - 2, len(damage)))])
    try:
        with safe_open(path, "pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError):
        with pytest.raises(WeightsError):
            read_header(path)
        return
    try:
        found = read_header(path)
    except WeightsError:  # ours is the stricter reader
        return
    assert {name: stored.shape for name, stored in found.tensors.items()} == shapes


def test_a_file_that_shrinks_after_its_header_was_read(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(100)}, path)
    stored = read_header(path).tensors["a"]
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(WeightsError, match="ends before its last tensor"):
        read_stored(path, stored)
    path.unlink()
    with pytest.raises(WeightsError, match="No such file"):
        read_stored(path, Stored((1,), "float32", 0, 4))
