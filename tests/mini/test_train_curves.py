"""The picture of the losses: every log is in it, and an interrupted stage counts once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.mini.train.curves import read_log, run, trailing_mean


def write_log(path: Path, *lines: tuple[int, float]) -> None:
    path.write_text("".join(json.dumps({"iteration": n, "loss": loss}) + "\n" for n, loss in lines), "utf-8")


def test_a_stage_that_went_on_has_each_iteration_once(tmp_path: Path) -> None:
    write_log(tmp_path / "dpo.log.jsonl", (10, 0.9), (20, 0.8), (20, 0.7), (30, 0.6))
    iterations, losses = read_log(tmp_path / "dpo.log.jsonl")
    assert iterations.tolist() == [10, 20, 30]
    assert losses.tolist() == [0.9, 0.7, 0.6]


def test_the_trailing_mean_is_that_of_what_is_there() -> None:
    values = np.random.default_rng(0).random(25)
    expected = [values[max(0, end - 10) : end].mean() for end in range(1, 26)]
    np.testing.assert_allclose(trailing_mean(values, 10), expected)


def test_every_log_is_drawn_and_the_same_logs_give_the_same_bytes(tmp_path: Path) -> None:
    sizes = []
    for count, stage in enumerate(("base", "clip", "dpo", "spo"), start=1):
        write_log(tmp_path / f"{stage}.log.jsonl", *((n, 1 / n) for n in range(1, 40)))
        path = run(tmp_path)
        first = path.read_bytes()
        assert run(tmp_path).read_bytes() == first
        with Image.open(path) as image:
            sizes.append(image.height)
        assert path.name == "curves.png", count
    assert sizes[0] == sizes[1] == sizes[2] < sizes[3], "a second row"


def test_without_a_log_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no stage has left a log"):
        run(tmp_path)
