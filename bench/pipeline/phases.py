"""Weights by step: which UNet and which strength of each LoRA runs in which denoising steps, switched in place.

Step k of N, counted from 1, has the fraction (k - 1) / N of the steps before it. What holds from a fraction ``a`` on
holds in the steps with a <= (k - 1) / N, up to the next fraction; fractions are taken as the decimals that they are
written as, so that 0.4 of 20 steps is step 9 exactly. Text encoders run once, before the first step, and follow none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple, TypeVar

import torch

from bench.records import Variant

T = TypeVar("T")


class Phase(NamedTuple):
    """What holds from a step on."""

    first_step: int
    """Counted from 1."""
    unet: str
    """Another UNet's source; "" for the variant's own."""
    factors: tuple[float, ...]
    """What each LoRA's weights are multiplied with."""


def value_at(changes: Sequence[tuple[float, T]], step: int, steps: int, before: T) -> T:
    """What holds at a step of ``(fraction, value)`` changes in rising order; ``before`` ahead of the first."""
    done = Fraction(step - 1, steps)
    held = [value for start, value in changes if Fraction(str(start)) <= done]
    return held[-1] if held else before


def phases_of(variant: Variant, steps: int) -> tuple[Phase, ...]:
    """The phases of a variant at so many steps; a single one where nothing changes by step."""
    phases: list[Phase] = []
    for step in range(1, steps + 1):
        unet = value_at(variant.unet_steps, step, steps, "")
        factors = tuple(value_at(lora.step_factors, step, steps, 1.0) for lora in variant.loras)
        if not phases or phases[-1][1:] != (unet, factors):
            phases.append(Phase(step, unet, factors))
    return tuple(phases)


def changes_by_step(variant: Variant) -> bool:
    """Whether a variant's weights depend on the step, at whatever number of steps."""
    return bool(variant.unet_steps) or any(lora.step_factors for lora in variant.loras)


@dataclass
class WeightsByStep:
    """The weights of each phase, ready to be put in place; the first phase's are there now."""

    parameters: Mapping[str, torch.Tensor]
    """The model's own, by the names that the phases use."""
    phases: Sequence[Phase]
    weights: Sequence[Mapping[str, torch.Tensor]]
    """Of each phase the tensors that differ between phases, on the model's device where there is room."""
    strengths: list[float]
    """What unfused LoRAs read, one number a LoRA: multiplied with their weights."""
    now: int = 0

    @torch.no_grad()
    def enter(self, step: int) -> bool:
        """Put the weights of a step's phase in place; whether they were not there already.

        Args:
            step: counted from 1.
        """
        wanted = max(number for number, phase in enumerate(self.phases) if phase.first_step <= step)
        if wanted == self.now:
            return False
        for name, tensor in self.weights[wanted].items():
            self.parameters[name].copy_(tensor, non_blocking=True)
        self.strengths[:] = self.phases[wanted].factors
        self.now = wanted
        return True
