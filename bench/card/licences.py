"""The licence of a merge, worked out from those of what went into it; what contradicts, and what nobody knows.

A table of what the licences of published models ask for, in the few ways that matter to a merge. It is no legal
advice, and the card says so: it saves nobody from reading the licences, but it finds the one that forbids the merge.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bench.formatting import joined

Kind = Literal["permissive", "restricted", "share-alike", "non-commercial", "no derivatives"]
"""What a licence asks of a merge: a notice; that its restrictions of use are handed on; that the merge is under the
same licence; that nobody earns with it; that there is none."""


@dataclass(frozen=True)
class Terms:
    """A licence that models are published under, as far as a merge is concerned."""

    id: str
    kind: Kind
    name: str
    link: str
    on_hub: bool = True
    """Whether the Hub knows the id; else a card says ``other``, with name and link."""
    share_alike: bool = False
    """Of one that is not for commerce: whether the merge has to be under it too."""


_CC = "https://creativecommons.org/licenses/"
_KNOWN = (
    Terms("apache-2.0", "permissive", "Apache License 2.0", "https://www.apache.org/licenses/LICENSE-2.0"),
    Terms("mit", "permissive", "MIT License", "https://opensource.org/license/mit"),
    Terms("bsd-2-clause", "permissive", "BSD 2-Clause License", "https://opensource.org/license/bsd-2-clause"),
    Terms("bsd-3-clause", "permissive", "BSD 3-Clause License", "https://opensource.org/license/bsd-3-clause"),
    Terms("cc0-1.0", "permissive", "CC0 1.0", "https://creativecommons.org/publicdomain/zero/1.0/"),
    Terms("unlicense", "permissive", "The Unlicense", "https://unlicense.org"),
    Terms("cc-by-4.0", "permissive", "CC BY 4.0", f"{_CC}by/4.0/"),
    Terms(
        "creativeml-openrail-m",
        "restricted",
        "CreativeML Open RAIL-M",
        "https://huggingface.co/spaces/CompVis/stable-diffusion-license",
    ),
    Terms(
        "openrail++",
        "restricted",
        "CreativeML Open RAIL++-M",
        "https://huggingface.co/stabilityai/stable-diffusion-xl-base-1.0/blob/main/LICENSE.md",
    ),
    Terms("openrail", "restricted", "OpenRAIL", "https://huggingface.co/blog/open_rail"),
    Terms(
        "fair-ai-public-license-1.0-sd",
        "share-alike",
        "Fair AI Public License 1.0-SD",
        "https://freedevproject.org/faipl-1.0-sd/",
        on_hub=False,
    ),
    Terms("cc-by-sa-4.0", "share-alike", "CC BY-SA 4.0", f"{_CC}by-sa/4.0/"),
    Terms("gpl-3.0", "share-alike", "GNU GPL 3.0", "https://www.gnu.org/licenses/gpl-3.0.html"),
    Terms("agpl-3.0", "share-alike", "GNU AGPL 3.0", "https://www.gnu.org/licenses/agpl-3.0.html"),
    Terms("cc-by-nc-4.0", "non-commercial", "CC BY-NC 4.0", f"{_CC}by-nc/4.0/"),
    Terms("cc-by-nc-sa-4.0", "non-commercial", "CC BY-NC-SA 4.0", f"{_CC}by-nc-sa/4.0/", share_alike=True),
    Terms(
        "sai-nc-community",
        "non-commercial",
        "Stability AI Non-Commercial Research Community License",
        "https://huggingface.co/stabilityai/sdxl-turbo/blob/main/LICENSE.md",
        on_hub=False,
    ),
    Terms("cc-by-nd-4.0", "no derivatives", "CC BY-ND 4.0", f"{_CC}by-nd/4.0/"),
    Terms("cc-by-nc-nd-4.0", "no derivatives", "CC BY-NC-ND 4.0", f"{_CC}by-nc-nd/4.0/"),
)
TERMS = {one.id: one for one in _KNOWN}
_ALIASES = {
    "apache2": "apache-2.0",
    "creativemlopenrail++m": "openrail++",
    "openrail++m": "openrail++",
    "sdxl10": "openrail++",
    "openrailm": "creativeml-openrail-m",
    "faipl10sd": "fair-ai-public-license-1.0-sd",
    "fairaipubliclicense10sd": "fair-ai-public-license-1.0-sd",
    "stabilityainoncommercialresearchcommunity": "sai-nc-community",
    "publicdomain": "cc0-1.0",
}

REPOSITORIES = {
    "stabilityai/stable-diffusion-xl-base-1.0": "openrail++",
    "stabilityai/sdxl-turbo": "sai-nc-community",
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "creativeml-openrail-m",
    "mhdang/dpo-sdxl-text2image-v1": "openrail++",
    "mhdang/dpo-sd1.5-text2image-v1": "openrail++",
    "SPO-Diffusion-Models/SPO-SDXL_4k-p_10ep_LoRA": "apache-2.0",
    "SPO-Diffusion-Models/SPO-SD-v1-5_4k-p_10ep_LoRA": "apache-2.0",
    "madebyollin/sdxl-vae-fp16-fix": "mit",
}
"""Licences that the model cards of well-known repositories name, for files whose header does not."""


def find_terms(text: str) -> Terms | None:
    """The licence that a text of a header or a card names: its id, its name, its link, or a known other spelling."""
    link = text.strip().rstrip("/").lower()
    for one in _KNOWN:
        if link == one.link.rstrip("/").lower():
            return one
    bare = _squeezed(text)
    known = {_squeezed(spelling): one for one in _KNOWN for spelling in (one.id, one.name)}
    return known.get(bare) or (TERMS[_ALIASES[bare]] if bare in _ALIASES else None)


def _squeezed(text: str) -> str:
    """Letters, digits and + alone, without the words that a licence's name may do without."""
    return re.sub(r"[^a-z0-9+]", "", re.sub(r"\b(licen[cs]e|the|version|v(?=\d))\b|\bv(?=\d)", "", text.lower()))


