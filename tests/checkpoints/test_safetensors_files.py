"""Headers and tensors of weight files, against the library's own writer, and files that lie."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from bench.checkpoints.safetensors_files import DTYPES, Stored, first_line, read_header, read_stored, weights_sha256
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
        found = read_stored(header.tensors[name])
        assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(found.float(), tensor.float())


def test_rows(tmp_path: Path) -> None:
    whole = torch.arange(24.0).view(6, 4)
    save_file({"before": torch.zeros(3), "packed": whole}, tmp_path / "x.safetensors")
    stored = read_header(tmp_path / "x.safetensors").tensors["packed"]
    parts = [read_stored(stored.rows(part, 3)) for part in range(3)]
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
    "a precision that torch reads and we do not": ({"a": described("F8_E8M0", (8,))}, bytes(8), None),
    "a key twice": (b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],'
                    b'"data_offsets":[4,8]}}', bytes(8), None),
    "metadata of numbers": ({"__metadata__": {"a": 1}}, b"", None),
    "no JSON": (b"{nonsense", b"", None),
    "deep JSON": (b"[" * 100_000, b"", None),
    "no text": (b"\xff\xfe", b"", None),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_a_header_that_lies(lie: str, tmp_path: Path) -> None:
    header, data, length = LIES[lie]
    path = write(tmp_path / "x.safetensors", header, data, length)
    with pytest.raises(WeightsError, match=r"x\.safetensors: is damaged, cut short, or not a \.safetensors") as caught:
        read_header(path)
    assert (caught.value.exit_code, "\n" in caught.value.message) == (3, False)


def test_a_file_that_shrinks_after_its_header_was_read(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(100)}, path)
    stored = read_header(path).tensors["a"]
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(WeightsError, match="ends before its last tensor"):
        read_stored(stored)
    path.unlink()
    with pytest.raises(WeightsError, match="No such file"):
        read_stored(Stored(path, (1,), "float32", 0, 4))


@pytest.mark.parametrize("kept", [0, 4, 20, -1])
def test_file_that_is_cut_short(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"weight": torch.zeros(3, 4)}, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(WeightsError, match=r"x\.safetensors: is damaged, cut short, or not a \.safetensors") as caught:
        read_header(path)
    assert caught.value.exit_code == 3


def test_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="gone"):
        read_header(tmp_path / "gone.safetensors")


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=200))
def test_bytes_of_any_kind_are_refused_as_damaged(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "x.safetensors"
    path.write_bytes(data)
    with pytest.raises(WeightsError):
        read_header(path)


@pytest.mark.parametrize(("text", "line"), [("one.\ntwo", "one"), ("  one  ", "one"), ("", "ValueError")])
def test_first_line_of_an_error(text: str, line: str) -> None:
    assert first_line(ValueError(text)) == line


def test_a_hash_is_computed_again_once_the_file_is_another(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    for data in (b"one", b"another"):
        path.write_bytes(data)
        assert weights_sha256(path) == weights_sha256(path) == hashlib.sha256(data).hexdigest()


def test_a_file_whose_bytes_are_swapped_and_its_time_put_back_is_hashed_again(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(b"one")
    before = path.stat()
    assert weights_sha256(path) == hashlib.sha256(b"one").hexdigest()
    swap_in_place(path, b"two", before)
    assert weights_sha256(path) == hashlib.sha256(b"two").hexdigest()


def swap_in_place(path: Path, data: bytes, before: os.stat_result) -> None:
    """Other bytes in the same file, its size and time of writing as before; once the clock of files has gone on."""
    while path.stat().st_ctime_ns == before.st_ctime_ns:
        with path.open("r+b") as file:
            file.write(data)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)
