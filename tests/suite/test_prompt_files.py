"""Prompt files: what the readers take, and how they refuse the rest."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.errors import SuiteError
from bench.formatting import is_good_name
from bench.records import Prompt
from bench.suite.prompt_files import make_id, read_prompts

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_own_format_keeps_every_field(tmp_path: Path) -> None:
    line = {
        "id": "hands-01",
        "prompt": "two hands",
        "negative": "blurry",
        "tags": ["hands"],
        "probes": "fingers",
    }
    path = write(tmp_path, "own.jsonl", "\ufeff" + json.dumps(line) + '\r\n\n{"id":"empty","prompt":""}\n')
    assert read_prompts(path) == (
        Prompt(id="hands-01", text="two hands", negative="blurry", tags=("hands",), probes="fingers"),
        Prompt(id="empty", text=""),
    )


def test_parti_prompts_columns_become_tags_and_bare_quotes_stay(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "PartiPrompts.tsv",
        "Prompt\tCategory\tChallenge\tNote\n"
        "a bowl of Pho\tFood & Beverage\tBasic\t\n"
        'The words "Fly an airplane" on a wall\tOutdoor Scenes\tWriting & Symbols\tquotes\n'
        '"Hello" painted on a door\tArts\tBasic\t\n'
        '"a sign that says ""Stop"""\tArts\tBasic\tfrom a spreadsheet\n',
    )
    prompts = read_prompts(path)
    assert [prompt.text for prompt in prompts] == [
        "a bowl of Pho",
        'The words "Fly an airplane" on a wall',
        '"Hello" painted on a door',
        'a sign that says "Stop"',
    ]
    assert prompts[0].tags == ("food-beverage", "basic")
    assert prompts[1].tags == ("outdoor-scenes", "writing-symbols")
    assert prompts[0].id == "a-bowl-of-pho-" + hashlib.sha256(b"a bowl of Pho").hexdigest()[:8]


def test_csv_with_ids_negative_and_line_breaks_in_a_cell(tmp_path: Path) -> None:
    text = 'ID,Caption,negative_prompt,tags\nx1,"a cat,\nsitting",dog,animal; Soft Light\n,a dog,,\n'
    prompts = read_prompts(write(tmp_path, "sheet.csv", text))
    assert prompts[0] == Prompt(id="x1", text="a cat,\nsitting", negative="dog", tags=("animal", "soft-light"))
    assert prompts[1] == Prompt(id=make_id("a dog"), text="a dog")


def test_json_list_takes_strings_and_published_objects(tmp_path: Path) -> None:
    items = [
        "a fox",
        {"caption": "a hen", "trainset_idx": 7},
        {"id": 12, "prompt": "a sea", "category": "Sea"},
    ]
    prompts = read_prompts(write(tmp_path, "list.json", json.dumps(items)))
    assert [(prompt.text, prompt.tags) for prompt in prompts] == [("a fox", ()), ("a hen", ()), ("a sea", ("sea",))]
    assert prompts[2].id == "12"


def test_plain_text_is_one_prompt_a_line(tmp_path: Path) -> None:
    # U+2028 and form feed break lines for str.splitlines, but not in a prompt.
    prompts = read_prompts(write(tmp_path, "plain.txt", "  a pier at dusk \r\n\n\n湖の夜明け\u2028x\x0cy\n"))
    assert [prompt.text for prompt in prompts] == ["a pier at dusk", "湖の夜明け\u2028x\x0cy"]
    assert prompts[1].id.startswith("x-y-")


