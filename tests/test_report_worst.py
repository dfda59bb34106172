"""The worst prompts of a gate as pairs of images: which images, of which sample, and what cannot be shown."""

from __future__ import annotations

import base64
from pathlib import Path

import msgspec
import pytest
from fakes import png_bytes, write_run
from report_gates import gate_on, verdicts, view_of, within, worst, written
from report_runs import Element, Page, page_of, with_info

from bench.records import Run
from bench.report import gate as pairs_of_images
from bench.report import html


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return written(tmp_path_factory.mktemp("runs") / "run", prompts=12)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return written(tmp_path_factory.mktemp("runs") / "baseline", prompts=12, seed=7)


def images(page: Page) -> list[Element]:
    """The images of the section, in order."""
    alts = ("candidate", "reference")
    return [one for one in page.named("img") if one.attributes["alt"].startswith(alts)]


def sample_of_largest_loss(run: Run, prompt_id: str, other: Run, ours: str, theirs: str) -> int:
    def scores(run: Run, variant: str) -> list[float]:
        place = (variant, prompt_id, "mini-aesthetic")
        return [
            one.value
            for one in run.scores
            if (one.variant, one.prompt_id, one.metric) == place and one.value is not None
        ]

    losses = [below - above for above, below in zip(scores(run, ours), scores(other, theirs), strict=True)]
    return losses.index(max(losses))


@pytest.mark.parametrize("same", [True, False])
def test_the_worst_prompts_are_pairs_of_the_sample_that_lost_most(run: Run, other: Run, same: bool) -> None:
    there, reference = (run, "base") if same else (other, "spo")
    gate = gate_on(run, verdicts(run, there, "spo", reference), "invalid", **within(there))
    page = page_of(html(view_of(run, gate)))
    shots = images(page)
    assert len(shots) == 2 * 2 * 10, "ten pairs of the failed metric and of the undecided one"
    expected = worst(run, "mini-aesthetic", "spo", there, reference)
    for place, one in enumerate(expected):
        sample = sample_of_largest_loss(run, one.prompt_id, there, "spo", reference)
        for shot, variant, seed in ((shots[2 * place], "spo", 0), (shots[2 * place + 1], reference, 0 if same else 7)):
            encoded = shot.attributes["src"].removeprefix("data:image/png;base64,")
            assert base64.b64decode(encoded) == png_bytes(variant, one.prompt_id, sample, seed)
    texts = page.named("ol", class_="pairs")[0].text
    assert all(f"{number:.3f}" in texts for one in expected for number in (one.candidate, one.reference))
    for link in (one for one in page.named("a") if "data-row-link" in one.attributes):
        row = page.named("article", id=link.attributes["href"].removeprefix("#"))[0]
        assert link.text == f"{row.attributes['aria-label']}, in the grid"


def test_a_frozen_baseline_leaves_the_candidates_images_and_says_why(run: Run, other: Run) -> None:
    page = page_of(html(view_of(run, gate_on(run, verdicts(run, other, "spo", "spo"), "invalid"))))
    assert len(images(page)) == 2 * 10
    assert {one.attributes["alt"].split()[0] for one in images(page)} == {"candidate"}
    assert "`hotart-bench baseline --pictures` keeps small ones" in page.named("details", class_="worst")[0].text


@pytest.mark.parametrize(
    ("damage", "expected"),
    [("gone", "is not there any more"), ("torn", "not readable"), ("another", "holds another run by now")],
)
def test_a_baseline_folder_that_changed_is_said(tmp_path: Path, run: Run, damage: str, expected: str) -> None:
    there = written(tmp_path / "old", prompts=12, seed=3)
    gate = gate_on(run, verdicts(run, there, "spo", "spo"), "invalid", **within(there))
    info = tmp_path / "old" / "run.json"
    if damage == "gone":
        info.unlink()
    elif damage == "torn":
        info.write_text("{")
    else:
        write_run(with_info(there, id="fake-0009"), tmp_path / "old")
    page = page_of(html(view_of(run, gate)))
    assert expected in page.named("details", class_="worst")[0].text
    assert len(images(page)) == 2 * 10


def test_an_image_that_is_broken_or_failed_is_a_record(tmp_path: Path) -> None:
    failed = {("spo", "case-000", sample) for sample in (0, 1)}
    run = written(tmp_path / "run", prompts=3, failed=failed)
    some = tuple(
        msgspec.structs.replace(
            one, worst=tuple(msgspec.structs.replace(one.worst[0], prompt_id=f"case-00{i}") for i in (0, 1))
        )
        for one in verdicts(run, run)[:1]
    )
    for sample in (0, 1):
        (tmp_path / "run" / "images" / "base" / f"case-001-{sample}.png").write_bytes(b"no image")
    page = page_of(html(view_of(run, gate_on(run, some, "fail", **within(run)))))
    assert len(images(page)) == 2
    records = [one.text for one in page.named("div", class_="record") if one.text.startswith("No image")]
    assert len(records) == 2
    assert any("uniformly black" in text for text in records)
    assert any("changed since it was rendered" in text for text in records)


def test_images_stop_at_the_budget(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(base64.b64encode(png_bytes("spo", "case-000", 0, 0)))
    monkeypatch.setattr(pairs_of_images, "MAX_BYTES", 5 * size)
    gate = gate_on(run, verdicts(run, run), "invalid", **within(run))
    page = page_of(html(view_of(run, gate)))
    shown = images(page)
    assert sum(len(one.attributes["src"]) for one in shown) <= 5 * size
    assert 3 <= len(shown) <= 7
    left_out = [one for one in page.named("div", class_="record") if "to keep this page small" in one.text]
    assert len(left_out) == 40 - len(shown)
