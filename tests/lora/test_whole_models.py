"""Whole UNets and text encoders: what trainers wrote, applied here, against what they themselves make of it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import Weights, checkpoint, save, shapes
from diffusers import StableDiffusionXLPipeline
from diffusers.utils import convert_state_dict_to_diffusers
from layouts import make_unet
from lycoris import LycorisNetwork, create_lycoris
from peft import LoHaConfig, LoKrConfig, LoraConfig, get_peft_model, get_peft_model_state_dict, inject_adapter_in_model
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from bench.errors import WeightsError
from bench.lora.algorithms import Adapter, Change, can_run_unfused, changed, with_start
from bench.lora.apply import AdapterParts, attach, check_values
from bench.lora.parse import read_adapter

TARGETS = r".*(to_q|to_v|to_out\.0|ff\.net\.2|proj_in|conv1|conv_shortcut|linear_1)"
LINEAR = r".*(to_q|to_v|to_out\.0|ff\.net\.2|linear_1)"
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def randomise(model: nn.Module, of: str, seed: int = 3) -> None:
    """Gives every trained parameter a value of its own."""
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if of in name:
            nn.init.normal_(parameter.data, std=0.2)


def inputs(family: str) -> dict[str, Any]:
    """One call of a tiny UNet."""
    torch.manual_seed(4)
    call: dict[str, Any] = {
        "sample": torch.randn(2, 4, 8, 8),
        "timestep": 500,
        "encoder_hidden_states": torch.randn(2, 5, 16),
    }
    if family != "sd15":
        call["added_cond_kwargs"] = {"text_embeds": torch.randn(2, 8), "time_ids": torch.arange(12.0).reshape(2, 6)}
    return call


@torch.no_grad()
def rendered(unet: nn.Module, family: str) -> torch.Tensor:
    return unet(**inputs(family)).sample


def fused(adapter: Adapter, weights: Weights, strength: float) -> Weights:
    """The checkpoint with a LoRA in it."""
    parts = AdapterParts(adapter.path)
    found = {}
    for change in adapter.changes:
        weight = weights[change.tensor]
        found[change.tensor] = changed(change, weight, with_start(change, parts.of(change), weight), strength)
    return weights | found


def of_unet(weights: Weights) -> Weights:
    return {name.removeprefix("unet."): tensor for name, tensor in weights.items() if name.startswith("unet.")}


LYCORIS: dict[str, dict[str, Any]] = {
    "LoCon": {"algo": "lora"},
    "LoCon with Tucker": {"algo": "lora", "use_tucker": True},
    "rsLoRA": {"algo": "lora", "rs_lora": True},
    "DoRA": {"algo": "lora", "dora_wd": True},
    "DoRA per input": {"algo": "lora", "dora_wd": True, "wd_on_output": False},
    "LoHa": {"algo": "loha"},
    "LoHa with Tucker": {"algo": "loha", "use_tucker": True},
    "DoRA of LoHa": {"algo": "loha", "dora_wd": True},
    "LoKr": {"algo": "lokr", "factor": 2},
    "LoKr with Tucker": {"algo": "lokr", "factor": 2, "use_tucker": True},
    "LoKr of four": {"algo": "lokr", "factor": 2, "decompose_both": True, "linear_dim": 1},
    "LoKr of whole matrices": {"algo": "lokr", "factor": 2, "linear_dim": 100},
    "full": {"algo": "full"},
}


@pytest.mark.parametrize(
    ("family", "kind"), [("sd15", "LoCon"), ("sdxl", "DoRA"), *(("mini", kind) for kind in LYCORIS)]
)
def test_lycoris_renders_the_same_with_its_network_beside_the_unet(family: str, kind: str, tmp_path: Path) -> None:
    unet = make_unet(family)
    network = trained_by_lycoris(unet, LYCORIS[kind])
    tensors = network.state_dict()
    weights = checkpoint(family)
    adapter = read_adapter(save(tmp_path, tensors), shapes(weights))
    check_values(adapter)
    assert adapter.keys == len(tensors) == adapter.applied["unet"]
    theirs = rendered(unet, family)
    ours = make_unet(family)
    before = rendered(ours, family)
    ours.load_state_dict(of_unet(fused(adapter, weights, 1.0)))
    assert (theirs - before).abs().max() > 0.01
    torch.testing.assert_close(rendered(ours, family), theirs, rtol=1e-3, atol=1e-4)


def trained_by_lycoris(unet: nn.Module, options: dict[str, Any]) -> LycorisNetwork:
    """lycoris's network on every module of the blocks and on two beside them, with values as if trained."""
    targets = {"target_module": ["Transformer2DModel", "ResnetBlock2D"], "target_name": ["conv_in", "time_embedding.*"]}
    LycorisNetwork.apply_preset({"enable_conv": True} | targets)
    network = create_lycoris(unet, 1.0, **({"linear_dim": 3, "linear_alpha": 2.0, "train_norm": True} | options))
    network.apply_to()  # only now has it parameters
    torch.manual_seed(3)
    for parameter in network.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    return network.eval()


