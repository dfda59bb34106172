"""What must hold for any change at any strength."""

from __future__ import annotations

import torch
from checkpoints import Weights, checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from kinds_of_lycoris import CONV, RANK, low_rank, shape

from bench.lora.algorithms import Change, changed
from bench.records.weights import ChangeKind

KINDS = st.sampled_from(["lora", "tucker", "loha", "loha tucker"])


def random_change(module: str, kind: str, dora: bool = False) -> tuple[Change, Weights]:
    """A change without a file."""
    parts, _ = low_rank(module, kind)
    roles = {role.removeprefix("lora_").removesuffix(".weight"): part for role, part in parts.items()}
    if dora:
        roles["dora_scale"] = torch.rand(shape(module)[0], 1, 1, 1) + 0.5
    recorded: ChangeKind = "loha" if kind.startswith("loha") else "tucker" if kind == "tucker" else "lora"
    return Change(f"{module}.weight", recorded, dora, RANK, None, 0.7, {role: role for role in roles}), roles


@settings(deadline=None, max_examples=25)
@given(KINDS, st.booleans(), st.integers(0, 2**31))
def test_strength_0_is_the_identity_to_the_bit(kind: str, dora: bool, seed: int) -> None:
    weight = torch.randn(shape(CONV), generator=torch.Generator().manual_seed(seed))
    assert torch.equal(changed(*_ordered(random_change(CONV, kind, dora), weight), 0.0), weight)


def _ordered(of: tuple[Change, Weights], weight: torch.Tensor) -> tuple[Change, torch.Tensor, Weights]:
    return of[0], weight, of[1]


@settings(deadline=None, max_examples=25)
@given(KINDS, st.floats(-3, 3), st.integers(0, 2**31))
def test_a_then_minus_a_restores_to_rounding(kind: str, strength: float, seed: int) -> None:
    weight = torch.randn(shape(CONV), generator=torch.Generator().manual_seed(seed))
    change, parts = random_change(CONV, kind)
    there = changed(change, weight, parts, strength)
    torch.testing.assert_close(changed(change, there, parts, -strength), weight, rtol=0, atol=4e-6)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(KINDS, st.floats(-2, 2)), min_size=2, max_size=4))
def test_the_order_of_additive_loras_does_not_matter(loras: list[tuple[str, float]]) -> None:
    found = []
    for order in (loras, loras[::-1]):
        weight = checkpoint("sdxl")[f"{CONV}.weight"]
        for kind, strength in order:
            weight = changed(*_ordered(random_change(CONV, kind), weight), strength)
        found.append(weight)
    torch.testing.assert_close(*found, rtol=0, atol=4e-6)
