"""Sheets of images: pictures in their places at the size that is said, missing ones named, words that fit."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from fakes import make_run, write_run
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from report_runs import with_suite

from bench.errors import UsageError
from bench.plots.sheet import (
    MOST_PIXELS,
    Column,
    _cut,
    _font,
    columns_of,
    window_title,
    wrapped,
    write_contact_sheet,
    write_sheet,
)
from bench.records import Attribution, Run, StepWindow, Sweep
from bench.store import load_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = make_run("run", prompts=3, samples=2, failed={("spo", "case-001", 0)})
    folder = write_run(made, tmp_path_factory.mktemp("sheets") / "run")
    (folder / "images/dpo/case-002-0.png").unlink()
    return load_run(folder)


def rows(run: Run, samples: int = 1) -> list:
    return [(prompt, sample) for prompt in run.info.suite.prompts for sample in range(samples)]


def holds(sheet: np.ndarray, file: Path, times: int) -> list[tuple[int, int]]:
    """Where in a sheet an image is, enlarged by whole pixels: top and left of each place."""
    with Image.open(file) as image:
        wanted = np.kron(np.asarray(image.convert("RGB")), np.ones((times, times, 1), dtype=np.uint8))
    high, wide = wanted.shape[:2]
    starts = np.argwhere((sheet[: 1 - high, : 1 - wide] == wanted[0, 0]).all(axis=2))
    return [(y, x) for y, x in starts if (sheet[y : y + high, x : x + wide] == wanted).all()]


def test_every_picture_stands_in_its_row_and_column(run: Run, tmp_path: Path) -> None:
    said = write_sheet(columns_of(run), rows(run), tmp_path / "sheet.png", 128, "fake")
    assert said == "fake, 2 of 9 pictures missing; images of 64 x 64 px, shown at 128 px"
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    places = {
        (prompt, variant): holds(sheet, Path(run.path) / f"images/{variant}/{prompt}-0.png", 2)
        for prompt in ("case-000", "case-001", "case-002")
        for variant in ("base", "dpo", "spo")
        if (prompt, variant) not in {("case-001", "spo"), ("case-002", "dpo")}
    }
    assert all(len(one) == 1 for one in places.values())
    tops = {prompt: {one[0][0] for (name, _), one in places.items() if name == prompt} for prompt, _ in places}
    lefts = {variant: {one[0][1] for (_, name), one in places.items() if name == variant} for _, variant in places}
    assert all(len(one) == 1 for one in (*tops.values(), *lefts.values()))
    assert sorted(lefts, key=lambda name: min(lefts[name])) == ["base", "dpo", "spo"]


def test_a_picture_that_is_missing_is_said_in_its_cell(run: Run, tmp_path: Path) -> None:
    whole = {}
    for name, failed in (("with", set()), ("without", {("spo", "case-001", 0)})):
        home = write_run(make_run("run", prompts=2, samples=1, failed=failed), tmp_path / name)
        write_sheet(columns_of(load_run(home)), rows(load_run(home)), tmp_path / f"{name}.png", 128, "fake")
        whole[name] = np.asarray(Image.open(tmp_path / f"{name}.png")).astype(int)
    foot_px = 52  # it says how many are missing
    differs = np.argwhere(np.abs(whole["with"] - whole["without"]).sum(axis=2)[:-foot_px])
    high, wide = differs.max(axis=0) - differs.min(axis=0) + 1
    assert (high, wide) == (128, 128), "one cell, and nothing else"
    cell = whole["without"][
        tuple(slice(a, b + 1) for a, b in zip(differs.min(axis=0), differs.max(axis=0), strict=True))
    ]
    assert (cell < 120).all(axis=2).sum() > 50, "words stand in it"


def test_a_contact_sheet_has_all_images_of_a_variant(run: Run, tmp_path: Path) -> None:
    write_contact_sheet(columns_of(run)[0], rows(run, 2), tmp_path / "all.webp", 64, "fake")
    with Image.open(tmp_path / "all.webp") as sheet:
        assert sheet.format == "WEBP"
    write_contact_sheet(columns_of(run)[0], rows(run, 2), tmp_path / "all.png", 64, "fake")
    whole = np.asarray(Image.open(tmp_path / "all.png"))
    for prompt, sample in rows(run, 2):
        assert len(holds(whole, Path(run.path) / f"images/base/{prompt.id}-{sample}.png", 1)) == 1


def test_a_sheet_that_would_be_too_large_names_a_size_that_is_not(run: Run, tmp_path: Path) -> None:
    many = rows(run) * 60
    with pytest.raises(UsageError, match=r"180 rows of 3 pictures at 1024 px is .* pixels; .*: give --side") as raised:
        write_sheet(columns_of(run), many, tmp_path / "sheet.png", 1024, "fake")
    side = int(str(raised.value).split("--side ")[1].split(",")[0])
    write_sheet(columns_of(run), many, tmp_path / "sheet.png", side, "fake")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width * sheet.height <= MOST_PIXELS
    with pytest.raises(UsageError, match="32 to 4096"):
        write_sheet(columns_of(run), many, tmp_path / "sheet.png", 20, "fake")
    with pytest.raises(UsageError, match="written as png, webp"):
        write_sheet(columns_of(run), many, tmp_path / "sheet.svg", 64, "fake")


def test_weights_and_windows_of_steps_are_the_titles(run: Run) -> None:
    swept = with_suite(run, sweep=Sweep(lora="dpo", weights=(0.0, 0.5, 1.0), variants=("base", "dpo", "spo")))
    assert [one.title for one in columns_of(swept)] == ["weight 0", "weight 0.5", "weight 1"]
    window = StepWindow(kind="until", first=1, last=5, variant="spo")
    windows = with_suite(run, attribution=Attribution(variant="dpo", windows=(window,)))
    assert [one.title for one in columns_of(windows)] == ["base", "dpo", "up to step 5"]
    assert window_title(msgspec.structs.replace(window, kind="only", first=3)) == "steps 3 to 5"
    assert [one.variant for one in columns_of(run, ["spo", "base"])] == ["base", "spo"]


def test_a_run_that_is_not_drawn_yet_is_a_column_of_words(run: Run, tmp_path: Path) -> None:
    write_sheet([*columns_of(run), Column("later", None, "base")], rows(run), tmp_path / "sheet.png", 64, "fake")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 4 * 64


@settings(max_examples=80, deadline=None)
@given(st.text(max_size=300), st.integers(30, 400), st.integers(1, 6))
def test_words_fit_and_are_all_there_unless_they_are_cut(text: str, width: int, lines: int) -> None:
    font = _font(12)
    found = wrapped(text, font, width, lines)
    assert len(found) <= lines
    assert all(font.getlength(line) <= width for line in found)
    if not any(line.endswith("…") for line in found):
        kept = "".join("".join(found).split())
        assert len(kept) == len("".join(text.split())) or "\ufffd" in kept
    assert font.getlength(_cut(" ".join(text.split()), font, width)) <= width
