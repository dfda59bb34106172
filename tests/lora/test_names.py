"""Every module of every family is found under every name that tools write for it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from checkpoints import checkpoint, lora, save, shapes
from diffusers.loaders.lora_conversion_utils import _convert_unet_lora_key, _maybe_map_sgm_blocks_to_diffusers
from layouts import LAYOUTS, make_unet

from bench.checkpoints.blocks import count_blocks
from bench.errors import WeightsError
from bench.lora.parse import module_names, read_adapter

FAMILIES = tuple(LAYOUTS)
_FC2 = "text_model.encoder.layers.1.mlp.fc2"
_BLOCK = "down_blocks.1.attentions.0.transformer_blocks.0"


def matrices(family: str) -> list[str]:
    """Modules with a matrix or convolution."""
    return [name.removesuffix(".weight") for name, tensor in checkpoint(family).items() if tensor.dim() in (2, 4)]


def kohya(module: str, family: str) -> str:
    """The name in kohya's scripts, which replace the dots."""
    component, _, path = module.partition(".")
    te = "lora_te" if family == "sd15" else {"text_encoder": "lora_te1", "text_encoder_2": "lora_te2"}.get(component)
    return f"{'lora_unet' if component == 'unet' else te}_{path.replace('.', '_')}"


@pytest.mark.parametrize("family", FAMILIES)
def test_kohya_names_with_diffusers_blocks(family: str, tmp_path: Path) -> None:
    weights = checkpoint(family)
    wanted = matrices(family)
    tensors = {
        key: tensor
        for module in wanted
        for key, tensor in lora(kohya(module, family), weights[f"{module}.weight"]).items()
    }
    adapter = read_adapter(save(tmp_path, tensors), shapes(weights))
    assert [change.tensor for change in adapter.changes] == sorted(f"{module}.weight" for module in wanted)
    assert adapter.layout == "kohya, diffusers blocks"
    assert adapter.keys == sum(adapter.applied.values()) == 3 * len(wanted)
    assert {change.scale for change in adapter.changes} == {0.5}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_name_means_one_module_unless_text_encoders_share_it(family: str) -> None:
    weights = checkpoint(family)
    names = module_names(weights, count_blocks(weights))
    shared = [modules for _, modules in names.values() if len(modules) > 1]
    assert (shared == []) == (family == "sd15")
    for one, other in shared:
        assert one.replace("text_encoder.", "text_encoder_2.") == other


def test_a_module_that_the_published_layout_does_not_know(tmp_path: Path) -> None:
    weights = checkpoint("sdxl") | {"unet.time_embedding.cond_proj.weight": torch.zeros(8, 4)}
    path = save(tmp_path, lora("lora_unet_time_embedding_cond_proj", torch.zeros(8, 4)))
    (change,) = read_adapter(path, shapes(weights)).changes
    assert change.tensor == "unet.time_embedding.cond_proj.weight"


def test_sgm_names_are_those_that_diffusers_reads() -> None:
    weights = checkpoint("sdxl")  # diffusers' own map takes input_blocks_10 of SD 1.5 for input_blocks_1
    names = module_names(weights, count_blocks(weights))
    sgm = {
        name: modules[0].removeprefix("unet.")
        for name, (layout, modules) in names.items()
        if layout == "kohya, SGM blocks"
    }
    inside = {name for name in sgm if "blocks_" in name and name != "lora_unet_input_blocks_0_0"}
    inside -= {name for name in inside if "norm" in name or "layers_0" in name or "in_layers_0" in name}
    ending = ".lora_down.weight"
    mapped = _maybe_map_sgm_blocks_to_diffusers({f"{name}{ending}": name for name in inside}, make_unet("sdxl").config)
    theirs = {name: _convert_unet_lora_key(key) for key, name in mapped.items()}
    assert len(theirs) == len(inside) > 100
    for name, path in theirs.items():
        plain = (
            path.replace(".processor", "").replace("to_out_lora", "to_out.0_lora").replace("_lora.down", ".lora.down")
        )
        assert plain == f"{sgm[name]}.lora.down.weight"


