"""Questions about pictures of the mini world: what may be asked, and the questions of a content.

The judge of the embedded family knows these questions and no others. Imports no torch.
"""

from __future__ import annotations

from bench.mini.world import KINDS, Content
from bench.records import Question

THERE = {"landscape": "Is there a tent in the picture?", "portrait": "Is there a person in the picture?"}
"""Kind of scene -> what is in every one of its pictures, and in none of the other kind."""
HOW_MANY = {"landscape": "How many tents are in the picture?", "portrait": "How many persons are in the picture?"}
"""Likewise; the answer is one, or zero."""
ABOUT: dict[str, dict[str, tuple[str, str]]] = {
    "landscape": {
        "terrain": ("What is the land behind the tent?", "object"),
        "time": ("What time of day is it?", "attribute"),
        "body": ("What is in the sky?", "object"),
        "weather": ("How is the weather?", "attribute"),
        "tent": ("What colour is the tent?", "attribute"),
    },
    "portrait": {
        "hair": ("What colour is the hair?", "attribute"),
        "length": ("How long is the hair?", "attribute"),
        "shirt": ("What colour is the shirt?", "attribute"),
        "backdrop": ("What colour is the backdrop?", "attribute"),
        "light": ("From which side does the light come?", "position"),
        "framing": ("How close is the person?", "position"),
    },
}
"""Kind of scene -> attribute -> the question about it, and the skill that it tests."""


def questions_of(kind: str, content: Content) -> tuple[Question, ...]:
    """All questions about a content with their answers: what is there, how many, and every attribute."""
    asked = [
        Question(text=THERE[kind], answer="yes", skill="object"),
        Question(text=HOW_MANY[kind], answer="one", skill="count"),
    ]
    for index, (name, (text, skill)) in zip(content, ABOUT[kind].items(), strict=True):
        values = KINDS[kind][name]
        asked.append(Question(text=text, answer=values[index], choices=values, skill=skill))
    return tuple(asked)
