"""Fused against unfused LoRAs: how far fusing them into the weights moves pixels."""

from __future__ import annotations

from itertools import takewhile

import msgspec
import numpy as np
from numpy.typing import NDArray

from bench.lora.algorithms import can_run_unfused
from bench.pipeline.compiling import Uncompiled
from bench.pipeline.phases import changes_by_step
from bench.pipeline.switch import Model, apply_runtime, change_weights, fused_by_recipe, restore, unfuse_recipe
from bench.records import Audit, PixelDifference, Settings, Suite, Variant
from bench.render.images import draw_batch, encode_prompts
from bench.suite import plan_images

COMPARED_STEPS = 4
"""An image drawn alone is dear beside those of a batch, and rounding shows in few steps too."""


def with_pixel_difference(model: Model, variant: Variant, suite: Suite, audit: Audit) -> Audit:
    """An audit with how far fusing the variant's LoRAs moves pixels; ``model`` holds the variant.

    It is measured once a LoRA file, with the suite's first variant that has the file or the recipe that fuses it. The
    other audits, and all where the suite says ``compare_unfused = false``, stay as they are; so do those of variants
    whose weights change by step.
    """
    known = [_sources(one) for one in takewhile(lambda one: one.name != variant.name, suite.variants)]
    if not suite.compare_unfused or changes_by_step(variant) or _sources(variant) <= set().union(*known):
        return audit
    return msgspec.structs.replace(audit, fused_against_unfused=compare_unfused(model, variant, suite))


def _sources(variant: Variant) -> set[str]:
    """The LoRA files and recipes that a variant names."""
    recipes = {name for name in (variant.checkpoint, variant.unet) if name is not None and name.endswith(".toml")}
    return {lora.path for lora in variant.loras} | recipes


def compare_unfused(model: Model, variant: Variant, suite: Suite) -> PixelDifference | None:
    """Draw the suite's first image with a variant's LoRAs, and those of its recipe, unfused and fused.

    Args:
        model: as ``switch_variant`` gave it for the variant, and as it will be afterwards.
        variant: the model's.
        suite: whose first image is drawn, with its settings, in ``COMPARED_STEPS`` steps where it has more.

    Returns:
        Differences in 8-bit levels; None where there are no LoRAs, one can only be fused, or an image is broken.
    """
    recipe = fused_by_recipe(model)
    changes = [change for _, adapter in (*model.loras, *recipe) for change in adapter.changes]
    if not changes or not all(map(can_run_unfused, changes)):
        return None
    image, settings = plan_images(suite)[0], _in_few_steps(suite.settings)
    drawn: list[NDArray[np.uint8] | None] = []
    for fuse in (False, True):
        restore(model)
        if recipe and not fuse:
            unfuse_recipe(model, recipe)
        change_weights(model, model.loras, fuse=fuse)
        eager = Uncompiled(model.pipe.unet, model.pipe.vae)  # or it would be compiling that moves pixels
        encoded = encode_prompts(model.pipe, suite, [[image]])  # text encoders are changed too
        drawn.append(draw_batch(model.pipe, settings, [image], encoded)[0].pixels)
        eager.remove()
    if not variant.fuse:
        change_weights(restore(model), model.loras, fuse=False)
    apply_runtime(model, variant)
    unfused, fused = drawn
    if unfused is None or fused is None:
        return None
    distances = np.abs(fused.astype(np.int16) - unfused)
    return PixelDifference(
        prompt_id=image.prompt_id,
        mean=float(distances.mean()),
        max=int(distances.max()),
        changed=float((distances > 0).mean()),
        steps=settings.steps,
    )


def _in_few_steps(settings: Settings) -> Settings:
    """The settings with fewer steps, unless the timesteps are listed."""
    if settings.timesteps:
        return settings
    return msgspec.structs.replace(settings, steps=min(settings.steps, COMPARED_STEPS))
