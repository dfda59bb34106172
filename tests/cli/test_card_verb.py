"""``card``: the files that it writes, what it says, and how it ends where it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest
from grid_runs import make_grid_runs, write_grid
from huggingface_hub import ModelCard

from bench.card.facts import CardFacts
from bench.cli import card as verb
from bench.ledger import read_ledger

VARIANT = ("--variant", "spo")


def test_card_page_and_pictures_are_written_and_the_ledger_knows(cli, run_folder, tmp_path) -> None:
    card, page, ledger = tmp_path / "out" / "README.md", tmp_path / "out" / "page.html", tmp_path / "l.jsonl"
    answer = cli("card", run_folder, *VARIANT, "-o", card, "--civitai", page, "--pictures", "2", "--ledger", ledger)
    assert (answer.code, answer.out) == (0, f"{card}\n")
    assert "Licence: Apache License 2.0." in answer.err
    assert "no input is of the Hub; --base-model gives it one" in answer.err
    found = ModelCard.load(card)
    assert found.data.license == "apache-2.0"
    for one in found.data["widget"]:
        assert (card.parent / one["output"]["url"]).is_file()
    assert len(list((card.parent / "images").iterdir())) == 4
    assert page.read_text(encoding="utf-8").startswith("<h3>")
    (entry,) = read_ledger(ledger).entries
    assert (entry.event, entry.facts["variant"], entry.facts["licence"]) == ("shipped", "spo", "apache-2.0")


def test_what_is_there_is_replaced_only_by_force(cli, run_folder, tmp_path) -> None:
    card = tmp_path / "README.md"
    card.write_text("mine")
    answer = cli("card", run_folder, *VARIANT, "-o", card)
    assert (answer.code, card.read_text()) == (2, "mine")
    assert cli("card", run_folder, *VARIANT, "-o", card, "--force", "--pictures", "0").code == 0
    assert card.read_text().startswith("---\n")
    assert not (tmp_path / "images").exists()


def test_another_picture_of_that_name_is_not_replaced(cli, run_folder, tmp_path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "spo-case-000-0.png").write_bytes(b"mine")
    answer = cli("card", run_folder, *VARIANT, "-o", tmp_path / "README.md")
    assert answer.code == 2
    assert "another picture is there already" in answer.err
    assert not (tmp_path / "README.md").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "Which variant is the card of?"),
        (("--variant", "sop"), "did you mean 'spo'?"),
        ((*VARIANT, "--pictures", "101"), "it must be 0 to 100"),
        ((*VARIANT, "--license-of", "mini"), "is not NAME=ID"),
        ((*VARIANT, "--license-of", "mimi=mit"), "nothing that went in is called 'mimi'"),
        ((*VARIANT, "--license-of", "mini=a", "--license-of", "mini=b"), "given twice"),
        ((*VARIANT, "--base-model", "my model"), "is no repository of the Hub"),
        ((*VARIANT, "--gate", "gone.json"), "there is no gate here"),
    ],
)
def test_wrong_usage_ends_with_2_and_writes_nothing(cli, run_folder, tmp_path, arguments, said) -> None:
    answer = cli("card", run_folder, "-o", tmp_path / "README.md", *arguments)
    assert answer.code == 2
    assert said in answer.err
    assert list(tmp_path.iterdir()) == []


def test_a_licence_that_allows_no_merge_writes_no_card(cli, run_folder, tmp_path) -> None:
    words = ("--license-of", "mini:spo=cc-by-nd-4.0")
    answer = cli("card", run_folder, *VARIANT, "-o", tmp_path / "README.md", *words)
    assert answer.code == 2
    assert "No card: mini:spo is under CC BY-ND 4.0, which allows no merge." in answer.err
    assert list(tmp_path.iterdir()) == []


def test_unknown_and_contradicting_licences_are_told(cli, run_folder, tmp_path) -> None:
    words = ("--license-of", "mini=FAIPL-1.0-SD", "--license-of", "mini:spo=a handshake", "--license", "mit")
    answer = cli("card", run_folder, *VARIANT, "-o", tmp_path / "README.md", *words)
    assert answer.code == 0
    assert "mini:spo is under 'a handshake', whose terms are not known here: read them." in answer.err
    assert "The card says MIT License, and mini (Fair AI Public License 1.0-SD) asks" in answer.err
    assert "asks that a merge is under the same licence" in (tmp_path / "README.md").read_text("utf-8")


def test_the_last_gate_of_the_run_stands_in_the_card_and_is_said(cli, here, tmp_path, monkeypatch) -> None:
    assert cli("gate", "planted", "--baseline", "old.json").code == 1
    kept: list[CardFacts] = []
    monkeypatch.setattr(verb, "_refuse_forbidden", kept.append)
    answer = cli("card", "planted", "-o", tmp_path / "README.md")
    assert "The last gate on the run stands in the card: against old.json, fail." in answer.err
    assert answer.code == 0
    assert kept[0].gate is not None
    assert ", on 2 variants: failed." in (tmp_path / "README.md").read_text("utf-8")
    assert "The images of base and spo are gone" in answer.err
    assert "6 of 6 pictures are gone" in answer.err


def test_a_grid_is_taken_by_the_run_of_its_suites_own_setting(cli, tmp_path) -> None:
    folder = write_grid(make_grid_runs(Path("grid"), axes={"guidance_scale": ("3", "7.5")}), tmp_path / "grid")
    answer = cli("card", folder, *VARIANT, "-o", tmp_path / "README.md", "--pictures", "1")
    assert answer.code == 0, answer.err
    text = (tmp_path / "README.md").read_text("utf-8")
    assert "| CFG scale | 3 |" in text
    assert "## What else was tried" in text
    other = write_grid(make_grid_runs(Path("grid"), axes={"guidance_scale": ("5", "7.5")}), tmp_path / "other")
    answer = cli("card", other, *VARIANT, "-o", tmp_path / "B.md")
    assert answer.code == 2
    assert "no run of the suite's own settings" in answer.err
