"""Draws one planned batch: launched without waiting for the device, settled when its pixels are on the host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from bench.metrics.tripwires import broken, not_finite
from bench.records import Case, Cell, Settings, Suite
from bench.variants import stages


class Drawn(NamedTuple):
    """One decoded image: 8-bit pixels, or why there are none."""

    pixels: NDArray[np.uint8] | None
    decode_dtype: str
    error: str | None


class Launched(NamedTuple):
    """A batch that the device may still be at work on."""

    cells: tuple[Cell, ...]
    latents: torch.Tensor
    decoded: stages.Decoded


def encode_cases(
    pipe: Any,
    suite: Suite,
    batches: Sequence[Sequence[Cell]],
    known: Mapping[str, stages.Encoded] | None = None,
) -> dict[str, stages.Encoded]:
    """Each case's prompt, encoded once however many samples it has; those in ``known`` are taken from there.

    They lie in the host's memory: the device's would not hold those of thousands of prompts.
    """
    wanted = {cell.case for cells in batches for cell in cells}
    cases: list[Case] = [case for case in suite.cases if case.id in wanted]
    there = known or {}

    def encode(case: Case) -> stages.Encoded:
        return stages.to_host(stages.encode(pipe, [case.prompt], [case.negative], suite.settings))

    return {case.id: there.get(case.id) or encode(case) for case in cases}


def launch(pipe: Any, settings: Settings, cells: Sequence[Cell], encoded: Mapping[str, stages.Encoded]) -> Launched:
    """Noise, denoise and decode one batch; on CUDA it returns while the decoder still works."""
    seeds = [cell.seed for cell in cells]
    conditions = stages.stack([encoded[cell.case] for cell in cells])
    latents = stages.denoise(pipe, settings, conditions, stages.noise(pipe, settings, seeds), seeds)
    return Launched(tuple(cells), latents, stages.decode_levels(pipe, latents))


def settle(launched: Launched, settings: Settings) -> tuple[Drawn, ...] | None:
    """Wait for a batch and check each image; None where one has to be decoded again, in float32."""
    decoded = launched.decoded
    decoded.wait()
    if bool(decoded.bad_values.any()):
        return None
    return tuple(_checked(pixels, decoded.dtype, settings) for pixels in decoded.levels.numpy())


def settle_again(pipe: Any, launched: Launched, settings: Settings) -> tuple[Drawn, ...]:
    """The images of a settled batch, those that were not finite decoded once more with the VAE in float32."""
    decoded = launched.decoded
    return tuple(
        _in_float32(pipe, launched.latents[row : row + 1], settings)
        if bad
        else _checked(decoded.levels[row].numpy(), decoded.dtype, settings)
        for row, bad in enumerate(decoded.bad_values.tolist())
    )


def draw_batch(
    pipe: Any, settings: Settings, cells: Sequence[Cell], encoded: Mapping[str, stages.Encoded]
) -> tuple[Drawn, ...]:
    """One batch from noise to checked pixels."""
    launched = launch(pipe, settings, cells, encoded)
    return settle(launched, settings) or settle_again(pipe, launched, settings)


def _in_float32(pipe: Any, latents: torch.Tensor, settings: Settings) -> Drawn:
    decoded = stages.decode_levels(pipe, latents, torch.float32)
    decoded.wait()
    pixels = decoded.levels[0].numpy()
    reason = not_finite(int(decoded.bad_values[0]), pixels.size)
    return Drawn(None, decoded.dtype, reason) if reason else _checked(pixels, decoded.dtype, settings)


def _checked(pixels: NDArray[np.uint8], dtype: str, settings: Settings) -> Drawn:
    reason = broken(pixels, settings.width, settings.height)
    return Drawn(None if reason else pixels, dtype, reason)
