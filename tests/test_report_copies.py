"""Small copies of images: made once for every page of a run, never of another image, and gone without harm."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
import pytest
from fakes import blank_figure, make_run, png_bytes, write_run
from PIL.PngImagePlugin import PngImageFile
from report_gates import gate_on, verdicts, within

from bench.records import Run
from bench.report import copies, gate_page, write_report
from bench.report.folder import write_folder
from bench.report.page import row_keys
from bench.report.pictures import embed
from bench.store import load_run

SMALL = Path("page/small")


@pytest.fixture(autouse=True)
def blank_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.plots.style.figure_bytes", blank_figure)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Two variants of two prompts, whose images are too large for the page as they are."""
    made = make_run("run", prompts=2, samples=1, variants=("base", "spo"))
    folder = write_run(made, tmp_path / "run")
    for number, render in enumerate(made.renders):
        paint(folder, render.image or "", number)
    return recorded(folder)


def paint(folder: Path, name: str, seed: int) -> None:
    (folder / name).write_bytes(png_bytes("base", "case-000", 0, seed, 700))


def recorded(folder: Path) -> Run:
    """The run with the hashes of the files that lie there now."""
    run = load_run(folder)
    renders = [
        msgspec.structs.replace(one, sha256=hashlib.sha256((folder / str(one.image)).read_bytes()).hexdigest())
        for one in run.renders
    ]
    (folder / "renders.jsonl").write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in renders))
    return load_run(folder)


def kept(run: Run) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (Path(run.path) / SMALL).iterdir()}


def test_a_second_report_decodes_no_image_and_is_the_same_page(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    page, note = write_report(run)
    before = page.read_bytes(), note.read_bytes(), kept(run)
    assert len(before[2]) == 4
    monkeypatch.setattr(PngImageFile, "load", None)
    assert write_report(load_run(run.path)) == (page, note)
    assert (page.read_bytes(), note.read_bytes(), kept(run)) == before


def test_copies_that_were_deleted_are_made_again_as_they_were(run: Run) -> None:
    page, _ = write_report(run)
    before = page.read_bytes(), kept(run)
    for path in (Path(run.path) / SMALL).iterdir():
        path.unlink()
    write_report(run)
    assert (page.read_bytes(), kept(run)) == before


def test_an_image_that_was_drawn_anew_is_shown_anew_and_its_old_copy_goes(run: Run) -> None:
    write_report(run)
    before = kept(run)
    paint(Path(run.path), "images/spo/case-001-0.png", 99)
    pictures, broken = embed(run, row_keys(run), keep=True)
    assert set(broken) == {("spo", "case-001", 0)}, "the file is not the one on record"
    assert len(pictures) == 3
    write_report(recorded(Path(run.path)))
    after = kept(run)
    assert len(after) == 4
    assert len(after.keys() & before.keys()) == 3


def test_both_pages_keep_their_copies_beside_each_other(run: Run, tmp_path: Path) -> None:
    write_report(run)
    embedded = kept(run)
    write_folder(run)
    both = kept(run)
    assert len(both) == 8
    assert embedded.items() <= both.items()
    write_report(run)
    assert kept(run) == both
    elsewhere = write_folder(run, tmp_path / "sent").parent
    sent = {path.name: path.read_bytes() for path in (elsewhere / "small").iterdir()}
    assert sent == {name: data for name, data in both.items() if name not in embedded}


def test_a_report_leaves_the_copies_of_a_page_that_was_made_before(run: Run) -> None:
    write_folder(run)
    listed = kept(run)
    paint(Path(run.path), "images/spo/case-001-0.png", 99)
    write_report(recorded(Path(run.path)))
    assert listed.items() <= kept(run).items()
    write_folder(load_run(run.path))
    assert len(listed.keys() & kept(run).keys()) == 3


def test_a_page_of_a_gate_uses_what_is_kept_and_keeps_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = gate_on(run, verdicts(run, run), "pass", **within(run))
    assert "data:image/webp" in gate_page(run, gate)
    assert not (Path(run.path) / "page").exists()
    write_report(run)
    monkeypatch.setattr(copies, "open_picture", None)
    assert "data:image/webp" in gate_page(run, gate)


def test_small_images_are_in_the_page_as_they_are_and_need_no_copy(tmp_path: Path) -> None:
    folder = write_run(make_run("run", prompts=2, samples=1), tmp_path / "run")
    page, _ = write_report(load_run(folder))
    assert "data:image/png" in page.read_text(encoding="utf-8")
    assert not (folder / "page").exists()
