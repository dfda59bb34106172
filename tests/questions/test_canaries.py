"""Canaries: a judge is believed only if it sees the image and reads the question."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from PIL import Image

from bench.metrics.declare import JudgeError
from bench.questions.canaries import Pictured, check
from bench.records import Question

Say = Callable[[Image.Image, Question], float]


class Toy:
    """A judge that is a function of the picture and the question."""

    def __init__(self, say: Say) -> None:
        self.say, self.asked = say, 0

    def ask(self, image: Path, sha256: str, prompt: str, questions: Sequence[Question]) -> list[float]:
        self.asked += 1
        with Image.open(image) as picture:
            return [self.say(picture.convert("RGB"), one) for one in questions]

    def close(self) -> None:
        pass


def pictures(folder: Path, count: int = 16) -> list[Pictured]:
    """Pictures of one level each, whose question names the level."""
    made = []
    for number in range(count):
        path = folder / f"{number}.png"
        Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
        made.append(Pictured(path, "", "", (Question(text=f"level {number}", skill="object"),)))
    return made


def truth(picture: Image.Image, question: Question) -> float:
    """Sees the level, and nothing in a grey picture."""
    shown = picture.getpixel((0, 0)) == (int(question.text.removeprefix("level ")), 0, 0)
    yes = 0.9 if shown else 0.05
    return yes if question.answer == "yes" else 1 - yes


def refusal(say: Say, folder: Path, count: int = 16) -> str:
    with pytest.raises(JudgeError) as caught:
        check(Toy(say), pictures(folder, count), (16, 16))
    return str(caught.value)


def test_a_judge_that_sees_and_reads_is_believed(tmp_path: Path) -> None:
    assert check(Toy(truth), pictures(tmp_path), (16, 16)) is None


def test_one_that_says_yes_to_everything_is_not(tmp_path: Path) -> None:
    assert "canary 'empty'" in refusal(lambda picture, question: 0.97, tmp_path)


def test_one_that_says_no_to_everything_is_not(tmp_path: Path) -> None:
    always_no = lambda picture, question: 0.02 if question.answer == "yes" else 0.98  # noqa: E731
    assert "canary 'pairing'" in refusal(always_no, tmp_path)


def test_one_that_does_not_know_which_answer_it_is_asked_for_is_not(tmp_path: Path) -> None:
    assert "canary 'negation'" in refusal(lambda picture, question: 0.2, tmp_path)
    both = lambda picture, question: 0.4 if question.answer == "yes" else 0.8  # noqa: E731
    assert "together more than 1" in refusal(both, tmp_path)


def test_one_that_does_not_look_at_the_image_is_not(tmp_path: Path) -> None:
    def reads_only(picture: Image.Image, question: Question) -> float:
        yes = (len(question.text) + int(question.text[6:])) % 4 / 10
        return yes if question.answer == "yes" else 1 - yes

    assert "canary 'pairing'" in refusal(reads_only, tmp_path)


def test_one_that_answers_by_chance_is_not(tmp_path: Path) -> None:
    draw = random.Random(3)
    assert "canary" in refusal(lambda picture, question: draw.random(), tmp_path)


def test_one_that_answers_differently_the_second_time_is_not(tmp_path: Path) -> None:
    asked = iter(range(10_000))
    said = refusal(lambda picture, question: truth(picture, question) + next(asked) * 1e-9, tmp_path)
    assert "canary 'again'" in said or "together more than 1" in said


def test_one_that_fails_is_not_and_says_why(tmp_path: Path) -> None:
    def fails(picture: Image.Image, question: Question) -> float:
        raise JudgeError("no memory")

    assert refusal(fails, tmp_path) == "no memory"


def test_with_few_images_the_pairing_is_not_asked_and_that_is_said(tmp_path: Path) -> None:
    judge = Toy(truth)
    assert "only 11 prompts" in (check(judge, pictures(tmp_path, 11), (16, 16)) or "")
    assert judge.asked == 3


def test_a_suite_without_a_yes_is_asked_for_a_person_in_the_grey_picture(tmp_path: Path) -> None:
    asked: list[str] = []

    def notes(picture: Image.Image, question: Question) -> float:
        asked.append(question.text)
        return 0.1 if question.answer == "yes" else 0.9

    counted = [one._replace(questions=(Question(text="How many?", answer="two"),)) for one in pictures(tmp_path, 3)]
    check(Toy(notes), counted, (16, 16))
    assert set(asked) == {"Is there a person in the picture?"}
