"""LoRA files that must not be applied, each with what the user is told."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path

import pytest
import torch
from checkpoints import Weights, checkpoint, lora, random, save, shapes

from bench.errors import WeightsError
from bench.lora.apply import AdapterParts, check_values
from bench.lora.parse import read_adapter

TO_Q = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
KOHYA = "lora_unet_" + TO_Q.replace(".", "_")
SGM = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"
WIDTH = 12
GOOD = {f"{KOHYA}.lora_down.weight": torch.ones(2, WIDTH), f"{KOHYA}.lora_up.weight": torch.ones(WIDTH, 2)}


def changed(**parts: torch.Tensor) -> Weights:
    """A good LoRA with parts of its one module put in, by the ending with ``_`` for the dot."""
    return GOOD | {f"{KOHYA}.{role.replace('__', '.')}": tensor for role, tensor in parts.items()}


def without(ending: str) -> Weights:
    return {key: tensor for key, tensor in GOOD.items() if not key.endswith(ending)}


BAD: dict[str, tuple[Weights, str]] = {
    "no tensors": ({}, "holds no tensors"),
    "one matrix alone": (without("up.weight"), f"1 of 1 modules have matrices.*: {KOHYA} has down and lacks up"),
    "alpha alone": ({f"{KOHYA}.alpha": torch.tensor(1.0)}, "lacks diff"),
    "half a LoHa": (
        {f"{KOHYA}.hada_w1_a": torch.ones(WIDTH, 2), f"{KOHYA}.hada_w1_b": torch.ones(2, WIDTH)},
        "has hada_w1_a, hada_w1_b and lacks hada_w2_a, hada_w2_b",
    ),
    "two kinds": (changed(diff=torch.ones(WIDTH, WIDTH)), r"parts of several changes \(diff, down, up\)"),
    "two norms": (
        changed(dora_scale=torch.ones(WIDTH, 1), lora_magnitude_vector=torch.ones(WIDTH)),
        "parts of several changes",
    ),
    "ranks": (changed(lora_up__weight=torch.ones(WIDTH, 3)), r"up \[12, 3\] and down \[2, 12\] do not multiply"),
    "rank 0": (
        changed(lora_up__weight=torch.ones(WIDTH, 0), lora_down__weight=torch.ones(0, WIDTH), alpha=torch.tensor(1.0)),
        f"1 of 1 modules have matrices.*: {KOHYA} is of rank 0",
    ),
    "no matrix": (changed(lora_up__weight=torch.ones(WIDTH)), r"up \[12\] and down"),
    "wrong width": (
        changed(lora_down__weight=torch.ones(2, 10)),
        rf"LoRA for another model: unet\.{re.escape(TO_Q)} \(the checkpoint has \[12, 12\], the LoRA \[12, 10\]\)",
    ),
    "norms of no axis": (changed(dora_scale=torch.ones(WIDTH)[None, :5]), r"norms \[1, 5\] for a weight \[12, 12\]"),
    "bias of none": ({f"{KOHYA}.diff_b": torch.ones(WIDTH)}, "has no bias in the checkpoint"),
    "twice in two namings": (
        GOOD | {key.replace(KOHYA, SGM): tensor for key, tensor in GOOD.items()},
        rf"1 of 2 places are named by more than one key: unet\.{re.escape(TO_Q)}\.weight",
    ),
    "twice in two endings": (
        {f"unet.{TO_Q}.{name}": torch.ones(2, WIDTH) for name in ("lora_A.weight", "lora_A.other.weight")},
        r"1 of 1 places.*lora_A\.other\.weight = .*lora_A\.weight",
    ),
    "alpha 0": (changed(alpha=torch.tensor(0.0)), "an alpha of 0, so that they change nothing"),
    "alpha NaN": (changed(alpha=torch.tensor(float("nan"))), r"an alpha that is not finite: unet.*\(nan\)"),
    "alpha of many": (changed(alpha=torch.ones(2)), r"alpha should be one number, and is float32 of shape \[2\]"),
    "alpha of booleans": (changed(alpha=torch.tensor(True)), "alpha should be one number, and is bool"),
    "ranks of a Tucker core": (
        changed(lora_mid__weight=torch.ones(2, 3, 3, 3)),
        r"Tucker core \[2, 3, 3, 3\] does not multiply with \[2, 12\] and \[2, 12\]",
    ),
    "ranks of the factors": (
        {
            f"{KOHYA}.lokr_w1_a": torch.ones(2, 1),
            f"{KOHYA}.lokr_w1_b": torch.ones(1, 2),
            f"{KOHYA}.lokr_w2_a": torch.ones(6, 2),
            f"{KOHYA}.lokr_w2_b": torch.ones(2, 6),
        },
        "factors are of rank 1 and 2",
    ),
    "halves of a LoHa": (
        {
            f"{KOHYA}.hada_w1_a": torch.ones(WIDTH, 2),
            f"{KOHYA}.hada_w1_b": torch.ones(2, WIDTH),
            f"{KOHYA}.hada_w2_a": torch.ones(WIDTH, 3),
            f"{KOHYA}.hada_w2_b": torch.ones(3, WIDTH),
        },
        r"halves are \[12, 12\] at rank 2 and \[12, 12\] at rank 3",
    ),
}


@pytest.mark.parametrize(("tensors", "told"), BAD.values(), ids=BAD)
def test_wrong_tensors(tensors: Weights, told: str, tmp_path: Path) -> None:
    path = save(tmp_path, tensors)
    with pytest.raises(WeightsError, match=told) as caught:
        read_adapter(path, shapes(checkpoint("sdxl")))
    assert str(path) in caught.value.message
    assert caught.value.exit_code == 3


LEFT_OVER = {
    "lora_unet_x.oft_blocks": "OFT",
    "lora_unet_x.on_input": r"\(IA\)\^3",
    f"{KOHYA}.a1.weight": "GLoRA",
    "emb_params": "a textual inversion",
    "clip_g": "a textual inversion",
    "model.diffusion_model.out.2.weight": "a whole checkpoint",
    "unet.conv_out.weight": "weights of a whole model",
    "lora_unet_double_blocks_0_img_attn_proj.lora_up.weight": "a LoRA of Flux",
    "transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight": "a LoRA of Flux",
    "diffusion_model.double_blocks.0.img_attn.proj.lora_A.weight": "a LoRA of Flux",
    "lora_transformer_single_transformer_blocks_0_attn_to_q.lora_down.weight": "a LoRA of Flux",
    "transformer.transformer_blocks.0.attn.to_q.lora_A.weight": "a diffusion transformer",
    "diffusion_model.blocks.0.self_attn.q.lora_A.weight": "a diffusion transformer",
    "diffusion_model.joint_blocks.0.x_block.attn.qkv.lora_A.weight": "Stable Diffusion 3",
    "lora_unet_joint_blocks_0_x_block_attn_qkv.lora_up.weight": "Stable Diffusion 3",
    "lora_unet_down_blocks_0_attentions_0_proj_in.lora_up.weight": "an SD 1.5 UNet",
    "lora_te_text_model_encoder_layers_0_mlp_fc1.alpha": "an SD 1.5 model",
    "down_blocks.1.motion_modules.0.x.lora_A.weight": "AnimateDiff",
    "image_proj.proj.weight": "an IP-Adapter",
    "unet.conv_out.lora_B.bias": "lora_bias",
    "text_encoder.x.lora_embedding_A": "token embedding",
    "nonsense": "no layout of LoRA files",
}


@pytest.mark.parametrize(("key", "told"), LEFT_OVER.items())
def test_one_key_left_over_stops_everything(key: str, told: str, tmp_path: Path) -> None:
    path = save(tmp_path, GOOD | {key: torch.ones(2, 2)})
    with pytest.raises(WeightsError, match=rf"1 of 3 keys of the LoRA fit nothing .*unet 2 fit.*: .*{told}") as caught:
        read_adapter(path, shapes(checkpoint("sdxl")))
    assert key in caught.value.message


def test_left_over_keys_are_counted_by_component_and_the_first_are_named(tmp_path: Path) -> None:
    weights = checkpoint("sdxl")
    tensors = GOOD | lora("lora_te2_text_projection", weights["text_encoder_2.text_projection.weight"])
    tensors |= {f"lora_te1_text_model_encoder_layers_{n}_mlp_fc1.alpha": torch.tensor(1.0) for n in (0, 7, 8, 9, 6)}
    tensors |= {"lora_unet_other.alpha": torch.tensor(1.0)}
    with pytest.raises(WeightsError) as caught:
        read_adapter(save(tmp_path, tensors), shapes(weights))
    assert caught.value.message.partition(": ")[2] == (
        "5 of 11 keys of the LoRA fit nothing in the checkpoint (text_encoder 1 fit, 4 left over, "
        "text_encoder_2 3 fit, 0 left over, unet 2 fit, 1 left over): "
        "lora_te1_text_model_encoder_layers_6_mlp_fc1.alpha, lora_te1_text_model_encoder_layers_7_mlp_fc1.alpha, "
        "lora_te1_text_model_encoder_layers_8_mlp_fc1.alpha and 2 more. They look like keys of SDXL's text encoders."
    )


@pytest.mark.parametrize(
    ("key", "component"),
    [
        ("conditioner.embedders.0.transformer.text_model.final_layer_norm.weight", "text_encoder"),
        ("conditioner.embedders.1.model.ln_final.weight", "text_encoder_2"),
        ("cond_stage_model.transformer.text_model.final_layer_norm.weight", "text_encoder"),
    ],
)
def test_keys_of_published_text_encoders_are_counted_as_theirs(key: str, component: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=rf"\({component} 0 fit, 1 left over, unet 2 fit, 0 left over\)"):
        read_adapter(save(tmp_path, GOOD | {key: torch.ones(2)}), shapes(checkpoint("sdxl")))


@pytest.mark.parametrize("alpha", [0.0, float("inf")])
def test_what_is_wrong_with_an_alpha_is_not_put_down_to_the_family(alpha: float, tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        read_adapter(save(tmp_path, changed(alpha=torch.tensor(alpha))), shapes(checkpoint("sdxl")))
    assert "alpha / rank" in caught.value.hint
    assert "family" not in caught.value.hint


def test_an_sdxl_lora_on_sd15_and_the_other_way_round(tmp_path: Path) -> None:
    loras = {}
    for family in ("sdxl", "sd15"):
        weights = checkpoint(family)
        names = [name for name in weights if name.endswith(("proj.weight", "proj_in.weight", "to_q.weight"))]
        te = {"unet": "unet", "text_encoder": "te" if family == "sd15" else "te1", "text_encoder_2": "te2"}
        tensors: Weights = {}
        for name in names:
            component, _, path = name.removesuffix(".weight").partition(".")
            tensors |= lora(f"lora_{te[component]}_{path.replace('.', '_')}", weights[name])
        loras[family] = save(tmp_path, tensors, name=family)
        assert read_adapter(loras[family], shapes(weights)).keys == len(tensors)
    with pytest.raises(WeightsError, match=r"look like kohya keys of an SD 1\.5"):
        read_adapter(loras["sd15"], shapes(checkpoint("sdxl")))
    with pytest.raises(WeightsError, match=r"look like keys of (an SDXL UNet|SDXL's text encoders)"):
        read_adapter(loras["sdxl"], shapes(checkpoint("sd15")))


def raw(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def one(shape: list[int], *offsets: int) -> dict[str, object]:
    return {"dtype": "F32", "shape": shape, "data_offsets": list(offsets)}


TWO_KEYS = (
    b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
)
DAMAGED = {
    "empty": b"",
    "eight bytes short": b"abc",
    "huge header": raw({"a": one([1], 0, 4)}, b"0000", length=2**60),
    "header longer than the file": raw({"a": one([1], 0, 4)}, b"0000", length=5000),
    "cut short": raw({"a": one([2], 0, 8)}, b"0000"),
    "more bytes than told": raw({"a": one([1], 0, 4)}, b"00000000"),
    "shape and bytes differ": raw({"a": one([3], 0, 8)}, b"00000000"),
    "shape that overflows": raw({"a": one([2**40, 2**40], 0, 8)}, b"00000000"),
    "one place for two": raw({"a": one([1], 0, 4), "b": one([1], 0, 4)}, b"0000"),
    "key given twice": raw(TWO_KEYS, b"0000"),
    "no JSON": raw(b"{nonsense", b""),
    "a pickle": b"PK\x03\x04" + bytes(200),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_damaged_files(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"x\.safetensors: is damaged, cut short, or not a \.safetensors file: \S.*"):
        read_adapter(path, shapes(checkpoint("sdxl")))


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.safetensors"):
        with pytest.raises(WeightsError, match="is damaged"):
            read_adapter(path, shapes(checkpoint("sdxl")))


def test_values_that_are_not_finite_are_counted(tmp_path: Path) -> None:
    tensors = changed(lora_up__weight=random(WIDTH, 2))
    tensors[f"{KOHYA}.lora_up.weight"][0] = torch.tensor([float("inf"), float("nan")])
    adapter = read_adapter(save(tmp_path, tensors), shapes(checkpoint("sdxl")))
    told = rf"2 of 24 values of {KOHYA}\.lora_up\.weight are not finite"
    with pytest.raises(WeightsError, match=told):
        check_values(adapter)
    parts = AdapterParts(adapter.path)
    with pytest.raises(WeightsError, match=told):
        parts.of(adapter.changes[0])


def test_only_a_file_that_is_zero_everywhere_changes_nothing(tmp_path: Path) -> None:
    weights = checkpoint("sdxl")
    zero = changed(lora_up__weight=torch.zeros(WIDTH, 2))
    adapter = read_adapter(save(tmp_path, zero), shapes(weights))
    with pytest.raises(WeightsError, match=rf"changes nothing.*1 modules.*{re.escape(TO_Q)}"):
        check_values(adapter)
    more = zero | lora("lora_te2_text_projection", weights["text_encoder_2.text_projection.weight"])
    check_values(read_adapter(save(tmp_path, more, name="more"), shapes(weights)))
    norms = zero | {f"{KOHYA}.dora_scale": torch.ones(WIDTH, 1)}
    check_values(read_adapter(save(tmp_path, norms, name="norms"), shapes(weights)))


INTEGERS = (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.bool)


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("role", ["lora_up.weight", "dora_scale", "diff_b"])
def test_whole_numbers_are_no_weights(role: str, dtype: torch.dtype, tmp_path: Path) -> None:
    key = f"{KOHYA}.{role}" if role != "diff_b" else "lora_unet_conv_out.diff_b"
    part = {"lora_up.weight": torch.ones(WIDTH, 2), "dora_scale": torch.ones(WIDTH, 1), "diff_b": torch.ones(4)}[role]
    path = save(tmp_path, GOOD | {key: part.to(dtype)})
    name = str(dtype).removeprefix("torch.")
    with pytest.raises(
        WeightsError, match=rf"1 of \d tensors are stored as whole numbers.* such as {re.escape(key)} \({name}\)"
    ):
        read_adapter(path, shapes(checkpoint("sdxl")))


@pytest.mark.parametrize("dtype", INTEGERS[:-1])
def test_an_alpha_may_be_a_whole_number(dtype: torch.dtype, tmp_path: Path) -> None:
    (change,) = read_adapter(
        save(tmp_path, changed(alpha=torch.tensor(4, dtype=dtype))), shapes(checkpoint("sdxl"))
    ).changes
    assert (change.alpha, change.scale) == (4.0, 2.0)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.float64])
def test_other_floats_are_the_numbers_that_they_say(dtype: torch.dtype, tmp_path: Path) -> None:
    up = torch.arange(WIDTH * 2).reshape(WIDTH, 2) / 16
    adapter = read_adapter(save(tmp_path, changed(lora_up__weight=up.to(dtype))), shapes(checkpoint("sdxl")))
    assert torch.equal(AdapterParts(adapter.path).of(adapter.changes[0])["up"], up.to(dtype).float())


BUNDLED = {"bundle_emb.cat.clip_l": torch.ones(1, 16), "bundle_emb.cat.clip_g": torch.ones(1, 24)}


def test_bundled_embeddings_are_left_out_only_where_the_user_says_so(tmp_path: Path) -> None:
    there = shapes(checkpoint("sdxl"))
    path = save(tmp_path, GOOD | BUNDLED)
    with pytest.raises(WeightsError, match=r"holds embeddings beside the LoRA.*: bundle_emb\.cat\.clip_g") as caught:
        read_adapter(path, there)
    assert 'leave_out = ["bundle_emb"]' in caught.value.hint
    rest = read_adapter(path, there, ("bundle_emb",))
    assert rest.changes == read_adapter(save(tmp_path, GOOD, name="bare"), there).changes
    assert (rest.keys, rest.applied) == (2, {"unet": 2})
    assert rest.notes == ("2 tensors of embeddings (bundle_emb) left out, as leave_out says.",)


def test_what_is_left_out_must_be_there_and_not_be_all(tmp_path: Path) -> None:
    there = shapes(checkpoint("sdxl"))
    with pytest.raises(WeightsError, match="leave_out names bundle_emb, and no key of the file begins so"):
        read_adapter(save(tmp_path, GOOD), there, ("bundle_emb",))
    with pytest.raises(WeightsError, match="holds no tensors but those of leave_out"):
        read_adapter(save(tmp_path, BUNDLED), there, ("bundle_emb",))


def test_a_lora_of_stable_diffusion_2_is_named(tmp_path: Path) -> None:
    to_k = "lora_unet_down_blocks_{}_attentions_0_transformer_blocks_0_attn2_to_k"
    for level, told in ((1, "have other shapes"), (3, "fit nothing in the checkpoint")):
        path = save(tmp_path, lora(to_k.format(level), torch.ones(WIDTH, 1024)))
        with pytest.raises(WeightsError, match=rf"{told}.*looks? like a LoRA of Stable Diffusion 2"):
            read_adapter(path, shapes(checkpoint("sdxl")))


@pytest.mark.parametrize("begun", ["pissa_niter_4", "corda", "lora_ga", "loftq", "a new one"])
def test_a_lora_that_fits_changed_weights_only(begun: str, tmp_path: Path) -> None:
    told = json.dumps({"unet.r": 2, "unet.lora_alpha": 2, "unet.init_lora_weights": begun})
    path = save(tmp_path, GOOD, {"lora_adapter_metadata": told})
    with pytest.raises(WeightsError, match=f"begun with init_lora_weights = '{begun}'.*fits no others") as caught:
        read_adapter(path, shapes(checkpoint("sdxl")))
    assert ("path_initial_model_for_weight_conversion" in caught.value.hint) == (begun != "loftq")


@pytest.mark.parametrize("begun", [None, True, False, "gaussian", "eva", "orthogonal", "mica"])
def test_a_lora_that_was_begun_with_a_change_of_0_is_a_plain_one(begun: bool | str | None, tmp_path: Path) -> None:
    told = json.dumps({"unet.r": 2, "unet.lora_alpha": 2, "unet.init_lora_weights": begun})
    adapter = read_adapter(save(tmp_path, GOOD, {"lora_adapter_metadata": told}), shapes(checkpoint("sdxl")))
    assert [change.start for change in adapter.changes] == [None]
    assert adapter.notes == ()


def test_a_convolution_is_not_begun_with_pissa(tmp_path: Path) -> None:
    told = json.dumps({"unet.r": 2, "unet.lora_alpha": 2, "unet.init_lora_weights": "pissa"})
    path = save(tmp_path, lora("lora_unet_conv_out", checkpoint("sdxl")["unet.conv_out.weight"], alpha=None))
    read_adapter(path, shapes(checkpoint("sdxl")))
    path = save(
        tmp_path,
        lora("lora_unet_conv_out", checkpoint("sdxl")["unet.conv_out.weight"]),
        {"lora_adapter_metadata": told},
    )
    with pytest.raises(WeightsError, match=r"conv_out.* is a convolution, which PEFT does not begin with pissa"):
        read_adapter(path, shapes(checkpoint("sdxl")))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "cannot be read"),
        ('{"unet.use_qalora": true}', r"of a kind of PEFT's LoRAs \(use_qalora\)"),
        ('{"unet.alora_invocation_tokens": [1, 2]}', r"kind of PEFT's LoRAs \(alora_invocation_tokens\)"),
        ('["unet"]', "is not a table"),
        ('{"unet.lora_alpha": "much"}', "lora_alpha: expected"),
        ('{"unet.alpha_pattern": {"(": 1}}', "not a regular expression"),
        ('{"unet.r": 4, "unet.lora_alpha": 4}', "of rank 4 by the metadata, and of rank 2 by its matrices"),
        ('{"unet.lora_alpha": 4, "unet.use_dora": true}', "lacks lora_magnitude_vector"),
        ('{"unet.lora_alpha": 0}', "an alpha of 0"),
    ],
)
def test_metadata_that_is_wrong(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=told):
        read_adapter(save(tmp_path, GOOD, {"lora_adapter_metadata": text}), shapes(checkpoint("sdxl")))
