"""What goes wrong costs the cells concerned and no other: a null with its reason, tried again where apt."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_metrics import (
    ALL,
    BEAUTY,
    ConvTower,
    FakeMetrics,
    Values,
    facts,
    journal_lines,
    nulls,
    of_metric,
    rendered,
    values,
)
from PIL import Image

from bench.errors import MachineError, WeightsError
from bench.metrics import Encoder, Inputs, Metric, NoScoreError, Place, Registry, metric, registry_of
from bench.score import score

CELLS = 3 * 5 * 2
VICTIM = ("dpo", "case-002", 1)
PROMPT = "an old man by a window, light from the left"


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Values:
    """The values of an undisturbed run."""
    with rendered(tmp_path_factory.mktemp("good")) as folder:
        score(folder, registry=FakeMetrics().registry)
        return values(folder)


# --- metrics that fail ---------------------------------------------------------------------


def _raises(inputs: Inputs) -> torch.Tensor:
    if PROMPT in inputs.prompts:
        raise RuntimeError("a light\nfrom the left")
    return torch.ones(len(inputs.prompts))


def _gives(value: float) -> Callable[[Inputs], torch.Tensor]:
    return lambda inputs: torch.tensor([value if text == PROMPT else 1.0 for text in inputs.prompts])


def _declines(inputs: Inputs) -> torch.Tensor:
    if PROMPT in inputs.prompts:
        raise NoScoreError("no portraits")
    return torch.ones(len(inputs.prompts))


FAILURES: list[tuple[Callable[[Inputs], Any], str]] = [
    (_raises, "RuntimeError: a light from the left"),
    (_gives(float("nan")), "bad gave nan"),
    (_gives(float("-inf")), "bad gave -inf"),
    (_declines, "no portraits"),
]


@pytest.mark.parametrize("encoder", [None, "conv"])
@pytest.mark.parametrize(("compute", "reason"), FAILURES)
def test_a_metric_that_fails_on_a_prompt_loses_that_prompts_scores_only(
    tmp_path: Path, expected: Values, compute: Callable[[Inputs], Any], reason: str, encoder: str | None
) -> None:
    declared = FakeMetrics(metric(facts("bad", encoder))(compute))
    with rendered(tmp_path, metrics=("bad", *ALL)) as folder:
        assert score(folder, registry=declared.registry) == CELLS * (len(ALL) + 1)
        assert nulls(folder, "bad") == {
            (variant, "case-002", sample): reason for variant in ("base", "dpo", "spo") for sample in (0, 1)
        }
        assert {key: found for key, found in values(folder).items() if key[3] != "bad"} == expected


@pytest.mark.parametrize("encoder", [None, "conv"])
@pytest.mark.parametrize(
    ("compute", "reason"),
    [
        (lambda inputs: torch.ones(7), r"ValueError: it returned shape \(7,\), not \([14],\)"),
        (lambda inputs: torch.ones(len(inputs.prompts), 1), r"ValueError: it returned shape \([14], 1\)"),
        (lambda inputs: torch.tensor(1.0), r"ValueError: it returned shape \(\), not"),
        (lambda inputs: 1.0, "ValueError: it returned float, not a tensor"),
        (lambda inputs: None, "ValueError: it returned NoneType"),
    ],
)
def test_a_wrong_number_of_values_is_a_null_everywhere(
    tmp_path: Path, compute: Callable[[Inputs], Any], reason: str, encoder: str | None
) -> None:
    declared = FakeMetrics(metric(facts("bad", encoder))(compute))
    with rendered(tmp_path, metrics=("bad", "beauty"), prompts=2) as folder:
        score(folder, registry=declared.registry)
        found = of_metric(folder, "bad")
        assert len(found) == 12
        for item in found:
            assert item.value is None
            assert re.match(reason, str(item.reason))
        assert nulls(folder, "beauty") == {}


def test_a_failure_is_tried_again_and_noted_once_but_a_metrics_own_null_stands(tmp_path: Path) -> None:
    failing = FakeMetrics(metric(facts("bad"))(_raises), metric(facts("choosy"))(_declines))
    with rendered(tmp_path, metrics=("bad", "choosy")) as folder:
        score(folder, registry=failing.registry)
        lines = journal_lines(folder)
        assert score(folder, registry=failing.registry) == 0
        assert journal_lines(folder) == lines
        mended = FakeMetrics(*(metric(facts(name))(_gives(2.0)) for name in ("bad", "choosy")))
        assert score(folder, registry=mended.registry) == 6
        assert nulls(folder, "bad") == {}
        assert len(nulls(folder, "choosy")) == 6


def test_a_metric_that_works_in_place_changes_no_other_score(tmp_path: Path, expected: Values) -> None:
    def rude(inputs: Inputs) -> torch.Tensor:
        for tensor in (inputs.pixels, inputs.reference_pixels, inputs.image_embeds, inputs.text_embeds):
            if tensor is not None:
                tensor.zero_()
        return torch.zeros(len(inputs.prompts))

    names = ("rude", "rude-reference", "rude-encoder")
    declared = FakeMetrics(
        metric(facts(names[0]))(rude),
        metric(facts(names[1]), needs_reference=True)(rude),
        metric(facts(names[2], "conv"))(rude),
    )
    with rendered(tmp_path, metrics=(*names, *ALL)) as folder:
        score(folder, registry=declared.registry)
        assert {key: found for key, found in values(folder).items() if key[3] in ALL} == expected


# --- encoders that fail ----------------------------------------------------------------------


class Picky(ConvTower):
    """An encoder that fails on one prompt or one image."""

    def __init__(self, how: str, victim: bytes) -> None:
        super().__init__(1, 4, [], [])
        self.how, self.victim = how, victim

    def preprocess(self, image: Image.Image, preprocessing: str = "") -> torch.Tensor:
        row = super().preprocess(image, preprocessing)
        if image.tobytes() != self.victim:
            return row
        if self.how == "preprocess":
            raise RuntimeError("cannot crop")
        return row + 100

    def embed_images(self, pixels: torch.Tensor) -> torch.Tensor:
        embeds = super().embed_images(pixels)
        if self.how == "image" and pixels.max() > 50:
            raise RuntimeError("too bright")
        if self.how == "norm":
            embeds[pixels.amax(dim=(1, 2, 3)) > 50] *= 20
        return embeds

    def embed_texts(self, prompts: Sequence[str]) -> torch.Tensor:
        if self.how == "text" and PROMPT in prompts:
            raise RuntimeError("too old")
        return super().embed_texts(prompts)


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("preprocess", "RuntimeError: cannot crop"),
        ("image", "RuntimeError: too bright"),
        ("norm", "the encoder gave an embedding of L2 norm 20, not 1"),
    ],
)
def test_a_encoder_that_fails_on_an_image_loses_that_images_scores_only(
    tmp_path: Path, expected: Values, how: str, reason: str
) -> None:
    with rendered(tmp_path) as folder:
        with Image.open(folder.image_path(*VICTIM)) as image:
            victim = image.tobytes()
        score(folder, registry=replace_encoder(lambda place: Picky(how, victim)))
        for name in ("alignment", "beauty"):
            assert nulls(folder, name) == {VICTIM: reason}
        lost = {(*VICTIM, "alignment"), (*VICTIM, "beauty")}
        assert {key: found for key, found in values(folder).items() if key not in lost} == {
            key: found for key, found in expected.items() if key not in lost
        }


def test_a_encoder_that_fails_on_a_prompt_loses_the_scores_that_read_it_only(tmp_path: Path, expected: Values) -> None:
    with rendered(tmp_path) as folder:
        score(folder, registry=replace_encoder(lambda place: Picky("text", b"")))
        assert set(nulls(folder, "alignment").values()) == {"RuntimeError: too old"}
        lost = {key for key in expected if key[1] == "case-002" and key[3] == "alignment"}
        assert {key for key, found in values(folder).items() if found != expected[key]} == lost


def replace_encoder(load: Callable[[Place], ConvTower]) -> Registry:
    """The usual registry with another loader of the encoder ``conv``."""
    declared = FakeMetrics()
    return registry_of(*declared.registry.metrics.values(), Encoder("conv", load), declared.encoders[1])


def test_weights_that_cannot_be_loaded_leave_their_cells_open_and_the_rest_scored(
    tmp_path: Path, expected: Values
) -> None:
    def missing(place: Place) -> ConvTower:
        raise FileNotFoundError("conv.safetensors")

    with rendered(tmp_path) as folder:
        with pytest.raises(WeightsError, match=r"The encoder 'conv' cannot be loaded: FileNotFoundError: conv"):
            score(folder, registry=replace_encoder(missing))
        assert {key[3] for key in values(folder)} == set(ALL) - {"alignment", "beauty"}
        assert "other-alignment" in (tmp_path / "scores.csv").read_text(encoding="utf-8")
        assert score(folder, registry=FakeMetrics().registry) == 2 * CELLS
        assert values(folder) == expected


def test_a_head_that_cannot_be_loaded_leaves_its_metric_open_only(tmp_path: Path) -> None:
    def damaged(place: Place) -> torch.Tensor:
        raise WeightsError("beauty.safetensors is damaged.", hint="hotart-bench fetch mini")

    declared = FakeMetrics()
    rest = [found for name, found in declared.registry.metrics.items() if name != "beauty"]
    broken = Metric(BEAUTY.facts, BEAUTY.compute, damaged)
    with rendered(tmp_path) as folder:
        with pytest.raises(WeightsError, match=r"^beauty\.safetensors is damaged\.$") as refused:
            score(folder, registry=registry_of(broken, *rest, *declared.encoders))
        assert refused.value.hint == "hotart-bench fetch mini"
        assert {key[3] for key in values(folder)} == set(ALL) - {"beauty"}


@pytest.mark.parametrize("encoder", [None, "conv"])
@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_running_out_of_memory_is_no_score_but_an_error(tmp_path: Path, error: Exception, encoder: str | None) -> None:
    def hungry(inputs: Inputs) -> torch.Tensor:
        raise error

    with rendered(tmp_path, metrics=("hungry",)) as folder:
        with pytest.raises(MachineError, match="Out of memory while scoring a batch of"):
            score(folder, registry=FakeMetrics(metric(facts("hungry", encoder))(hungry)).registry)
        assert journal_lines(folder) == 0