PEFT: dict[str, Any] = {
    "LoRA": LoraConfig(r=3, lora_alpha=5, target_modules=TARGETS),
    "patterns": LoraConfig(
        r=3,
        lora_alpha=5,
        target_modules=TARGETS,
        rank_pattern={"to_q": 2, r"mid_block.*proj_in": 1},
        alpha_pattern={"attn2.to_q": 7, "conv1": 1},
    ),
    "rsLoRA": LoraConfig(r=3, lora_alpha=5, target_modules=TARGETS, use_rslora=True),
    "DoRA": LoraConfig(r=3, lora_alpha=5, target_modules=TARGETS, use_dora=True),
    "LoHa": LoHaConfig(r=3, alpha=5, target_modules=TARGETS),
    "LoHa with Tucker": LoHaConfig(r=3, alpha=5, target_modules=TARGETS, use_effective_conv2d=True),
    "LoKr": LoKrConfig(r=2, alpha=5, target_modules=TARGETS),
    "LoKr with Tucker": LoKrConfig(
        r=1, alpha=5, target_modules=TARGETS, use_effective_conv2d=True, decompose_both=True
    ),
    "LoKr of whole matrices": LoKrConfig(r=50, alpha=5, target_modules=TARGETS),
    "PiSSA": LoraConfig(r=3, lora_alpha=5, target_modules=LINEAR, init_lora_weights="pissa"),
    "PiSSA, rsLoRA, DoRA": LoraConfig(
        r=3, lora_alpha=5, target_modules=LINEAR, init_lora_weights="pissa", use_rslora=True, use_dora=True
    ),
    "OLoRA": LoraConfig(r=3, lora_alpha=5, target_modules=LINEAR, init_lora_weights="olora"),
    "orthogonal": LoraConfig(r=4, lora_alpha=5, target_modules=LINEAR, init_lora_weights="orthogonal"),
    "MiCA": LoraConfig(r=3, lora_alpha=5, target_modules=LINEAR, init_lora_weights="mica"),
}


@pytest.mark.parametrize(("family", "kind"), [("sd15", "LoRA"), ("sdxl", "DoRA"), *(("mini", kind) for kind in PEFT)])
def test_peft_merges_the_same_weights(family: str, kind: str, tmp_path: Path) -> None:
    model = get_peft_model(make_unet(family), copy.deepcopy(PEFT[kind]))
    for mark in ("lora_A", "lora_B", "hada_", "lokr_"):
        randomise(model, mark)
    for name, parameter in model.named_parameters():
        if "magnitude" in name:
            parameter.data.mul_(torch.rand_like(parameter) + 0.5)
    model.save_pretrained(tmp_path, save_embedding_layers=False)
    weights = checkpoint(family)
    adapter = read_adapter(tmp_path / "adapter_model.safetensors", shapes(weights))
    assert adapter.layout == "PEFT"
    found = of_unet(fused(adapter, weights, 1.0))
    merged = model.merge_and_unload().state_dict()
    assert set(found) == set(merged)
    for name, tensor in merged.items():
        torch.testing.assert_close(found[name], tensor, **CLOSE)
    assert any(not torch.equal(found[name], weights[f"unet.{name}"]) for name in found)


