"""Arithmetic of embeddings, against the packages of the papers, sums over single images, and what must hold."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from make_features import features

from bench.metrics.similarity import (
    gaussian_kernel,
    log_vendi_score,
    mean_cosine_distance,
    mean_squared_cosine,
    pair_matrix,
    paired_cosine_distance,
    polynomial_kernel,
)
from bench.stats import pair_mean

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "set_metrics.json").read_text())
"""Made by ``make_golden_sets.py``, which says how."""


def test_the_vendi_score_is_that_of_its_package_with_fewer_and_with_more_rows_than_columns():
    assert math.exp(log_vendi_score(features(1, 5))) == pytest.approx(GOLDEN["vendi_few"], rel=1e-9)
    assert math.exp(log_vendi_score(features(2, 40))) == pytest.approx(GOLDEN["vendi_many"], rel=1e-9)


def test_the_mean_squared_cosine_is_what_the_vendi_score_of_order_2_says_without_n():
    alike = mean_squared_cosine(features(1, 5))
    assert 5**2 / (5 + 5 * 4 * alike) == pytest.approx(GOLDEN["vendi_order_2_few"], rel=1e-9)


def test_one_image_a_prompt_gives_the_u_statistic_of_torch_fidelity():
    sides = features(3, 12), features(4, 12) * 1.1
    for kernel, name in ((polynomial_kernel, "kid"), (gaussian_kernel, "gaussian")):
        matrix = pair_matrix(tuple([row[None] for row in side] for side in sides), kernel)
        assert pair_mean(matrix) == pytest.approx(GOLDEN[name], rel=1e-9)


def test_equal_images_are_worth_one_and_orthogonal_ones_as_many_as_there_are():
    one = features(5, 1).astype(np.float32)
    assert log_vendi_score(np.repeat(one, 7, axis=0)) == pytest.approx(0.0, abs=1e-8)
    assert mean_squared_cosine(np.repeat(one, 7, axis=0)) == pytest.approx(1.0)
    assert log_vendi_score(np.eye(6)) == pytest.approx(math.log(6))
    assert mean_squared_cosine(np.eye(6)) == 0.0


@given(st.floats(0.0, math.pi))
def test_two_images_are_worth_what_their_angle_says(angle):
    cosine, rows = math.cos(angle), np.array([[1.0, 0.0], [math.cos(angle), math.sin(angle)]])
    shares = [(1 + cosine) / 2, (1 - cosine) / 2]
    expected = -sum(share * math.log(share) for share in shares if share > 1e-9)
    assert log_vendi_score(rows) == pytest.approx(expected, abs=1e-7)
    assert mean_squared_cosine(rows) == pytest.approx(cosine**2, abs=1e-12)
    assert mean_cosine_distance(rows) == pytest.approx(1 - cosine, abs=1e-12)


@given(st.integers(1, 12), st.integers(0, 2**31))
@settings(max_examples=30)
def test_a_vendi_score_lies_between_one_and_n_and_depends_on_neither_order_nor_length(count, seed):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, 6))
    value = log_vendi_score(rows)
    assert 0 <= value <= math.log(count)
    shuffled = rng.permutation(rows) * rng.uniform(0.5, 2.0, (count, 1))
    assert log_vendi_score(shuffled) == pytest.approx(value, abs=1e-9)


def test_a_drift_is_the_mean_over_the_images_of_one_noise():
    one, other = features(6, 4), features(7, 4)
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(one, other, strict=True)]
    assert paired_cosine_distance(one, other) == pytest.approx(1 - np.mean(cosines))
    assert paired_cosine_distance(one, 3 * one) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("kernel", [polynomial_kernel, gaussian_kernel])
def test_the_matrix_is_a_sum_over_single_images_that_skips_pairs_of_one_prompt(kernel):
    rng = np.random.default_rng(8)
    counts = (2, 3, 1, 2)
    sides = tuple([rng.normal(size=(count, 5)) for count in counts] for _ in range(2))

    def k(a, b):
        if kernel is polynomial_kernel:
            return (sum(x * y for x, y in zip(a, b, strict=True)) / 5 + 1) ** 3
        return math.exp(-sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) / (2 * 10**2))

    matrix = pair_matrix(sides, kernel)
    for p, q in itertools.product(range(4), repeat=2):
        terms = [
            k(sides[0][p][i], sides[0][q][j]) + k(sides[1][p][i], sides[1][q][j])
            - k(sides[0][p][i], sides[1][q][j]) - k(sides[1][p][i], sides[0][q][j])
            for i in range(counts[p]) for j in range(counts[q])
        ]  # fmt: skip
        assert matrix[p, q] == pytest.approx(0.0 if p == q else np.mean(terms), abs=1e-12)
    assert pair_mean(matrix) == pytest.approx(np.mean([matrix[p, q] for p in range(4) for q in range(4) if p != q]))


def test_chunks_change_nothing(monkeypatch):
    sides = tuple([row[None] for row in features(seed, 12)] for seed in (3, 4))
    whole = pair_matrix(sides, polynomial_kernel)
    monkeypatch.setattr("bench.metrics.similarity.CHUNK_ROWS", 5)
    np.testing.assert_allclose(pair_matrix(sides, polynomial_kernel), whole, atol=1e-12)


def test_without_a_shift_the_estimate_is_about_0_where_the_usual_one_is_biased():
    rng = np.random.default_rng(9)
    ours, usual = [], []
    for _ in range(120):
        subjects = rng.normal(size=(8, 1, 6))  # what the prompts ask for, on both sides alike
        sides = [subjects + 0.5 * rng.normal(size=(8, 3, 6)) for _ in range(2)]
        ours.append(pair_mean(pair_matrix(tuple(list(side) for side in sides), gaussian_kernel)))
        x, y = (side.reshape(24, 6) for side in sides)
        kxx, kyy, kxy = gaussian_kernel(x, x), gaussian_kernel(y, y), gaussian_kernel(x, y)
        usual.append((kxx.sum() - 24 + kyy.sum() - 24) / (24 * 23) - 2 * kxy.mean())
    assert abs(np.mean(ours)) < 3 * np.std(ours) / math.sqrt(120)
    assert np.mean(usual) < -10 * np.std(usual) / math.sqrt(120)


def test_what_is_no_set_of_embeddings_is_refused():
    for rows in ([[math.nan, 1.0]], [], [1.0, 2.0]):
        with pytest.raises(ValueError, match="rows"):
            log_vendi_score(rows)