@given(prompts=st.lists(ANY_TEXT, min_size=1, max_size=8, unique=True))
@settings(max_examples=20, deadline=None)
def test_any_prompt_survives_each_format_and_its_id_depends_on_nothing_else(
    prompts: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("any")
    sheet = io.StringIO()
    writer = csv.writer(sheet)
    writer.writerow(["prompt"])
    prompts = [prompt.replace("\0", "0") for prompt in prompts]
    prompts = list(dict.fromkeys(prompts))
    writer.writerows([prompt] for prompt in prompts)
    files = {
        "a.json": json.dumps(prompts),
        "a.jsonl": "\n".join(json.dumps({"prompt": prompt}) for prompt in reversed(prompts)),
        "a.csv": sheet.getvalue(),
    }
    read = {name: read_prompts(write(folder, name, text)) for name, text in files.items()}
    assert [prompt.text for prompt in read["a.json"]] == prompts
    assert sorted(read["a.json"], key=repr) == sorted(read["a.jsonl"], key=repr)
    assert all(is_good_name(prompt.id) for prompt in read["a.json"])


def test_csv_keeps_line_feeds_and_hostile_text(tmp_path: Path) -> None:
    prompts = ["<script>alert(1)</script>", "=cmd|' /C calc'!A0", "שלום 💃🏽 مرحبا", "word " * 5000]
    sheet = io.StringIO()
    csv.writer(sheet).writerows([["prompt"], *([prompt] for prompt in prompts)])
    assert [prompt.text for prompt in read_prompts(write(tmp_path, "x.csv", sheet.getvalue()))] == prompts


BAD = {
    "empty.jsonl": ("", "holds no prompts"),
    "blank.txt": ("\n \n", "holds no prompts"),
    "empty.json": ("", "holds no prompts"),
    "emptylist.json": ("[]", "holds no prompts"),
    "header.csv": ("prompt\n", "holds no prompts"),
    "nothing.csv": ("", "names no prompt column"),
    "binary.jsonl": (b"\x89PNG\r\n\0\0", "zero bytes"),
    "latin.txt": ("a pier\ncaf\xe9".encode("latin-1"), "latin.txt:2: is not UTF-8"),
    "utf16.txt": ("a pier".encode("utf-16"), "zero bytes"),
    "kind.yaml": ("- a", "ends in one of .jsonl, .json"),
    "notjson.jsonl": ('{"id":"a","prompt":"x"}\n{oops}\n', "notjson.jsonl:2: is not valid JSON"),
    "deep.json": ("[" * 100_000, "nested too deeply"),
    "number.jsonl": ("7\n", "number.jsonl:1: a prompt is a string or an object, not a number"),
    "object.json": ('{"prompt":"x"}', "is a list of strings or objects, not an object"),
    "doubled.jsonl": (
        '{"id":"a","prompt":"x","prompt":"y"}',
        "doubled.jsonl:1: is not valid JSON: the key 'prompt'",
    ),
    "nan.json": ('[{"prompt":"x","score":NaN}]', "NaN is not a JSON number"),
    "huge.json": ('[{"prompt":"x","score":1e999}]', "too large"),
    "half.jsonl": (r'{"id":"a","prompt":"\ud83d"}', "half of a surrogate pair"),
    "field.jsonl": ('{"id":"a","promt":"x"}', "unknown field 'promt' (did you mean 'prompt'?)"),
    "nofield.jsonl": ('{"promt":"x"}', "(did you mean 'prompt'?)"),
    "missing.jsonl": ('{"id":"a"}', "missing field prompt"),
    "type.jsonl": ('{"id":"a","prompt":"x","tags":["t",1]}', "tags[1]: expected str, got int"),
    "emptytag.jsonl": ('{"id":"a","prompt":"x","tags":[""]}', "a tag is empty"),
    "slash.jsonl": ('{"id":"a/b","prompt":"x"}', "the id 'a/b' will not do"),
    "dots.jsonl": ('{"id":"..","prompt":"x"}', "the id '..' will not do"),
    "noid.jsonl": ('{"id":"","prompt":"x"}', "the id '' will not do"),
    "long.jsonl": ('{"id":"%s","prompt":"x"}' % ("a" * 101), "will not do"),
    "device.jsonl": ('{"id":"Con.txt","prompt":"x"}', "will not do"),
    "emptyprompt.jsonl": ('{"prompt":" "}', "emptyprompt.jsonl:1: the prompt is empty"),
    "emptyprompt.csv": ("id,prompt\na,\n", "emptyprompt.csv:2: the prompt is empty"),
    "negative.json": ('[{"prompt":"x","negative":3}]', "the negative prompt is a number"),
    "twice.jsonl": (
        '{"id":"a","prompt":"x"}\n{"id":"A","prompt":"y"}',
        "twice.jsonl:2: the id 'A' is used twice",
    ),
    "same.txt": ("a fox\na hen\na fox\n", "same.txt:3: the same prompt as"),
    "ragged.tsv": ("prompt\tcategory\na\tb\tc\n", "ragged.tsv:2: has 3 columns"),
    "columns.csv": ("prompt,Prompt\na,b\n", "the column 'prompt' is named twice"),
    "quote.csv": ('prompt\na\n"b\n', "quote.csv:3: is not valid CSV"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_in_a_sentence(name: str, tmp_path: Path) -> None:
    content, sentence = BAD[name]
    path = write(tmp_path, name, content)
    with pytest.raises(SuiteError) as caught:
        read_prompts(path)
    assert sentence in caught.value.message
    assert str(path) in caught.value.message
    assert caught.value.exit_code == 2


def test_a_doubled_id_or_prompt_names_both_lines(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match=r"a\.jsonl:3.*a\.jsonl:1"):
        read_prompts(write(tmp_path, "a.jsonl", '{"id":"a","prompt":"x"}\n\n{"id":"a","prompt":"y"}\n'))
    with pytest.raises(SuiteError, match=r"b\.json, entry 2.*b\.json, entry 1"):
        read_prompts(write(tmp_path, "b.json", '["x","x"]'))


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="there is no such file"):
        read_prompts(tmp_path / "gone.jsonl")
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(SuiteError, match="not a file"):
        read_prompts(tmp_path / "folder.jsonl")
    with pytest.raises(SuiteError, match="there is no such file"):
        read_prompts(tmp_path / ("x" * 5000 + ".jsonl"))
