"""Runtimes on the embedded family: each against its algorithm written out anew, and taken away to the last bit."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor

from bench.errors import MachineError, SuiteError, WeightsError
from bench.pipeline import denoise as stages
from bench.pipeline.compiling import is_compiled
from bench.pipeline.runtimes import Quantized, linear_layers
from bench.pipeline.switch import Model, load_pipeline, switch_variant
from bench.records import Lora, Settings, Variant
from bench.render.unfused import compare_unfused
from bench.suite import load_suite

STEPS = 4
SETTINGS = Settings(width=64, height=64, steps=STEPS, guidance_scale=3.0, sampler="ddim", batch=1)
SPO = Lora(path="mini:spo")
INT8, INT8_WEIGHTS = "torchao-int8", "torchao-int8-weights"


def variant(runtime: str | None = None, *loras: Lora, **fields: Any) -> Variant:
    return Variant(name="x", checkpoint="mini", loras=loras, runtime=runtime, **fields)


class Held:
    """One model that is switched between variants."""

    model: Model | None = None

    def become(self, wanted: Variant, settings: Settings = SETTINGS) -> Model:
        self.model, self.audit = switch_variant(self.model, wanted, settings, device="cpu", weights_dir=None)
        return self.model

    def draw(self, wanted: Variant) -> Tensor:
        return drawn(self.become(wanted).pipe)


def drawn(pipe: Any, settings: Settings = SETTINGS) -> Tensor:
    """Latents of an image."""
    encoded = stages.encode(pipe, ["a red tent by the sea"], [""], settings)
    return stages.denoise(pipe, settings, encoded, stages.noise(pipe, settings, [1]), [1])


@pytest.fixture(scope="module")
def held() -> Held:
    return Held()


@pytest.fixture(scope="module")
def plain(held: Held) -> Tensor:
    return held.draw(variant())


def error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("runtime", [INT8, INT8_WEIGHTS, "deepcache:3", "torchao-int8+deepcache:2"])
def test_a_runtime_draws_the_same_again_and_leaves_the_base_as_it_was(held: Held, plain: Tensor, runtime: str) -> None:
    fast = held.draw(variant(runtime))
    assert not torch.equal(fast, plain)
    assert torch.equal(held.draw(variant(runtime)), fast)
    assert torch.equal(held.draw(variant()), plain)
    assert not held.model.hooks
    modules = list(held.model.pipe.unet.modules())
    assert not [name for one in modules for name in ("forward", "extra_repr") if name in vars(one)]


def test_a_variant_in_place_is_the_variant_loaded_for_itself(held: Held) -> None:
    wanted = variant("torchao-int8+deepcache:2", SPO)
    assert torch.equal(drawn(load_pipeline(wanted, SETTINGS, device="cpu")), held.draw(wanted))


# --- DeepCache -----------------------------------------------------------------------------


def test_an_interval_of_1_gives_the_plain_bits(held: Held, plain: Tensor) -> None:
    assert torch.equal(held.draw(variant("deepcache:1")), plain)


class SlowDeepCache:
    """The algorithm of section 3 of the paper for the shallowest branch, over the parts of diffusers' UNet.

    In a whole step what the last layer of the last block up gets from below is kept; in between the first convolution
    is computed anew, joined with it, and goes through that layer and the way out.
    """

    def __init__(self, unet: Any, interval: int) -> None:
        self.unet, self.interval, self.call, self.below = unet, interval, 0, torch.empty(0)
        self.whole = unet.forward
        self.last = unet.up_blocks[-1]
        skipped = unet.conv_in.out_channels

        def keep(_: Any, inputs: tuple[Tensor, ...]) -> None:
            self.below = inputs[0][:, :-skipped]

        self.handle = self.last.resnets[-1].register_forward_pre_hook(keep)

    def __call__(self, sample: Tensor, timestep: Tensor, **given: Any) -> tuple[Tensor]:
        self.call += 1
        if (self.call - 1) % self.interval == 0:
            return self.whole(sample, timestep, **given)
        unet, text = self.unet, given["encoder_hidden_states"]
        below = self.below
        time = unet.time_embedding(unet.get_time_embed(sample, timestep))
        time = time + unet.get_aug_embed(time, text, given["added_cond_kwargs"])
        hidden = self.last.resnets[-1](torch.cat([below, unet.conv_in(sample)], dim=1), time)
        hidden = self.last.attentions[-1](hidden, encoder_hidden_states=text, return_dict=False)[0]
        self.below = below  # the hook saw the joined one
        return (unet.conv_out(unet.conv_act(unet.conv_norm_out(hidden))),)


@pytest.mark.parametrize("interval", [2, 3])
def test_deepcache_is_the_algorithm_of_its_paper(held: Held, interval: int) -> None:
    found = held.draw(variant(f"deepcache:{interval}"))
    unet = held.become(variant()).pipe.unet
    slow = SlowDeepCache(unet, interval)
    unet.forward = slow
    try:
        expected = drawn(held.model.pipe)
    finally:
        del unet.forward
        slow.handle.remove()
    assert slow.call == STEPS
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_a_batch_begins_with_no_features_of_the_one_before(held: Held) -> None:
    pipe = held.become(variant("deepcache:3")).pipe
    first = drawn(pipe)
    drawn(pipe, msgspec.structs.replace(SETTINGS, steps=2))
    assert torch.equal(drawn(pipe), first)


def test_a_sampler_that_visits_a_timestep_twice_is_refused(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = held.become(variant()).pipe.scheduler

    def twice(steps: int) -> None:
        scheduler.timesteps = torch.tensor([900, 500, 500, 100])

    monkeypatch.setattr(scheduler, "set_timesteps", twice)
    with pytest.raises(SuiteError, match=r"Variant x has .* deepcache:3: in 4 steps ddim .* visits a timestep twice"):
        held.become(variant("deepcache:3"))


# --- quantised weights ---------------------------------------------------------------------


def rounded(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Integers of -128 to 127 and one scale a row, 255 of which span twice the row's largest magnitude."""
    scale = weight.abs().amax(dim=1, keepdim=True) / 127.5
    return (weight / scale).round().clamp(-128, 127), scale


