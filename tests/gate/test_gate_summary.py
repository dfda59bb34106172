"""The markdown summary, read back through a markdown parser that had no part in writing it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from fake_gates import make_gate, make_verdict, timing_verdict, worst_prompts
from fakes import make_run, write_run
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from bench.errors import UsageError
from bench.gate.summary import MARKER, MAX_BYTES, Section, fitted, summary_markdown
from bench.records import Run, Verdict

MARKDOWN = MarkdownIt("gfm-like", {"linkify": False, "html": True})
LOST = make_verdict("fail", worst=worst_prompts(3))


class Pair(NamedTuple):
    candidate: Run
    reference: Run


@pytest.fixture
def pair(tmp_path) -> Pair:
    """Two run folders with images: the candidate's scores are another draw than the reference's."""
    runs = [make_run(tmp_path / name, prompts=4, seed=seed) for seed, name in enumerate(("main", "mine"))]
    for run in runs:
        write_run(run, run.path)
    return Pair(runs[1], runs[0])


def rows(text: str, number: int = 0) -> list[list[str]]:
    """The cells of a table's body as HTML, after the parser."""
    body = re.findall(r"<tbody>(.*?)</tbody>", MARKDOWN.render(text), re.DOTALL)[number]
    return [
        re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL) for row in re.findall(r"<tr>(.*?)</tr>", body, re.DOTALL)
    ]


def items(text: str) -> list[str]:
    return [re.sub("<[^>]+>", "", item) for item in re.findall(r"<li>(.*?)</li>", MARKDOWN.render(text), re.DOTALL)]


def summary(*verdicts: Verdict, runs: Pair | Sequence[None] = (None, None), base: str | None = None) -> str:
    return summary_markdown(make_gate(*verdicts), *runs, image_base=base)


# --- what it says --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "headline"),
    [
        ("pass", "Regression gate: passed"),
        ("fail", "Regression gate: failed"),
        ("inconclusive", "Regression gate: inconclusive"),
        ("invalid", "Regression gate: invalid"),
    ],
)
def test_the_headline_is_the_outcome_of_the_whole(outcome, headline) -> None:
    text = summary(make_verdict(), make_verdict(outcome, "mini-clip"))
    assert text.startswith(MARKER)
    assert f"<h2>{headline}</h2>" in MARKDOWN.render(text)
    assert ("not a pass" in text) is (outcome in ("inconclusive", "invalid"))


def test_the_table_has_a_row_a_verdict_the_worst_first() -> None:
    text = summary(timing_verdict(), make_verdict("inconclusive", "mini-clip"), make_verdict("fail"))
    assert [row[:2] for row in rows(text)] == [
        ["<strong>failed</strong>", "mini-aesthetic"],
        ["<strong>inconclusive</strong>", "mini-clip"],
        ["passed", "end_to_end"],
    ]


def test_the_numbers_are_in_the_units_of_the_quantity() -> None:
    metric, undecided, timing = rows(
        summary(make_verdict("fail"), make_verdict("inconclusive", "mini-clip"), timing_verdict())
    )
    # The half width 0.009 gives four decimals.
    assert metric[2:] == [
        "–",
        "spo 0.4690",
        "base 0.5000",
        "+0.0310",
        "[+0.0220, +0.0400]",
        "0.0100 (0.01)",
        "0.0120",
        "24 prompts x 2 images",
    ]
    assert undecided[9] == "24 prompts x 2 images; about 380 would decide"
    # The half width is 3 %, so one decimal.
    assert timing[2:] == [
        "–",
        "spo 151 ms",
        "base 144 ms",
        "+5.0 %",
        "[+2.0 %, +8.0 %]",
        "5.0 % (5% floor 20ms)",
        "3.0 %",
        "4 rounds x 10 values",
    ]


def test_the_training_overlap_stands_beside_the_metric() -> None:
    (row,) = rows(summary(make_verdict("fail", training_overlap="same data")))
    assert row[2] == "same data"


def test_an_invalid_verdict_has_dashes_and_its_reason() -> None:
    text = summary(make_verdict("invalid", sentence="2 of 48 images are missing."))
    assert rows(text)[0][5:9] == ["–", "–", "– (0.01)", "–"]
    assert items(text) == ["mini-aesthetic of spo, invalid: 2 of 48 images are missing."]