@dataclass(frozen=True)
class Licensed:
    """Something that went into a merge, and the licence that somebody says it has."""

    name: str
    licence: str | None
    """As it is written; None where nobody says."""


@dataclass(frozen=True)
class Chain:
    """What follows for the merge."""

    terms: Terms | None
    """The licence of the card; None where it could not be worked out and was not given."""
    other: str
    """The licence that was given, where no ``terms`` are known of it."""
    forbids: tuple[str, ...]
    """Sentences on inputs whose licence allows no merge."""
    contradictions: tuple[str, ...]
    unknown: tuple[str, ...]
    """Sentences on inputs without a licence, or with one whose terms are not known here."""
    why: str
    """How it was worked out, in a sentence."""


def work_out(inputs: Sequence[Licensed], given: str | None = None, whose: str = "The maker says so.") -> Chain:
    """The licence of what is made of ``inputs``.

    The strictest counts: one that asks for itself (share-alike), else one that forbids commerce, else one whose
    restrictions of use are handed on, else a permissive one. Two that both want to be the licence of the merge
    contradict each other, and so do one that must allow commerce and one that forbids it.

    Args:
        inputs: what went in, each once.
        given: what somebody says that the merge is under; it counts, and what speaks against it is a contradiction.
        whose: who says that, in a sentence.
    """
    found = [(one, find_terms(one.licence) if one.licence else None) for one in inputs]
    known = [(one.name, terms) for one, terms in found if terms is not None]
    unknown = tuple(_unknown(one) for one, terms in found if terms is None)
    forbids = tuple(
        f"{name} is under {terms.name}, which allows no merge."
        for name, terms in known
        if terms.kind == "no derivatives"
    )
    contradictions = _contradictions(known)
    terms, why = _strictest(known)
    if contradictions or unknown or forbids:
        terms = None
    if given is None:
        missing = "The inputs do not tell it: see below." if terms is None and (unknown or contradictions) else ""
        return Chain(terms, "", forbids, contradictions, unknown, missing or why)
    wanted = find_terms(given)
    against = _against(wanted, given, known)
    return Chain(wanted, "" if wanted else given, forbids, (*contradictions, *against), unknown, whose)


