"""Merging into one file: its tensors, its header, equal bytes for equal recipes, and what stops it."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_checkpoints import (
    CLIP_G,
    LDM_PROJ_IN,
    POSITIONS,
    UNET,
    tiny_state,
    write_lora,
    write_recipe,
    write_tiny,
)

from bench.checkpoints.families import config_folder
from bench.errors import MachineError, SuiteError, UsageError, WeightsError
from bench.merge import write as merging
from bench.merge import write as writer
from bench.merge.load import open_recipe
from bench.merge.write import MergedFile, merge
from bench.records import Variant

SUM = 'method = "weighted_sum"\nmodels = ["a.safetensors", "b.safetensors"]\nalpha = 0.3\n'
TEXTS = {
    "modelspec.title": "First",
    "modelspec.author": "Ada",
    "modelspec.license": "MIT",
    "modelspec.date": "2024-01-01",
    "modelspec.hash_sha256": "0xabc",
    "modelspec.thumbnail": "data:image/png;base64,AAAA",
    "ss_base_model_version": "sdxl_base_v1-0",
    "format": "pt",
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("inputs")
    averaged = {"model_ema.diffusion_modelout2bias": torch.zeros(4), "model_ema.decay": torch.tensor(0.5)}
    write_tiny(place / "a.safetensors", 1, TEXTS, **averaged)
    write_tiny(place / "b.safetensors", 2, {"modelspec.title": "Second", "modelspec.author": "Bob"})
    write_lora(place / "lora.safetensors")
    return place


@pytest.fixture
def place(inputs: Path, tmp_path: Path) -> Path:
    for path in inputs.iterdir():
        (tmp_path / path.name).hardlink_to(path)
    return tmp_path


def run(place: Path, text: str = SUM, output: str = "out.safetensors", **fields) -> MergedFile:
    return merge(
        write_recipe(place / "r.toml", text), place / output, **{"weights_dir": None, "progress": quiet, **fields}
    )


def quiet(stage: str, done: int, total: int, note: str = "") -> None:
    """No progress."""


def texts_of(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return file.metadata()


# --- tensors --------------------------------------------------------------------------------


def test_the_file_holds_the_merged_tensors_of_a_single_file(place: Path) -> None:
    done = run(place)
    out, a, b = load_file(place / "out.safetensors"), tiny_state(1), tiny_state(2)
    assert out.keys() == a.keys()
    for key, tensor in out.items():
        if key == POSITIONS:
            assert tensor.dtype == torch.int64
            assert tensor.tolist() == [list(range(77))]
        elif key.startswith("first_stage_model."):
            assert torch.equal(tensor, a[key])
        else:
            expected = a[key].double() * 0.7 + b[key].double() * 0.3
            np.testing.assert_allclose(tensor.double(), expected, rtol=2**-10, atol=2**-24, err_msg=key)
    data = (place / "out.safetensors").read_bytes()
    assert (done.sha256, done.size_bytes) == (hashlib.sha256(data).hexdigest(), len(data))
    assert sum(done.tensors.values()) == len(out)
    assert set(done.dtypes.values()) == {"float16"}
    assert not list(place.glob(".*"))


def test_the_inputs_are_named_with_their_hashes(place: Path) -> None:
    done = run(place, SUM + 'loras = [{ path = "lora.safetensors", weight = 0.5 }]\n')
    assert [(one.component, one.name) for one in done.inputs] == [
        ("checkpoint", "a.safetensors"),
        ("checkpoint", "b.safetensors"),
        ("lora", "lora.safetensors"),
    ]
    for one in done.inputs:
        assert one.sha256 == hashlib.sha256((place / one.name).read_bytes()).hexdigest()
        assert one.size_bytes == (place / one.name).stat().st_size


def test_a_lora_is_fused_in_float32(place: Path) -> None:
    up, down = write_lora(place / "own.safetensors", seed=5)
    lora = 'loras = [{ path = "own.safetensors", weight = 0.7 }, { path = "lora.safetensors", weight = 0 }]\n'
    run(place, 'method = "copy"\nmodels = ["a.safetensors"]\n' + lora)
    out, a = load_file(place / "out.safetensors"), tiny_state(1)
    for key, tensor in out.items():
        if key == LDM_PROJ_IN:
            expected = a[key].double() + 0.7 * (up.double() @ down.double()).reshape(tensor.shape)
            np.testing.assert_allclose(tensor.double(), expected, rtol=2**-10, atol=1e-6)
            assert not torch.equal(tensor, a[key])
        else:
            assert torch.equal(tensor, a[key]), key


def test_loras_are_fused_in_order_after_the_merge(place: Path) -> None:
    ups_downs = [write_lora(place / f"l{seed}.safetensors", seed) for seed in (1, 2)]
    run(place, SUM + 'loras = [{ path = "l1.safetensors" }, { path = "l2.safetensors", weight = -0.5 }]\n')
    a, b = (tiny_state(seed)[LDM_PROJ_IN].double() for seed in (1, 2))
    changes = [(up.double() @ down.double()).reshape(a.shape) for up, down in ups_downs]
    expected = a * 0.7 + b * 0.3 + changes[0] - 0.5 * changes[1]
    found = load_file(place / "out.safetensors")[LDM_PROJ_IN].double()
    np.testing.assert_allclose(found, expected, rtol=2**-10, atol=1e-5)


def test_copying_a_file_changes_no_tensor(place: Path) -> None:
    run(place, 'method = "copy"\nmodels = ["a.safetensors"]\n')
    out, a = load_file(place / "out.safetensors"), tiny_state(1)
    assert out.keys() == a.keys()
    assert all(torch.equal(out[key], a[key]) for key in a)


def test_another_precision_is_cast_to_once(place: Path) -> None:
    run(place, SUM + 'dtype = "float32"\n')
    out = load_file(place / "out.safetensors")
    assert {tensor.dtype for key, tensor in out.items() if key != POSITIONS} == {torch.float32}
    recipe = open_recipe(place / "r.toml", None)
    assert torch.equal(out["model.diffusion_model.out.2.weight"], recipe.read("unet.conv_out.weight"))


def test_marks_of_v_prediction_and_zero_terminal_snr_are_kept(place: Path) -> None:
    marks = {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}
    for seed, name in ((1, "va"), (2, "vb")):
        write_tiny(place / f"{name}.safetensors", seed, **marks)
    run(place, SUM.replace("a.saf", "va.saf").replace("b.saf", "vb.saf"))
    out = load_file(place / "out.safetensors")
    assert out["v_pred"].shape == out["ztsnr"].shape == (0,)
    assert texts_of(place / "out.safetensors")["modelspec.prediction_type"] == "v"
    facts = open_recipe(write_recipe(place / "again.toml", 'method = "copy"\nmodels = ["out.safetensors"]'), None).facts
    assert (facts.prediction, facts.zero_terminal_snr) == ("v_prediction", True)


def test_a_lone_unet_merges_into_a_whole_checkpoint(place: Path) -> None:
    unet = {key: tensor for key, tensor in tiny_state(2).items() if key.startswith(UNET)}
    save_file(unet, place / "unet.safetensors")
    text = SUM.replace("b.saf", "unet.saf")
    with pytest.raises(WeightsError, match="has no text_encoder, text_encoder_2") as caught:
        run(place, text)
    assert 'components = ["unet"]' in caught.value.hint
    run(place, text + 'components = ["unet"]\n')
    out, a = load_file(place / "out.safetensors"), tiny_state(1)
    assert all(torch.equal(out[key], a[key]) != key.startswith(UNET) for key in a)


def test_diffusers_loads_what_the_recipe_makes(place: Path) -> None:
    from diffusers import AutoencoderKL, UNet2DConditionModel

    run(place, SUM + 'loras = [{ path = "lora.safetensors" }]\n')
    recipe = open_recipe(place / "r.toml", None)
    for component, kind in (("unet", UNet2DConditionModel), ("vae", AutoencoderKL)):
        model = kind.from_single_file(
            str(place / "out.safetensors"),
            config=str(config_folder("tiny")),
            subfolder=component,
            local_files_only=True,
        )
        state = model.state_dict()
        names = {name.removeprefix(f"{component}.") for name in recipe.tensors if name.startswith(f"{component}.")}
        assert state.keys() == names
        for name in names:
            expected = recipe.read(f"{component}.{name}").to(torch.float16).float()
            assert torch.equal(state[name].float(), expected), name


def test_a_suite_renders_a_recipe_and_its_file_alike(place: Path) -> None:
    from bench.checkpoints.fingerprint import fingerprint
    from bench.pipeline.switch import load_pipeline
    from bench.records import Settings

    run(place, SUM + 'loras = [{ path = "lora.safetensors" }]\n')
    settings = Settings(width=64, height=64, steps=1, guidance_scale=1.0, sampler="ddim", dtype="float16")
    variants = [Variant(name=name, checkpoint=str(place / name)) for name in ("r.toml", "out.safetensors")]
    recipe, file = (load_pipeline(variant, settings, device="cpu") for variant in variants)
    for component in ("unet", "vae", "text_encoder", "text_encoder_2"):
        ours, theirs = (getattr(pipe, component).state_dict() for pipe in (recipe, file))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    before = fingerprint(variants[0])
    assert [one.component for one in before.files] == ["checkpoint", "checkpoint", "lora"]
    write_recipe(place / "r.toml", SUM.replace("0.3", "0.31") + 'loras = [{ path = "lora.safetensors" }]\n')
    assert fingerprint(variants[0]).digest != before.digest


# --- the header -----------------------------------------------------------------------------


def test_the_header_keeps_and_extends_the_first_models(place: Path) -> None:
    run(place, SUM + '[metadata]\ntitle = "Mine"\ndescription = "a try"\n')
    texts = texts_of(place / "out.safetensors")
    assert texts["modelspec.title"] == "Mine"
    assert texts["modelspec.description"] == "a try"
    assert (texts["modelspec.author"], texts["modelspec.license"]) == ("Ada", "MIT")
    assert texts["ss_base_model_version"] == "sdxl_base_v1-0"
    assert texts["modelspec.architecture"] == "stable-diffusion-xl-v1-base"
    assert texts["modelspec.prediction_type"] == "epsilon"
    assert texts["modelspec.merged_from"] == "First, Second"
    assert not {"modelspec.date", "modelspec.hash_sha256", "modelspec.thumbnail", "format"} & texts.keys()


def test_the_recipe_in_the_header_has_hashes_and_no_paths(place: Path) -> None:
    done = run(place, SUM + 'blocks = { M00 = 0.5 }\nloras = [{ path = "./lora.safetensors" }]\n')
    texts = texts_of(place / "out.safetensors")
    assert str(place) not in json.dumps(texts)
    assert "/" not in texts["hotart.recipe"]
    recipe = json.loads(texts["hotart.recipe"])
    hashes = {one.name: one.sha256 for one in done.inputs}
    assert recipe["models"] == [
        {"source": name, "files": [{"component": "checkpoint", "sha256": hashes[name]}]}
        for name in ("a.safetensors", "b.safetensors")
    ]
    assert (recipe["method"], recipe["alpha"], recipe["blocks"]) == ("weighted_sum", 0.3, {"M00": 0.5})
    (lora,) = recipe["loras"]
    assert (lora["path"], lora["sha256"], lora["weight"]) == ("lora.safetensors", hashes["lora.safetensors"], 1.0)


def test_a_recipe_within_a_recipe_is_described_whole(place: Path) -> None:
    (place / "inner").mkdir()
    write_recipe(place / "inner" / "i.toml", SUM.replace('"a.', '"../a.').replace('"b.', '"../b.'))
    done = run(place, 'method = "slerp"\nmodels = ["inner/i.toml", "random:tiny"]\nalpha = 0.5\n')
    recipe = json.loads(texts_of(place / "out.safetensors")["hotart.recipe"])
    assert recipe["models"][0]["method"] == "weighted_sum"
    assert [model["source"] for model in recipe["models"][0]["models"]] == ["a.safetensors", "b.safetensors"]
    assert recipe["models"][1] == {"source": "random:tiny", "files": []}
    assert [one.name for one in done.inputs] == ["a.safetensors", "b.safetensors"]
    assert texts_of(place / "out.safetensors")["modelspec.author"] == "Ada"


# --- the same bytes --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        SUM + 'loras = [{ path = "lora.safetensors", weight = 0.8 }]\n',
        'method = "dare"\nmodels = ["a.safetensors", "b.safetensors", "random:tiny"]\ndrop = 0.6\nseed = 4\n',
        'method = "ties"\nmodels = ["a.safetensors", "b.safetensors", "random:tiny"]\n',
    ],
)
def test_the_same_recipe_gives_the_same_bytes_anywhere(place: Path, tmp_path_factory, monkeypatch, text) -> None:
    first = run(place, text)
    assert run(place, text, force=True).sha256 == first.sha256
    other = tmp_path_factory.mktemp("other place")
    for name in ("a.safetensors", "b.safetensors", "lora.safetensors"):
        shutil.copy(place / name, other / name)
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    again = run(other, text, "renamed.safetensors")
    assert again.sha256 == first.sha256
    assert (other / "renamed.safetensors").read_bytes() == (place / "out.safetensors").read_bytes()


def test_the_number_of_threads_changes_no_byte(place: Path) -> None:
    before, found = torch.get_num_threads(), set()
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            found.add(run(place, SUM + 'loras = [{ path = "lora.safetensors" }]\n', force=True).sha256)
    finally:
        torch.set_num_threads(before)
    assert len(found) == 1


def test_another_number_in_the_recipe_gives_another_file(place: Path) -> None:
    assert run(place).sha256 != run(place, SUM.replace("0.3", "0.31"), force=True).sha256


# --- what is refused, and what is left behind --------------------------------------------------


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("out.ckpt", "is a .safetensors file"),
        ("gone/out.safetensors", "there is no folder"),
        ("a.safetensors", "is there already"),
        ("folder.safetensors", "is a folder or a device"),
    ],
)
def test_outputs_that_will_not_do(place: Path, output: str, said: str) -> None:
    (place / "folder.safetensors").mkdir()
    with pytest.raises(UsageError, match=said):
        run(place, output=output)


@pytest.mark.parametrize("name", ["a.safetensors", "lora.safetensors", "link.safetensors", "hard.safetensors"])
def test_an_input_is_never_the_output(place: Path, name: str) -> None:
    (place / "link.safetensors").symlink_to(place / "b.safetensors")
    (place / "hard.safetensors").hardlink_to(place / "b.safetensors")
    before = (place / name).read_bytes()
    with pytest.raises(UsageError, match="is an input of the recipe"):
        run(place, SUM + 'loras = [{ path = "lora.safetensors" }]\n', name, force=True)
    assert (place / name).read_bytes() == before


def test_force_replaces_a_file_and_follows_a_link(place: Path) -> None:
    (place / "old.safetensors").write_bytes(b"old")
    (place / "out.safetensors").symlink_to("old.safetensors")
    run(place, force=True)
    assert (place / "out.safetensors").is_symlink()
    assert load_file(place / "old.safetensors").keys() == tiny_state(1).keys()


def test_no_room_is_refused_before_the_inputs_are_hashed(place: Path, monkeypatch) -> None:
    monkeypatch.setattr(writer.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 1_000}))
    monkeypatch.setattr(merging, "weights_sha256", lambda path: pytest.fail("hashed"))
    (place / "out.safetensors").write_bytes(b"old")
    with pytest.raises(MachineError, match="B free"):
        run(place, force=True)
    assert (place / "out.safetensors").read_bytes() == b"old"


def test_stopping_leaves_nothing_behind(place: Path) -> None:
    def stop(stage: str, done: int, total: int, note: str = "") -> None:
        if (stage, done) == ("merge", 20):
            raise KeyboardInterrupt

    (place / "out.safetensors").write_bytes(b"old")
    before = sorted(path.name for path in place.iterdir())
    with pytest.raises(KeyboardInterrupt):
        run(place, force=True, progress=stop)
    assert (place / "out.safetensors").read_bytes() == b"old"
    assert sorted(path.name for path in place.iterdir()) == sorted([*before, "r.toml"])
    assert threading.active_count() == 1 or not [t for t in threading.enumerate() if "ThreadPool" in t.name]


def test_an_input_that_is_written_to_meanwhile_gives_no_file(place: Path) -> None:
    shutil.copy(place / "b.safetensors", place / "moving.safetensors")

    def disturb(stage: str, done: int, total: int, note: str = "") -> None:
        if (stage, done) == ("merge", 20):
            with (place / "moving.safetensors").open("r+b") as file:
                file.seek(-2, 2)
                file.write(b"\1\1")

    with pytest.raises(WeightsError, match=r"moving\.safetensors: was written to while it was merged"):
        run(place, SUM.replace("b.saf", "moving.saf"), progress=disturb)
    assert not (place / "out.safetensors").exists()


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_values_that_are_not_finite_stop_it_by_name(place: Path, value: float) -> None:
    state = tiny_state(2)
    state[f"{CLIP_G}model.transformer.resblocks.0.attn.in_proj_weight"][0, 0] = value
    save_file(state, place / "bad.safetensors")
    with pytest.raises(WeightsError, match=r"bad\.safetensors: text_encoder_2\.\S*q_proj\.weight holds 1 values"):
        run(place, SUM.replace("b.saf", "bad.saf"))


def test_what_float16_cannot_hold_is_refused(place: Path) -> None:
    for name, value in (("x", 60_000.0), ("y", -60_000.0)):
        state = tiny_state(1, torch.float32)
        state[LDM_PROJ_IN][0, 0] = value
        save_file(state, place / f"{name}.safetensors")
    text = 'method = "add_difference"\nmodels = ["x.safetensors", "x.safetensors", "y.safetensors"]\nalpha = 1.0\n'
    run(place, text)
    with pytest.raises(WeightsError, match=r"rounded to float16: unet\.mid_block.* holds 1 values"):
        run(place, text + 'dtype = "float16"\n', force=True)


def test_other_families_are_refused(place: Path) -> None:
    with pytest.raises(WeightsError, match=r"family is sdxl \(.*a\.safetensors\), sd15 \(random:sd15\)"):
        run(place, SUM.replace("b.safetensors", "random:sd15"))


def test_another_size_is_refused(place: Path) -> None:
    with pytest.raises(WeightsError, match=r"do not go together: .* tensors"):
        run(place, SUM.replace("b.safetensors", "random:sdxl"))


def test_a_recipe_that_is_a_source_of_itself(place: Path) -> None:
    write_recipe(place / "other.toml", 'method = "copy"\nmodels = ["r.toml"]\n')
    with pytest.raises(SuiteError, match=r"is a source of itself: r\.toml -> other\.toml -> r\.toml"):
        run(place, SUM.replace("b.safetensors", "other.toml"))


def test_a_recipe_whose_vae_is_its_own(place: Path) -> None:
    write_recipe(place / "other.toml", 'method = "copy"\nmodels = ["a.safetensors"]\nvae = "r.toml"\n')
    for name in ("r.toml", "other.toml"):
        with pytest.raises(SuiteError, match=r"is a source of itself: r\.toml -> .*r\.toml"):
            run(place, f'method = "copy"\nmodels = ["a.safetensors"]\nvae = "{name}"\n')


def test_a_vae_may_be_of_a_recipe(place: Path) -> None:
    write_recipe(place / "other.toml", 'method = "copy"\nmodels = ["b.safetensors"]\n')
    run(place, 'method = "copy"\nmodels = ["a.safetensors"]\nvae = "other.toml"\n')
    out, a, b = load_file(place / "out.safetensors"), tiny_state(1), tiny_state(2)
    assert all(torch.equal(out[key], (b if key.startswith("first_stage_model.") else a)[key]) for key in a)


def test_a_truncated_input(place: Path) -> None:
    (place / "cut.safetensors").write_bytes((place / "b.safetensors").read_bytes()[:-10])
    with pytest.raises(WeightsError, match=r"cut\.safetensors: is damaged"):
        run(place, SUM.replace("b.saf", "cut.saf"))


def test_a_source_that_is_not_there(place: Path) -> None:
    with pytest.raises(WeightsError, match=r"gone\.safetensors"):
        run(place, SUM.replace("b.saf", "gone.saf"))


def test_a_pickle_is_refused_with_the_command_that_converts_it(place: Path) -> None:
    (place / "old.ckpt").write_bytes(b"x")
    with pytest.raises(WeightsError, match="is a pickle") as caught:
        run(place, SUM.replace("b.safetensors", "old.ckpt"))
    assert "weights_only=True" in caught.value.hint


def test_a_lora_of_zeros_or_of_another_model(place: Path) -> None:
    module = "unet.mid_block.attentions.0.proj_in"
    shape = tiny_state(1)[LDM_PROJ_IN].shape
    zeros = {f"{module}.lora_A.weight": torch.zeros(2, shape[1]), f"{module}.lora_B.weight": torch.ones(shape[0], 2)}
    save_file(zeros, place / "zero.safetensors")
    with pytest.raises(WeightsError, match="changes nothing"):
        run(place, SUM + 'loras = [{ path = "zero.safetensors" }]\n')
    save_file({"unet.nowhere.lora_A.weight": torch.ones(2, 2)}, place / "other.safetensors")
    with pytest.raises(WeightsError, match="fit nothing in the checkpoint"):
        run(place, SUM + 'loras = [{ path = "other.safetensors" }]\n')
    assert not (place / "out.safetensors").exists()
