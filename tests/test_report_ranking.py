"""Rankings and adjusted p-values in both reports, against the records that they show."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from fakes import make_run, write_run
from report_runs import Element, Page, page_of

from bench import formatting as wording
from bench.compare import compare_run, rank_variants
from bench.records import Delta, Run
from bench.report import html, markdown
from bench.report.page import build_view

VARIANTS = ("base", "dpo", "spo", "twin")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("runs") / "run"
    made = make_run(folder, prompts=36, samples=1, variants=VARIANTS)
    write_run(made, folder)
    return made


@pytest.fixture(scope="module")
def pages(run: Run) -> tuple[Page, str]:
    view = build_view(run, compare_run(run))
    return page_of(html(view)), markdown(view, ())


def _rows(source: str, heading: str) -> list[list[str]]:
    """Cells of the tables' rows under a heading of the markdown report."""
    section = source.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if line.startswith("|")]


def _holding(run: Run) -> list[Delta]:
    return [
        delta
        for delta in compare_run(run)
        if delta.tag is not None and delta.metric.startswith("mini-") and (delta.p_holm or 0) <= 0.05
    ]


def test_the_ranking_shows_each_strength_with_its_letters(run: Run, pages: tuple[Page, str]) -> None:
    page, source = pages
    head, _, *rows = _rows(source, "Ranking")
    assert head == ["variant", "mini-preference", "mini-aesthetic", "mini-clip"]
    rankings = {one.metric: one for one in rank_variants(run)}
    assert [row[0] for row in rows] == [one.variant for one in rankings["mini-preference"].strengths]
    for row in rows:
        for metric, cell in zip(head[1:], row[1:], strict=True):
            (found,) = (one for one in rankings[metric].strengths if one.variant == row[0])
            strength, low, high, letters = re.fullmatch(r"(\S+) \\\[(\S+), (\S+)\\\] \*\*(.*)\*\*", cell).groups()
            shown = [float(text.replace("\\", "").replace(wording.MINUS, "-")) for text in (strength, low, high)]
            assert shown == pytest.approx([found.strength, found.interval.low, found.interval.high], abs=0.06)
            sets = [place for place, names in enumerate(rankings[metric].tied_sets) if row[0] in names]
            assert letters.split() == ["abcd"[place] for place in sets]
    (section,) = page.named("section", id="ranking")
    assert all(name in section.text for name in (*VARIANTS, *head[1:]))
    assert len(page.named("b", class_="letters")) == len(VARIANTS) * 3


def test_tags_that_hold_after_holm_are_marked_and_no_others(run: Run, pages: tuple[Page, str]) -> None:
    page, source = pages
    holding = _holding(run)
    assert 0 < len(holding) < sum(d.tag is not None and d.metric.startswith("mini-") for d in compare_run(run))
    marks: list[Element] = page.named("abbr", class_="holds")
    assert len(marks) == len(holding)
    assert {mark.attributes["title"].split(", ")[1] for mark in marks} == {
        f"p {wording.p_value(delta.p_holm)}" for delta in holding
    }
    marked = [cell for row in _rows(source, "By tag") for cell in row if cell.endswith("†")]
    assert len(marked) == len(holding)


@pytest.mark.parametrize("variants", [("base",), ("base", "spo")])
def test_fewer_than_three_variants_have_no_ranking(tmp_path: Path, variants: tuple[str, ...]) -> None:
    few = make_run(tmp_path, prompts=3, variants=variants)
    write_run(few, tmp_path)
    view = build_view(few, compare_run(few))
    assert page_of(html(view)).named("section", id="ranking") == []
    assert "## Ranking" not in markdown(view, ())


def test_a_metric_without_scores_of_a_variant_shows_a_dash(tmp_path: Path) -> None:
    whole = make_run(tmp_path, prompts=4, variants=VARIANTS)
    gone = ("mini-clip", "spo")
    part = msgspec.structs.replace(whole, scores=tuple(s for s in whole.scores if (s.metric, s.variant) != gone))
    write_run(part, tmp_path)
    head, _, *rows = _rows(markdown(build_view(part, compare_run(part)), ()), "Ranking")
    (row,) = (row for row in rows if row[0] == "spo")
    assert row[head.index("mini-clip")] == wording.NONE
    assert wording.NONE not in row[: head.index("mini-clip")]


@pytest.mark.parametrize(
    ("p", "written"),
    [
        (None, "–"),
        (0.0001, "<0.001"),
        (0.001, "0.001"),
        (0.0499, "0.050"),
        (0.099, "0.099"),
        (0.25, "0.25"),
        (1, "1.00"),
    ],
)
def test_p_values_are_never_rounded_to_zero(p: float | None, written: str) -> None:
    assert wording.p_value(p) == written


def test_letters_go_on_after_z() -> None:
    sets = [("x",)] * 27 + [("y", "x")]
    assert wording.set_letters("y", sets) == "b2"
    assert wording.set_letters("x", sets[:3]) == "a b c"
    assert wording.set_letters("z", sets) == ""
