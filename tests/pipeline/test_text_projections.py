"""Keys and values of a prompt are computed once an image, and no bit of the image is changed by it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor

from bench.pipeline import denoise as stages
from bench.pipeline.switch import load_model, restore, switch_variant
from bench.pipeline.text_projections import text_projected_once
from bench.records import Lora, Settings, Variant

SETTINGS = Settings(width=64, height=64, steps=4, guidance_scale=3.0, sampler="ddim", batch=2)
STEPPED = Lora(path="mini:spo", weight=1.0, step_factors=((0.0, 1.0), (0.5, 0.0)))


def variant(*loras: Lora, **fields: Any) -> Variant:
    return Variant(name="x", checkpoint="mini", loras=loras, **fields)


def drawn(pipe: Any, settings: Settings = SETTINGS) -> Tensor:
    encoded = stages.encode(pipe, ["a fox", "a pier by the sea"], ["", "grey"], settings)
    return stages.denoise(pipe, settings, encoded, stages.noise(pipe, settings, [3, 5]), [3, 5])


def by_every_step(monkeypatch: pytest.MonkeyPatch, pipe: Any) -> Tensor:
    """As it is without what is tested here: UNet and pipeline as diffusers has them."""
    with monkeypatch.context() as patch:
        patch.setattr("bench.pipeline.text_projections.is_compiled", lambda unet: True)
        return drawn(pipe)


def counted(unet: Any) -> Counter[str]:
    """How often the weights of each cross-attention's projections are used from now on."""
    counts: Counter[str] = Counter()
    for name, layer in unet.named_modules():
        if name.endswith(("attn2.to_k", "attn2.to_v")):
            plain = layer.forward

            def count(states: Tensor, name: str = name, plain: Any = plain) -> Tensor:
                counts[name] += 1
                return plain(states)

            layer.forward = count
    return counts


@pytest.mark.parametrize(
    "wanted",
    [
        variant(),
        variant(Lora(path="mini:dpo"), fuse=False),
        variant(STEPPED),
        variant(STEPPED, fuse=False),
    ],
    ids=["plain", "unfused", "by step", "by step, unfused"],
)
def test_not_a_bit_differs_from_projecting_in_every_step(wanted: Variant, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = switch_variant(None, wanted, SETTINGS, device="cpu", weights_dir=None)
    assert torch.equal(drawn(model.pipe), by_every_step(monkeypatch, model.pipe))


def test_the_prompt_is_projected_once_an_image_and_once_more_where_weights_change() -> None:
    model = load_model(variant(), SETTINGS, device="cpu")
    counts = counted(model.pipe.unet)
    drawn(model.pipe)
    layers = len(counts)
    assert layers > 0
    assert set(counts.values()) == {1}
    drawn(model.pipe, msgspec.structs.replace(SETTINGS, steps=7))
    assert set(counts.values()) == {2}
    model, _ = switch_variant(model, variant(STEPPED), SETTINGS, device="cpu", weights_dir=None)
    drawn(model.pipe)
    assert set(counts.values()) == {4}, "twice, since the LoRA leaves after half of the steps"
    restore(model)
    assert len(counts) == layers


def test_layers_are_as_before_afterwards_even_after_an_error() -> None:
    unet = load_model(variant(), SETTINGS, device="cpu").pipe.unet
    layer = unet.mid_block.attentions[0].transformer_blocks[0].attn2.to_k
    states = torch.ones(1, 3, layer.in_features)

    def stop(project_anew: Callable[[], None]) -> None:
        once = layer(states)
        assert layer(states) is once
        project_anew()
        assert layer(states) is not once
        raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"), text_projected_once(unet) as project_anew:
        stop(project_anew)
    assert "forward" not in vars(layer)
    assert layer(states) is not layer(states)
