"""The judge of the embedded family, on scenes that the world's program draws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.metrics.declare import JudgeError, Place
from bench.metrics.registry import installed
from bench.mini import world
from bench.mini.draw import draw
from bench.mini.judge import MINI_JUDGE, MiniJudge
from bench.mini.questions import HOW_MANY, THERE, questions_of
from bench.questions.canaries import Pictured, check
from bench.records import Question
from bench.suite import load_suite

EACH = 8


@pytest.fixture(scope="module")
def judge() -> MiniJudge:
    return MiniJudge("cpu")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> list[Pictured]:
    """Drawn scenes of contents that no training has seen, sharp and clean, each with its questions."""
    folder, rng, found = tmp_path_factory.mktemp("scenes"), np.random.default_rng(5), []
    for kind in world.KINDS:
        craft = np.full((EACH, len(world.CRAFT_WEIGHTS)), 0.9, np.float32)
        drawn = world.sample(kind, EACH, rng, held_out=True, craft=craft)
        for number, pixels in enumerate(draw(drawn).transpose(0, 2, 3, 1)):
            path = folder / f"{kind}-{number}.png"
            Image.fromarray(pixels).save(path)
            content = tuple(int(index) for index in drawn.content[number])
            found.append(Pictured(path, "", "", questions_of(kind, content)))
    return found


def test_it_reads_what_the_program_drew(judge: MiniJudge, scenes: list[Pictured]) -> None:
    answers = [answer for one in scenes for answer in judge.ask(one.image, "", "", one.questions)]
    assert np.mean(answers) > 0.95


def test_it_passes_the_canaries(judge: MiniJudge, scenes: list[Pictured]) -> None:
    order = [one for pair in zip(scenes[:EACH], scenes[EACH:], strict=True) for one in pair]
    assert check(judge, order, (world.SIZE_PX, world.SIZE_PX)) is None


def test_the_answers_to_a_question_sum_to_the_probability_of_its_kind(judge: MiniJudge, scenes: list[Pictured]) -> None:
    for one in (scenes[0], scenes[-1]):
        for question in (asked for asked in one.questions if asked.choices):
            every = [Question(text=question.text, answer=value, choices=question.choices) for value in question.choices]
            there = Question(text=THERE["landscape" if one is scenes[0] else "portrait"])
            assert sum(judge.ask(one.image, "", "", every)) == pytest.approx(judge.ask(one.image, "", "", [there])[0])


def test_there_is_one_or_none(judge: MiniJudge, scenes: list[Pictured]) -> None:
    numbers = [Question(text=HOW_MANY["portrait"], answer=number) for number in ("zero", "one", "2")]
    none, one, two = judge.ask(scenes[0].image, "", "", numbers)
    assert none + one == pytest.approx(1)
    assert none > 0.9
    assert two == 0


def test_a_picture_of_another_size_is_resized(judge: MiniJudge, scenes: list[Pictured], tmp_path: Path) -> None:
    with Image.open(scenes[0].image) as opened:
        opened.resize((256, 256), Image.Resampling.BICUBIC).save(tmp_path / "large.png")
    assert np.mean(judge.ask(tmp_path / "large.png", "", "", scenes[0].questions)) > 0.9


@pytest.mark.parametrize("question", [Question(text="Is there a fox?"), Question(text="What colour is the tent?")])
def test_a_question_of_another_world_is_refused(judge: MiniJudge, scenes: list[Pictured], question: Question) -> None:
    with pytest.raises(JudgeError, match="the mini world has no question"):
        judge.ask(scenes[0].image, "", "", [question])


def test_it_is_known_by_its_weights_and_is_no_metric_of_the_default_suite() -> None:
    assert MINI_JUDGE.identify(Place()).startswith("instrument ")
    assert installed().judges["mini"] is MINI_JUDGE
    assert not [name for name in load_suite("mini").metrics if name.startswith("soft-tifa")]
