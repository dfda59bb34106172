"""The writer of merged files: safetensors' own bytes, whole or not at all, nothing left behind."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import threading
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from bench.checkpoints.ldm_layout import LdmTensor
from bench.errors import MachineError
from bench.merge import write as writer
from bench.merge.write import replacing, write_tensors

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.int64]
NAMES = st.text("abz._\u00e4\U0001f600", min_size=1, max_size=6)
TENSORS = st.dictionaries(
    NAMES, st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 4), max_size=3)), min_size=1, max_size=6
)


def quiet(stage: str, done: int, total: int, note: str = "") -> None:
    """No progress."""


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def entries_of(tensors: dict[str, torch.Tensor]) -> list[LdmTensor]:
    return [LdmTensor(key, tuple(item.shape), str(item.dtype).split(".")[1]) for key, item in tensors.items()]


def write(path: Path, tensors: dict[str, torch.Tensor], metadata=(), read=None) -> tuple[str, int]:
    with replacing(path) as file:
        get = read or tensors.__getitem__
        return write_tensors(file, path, entries_of(tensors), dict(metadata), lambda entry: get(entry.key), quiet)


def some() -> dict[str, torch.Tensor]:
    return {f"t{index}": torch.arange(6.0).reshape(2, 3) + index for index in range(5)}


@settings(deadline=None)
@given(shapes=TENSORS, texts=st.dictionaries(NAMES, st.text(max_size=5), max_size=1))
def test_the_bytes_are_those_of_safetensors_own_writer(tmp_path_factory, shapes, texts) -> None:
    place = tmp_path_factory.mktemp("files")
    tensors = {name: torch.randint(0, 9, shape).to(dtype) for name, (dtype, shape) in shapes.items()}
    written = write(place / "ours.safetensors", tensors, texts)
    save_file(tensors, place / "theirs.safetensors", texts or None)
    ours = (place / "ours.safetensors").read_bytes()
    assert ours == (place / "theirs.safetensors").read_bytes()
    assert written == (hashlib.sha256(ours).hexdigest(), len(ours))


def test_metadata_is_read_back_and_sorted(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    texts = {"z": '{"a": 1}', "modelspec.title": "Ein Träum\n", "a": ""}
    write(path, some(), texts)
    with safe_open(path, "pt") as file:
        assert file.metadata() == texts
    length = int.from_bytes(path.read_bytes()[:8], "little")
    assert length % 8 == 0
    assert list(json.loads(path.read_bytes()[8 : 8 + length])["__metadata__"]) == sorted(texts)


def test_tensors_of_all_layouts_in_memory_come_back(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    tensors = {"turned": torch.arange(12.0).reshape(3, 4).T, "part": torch.arange(9)[3:6], "none": torch.zeros(0)}
    write(path, tensors)
    found = load_file(path)
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


def test_an_old_file_is_replaced_only_by_a_whole_one(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"old")

    def read(key: str) -> torch.Tensor:
        assert path.read_bytes() == b"old"
        return some()[key]

    write(path, some(), read=read)
    assert load_file(path).keys() == some().keys()
    assert names_in(tmp_path) == ["x.safetensors"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError("no such weight")])
@pytest.mark.parametrize("at", ["t0", "t4"])
def test_whatever_is_raised_while_tensors_are_made_leaves_nothing_behind(tmp_path: Path, error, at) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"old")

    def read(key: str) -> torch.Tensor:
        if key == at:
            raise error
        return some()[key]

    with pytest.raises(error if isinstance(error, type) else type(error)):
        write(path, some(), read=read)
    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == ["x.safetensors"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_disk_that_fills_up_meanwhile_leaves_the_old_file_whole(tmp_path: Path, monkeypatch, number) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"old")
    calls = []

    def write_all(file, data) -> None:
        calls.append(len(data))
        if len(calls) > 3:
            raise OSError(number, os.strerror(number))
        file.write(data)

    monkeypatch.setattr(writer, "_write_all", write_all)
    with pytest.raises(MachineError, match=r"x\.safetensors"):
        write(path, some())
    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == ["x.safetensors"]


def test_too_little_room_is_refused_before_anything_is_computed(tmp_path: Path, monkeypatch) -> None:
    usage = type("Usage", (), {"free": 100})
    monkeypatch.setattr(writer.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(MachineError, match=r"100 B free, and the file takes"):
        write(tmp_path / "x.safetensors", some(), read=lambda key: pytest.fail("read"))
    assert names_in(tmp_path) == []


def test_a_folder_that_may_not_be_written_is_a_machine_error(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="cannot be written"):
        write(tmp_path / "no-such-folder" / "x.safetensors", some())


def test_a_tensor_that_is_not_as_its_entry_says_is_an_internal_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="t0: is"):
        write(tmp_path / "x.safetensors", some(), read=lambda key: some()[key].half())
    assert names_in(tmp_path) == []


def test_a_write_that_takes_only_a_part_goes_on(tmp_path: Path) -> None:
    class Slow:
        def __init__(self) -> None:
            self.data = b""

        def write(self, view) -> int:
            self.data += bytes(view[:3])
            return min(3, len(view))

    slow = Slow()
    writer._write_all(slow, b"0123456789")
    assert slow.data == b"0123456789"


def test_few_tensors_wait_at_a_time(tmp_path: Path) -> None:
    """However slow the disk is, what is begun and not written is those that may wait and those being made."""
    free, made, most = threading.Semaphore(0), [], []
    tensors = {f"t{index}": torch.full((2,), float(index)) for index in range(12)}

    def read(key: str) -> torch.Tensor:
        made.append(key)
        free.release()
        most.append(len(made) - written[0])
        return tensors[key]

    written = [0]
    true_write = writer._write_all

    def slow_write(file, data) -> None:
        if len(data) == 8:
            free.acquire()
            written[0] += 1
        true_write(file, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "_write_all", slow_write)
        write(tmp_path / "x.safetensors", tensors, read=read)
    assert max(most) <= writer.AHEAD + writer.MAKERS
