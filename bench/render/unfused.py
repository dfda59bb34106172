"""Fused against run time: how far fusing LoRAs into the weights moves pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.pipeline.build import Uncompiled
from bench.pipeline.switch import Model, apply_loras, can_run_beside, can_unfuse, fused_by_recipe, restore, unfuse
from bench.records import PixelDifference, Suite, Variant
from bench.render.images import draw_batch, encode_cases
from bench.suite import plan_images

IMAGES = 2

"""Images that are drawn both ways: enough to tell rounding from a fault, and soon done."""


def compare_with_runtime(
    model: Model, variant: Variant, suite: Suite, weights_dir: Path | None
) -> PixelDifference | None:
    """Draw the suite's first images with a variant's LoRAs, and those of its recipe, unfused and fused.

    Args:
        model: holding the variant as the suite wants it, as it will afterwards.
        variant: the model's.
        suite: whose first images are drawn.
        weights_dir: local weights instead of downloads.

    Returns:
        Differences in 8-bit levels; None where there are no LoRAs, or one that can only be fused.
    """
    recipe = fused_by_recipe(model)
    if not variant.loras and not recipe:
        return None
    if not can_run_beside(model, variant, weights_dir) or not can_unfuse(recipe):
        return None
    drawn = {}
    for fuse in (False, True):
        restore(model)
        if recipe and not fuse:
            unfuse(model, recipe)
        apply_loras(model, variant, weights_dir, keep=True, fuse=fuse)
        eager = Uncompiled(model.pipe.unet)  # or it would be compiling that moves pixels
        drawn[fuse] = _draw(model, suite)
        eager.remove()
    if not variant.fuse:
        apply_loras(restore(model), variant, weights_dir, keep=True)
    pairs = [
        (one, other) for one, other in zip(drawn[True], drawn[False], strict=True) if not (one is None or other is None)
    ]
    if not pairs:
        return None
    distances = np.stack([np.abs(one.astype(np.int16) - other) for one, other in pairs])
    return PixelDifference(
        images=len(pairs),
        mean=float(distances.mean()),
        max=int(distances.max()),
        changed=float((distances > 0).mean()),
    )


def _draw(model: Model, suite: Suite) -> list[NDArray[np.uint8] | None]:
    cells = plan_images(suite)[:IMAGES]
    encoded = encode_cases(model.pipe, suite, [cells])
    return [image.pixels for image in draw_batch(model.pipe, suite.settings, cells, encoded)]