@pytest.mark.filterwarnings("ignore:.*changes the base weights:UserWarning")
@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_what_a_lora_was_begun_with_is_taken_away_as_pefts_own_conversion_does(start: str, tmp_path: Path) -> None:
    config = LoraConfig(r=3, lora_alpha=5, target_modules=LINEAR, init_lora_weights=start)
    model = get_peft_model(make_unet("mini"), config)
    own = model.peft_config["default"]
    own.init_lora_weights = True
    model.save_pretrained(tmp_path / "start")
    own.init_lora_weights = start
    torch.manual_seed(5)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data.add_(torch.randn_like(parameter) * 0.02)
    model.save_pretrained(tmp_path / "trained")
    model.save_pretrained(tmp_path / "converted", path_initial_model_for_weight_conversion=str(tmp_path / "start"))
    weights = checkpoint("mini")
    trained, converted = (
        read_adapter(tmp_path / name / "adapter_model.safetensors", shapes(weights))
        for name in ("trained", "converted")
    )
    assert {change.start for change in trained.changes} == {start}
    assert {change.start for change in converted.changes} == {None}
    assert f"init_lora_weights = '{start}'" in trained.notes[0]
    assert converted.notes == ()
    assert trained.scales != converted.scales  # which is in every digest: the bytes do not tell the start
    ours, theirs = fused(trained, weights, 0.5), fused(converted, weights, 0.5)
    for change in trained.changes:
        torch.testing.assert_close(ours[change.tensor], theirs[change.tensor], **CLOSE)
        small = torch.dist(ours[change.tensor], weights[change.tensor]) / weights[change.tensor].norm()
        assert 0.001 < small < 0.2
    assert not any(map(can_run_unfused, trained.changes))


def test_diffusers_files_with_their_metadata(tmp_path: Path) -> None:
    unet = make_unet("sdxl")
    text_encoder = CLIPTextModel(tiny_text(16))
    config = LoraConfig(r=3, lora_alpha=5, target_modules=["to_q", "to_k"], alpha_pattern={"mid_block.*to_k": 2})
    text_config = LoraConfig(r=2, lora_alpha=9, target_modules=["q_proj", "fc1"], use_rslora=True)
    unet.add_adapter(config)
    inject_adapter_in_model(text_config, text_encoder)
    randomise(unet, "lora_")
    randomise(text_encoder, "lora_")
    StableDiffusionXLPipeline.save_lora_weights(
        tmp_path,
        unet_lora_layers=get_peft_model_state_dict(unet),
        text_encoder_lora_layers=get_peft_model_state_dict(text_encoder),
        unet_lora_adapter_metadata=unet.peft_config["default"].to_dict(),
        text_encoder_lora_adapter_metadata=text_config.to_dict(),
    )
    adapter = read_adapter(tmp_path / "pytorch_lora_weights.safetensors", shapes(checkpoint("sdxl")))
    scales = {change.tensor: (change.alpha, change.scale) for change in adapter.changes}
    for component, model in (("unet", unet), ("text_encoder.text_model", text_encoder)):
        layers = {name: layer for name, layer in model.named_modules() if hasattr(layer, "scaling")}
        assert layers
        for name, layer in layers.items():
            told = scales.pop(f"{component}.{name}.weight")
            assert told == pytest.approx((layer.lora_alpha["default"], layer.scaling["default"]))
    assert not scales


def tiny_text(width: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        hidden_size=width,
        intermediate_size=2 * width,
        num_attention_heads=2,
        num_hidden_layers=2,
        vocab_size=50,
        bos_token_id=48,
        eos_token_id=49,
    )


