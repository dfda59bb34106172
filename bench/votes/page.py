"""The voting page: one HTML file that needs no server, and knows nothing of variants."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from bench import formatting
from bench.records import VOTES_KIND, VOTES_SCHEMA

_TEMPLATES = Path(__file__).parent.parent / "templates"

WHY = ("prompt followed", "composition", "light and colour", "detail", "faces and hands", "fewer errors")
"""What a voter may name as the reason, or not."""
SAVES = '<meta name="hotart-bench-saves" content="">'
"""What the page looks for to know whether its server keeps votes; ``bench.votes.serve`` fills it in."""


class PagePair(TypedDict):
    """A pair as the page knows it: ids and file names made at random, and the prompt."""

    id: str
    a: str
    b: str
    s: str
    """What the page draws the sides from, with the voter's id."""
    p: str


PageUnit = list[PagePair]


def page_html(ballot: str, rounds: Sequence[Sequence[PageUnit]]) -> str:
    """The page as text: style, script and the list of pairs inside it, pictures beside it.

    Args:
        ballot: the page's id.
        rounds: parts of the vote, each of units, each of pairs. A voter sees the parts and units in an order of their
            own, one pair of each unit and, after all units, the others.
    """
    script = (_TEMPLATES / "vote.js").read_text(encoding="utf-8")
    css = (_TEMPLATES / "vote.css").read_text(encoding="utf-8")
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    data = {"schema": VOTES_SCHEMA, "kind": VOTES_KIND, "ballot": ballot, "why": WHY, "rounds": rounds}
    return environment.get_template("vote.html.j2").render(
        policy=_policy(script),
        saves=Markup(SAVES),
        css=Markup(css),
        script=Markup(script),
        data=Markup(formatting.script_json(data)),
        why=WHY,
    )


def _policy(script: str) -> str:
    """What is in the page, pictures beside it, and its own server: nothing else; ``file:`` is a page on a disk."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        "default-src 'none'; img-src 'self' file: data:; style-src 'unsafe-inline'; connect-src 'self'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
