"""The arithmetic of merging, against independent numpy, the identities it must keep, and sd-mecha's own results."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.merge import methods

GOLDEN = Path(__file__).parents[1] / "golden" / "sd_mecha.json"
SIZES = st.integers(1, 60)
SEEDS = st.integers(0, 2**32 - 1)
SHARES = st.floats(0.01, 0.99)


def tensors(seed: int, count: int, size: int = 40) -> list[torch.Tensor]:
    rng = np.random.default_rng(seed)
    return [torch.from_numpy(rng.normal(size=size).astype(np.float32)) for _ in range(count)]


def in_float64(*items: torch.Tensor) -> list[np.ndarray]:
    return [item.numpy().astype(np.float64) for item in items]


@given(SEEDS, SIZES, st.floats(0, 1))
def test_weighted_sum(seed: int, size: int, alpha: float) -> None:
    a, b = tensors(seed, 2, size)
    left, right = in_float64(a, b)
    np.testing.assert_allclose(methods.weighted_sum(a, b, alpha), left * (1 - alpha) + right * alpha, atol=1e-6)


@given(SEEDS, SIZES, st.floats(0, 1))
def test_what_two_models_share_stays_bit_for_bit(seed: int, size: int, alpha: float) -> None:
    (a,) = tensors(seed, 1, size)
    assert torch.equal(methods.weighted_sum(a.clone(), a.clone(), alpha), a)
    assert torch.equal(methods.add_difference(a.clone(), a.clone(), a.clone(), alpha), a)
    assert torch.equal(methods.slerp(a.clone(), a.clone(), alpha), a)


@given(SEEDS, SIZES, st.floats(-3, 3))
def test_add_difference(seed: int, size: int, alpha: float) -> None:
    a, b, c = tensors(seed, 3, size)
    x, y, z = in_float64(a, b, c)
    np.testing.assert_allclose(methods.add_difference(a, b, c, alpha), x + alpha * (y - z), atol=5e-6)


def test_the_results_are_sd_mechas() -> None:
    golden = json.loads(GOLDEN.read_text("utf-8"))

    def of(*names: str) -> list[torch.Tensor]:
        return [torch.tensor(golden[name]) for name in names]

    found = {
        "weighted_sum 0.3": methods.weighted_sum(*of("a", "b"), 0.3),
        "add_difference 0.7": methods.add_difference(*of("a", "b", "c"), 0.7),
        "slerp 0.3": methods.slerp(*of("u", "v"), 0.3),  # of one length: sd-mecha interpolates lengths apart
        "ties 0.5": methods.ties(*of("a"), of("b", "c", "d"), (1.0, 1.0, 1.0), 0.5, 1.0),
    }
    for name, result in found.items():
        np.testing.assert_allclose(result, golden[name], atol=1e-6, err_msg=name)


# --- SLERP ---------------------------------------------------------------------------------


@given(SEEDS, st.integers(2, 60), SHARES)
def test_slerp_of_vectors_of_one_length_walks_the_circle(seed: int, size: int, alpha: float) -> None:
    a, b = (item / item.norm() for item in tensors(seed, 2, size))
    x, y = in_float64(a, b)
    angle = math.acos(np.clip(x @ y, -1, 1))
    if math.sin(angle) < 0.04:
        return
    # Independent construction: rotate A towards B in the plane of the two, by alpha times their angle.
    upright = y - (x @ y) * x
    upright /= np.linalg.norm(upright)
    expected = math.cos(alpha * angle) * x + math.sin(alpha * angle) * upright
    np.testing.assert_allclose(methods.slerp(a, b, alpha), expected, atol=2e-5)


def test_slerp_of_nearly_parallel_opposite_and_zero_tensors_is_linear() -> None:
    (a,) = tensors(0, 1)
    for b in (a * 1.5, a * -2.0, torch.zeros_like(a)):
        expected = methods.weighted_sum(a.clone(), b.clone(), 0.25)
        assert torch.equal(methods.slerp(a.clone(), b.clone(), 0.25), expected)


def test_slerp_of_long_tensors_takes_the_angle_over_all_blocks() -> None:
    a, b = tensors(3, 2, 2 * 2**20 + 77)
    x, y = in_float64(a, b)
    angle = math.acos(x @ y / np.linalg.norm(x) / np.linalg.norm(y))
    expected = (math.sin(0.7 * angle) * x + math.sin(0.3 * angle) * y) / math.sin(angle)
    np.testing.assert_allclose(methods.slerp(a, b, 0.3), expected, atol=1e-6)


# --- TIES ----------------------------------------------------------------------------------


def ties_entry_by_entry(base, others, weights, density, alpha) -> np.ndarray:
    """The paper's three steps, one entry at a time."""
    kept = max(1, round(density * base.size))
    changes = []
    for other in others:
        change = other - base
        smallest = sorted(abs(change))[-kept]
        changes.append([value if abs(value) >= smallest else 0.0 for value in change])
    merged = []
    for place in range(base.size):
        values = [(weight, change[place]) for weight, change in zip(weights, changes, strict=True)]
        elected = sum(weight * value for weight, value in values)
        agreeing = [(weight, value) for weight, value in values if value * elected > 0 and weight > 0]
        total = sum(weight for weight, _ in agreeing)
        mean = sum(weight * value for weight, value in agreeing) / total if agreeing else 0.0
        merged.append(base[place] + alpha * mean)
    return np.array(merged)


