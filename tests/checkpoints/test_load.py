"""Variants as checkpoints: every kind of source, UNets and VAEs from elsewhere, and what does not go together."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from single_files import as_single_file, draw, write

from bench.checkpoints.families import config_folder, family_tensors
from bench.checkpoints.fingerprint import fingerprint
from bench.checkpoints.ldm_layout import ldm_tensors
from bench.errors import WeightsError
from bench.merge.load import open_checkpoint, open_named, open_source
from bench.merge.write import header, ordered, size_of
from bench.mini import weights
from bench.pipeline.schedulers import make_scheduler
from bench.records import Variant
from bench.records.weights import NoiseSchedule

TINY = config_folder("tiny")
UNET, VAE = "model.diffusion_model.", "first_stage_model."
CONV = "unet.conv_in.weight"


def variant(checkpoint: object, **parts: Any) -> Variant:
    return Variant(name="x", checkpoint=str(checkpoint), **{key: str(value) for key, value in parts.items()})


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    return draw(TINY)


@pytest.fixture
def single(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    return write(tmp_path / "whole.safetensors", as_single_file(TINY, tensors))


def only(prefix: str, path: Path, source: Path, **metadata: str) -> Path:
    kept = {key: value for key, value in load_file(source).items() if key.startswith(prefix)}
    return write(path, kept, **metadata)


# --- every kind ----------------------------------------------------------------------------


def test_kinds_of_sources(single: Path) -> None:
    kinds = {"mini": "diffusers", "random:tiny": "random", str(single): "single-file"}
    for name, layout in kinds.items():
        found = open_checkpoint(variant(name), None)
        assert (found.what, found.facts.layout) == (name, layout)
        assert found.read(CONV).shape == found.tensors[CONV].shape


def test_a_single_file_of_a_repository(single: Path, tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    (tmp_path / "owner" / "name").mkdir(parents=True)
    shutil.move(single, tmp_path / "owner" / "name" / "sub.safetensors")
    found = open_checkpoint(variant("owner/name@main:sub.safetensors"), tmp_path)
    assert torch.equal(found.read(CONV), tensors[CONV])


def test_no_torch_until_a_tensor_is_read(single: Path) -> None:
    code = (
        "import sys; from bench.records import Variant; from bench.checkpoints.fingerprint import fingerprint\n"
        "for name in sys.argv[1:]: print(fingerprint(Variant(name='x', checkpoint=name)).digest)\n"
        "assert not {'torch', 'transformers', 'diffusers'} & set(sys.modules)"
    )
    names = ["mini", "random:sdxl", str(single)]
    done = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True, check=True)
    assert len(set(done.stdout.split())) == 3


def test_random_weights_render(tmp_path: Path) -> None:
    """A picture of the tiny shape, through diffusers' own pipeline, is finite and takes in both prompts."""
    import diffusers
    import transformers

    from bench.pipeline.build import tokenizers

    found = open_checkpoint(variant("random:tiny"), None)
    parts: dict[str, Any] = {}
    for component, kind in (
        ("unet", diffusers.UNet2DConditionModel),
        ("vae", diffusers.AutoencoderKL),
        ("text_encoder", transformers.CLIPTextModel),
        ("text_encoder_2", transformers.CLIPTextModelWithProjection),
    ):
        config = json.loads((found.config / component / "config.json").read_text("utf-8"))
        is_text = component.startswith("text")
        module = kind(transformers.CLIPTextConfig(**config)) if is_text else kind.from_config(config)
        bare = component == "text_encoder" and "text_model.final_layer_norm.bias" not in module.state_dict()
        prefix = f"{component}.text_model." if bare else f"{component}."
        named = {
            name.removeprefix(prefix): found.read(name) for name in found.tensors if name.startswith(f"{component}.")
        }
        module.load_state_dict(named)
        parts[component] = module.eval()
    scheduler = make_scheduler(found.what, found.facts, "ddim", "leading")
    pipe = diffusers.StableDiffusionXLPipeline(**parts, **tokenizers("sdxl"), scheduler=scheduler)
    pipe.set_progress_bar_config(disable=True)

    def render(prompt: str) -> Any:
        generator = torch.Generator().manual_seed(0)
        return pipe(prompt, width=64, height=64, num_inference_steps=2, output_type="pt", generator=generator).images

    first, second = render("a tent"), render("a castle by the sea")
    assert first.shape == (1, 3, 64, 64)
    assert bool(first.isfinite().all())
    assert float(first.std()) > 0
    assert not torch.equal(first, second)


