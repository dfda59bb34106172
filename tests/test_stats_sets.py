"""What one number of many prompts is worth, against sums by hand, images that are swapped, and known truths."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from bench.metrics.similarity import gaussian_kernel, pair_matrix
from bench.stats import bootstrap_bca, jackknife, pair_interval, pair_mean, swap_p, t_interval
from bench.stats.groups import group_numbers


def test_of_a_mean_the_jackknife_is_students_interval():
    values = np.random.default_rng(1).normal(2.0, 1.0, 12)
    without = [np.delete(values, place).mean() for place in range(12)]
    found = jackknife(float(values.mean()), without)
    assert (found.low, found.high) == pytest.approx(t_interval(values))


def test_its_p_value_is_that_of_the_interval_that_ends_at_0():
    values = np.random.default_rng(2).normal(0.5, 1.0, 9)
    without = [np.delete(values, place).mean() for place in range(9)]
    p = jackknife(float(values.mean()), without).p
    ends = jackknife(float(values.mean()), without, level=1 - p)
    assert min(abs(ends.low), abs(ends.high)) == pytest.approx(0.0, abs=1e-9)


def test_numbers_that_are_all_0_are_no_difference_and_two_prompts_have_no_interval():
    assert jackknife(0.0, [0.0, 0.0, 0.0]) == (0.0, 0.0, 1.0)
    assert jackknife(0.3, [0.1, 0.2]) is None
    assert pair_interval(np.ones((2, 2)), "ab") is None
    assert swap_p(np.ones((2, 2)), "ab") is None


def test_the_bootstrap_counts_pairs_of_the_prompts_that_are_drawn():
    rng = np.random.default_rng(3)
    matrix = rng.normal(size=(5, 5))
    matrix += matrix.T
    draws = []
    for drawn in itertools.product(range(5), repeat=5):  # every draw there is
        pairs = [matrix[a, b] for a, b in itertools.permutations(drawn, 2) if a != b]
        draws += [np.mean(pairs)] if pairs else []
    low, high = pair_interval(matrix, range(5), level=0.8, resamples=40_000)
    expected = np.quantile(draws, [0.1, 0.9])
    assert (low, high) == pytest.approx(tuple(expected), abs=0.03 * (expected[1] - expected[0]))


def test_a_swap_of_the_images_of_some_prompts_is_a_turn_of_their_signs():
    rng = np.random.default_rng(4)
    sides = [rng.normal(0.0, 4.0, size=(5, 2, 6)), rng.normal(0.8, 4.0, size=(5, 2, 6))]

    def distance(swapped: tuple[bool, ...]) -> float:
        mixed = tuple([sides[(side + swap) % 2][place] for place, swap in enumerate(swapped)] for side in range(2))
        return pair_mean(pair_matrix(mixed, gaussian_kernel))

    ways = [distance(swapped) for swapped in itertools.product((False, True), repeat=5)]
    expected = np.mean([one >= ways[0] - 1e-12 for one in ways])
    matrix = pair_matrix(tuple(list(side) for side in sides), gaussian_kernel)
    assert swap_p(matrix, range(5)) == pytest.approx(expected)
    assert swap_p(matrix, range(5), draws=15) == pytest.approx(expected, abs=0.4)


def test_prompts_of_a_group_are_drawn_and_swapped_together():
    rng = np.random.default_rng(5)
    small = rng.normal(size=(4, 4)) + 0.4
    small += small.T
    groups = ["a", "a", "b", "b", "c", "c", "d", "d"]
    doubled = np.kron(small, np.ones((2, 2)))
    for place in range(4):
        doubled[2 * place : 2 * place + 2, 2 * place : 2 * place + 2] = 0.0
    np.fill_diagonal(small, 0.0)
    assert swap_p(doubled, groups) == swap_p(small, range(4))
    alone, grouped = pair_interval(doubled, range(8)), pair_interval(doubled, groups)
    assert grouped[1] - grouped[0] > alone[1] - alone[0]


def test_the_sign_test_holds_its_level_and_finds_a_shift():
    rng = np.random.default_rng(6)
    found: dict[float, list[float]] = {0.0: [], 1.0: []}
    for shift, ps in found.items():
        for _ in range(200):
            subjects = rng.normal(size=(9, 1, 4))
            sides = [subjects + 0.5 * rng.normal(size=(9, 2, 4)) + which * shift for which in range(2)]
            matrix = pair_matrix(tuple(list(side) for side in sides), gaussian_kernel)
            ps.append(swap_p(matrix, range(9)))
    assert np.mean(np.array(found[0.0]) <= 0.05) < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 200)
    assert np.mean(np.array(found[1.0]) <= 0.05) > 0.9


def test_a_bootstrap_over_prompts_is_shifted_where_the_jackknife_is_not():
    """The reason for the jackknife: a prompt that is drawn twice lowers a diversity."""
    from bench.metrics.similarity import log_vendi_score

    rows = np.random.default_rng(7).normal(size=(20, 30))
    whole = log_vendi_score(rows)
    drawn = [log_vendi_score(rows[np.random.default_rng(seed).integers(20, size=20)]) for seed in range(40)]
    assert np.mean(drawn) < whole - 0.1
    without = [log_vendi_score(np.delete(rows, place, axis=0)) for place in range(20)]
    found = jackknife(whole, without)
    assert found.low < whole < found.high


def test_groups_are_numbered_as_they_are_met():
    assert group_numbers(["b", "a", "b", ("c",)]).tolist() == [0, 1, 0, 2]
    assert bootstrap_bca([1.0, 2.0, 3.0])[0] < 2.0
