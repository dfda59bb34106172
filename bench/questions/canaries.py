"""Canaries: questions with known answers, asked before a judge is believed, each time that it is opened.

==============  ==============================================================================================
empty           of a plain grey picture, what the suite's prompts name is said not to be there: P(yes) under 0.5
negation        to the same questions about it, *no* is the likelier answer, and yes and no are not both likely
pairing         a prompt's questions get higher answers on its own image than on another's: paired, by a sign test
again           the same request gives the same answer, bit for bit
==============  ==============================================================================================

What they catch: a judge that says yes to everything, that does not see the image, that does not read the question, that
answers by chance. After UniRL's check of its reward servers (issue and pull request 206).
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import msgspec
from PIL import Image
from scipy.stats import binomtest

from bench.documents import sha256_of
from bench.metrics.declare import JudgeError, LoadedJudge
from bench.records import Question

GREY = (127, 127, 127)
ASKED = 8
"""Questions that are asked about the grey picture, at most."""
FEWEST_PAIRS, MOST_PAIRS = 12, 16
"""With fewer images a good judge would fail too often: one that is right for 9 of 10 would in 1 of 5 with 8 pairs."""
SIGNIFICANT = 0.05
TOGETHER = 1.001
"""What the probabilities of yes and of no may sum to."""
ALWAYS = Question(text="Is there a person in the picture?", skill="object")
"""What is asked of the grey picture where the suite has no question with the answer yes."""


class Pictured(NamedTuple):
    """An image of the run, and what its prompt asks."""

    image: Path
    sha256: str
    prompt: str
    questions: tuple[Question, ...]


def check(judge: LoadedJudge, pictured: Sequence[Pictured], size: tuple[int, int]) -> str | None:
    """Ask the canaries.

    Args:
        judge: who is asked.
        pictured: images of one variant, one a prompt.
        size: width and height of the suite's images, in pixels.

    Returns:
        Why *pairing* was not asked, as a sentence; None where it was.

    Raises:
        JudgeError: a canary got the wrong answer, or none.
    """
    with tempfile.TemporaryDirectory() as folder:
        grey = Path(folder) / "grey.png"
        Image.new("RGB", size, GREY).save(grey)
        _check_grey(judge, grey, _named(pictured))
    if len(pictured) < FEWEST_PAIRS:
        return (
            f"only {len(pictured)} prompts have an image and questions, and {FEWEST_PAIRS} are needed to tell whether "
            "it looks at the image"
        )
    _check_pairing(judge, pictured[:MOST_PAIRS])
    return None


def _named(pictured: Sequence[Pictured]) -> tuple[Question, ...]:
    """Questions of the suite whose answer is yes, those about objects first."""
    asked = {one.text: one for picture in pictured for one in picture.questions if one.answer == "yes"}
    found = sorted(asked.values(), key=lambda one: one.skill != "object")
    return tuple(found[:ASKED]) or (ALWAYS,)


def _check_grey(judge: LoadedJudge, grey: Path, questions: tuple[Question, ...]) -> None:
    sha256 = sha256_of(grey)
    opposite = [msgspec.structs.replace(one, answer="no") for one in questions]
    yes = judge.ask(grey, sha256, "", questions)
    if fmean(yes) >= 0.5:
        raise JudgeError(
            f"canary 'empty': of a plain grey picture it says yes to {questions[0].text!r} and the like, with "
            f"{fmean(yes):.2f}"
        )
    no = judge.ask(grey, sha256, "", opposite)
    both = max(zip(yes, no, questions, strict=True), key=lambda one: one[0] + one[1])
    if both[0] + both[1] > TOGETHER:
        raise JudgeError(
            f"canary 'negation': to {both[2].text!r} it says yes with {both[0]:.2f} and no with {both[1]:.2f}, "
            "together more than 1"
        )
    if fmean(no) <= fmean(yes):
        raise JudgeError(
            f"canary 'negation': of a plain grey picture it says no with {fmean(no):.2f}, and yes with {fmean(yes):.2f}"
        )
    again = judge.ask(grey, sha256, "", questions)
    if list(again) != list(yes):
        raise JudgeError(f"canary 'again': to the same request it gave {list(yes)[:3]}, then {list(again)[:3]}")


def _check_pairing(judge: LoadedJudge, pictured: Sequence[Pictured]) -> None:
    half, higher, lower = len(pictured) // 2, 0, 0
    for index, own in enumerate(pictured):
        other = pictured[(index + half) % len(pictured)]
        right = fmean(judge.ask(own.image, own.sha256, own.prompt, own.questions))
        wrong = fmean(judge.ask(other.image, other.sha256, own.prompt, own.questions))
        higher, lower = higher + (right > wrong), lower + (right < wrong)
    told = higher + lower
    if not told or binomtest(higher, told, alternative="greater").pvalue > SIGNIFICANT:
        raise JudgeError(
            f"canary 'pairing': the questions of {len(pictured)} prompts got higher answers on their own images "
            f"{higher} times and on another prompt's {lower} times, which is no more than chance"
        )
