"""Half a file, a web page or a pointer in place of weights: never the one whose hash is trusted ever after."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from msgspec.structs import replace
from safetensors.torch import save

from bench.errors import WeightsError
from bench.published_files import Entry, File, check_file
from bench.weights_lock import read_lock

LOOSE = Entry(
    name="loose", what="Unpinned", host="hub", repository="hub/loose", files=(File(name="w.pt", about_bytes=7),)
)


@pytest.fixture(autouse=True)
def own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOTART_WEIGHTS_LOCK", str(tmp_path / "lock.json"))


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt", "config.json"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1],
        lambda data: b"<!DOCTYPE html><html>Log in to download</html>",
        lambda data: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4071\n",
    ],
    ids=["empty", "half", "a byte short", "web page", "git-lfs pointer"],
)
def test_a_damaged_file_is_never_the_one_that_is_recorded(
    tmp_path: Path, name: str, damage: Callable[[bytes], bytes]
) -> None:
    whole = io.BytesIO()
    torch.save({"a": torch.zeros(300)}, whole)
    data = {"w.safetensors": save({"a": torch.zeros(300)}), "w.pt": whole.getvalue(), "config.json": b'{"a": 1}'}[name]
    entry = replace(LOOSE, files=(File(name=name, about_bytes=7),))
    path = tmp_path / name
    path.write_bytes(damage(data))
    with pytest.raises(WeightsError, match=rf"is not a whole \{path.suffix} file") as refused:
        check_file(entry, entry.files[0], path)
    assert refused.value.hint == f"rm {path}, and the same command again"
    path.write_bytes(data)
    check_file(entry, entry.files[0], path)
    assert read_lock().files[f"hub/loose@unpinned/{name}"].sha256 == hashlib.sha256(data).hexdigest()


def test_of_a_damaged_file_in_the_cache_the_link_and_what_it_links_to_have_to_go(tmp_path: Path) -> None:
    blob = tmp_path / "0a1b"
    blob.write_bytes(b"half")
    link = tmp_path / "w.pt"
    link.symlink_to(blob)
    with pytest.raises(WeightsError) as refused:
        check_file(LOOSE, LOOSE.files[0], link)
    assert refused.value.hint == f"rm {link} {blob}, and the same command again"