def test_diffusers_text_encoder_files_before_peft(tmp_path: Path) -> None:
    text_encoder = CLIPTextModel(tiny_text(16))
    inject_adapter_in_model(LoraConfig(r=2, lora_alpha=2, target_modules=["q_proj", "out_proj"]), text_encoder)
    randomise(text_encoder, "lora_")
    old = convert_state_dict_to_diffusers(get_peft_model_state_dict(text_encoder))
    assert all("lora_linear_layer" in key for key in old)
    tensors = {f"text_encoder.{key}": tensor for key, tensor in old.items()}
    adapter = read_adapter(save(tmp_path, tensors), shapes(checkpoint("sdxl")))
    assert adapter.layout == "diffusers (old)"
    assert len(adapter.changes) == 4
    layers = dict(text_encoder.named_modules())
    parts = AdapterParts(adapter.path)
    for change in adapter.changes:
        name = change.tensor.removeprefix("text_encoder.text_model.").removesuffix(".weight")
        zero = torch.zeros(16, 16)
        wanted = layers[name].get_delta_weight("default")
        torch.testing.assert_close(changed(change, zero, parts.of(change), 1.0), wanted, **CLOSE)


@pytest.mark.parametrize(("family", "strength"), [("sdxl", 0.7), ("mini", -1.0), ("sd15", 1.5)])
def test_unfused_and_fused_render_the_same_as_peft(family: str, strength: float, tmp_path: Path) -> None:
    model = get_peft_model(make_unet(family), LoraConfig(r=3, lora_alpha=5, target_modules=TARGETS))
    randomise(model, "lora_")
    model.save_pretrained(tmp_path, save_embedding_layers=False)
    weights = checkpoint(family)
    adapter = read_adapter(tmp_path / "adapter_model.safetensors", shapes(weights))
    for layer in model.modules():
        if hasattr(layer, "scaling"):
            layer.scaling["default"] *= strength
    theirs = rendered(model, family)

    unet = make_unet(family)
    before = rendered(unet, family)
    parts = AdapterParts(adapter.path)
    handles = [
        attach(unet.get_submodule(module_path(change)), change, parts.of(change), strength)
        for change in adapter.changes
    ]
    unfused = rendered(unet, family)
    for handle in handles:
        handle.remove()
    assert torch.equal(rendered(unet, family), before)
    unet.load_state_dict(of_unet(fused(adapter, weights, strength)))
    assert (theirs - before).abs().max() > 0.01
    torch.testing.assert_close(unfused, theirs, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(rendered(unet, family), theirs, rtol=1e-3, atol=1e-4)


def module_path(change: Change) -> str:
    return change.tensor.removeprefix("unet.").removesuffix(".weight")


def test_flat_and_point_shapes_unfused() -> None:
    torch.manual_seed(5)
    for layer, up, down in (
        (nn.Linear(6, 4), torch.randn(4, 2, 1, 1), torch.randn(2, 6, 1, 1)),
        (nn.Conv2d(6, 4, 1), torch.randn(4, 2), torch.randn(2, 6)),
        (nn.Conv2d(6, 4, 3, stride=2, padding=1), torch.randn(4, 2), torch.randn(2, 54)),
    ):
        change = Change("unet.x.weight", "lora", False, 2, None, 0.5, {"up": "", "down": ""})
        parts = {"up": up, "down": down}
        x = torch.randn(3, 6) if isinstance(layer, nn.Linear) else torch.randn(2, 6, 5, 5)
        handle = attach(layer, change, parts, 2.0)
        unfused = layer(x)
        handle.remove()
        layer.weight.data = changed(change, layer.weight.data, parts, 2.0)
        torch.testing.assert_close(layer(x), unfused, **CLOSE)


def test_what_cannot_run_unfused_is_told() -> None:
    plain = Change("unet.x.weight", "lora", False, 2, None, 1.0, {})
    assert can_run_unfused(plain)
    others = [
        plain._replace(dora=True),
        plain._replace(kind="loha"),
        plain._replace(kind="bias", tensor="unet.x.bias"),
        plain._replace(tensor="text_encoder.text_model.embeddings.token_embedding.weight"),
    ]
    assert not any(can_run_unfused(change) for change in others)
    with pytest.raises(WeightsError, match="kind loha cannot run unfused"):
        attach(nn.Linear(2, 2), others[1], {}, 1.0)
    with pytest.raises(WeightsError, match="cannot run unfused"):
        attach(nn.LayerNorm(2), plain, {}, 1.0)
