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