# --- parts from elsewhere ------------------------------------------------------------------


def test_a_unet_and_a_vae_from_other_files(single: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other.safetensors", as_single_file(TINY, draw(TINY, seed=1)))
    vae = only(VAE, tmp_path / "vae.safetensors", other)
    found = open_checkpoint(variant(single, unet=other, vae=vae), None)
    old, new = open_source(str(single), None, None), open_source(str(other), None, None)
    for name in (CONV, "vae.quant_conv.bias", "text_encoder_2.text_projection.weight"):
        source = old if name.startswith("text") else new
        assert torch.equal(found.read(name), source.read(name)), name
    assert found.tensors.keys() == old.tensors.keys()
    assert found.files == (("checkpoint", single), ("unet", other), ("vae", vae))


def test_replacing_everything_in_random_weights_leaves_its_text_encoders(single: Path) -> None:
    found = open_checkpoint(variant("random:tiny", unet=single, vae=single), None)
    assert found.files == (("unet", single), ("vae", single))
    assert "random:tiny" in found.identity
    assert found.facts.dtypes == dict.fromkeys(("unet", "vae", "text_encoder", "text_encoder_2"), "float16")


@pytest.mark.parametrize("inside", ["", "unet"])
def test_a_unet_of_a_folder_brings_its_configuration(mini_copy: Path, inside: str) -> None:
    found = open_checkpoint(variant("mini", unet=mini_copy / inside), None)
    assert found.other_configs == {"unet": mini_copy / "unet"}
    assert found.config == weights.pipeline_folder()
    shutil.rmtree(mini_copy / "vae")
    assert open_checkpoint(variant("mini", unet=mini_copy / inside), None).tensors == found.tensors


def test_what_a_replaced_component_was_need_not_be_there(mini_copy: Path) -> None:
    shutil.rmtree(mini_copy / "unet")
    with pytest.raises(WeightsError, match=r"holds no \.safetensors weights for unet"):
        open_checkpoint(variant(mini_copy), None)
    assert open_checkpoint(variant(mini_copy, unet="mini"), None).read(CONV).shape == (64, 16, 3, 3)


def test_what_a_unet_predicts_goes_with_it(single: Path, tmp_path: Path) -> None:
    marked = write(tmp_path / "v.safetensors", load_file(single) | {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)})
    silent = only(UNET, tmp_path / "silent.safetensors", single)
    speaking = only(UNET, tmp_path / "speaking.safetensors", single, **{"modelspec.prediction_type": "epsilon"})
    predictions = {
        name: open_checkpoint(found, None).facts.prediction
        for name, found in {
            "a whole checkpoint's": variant(marked, unet=single),
            "a silent part's": variant(marked, unet=silent),
            "a marked part's": variant(marked, unet=speaking),
            "the other way round": variant(single, unet=marked),
        }.items()
    }
    assert list(predictions.values()) == ["epsilon", "v_prediction", "epsilon", "v_prediction"]
    assert open_checkpoint(variant(single, unet=marked), None).facts.zero_terminal_snr


