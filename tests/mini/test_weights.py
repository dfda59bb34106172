"""The shipped weights: what the manifest says of them, and what happens where it is not true."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.errors import WeightsError
from bench.mini import weights

LIMIT_BYTES = 40 * 2**20


@pytest.fixture
def damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the shipped weights, in force until the test ends; what was checked before is forgotten."""
    folder = Path(shutil.copytree(weights.FOLDER, tmp_path / "weights"))
    monkeypatch.setattr(weights, "FOLDER", folder)
    forget()
    yield folder
    monkeypatch.undo()
    forget()


def forget() -> None:
    weights.manifest.cache_clear()
    weights.weight_file.cache_clear()


def test_manifest_lists_every_file_with_its_hash_and_size() -> None:
    found = {
        path.relative_to(weights.FOLDER).as_posix(): {
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "size_bytes": path.stat().st_size,
        }
        for path in weights.FOLDER.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }
    assert weights.manifest() == found


def test_weights_are_small_enough_for_the_package() -> None:
    assert sum(path.stat().st_size for path in weights.FOLDER.rglob("*") if path.is_file()) <= LIMIT_BYTES


def test_no_weights_are_pickled() -> None:
    assert {Path(name).suffix for name in weights.manifest()} == {".json", ".safetensors"}


@pytest.mark.parametrize("name", weights.LORAS)
def test_lora_file(name: str) -> None:
    assert weights.lora_file(name) == weights.FOLDER / "loras" / f"{name}.safetensors"


def test_a_lora_that_is_not_shipped() -> None:
    with pytest.raises(WeightsError, match=r"mini:ppo: .* dpo, spo"):
        weights.lora_file("ppo")


def test_a_copy_at_another_place_is_as_good(damaged: Path) -> None:
    assert weights.pipeline_folder() == damaged / "pipeline"
    for name in weights.manifest():
        assert weights.weight_file(name) == damaged / name


@pytest.mark.parametrize("name", ["networks/mini-clip.safetensors", "pipeline/unet/config.json"])
def test_damaged_file_is_told_with_both_hashes(damaged: Path, name: str) -> None:
    data = bytearray((damaged / name).read_bytes())
    data[len(data) // 2] ^= 1
    (damaged / name).write_bytes(data)
    with pytest.raises(WeightsError, match="is damaged") as caught:
        weights.weight_file(name)
    assert str(damaged / name) in caught.value.message
    assert hashlib.sha256(data).hexdigest() in caught.value.message
    assert str(weights.manifest()[name]["sha256"]) in caught.value.message
    assert (caught.value.exit_code, "pip install" in caught.value.hint) == (3, True)


def test_missing_file_is_told(damaged: Path) -> None:
    (damaged / "loras" / "spo.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"spo\.safetensors: a shipped weight file is missing") as caught:
        weights.lora_file("spo")
    assert "pip install" in caught.value.hint


@pytest.mark.parametrize("name", ["vae/diffusion_pytorch_model.safetensors", "scheduler/scheduler_config.json"])
def test_a_damaged_part_spoils_the_pipeline(damaged: Path, name: str) -> None:
    (damaged / "pipeline" / name).write_bytes(b"{}")
    with pytest.raises(WeightsError, match="is damaged"):
        weights.pipeline_folder()


@pytest.mark.parametrize("text", [None, "{", json.dumps({"schema": 1})], ids=["missing", "torn", "without files"])
def test_manifest_that_cannot_be_read(damaged: Path, text: str | None) -> None:
    (damaged / "manifest.json").unlink()
    if text is not None:
        (damaged / "manifest.json").write_text(text)
    with pytest.raises(WeightsError, match="the list of shipped weights cannot be read") as caught:
        weights.weight_file("networks/mini-clip.safetensors")
    assert "pip install" in caught.value.hint
