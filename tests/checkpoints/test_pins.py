"""What ``fetch`` recorded of the Hub: the same bytes are taken, others refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from bench.checkpoints.fingerprint import fingerprint
from bench.checkpoints.locate import Place, find_checkpoint, find_lora
from bench.checkpoints.pins import check_pins, pin
from bench.errors import WeightsError
from bench.mini import weights
from bench.records import Lora, Variant
from bench.weights_lock import read_lock

UNET = Path("unet", "diffusion_pytorch_model.safetensors")
COMMIT = 40 * "a"


@pytest.fixture
def lock_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "config" / "weights.lock.json"
    monkeypatch.setenv("HOTART_WEIGHTS_LOCK", str(path))
    return path


@pytest.fixture
def snapshot(tmp_path: Path, lock_file: Path) -> Path:
    """The embedded pipeline as the Hub's cache keeps it: owner/mini."""
    folder = tmp_path / "models--owner--mini" / "snapshots" / COMMIT
    return Path(shutil.copytree(weights.pipeline_folder(), folder))


def place(snapshot: Path, revision: str | None = None) -> Place:
    return Place(what="owner/mini", path=str(snapshot), repository="owner/mini", revision=revision)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_commit_and_every_file_that_is_read_are_recorded(snapshot: Path) -> None:
    (snapshot / "notes.md").write_text("x", "utf-8")
    (snapshot / "unet" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"is not read")
    assert pin(place(snapshot))
    ((key, source),) = read_lock().sources.items()
    assert (key, source.commit) == ("owner/mini@unpinned", COMMIT)
    read = [
        path for path in snapshot.rglob("*") if path.is_file() and ".fp16" not in path.name and path.suffix != ".md"
    ]
    names = {path.relative_to(snapshot).as_posix(): path for path in read}
    assert source.files == {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in names.items()}
    assert {"unet/diffusion_pytorch_model.safetensors", "scheduler/scheduler_config.json"} < names.keys()
    assert pin(place(snapshot)), "the same bytes again"


def test_what_is_not_of_the_hub_is_not_recorded(snapshot: Path, lock_file: Path) -> None:
    assert not pin(Place(what=str(snapshot), path=str(snapshot)))
    assert not pin(find_checkpoint("mini", None, None))
    assert not lock_file.exists()


def new_shards(snapshot: Path) -> None:
    save_file(load_file(snapshot / UNET), snapshot / "unet" / "new.safetensors")
    index = {"weight_map": dict.fromkeys(load_file(snapshot / UNET), "new.safetensors")}
    (snapshot / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index), "utf-8")


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "another value": (lambda folder: flip(folder / UNET), r"unet/diffusion_pytorch_model\.safetensors has sha256"),
    "another scheduler": (
        lambda folder: (folder / "scheduler" / "scheduler_config.json").write_text("{}"),
        r"scheduler/scheduler_config\.json has sha256",
    ),
    "a file less": (
        lambda folder: (folder / "vae" / "config.json").unlink(),
        "config.json has sha256 none, for it is gone",
    ),
    "other weights beside": (new_shards, "for it is gone|for it was not there"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_other_bytes_are_refused(case: str, snapshot: Path, lock_file: Path) -> None:
    pin(place(snapshot))
    change, words = CHANGES[case]
    change(snapshot)
    for refuse in (lambda: check_pins([place(snapshot)]), lambda: pin(place(snapshot))):
        with pytest.raises(WeightsError, match=words) as caught:
            refuse()
        assert f"(commit {COMMIT}) in {lock_file}" in caught.value.message
        assert "owner/mini@COMMIT" in caught.value.hint
    check_pins([place(snapshot, revision="another")])  # of which nothing was recorded


def test_a_run_with_other_bytes_is_refused(tmp_path: Path, lock_file: Path) -> None:
    own = tmp_path / "dir"
    shutil.copytree(weights.pipeline_folder(), own / "owner" / "mini")
    shutil.copyfile(weights.lora_file("spo"), own / "owner" / "mini" / "spo.safetensors")
    variant = Variant(name="x", checkpoint="owner/mini", loras=(Lora(path="owner/mini:spo.safetensors"),))
    before = fingerprint(variant, own)
    pin(find_checkpoint("owner/mini", None, own))
    pin(find_lora("owner/mini:spo.safetensors", own))
    assert fingerprint(variant, own) == before
    flip(own / "owner" / "mini" / "spo.safetensors")
    with pytest.raises(WeightsError, match=r"owner/mini:spo\.safetensors: spo\.safetensors has sha256"):
        fingerprint(variant, own)


def test_a_configuration_that_appears_beside_a_single_file_is_refused(tmp_path: Path, lock_file: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"weights")
    single = Place(what="o/n:x", path=str(tmp_path / "x.safetensors"), repository="o/n", file="deep/x.safetensors")
    pin(single)
    assert list(read_lock().sources) == ["o/n@unpinned/deep/x.safetensors"]
    (tmp_path / "x.yaml").write_text("model: {params: {parameterization: v}}", "utf-8")
    with pytest.raises(WeightsError, match=r"x\.yaml has sha256 .*, not none, for it was not there"):
        check_pins([single])
