"""The names of the single-file (LDM) layout, and tensors split and joined bit for bit."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from bench.checkpoints.checkpoint import Tensor
from bench.checkpoints.families import family_tensors
from bench.checkpoints.ldm_layout import LdmTensor, join, ldm_tensors
from bench.errors import WeightsError


def entries(family: str) -> dict[str, LdmTensor]:
    return {entry.key: entry for entry in ldm_tensors(family_tensors(family))}


def draw(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(name.encode()))
    return torch.randn(shape, generator=generator).half()


@pytest.mark.parametrize(("family", "count"), [("sdxl", 2515 - 1), ("sd15", 1145 - 14)])
def test_every_tensor_of_the_released_files_but_those_that_nothing_reads(family: str, count: int) -> None:
    # sd_xl_base_1.0.safetensors has CLIP's logit_scale as well, v1-5-pruned-emaonly.safetensors 14 noise schedules.
    found = ldm_tensors(family_tensors(family))
    assert len(found) == count
    assert [entry.key for entry in found] == sorted(entry.key for entry in found)
    parts = Counter(part for entry in found for part in entry.parts)
    assert parts == Counter(dict.fromkeys(family_tensors(family), 1))


def test_names_and_shapes_as_sdxl_was_released() -> None:
    sdxl = entries("sdxl")
    text = "conditioner.embedders.0.transformer.text_model"
    clip_g = "conditioner.embedders.1.model"
    known: dict[str, tuple[int, ...]] = {
        "model.diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3),
        "model.diffusion_model.label_emb.0.0.weight": (1280, 2816),
        "model.diffusion_model.input_blocks.4.1.transformer_blocks.1.attn2.to_k.weight": (640, 2048),
        "model.diffusion_model.middle_block.1.transformer_blocks.9.ff.net.0.proj.weight": (10240, 1280),
        "model.diffusion_model.output_blocks.2.2.conv.weight": (1280, 1280, 3, 3),
        "model.diffusion_model.out.2.bias": (4,),
        "first_stage_model.encoder.mid.attn_1.q.weight": (512, 512, 1, 1),
        "first_stage_model.decoder.up.0.block.0.nin_shortcut.weight": (128, 256, 1, 1),
        "first_stage_model.decoder.up.3.upsample.conv.weight": (512, 512, 3, 3),
        "first_stage_model.encoder.norm_out.weight": (512,),
        "first_stage_model.post_quant_conv.bias": (4,),
        f"{text}.embeddings.position_ids": (1, 77),
        f"{text}.encoder.layers.11.mlp.fc1.weight": (3072, 768),
        f"{clip_g}.positional_embedding": (77, 1280),
        f"{clip_g}.text_projection": (1280, 1280),
        f"{clip_g}.transformer.resblocks.31.attn.in_proj_weight": (3840, 1280),
        f"{clip_g}.transformer.resblocks.31.attn.in_proj_bias": (3840,),
        f"{clip_g}.transformer.resblocks.0.mlp.c_proj.weight": (1280, 5120),
        f"{clip_g}.ln_final.bias": (1280,),
        f"{clip_g}.token_embedding.weight": (49408, 1280),
    }
    assert {key: sdxl[key].shape for key in known} == known
    assert "cond_stage_model.transformer.text_model.embeddings.position_ids" in entries("sd15")


def test_joins() -> None:
    tiny = entries("tiny")
    kinds = Counter(entry.join for entry in tiny.values())
    assert (kinds["rows"], kinds["transpose"], kinds["conv"], kinds["positions"]) == (4, 1, 8, 1)
    packed = tiny["conditioner.embedders.1.model.transformer.resblocks.1.attn.in_proj_weight"]
    assert [part.split(".")[-2] for part in packed.parts] == ["q_proj", "k_proj", "v_proj"]
    positions = tiny["conditioner.embedders.0.transformer.text_model.embeddings.position_ids"]
    assert join(positions, []).tolist() == [list(range(77))]
    assert join(positions, []).dtype == torch.int64


def parts_of(entry: LdmTensor, tensor: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The parts of a stored tensor, by its definition."""
    if entry.join == "positions":
        return ()
    if entry.join == "rows":
        return tensor.chunk(len(entry.parts))
    if entry.join == "transpose":
        return (tensor.T,)
    return (tensor[:, :, 0, 0] if entry.join == "conv" else tensor,)


def test_apart_and_together_again_bit_for_bit() -> None:
    tensors = family_tensors("tiny")
    for entry in ldm_tensors(tensors):
        parts = [draw(part, tensors[part].shape) for part in entry.parts]
        whole = join(entry, parts)
        assert (tuple(whole.shape), whole.is_contiguous()) == (entry.shape, True)
        assert all(torch.equal(*pair) for pair in zip(parts_of(entry, whole), parts, strict=True)), entry.key


def test_a_transposed_projection_is_no_square_by_chance() -> None:
    name = "text_encoder_2.text_projection.weight"
    (entry,) = ldm_tensors({name: Tensor((2, 3), "float32")})
    part = torch.arange(6.0).view(2, 3)
    assert join(entry, [part]).tolist() == [[0, 3], [1, 4], [2, 5]]


def test_what_has_no_place() -> None:
    for name in ("text_encoder_2.visual_projection.weight", "safety_checker.weight"):
        with pytest.raises(WeightsError, match="has no place in a single file"):
            ldm_tensors({name: Tensor((1,), "float32")})
    with pytest.raises(WeightsError, match=r"unet\.other\.weight: has no place in a single file"):
        ldm_tensors({**family_tensors("tiny"), "unet.other.weight": Tensor((1,), "float16")})
    packed = "text_encoder_2.text_model.encoder.layers.0.self_attn.{}_proj.bias"
    mixed = {packed.format(side): Tensor((4,), dtype) for side, dtype in zip("qkv", ("a", "a", "b"), strict=True)}
    with pytest.raises(WeightsError, match="differ in shape or precision"):
        ldm_tensors(mixed)