@pytest.mark.parametrize(
    ("name", "module"),
    [  # as sd-scripts writes them for SDXL
        ("lora_unet_input_blocks_4_1_transformer_blocks_0_ff_net_2", _BLOCK + ".ff.net.2"),
        ("lora_unet_input_blocks_3_0_op", "down_blocks.0.downsamplers.0.conv"),
        ("lora_unet_middle_block_1_proj_in", "mid_block.attentions.0.proj_in"),
        ("lora_unet_middle_block_2_emb_layers_1", "mid_block.resnets.1.time_emb_proj"),
        ("lora_unet_output_blocks_2_2_conv", "up_blocks.0.upsamplers.0.conv"),
        ("lora_unet_output_blocks_8_0_skip_connection", "up_blocks.2.resnets.2.conv_shortcut"),
        ("lora_unet_label_emb_0_2", "add_embedding.linear_2"),
        ("lora_unet_time_embed_0", "time_embedding.linear_1"),
        ("lora_unet_input_blocks_0_0", "conv_in"),
        ("lora_unet_out_2", "conv_out"),
        ("diffusion_model.input_blocks.8.1.proj_out", "down_blocks.2.attentions.1.proj_out"),
        ("model.diffusion_model.out.2", "conv_out"),
        ("lycoris_up_blocks_1_attentions_2_proj_in", "up_blocks.1.attentions.2.proj_in"),
        ("up_blocks.1.attentions.2.proj_in", "up_blocks.1.attentions.2.proj_in"),
        ("base_model.model.conv_out", "conv_out"),
        ("base_model.model.unet.conv_out", "conv_out"),
        ("unet.output_blocks.2.1.proj_in", "up_blocks.0.attentions.2.proj_in"),  # OneTrainer
        ("unet.label_emb.0.2", "add_embedding.linear_2"),
        ("unet.unet.mid_block.attentions.0.proj_in", "mid_block.attentions.0.proj_in"),  # diffusers 0.23
        # torch.compile of all or of each block, and training on several devices
        ("unet._orig_mod.mid_block.attentions.0.proj_in", "mid_block.attentions.0.proj_in"),
        ("_orig_mod.mid_block.attentions.0.proj_in", "mid_block.attentions.0.proj_in"),
        ("unet.mid_block._orig_mod.attentions.0._orig_mod.proj_in", "mid_block.attentions.0.proj_in"),
        ("base_model.model._orig_mod.conv_out", "conv_out"),
        ("module.conv_out", "conv_out"),
        ("unet.module._orig_mod.conv_out", "conv_out"),
        ("_fsdp_wrapped_module.conv_out", "conv_out"),
        ("lora_unet__orig_mod_mid_block_attentions_0_proj_in", "mid_block.attentions.0.proj_in"),
        ("lora_unet_mid_block_attentions_0__orig_mod_proj_in", "mid_block.attentions.0.proj_in"),
    ],
)  # fmt: skip
def test_names_of_the_unet(name: str, module: str, tmp_path: Path) -> None:
    weights = checkpoint("sdxl")
    path = save(tmp_path, lora(name, weights[f"unet.{module}.weight"]))
    (change,) = read_adapter(path, shapes(weights)).changes
    assert change.tensor == f"unet.{module}.weight"


@pytest.mark.parametrize(
    ("family", "name", "module"),
    [
        ("sdxl", "lora_te1_text_model_encoder_layers_0_mlp_fc1", "text_encoder.text_model.encoder.layers.0.mlp.fc1"),
        ("sdxl", "lora_te2_text_projection", "text_encoder_2.text_projection"),
        ("sd15", "lora_te_text_model_encoder_layers_0_mlp_fc1", "text_encoder.text_model.encoder.layers.0.mlp.fc1"),
        # Names without the component: the width tells which text encoder is meant.
        ("sdxl", "lycoris_text_model_encoder_layers_1_mlp_fc2", "text_encoder_2.text_model.encoder.layers.1.mlp.fc2"),
        ("sdxl", "base_model.model.text_model.final_layer_norm", "text_encoder.text_model.final_layer_norm"),
        # transformers 5 names CLIPTextModel's modules without "text_model".
        ("sdxl", "text_encoder.encoder.layers.1.mlp.fc2", "text_encoder.text_model.encoder.layers.1.mlp.fc2"),
        ("sd15", "base_model.model.encoder.layers.1.mlp.fc2", "text_encoder.text_model.encoder.layers.1.mlp.fc2"),
        # ComfyUI's LoraSave, OneTrainer, diffusers 0.23, torch.compile.
        ("sdxl", "text_encoders.clip_l.transformer." + _FC2, "text_encoder." + _FC2),
        ("sdxl", "text_encoders.clip_g.transformer." + _FC2, "text_encoder_2." + _FC2),
        ("sdxl", "text_encoders.clip_g.transformer.text_projection", "text_encoder_2.text_projection"),
        ("sd15", "text_encoders.clip_l.transformer." + _FC2, "text_encoder." + _FC2),
        ("sdxl", "clip_l." + _FC2, "text_encoder." + _FC2),
        ("sdxl", "clip_g." + _FC2, "text_encoder_2." + _FC2),
        ("sdxl", "text_encoder_2.text_encoder_2." + _FC2, "text_encoder_2." + _FC2),
        ("sdxl", "text_encoder._orig_mod." + _FC2, "text_encoder." + _FC2),
        ("sdxl", "lora_te2__orig_mod_" + _FC2.replace(".", "_"), "text_encoder_2." + _FC2),
    ],
)  # fmt: skip
def test_names_of_text_encoders(family: str, name: str, module: str, tmp_path: Path) -> None:
    weights = checkpoint(family)
    path = save(tmp_path, {f"{name}.diff": torch.ones_like(weights[f"{module}.weight"])})
    (change,) = read_adapter(path, shapes(weights)).changes
    assert change.tensor == f"{module}.weight"


