"""How a question is put to a language model, and what in its vocabulary is the expected answer."""

from __future__ import annotations

import string

from bench.records import Question
from bench.suite.questions import NUMBERS, number_of

ONE_WORD = "Answer in one word."
"""As GenEval2 asks (facebookresearch/GenEval2 at a6e82d2)."""


def wording(question: Question) -> str:
    """The text of the user's turn: the question, and in which form the answer is wanted."""
    if not question.choices:
        return f"{question.text} {ONE_WORD}"
    offered = "\n".join(f"{letter}. {choice}" for letter, choice in _lettered(question))
    return f"{question.text}\n{offered}\nAnswer with the letter of one of these."


def forms(question: Question) -> tuple[str, ...]:
    """What the expected answer looks like, in small letters: ``yes``; ``three`` and ``3``; the letter of a choice."""
    if question.choices:
        return tuple(letter.lower() for letter, choice in _lettered(question) if choice == question.answer)
    number = number_of(question.answer)
    if number is None:
        return (question.answer.lower(),)
    return (NUMBERS[number], str(number)) if number < len(NUMBERS) else (str(number),)


def _lettered(question: Question) -> list[tuple[str, str]]:
    return list(zip(string.ascii_uppercase, question.choices, strict=False))