def _unknown(one: Licensed) -> str:
    if one.licence is None:
        return f"Nobody says what licence {one.name} has."
    return f"{one.name} is under {one.licence!r}, whose terms are not known here: read them."


def _asks_for_itself(terms: Terms) -> bool:
    return terms.kind == "share-alike" or terms.share_alike


def _contradictions(known: Sequence[tuple[str, Terms]]) -> tuple[str, ...]:
    alike = {terms.id: (name, terms) for name, terms in known if _asks_for_itself(terms)}
    sentences = []
    if len(alike) > 1:
        parts = [f"{name} ({terms.name})" for name, terms in alike.values()]
        sentences.append(f"{joined(parts)} each ask that the merge is under their own licence.")
    selling = [(name, terms) for name, terms in known if terms.kind == "share-alike"]
    closed = [(name, terms) for name, terms in known if terms.kind == "non-commercial"]
    if selling and closed:
        (one, alike_terms), (other, closed_terms) = selling[0], closed[0]
        sentences.append(
            f"{one} ({alike_terms.name}) lets everybody use the merge for anything that it allows, also to earn, and "
            f"{other} ({closed_terms.name}) forbids commerce."
        )
    return tuple(sentences)


def _strictest(known: Sequence[tuple[str, Terms]]) -> tuple[Terms | None, str]:
    """The licence that the strictest inputs ask for, and how that follows; None where several do."""
    reasons: tuple[tuple[str, list[Terms]], ...] = (
        ("asks that a merge is under the same licence", [terms for _, terms in known if _asks_for_itself(terms)]),
        ("forbids commerce", [terms for _, terms in known if terms.kind == "non-commercial"]),
        ("asks that its restrictions of use are handed on", [one for _, one in known if one.kind == "restricted"]),
    )
    for reason, several in reasons:
        ids = {one.id: one for one in several}
        if len(ids) == 1:
            (only,) = ids.values()
            return only, f"{only.name} {reason}."
        if ids:
            names = joined([one.name for one in ids.values()])
            return None, f"{names}: each {reason}. Which of them the merge is under has to be said with --license."
    permissive = {terms.id: terms for _, terms in known}
    if len(permissive) > 1 and "apache-2.0" in permissive:
        return permissive["apache-2.0"], "All inputs allow it; the notices of each stay."
    if len(permissive) == 1:
        (only,) = permissive.values()
        return only, f"Every input is under {only.name}."
    return None, "All inputs are permissive, of several kinds: say one with --license." if permissive else ""


def _against(wanted: Terms | None, given: str, known: Sequence[tuple[str, Terms]]) -> tuple[str, ...]:
    """What the inputs ask for that the given licence does not give."""
    name = wanted.name if wanted else given
    asked = {
        "share-alike": "asks that a merge is under the same licence",
        "non-commercial": "forbids commerce",
        "restricted": "asks that its restrictions of use are handed on",
    }
    strict = {"restricted": ("restricted", "non-commercial", "share-alike"), "non-commercial": ("non-commercial",)}
    found = []
    for of, terms in known:
        kept = wanted is not None and (
            terms.id == wanted.id or (not _asks_for_itself(terms) and wanted.kind in strict.get(terms.kind, ()))
        )
        if terms.kind in asked and not kept:
            found.append(f"The card says {name}, and {of} ({terms.name}) {asked[terms.kind]}.")
    return tuple(dict.fromkeys(found))