def test_a_name_that_fits_both_text_encoders_is_refused(tmp_path: Path) -> None:
    weights = checkpoint("sdxl")
    small = "text_encoder.text_model.encoder.layers.0.mlp.fc1.weight"
    big = small.replace("text_encoder", "text_encoder_2")
    same = {**weights, big: weights[small]}
    path = save(tmp_path, lora("text_model.encoder.layers.0.mlp.fc1", weights[small]))
    with pytest.raises(WeightsError, match=r"either text encoder.*text_encoder\.text_model.* or text_encoder_2"):
        read_adapter(path, shapes(same))


@pytest.mark.parametrize(
    ("ending", "attention"),
    [
        (".{0}.lora.{1}.weight", "unet.mid_block.attentions.0.transformer_blocks.0.attn1"),
        (".{0}_lora.{1}.weight", "unet.mid_block.attentions.0.transformer_blocks.0.attn1"),
        (".processor.{0}_lora.{1}.weight", "unet.mid_block.attentions.0.transformer_blocks.0.attn1"),
        (".processor.{0}_lora.{1}.weight", "mid_block.attentions.0.transformer_blocks.0.attn1"),
        (".{0}_lora.{1}.weight", "text_encoder.text_model.encoder.layers.0.self_attn"),
    ],
)
def test_names_of_diffusers_before_peft(ending: str, attention: str, tmp_path: Path) -> None:
    weights = checkpoint("sd15")
    unet = "transformer_blocks" in attention
    path = f"unet.{attention.removeprefix('unet.')}" if unet else attention
    modules = ("to_q", "to_k", "to_v", "to_out.0") if unet else ("q_proj", "k_proj", "v_proj", "out_proj")
    tensors = {}
    for old, module in zip(("to_q", "to_k", "to_v", "to_out"), modules, strict=True):
        width = weights[f"{path}.{module}.weight"].shape
        tensors[attention + ending.format(old, "down")] = torch.randn(2, width[1])
        tensors[attention + ending.format(old, "up")] = torch.randn(width[0], 2)
    adapter = read_adapter(save(tmp_path, tensors), shapes(weights))
    assert {change.tensor for change in adapter.changes} == {f"{path}.{module}.weight" for module in modules}
    assert adapter.layout == "diffusers (old)"
    assert adapter.applied == {path.split(".")[0]: 8}


def test_mixed_layouts_are_all_told(tmp_path: Path) -> None:
    weights = checkpoint("sdxl")
    tensors = (
        lora("lora_unet_conv_out", weights["unet.conv_out.weight"])
        | lora("lora_unet_input_blocks_0_0", weights["unet.conv_in.weight"])
        | lora("unet.mid_block.attentions.0.proj_in", weights["unet.mid_block.attentions.0.proj_in.weight"])
        | lora("lora_te2_text_projection", weights["text_encoder_2.text_projection.weight"])
    )
    adapter = read_adapter(save(tmp_path, tensors), shapes(weights))
    assert adapter.layout == "PEFT + kohya, SGM blocks + kohya, diffusers blocks"
    assert adapter.applied == {"text_encoder_2": 3, "unet": 9}


def test_a_module_by_two_of_its_names_is_refused(tmp_path: Path) -> None:
    weight = checkpoint("sdxl")["unet.conv_out.weight"]
    tensors = lora("unet.conv_out", weight) | lora("unet._orig_mod.conv_out", weight)
    with pytest.raises(WeightsError, match=r"places are named by more than one key: unet\.conv_out"):
        read_adapter(save(tmp_path, tensors), shapes(checkpoint("sdxl")))


def test_a_program_is_named_once_for_its_unet_and_text_encoders(tmp_path: Path) -> None:
    weights = checkpoint("sdxl")
    names = {
        "diffusion_model.out.2": "unet.conv_out",
        "text_encoders.clip_l.transformer." + _FC2: "text_encoder." + _FC2,
    }
    tensors = {
        key: part for name, module in names.items() for key, part in lora(name, weights[f"{module}.weight"]).items()
    }
    assert read_adapter(save(tmp_path, tensors), shapes(weights)).layout == "ComfyUI, SGM blocks"
