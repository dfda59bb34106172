"""Public prompt sets by name: each in its published layout, its hash recorded and checked, and what is not here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from suites import write_suite

from bench.errors import SuiteError, WeightsError
from bench.suite import load_suite, public_sets_of
from bench.suite.public_sets import PUBLIC_SETS, present

FILES = {
    "parti": "Prompt\tCategory\tChallenge\tNote\na bell\tArtifacts\tSimple Detail\t\na red kite\tArts\tColor\tx\n",
    "drawbench": 'Prompts,Category\nA red colored car.,Colors\n"Two cats, one dog.",Counting\n',
    "geneval": json.dumps({"tag": "counting", "include": [{"class": "bench", "count": 2}], "prompt": "two benches"})
    + "\n"
    + json.dumps({"tag": "colors", "include": [{"class": "cup", "count": 1}], "prompt": "a photo of a pink cup"})
    + "\n",
    "dpg": "item_id,text,keywords,proposition_id,dependency,category_broad,category_detailed,tuple,"
    "question_natural_language\n"
    + "".join(
        f"{item},{text},k,{number},0,entity,whole,entity - whole (x),Is there x{number}?\n"
        for item, text in (("coco1", "a long text"), ("vrd2", "another text"))
        for number in (1, 2)
    ),
}
"""Two prompts of each set in its published layout, written for the test."""
TAGS = {"parti": ("artifacts", "simple-detail"), "drawbench": ("colors",), "geneval": ("counting",), "dpg": ()}


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOTART_WEIGHTS_LOCK", str(tmp_path / "lock.json"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def suite_naming(folder: Path, name: str) -> Path:
    return write_suite(folder, 'prompts = ["own.jsonl"]', f'prompts = ["{name}"]')


@pytest.mark.parametrize("name", PUBLIC_SETS)
def test_a_file_beside_the_suite_is_read_in_its_published_layout(name: str, tmp_path: Path) -> None:
    (tmp_path / PUBLIC_SETS[name].file_name).write_text(FILES[name], encoding="utf-8")
    suite = load_suite(str(suite_naming(tmp_path, name)))
    assert len(suite.prompts) == 2
    assert suite.prompts[0].tags == TAGS[name]
    said = suite.notes[0]
    assert said.startswith(f"{name}: ")
    assert PUBLIC_SETS[name].licence in said
    assert "sha256" in said
    if name == "dpg":
        assert [prompt.id for prompt in suite.prompts] == ["coco1", "vrd2"]
        asked = [[one.text for one in prompt.questions] for prompt in suite.prompts]
        assert asked == [["Is there x1?", "Is there x2?"]] * 2


def test_another_file_by_the_name_is_refused_once_one_was_seen(tmp_path: Path) -> None:
    file = tmp_path / "PartiPrompts.tsv"
    file.write_text(FILES["parti"], encoding="utf-8")
    path = str(suite_naming(tmp_path, "parti"))
    load_suite(path)
    file.write_text(FILES["parti"] + "a new one\tArts\tColor\t\n", encoding="utf-8")
    with pytest.raises(WeightsError, match="has sha256"):
        load_suite(path)


def test_an_earlier_download_serves_every_suite_and_a_file_beside_the_suite_comes_first(tmp_path: Path) -> None:
    entry = PUBLIC_SETS["parti"].entry
    cached = (
        tmp_path / "cache" / "hotart-bench" / "weights" / entry.repository / str(entry.revision) / "PartiPrompts.tsv"
    )
    cached.parent.mkdir(parents=True)
    cached.write_text(FILES["parti"], encoding="utf-8")
    assert present(PUBLIC_SETS["parti"], tmp_path) == cached
    assert [prompt.text for prompt in load_suite(str(suite_naming(tmp_path, "parti"))).prompts] == [
        "a bell",
        "a red kite",
    ]
    own = tmp_path / "PartiPrompts.tsv"
    own.write_text(FILES["parti"], encoding="utf-8")
    assert present(PUBLIC_SETS["parti"], tmp_path) == own


@pytest.mark.parametrize(
    ("name", "step"), [("parti", "hotart-bench fetch --prompts parti"), ("drawbench", "put DrawBench")]
)
def test_what_is_not_here_says_how_to_get_it(name: str, step: str, tmp_path: Path) -> None:
    path = str(suite_naming(tmp_path, name))
    assert public_sets_of(path) == (name,)
    with pytest.raises(SuiteError, match="not on this machine") as refused:
        load_suite(path)
    assert step in refused.value.hint


def test_a_slip_of_the_pen_is_told(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="did you mean 'geneval'"):
        load_suite(str(suite_naming(tmp_path, "genevall")))


def test_an_own_file_of_a_public_name_is_the_users(tmp_path: Path) -> None:
    (tmp_path / "dpg").mkdir()
    (tmp_path / "dpg" / "one.txt").write_text("a kite", encoding="utf-8")
    path = str(suite_naming(tmp_path, "dpg"))
    assert public_sets_of(path) == ()
    assert [prompt.id for prompt in load_suite(path).prompts] == ["one"]


@pytest.mark.parametrize("name", ["parti", "geneval", "dpg"])
def test_a_file_beside_the_suite_must_be_the_one_that_was_downloaded(name: str, tmp_path: Path) -> None:
    entry = PUBLIC_SETS[name].entry
    root = tmp_path / "cache" / "hotart-bench" / "weights" / entry.repository / (entry.revision or "unpinned")
    cached = root / entry.files[0].name
    cached.parent.mkdir(parents=True)
    cached.write_text(FILES[name], encoding="utf-8")
    path = str(suite_naming(tmp_path, name))
    load_suite(path)
    own = tmp_path / PUBLIC_SETS[name].file_name
    own.write_text(FILES[name], encoding="utf-8")
    load_suite(path)
    own.write_text(FILES[name].replace("a", "b", 1), encoding="utf-8")
    with pytest.raises(WeightsError, match="has sha256"):
        load_suite(path)
