"""The same facts for a model page: a fragment of HTML with the few tags that such pages keep, every name escaped."""

from __future__ import annotations

import re

from bench.card.facts import CardFacts, interval_note, metric_rows, overlaps
from bench.card.pictures import CardPictures
from bench.report import environment

BASE_MODELS = {"sdxl": "SDXL 1.0", "sd15": "SD 1.5"}
SHORT = 10
"""Digits of a file's sha256 by which a model page knows it (AutoV2)."""


def civitai_page(card: CardFacts, pictures: CardPictures) -> str:
    """The fields of the page's form as a list, then its description and what changed, as HTML."""
    page = environment(autoescape=True).get_template("civitai.html.j2").render(
        card=card,
        pictures=pictures,
        rows=metric_rows(card),
        overlaps=overlaps(card),
        interval_note=interval_note(card),
        base_model=BASE_MODELS[card.family] if card.family is not None else "",
        short=SHORT,
    )  # fmt: skip
    return re.sub(r"\n\s*\n+", "\n", page).strip() + "\n"