@given(SEEDS, SIZES, st.integers(1, 4), st.floats(0.05, 1), st.floats(-2, 2))
def test_ties_is_that_of_the_paper(seed: int, size: int, count: int, density: float, alpha: float) -> None:
    base, *others = tensors(seed, 1 + count, size)
    weights = [0.5 + index for index in range(count)]
    # float32 differences first: which entries are trimmed must not hang on rounding.
    exact = [(other - base) for other in others]
    x = in_float64(base)[0]
    expected = ties_entry_by_entry(x * 0, in_float64(*exact), weights, density, alpha) + x
    np.testing.assert_allclose(methods.ties(base, others, weights, density, alpha), expected, atol=1e-5)


def test_ties_elects_by_sum_not_by_count() -> None:
    base = torch.zeros(1)
    others = [torch.tensor([value]) for value in (5.0, -1.0, -1.0)]
    assert methods.ties(base, others, (1.0, 1.0, 1.0), 1.0, 1.0).item() == 5.0


def test_ties_of_a_tie_changes_nothing_and_a_model_of_weight_0_has_no_say() -> None:
    base = torch.tensor([7.0])
    assert methods.ties(base.clone(), [base + 1, base - 1], (1.0, 1.0), 1.0, 1.0).item() == 7.0
    assert methods.ties(base.clone(), [base + 1, base + 9], (1.0, 0.0), 1.0, 1.0).item() == 8.0


@given(SEEDS, st.integers(1, 300), st.floats(0.001, 1))
def test_trim_keeps_the_largest(seed: int, size: int, density: float) -> None:
    (change,) = tensors(seed, 1, size)
    kept = methods.trim(change.clone(), density)
    count = int((kept != 0).sum())
    assert count == max(1, round(density * size))
    assert torch.equal(kept[kept != 0], change[kept != 0])
    if count < size:
        assert float(change[kept == 0].abs().max()) <= float(kept[kept != 0].abs().min())


# --- DARE ----------------------------------------------------------------------------------


@given(SEEDS, SIZES, st.floats(0, 0.95), st.floats(-2, 2))
def test_dare(seed: int, size: int, drop: float, alpha: float) -> None:
    base, *others = tensors(seed, 3, size)
    masks = [methods.kept_entries((size,), drop, seed, index, "x") for index in (1, 2)]
    x, *ys = in_float64(base, *others)
    changes = [
        weight * np.where(mask.numpy(), y - x, 0) / (1 - drop)
        for weight, mask, y in zip((0.5, 2.0), masks, ys, strict=True)
    ]
    expected = x + alpha * sum(changes)
    got = methods.dare(base, others, (0.5, 2.0), masks, drop, alpha)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("drop", [0.0, 0.1, 0.5, 0.9])
def test_so_many_are_dropped(drop: float) -> None:
    shape = (301, 333)
    kept = methods.kept_entries(shape, drop, 0, 1, "unet.conv_in.weight")
    assert kept.shape == shape
    assert abs(float(kept.float().mean()) - (1 - drop)) < 4 * math.sqrt(drop * (1 - drop) / kept.numel()) + 1e-12


def test_masks_depend_on_seed_model_and_name_and_on_nothing_else() -> None:
    def mask(seed: int = 0, model: int = 1, name: str = "a", count: int = 200) -> torch.Tensor:
        return methods.kept_entries((count,), 0.5, seed, model, name)

    assert torch.equal(mask(), mask())
    others = [mask(seed=1), mask(model=2), mask(name="b")]
    assert all(not torch.equal(mask(), other) for other in others)
    assert torch.equal(mask(count=101), mask()[:101])


def test_the_drawn_mask_is_what_it_always_was() -> None:
    """Worked out once: a numpy that draws otherwise would change every DARE merge there is."""
    bits = "".join("x" if kept else "." for kept in methods.kept_entries((32,), 0.5, 7, 2, "unet.conv_in.bias"))
    assert bits == "..x.xx..x.xx..x.x...xx.xxxx....x"


# --- the processor has no say ----------------------------------------------------------------


@pytest.mark.parametrize("name", ["weighted_sum", "add_difference", "slerp", "ties", "dare"])
def test_neither_threads_nor_alignment_change_a_bit(name: str) -> None:
    """What sets in when work is split differs by size, so a merge in one thread and in four must be one."""
    size = 300_007
    masks = [methods.kept_entries((size,), 0.3, 0, index, "x") for index in (1, 2)]

    def moved(tensor: torch.Tensor, by: int) -> torch.Tensor:
        place = torch.empty(size + by, dtype=tensor.dtype)[by:]
        return place.copy_(tensor)

    def run(threads: int, by: int = 0) -> torch.Tensor:
        torch.set_num_threads(threads)
        a, b, c = (moved(one, by) for one in tensors(5, 3, size))
        assert a.data_ptr() % 64 == (4 * by) % 64
        return {
            "weighted_sum": lambda: methods.weighted_sum(a, b, 0.3),
            "add_difference": lambda: methods.add_difference(a, b, c, 0.7),
            "slerp": lambda: methods.slerp(a, b, 0.3),
            "ties": lambda: methods.ties(a, [b, c], (1.0, 0.7), 0.3, 0.9),
            "dare": lambda: methods.dare(a, [b, c], (1.0, 0.7), masks, 0.3, 0.9),
        }[name]()

    before = torch.get_num_threads()
    try:
        assert torch.equal(run(1), run(4))
        assert torch.equal(run(1), run(1, by=1)), "memory that begins in the middle of a cache line"
    finally:
        torch.set_num_threads(before)