def test_the_scheduler_follows_the_marks(single: Path, tmp_path: Path) -> None:
    def scheduler(*marks: str) -> Any:
        path = write(tmp_path / "x.safetensors", load_file(single) | {mark: torch.zeros(0) for mark in marks})
        found = open_source(str(path), None, None)
        return make_scheduler(found.what, found.facts, "euler", "leading").config

    plain = scheduler()
    fields = ("prediction_type", "rescale_betas_zero_snr", "timestep_spacing")
    assert [plain[field] for field in fields] == ["epsilon", False, "leading"]
    assert dict(scheduler("v_pred")) == dict(plain) | {"prediction_type": "v_prediction"}
    assert [scheduler("v_pred", "ztsnr")[field] for field in fields] == ["v_prediction", True, "trailing"]


def test_the_noise_that_a_unet_was_trained_with_goes_with_it(mini_copy: Path, single: Path) -> None:
    edit(mini_copy / "scheduler" / "scheduler_config.json", beta_end=0.02)
    own = NoiseSchedule(beta_end=0.02)
    assert open_checkpoint(variant(mini_copy), None).facts.noise == own
    assert open_checkpoint(variant("mini", unet=mini_copy), None).facts.noise == own
    assert open_checkpoint(variant(mini_copy, unet="mini"), None).facts.noise == NoiseSchedule()
    assert open_checkpoint(variant(mini_copy, vae="mini"), None).facts.noise == own
    recipe = mini_copy.parent / "r.toml"
    recipe.write_text(f'schema = 1\nmethod = "copy"\nmodels = ["{mini_copy}"]\n', "utf-8")
    assert open_checkpoint(variant(recipe), None).facts.noise == own
    recipe.write_text(f'schema = 1\nmethod = "weighted_sum"\nalpha = 0.5\nmodels = ["{mini_copy}", "mini"]\n', "utf-8")
    with pytest.raises(WeightsError, match=r"do not go together: noise is .*beta_end=0\.02"):
        open_checkpoint(variant(recipe), None)


def edit(path: Path, **fields: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | fields), "utf-8")


# --- what does not go ----------------------------------------------------------------------


def test_a_file_without_its_other_components(single: Path, tmp_path: Path) -> None:
    no_vae = write(
        tmp_path / "novae.safetensors", {k: v for k, v in load_file(single).items() if not k.startswith(VAE)}
    )
    with pytest.raises(WeightsError, match=r"novae.*holds no \.safetensors weights for vae") as caught:
        open_checkpoint(variant(no_vae), None)
    assert 'vae = "owner/name"' in caught.value.hint
    assert "vae.quant_conv.bias" in open_checkpoint(variant(no_vae, vae=single), None).tensors
    assert "vae.quant_conv.bias" not in open_named(str(no_vae), None, None).tensors
    lone = only(UNET, tmp_path / "lone.safetensors", single)
    with pytest.raises(WeightsError, match=r"no \.safetensors weights for text_encoder, text_encoder_2, vae") as caught:
        open_checkpoint(variant(lone), None)
    assert f'unet = "{lone}"' in caught.value.hint
    assert open_checkpoint(variant("random:tiny", unet=lone), None).tensors


def test_inpainting_is_refused_for_pictures_from_prompts_alone(single: Path, tmp_path: Path) -> None:
    wide = load_file(single) | {UNET + "input_blocks.0.0.weight": torch.zeros(32, 9, 3, 3)}
    path = write(tmp_path / "inpainting.safetensors", wide)
    for asked in (variant(path), variant("random:tiny", unet=path)):
        with pytest.raises(WeightsError, match="is an inpainting model"):
            open_checkpoint(asked, None)
    assert open_source(str(path), None, None).facts.inpainting


def test_parts_of_another_family(single: Path, mini_copy: Path) -> None:
    with pytest.raises(WeightsError, match="taken as unet of mini: lacks"):
        open_checkpoint(variant("mini", unet=single), None)
    with pytest.raises(WeightsError, match=r"mini: does not go with .*whole.* as its unet: in_channels = 16"):
        open_checkpoint(variant(single, unet="mini"), None)
    with pytest.raises(
        WeightsError, match=r"random:sd15: does not go with random:sdxl as its vae: scaling_factor = 0.18215"
    ):
        open_checkpoint(variant("random:sdxl", vae="random:sd15"), None)
    vae = only(VAE, mini_copy / "v.safetensors", single)
    with pytest.raises(WeightsError, match=r"v\.safetensors: holds no weights for unet"):
        open_checkpoint(variant("random:tiny", unet=vae), None)


