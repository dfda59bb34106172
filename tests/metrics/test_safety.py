"""LAION's NSFW head and Q16: golden values of the published layouts, the tables that are left out, damaged files."""

from __future__ import annotations

import math
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.errors import WeightsError
from bench.metrics import Inputs
from bench.metrics.safety import NSFW_BYTES, nsfw, q16, read_nsfw, read_q16

GOLDEN = Path(__file__).parents[1] / "golden" / "safety"
"""Seeded weights in the published layouts with the scores of both, in float64 by their formulas; those of the NSFW
head were held to TensorFlow's own run of the published graph."""


@pytest.fixture(scope="module")
def nsfw_case() -> dict[str, np.ndarray]:
    return dict(np.load(GOLDEN / "nsfw.npz"))


@pytest.fixture(scope="module")
def q16_case() -> dict[str, np.ndarray]:
    return dict(np.load(GOLDEN / "q16.npz"))


def variables(case: dict[str, np.ndarray]) -> bytes:
    """The variables of the SavedModel in their published order, with the count that stands between them."""
    parts = [case["mean"].tobytes(), case["variance"].tobytes(), np.int64(242067).tobytes()]
    for number in range(4):
        parts += [case[f"dense{number}.kernel"].tobytes(), case[f"dense{number}.bias"].tobytes()]
    return b"".join(parts)


def zipped(path: Path, data: bytes, name: str = "head/variables/variables.data-00000-of-00001") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("head/saved_model.pb", b"graph")
        archive.writestr(name, data)
    return path


def scores(metric: object, head: object, images: np.ndarray) -> np.ndarray:
    inputs = Inputs(
        prompts=("",) * len(images),
        pixels=torch.empty(0),
        image_embeds=torch.from_numpy(images.astype(np.float32)),
        head=head,
    )
    return metric.compute(inputs).double().numpy()  # type: ignore[attr-defined]


def test_nsfw_is_the_published_graph_without_its_tables(nsfw_case, tmp_path) -> None:
    head = read_nsfw(zipped(tmp_path / "head.zip", variables(nsfw_case)))
    whole = np.isfinite(nsfw_case["images"]).all(axis=1)
    found = scores(nsfw, head, nsfw_case["images"])
    np.testing.assert_allclose(found[whole], nsfw_case["logits"][whole], atol=2e-5)
    # The published graph takes a NaN for 0; here it stays one, and the image has no score.
    assert np.isnan(found[~whole]).all()
    assert (~whole).any()


def test_the_tables_matter_where_an_embedding_meets_them_and_nowhere_else(nsfw_case) -> None:
    met = nsfw_case["hits"].any(axis=0)
    moved = np.abs(nsfw_case["logits"] - nsfw_case["logits_with_tables"])
    assert met.any()
    assert not met.all()
    assert moved[met].max() > 0.1
    assert moved[~met].max() < 0.1


def test_constant_columns_do_not_divide_by_zero(nsfw_case, tmp_path) -> None:
    flat = nsfw_case | {"variance": np.zeros(768, np.float32)}
    head = read_nsfw(zipped(tmp_path / "head.zip", variables(flat)))
    assert head.deviation.min() == pytest.approx(1e-7)


def test_nsfw_refuses_what_is_no_such_file(nsfw_case, tmp_path) -> None:
    data = variables(nsfw_case)
    assert len(data) == NSFW_BYTES
    (tmp_path / "text.zip").write_text("no zip")
    cases = {
        "bytes": zipped(tmp_path / "short.zip", data[:-4]),
        "no SavedModel": zipped(tmp_path / "other.zip", data, "weights.h5"),
        "not a zip": tmp_path / "text.zip",
    }
    for why, file in cases.items():
        with pytest.raises(WeightsError, match=why):
            read_nsfw(file)


def test_q16_by_its_formula(q16_case, tmp_path) -> None:
    file = tmp_path / "prompts.p"
    file.write_bytes(published_pickle(q16_case["prompts"]))
    images = q16_case["images"].astype(np.float64)
    found = scores(q16, read_q16(file), images / np.linalg.norm(images, axis=1, keepdims=True))
    expected = q16_case["logits"][:, 1] - q16_case["logits"][:, 0]
    np.testing.assert_allclose(found, expected, atol=2e-4)
    np.testing.assert_allclose(1 / (1 + np.exp(-found)), q16_case["p_inappropriate"], atol=2e-5)
    (flag,) = q16.facts.thresholds
    assert list(found > flag.above) == [bool(one) for one in q16_case["flagged"]]


def published_pickle(array: np.ndarray) -> bytes:
    """As numpy 1 wrote it, by the names of its modules."""
    return pickle.dumps(array, protocol=3).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("run",)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (pickle.dumps(Evil()), "names"),
        (b"\x80\x03broken", "cannot be read"),
        (pickle.dumps([1, 2]), "no array"),
        (b"", "cannot be read"),
    ],
)
def test_q16_refuses_any_other_pickle(content, why, tmp_path, capsys) -> None:
    file = tmp_path / "prompts.p"
    file.write_bytes(content)
    with pytest.raises(WeightsError, match=why):
        read_q16(file)
    assert capsys.readouterr().out == ""


def test_q16_refuses_another_shape(tmp_path) -> None:
    file = tmp_path / "prompts.p"
    file.write_bytes(published_pickle(np.zeros((2, 512), np.float16)))
    with pytest.raises(WeightsError, match=r"holds \(2, 512\), not \(2, 768\)"):
        read_q16(file)


def test_thresholds_are_the_probabilities_that_they_name() -> None:
    half, high = (threshold.above for threshold in nsfw.facts.thresholds)
    assert 1 / (1 + math.exp(-half)) == 0.5
    assert 1 / (1 + math.exp(-high)) == pytest.approx(0.9)