def test_int8_weights_are_the_rounded_ones(held: Held) -> None:
    """The whole way through the UNet, against weights that were rounded by hand and run in float32."""
    found = held.draw(variant(INT8_WEIGHTS))
    layers = held.audit.quantized
    unet = held.become(variant()).pipe.unet
    chosen = linear_layers(unet)
    assert layers.layers == len(chosen) == 84
    assert layers.of_weights == sum(one.weight.numel() for one in chosen) / sum(p.numel() for p in unet.parameters())
    kept = [one.weight.detach().clone() for one in chosen]
    try:
        for one in chosen:
            integers, scale = rounded(one.weight.detach())
            one.weight.copy_(integers * scale)
        expected = drawn(held.model.pipe)
    finally:
        for one, weight in zip(chosen, kept, strict=True):
            one.weight.copy_(weight)
    assert error(found, expected) < 2e-3
    assert error(found, expected) < error(found, held.draw(variant())) / 5


def test_int8_products_are_those_of_rounded_weights_and_tokens(held: Held) -> None:
    generator = torch.Generator().manual_seed(5)
    unet = held.become(variant()).pipe.unet
    layer = linear_layers(unet)[0]
    tokens = torch.randn(2, 64, layer.in_features, generator=generator)
    (left, left_scale), (right, right_scale) = rounded(tokens.flatten(0, 1)), rounded(layer.weight.detach())
    products = left.long() @ right.long().T  # exact
    expected = products.double() * left_scale.double() * right_scale.double().T
    if layer.bias is not None:
        expected += layer.bias.double()
    held.become(variant(INT8))
    apart = (layer(tokens).flatten(0, 1) - expected).abs()
    # The largest of a token, and of a row of weights, lies half-way between two integers, and may fall on either.
    assert float((apart < 1e-4).double().mean()) > 0.8
    assert bool((apart <= 1e-4 + 256 * left_scale * right_scale.T).all())


