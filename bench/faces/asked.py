"""How many faces a prompt asks for, by its tags. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from bench.records import FacesAsked, Prompt

ONE, SEVERAL = frozenset({"person", "portrait"}), "group"
"""Tags of a prompt that asks for one face, and of one that asks for two or more."""
FAR = "landscape"
"""Tag of a prompt whose people, if it names any, are too far away to have a face."""
NUMBER = re.compile(r"faces-(\d{1,3})")
"""A tag that says how many faces there must be; it counts before all others, and faces-0 asks for none."""
NOT_ASKED = (
    "the prompt asks for no face: it has none of the tags person, portrait, group and faces-N (as faces-2), or it has "
    "landscape or faces-0"
)


def faces_asked(tags: Sequence[str]) -> FacesAsked | None:
    """How many faces a prompt of these tags asks for; None where it asks for none.

    ``faces-N`` asks for N. Otherwise ``group`` asks for two or more, whatever else stands beside it, and ``person`` or
    ``portrait`` for one; with ``landscape``, or without any of these, nothing is asked for.
    """
    for tag in tags:
        if number := NUMBER.fullmatch(tag):
            count = int(number[1])
            return FacesAsked(least=count, most=count) if count else None
    if FAR in tags:
        return None
    if SEVERAL in tags:
        return FacesAsked(least=2, most=None)
    return FacesAsked(least=1, most=1) if ONE.intersection(tags) else None


def asked_prompts(of: Literal["all", "faces"], prompts: Sequence[Prompt]) -> tuple[Prompt, ...]:
    """The prompts that a metric scores, of which it says so in ``MetricFacts.prompts``."""
    return tuple(prompt for prompt in prompts if of == "all" or faces_asked(prompt.tags) is not None)
