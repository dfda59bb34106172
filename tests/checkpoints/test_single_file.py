"""Single files: read as diffusers reads them, and refused with what they look like."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from single_files import as_single_file, draw, small_sd15, write

from bench.checkpoints.families import config_folder
from bench.checkpoints.single_file import open_single
from bench.errors import WeightsError
from bench.pipeline.build import tokenizers
from bench.report.audits import describe

Tensors = dict[str, torch.Tensor]
TINY = config_folder("tiny")
UNET, VAE = "model.diffusion_model.", "first_stage_model."
CONV_IN = UNET + "input_blocks.0.0.weight"
TEXT, TEXT_2 = "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."


@pytest.fixture(scope="module")
def tiny() -> Tensors:
    return as_single_file(TINY, draw(TINY))


def named_states(pipe: Any) -> Tensors:
    """Every tensor of a pipeline by the names of ``Checkpoint``."""
    found = {}
    for component in ("unet", "vae", "text_encoder", "text_encoder_2"):
        module = getattr(pipe, component, None)
        for name, tensor in {} if module is None else module.state_dict().items():
            wrapped = component == "text_encoder" and not name.startswith("text_model.")
            found[f"{component}.{'text_model.' if wrapped else ''}{name}"] = tensor
    return found


@pytest.mark.parametrize("family", ["tiny", "sd15"])
def test_bit_for_bit_what_diffusers_reads(family: str, tmp_path: Path) -> None:
    import diffusers

    folder = TINY if family == "tiny" else small_sd15(tmp_path / "configs")
    path = write(tmp_path / "x.safetensors", as_single_file(folder, draw(folder)))
    kind = diffusers.StableDiffusionXLPipeline if family == "tiny" else diffusers.StableDiffusionPipeline
    pipe = kind.from_single_file(
        str(path),
        config=str(folder),
        local_files_only=True,
        dtype=torch.float16,
        **tokenizers("sdxl" if family == "tiny" else "sd15"),
    )
    expected = named_states(pipe)
    found = open_single(path, "x", [config_folder("sdxl"), config_folder("sd15"), folder])
    assert found.config == folder
    assert set(found.tensors) == set(expected)
    for name, tensor in expected.items():
        read = found.read(name)
        assert torch.equal(read, tensor), name
        assert found.tensors[name] == (tuple(tensor.shape), "float16")


def test_the_family_is_told_from_the_shapes(tiny: Tensors, tmp_path: Path) -> None:
    found = open_single(write(tmp_path / "x.safetensors", tiny), "x")
    assert (found.config, found.files) == (TINY, (("checkpoint", tmp_path / "x.safetensors"),))
    assert (found.facts.family, found.facts.layout, found.facts.prediction) == ("sdxl", "single-file", "epsilon")
    assert (found.facts.zero_terminal_snr, found.facts.inpainting) == (False, False)
    assert (found.facts.licence, found.facts.title) == (None, None)


@pytest.mark.parametrize(
    ("keys", "metadata", "expected"),
    [
        ((), {}, ("epsilon", False)),
        (("v_pred",), {}, ("v_prediction", False)),
        (("v_pred", "ztsnr"), {"modelspec.prediction_type": "epsilon"}, ("v_prediction", True)),
        ((), {"modelspec.prediction_type": "v"}, ("v_prediction", False)),
        ((), {"modelspec.prediction_type": "epsilon", "ss_zero_terminal_snr": "True"}, ("epsilon", True)),
    ],
)
def test_marks_of_prediction(
    keys: tuple[str, ...], metadata: dict[str, str], expected: tuple[str, bool], tiny: Tensors, tmp_path: Path
) -> None:
    marked = tiny | {key: torch.zeros(0) for key in keys}
    facts = open_single(write(tmp_path / "x.safetensors", marked, **metadata), "x").facts
    assert (facts.prediction, facts.zero_terminal_snr) == expected


EASYFLUFF = """\
model:
  base_learning_rate: 1.0e-4
  target: ldm.models.diffusion.ddpm.LatentDiffusion
  params:
    parameterization: "v"
    linear_start: 0.00085
    linear_end: 0.0120
    timesteps: 1000
    use_ema: False