def hollow(path: Path, family: str) -> Path:
    """A single file of a family's full size, all zeros, that takes no room on the disk."""
    entries = ordered(ldm_tensors(family_tensors(family)))
    head = header(entries, {})
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + sum(map(size_of, entries)))
    return path


def test_a_vae_of_the_other_family_has_the_same_shapes_and_is_refused(tmp_path: Path) -> None:
    older = hollow(tmp_path / "sd15.safetensors", "sd15")
    with pytest.raises(
        WeightsError, match=r"sd15\.safetensors: is of sd15, and random:sdxl of sdxl: its vae"
    ) as caught:
        open_source("random:sdxl", None, None, vae=str(older))
    assert caught.value.exit_code == 3
    assert open_source("random:sd15", None, None, vae=str(older)).tensors


# --- fingerprints --------------------------------------------------------------------------


def test_a_single_file_is_listed_once(single: Path) -> None:
    found = fingerprint(variant(single))
    assert [(file.component, file.name) for file in found.files] == [("checkpoint", "whole.safetensors")]
    assert found.pipeline == "StableDiffusionXLPipeline"
    copied = shutil.copyfile(single, single.with_name("copy.safetensors"))
    assert fingerprint(variant(copied)).digest == found.digest
    data = load_file(single)
    data[UNET + "out.2.bias"] += 1
    save_file(data, copied)
    assert fingerprint(variant(copied)).digest != found.digest


def test_whose_part_is_whose_is_told_apart(single: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other.safetensors", as_single_file(TINY, draw(TINY, seed=1)))
    asked = [variant(single), variant(other)]
    asked += [variant(single, unet=other), variant(single, vae=other), variant(single, unet=other, vae=other)]
    asked += [variant(other, unet=single), variant(other, vae=single), variant(other, unet=single, vae=single)]
    assert len({fingerprint(one).digest for one in asked}) == 8


def test_random_weights_are_what_they_are_called() -> None:
    digests = {fingerprint(variant(f"random:{family}")).digest for family in ("sdxl", "sd15", "tiny")}
    assert len(digests) == 3
    assert fingerprint(variant("random:tiny")).files == ()
    assert fingerprint(variant("random:tiny")).digest in digests


# --- pickles -------------------------------------------------------------------------------


def test_the_command_that_converts_a_pickle_works(
    tmp_path: Path, tensors: dict[str, torch.Tensor], single: Path
) -> None:
    pickled = tmp_path / "old name.ckpt"
    torch.save({"state_dict": load_file(single), "step": 7}, pickled)
    with pytest.raises(WeightsError, match=r"old name\.ckpt: is a pickle") as caught:
        open_checkpoint(variant(pickled), None)
    command = caught.value.hint.removeprefix("convert it: ")
    assert command.startswith("python -c ")
    subprocess.run(["bash", "-c", command.replace("python", sys.executable, 1)], check=True, capture_output=True)
    found = open_checkpoint(variant(tmp_path / "old name.safetensors"), None)
    assert torch.equal(found.read(CONV), tensors[CONV])


def test_the_command_runs_nothing_that_is_in_a_pickle(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    torch.save({"x": Trap()}, tmp_path / "bad.ckpt")
    with pytest.raises(WeightsError) as caught:
        open_checkpoint(variant(tmp_path / "bad.ckpt"), None)
    command = caught.value.hint.removeprefix("convert it: ").replace("python", sys.executable, 1)
    assert subprocess.run(["bash", "-c", command], check=False, capture_output=True).returncode != 0
    assert not (tmp_path / "sprung").exists()
