"""Whether numbers are finite, against numpy's word for it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bench.checkpoints.finite import count_non_finite, count_on_device, extremes


@given(arrays(np.float32, st.integers(0, 40), elements=st.floats(width=32)))
def test_counts_are_numpys(values: np.ndarray) -> None:
    wanted = int((~np.isfinite(values)).sum())
    tensor = torch.from_numpy(values)
    assert count_non_finite(tensor) == wanted
    assert int(count_on_device(tensor)) == wanted
    assert bool(extremes(tensor).isfinite().all()) is (wanted == 0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e5m2])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", [0, 777, 4099])
def test_one_bad_value_is_found_wherever_it_is(dtype: torch.dtype, bad: float, place: int) -> None:
    values = torch.linspace(-3, 3, 4100)
    assert count_non_finite(values.to(dtype)) == 0
    values[place] = bad
    assert count_non_finite(values.to(dtype)) == 1


def test_finite_values_with_an_infinite_sum_are_finite() -> None:
    assert count_non_finite(torch.full((9,), 60000.0, dtype=torch.float16)) == 0


def test_whole_numbers_are_finite() -> None:
    assert count_non_finite(torch.arange(77)) == 0
