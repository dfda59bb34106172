"""The mini world: its contents, captions and the ground truth of beauty."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.mini import world

KINDS = ("landscape", "portrait")
HELD_OUT = "12b78ff077ec2d964ee3890044df9802d3cfbba75028472665c7be2846b23acc"
"""Sha256 of the held-out contents: what training may not see is fixed for ever."""


@pytest.mark.parametrize(("kind", "count"), [("landscape", 288), ("portrait", 512)])
def test_number_of_contents(kind: str, count: int) -> None:
    table = world.combinations(kind)
    assert len(table) == len(set(table)) == count


def test_no_moon_at_noon_and_no_sun_at_night() -> None:
    skies = {world.caption("landscape", content, 0).split(" at ")[1] for content in world.combinations("landscape")}
    assert "noon, clear sky with the sun" in skies
    assert "night, clear sky with the moon" in skies
    assert "noon, clear sky with the moon" not in skies
    assert "night, clear sky with the sun" not in skies


@pytest.mark.parametrize("kind", KINDS)
def test_about_a_tenth_is_held_out_and_the_two_parts_are_the_whole(kind: str) -> None:
    seen, hidden = (world.contents(kind, held_out=flag) for flag in (False, True))
    assert sorted(seen + hidden) == sorted(world.combinations(kind))
    assert not set(seen) & set(hidden)
    assert 0.07 < len(hidden) / (len(seen) + len(hidden)) < 0.13


def test_every_value_of_every_attribute_is_seen_in_training_and_asked_for_in_evaluation() -> None:
    for kind, attributes in world.KINDS.items():
        for flag in (False, True):
            table = world.contents(kind, held_out=flag)
            for place, values in enumerate(attributes.values()):
                assert {content[place] for content in table} == set(range(len(values)))


def test_what_is_held_out_never_changes() -> None:
    lines = [f"{kind} {content}" for kind in KINDS for content in world.contents(kind, held_out=True)]
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == HELD_OUT


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("template", range(3))
def test_caption_names_every_attribute_and_no_two_contents_share_one(kind: str, template: int) -> None:
    captions = set()
    for content in world.combinations(kind):
        text = world.caption(kind, content, template)
        words = text.replace(",", "").split()
        for values, index in zip(world.KINDS[kind].values(), content, strict=True):
            assert values[index] in words
        captions.add(text)
    assert len(captions) == len(world.combinations(kind))


def test_captions_say_nothing_of_craft() -> None:
    craft = {word for pair in world.CRAFT_WORDS.values() for word in pair}
    for kind, templates in world.TEMPLATES.items():
        values = {value for attribute in world.KINDS[kind].values() for value in attribute}
        words = {word for template in templates for word in template.replace(",", "").split()} | values
        assert not words & craft


def test_weights_of_beauty_sum_to_1() -> None:
    assert sum(world.CRAFT_WEIGHTS.values()) == pytest.approx(1)
    assert set(world.CRAFT_WEIGHTS) == set(world.CRAFT_WORDS)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1, width=32), min_size=6, max_size=6))
def test_beauty_is_the_weighted_sum_of_the_six_qualities(qualities: list[float]) -> None:
    composition, level, contrast, harmony, sharpness, noise = qualities
    expected = 0.20 * composition + 0.15 * level + 0.20 * contrast + 0.15 * harmony + 0.20 * sharpness + 0.10 * noise
    scenes = world.Scenes(
        "landscape", np.zeros((1, 5), np.int64), np.float32([qualities]), np.zeros((1, 24), np.float32)
    )
    assert scenes.beauty().dtype == np.float32
    assert float(scenes.beauty()[0]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("held_out", [False, True])
def test_sampled_scenes(kind: str, held_out: bool) -> None:
    scenes = world.sample(kind, 400, np.random.default_rng(1), held_out=held_out)
    assert scenes.content.shape == (400, len(world.KINDS[kind]))
    assert (scenes.craft.shape, scenes.nuisance.shape) == ((400, 6), (400, 24))
    assert (scenes.craft.dtype, scenes.nuisance.dtype) == (np.float32, np.float32)
    for values in (scenes.craft, scenes.nuisance):
        assert values.min() >= 0
        assert values.max() < 1
        np.testing.assert_allclose(values.mean(0), 0.5, atol=0.07)  # 5 standard errors
    allowed = set(world.contents(kind, held_out=held_out))
    drawn = {tuple(int(value) for value in row) for row in scenes.content}
    assert drawn <= allowed
    assert len(drawn) > 0.5 * min(len(allowed), 400)


def test_sampling_repeats_from_its_seed_alone() -> None:
    first, again = (world.sample("portrait", 8, np.random.default_rng(3)) for _ in range(2))
    other = world.sample("portrait", 8, np.random.default_rng(4))
    for name in ("content", "craft", "nuisance"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
        assert (getattr(first, name) != getattr(other, name)).any()


def test_given_craft_is_used_as_it_is() -> None:
    craft = np.linspace(0, 1, 18, dtype=np.float32).reshape(3, 6)
    scenes = world.sample("landscape", 3, np.random.default_rng(0), craft=craft)
    np.testing.assert_array_equal(scenes.craft, craft)


def test_words_of_craft_are_those_of_its_side() -> None:
    craft = np.float32([0.9, 0.1, 0.9, 0.1, 0.9, 0.1])
    assert world.craft_words(craft, (0, 1)) == "composed, tilted"
    assert world.craft_words(craft, (5, 4, 3, 2)) == "grainy, sharp, tinted, contrasty"
    assert world.craft_words(1 - craft, (2, 3, 4, 5)) == "flat, natural, blurry, clean"
    assert world.craft_words(craft, ()) == ""