def test_sentences_of_what_did_not_pass_and_the_notes_are_listed() -> None:
    gate = make_gate(make_verdict(), make_verdict("fail", "mini-clip"), notes=("The variant new has no baseline.",))
    assert items(summary_markdown(gate, None, None)) == [
        "mini-clip of spo, failed: mini-clip of spo is fail against base.",
        "The variant new has no baseline.",
    ]


def test_a_gate_without_a_verdict_says_so_at_the_top() -> None:
    text = summary_markdown(make_gate(outcome="pass"), None, None)
    assert "<strong>The gate gave no verdict: nothing was checked.</strong>" in MARKDOWN.render(text)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "against the frozen baseline reports/baseline-mini.json"),
        ({"baseline_is_run": True}, "against the run reports/baseline-mini.json"),
        ({"baseline_id": "fake-0001"}, "against the frozen baseline reports/baseline-mini.json"),
        ({"baseline_id": "fake-0001", "baseline_is_run": True}, "Two variants of the run reports/runs/mini"),
    ],
)
def test_it_says_what_was_judged_against_what(changes, words) -> None:
    assert words in summary_markdown(make_gate(make_verdict(), **changes), None, None)


# --- the prompts that lost most ------------------------------------------------------------


def test_the_worst_prompts_come_with_text_scores_and_the_files_of_both_images(pair) -> None:
    text = summary(LOST, runs=pair)
    first, *_ = found = rows(text, 1)
    prompt = pair.candidate.info.suite.prompts[0].text
    assert first[0] == f"<strong>case-000</strong><br>{prompt}"
    assert first[1] == "+0.1000"  # three figures of the typical loss, 0.095
    assert len(found) == 3
    for cell, run, variant in zip(first[2:], pair, ("spo", "base"), strict=True):
        score, image = cell.split("<br>")
        assert score == ("0.4000" if variant == "spo" else "0.5000")
        assert re.fullmatch(rf"images/{variant}/case-000-[01]\.png", image)
        assert Path(run.path, image).is_file()
    assert "<img" not in text
    assert "The images lie in the run folders" in text


def test_the_pair_is_of_the_sample_that_lost_most(pair) -> None:
    for row, worst in zip(rows(summary(LOST, runs=pair), 1), LOST.worst, strict=True):
        losses = {}
        for sample in (0, 1):
            ours, theirs = (
                next(
                    score.value
                    for score in run.scores
                    if (score.variant, score.prompt_id, score.sample, score.metric)
                    == (variant, worst.prompt_id, sample, "mini-aesthetic")
                )
                for run, variant in zip(pair, ("spo", "base"), strict=True)
            )
            losses[sample] = theirs - ours
        expected = max(losses, key=lambda sample: losses[sample])
        assert f"{worst.prompt_id}-{expected}.png" in row[2]
        assert f"{worst.prompt_id}-{expected}.png" in row[3]


def test_an_address_makes_them_images(pair) -> None:
    text = summary(LOST, runs=pair, base="https://example.org/runs/")
    found = re.findall(r'<img src="([^"]+)" width="192" alt="images/[^"]+">', MARKDOWN.render(text))
    assert len(found) == 6
    assert re.fullmatch(r"https://example\.org/runs/mine/images/spo/case-000-[01]\.png", found[0])
    assert re.fullmatch(r"https://example\.org/runs/main/images/base/case-000-[01]\.png", found[1])


def test_a_pair_of_which_one_image_is_gone_is_not_shown(pair) -> None:
    for image in Path(pair.reference.path, "images", "base").glob("case-001-*"):
        image.unlink()
    shown = ["<br>" in row[2] for row in rows(summary(LOST, runs=pair), 1)]
    assert shown == [True, False, True]


def test_a_frozen_baseline_has_no_images_and_the_summary_says_so(pair) -> None:
    text = summary_markdown(make_gate(LOST), pair.candidate, None)
    assert pair.candidate.info.suite.prompts[0].text in text
    assert ".png" not in text
    assert "No pairs of images: they need both run folders" in text


def test_passing_and_invalid_metrics_show_no_prompts(pair) -> None:
    worst = worst_prompts(3)
    text = summary(make_verdict(worst=worst), make_verdict("invalid", "mini-clip", worst=worst), runs=pair)
    assert "case-000" not in text
    assert "images lie" not in text


