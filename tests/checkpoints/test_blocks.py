"""Names of blocks, against those of single files and against diffusers' own conversion."""

from __future__ import annotations

import pytest
import torch
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from layouts import LAYOUTS, make_unet

from bench.checkpoints.blocks import (
    BlockMap,
    block_names,
    block_of,
    check_blocks,
    count_blocks,
    ldm_unet_name,
    weight_of,
)
from bench.errors import SuiteError, WeightsError
from bench.records import Lora

Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module", params=LAYOUTS)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def weights(family: str) -> Weights:
    return {f"unet.{name}": tensor for name, tensor in make_unet(family).state_dict().items()}


def test_diffusers_converts_the_single_file_names_back_to_the_same_weights(family: str, weights: Weights) -> None:
    blocks = count_blocks(weights)
    names = {ldm_unet_name(name, blocks): name for name in weights}
    assert len(names) == len(weights)
    ldm = {name: weights[ours] for name, ours in names.items()}
    config = dict(make_unet(family).config)
    back = convert_ldm_unet_checkpoint(ldm, config)
    assert set(back) == {name.removeprefix("unet.") for name in weights}
    assert all(torch.equal(tensor, weights[f"unet.{name}"]) for name, tensor in back.items())


@pytest.mark.parametrize(
    ("family", "levels", "layers", "count"), [("sdxl", 3, 2, 20), ("sd15", 4, 2, 26), ("mini", 2, 1, 10)]
)
def test_blocks_are_counted(family: str, levels: int, layers: int, count: int) -> None:
    blocks = count_blocks(f"unet.{name}" for name in make_unet(family).state_dict())
    assert blocks[:2] == (levels, layers)
    names = block_names(blocks)
    assert len(names) == len(set(names)) == count
    assert names[0] == "IN00"
    assert names[-1] == "BASE"


def test_every_block_has_tensors_and_every_tensor_a_block(weights: Weights) -> None:
    blocks = count_blocks(weights)
    assert {block_of(name, blocks) for name in weights} == set(block_names(blocks))


@pytest.mark.parametrize(
    ("name", "ldm", "block"),
    [  # read off the released sd_xl_base_1.0.safetensors
        ("conv_in.weight", "input_blocks.0.0.weight", "IN00"),
        ("down_blocks.0.downsamplers.0.conv.bias", "input_blocks.3.0.op.bias", "IN03"),
        ("down_blocks.1.attentions.0.norm.weight", "input_blocks.4.1.norm.weight", "IN04"),
        ("down_blocks.2.resnets.1.norm2.bias", "input_blocks.8.0.out_layers.0.bias", "IN08"),
        ("mid_block.resnets.1.time_emb_proj.bias", "middle_block.2.emb_layers.1.bias", "M00"),
        ("up_blocks.0.upsamplers.0.conv.weight", "output_blocks.2.2.conv.weight", "OUT02"),
        ("up_blocks.2.resnets.2.conv_shortcut.bias", "output_blocks.8.0.skip_connection.bias", "OUT08"),
        ("add_embedding.linear_2.weight", "label_emb.0.2.weight", "BASE"),
        ("conv_norm_out.weight", "out.0.weight", "BASE"),
    ],
)
def test_sdxl_names_are_the_released_ones(name: str, ldm: str, block: str) -> None:
    blocks = BlockMap(3, 2, frozenset({0, 1}))
    assert ldm_unet_name(f"unet.{name}", blocks) == f"model.diffusion_model.{ldm}"
    assert block_of(f"unet.{name}", blocks) == block


def test_an_upsampler_without_attention_before_it_comes_second() -> None:
    blocks = BlockMap(4, 2, frozenset({1, 2, 3}))  # SD 1.5
    assert ldm_unet_name("unet.up_blocks.0.upsamplers.0.conv.weight", blocks).endswith(".2.1.conv.weight")


def test_other_components_and_unknown_names() -> None:
    blocks = BlockMap(3, 2, frozenset({0, 1}))
    others = ("text_encoder.x.weight", "text_encoder_2.x.weight", "vae.x.weight")
    assert [block_of(name, blocks) for name in others] == ["TE1", "TE2", "VAE"]
    assert block_of("unet.time_embedding.cond_proj.weight", blocks) == "BASE"  # of LCM's UNet alone
    assert ldm_unet_name("unet.other.weight", blocks) is None
    with pytest.raises(WeightsError, match="no UNet"):
        count_blocks(["vae.encoder.conv_in.weight"])


def test_the_weight_of_a_tensor_is_its_blocks_else_its_components_else_the_loras() -> None:
    blocks = BlockMap(3, 2, frozenset({0, 1}))
    lora = Lora(path="x", weight=0.5, unet=0.25, blocks={"M00": 2.0, "BASE": 0.0})
    names = ("mid_block.resnets.0.conv1.weight", "conv_out.bias", "conv_in.weight")
    assert [weight_of(lora, f"unet.{name}", blocks) for name in names] == [2.0, 0.0, 0.25]
    assert weight_of(lora, "text_encoder.text_model.final_layer_norm.weight", blocks) == 0.5
    other = Lora(path="x", text_encoder=0.0, text_encoder_2=3.0)
    assert [weight_of(other, f"{name}.x.weight", blocks) for name in ("text_encoder", "text_encoder_2", "vae")] == [
        0,
        3,
        1,
    ]


def test_an_unknown_block_is_named_with_the_nearest() -> None:
    blocks = BlockMap(3, 2, frozenset({0, 1}))
    check_blocks(["IN08", "OUT00", "M00", "BASE"], blocks, "suite.toml")
    with pytest.raises(SuiteError, match=r"suite\.toml: blocks: 'IN8' is not a block .*'IN08'.*IN00 to IN08.*OUT08"):
        check_blocks(["IN8"], blocks, "suite.toml")
    with pytest.raises(SuiteError, match="'OUT11'"):
        check_blocks(["OUT11"], blocks, "suite.toml")
