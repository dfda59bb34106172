"""LoRAs made part of one tensor, row by row and at once, against numpy in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.lora import apply as fusing
from bench.lora import audit
from bench.lora.algorithms import Change, Start
from bench.lora.apply import ScaledChange, fuse_into
from bench.lora.audit import measure_change

OUT, IN, RANK = 24, 20, 3


def lora(seed: int, strength: float, size: float = 0.1, *, dora: bool = False) -> ScaledChange:
    dice = torch.Generator().manual_seed(seed)
    parts = {
        "up": torch.randn(OUT, RANK, generator=dice) * size,
        "down": torch.randn(RANK, IN, generator=dice),
        **({"dora_scale": torch.rand(OUT, 1, generator=dice) + 0.5} if dora else {}),
    }
    change = Change("unet.x.weight", "lora", dora, RANK, None, 0.5, {role: role for role in parts})
    return change, parts, strength


def tucker(seed: int, strength: float) -> ScaledChange:
    dice = torch.Generator().manual_seed(seed)
    shapes = {"up": (OUT, RANK, 1, 1), "down": (RANK, IN, 1, 1), "mid": (RANK, RANK, 3, 3)}
    parts = {role: torch.randn(shape, generator=dice) * 0.3 for role, shape in shapes.items()}
    change = Change("unet.x.weight", "tucker", False, RANK, None, 0.5, {role: role for role in parts})
    return change, parts, strength


def weight(seed: int, *more: int) -> torch.Tensor:
    return torch.randn(OUT, IN, *more, generator=torch.Generator().manual_seed(seed))


def in_float64(before: torch.Tensor, changes: list[ScaledChange]) -> list[np.ndarray]:
    """The tensor before the first change and after each, by numpy."""
    found = [before.double().numpy()]
    for change, parts, strength in changes:
        known = {role: part.double().numpy() for role, part in parts.items()}
        if change.kind == "lora":
            added = known["up"] @ known["down"]
        else:
            up, down = known["up"][:, :, 0, 0], known["down"][:, :, 0, 0]
            added = np.einsum("op,pqhw,qi->oihw", up, known["mid"], down)
        found.append(found[-1] + strength * change.scale * added)
    return found


@pytest.mark.parametrize("block", [1, 100, 10**6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["one", "three", "tucker"])
def test_values_and_sizes_are_numpys(
    block: int, dtype: torch.dtype, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for room in (fusing, audit):
        monkeypatch.setattr(room, "BLOCK", block)
    made = {"one": [lora(1, 0.8)], "three": [lora(1, 0.8), lora(2, -0.3), lora(3, 1.2)], "tucker": [tucker(4, 0.6)]}
    changes = made[kind]
    before = weight(0, *((3, 3) if kind == "tucker" else ())).to(dtype)
    wanted = in_float64(before, changes)
    into = before.clone()
    sizes = fuse_into(before, changes, dtype, into)
    nearest = torch.from_numpy(wanted[-1])
    torch.testing.assert_close(into.double(), nearest.to(dtype).double(), rtol=0, atol=torch.finfo(dtype).eps * 8)
    assert sizes.shape == (len(changes) + (len(changes) > 1), 5)
    for size, old, new in zip(sizes[: len(changes)], wanted, wanted[1:], strict=False):
        assert float(size[0]) == pytest.approx(((new - old) ** 2).sum(), rel=1e-5)
        assert float(size[1]) == pytest.approx((old**2).sum(), rel=1e-5)
    assert float(sizes[-1, 0]) == pytest.approx(((wanted[-1] - wanted[0]) ** 2).sum(), rel=1e-5)
    rounded = (torch.from_numpy(wanted[-1]).to(dtype) != before).sum()
    assert sizes[-1, 2:].tolist() == pytest.approx([before.numel(), int(rounded), 0], abs=2)


def test_a_tensor_is_changed_where_it_lies() -> None:
    changes = [lora(1, 0.8), lora(2, 0.4)]
    before = weight(0)
    apart = before.clone()
    first = fuse_into(before, changes, torch.float32, apart)
    second = fuse_into(before, changes, torch.float32, before)
    assert torch.equal(apart, before)
    assert torch.equal(first, second)


def test_without_a_place_it_only_measures() -> None:
    before = weight(0)
    kept = before.clone()
    assert float(fuse_into(before, [lora(1, 0.8)], torch.float32, None)[-1, 0]) > 0
    assert torch.equal(before, kept)


def test_norms_that_are_set_need_the_whole_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    changes = [lora(1, 1.0, dora=True), lora(2, 0.5)]
    whole, parts = weight(0), weight(0)
    fuse_into(whole, changes, torch.float32, whole)
    monkeypatch.setattr(fusing, "BLOCK", 1)
    fuse_into(parts, changes, torch.float32, parts)
    assert torch.equal(whole, parts)


@settings(deadline=None, max_examples=40)
@given(st.sampled_from([1e-30, 1e-18, 1e-3, 1.0, 1e18]), st.sampled_from([1e-25, 1e-3, 1.0, 1e19]))
def test_sizes_neither_vanish_nor_overflow(large: float, small: float) -> None:
    """Squares of float32 numbers do, and a change that is there must not be taken for none."""
    before = weight(0) * large
    after = before + weight(1) * small
    numbers = measure_change(before, after, torch.float32)
    change = (after - before).double()
    assert float(numbers[0]) == pytest.approx(float((change * change).sum()), rel=1e-5)
    assert float(numbers[1]) == pytest.approx(float(before.double().square().sum()), rel=1e-5)
    assert int(numbers[2]) == int((after != before).sum())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_another_sign_is_another_number_unless_it_is_that_of_a_zero(dtype: torch.dtype) -> None:
    before = torch.tensor([0.0, -0.0, 1.0, -2.0, 3.0, -0.0])
    after = torch.tensor([-0.0, 0.0, -1.0, 2.0, 3.0, 4.0])
    assert measure_change(before, after, dtype)[2:].tolist() == [3, 3, 0]
    assert measure_change(before[2:], after[2:], dtype)[2:].tolist() == [3, 3, 0]


def test_infinities_that_stay_are_counted_and_not_changed() -> None:
    before = torch.tensor([torch.inf, 1.0, -torch.inf])
    after = torch.tensor([torch.inf, 2.0, torch.inf])
    assert measure_change(before, after, torch.float16)[2:].tolist() == [2, 2, 2]


def test_another_sign_of_zero_is_no_other_number() -> None:
    before = torch.tensor([0.0, 0.0, 1.0])
    after = torch.tensor([-1e-12, 1e-3, 1.0])
    assert measure_change(before, after, torch.float16)[2:].tolist() == [2, 1, 0]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 7e4])
def test_what_is_not_finite_once_rounded_is_counted(value: float) -> None:
    before = weight(0)
    after = before.clone()
    after[3, 4] = value
    assert int(measure_change(before, after, torch.float16)[4]) == 1


@pytest.mark.parametrize("start", ["pissa", "olora"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_start_is_that_of_the_weight_before_any_lora(start: Start, dtype: torch.dtype) -> None:
    before = weight(3).to(dtype)
    first, (plain, parts, _) = lora(1, 0.7, 0.5), lora(2, 1.0)
    begun = plain._replace(start=start)
    into = torch.empty(OUT, IN)
    fuse_into(before, [first, (begun, parts, 0.5)], torch.float32, into)
    whole = before.double().numpy()
    if start == "pissa":
        u, s, vh = np.linalg.svd(whole, full_matrices=False)
        taken = (u[:, :RANK] * s[:RANK]) @ vh[:RANK]
    else:
        q, r = np.linalg.qr(whole)
        taken = plain.scale * q[:, :RANK] @ r[:RANK]
    (*_, expected) = in_float64(before, [first, (plain, parts, 0.5)])
    np.testing.assert_allclose(into, expected - 0.5 * taken, atol=1e-5)