"""
"""In the form of the configurations that v-prediction models were published with before files told it themselves."""


@pytest.mark.parametrize(
    ("text", "marks", "said", "expected"),
    [
        (EASYFLUFF, (), {}, ("v_prediction", "x.yaml")),
        (EASYFLUFF, (), {"modelspec.prediction_type": "epsilon"}, ("v_prediction", "x.yaml")),
        ("model: {params: {parameterization: eps}}", (), {}, ("epsilon", "x.yaml")),
        ("model: {params: {parameterization: eps}}", ("v_pred",), {}, ("v_prediction", None)),
        ("model: {params: {}}", (), {"modelspec.prediction_type": "v"}, ("v_prediction", None)),
        ("a list: [of, nothing]", (), {}, ("epsilon", None)),
        ("", (), {}, ("epsilon", None)),
    ],
)
def test_the_configuration_beside_a_file_tells_what_it_predicts(
    text: str, marks: tuple[str, ...], said: dict[str, str], expected: tuple[str, str | None], tiny: Tensors,
    tmp_path: Path,
) -> None:  # fmt: skip
    (tmp_path / "x.yaml").write_text(text, "utf-8")
    path = write(tmp_path / "x.safetensors", tiny | {mark: torch.zeros(0) for mark in marks}, **said)
    facts = open_single(path, "x").facts
    assert (facts.prediction, facts.prediction_from) == expected
    assert ("says x.yaml" in describe(facts)) == (expected[1] is not None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (EASYFLUFF.replace('"v"', '"x0"'), r"x\.yaml: describes another model .*: parameterization = 'x0'"),
        (EASYFLUFF.replace("0.0120", "0.02"), r"linear_end = 0\.02"),
        (EASYFLUFF.replace('"v"', "[v]"), "parameterization = '...'"),
        ("model: {params: ", "cannot be read: while parsing"),
        ("model: !!python/object/apply:os.getcwd []", "cannot be read: could not determine a constructor"),
        ("[" * 100_000, "cannot be read"),
        ("#" * (1 << 20) + "#", "at most 1 are read"),
    ],
)
def test_a_configuration_beside_a_file_that_is_of_something_else(
    text: str, words: str, tiny: Tensors, tmp_path: Path
) -> None:
    (tmp_path / "x.yaml").write_text(text, "utf-8")
    with pytest.raises(WeightsError, match=words) as caught:
        open_single(write(tmp_path / "x.safetensors", tiny), "x")
    assert "rename it" in caught.value.hint


def test_a_prediction_that_is_unknown_is_refused_with_a_question(tiny: Tensors, tmp_path: Path) -> None:
    path = write(tmp_path / "x.safetensors", tiny, **{"modelspec.prediction_type": "x0"})
    with pytest.raises(WeightsError, match="'x0'; was it trained to predict epsilon or v"):
        open_single(path, "x")


def test_facts_of_metadata_and_of_each_component(tiny: Tensors, tmp_path: Path) -> None:
    mixed = {key: value.float() if key.startswith(VAE) else value for key, value in tiny.items()}
    mixed[UNET + "out.0.bias"] = mixed[UNET + "out.0.bias"].bfloat16()
    said = {"modelspec.license": "CreativeML Open RAIL++-M", "modelspec.title": "A merge"}
    facts = open_single(write(tmp_path / "x.safetensors", mixed, **said), "x").facts
    assert (facts.licence, facts.title) == tuple(said.values())
    assert facts.dtypes == {
        "unet": "bfloat16+float16",
        "vae": "float32",
        "text_encoder": "float16",
        "text_encoder_2": "float16",
    }


def test_what_no_image_depends_on_is_passed_over(tiny: Tensors, tmp_path: Path) -> None:
    idle = {
        "model_ema.decay": torch.zeros(()),
        "model_ema.diffusion_modelinput_blocks00weight": torch.zeros(3),
        "alphas_cumprod": torch.zeros(1000),
        "denoiser.sigmas": torch.zeros(1000),
        f"{TEXT_2}logit_scale": torch.zeros(()),
        f"{TEXT}text_projection.weight": torch.zeros(2, 2),
        f"{VAE}loss.logvar": torch.zeros(()),
    }
    plain = open_single(write(tmp_path / "plain.safetensors", tiny), "x")
    found = open_single(write(tmp_path / "x.safetensors", tiny | idle), "x")
    assert found.tensors == plain.tensors


def test_sd15_text_encoders_of_old_merges_have_a_shorter_name(tmp_path: Path) -> None:
    folder = small_sd15(tmp_path / "configs")
    tensors = draw(folder)
    names = as_single_file(folder, tensors)
    short = {key.replace("transformer.text_model.", "transformer."): value for key, value in names.items()}
    assert set(short) != set(names)
    found = open_single(write(tmp_path / "x.safetensors", short), "x", [folder])
    name = "text_encoder.text_model.encoder.layers.0.mlp.fc1.bias"
    assert torch.equal(found.read(name), tensors[name])


def matrices(tensors: Tensors) -> Tensors:
    return {
        key: value[:, :, 0, 0] if ".attn_1." in key and value.ndim == 4 else value for key, value in tensors.items()
    }


@pytest.mark.parametrize(
    "write_vae",
    [
        matrices,
        lambda tensors: {key.replace(VAE, "vae."): value for key, value in tensors.items()},
        lambda tensors: matrices({key.replace(VAE, "vae."): value for key, value in tensors.items()}),
    ],
)
@pytest.mark.parametrize("alone", [False, True])
def test_a_vae_as_other_programs_write_it(
    write_vae: Callable[[Tensors], Tensors], alone: bool, tiny: Tensors, tmp_path: Path
) -> None:
    tensors = {key: value for key, value in tiny.items() if not alone or key.startswith(VAE)}
    plain = open_single(write(tmp_path / "plain.safetensors", tensors), "x")
    other = write_vae(tensors)
    assert [(key, value.shape) for key, value in other.items()] != [(key, v.shape) for key, v in tensors.items()]
    found = open_single(write(tmp_path / "x.safetensors", other), "x")
    assert found.tensors == plain.tensors
    assert all(torch.equal(found.read(name), plain.read(name)) for name in plain.tensors)


@pytest.mark.parametrize("wrap", [("", "_orig_mod."), ("", "module."), (UNET, f"{UNET}_orig_mod.")])
def test_names_of_a_model_that_was_wrapped_when_it_was_saved(
    wrap: tuple[str, str], tiny: Tensors, tmp_path: Path
) -> None:
    old, new = wrap
    plain = open_single(write(tmp_path / "plain.safetensors", tiny), "x")
    renamed = {key.replace(old, new, 1) if old else new + key: value for key, value in tiny.items()}
    found = open_single(write(tmp_path / "x.safetensors", renamed), "x")
    assert found.tensors == plain.tensors
    both = renamed | {CONV_IN: tiny[CONV_IN].clone()}
    if "_orig_mod." in new:
        with pytest.raises(WeightsError, match="both with and without _orig_mod"):
            open_single(write(tmp_path / "y.safetensors", both), "x")


@pytest.mark.parametrize("kind", [torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.bool])
def test_whole_numbers_are_no_weights(kind: torch.dtype, tiny: Tensors, tmp_path: Path) -> None:
    path = write(tmp_path / "x.safetensors", tiny | {CONV_IN: tiny[CONV_IN].to(kind)})
    with pytest.raises(WeightsError, match=rf"holds whole numbers where weights belong: 1 .*{re.escape(CONV_IN)}"):
        open_single(path, "x")


def test_inpainting_is_seen(tiny: Tensors, tmp_path: Path) -> None:
    wide = tiny | {CONV_IN: torch.zeros(32, 9, 3, 3).half()}
    found = open_single(write(tmp_path / "x.safetensors", wide), "x")
    assert found.facts.inpainting
    assert found.tensors["unet.conv_in.weight"].shape == (32, 9, 3, 3)


@pytest.mark.parametrize("component", ["unet", "vae"])
@pytest.mark.parametrize("naming", ["single file", "bare", "diffusers"])
def test_a_lone_part_in_every_naming(component: str, naming: str, tmp_path: Path) -> None:
    tensors = {name: value for name, value in draw(TINY).items() if name.startswith(f"{component}.")}
    prefix = {"unet": UNET, "vae": VAE}[component]
    names = as_single_file(TINY, draw(TINY))
    files = {
        "single file": {key: value for key, value in names.items() if key.startswith(prefix)},
        "bare": {key.removeprefix(prefix): value for key, value in names.items() if key.startswith(prefix)},
        "diffusers": {name.removeprefix(f"{component}."): value for name, value in tensors.items()},
    }
    found = open_single(write(tmp_path / "x.safetensors", files[naming]), "x")
    assert found.files == ((component, tmp_path / "x.safetensors"),)
    assert not found.tells_prediction
    assert set(found.tensors) == set(tensors)
    assert all(torch.equal(found.read(name), value) for name, value in tensors.items())


def test_zero_terminal_snr_of_a_lone_unet_is_a_mark_of_its_own(tiny: Tensors, tmp_path: Path) -> None:
    unet = {key: value for key, value in tiny.items() if key.startswith(UNET)}
    found = open_single(write(tmp_path / "x.safetensors", unet | {"ztsnr": torch.zeros(0)}), "x")
    assert found.tells_prediction
    assert found.facts.zero_terminal_snr


def doubled(tensors: Tensors, old: str, new: str) -> Tensors:
    return tensors | {key.replace(old, new, 1): value.clone() for key, value in tensors.items() if key.startswith(old)}


@pytest.mark.parametrize("component", [UNET, VAE])
def test_a_lone_part_that_is_there_in_two_namings(component: str, tiny: Tensors, tmp_path: Path) -> None:
    part = {key: value for key, value in tiny.items() if key.startswith(component)}
    path = write(tmp_path / "x.safetensors", doubled(part, component, ""))
    with pytest.raises(WeightsError, match=r"holds \S+ and \S+, which are one tensor under two names"):
        open_single(path, "x")


def test_a_text_encoder_that_is_there_in_two_namings(tmp_path: Path) -> None:
    folder = small_sd15(tmp_path / "configs")
    names = as_single_file(folder, draw(folder))
    both = doubled(names, "cond_stage_model.transformer.text_model.", "cond_stage_model.transformer.")
    with pytest.raises(WeightsError, match="which are one tensor under two names"):
        open_single(write(tmp_path / "x.safetensors", both), "x", [folder])


# --- what is something else ----------------------------------------------------------------


def zeros(**shapes: tuple[int, ...]) -> Tensors:
    return {name.replace("__", "."): torch.zeros(shape) for name, shape in shapes.items()}


OTHERS: dict[str, tuple[Callable[[Tensors], Tensors], str]] = {
    "a kohya LoRA": (lambda _: zeros(lora_unet_mid_block__lora_down__weight=(2, 2)), r"looks like a LoRA"),
    "a PEFT LoRA": (lambda _: zeros(unet__mid_block__lora_A__weight=(2, 2)), r"looks like a LoRA"),
    "a LoHa": (lambda _: zeros(lora_unet_x__hada_w1_a=(2, 2)), r"looks like a LoRA"),
    "an embedding": (lambda _: zeros(emb_params=(4, 768)), "textual-inversion embedding"),
    "an SDXL embedding": (lambda _: zeros(clip_l=(4, 768), clip_g=(4, 1280)), "textual-inversion embedding"),
    "a ControlNet": (lambda _: zeros(control_model__input_blocks__0__0__weight=(1,)), "a ControlNet"),
    "Flux": (lambda _: zeros(model__diffusion_model__double_blocks__0__img_mod__lin__weight=(1,)), "a Flux model"),
    "SD 3": (lambda _: zeros(model__diffusion_model__joint_blocks__0__x=(1,)), "Stable Diffusion 3"),
    "the refiner": (lambda tiny: tiny | {CONV_IN: torch.zeros(384, 4, 3, 3)}, "the SDXL refiner"),
    "SD 2": (lambda _: zeros(cond_stage_model__model__ln_final__weight=(1024,)), "a Stable Diffusion 2 model"),
    "SD 2's UNet": (lambda _: zeros(down_blocks__0__attn2__to_k__weight=(320, 1024)), "a Stable Diffusion 2 model"),
    "averages alone": (lambda _: zeros(model_ema__decay=(), model_ema__diffusion_modelout0bias=(2,)), "averaged copy"),
    "scaled fp8": (
        lambda tiny: tiny | {CONV_IN.replace("weight", "scale_weight"): torch.ones(1)},
        r"holds quantised weights \(scaled fp8\).*input_blocks\.0\.0\.scale_weight is one",
    ),
    "bitsandbytes": (lambda tiny: tiny | {f"{CONV_IN}.absmax": torch.ones(1)}, r"quantised weights \(bitsandbytes\)"),
    "EDM": (lambda tiny: tiny | zeros(edm_mean=(4,)), "EDM's noise"),
    "a text encoder": (lambda _: zeros(text_model__final_layer_norm__bias=(8,)), "a lone text encoder"),
    "nothing": (lambda _: {}, "it holds no tensors"),
    "PEFT OFT": (lambda _: zeros(unet__mid_block__to_q__oft_R__weight=(2, 2)), r"They look like OFT, which is not"),
    "anything": (lambda _: zeros(layer__weight=(2,)), r"is not a checkpoint that is known; .* called layer\.weight"),
    "an extra key": (lambda tiny: tiny | zeros(model__extra=(1,)), r"holds 1 .* no place \(model 1\).*model\.extra"),
    "others": (lambda tiny: tiny | zeros(foo__x=(1,), foo__y=(1,)), r"holds 2 .*\(foo 2\), such as foo\.x, foo\.y"),
    "a lacking key": (
        lambda tiny: {key: value for key, value in tiny.items() if key != CONV_IN},
        r"lacks 1 of \d+ tensors, such as model\.diffusion_model\.input_blocks\.0\.0\.weight",
    ),
    "another shape": (
        lambda tiny: tiny | {CONV_IN: torch.zeros(32, 8, 3, 3)},
        r"another shape, such as .*which is \(32, 8, 3, 3\) and not \(32, 4, 3, 3\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("prompt_id", OTHERS)
def test_what_is_not_such_a_checkpoint(prompt_id: str, tiny: Tensors, tmp_path: Path) -> None:
    make, words = OTHERS[prompt_id]
    path = write(tmp_path / "x.safetensors", make(tiny))
    with pytest.raises(WeightsError, match=words) as caught:
        open_single(path, "x.safetensors")
    assert caught.value.exit_code == 3
    assert caught.value.message.startswith("x.safetensors: ")


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "cut in its header": lambda data: data[:100],
    "cut by a byte": lambda data: data[:-1],
    "a header of 2^60 bytes": lambda data: (2**60).to_bytes(8, "little") + data[8:],
    "a web page": lambda data: b"<!DOCTYPE html><html>Log in to download</html>",
    "a pickle": lambda data: b"PK\x03\x04" + bytes(100),
}


@pytest.mark.parametrize("prompt_id", DAMAGES)
def test_what_is_damaged(prompt_id: str, tiny: Tensors, tmp_path: Path) -> None:
    path = write(tmp_path / "x.safetensors", tiny)
    path.write_bytes(DAMAGES[prompt_id](path.read_bytes()))
    with pytest.raises(WeightsError, match=r"x\.safetensors: is damaged, cut short, or not a \.safetensors file"):
        open_single(path, "x")
