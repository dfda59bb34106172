"""Pools of scenes: who may see what, and preferences drawn from them by their stated probabilities."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.mini import draw, world
from bench.mini.train import clip, dpo, spo
from bench.mini.train.data import SEEDS, Pool, pool
from bench.mini.train.loop import Dice, Recipe, dice
from bench.mini.train.preference import RATERS, SECOND_RATERS, Pairs, Raters

N = 256
RECIPE = Recipe(stage="test", iterations=1, batch=1, learning_rate=0.1)


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Pool]:
    """Pools of 256 scenes, in chunks of 64."""
    folder = tmp_path_factory.mktemp("pools")

    def make_pool(name: str) -> Pool:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("bench.mini.train.data.CHUNK", 64)
            return pool(folder, name, N)

    return make_pool


@pytest.fixture(scope="module")
def train(make: Callable[..., Pool]) -> Pool:
    return make("train")


def keys(source: Pool) -> set[tuple[str, world.Content]]:
    return {(tuple(world.KINDS)[source.kind[row]], source.key(row)) for row in range(len(source))}


# --- pools ---------------------------------------------------------------------------------


def test_a_pool_holds_as_many_landscapes_as_portraits_with_their_truth(train: Pool) -> None:
    assert (len(train), train.images.shape, train.images.dtype) == (N, (N, 3, 64, 64), np.uint8)
    assert (train.kind == 0).sum() == (train.kind == 1).sum()
    assert (train.content[train.kind == 0][:, 5] == -1).all()
    assert (train.content[train.kind == 1] >= 0).all()
    assert (train.content[:, :5] >= 0).all()
    expected = [sum(w * q for w, q in zip(world.CRAFT_WEIGHTS.values(), row, strict=True)) for row in train.craft]
    np.testing.assert_allclose(train.beauty(), expected, atol=1e-6)


def test_pictures_are_those_of_their_truth(train: Pool) -> None:
    """The first chunk, drawn anew from the documented seed of its pool and chunk."""
    scenes = world.sample("landscape", 64, np.random.default_rng([SEEDS["train"], 0]))
    np.testing.assert_array_equal(train.craft[:64], scenes.craft)
    np.testing.assert_array_equal(train.content[:64, :5], scenes.content)
    np.testing.assert_array_equal(train.images[:64], draw.draw(scenes))


def test_caption_is_that_of_the_scene(train: Pool) -> None:
    for row in (0, 100, 255):
        kind = "landscape" if train.kind[row] == 0 else "portrait"
        content = tuple(int(value) for value in train.content[row, : 5 if kind == "landscape" else 6])
        assert train.key(row) == content
        assert train.caption(row, 1) == world.caption(kind, content, 1)


def test_pools_of_different_names_share_no_scene(make: Callable[..., Pool]) -> None:
    assert len(set(SEEDS.values())) == len(SEEDS)
    crafts = {name: {row.tobytes() for row in make(name).craft} for name in SEEDS}
    images = {name: {image.tobytes() for image in make(name).images} for name in SEEDS}
    for one, other in itertools.combinations(SEEDS, 2):
        assert not crafts[one] & crafts[other]
        assert not images[one] & images[other]


@pytest.mark.parametrize("name", list(SEEDS))
def test_training_never_sees_a_held_out_content(make: Callable[..., Pool], name: str) -> None:
    assert not any(world.is_held_out(kind, content) for kind, content in keys(make(name)))


def test_prompts_that_spo_samples_are_of_contents_that_training_may_see() -> None:
    seen, hidden = (
        {
            world.caption(kind, content, template)
            for kind in world.KINDS
            for content in world.contents(kind, held_out=flag)
            for template in range(3)
        }
        for flag in (False, True)
    )
    texts = spo.prompts(dice(RECIPE, 0), 300)
    assert set(texts) <= seen - hidden
    assert len(set(texts)) > 200


def test_a_pool_is_drawn_once(make: Callable[..., Pool], train: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(_: world.Scenes) -> None:
        raise AssertionError("drawn again")

    monkeypatch.setattr(draw, "draw", never)
    again = make("train")
    np.testing.assert_array_equal(again.craft, train.craft)
    assert isinstance(again.images, np.memmap)


def test_a_pool_whose_drawing_was_interrupted_is_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.mini.train.data.CHUNK", 4)
    whole, calls = draw.draw, []

    def interrupted(scenes: world.Scenes) -> np.ndarray:
        calls.append(scenes.kind)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return whole(scenes)

    monkeypatch.setattr(draw, "draw", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pool(tmp_path, "train", 8)
    found = pool(tmp_path, "train", 8)
    assert calls == ["landscape", "portrait"] * 2
    assert all(image.std() > 0 for image in found.images)


# --- preferences ---------------------------------------------------------------------------


def content_of(caption: str, source: Pool, rows: tuple[int, int]) -> np.ndarray:
    """The content that a caption speaks of: that of one of the two pictures."""
    for row in rows:
        if caption in {source.caption(row, template) for template in range(3)}:
            return source.content[row]
    raise AssertionError(f"{caption}: of neither picture")


def test_probabilities_follow_beauty_and_wrong_attributes(train: Pool) -> None:
    first, second, probability, captions = Pairs(train).draw(dice(RECIPE, 1), 200)
    assert probability.dtype == np.float32
    for one, two, found, caption in zip(first, second, probability, captions, strict=True):
        asked = content_of(caption, train, (one, two))
        wrong = [sum(a != b for a, b in zip(train.content[row], asked, strict=True)) for row in (one, two)]
        gap = 12 * (float(train.beauty()[one]) - float(train.beauty()[two])) - 2 * (wrong[0] - wrong[1])
        assert found == pytest.approx(1 / (1 + np.exp(-gap)), abs=1e-5)


def test_partners_differ_in_nothing_or_in_one_attribute(train: Pool) -> None:
    first, second, _, _ = Pairs(train).draw(dice(RECIPE, 2), 2000)
    assert (train.kind[first] == train.kind[second]).all()
    wrong = (train.content[first] != train.content[second]).sum(1)
    assert set(wrong.tolist()) == {0, 1}
    assert 0.1 < wrong.mean() < 0.25 + 4 * (0.25 * 0.75 / 2000) ** 0.5  # a few contents have no neighbour in the pool


def test_pairs_repeat_from_their_dice(train: Pool) -> None:
    pairs = Pairs(train)
    one, again, other = (pairs.draw(dice(RECIPE, iteration), 20) for iteration in (3, 3, 4))
    for a, b in zip(one, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert (one[0] != other[0]).any()


def test_dpo_leaves_near_ties_out_and_prefers_the_winner(train: Pool) -> None:
    pairs = Pairs(train)
    winner, loser, captions = dpo.draw_pairs(pairs, dice(RECIPE, 5), 300)
    assert len(winner) == len(loser) == len(captions) <= 300
    gaps = train.beauty()[winner] - train.beauty()[loser]
    assert np.abs(gaps).min() >= dpo.TIE
    same = (train.content[winner] == train.content[loser]).all(1)
    # Noisy people: at a gap of g the better picture wins with sigma(12 g).
    expected = 1 / (1 + np.exp(-12 * np.abs(gaps[same])))
    assert (gaps[same] > 0).mean() == pytest.approx(expected.mean(), abs=0.1)
    for one, two, caption in zip(winner, loser, captions, strict=True):
        content_of(caption, train, (int(one), int(two)))


def test_raters_know_the_six_qualities_and_their_weights_sum_to_one() -> None:
    for raters in (RATERS, SECOND_RATERS):
        assert set(raters.weights) == set(world.CRAFT_WEIGHTS)
        assert sum(raters.weights.values()) == pytest.approx(1)
    assert RATERS.weights == world.CRAFT_WEIGHTS
    assert SECOND_RATERS.weights != world.CRAFT_WEIGHTS


def test_raters_like_the_sum_of_the_qualities_in_their_own_weights(train: Pool) -> None:
    own = SECOND_RATERS.weights
    expected = [sum(own[q] * v for q, v in zip(world.CRAFT_WEIGHTS, row, strict=True)) for row in train.craft]
    np.testing.assert_allclose(SECOND_RATERS.likes(train.craft), expected, atol=1e-6)
    np.testing.assert_allclose(RATERS.likes(train.craft), train.beauty(), atol=1e-6)


def test_tastes_scatter_around_that_of_the_population_as_a_dirichlet_distribution_does() -> None:
    """The variance of a weight w is w (1 - w) / (agreement + 1), of each quality alone."""
    rng = np.random.default_rng(0)
    for place, weight in enumerate(SECOND_RATERS.weights[name] for name in world.CRAFT_WEIGHTS):
        tastes = SECOND_RATERS.taste(np.tile(np.eye(6, dtype=np.float32)[place], (20_000, 1)), rng)
        assert np.mean(tastes) == pytest.approx(0, abs=3e-3)
        assert np.var(tastes) == pytest.approx(weight * (1 - weight) / 21, rel=0.05)


def test_people_who_agree_have_no_taste_of_their_own_and_roll_no_dice() -> None:
    rng = np.random.default_rng(0)
    assert RATERS.taste(np.ones((3, 6), np.float32), rng) == 0
    assert rng.random() == np.random.default_rng(0).random()


def test_one_answer_in_twenty_of_the_second_raters_is_a_guess(train: Pool) -> None:
    sure = Raters(SECOND_RATERS.weights, gain=80.0, mismatch_cost=0, chance=SECOND_RATERS.chance)
    first, second, probability, _ = Pairs(train, sure).draw(dice(RECIPE, 8), 300)
    gap = sure.likes(train.craft)[first] - sure.likes(train.craft)[second]
    far = np.abs(gap) > 0.2
    np.testing.assert_allclose(probability[far], np.where(gap[far] > 0, 0.975, 0.025), atol=1e-6)


def test_other_people_choose_other_pictures_of_the_same_pairs(train: Pool) -> None:
    drawn = [Pairs(train, raters).draw(dice(RECIPE, 9), 400) for raters in (RATERS, SECOND_RATERS)]
    np.testing.assert_array_equal(drawn[0][0], drawn[1][0])
    different = drawn[0][0] != drawn[0][1]
    one, two = (probability[different] for _, _, probability, _ in drawn)
    assert 0.05 < ((one > 0.5) != (two > 0.5)).mean() < 0.4


# --- captions for mini-clip ----------------------------------------------------------------


def test_three_captions_in_four_speak_of_one_to_three_qualities(train: Pool) -> None:
    spoken = clip.words(train, dice(RECIPE, 6), np.arange(N).repeat(8))
    counts = np.array([len(which) for which in spoken])
    assert set(counts.tolist()) == {0, 1, 2, 3}
    assert (counts == 0).mean() == pytest.approx(0.25, abs=0.05)
    assert all(len(set(which)) == len(which) <= 3 and set(which) <= set(range(6)) for which in spoken)


def test_captions_say_the_words_that_are_spoken(train: Pool) -> None:
    index, spoken = np.array([0, 70, 3]), [(), (4,), (0, 5)]
    for row, which, text in zip(index, spoken, clip.captions(train, dice(RECIPE, 7), index, spoken), strict=True):
        base = next(c for c in (train.caption(int(row), t) for t in range(3)) if text.startswith(c))
        words = [list(world.CRAFT_WORDS.values())[q][int(train.craft[row, q] > 0.5)] for q in which]
        assert text.removeprefix(base) == "".join(f", {word}" for word in words)


def test_a_caption_is_true_of_every_picture_of_its_content_where_its_words_hold() -> None:
    rng = np.random.default_rng(0)
    n = 40
    source = Pool(
        images=np.zeros((n, 3, 64, 64), np.uint8),
        craft=rng.random((n, 6), np.float32),
        kind=rng.integers(2, size=n),
        content=rng.integers(2, size=(n, 6)) * np.array([1, 0, 0, 0, 0, 0]),
    )
    index = rng.permutation(n)
    spoken = clip.words(source, Dice(rng, torch.Generator()), index)
    found = clip.matches(source, index, spoken)
    for i, j in itertools.product(range(n), repeat=2):
        one, two = index[i], index[j]
        fits = source.kind[one] == source.kind[two] and (source.content[one] == source.content[two]).all()
        fits = fits and all((source.craft[one, q] > 0.5) == (source.craft[two, q] > 0.5) for q in spoken[i])
        assert found[i, j] == float(fits)
    assert bool((found.diagonal() == 1).all())
    assert n < found.sum() < n * n


def test_dice_depend_on_seed_stage_and_iteration_alone() -> None:
    def rolled(recipe: Recipe, iteration: int) -> tuple[float, float]:
        drawn = dice(recipe, iteration)
        return float(drawn.numpy.random()), float(torch.rand(1, generator=drawn.torch))

    base = rolled(RECIPE, 3)
    assert rolled(RECIPE, 3) == base
    others = [
        rolled(RECIPE, 4),
        rolled(Recipe(stage="other", iterations=1, batch=1, learning_rate=0.1), 3),
        rolled(Recipe(stage="test", iterations=1, batch=1, learning_rate=0.1, seed=1), 3),
    ]
    assert len({base, *others}) == 4
    assert rolled(Recipe(stage="test", iterations=9, batch=7, learning_rate=0.5, warmup=3), 3) == base


def test_every_stage_reads_only_the_pool_that_it_may_see() -> None:
    """By the source: no other stage reads the pools of the instrument and of the second pair of metrics, and none draws
    held-out contents.
    """
    folder = Path(clip.__file__).parent
    read = {
        path.stem: set(re.findall(r'pool\(work, "([\w-]+)"', path.read_text("utf-8")))
        for path in folder.glob("*.py")
        if path.stem != "data"
    }
    readers = {stage: names for stage, names in read.items() if names}
    assert readers.pop("instrument") == {"instrument"}
    assert [readers.pop(stage) for stage in ("clip", "preference")] == [{"train", "second"}] * 2
    assert set().union(*readers.values()) == {"train"}
    assert not any("held_out=True" in path.read_text("utf-8") for path in folder.glob("*.py"))