def test_int8_moves_the_picture_little(held: Held, plain: Tensor) -> None:
    assert 0 < error(held.draw(variant(INT8_WEIGHTS)), plain) < 0.05
    assert 0 < error(held.draw(variant(INT8)), plain) < 0.10


def test_a_lora_is_fused_first_and_quantised_then(held: Held) -> None:
    fused = held.become(variant(None, SPO)).parameters
    name = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_q.weight"
    expected = fused[name].clone()
    base = held.become(variant()).parameters[name].clone()
    unet = held.become(variant(INT8, SPO)).pipe.unet
    found = unet.get_parameter(name.removeprefix("unet.")).dequantize()
    step = expected.abs().amax(dim=1, keepdim=True) / 127.5
    assert bool(((found - expected).abs() <= 0.51 * step).all())
    assert float((base - expected).abs().max()) > float(step.min())


def test_a_lora_runs_unfused_beside_quantised_weights(held: Held) -> None:
    unfused, fused = held.draw(variant(None, SPO, fuse=False)), held.draw(variant(INT8_WEIGHTS, SPO, fuse=False))
    assert 0 < error(fused, unfused) < 0.05


def test_torchs_own_arithmetic_is_left_as_it_was(held: Held) -> None:
    """torchao's recommended settings of inductor would change float32 products of every variant."""
    from torch._inductor import config

    before = torch.get_float32_matmul_precision(), config.coordinate_descent_tuning, config.epilogue_fusion
    held.become(variant(INT8))
    assert (torch.get_float32_matmul_precision(), config.coordinate_descent_tuning, config.epilogue_fusion) == before


def test_a_unet_without_transformer_blocks_has_nothing_to_quantise() -> None:
    with pytest.raises(WeightsError, match="no linear layers in transformer blocks"):
        Quantized(torch.nn.Sequential(torch.nn.Linear(16, 16)), INT8)


def test_8_bit_floats_are_refused_on_a_processor(held: Held) -> None:
    with pytest.raises(MachineError, match=r"runtime torchao-fp8: products of 8-bit floats need .* and cpu is none"):
        held.become(variant("torchao-fp8"))


def test_comparing_fused_with_unfused_leaves_the_runtime_at_work(held: Held) -> None:
    wanted = variant("deepcache:3", SPO)
    before = held.draw(wanted)
    suite = msgspec.structs.replace(load_suite("mini"), settings=msgspec.structs.replace(SETTINGS, steps=2, batch=1))
    found = compare_unfused(held.model, wanted, suite)
    assert found is not None
    assert found.mean < 0.1, "both were drawn without the cache"
    assert torch.equal(drawn(held.model.pipe), before)


# --- compiled whole ------------------------------------------------------------------------


def test_the_whole_unet_and_the_decoder_are_compiled_and_as_written_again(
    held: Held, plain: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a compiler makes of them is tested with ``compile = "whole"``; here it runs them as they are."""
    compiled: list[torch.nn.Module] = []

    def as_written(module: torch.nn.Module, **given: object) -> None:
        assert given == {"fullgraph": True, "dynamic": False}
        compiled.append(module)
        module._compiled_call_impl = module._call_impl

    monkeypatch.setattr(torch.nn.Module, "compile", as_written)
    pipe = held.become(variant("compile")).pipe
    assert compiled == [pipe.unet, pipe.vae.decoder]
    assert is_compiled(pipe.unet)
    assert is_compiled(pipe.vae)
    assert torch.equal(drawn(pipe), plain)
    held.become(variant("torchao-int8-weights+compile", SPO))
    assert len(compiled) == 4
    held.become(variant())
    assert not is_compiled(pipe.unet)
    assert not is_compiled(pipe.vae)
    assert torch.equal(drawn(pipe), plain)
