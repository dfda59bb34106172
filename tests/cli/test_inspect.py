import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_checkpoints import LDM_PROJ_IN, PROJ_IN, UNET, tiny_state, write_lora, write_recipe, write_tiny

from bench.checkpoints.families import config_folder, family_tensors
from bench.cli import run_command_line
from bench.mini import weights


def inspected(capsys, *arguments):
    assert run_command_line(["inspect", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_lora_by_itself(capsys):
    found = inspected(capsys, "mini:spo")
    pairs = load_file(weights.lora_file("spo"))
    assert (found["kind"], found["against"], found["lora"]["keys"]) == ("lora", None, len(pairs))
    assert found["parameters"] == {"lora": sum(tensor.numel() for tensor in pairs.values())}
    assert {one["relative_change"] for one in found["lora"]["modules"]} == {None}


def test_a_lora_against_its_checkpoint(capsys):
    found = inspected(capsys, "mini:spo", "--against", "mini", "--weight", "0.5", "--dtype", "bfloat16")
    one = found["lora"]["modules"][0]
    pairs = {key: value.double() for key, value in load_file(weights.lora_file("spo")).items()}
    stored = load_file(weights.pipeline_folder() / "unet" / "diffusion_pytorch_model.safetensors")
    added = 0.5 * pairs[f"{one['module']}.lora_B.weight"] @ pairs[f"{one['module']}.lora_A.weight"]
    weight = stored[f"{one['module'].removeprefix('unet.')}.weight"].double()
    assert one["relative_change"] == pytest.approx(float(added.norm() / weight.norm()), rel=1e-4)
    assert found["dtype"] == "bfloat16"
    assert 0 < one["rounded_away"] < 1


def test_a_checkpoint_against_another(capsys, tmp_path):
    copy = shutil.copytree(weights.pipeline_folder(), tmp_path / "copy")
    file = copy / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    state["conv_in.weight"] = state["conv_in.weight"] * 2
    state["conv_out.bias"] = torch.full_like(state["conv_out.bias"], float("inf"))
    save_file(state, file)
    found = inspected(capsys, str(copy), "--against", "mini")
    total = sum(found["tensors"].values())
    assert (found["kind"], found["equal"]) == ("checkpoint", total - 2)
    assert found["non_finite"] == {"unet.conv_out.bias": state["conv_out.bias"].numel()}
    assert set(found["files"]) >= {
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    }
    assert found["blocks"]["IN00"] > 0
    assert found["blocks"]["M00"] == 0


@pytest.fixture
def tiny(tmp_path, monkeypatch) -> Path:
    """A folder, to stand in, with ``base.safetensors`` and ``lora.safetensors``, of the tiny family."""
    monkeypatch.chdir(tmp_path)
    write_tiny(tmp_path / "base.safetensors", 1)
    write_lora(tmp_path / "lora.safetensors")
    return tmp_path


@pytest.mark.parametrize(
    "ending",
    [
        ("lora_B.weight", "lora_A.weight"),
        ("lora_up.weight", "lora_down.weight"),
        ("lora.up.weight", "lora.down.weight"),
        ("w_norm",),
    ],
)
def test_a_lora_in_the_names_of_checkpoints(tiny, capsys, ending):
    module = LDM_PROJ_IN.removesuffix(".weight")
    if ending == ("w_norm",):
        norm = torch.ones(family_tensors("tiny")["unet.mid_block.attentions.0.norm.weight"].shape)
        state = {f"{UNET}middle_block.1.norm.w_norm": norm}
    else:
        pair = load_file("lora.safetensors")
        sides = (f"{PROJ_IN.removesuffix('.weight')}.lora_{side}.weight" for side in "BA")
        state = {f"{module}.{name}": pair[side] for name, side in zip(ending, sides, strict=True)}
    save_file(state, "comfy.safetensors")
    found = inspected(capsys, "comfy.safetensors", "--against", "base.safetensors")
    assert (found["kind"], found["lora"]["applied"], list(found["blocks"])) == ("lora", {"unet": len(state)}, ["M00"])


def test_a_folder_as_trainers_save_it(tiny, capsys):
    (tiny / "training").mkdir()
    (tiny / "lora.safetensors").rename(tiny / "training" / "pytorch_lora_weights.safetensors")
    assert inspected(capsys, "training", "--against", "base.safetensors")["kind"] == "lora"


def test_one_file_of_a_repository_of_the_hub(tiny, capsys):
    folder = tiny / "weights" / "owner" / "name"
    folder.mkdir(parents=True)
    for name in ("base.safetensors", "lora.safetensors"):
        shutil.copy(tiny / name, folder / name)
    for name, kind in (("base", "checkpoint"), ("lora", "lora")):
        where = ("--weights-dir", "weights", "--against", "base.safetensors")
        assert inspected(capsys, f"owner/name:{name}.safetensors", *where)["kind"] == kind


def lone_unet(folder: Path, naming: str) -> Path:
    """The UNet of ``base.safetensors`` alone."""
    if naming == "ldm":
        state = {key: value for key, value in tiny_state(1).items() if key.startswith(UNET)}
        save_file(state, folder / "unet.safetensors")
        return folder / "unet.safetensors"
    drawn = torch.Generator().manual_seed(1)
    shapes = {name: tensor.shape for name, tensor in family_tensors("tiny").items() if name.startswith("unet.")}
    state = {name.removeprefix("unet."): torch.randn(shape, generator=drawn).half() for name, shape in shapes.items()}
    if naming == "diffusers":
        save_file(state, folder / "unet.safetensors")
        return folder / "unet.safetensors"
    inner = folder / "dpo" / "unet"
    shutil.copytree(config_folder("tiny") / "unet", inner)
    save_file(state, inner / "diffusion_pytorch_model.safetensors")
    return inner if naming == "folder" else inner.parent


@pytest.mark.parametrize("naming", ["ldm", "diffusers", "folder", "repository"])
def test_a_lone_unet(tiny, capsys, naming):
    path = str(lone_unet(tiny, naming))
    assert run_command_line(["inspect", path, "--against", "base.safetensors", "-q"]) == 0
    out = capsys.readouterr().out
    assert "A lone UNet: " in out
    assert ("618 of 618" in out) == (naming == "ldm")
    assert "only here" not in out
    assert f'unet = "{path}"' in out
    assert "predicts" not in out
    assert inspected(capsys, "lora.safetensors", "--against", path)["lora"]["applied"] == {"unet": 2}


def test_a_lone_vae_does_not_tell_its_family(tiny, capsys):
    state = {key: value for key, value in tiny_state(1).items() if key.startswith("first_stage_model.")}
    save_file(state, "vae.safetensors")
    shutil.copytree(config_folder("tiny") / "vae", "vae")
    shapes = {name: tensor.shape for name, tensor in family_tensors("tiny").items() if name.startswith("vae.")}
    save_file(
        {name.removeprefix("vae."): torch.ones(shape) for name, shape in shapes.items()},
        "vae/diffusion_pytorch_model.safetensors",
    )
    for path in ("vae.safetensors", "vae"):
        assert run_command_line(["inspect", path, "--against", "base.safetensors", "-q"]) == 0
        out = capsys.readouterr().out
        assert "A lone VAE: " in out
        assert not any(family in out for family in ("SDXL", "SD 1.5"))


def test_a_folder_of_parts_that_are_no_pipeline(tiny, capsys):
    for part in ("unet", "vae"):
        shutil.copytree(config_folder("tiny") / part, tiny / "parts" / part)
    assert run_command_line(["inspect", "parts"]) == 3
    assert "no model_index.json" in capsys.readouterr().err


def test_an_inpainting_checkpoint(tiny, capsys):
    state = tiny_state(1)
    name = f"{UNET}input_blocks.0.0.weight"
    state[name] = torch.cat([state[name]] * 3, dim=1)[:, :9].contiguous()
    save_file(state, "inpaint.safetensors")
    assert inspected(capsys, "inpaint.safetensors")["checkpoint"]["inpainting"] is True
    assert inspected(capsys, "lora.safetensors", "--against", "inpaint.safetensors")["blocks"]["M00"] > 0
    assert run_command_line(["inspect", "inpaint.safetensors", "-q"]) == 0
    assert "inpainting" in capsys.readouterr().out
    assert run_command_line(["inspect", "inpaint.safetensors", "--against", "base.safetensors"]) == 3
    assert "an inpainting model and one that is not" in capsys.readouterr().err


@pytest.mark.parametrize("spoilt", ["weight", "product", "half"])
def test_changes_that_are_no_numbers_are_counted(tiny, capsys, spoilt, monkeypatch):
    """A NaN in a weight that the LoRA changes; a product beyond float32; a result beyond float16 alone."""
    monkeypatch.setenv("COLUMNS", "160")  # no line of the table is broken, whatever runs the tests
    state, pair = tiny_state(1), load_file("lora.safetensors")
    wanted = state[LDM_PROJ_IN].numel()
    if spoilt == "weight":
        state[LDM_PROJ_IN][0, 0], wanted = torch.nan, 1
        save_file(state, "base.safetensors")
    else:
        most = 1e20 if spoilt == "product" else 1e4
        save_file({key: torch.full_like(value, most) for key, value in pair.items()}, "lora.safetensors")
    found = inspected(capsys, "lora.safetensors", "--against", "base.safetensors")
    assert found["non_finite"] == {PROJ_IN: wanted}
    (module,) = found["lora"]["modules"]
    for number in (module["relative_change"], module["rounded_away"], found["blocks"]["M00"]):
        assert (number is None) == (spoilt != "half")
    assert run_command_line(["inspect", "lora.safetensors", "--against", "base.safetensors", "-q"]) == 0
    out = capsys.readouterr().out
    assert f"NaN or infinite in float16  {wanted:,}, in 1 tensor: {PROJ_IN}" in out
    assert "nan" not in out


def test_the_table_counts_what_is_not_finite_in_a_checkpoint(tiny, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    state = tiny_state(1)
    state[LDM_PROJ_IN][0, :3] = torch.inf
    save_file(state, "spoilt.safetensors")
    for name, said in (("spoilt", f"3, in 1 tensor: {PROJ_IN}"), ("base", "0 ")):
        assert run_command_line(["inspect", f"{name}.safetensors", "-q"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert next(line for line in lines if line.startswith("NaN")).split("  ", 1)[1].lstrip().startswith(said)


def test_files_of_one_name_are_told_apart(tiny, capsys):
    for seed, name in ((1, "a"), (2, "b")):
        (tiny / "in" / name).mkdir(parents=True)
        write_tiny(tiny / "in" / name / "model.safetensors", seed)
    models = '["in/a/model.safetensors", "in/b/model.safetensors", "in/a/model.safetensors"]'
    write_recipe(tiny / "r.toml", f'method = "add_difference"\nmodels = {models}\nalpha = 1.0\n')
    digests = {n: hashlib.sha256((tiny / "in" / n / "model.safetensors").read_bytes()).hexdigest() for n in "ab"}
    assert inspected(capsys, "r.toml")["files"] == {f"{name}/model.safetensors": digests[name] for name in "ab"}


def test_the_table_names_what_changes_most(capsys):
    assert run_command_line(["inspect", "mini:dpo", "--against", "mini", "-q"]) == 0
    out = capsys.readouterr().out
    for words in ("a LoRA file: PEFT", "unet 112", "56 LoRA", "rounded away in float16", "M00", "█"):
        assert words in out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nothing.safetensors"], 3, "nothing.safetensors"),
        (["mini:spo", "--against", "random:sd15"], 3, "spo"),
        (["mini", "--against", "random:tiny"], 3, "different families"),
        (["mini:spo", "--weight", "nan"], 2, "from -1000 to 1000"),
        (["mini:spo", "--against", "mini", "--weight", "1e308"], 2, "from -1000 to 1000"),
        (["mini", "--weight", "0.5"], 2, "mini is a checkpoint"),
        (["mini", "--against", "mini", "--weight", "1"], 2, "mini is a checkpoint"),
        (["mini", "--against", "mini", "--dtype", "float16"], 2, "it needs a LoRA"),
        (["mini:spo", "--dtype", "float16"], 2, "--against a checkpoint"),
        (["lora.pt"], 3, "is a pickle"),
        (["mini:spo", "--dtype", "float12"], 2, "--dtype"),
    ],
)
def test_what_cannot_be_looked_at(arguments, code, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_command_line(["inspect", *arguments]) == code
    assert said in capsys.readouterr().err


def test_a_lora_that_fits_no_family_is_told_of_the_first(tiny, capsys):
    save_file({"unet.nowhere.lora_A.weight": torch.ones(2, 2)}, "foreign.safetensors")
    assert run_command_line(["inspect", "foreign.safetensors"]) == 3
    said = capsys.readouterr().err
    assert "1 of 1 keys of the LoRA fit nothing" in said
    assert "That is for random:sdxl; it fits random:sd15 and mini no better." in said
    assert said.count("foreign.safetensors") == 2  # in the sentence and in the hint


def test_what_is_wrong_with_a_lora_of_a_known_family_is_not_put_down_to_the_family(capsys, tmp_path):
    state = {name: tensor.to(torch.int8) for name, tensor in load_file(weights.lora_file("spo")).items()}
    save_file(state, tmp_path / "rounded.safetensors")
    assert run_command_line(["inspect", str(tmp_path / "rounded.safetensors")]) == 3
    said = capsys.readouterr().err
    assert "stored as whole numbers" in said
    assert "no better" not in said


def test_a_note_says_that_a_start_was_taken_away(capsys, tmp_path):
    told = json.dumps({"unet.lora_alpha": 8, "unet.init_lora_weights": "pissa"})
    save_file(load_file(weights.lora_file("spo")), tmp_path / "pissa.safetensors", {"lora_adapter_metadata": told})
    assert run_command_line(["inspect", str(tmp_path / "pissa.safetensors"), "--against", "mini"]) == 0
    assert "Begun with init_lora_weights = 'pissa'" in " ".join(capsys.readouterr().out.split())
