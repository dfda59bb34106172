"""Metrics that compare the samples of a prompt: what they see, and when their scores are out of date."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from fake_metrics import facts, nulls, of_metric, put_image, rendered, values
from fakes import png_bytes
from PIL import Image

from bench.compare.pairing import usable_scores
from bench.errors import UsageError
from bench.metrics import Inputs, NoScoreError, metric, registry_of
from bench.metrics.image_checks import digest_of
from bench.metrics.pixels import diversity
from bench.score import missing_scores, score
from bench.store import RunFolder, load_run


@metric(facts("spread"), needs_other_samples=True)
def spread(inputs: Inputs) -> torch.Tensor:
    """Mean absolute difference of the mean levels to the other samples."""
    if not inputs.other_sample_pixels:
        raise NoScoreError("alone")
    own = inputs.pixels.mean(dim=(1, 2, 3))
    inputs.pixels.zero_()  # what one call does to its pixels must not be seen by the next
    return torch.stack([(own - other.mean(dim=(1, 2, 3))).abs() for other in inputs.other_sample_pixels]).mean(dim=0)


REGISTRY = registry_of(spread, diversity)


def mean_level(folder: RunFolder, variant: str, prompt_id: str, sample: int) -> float:
    with Image.open(folder.image_path(variant, prompt_id, sample)) as image:
        return float(np.asarray(image.convert("RGB"), np.float64).mean() / 255)


def test_each_image_is_compared_with_the_other_samples_of_its_prompt(tmp_path: Path) -> None:
    with rendered(tmp_path, metrics=("spread",), prompts=3, samples=3) as folder:
        assert score(folder, registry=REGISTRY) == 3 * 3 * 3
        for (variant, prompt_id, sample, _), value in values(folder).items():
            levels = [mean_level(folder, variant, prompt_id, other) for other in range(3)]
            expected = np.mean([abs(levels[sample] - levels[other]) for other in range(3) if other != sample])
            assert value == pytest.approx(expected, abs=1e-6)
        assert score(folder, registry=REGISTRY) == 0


def test_an_image_rendered_anew_makes_its_siblings_scores_out_of_date_and_no_others(tmp_path: Path) -> None:
    with rendered(tmp_path, metrics=("spread",), prompts=3, samples=3) as folder:
        score(folder, registry=REGISTRY)
        put_image(folder, ("dpo", "case-001", 2), png_bytes("dpo", "other", 7, 7))
        assert missing_scores(folder, ["spread"], registry=REGISTRY) == 3
        assert score(folder, registry=REGISTRY) == 3


def test_scores_count_only_while_the_siblings_are_those_they_were_compared_with(tmp_path: Path) -> None:
    with rendered(tmp_path, metrics=("spread",), prompts=3, samples=2) as folder:
        assert folder.info is not None
        folder.write_info(msgspec.structs.replace(folder.info, metrics=(spread.facts,)))
        score(folder, registry=REGISTRY)
        assert len(usable_scores(load_run(folder.path))["dpo", "spread"]) == 6
        put_image(folder, ("dpo", "case-001", 1), png_bytes("dpo", "other", 7, 7))
        usable = usable_scores(load_run(folder.path))
        assert set(usable["dpo", "spread"]) == {(f"case-00{n}", sample) for n in (0, 2) for sample in (0, 1)}
        assert len(usable["spo", "spread"]) == 6


def test_a_lone_sample_and_small_images_are_nulls_by_definition(tmp_path: Path) -> None:
    with rendered(tmp_path / "one", metrics=("spread",), prompts=2, samples=1) as folder:
        score(folder, registry=REGISTRY)
        assert set(nulls(folder, "spread").values()) == {"alone"}
        assert score(folder, registry=REGISTRY) == 0
    with rendered(tmp_path / "two", metrics=("diversity",), prompts=2) as folder:
        score(folder, registry=REGISTRY)
        assert set(nulls(folder, "diversity").values()) == {"the image is 64 x 64 pixels; MS-SSIM needs 176 x 176"}


def test_a_sibling_that_cannot_be_read_is_the_reason_until_it_is_back(tmp_path: Path) -> None:
    with rendered(tmp_path, metrics=("spread",), prompts=2, samples=2) as folder:
        path = folder.image_path("spo", "case-000", 1)
        data = path.read_bytes()
        path.unlink()
        score(folder, registry=REGISTRY)
        assert len(nulls(folder, "spread")) == 2
        assert str(nulls(folder, "spread")["spo", "case-000", 0]).startswith("sample 1 of the prompt: image file")
        path.write_bytes(data)
        assert score(folder, registry=REGISTRY) == 2
        assert nulls(folder, "spread") == {}


def test_a_failed_sibling_is_left_out(tmp_path: Path) -> None:
    with rendered(tmp_path, metrics=("spread",), prompts=1, samples=3) as folder:
        put_image(folder, ("base", "case-000", 2), None, error="black")
        score(folder, registry=REGISTRY)
        levels = [mean_level(folder, "base", "case-000", sample) for sample in range(2)]
        found = [one.value for one in of_metric(folder, "spread") if one.variant == "base" and one.value is not None]
        assert found == pytest.approx([abs(levels[0] - levels[1])] * 2, abs=1e-6)


def test_the_digest_of_siblings_heeds_no_order_and_is_none_of_nothing() -> None:
    assert digest_of(["b", "a", None]) == digest_of(["a", "b"]) != digest_of(["a"])
    assert digest_of([None]) is None


def test_siblings_go_with_neither_encoder_nor_reference() -> None:
    with pytest.raises(UsageError, match="needs_other_samples"):
        metric(facts("x", "conv"), needs_other_samples=True)
    with pytest.raises(UsageError, match="needs_other_samples"):
        metric(facts("x"), needs_other_samples=True, needs_reference=True)
