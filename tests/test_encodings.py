"""Prompts are encoded in windows, those used last are kept within a budget, and equal negatives once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from fakes import make_run
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from bench.pipeline.denoise import Encoded
from bench.records import PlannedImage, Prompt, Suite
from bench.render.encodings import WINDOW, Batches, Encodings
from bench.suite import plan_images

WIDTH = 4
ROW_BYTES = (77 * WIDTH + WIDTH) * 4


def suite_of(prompts: int, negatives: Sequence[str] = ("blur",), batch: int = 4) -> Suite:
    suite = make_run("run", prompts=1).info.suite
    return replace(
        suite,
        prompts=tuple(Prompt(id=f"p{n}", text=f"{n}", negative=negatives[n % len(negatives)]) for n in range(prompts)),
        settings=replace(suite.settings, batch=batch),
        samples=1,
    )


def batches_of(suite: Suite) -> list[tuple[PlannedImage, ...]]:
    batches: dict[int, list[PlannedImage]] = {}
    for image in plan_images(suite):
        batches.setdefault(image.batch, []).append(image)
    return [tuple(images) for images in batches.values()]


class Encoder:
    """Encodes a prompt as its own number, and a negative as its length."""

    def __init__(self, suite: Suite) -> None:
        self.negatives = {prompt.id: prompt.negative for prompt in suite.prompts}
        self.calls: list[list[str]] = []

    def __call__(self, window: Batches, known: Mapping[str, Encoded]) -> Mapping[str, Encoded]:
        names = dict.fromkeys(image.prompt_id for batch in window for image in batch)
        self.calls.append([name for name in names if name not in known])
        return {name: known.get(name) or self.encoded(name) for name in names}

    def encoded(self, name: str) -> Encoded:
        number, length = float(name[1:]), float(len(self.negatives[name]))
        rows = [torch.full((1, 77, WIDTH), value) for value in (number, length)]
        return Encoded(rows[0], rows[1], rows[0][:, 0], rows[1][:, 0])


def test_each_prompt_is_encoded_once_a_window_at_a_time() -> None:
    suite = suite_of(150)
    batches, encoder = batches_of(suite), Encoder(suite)
    kept = Encodings(suite)
    for number in range(len(batches)):
        kept.of(batches, number, encoder)
    assert [len(call) for call in encoder.calls] == [WINDOW, WINDOW, 150 - 2 * WINDOW]
    for number in range(len(batches)):  # the next variant
        kept.of(batches, number, encoder)
    assert len(encoder.calls) == 3


def test_equal_negatives_are_one_tensor_and_others_are_their_own() -> None:
    suite = suite_of(8, ("blur", "text and blur"))
    found = Encodings(suite).of(batches_of(suite), 0, Encoder(suite))
    assert found["p0"].negative is found["p2"].negative
    assert found["p0"].negative_pooled is found["p2"].negative_pooled
    assert found["p0"].negative is not found["p1"].negative


def test_a_negative_that_comes_out_otherwise_is_kept_as_it_is() -> None:
    suite = suite_of(4)
    encoder = Encoder(suite)
    encoder.negatives["p2"] = "longer than its text says"
    found = Encodings(suite).of(batches_of(suite), 0, encoder)
    assert float(found["p2"].negative[0, 0, 0]) == 25
    assert found["p0"].negative is found["p3"].negative


@given(st.integers(1, 300), st.integers(1, 40), st.integers(0, 400), st.integers(1, 3))
@settings(max_examples=30, deadline=None)
def test_whatever_is_kept_each_batch_has_its_own_prompts_within_the_budget(
    prompts: int, batch: int, rows: int, variants: int
) -> None:
    suite = suite_of(prompts, batch=batch)
    batches, encoder = batches_of(suite), Encoder(suite)
    kept = Encodings(suite, kept_bytes=rows * ROW_BYTES)
    for number in [*range(len(batches))] * variants:
        found = kept.of(batches, number, encoder)
        assert {name: float(one.prompt[0, 0, 0]) for name, one in found.items()} == {
            image.prompt_id: float(image.prompt_id[1:]) for image in batches[number]
        }
        assert len(kept._kept) <= max(rows, WINDOW + batch)
        assert kept._bytes == len(kept._kept) * ROW_BYTES
