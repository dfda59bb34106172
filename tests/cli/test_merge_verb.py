"""``merge``: what it prints, and how it ends where it cannot."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch
from safetensors.torch import save_file
from tiny_checkpoints import UNET, tiny_state, write_lora, write_recipe, write_tiny

from bench.merge import write as merging
from bench.merge import write as writer

SUM = 'method = "weighted_sum"\nmodels = ["a.safetensors", "b.safetensors"]\nalpha = 0.3\n'


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    place = tmp_path_factory.mktemp("checkpoints")
    write_tiny(place / "a.safetensors", 1)
    write_tiny(place / "b.safetensors", 2)
    write_lora(place / "lora.safetensors")
    write_recipe(place / "r.toml", SUM + 'loras = [{ path = "lora.safetensors", weight = 0.5 }]\n')
    return place


@pytest.fixture
def there(files, tmp_path, monkeypatch):
    for path in files.iterdir():
        (tmp_path / path.name).hardlink_to(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_prints_what_went_in_and_what_came_out(there, cli):
    answer = cli("merge", "r.toml", "-o", "out.safetensors")
    assert answer.code == 0, answer.err
    for name in ("a.safetensors", "b.safetensors", "lora.safetensors", "out.safetensors"):
        assert name in answer.out
        assert hashlib.sha256((there / name).read_bytes()).hexdigest() in answer.out
    for component in ("unet", "text_encoder", "text_encoder_2", "vae"):
        assert f"\n{component} " in answer.out
    assert "merge: 928 of 928" in answer.err
    assert 'checkpoint = "out.safetensors"' in answer.err


@pytest.mark.parametrize(
    ("kind", "said"),
    [("unet", 'unet = "out.safetensors" beside a checkpoint'), ("inpainting", "is an inpainting model")],
)
def test_what_it_advises_can_be_done_with_such_a_file(there, cli, kind, said):
    state = tiny_state(1)
    if kind == "unet":
        save_file({key: value for key, value in state.items() if key.startswith(UNET)}, there / "in.safetensors")
    else:
        first = f"{UNET}input_blocks.0.0.weight"
        state[first] = torch.cat([state[first]] * 3, dim=1)[:, :9].contiguous()
        save_file(state, there / "in.safetensors")
    write_recipe(there / "r2.toml", 'method = "copy"\nmodels = ["in.safetensors"]\n')
    answer = cli("merge", "r2.toml", "-o", "out.safetensors")
    assert answer.code == 0, answer.err
    assert said in answer.err
    assert "checkpoint =" not in answer.err
    assert cli("inspect", "out.safetensors", "-q").code == 0


def test_quiet_and_json(there, cli):
    answer = cli("merge", "r.toml", "-o", "out.safetensors", "--quiet", "--json")
    assert (answer.code, answer.err) == (0, "")
    done = json.loads(answer.out)
    assert done["sha256"] == hashlib.sha256((there / "out.safetensors").read_bytes()).hexdigest()
    assert done["path"] == "out.safetensors"
    assert [one["component"] for one in done["inputs"]] == ["checkpoint", "checkpoint", "lora"]
    assert set(done["tensors"]) == set(done["dtypes"]) == {"unet", "text_encoder", "text_encoder_2", "vae"}


def test_the_same_command_again_needs_force(there, cli):
    first = cli("merge", "r.toml", "-o", "out.safetensors", "--json")
    again = cli("merge", "r.toml", "-o", "out.safetensors")
    assert again.code == 2
    assert "--force" in again.err
    forced = cli("merge", "r.toml", "-o", "out.safetensors", "--json", "--force")
    assert json.loads(forced.out)["sha256"] == json.loads(first.out)["sha256"]


@pytest.mark.parametrize(
    ("recipe", "code", "said"),
    [
        (SUM.replace("alpha", "alfa"), 2, "did you mean 'alpha'?"),
        (SUM.replace("0.3", "nan"), 2, "alpha is nan; allowed is 0 to 1"),
        (SUM + "blocks = { IN99 = 1 }\n", 2, "'IN99' is not a block of this UNet"),
        (SUM.replace("b.safetensors", "gone.safetensors"), 3, "gone.safetensors"),
        (SUM.replace("b.safetensors", "random:sd15"), 3, "do not go together: family is"),
        (SUM.replace("b.safetensors", "bad.safetensors"), 3, "1 values of"),
        ('method = "copy"\nmodels = ["mini"]\n', 3, 'checkpoint = "other.toml"'),
    ],
)
def test_bad_recipes_and_bad_weights_have_codes_of_their_own(there, cli, recipe, code, said):
    state = tiny_state(2)
    state["model.diffusion_model.out.2.bias"][0] = torch.inf
    save_file(state, there / "bad.safetensors")
    write_recipe(there / "other.toml", recipe)
    answer = cli("merge", "other.toml", "-o", "out.safetensors")
    assert (answer.code, answer.out) == (code, "")
    assert said in answer.err
    assert "Traceback" not in answer.err
    assert not (there / "out.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["merge"], "RECIPE"),
        (["merge", "r.toml"], "--output"),
        (["merge", "gone.toml", "-o", "out.safetensors"], "gone.toml: there is no such file"),
        (["merge", "r.toml", "-o", "a.safetensors", "--force"], "is an input of the recipe"),
        (["merge", "r.toml", "-o", "out.ckpt"], "is a .safetensors file"),
        (["merge", "r.toml", "-o", "out.safetensors", "--weights-dir", "gone"], "--weights-dir"),
    ],
)
def test_bad_usage(there, cli, arguments, said):
    before = sorted(there.iterdir())
    answer = cli(*arguments)
    assert (answer.code, answer.out) == (2, "")
    assert said in answer.err
    assert sorted(there.iterdir()) == before


def test_a_full_disk_is_the_machines_fault(there, cli, monkeypatch):
    monkeypatch.setattr(writer.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 1_000}))
    answer = cli("merge", "r.toml", "-o", "out.safetensors")
    assert answer.code == 6
    assert "1000 B free" in answer.err


def test_stopping_says_that_nothing_was_written(there, cli, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(merging, "_tensor", stop)
    answer = cli("merge", "r.toml", "-o", "out.safetensors")
    assert answer.code == 130
    assert "Nothing was written" in answer.err
    assert not [path.name for path in there.iterdir() if path.name.startswith((".", "out"))]