@pytest.mark.parametrize("base", ["images", "ftp://example.org", "https://a b", 'https://a"onerror=', "javascript:1"])
def test_an_address_that_is_none_is_refused(base) -> None:
    with pytest.raises(UsageError, match="not an http"):
        summary(LOST, base=base)


def test_two_folders_of_one_name_cannot_share_an_address(pair, tmp_path) -> None:
    (tmp_path / "other").mkdir()
    moved = shutil.move(pair.reference.path, tmp_path / "other" / "mine")
    runs = Pair(pair.candidate, msgspec.structs.replace(pair.reference, path=str(moved)))
    with pytest.raises(UsageError, match="Both run folders are called 'mine'"):
        summary(LOST, runs=runs, base="https://example.org")


# --- foreign text, and size ----------------------------------------------------------------

NASTY = [
    "a | b",
    "<img src=x onerror=alert(1)>",
    "</details><script>",
    "`code` **bold** [link](https://example.org) @team #12",
    "line\nbreak | more\r\n| x |",
    "\x00\x1b[31m \ud800",
    "שלום \u202e مرحبا 🎨",
]


@pytest.mark.parametrize("nasty", NASTY)
def test_foreign_text_is_text(nasty) -> None:
    gate = make_gate(
        make_verdict("fail", sentence=nasty), notes=(nasty,), run=nasty, run_id=nasty, baseline=nasty, baseline_id="b"
    )
    text = summary_markdown(gate, None, None)
    text.encode()
    html = MARKDOWN.render(text)
    assert [len(row) for row in rows(text)] == [10]
    assert not re.search(r"<(script|img|a|code|h1)\b", html)
    assert html.count("<details>") == html.count("</details>") == 0
    assert "@team" not in text
    assert len(items(text)) == 2


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=80), st.text(max_size=80))
def test_any_text_leaves_the_form_alone(sentence, note) -> None:
    gate = make_gate(make_verdict("fail", sentence=sentence), make_verdict(), notes=(note,))
    text = summary_markdown(gate, None, None)
    assert [len(row) for row in rows(text)] == [10, 10]
    assert len(items(text)) == 2


def test_a_prompt_with_markup_is_text_in_its_cell(pair) -> None:
    suite = pair.candidate.info.suite
    prompts = tuple(msgspec.structs.replace(prompt, text="x | <b>y</b>\n" * 100) for prompt in suite.prompts)
    info = msgspec.structs.replace(pair.candidate.info, suite=msgspec.structs.replace(suite, prompts=prompts))
    text = summary(LOST, runs=Pair(msgspec.structs.replace(pair.candidate, info=info), pair.reference))
    (first, *_) = rows(text, 1)
    assert len(first) == 4
    assert first[0].startswith("<strong>case-000</strong><br>x | &lt;b&gt;y&lt;/b&gt; x | ")
    assert first[0].endswith("…")


def test_what_is_too_long_is_cut_by_rows_and_says_so() -> None:
    verdicts = [make_verdict("fail", f"metric-{n}", sentence="ü" * 900, worst=worst_prompts()) for n in range(300)]
    text = summary(*verdicts)
    assert 0.9 * MAX_BYTES < len(text.encode()) <= MAX_BYTES
    kept = len(items(text))
    last = text.rstrip().splitlines()[-1]
    assert 0 < kept < 300
    prompts = sum(len(rows(text, number)) for number in range(1, text.count("<details>") + 1))
    assert f"{300 - kept} sentences" in last
    assert f"{3_000 - prompts:,} prompts" in last
    assert "left out" in last
    assert len(rows(text)) == 300


def test_what_fits_is_whole_and_says_nothing(pair) -> None:
    assert "left out" not in summary(LOST, runs=pair)


@given(
    st.lists(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=400), max_size=6), max_size=6),
    st.integers(1_100, 4_000),
)
def test_fitting_keeps_the_limit_and_loses_no_row_without_a_word(groups, most) -> None:
    sections = [Section(f"kind{n}", tuple(group), ("head",), ("tail",)) for n, group in enumerate(groups)]
    text = fitted(sections, most, "See there.")
    assert len(text.encode()) <= most
    whole = fitted(sections, 10**6, "See there.")
    assert "Cut to fit" not in whole
    assert whole == "\n".join("\n".join(["head", *group, "tail", ""]) for group in groups if group)
    assert ("Cut to fit" in text) is (text != whole)
