"""Preprocessings, reward models, cut prompts, half precision: what an encoder's pass does once and records."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import pytest
import torch
from fake_metrics import CUT, WIDTH, ConvTower, facts, nulls, of_metric, rendered, values
from PIL import Image

from bench.compare import compare_runs
from bench.errors import IncomparableError, UsageError
from bench.metrics import Encoder, Inputs, Metric, Place, facts_of_run, metric, registry_of
from bench.records import MetricFacts
from bench.score import missing_scores, score
from bench.store import load_run

IMAGES = 12  # 3 variants, 2 prompts, 2 samples


class Preprocessing(ConvTower):
    """An encoder with three preprocessings: "same" gives the pixels of "", "dark" the negative, "broken" raises."""

    def __init__(self) -> None:
        super().__init__(1, 4, [], [])
        self.forwards: list[torch.Tensor] = []
        self.named: list[str] = []

    def preprocess(self, image: Image.Image, name: str = "") -> torch.Tensor:
        self.named.append(name)
        if name == "broken":
            raise RuntimeError("no such preprocessing")
        row = super().preprocess(image)
        return 1 - row if name == "dark" else row

    def embed_images(self, pixels: torch.Tensor) -> torch.Tensor:
        self.forwards.append(pixels)
        return super().embed_images(pixels)


def _first(inputs: Inputs) -> torch.Tensor:
    assert inputs.image_embeds is not None
    assert inputs.reward is None
    return inputs.image_embeds[:, 0]


def preprocessed(name: str, preprocessing: str) -> Metric:
    return metric(facts(name, "conv"), needs_text=False, preprocessing=preprocessing)(_first)


def test_preprocessings_of_equal_pixels_share_one_forward_and_others_do_not(tmp_path: Path) -> None:
    encoder = Preprocessing()
    metrics = [preprocessed("plain", ""), preprocessed("same", "same"), preprocessed("dark", "dark")]
    with rendered(tmp_path, metrics=("plain", "same", "dark"), prompts=2) as folder:
        score(folder, registry=registry_of(*metrics, Encoder("conv", lambda place: encoder)))
        found = values(folder)
        cells = {key[:3] for key in found}
        assert len(cells) == IMAGES
        for cell in cells:
            assert found[*cell, "plain"] == found[*cell, "same"] != found[*cell, "dark"]
        assert sum(len(batch) for batch in encoder.forwards) == 2 * IMAGES
        assert {len(batch) for batch in encoder.forwards} == {4}
        assert sorted(encoder.named) == sorted(["", "same", "dark"] * IMAGES)


def test_a_preprocessing_gives_what_it_gives_alone(tmp_path: Path) -> None:
    with rendered(tmp_path / "both", metrics=("plain", "dark"), prompts=2) as folder:
        metrics = [preprocessed("plain", ""), preprocessed("dark", "dark")]
        score(folder, registry=registry_of(*metrics, Encoder("conv", lambda place: Preprocessing())))
        together = {key: value for key, value in values(folder).items() if key[3] == "dark"}
    with rendered(tmp_path / "one", metrics=("dark",), prompts=2) as folder:
        score(folder, registry=registry_of(metrics[1], Encoder("conv", lambda place: Preprocessing())))
        assert values(folder) == together


class Slow(ConvTower):
    """An encoder whose prompts take until pictures of the second batch are preprocessed."""

    def __init__(self) -> None:
        super().__init__(1, 4, [], [])
        self.ahead = threading.Semaphore(0)
        self.waited: list[bool] = []

    def preprocess(self, image: Image.Image, name: str = "") -> torch.Tensor:
        self.ahead.release()
        return super().preprocess(image)

    def embed_texts(self, prompts: Sequence[str]) -> torch.Tensor:
        self.waited.append(all(self.ahead.acquire(timeout=10) for _ in range(self.batch + 1)))
        return super().embed_texts(prompts)


def test_pictures_are_loaded_while_prompts_are_embedded(tmp_path: Path) -> None:
    encoder = Slow()
    reading = metric(facts("reading", "conv"))(_first)
    with rendered(tmp_path, metrics=("reading",), prompts=2) as folder:
        score(folder, registry=registry_of(reading, Encoder("conv", lambda place: encoder)))
        assert len(values(folder)) == IMAGES
    assert encoder.waited == [True]


def test_a_preprocessing_that_fails_loses_no_other(tmp_path: Path) -> None:
    metrics = [preprocessed("plain", ""), preprocessed("broken", "broken")]
    with rendered(tmp_path, metrics=("plain", "broken"), prompts=1) as folder:
        score(folder, registry=registry_of(*metrics, Encoder("conv", lambda place: Preprocessing())))
        assert nulls(folder, "plain") == {}
        assert set(nulls(folder, "broken").values()) == {"RuntimeError: no such preprocessing"}


# --- reward models --------------------------------------------------------------------------


class Reward:
    """Scores picture and prompt together: the picture's mean, times the length of the prompt."""

    batch = 4

    def __init__(self, shape: Sequence[int] | None = None) -> None:
        self.shape, self.calls = shape, list[int]()

    def preprocess(self, image: Image.Image, preprocessing: str) -> torch.Tensor:
        return ConvTower(1, 4, [], []).preprocess(image)

    def score(self, pixels: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        assert len(pixels) == len(prompts) == self.batch
        self.calls.append(len(prompts))
        if self.shape is not None:
            return torch.zeros(tuple(self.shape))
        return pixels.mean(dim=(1, 2, 3)) * torch.tensor([float(len(prompt)) for prompt in prompts])

    def truncated(self, prompts: Sequence[str]) -> list[bool]:
        return [len(prompt) > 20 for prompt in prompts]


def _standardised(inputs: Inputs) -> torch.Tensor:
    assert inputs.reward is not None
    assert inputs.image_embeds is inputs.text_embeds is None
    return (inputs.reward - 1.0) / 2.0


JUDGED = metric(facts("judged", "reward"))(_standardised)


def test_a_reward_model_scores_each_picture_with_its_own_prompt(tmp_path: Path) -> None:
    encoder = Reward()
    with rendered(tmp_path, metrics=("judged",), prompts=2) as folder:
        score(folder, registry=registry_of(JUDGED, Encoder("reward", lambda place: encoder)))
        prompts = {prompt.id: prompt.text for prompt in load_run(tmp_path).info.suite.prompts}
        for item in of_metric(folder, "judged"):
            with Image.open(folder.image_path(item.variant, item.prompt_id, item.sample)) as image:
                mean = float(encoder.preprocess(image, "").mean())
            assert item.value == pytest.approx((mean * len(prompts[item.prompt_id]) - 1) / 2, rel=1e-5)
            assert item.prompt_cut == (len(prompts[item.prompt_id]) > 20)
        assert sum(encoder.calls) == IMAGES


def test_a_reward_model_that_gives_another_shape_is_a_null_with_the_reason(tmp_path: Path) -> None:
    with rendered(tmp_path, metrics=("judged",), prompts=1) as folder:
        score(folder, registry=registry_of(JUDGED, Encoder("reward", lambda place: Reward((4, 1)))))
        reasons = set(nulls(folder, "judged").values())
        assert reasons == {"the encoder gave values of shape (4, 1), not (4,)"}


# --- cut prompts ---------------------------------------------------------------------------


class Short(ConvTower):
    """Reads the first prompt of the suite in part only, and cannot tell of the second one."""

    def __init__(self, cut: str, unknown: str) -> None:
        super().__init__(1, 4, [], [])
        self.cut, self.unknown = cut, unknown

    def truncated(self, prompts: Sequence[str]) -> list[bool]:
        if self.unknown in prompts:
            raise RuntimeError("cannot count")
        return [prompt == self.cut for prompt in prompts]


def test_scores_say_whether_their_prompt_was_cut_and_only_where_it_is_read(tmp_path: Path) -> None:
    reading = metric(facts("reading", "conv"))(_first)
    with rendered(tmp_path, metrics=("reading", "plain"), prompts=3) as folder:
        first, second, third = (prompt.text for prompt in load_run(tmp_path).info.suite.prompts)
        assert max(map(len, (first, second, third))) < CUT
        encoder = Encoder("conv", lambda place: Short(first, second))
        score(folder, registry=registry_of(reading, preprocessed("plain", ""), encoder))
        cut = {item.prompt_id: item.prompt_cut for item in of_metric(folder, "reading")}
        assert list(cut.values()) == [True, False, False]
        assert {key[1] for key in nulls(folder, "reading")} == {"case-001"}
        assert set(nulls(folder, "reading").values()) == {"RuntimeError: cannot count"}
        assert nulls(folder, "plain") == {}
        assert not any(item.prompt_cut for item in of_metric(folder, "plain"))


# --- half precision ------------------------------------------------------------------------


def rounding(place: Place) -> ConvTower:
    """An encoder that computes in the dtype asked for, on weights rounded to it."""
    encoder = ConvTower(1, 4, [], [])
    kind = getattr(torch, place.dtype)
    encoder.image_out = encoder.image_out.to(kind).float()
    return encoder


PLACES: list[Place] = []


def _head(place: Place) -> torch.Tensor:
    PLACES.append(place)
    return torch.linspace(-1, 1, WIDTH)


def _regress(inputs: Inputs) -> torch.Tensor:
    assert inputs.image_embeds is not None
    assert inputs.image_embeds.dtype == torch.float32
    value: torch.Tensor = inputs.image_embeds @ inputs.head
    return value


HEADED = metric(facts("headed", "conv"), load_head=_head, needs_text=False)(_regress)
SINGLE = metric(facts("single", "exact"), needs_text=False)(_first)
HALF = registry_of(
    HEADED, SINGLE, Encoder("conv", rounding), Encoder("exact", lambda place: ConvTower(2, 4, [], []), (), ("float32",))
)


def test_another_dtype_scores_anew_and_heads_stay_in_float32(tmp_path: Path) -> None:
    with rendered(tmp_path, metrics=("headed",), prompts=1) as folder:
        score(folder, registry=HALF)
        whole = values(folder)
        PLACES.clear()
        assert score(folder, metric_dtype="bfloat16", registry=HALF) == 6
        assert {(item.version, item.metric_dtype) for item in of_metric(folder, "headed")} == {("1", "bfloat16")}
        assert {place.dtype for place in PLACES} == {"float32"}
        half = values(folder)
        assert half != whole
        assert all(half[key] == pytest.approx(whole[key], abs=0.05) for key in whole)
        assert score(folder, metric_dtype="bfloat16", registry=HALF) == 0
        assert score(folder, metric_dtype="float32", registry=HALF) == 6
        assert values(folder) == whole


def test_a_folder_goes_on_in_the_dtype_that_its_card_names(tmp_path: Path) -> None:
    with rendered(tmp_path, metrics=("headed", "single"), prompts=1) as folder:
        assert folder.info is not None
        card = facts_of_run(("headed", "single"), (), ("headed",), "float16", HALF)
        assert [found.metric_dtype for found in card] == ["float16", "float32"]
        folder.write_info(msgspec.structs.replace(folder.info, metrics=card))
        score(folder, registry=HALF)
        dtypes = {(item.metric, item.metric_dtype) for item in folder.scores()}
        assert dtypes == {("headed", "float16"), ("single", "float32")}
        assert missing_scores(folder, ("headed", "single"), registry=HALF) == 0
        assert missing_scores(folder, ("headed",), metric_dtype="float32", registry=HALF) == 6
        assert facts_of_run(("headed", "single"), card, ("single",), None, HALF) == card


def test_an_encoder_without_the_dtype_stays_and_alone_is_refused() -> None:
    names = ("headed", "single")
    card = facts_of_run(names, (), names, "float16", HALF)
    assert [found.full_version for found in card] == ["1 in float16", "1"]
    assert facts_of_run(names, card, names, "float32", HALF) == (HEADED.facts, SINGLE.facts)
    with pytest.raises(UsageError, match="none of the metrics single has an encoder that computes in it"):
        facts_of_run(("headed", "single"), (), ("single",), "float16", HALF)


def test_scores_of_two_dtypes_are_not_compared(tmp_path: Path) -> None:
    runs = []
    for dtype in ("float32", "float16"):
        with rendered(tmp_path / dtype, metrics=("headed",), prompts=1) as folder:
            assert folder.info is not None
            card = facts_of_run(("headed",), (), ("headed",), dtype, HALF)
            folder.write_info(msgspec.structs.replace(folder.info, metrics=card))
            score(folder, registry=HALF)
        runs.append(load_run(tmp_path / dtype))
    with pytest.raises(IncomparableError, match="headed is version 1 in float32 and 1 in float16 in float16"):
        compare_runs(*runs, tags=False)


def test_a_new_version_keeps_the_dtype_of_the_card() -> None:
    newer = Metric(msgspec.structs.replace(HEADED.facts, version="2"), HEADED.compute, HEADED.load_head)
    registry = registry_of(newer, Encoder("conv", rounding))
    old: MetricFacts = msgspec.structs.replace(HEADED.facts, version="1", metric_dtype="float16")
    (found,) = facts_of_run(("headed",), (old,), (), None, registry)
    assert (found.version, found.metric_dtype) == ("2", "float16")


def precision() -> tuple[bool, str]:
    return torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()


@pytest.fixture
def allow_tf32() -> Iterator[Callable[[bool], None]]:
    before = precision()

    def setting(allowed: bool) -> None:
        torch.backends.cudnn.allow_tf32 = allowed
        torch.set_float32_matmul_precision("high" if allowed else "highest")

    yield setting
    torch.backends.cudnn.allow_tf32 = before[0]
    torch.set_float32_matmul_precision(before[1])


@pytest.mark.parametrize("encoder", [None, "conv"])
@pytest.mark.parametrize("allowed", [True, False])
def test_nothing_is_judged_in_tensorfloat32_and_the_setting_is_given_back(
    tmp_path: Path, allow_tf32: Callable[[bool], None], encoder: str | None, allowed: bool
) -> None:
    seen: list[tuple[bool, str]] = []

    class Noting(ConvTower):
        def embed_images(self, pixels: torch.Tensor) -> torch.Tensor:
            seen.append(precision())
            return super().embed_images(pixels)

    def compute(inputs: Inputs) -> torch.Tensor:
        seen.append(precision())
        return torch.ones(len(inputs.prompts))

    declared = [metric(facts("noting", encoder))(compute), Encoder("conv", lambda place: Noting(1, 4, [], []))]
    allow_tf32(allowed)
    before = precision()
    with rendered(tmp_path, metrics=("noting",), prompts=1) as folder:
        score(folder, registry=registry_of(*declared))
    assert set(seen) == {(False, "highest")}
    assert precision() == before
