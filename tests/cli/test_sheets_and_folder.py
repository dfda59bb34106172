"""``plot --sheet`` and ``report --folder``: where files go, what the flags mean, what is refused."""

from __future__ import annotations

import pytest
from fakes import make_run, write_run
from PIL import Image


@pytest.fixture
def folder(tmp_path):
    return write_run(make_run("run", prompts=4, samples=2), tmp_path / "run")


def test_a_sheet_lies_with_the_plots_and_says_its_sizes(cli, folder):
    answer = cli("plot", folder, "--sheet", "--prompts", "2", "--side", "64")
    assert (answer.code, answer.out) == (0, f"{folder}/plots/sheet.png\n")
    assert answer.err == "fake, 2 prompts; images of 64 x 64 px, shown at 64 px\n"
    with Image.open(folder / "plots" / "sheet.png") as two:
        small = two.size
    cli("plot", folder, "--sheet", "--prompts", "case-003", "--samples", "2", "--side", "64", "-o", folder / "mine")
    with Image.open(folder / "mine" / "sheet.png") as other:
        assert other.size == small


def test_contact_sheets_are_one_a_variant(cli, folder):
    answer = cli("plot", folder, "--contact", "--variants", "spo,base", "--format", "webp", "--samples", "2")
    assert answer.out.splitlines() == [f"{folder}/plots/contact-{name}.webp" for name in ("base", "spo")]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--sheet", "--format", "svg"], "--format of a sheet: 'svg' is not one of png, webp"),
        (["--sheet", "--prompts", "case-01"], "the suite has no 'case-01' (did you mean 'case-001'?)"),
        (["--sheet", "--prompts", "9"], "--prompts is 9; the suite has 4 prompts."),
        (["--sheet", "--samples", "3"], "--samples is 3; the suite has 2 samples of a prompt."),
        (["--sheet", "--variants", "sop"], "--variants: 'sop' is not one of base, dpo, spo"),
        (["--sheet", "--side", "9000"], "--side is 9000; it may be 32 to 4096 pixels."),
        (["--sheet", "--contact"], "--sheet and --contact are two kinds of sheets"),
        (["--sheet", "--dpi", "150"], "--dpi is for plots; the size of a sheet is --side"),
        (["--contact", "--dpi", "300"], "--dpi is for plots"),
        (["--side", "64"], "--side goes with --sheet or --contact."),
        (["--prompts", "2"], "--prompts goes with --sheet or --contact."),
    ],
)
def test_flags_that_cannot_be_right_are_refused(cli, folder, flags, words):
    answer = cli("plot", folder, *flags)
    assert (answer.code, answer.out) == (2, "")
    assert words in answer.err


def test_a_sheet_is_of_one_run(cli, folder):
    answer = cli("plot", folder, folder, "--sheet")
    assert answer.code == 2
    assert "leave out RUN2" in answer.err


def test_a_run_without_images_has_no_sheet_and_no_folder(cli, folder):
    (folder / "renders.jsonl").write_bytes(b"")
    for command in (("plot", folder, "--sheet"), ("report", folder, "--folder")):
        answer = cli(*command)
        assert (answer.code, answer.out) == (5, "")
        assert f"hotart-bench render {folder}" in answer.err


def test_the_folder_page_is_told_and_its_size(cli, folder, tmp_path, blank_plots):
    answer = cli("report", folder, "--folder")
    assert (answer.code, answer.out) == (0, f"{folder}/page/index.html\n")
    assert "without the images of the run folder, where it looks for them" in answer.err
    answer = cli("report", folder, "--folder", "--to", tmp_path / "sent", "-q")
    assert (answer.code, answer.out, answer.err) == (0, f"{tmp_path}/sent/index.html\n", "")
    assert (tmp_path / "sent" / "images" / "spo" / "case-000-0.png").is_file()


def test_to_goes_with_folder(cli, folder, tmp_path):
    answer = cli("report", folder, "--to", tmp_path / "sent")
    assert answer.code == 2
    assert "--to goes with --folder" in answer.err


def delete(folder, pattern):
    """Deletes images of a run; how many."""
    files = list((folder / "images").glob(pattern))
    for file in files:
        file.unlink()
    return len(files)


@pytest.mark.parametrize("flags", [[], ["--to", "sent"], ["-q"]])
def test_a_folder_page_without_some_images_ends_as_the_report_does(
    cli, folder, tmp_path, monkeypatch, blank_plots, flags
):
    monkeypatch.chdir(tmp_path)
    assert delete(folder, "spo/case-00[01]-*") == 4
    page = tmp_path / "sent" if "--to" in flags else folder / "page"
    answer = cli("report", folder, "--folder", *flags)
    assert (answer.code, answer.out) == (5, "")
    assert "Written without 4 of 24 images: " in answer.err
    assert "4 images are gone (images/spo/case-000-0.png, " in answer.err
    assert f"hotart-bench render {folder}" in answer.err
    assert (page / "index.html").is_file()
    whole = cli("report", folder)
    assert (whole.code, whole.err.splitlines()[-2:]) == (5, answer.err.splitlines()[-2:])


def test_a_changed_image_ends_the_folder_page_too(cli, folder, blank_plots):
    (folder / "images" / "dpo" / "case-000-0.png").write_bytes(b"another")
    answer = cli("report", folder, "--folder")
    assert answer.code == 5
    assert "Written without 1 of 24 images: " in answer.err
    assert "1 image changed since it was made (images/dpo/case-000-0.png)" in answer.err


def test_a_pruned_variant_is_no_fault_of_a_folder_page_but_counted(cli, folder, blank_plots):
    assert delete(folder, "spo/*") == 8
    answer = cli("report", folder, "--folder", "-q")
    assert (answer.code, answer.out) == (0, f"{folder}/page/index.html\n")
    assert "Written without 8 of 24 images: " in answer.err


def test_where_all_images_are_gone_there_is_no_folder_page(cli, folder):
    delete(folder, "*/*")
    answer = cli("report", folder, "--folder")
    assert (answer.code, answer.out) == (5, "")
    assert "There is nothing to show: of 24 images no file is there." in answer.err
    assert not (folder / "page").exists()


def test_missing_pictures_of_a_sheet_are_counted(cli, folder):
    delete(folder, "spo/case-00[01]-*")
    answer = cli("plot", folder, "--sheet", "--side", "64")
    assert answer.code == 0
    assert answer.err == "fake, 4 prompts, 2 of 12 pictures missing; images of 64 x 64 px, shown at 64 px\n"
    answer = cli("plot", folder, "--contact", "--samples", "2")
    assert answer.code == 0
    assert ["missing" in line for line in answer.err.splitlines()] == [False, False, True]
    assert "fake, 4 prompts, 4 of 8 pictures missing; " in answer.err


@pytest.mark.parametrize("flag", ["--sheet", "--contact"])
def test_a_sheet_of_which_all_pictures_are_gone_is_not_drawn(cli, folder, flag):
    delete(folder, "spo/*")
    answer = cli("plot", folder, flag, "--variants", "spo", "--prompts", "2")
    assert (answer.code, answer.out) == (5, "")
    assert "There is nothing to draw: of 2 images no file is there." in answer.err
    assert not (folder / "plots").exists()
