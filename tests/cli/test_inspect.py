import json

import pytest
import torch
from safetensors.torch import load_file, save_file

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
    import shutil

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
        (["mini:spo", "--weight", "nan"], 2, "finite"),
        (["mini:spo", "--dtype", "float12"], 2, "--dtype"),
    ],
)
def test_what_cannot_be_looked_at(arguments, code, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_command_line(["inspect", *arguments]) == code
    assert said in capsys.readouterr().err
