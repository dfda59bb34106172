"""Weights that change by step: LoRAs in a range of steps, and another UNet in some of them."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import write_tiny

from bench.errors import WeightsError
from bench.pipeline import denoise as stages
from bench.pipeline.phases import Phase, phases_of, value_at
from bench.pipeline.switch import Model, restore, switch_variant
from bench.records import Lora, Settings, Suite, Variant
from bench.render.images import draw_batch, encode_prompts
from bench.suite import load_suite, plan_images

ALL, NONE = ((0.0, 1.0),), ((0.0, 0.0),)
FIRST, LAST = ((0.0, 1.0), (0.4, 0.0)), ((0.0, 0.0), (0.4, 1.0))


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    whole = load_suite(str(write_tiny(tmp_path_factory.mktemp("tiny"))))
    settings = msgspec.structs.replace(whole.settings, steps=5, batch=2)
    return msgspec.structs.replace(whole, settings=settings, prompts=whole.prompts[:1])


def by_step(suite: Suite, factors: tuple[tuple[float, float], ...], **changes: Any) -> Variant:
    plain = suite.variants[1]
    loras = tuple(msgspec.structs.replace(lora, step_factors=factors) for lora in plain.loras)
    return msgspec.structs.replace(plain, loras=loras, **changes)


class Studio:
    """One model that is switched from variant to variant, as rendering does."""

    def __init__(self, suite: Suite) -> None:
        self.suite, self.model = suite, None
        self.images = plan_images(suite)[:2]

    def draw(self, variant: Variant) -> np.ndarray:
        settings = self.suite.settings
        self.model, _ = switch_variant(self.model, variant, settings, device="cpu", weights_dir=None)
        encoded = encode_prompts(self.model.pipe, self.suite, [self.images])
        twice = [
            np.stack([one.pixels for one in draw_batch(self.model.pipe, settings, self.images, encoded)])
            for _ in range(2)
        ]
        assert np.array_equal(*twice)  # a batch leaves nothing behind for the next
        return twice[0].astype(int)


@pytest.fixture(scope="module")
def studio(suite) -> Studio:
    return Studio(suite)


@pytest.mark.parametrize("fuse", [True, False])
def test_all_steps_are_the_variant_and_no_step_is_the_base(studio, suite, fuse):
    plain = msgspec.structs.replace(suite.variants[1], fuse=fuse)
    assert np.array_equal(studio.draw(by_step(suite, ALL, fuse=fuse)), studio.draw(plain))
    assert np.array_equal(studio.draw(by_step(suite, NONE, fuse=fuse)), studio.draw(suite.variants[0]))
    assert not np.array_equal(studio.draw(plain), studio.draw(suite.variants[0]))


def test_fused_and_unfused_agree_by_step(studio, suite):
    fused, unfused = (studio.draw(by_step(suite, FIRST, fuse=fuse)) for fuse in (True, False))
    assert np.abs(fused - unfused).max() <= 2


def ddim_by_hand(studio: Studio, suite: Suite, weights: list[Variant]) -> torch.Tensor:
    """Deterministic DDIM, the UNet of each step switched as a whole; final latents."""
    settings: Settings = suite.settings
    bar = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
    times = [number * (1000 // settings.steps) + 1 for number in reversed(range(settings.steps))]
    seeds = [image.seed for image in studio.images]
    x = None
    for place, (t, variant) in enumerate(zip(times, weights, strict=True)):
        studio.model, _ = switch_variant(studio.model, variant, settings, device="cpu", weights_dir=None)
        pipe = studio.model.pipe
        prompt = suite.prompts[0]
        encoded = stages.encode(pipe, [prompt.text] * 2, [prompt.negative] * 2, settings)
        x = stages.noise(pipe, settings, seeds) if x is None else x
        side = float(settings.width)
        sizes = torch.tensor([[side, side, 0.0, 0.0, side, side]] * 2)
        found = []
        with torch.inference_mode():
            for states, pooled in (
                (encoded.negative, encoded.negative_pooled),
                (encoded.prompt, encoded.pooled),
            ):
                added = {"text_embeds": pooled, "time_ids": sizes}
                found.append(pipe.unet(x, t, encoder_hidden_states=states, added_cond_kwargs=added).sample)
        noise = found[0] + settings.guidance_scale * (found[1] - found[0])
        before = bar[times[place + 1]] if place + 1 < len(times) else bar[0]
        x0 = (x - math.sqrt(1 - bar[t]) * noise) / math.sqrt(bar[t])
        x = math.sqrt(before) * x0 + math.sqrt(1 - before) * noise
    return x


def drawn_latents(studio: Studio, suite: Suite, variant: Variant) -> torch.Tensor:
    studio.model, _ = switch_variant(studio.model, variant, suite.settings, device="cpu", weights_dir=None)
    pipe, prompt = studio.model.pipe, suite.prompts[0]
    encoded = stages.encode(pipe, [prompt.text] * 2, [prompt.negative] * 2, suite.settings)
    seeds = [image.seed for image in studio.images]
    return stages.denoise(pipe, suite.settings, encoded, stages.noise(pipe, suite.settings, seeds), seeds)


@pytest.mark.parametrize(("factors", "on"), [(FIRST, [1, 1, 0, 0, 0]), (LAST, [0, 0, 1, 1, 1])])
def test_a_range_of_steps_is_a_ddim_loop_whose_unet_is_switched(studio, suite, factors, on):
    base, spo = suite.variants
    wanted = ddim_by_hand(studio, suite, [spo if now else base for now in on])
    found = drawn_latents(studio, suite, by_step(suite, factors))
    assert float((found - wanted).abs().max()) <= 1e-5 * float(wanted.abs().max())


def test_a_weight_by_step_is_that_weight_in_its_steps(studio, suite):
    half = msgspec.structs.replace(
        suite.variants[1], loras=tuple(msgspec.structs.replace(one, weight=0.25) for one in suite.variants[1].loras)
    )
    wanted = ddim_by_hand(studio, suite, [suite.variants[1], suite.variants[1], half, half, half])
    found = drawn_latents(studio, suite, by_step(suite, ((0.0, 1.0), (0.4, 0.5))))
    assert float((found - wanted).abs().max()) <= 1e-5 * float(wanted.abs().max())


def test_two_loras_have_ranges_of_their_own(studio, suite):
    lora = suite.variants[1].loras[0]
    both = msgspec.structs.replace(
        suite.variants[1],
        loras=(
            msgspec.structs.replace(lora, step_factors=FIRST),
            msgspec.structs.replace(lora, weight=2 * lora.weight, step_factors=LAST),
        ),
    )
    twice = msgspec.structs.replace(suite.variants[1], loras=(msgspec.structs.replace(lora, weight=2 * lora.weight),))
    wanted = ddim_by_hand(studio, suite, [suite.variants[1]] * 2 + [twice] * 3)
    found = drawn_latents(studio, suite, both)
    assert float((found - wanted).abs().max()) <= 1e-5 * float(wanted.abs().max())


def test_another_unet_runs_in_its_steps_only(studio, suite, tmp_path):
    recipe = tmp_path / "merged.toml"
    lora = suite.variants[1].loras[0]
    recipe.write_text(
        'schema = 1\nmethod = "copy"\nmodels = ["mini"]\ndtype = "float32"\n'
        f'loras = [{{ path = "{lora.path}", weight = {lora.weight} }}]\n'
    )
    base = suite.variants[0]
    other = msgspec.structs.replace(base, name="other", unet_steps=((0.0, str(recipe)), (0.4, "")))
    found = drawn_latents(studio, suite, other)
    wanted = drawn_latents(studio, suite, by_step(suite, FIRST))
    assert float((found - wanted).abs().max()) <= 1e-4 * float(wanted.abs().max())
    after = studio.draw(base)
    assert np.array_equal(after, Studio(suite).draw(base))  # every weight is back, bit for bit


def test_after_a_variant_by_step_the_weights_are_the_checkpoint_s(studio, suite):
    studio.draw(by_step(suite, FIRST))
    model: Model = restore(studio.model)
    fresh, _ = switch_variant(None, suite.variants[0], suite.settings, device="cpu", weights_dir=None)
    for name, parameter in fresh.parameters.items():
        assert torch.equal(parameter, model.parameters[name])


def test_a_lora_that_would_change_text_encoders_too_is_refused(studio, suite, monkeypatch):
    variant = by_step(suite, FIRST)
    from bench.pipeline import switch

    read = switch.read_loras

    def with_text_encoder(*arguments):
        (lora, adapter) = read(*arguments)[0]
        first = adapter.changes[0]
        moved = first._replace(tensor="text_encoder.text_model.encoder.layers.0.mlp.fc1.weight")
        return [(lora, adapter._replace(changes=(*adapter.changes, moved)))]

    monkeypatch.setattr(switch, "read_loras", with_text_encoder)
    monkeypatch.setattr(switch, "change_weights", lambda *_, **__: ([[] for _ in variant.loras], {}))
    monkeypatch.setattr(switch, "audit_lora", lambda *_: type("Audit", (), {"path": "x", "modules": ()}))
    monkeypatch.setattr(switch, "_refuse_overflow", lambda *_: None)
    with pytest.raises(WeightsError, match="text_encoder") as refused:
        switch_variant(studio.model, variant, suite.settings, device="cpu", weights_dir=Path())
    assert "text_encoder = 0" in str(refused.value.hint)


# Which steps are in a range.


@given(
    steps=st.integers(1, 60),
    percents=st.lists(st.integers(0, 99), min_size=1, max_size=4, unique=True).map(sorted),
)
def test_a_step_is_in_a_range_by_exact_fractions(steps, percents):
    changes = [(percent / 100, number) for number, percent in enumerate(percents)]
    for step in range(1, steps + 1):
        wanted = [n for n, percent in enumerate(percents) if Fraction(percent, 100) <= Fraction(step - 1, steps)]
        assert value_at(changes, step, steps, -1) == (wanted[-1] if wanted else -1)


def test_phases_are_runs_of_equal_steps():
    variant = Variant(name="x", checkpoint="mini", loras=(Lora(path="a", step_factors=FIRST), Lora(path="b")))
    assert phases_of(variant, 20) == (Phase(1, "", (1.0, 1.0)), Phase(9, "", (0.0, 1.0)))
    assert phases_of(msgspec.structs.replace(variant, loras=()), 20) == (Phase(1, "", ()),)


def test_the_audit_tells_the_steps_and_how_to_set_them_elsewhere(suite):
    _, audit = switch_variant(None, by_step(suite, FIRST), suite.settings, device="cpu", weights_dir=None)
    (notes,) = {one.notes for one in audit.loras}
    assert notes[0] == "Runs in steps 1-2 of 5."
    assert "1@0,1@0.4,0@0.4,0@1" in notes[1]
    assert "1 from 0.000 to 0." in notes[1]
