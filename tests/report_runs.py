"""Runs that are hard to report: hostile, partial, large; and a page taken apart by an HTML parser."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser

import msgspec
from fakes import make_run

from bench.records import Lora, Run

HOSTILE = (
    "</script><img src=x onerror=alert(1)>",
    "a <b>bold</b> | pipe \\| and `tick` *star* _under_ [link](javascript:alert(1)) ![i](x) @someone #12 ~~no~~",
    "صورة فوتوغرافية لبحيرة عند الفجر",
    "a dancer 💃🏽 in the rain 🌧️ \u2028 after a line separator",
    "{{ 7 * 7 }} {% raw %} ${alert(1)} <!-- comment --> ]]> &amp; &lt;",
    "https://example.org/ www.example.org someone@example.org $x^2$ 1. - + > quote",
    " ".join(f"word{number}" for number in range(5000)),
    "first line\nsecond line\n\n# heading\n- item\n\n\n\nend",
)
"""Prompts that break pages which are put together without care."""


def with_info(run: Run, **changes: object) -> Run:
    """``run`` with other fields in its ``info``."""
    return msgspec.structs.replace(run, info=msgspec.structs.replace(run.info, **changes))


def with_suite(run: Run, **changes: object) -> Run:
    """``run`` with other fields in its suite."""
    return with_info(run, suite=msgspec.structs.replace(run.info.suite, **changes))


def hostile_run() -> Run:
    """A run whose prompts, tags, paths, errors and notes are all markup."""
    run = make_run("run", prompts=len(HOSTILE), samples=1, failed={("spo", "case-002", 0)})
    prompts = tuple(
        msgspec.structs.replace(prompt, text=text, tags=("<i>tag</i>", *prompt.tags), probes="<u>probe</u>")
        for prompt, text in zip(run.info.suite.prompts, HOSTILE, strict=True)
    )
    renders = tuple(
        one if one.error is None else msgspec.structs.replace(one, error="<script>alert('error')</script>")
        for one in run.renders
    )
    prints = tuple(
        msgspec.structs.replace(one, checkpoint="<s>mini</s>", loras=(Lora(path="<s>lora</s>"),) * bool(one.loras))
        for one in run.info.variants
    )
    run = with_suite(run, prompts=prompts, source="suites/it's <mine>.toml")
    run = with_info(run, variants=prints, settings_notes=("<em>note</em>",))
    return msgspec.structs.replace(run, renders=renders)


@dataclass
class Element:
    """One element of a page: its name, attributes and the text inside, children's included."""

    name: str
    attributes: Mapping[str, str]
    text: str = ""


@dataclass
class Page(HTMLParser):
    """A page as a list of elements in document order, by the standard library's parser."""

    elements: list[Element] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._open: list[Element] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        if not any(one.name == "template" for one in self._open):  # what is in one is shown nowhere
            self.elements.append(element)
        if tag not in ("meta", "link", "img", "br", "input", "line", "circle", "path", "use"):
            self._open.append(element)

    def handle_endtag(self, tag: str) -> None:
        if self._open and self._open[-1].name == tag:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.text += data

    def named(self, name: str, **attributes: str) -> list[Element]:
        """Elements called ``name`` that have these attributes (``class_`` looks for one class of several)."""
        wanted = attributes.pop("class_", None)
        return [
            one
            for one in self.elements
            if one.name == name
            and all(one.attributes.get(key) == value for key, value in attributes.items())
            and (wanted is None or wanted in one.attributes.get("class", "").split())
        ]


def page_of(text: str) -> Page:
    """``text`` parsed."""
    page = Page()
    page.feed(text)
    page.close()
    return page
