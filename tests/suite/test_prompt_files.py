"""Prompt files: what the readers take, and how they refuse the rest."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from suites import write_suite

from bench.errors import SuiteError
from bench.formatting import is_good_name
from bench.records import Prompt
from bench.suite import list_prompt_sets, load_suite, prompts_folder, protocol_digest
from bench.suite.prompt_files import make_id, read_prompt_file, read_prompts

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
    found = {name: read_prompts(write(folder, name, text)) for name, text in files.items()}
    assert [prompt.text for prompt in found["a.json"]] == prompts
    assert sorted(found["a.json"], key=repr) == sorted(found["a.jsonl"], key=repr)
    assert all(is_good_name(prompt.id) for prompt in found["a.json"])


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
    "nothing.csv": ("", "holds no prompts"),
    "columnless.csv": ("id;promt\n1;a kite\n", "columnless.csv:2: "),
    "binary.jsonl": (b"\x89PNG\r\n\0\0", "zero bytes"),
    "latin.txt": (
        "a pier\ncaf\xe9".encode("cp1252"),
        "latin.txt:2: is not UTF-8: byte 4 of the line is 0xe9, 'é' in Windows-1252",
    ),
    "utf16.txt": ("a pier".encode("utf-16-le"), "zero bytes"),
    "utf32.txt": ("a pier".encode("utf-32"), "zero bytes"),
    "halfutf16.txt": ("a pier".encode("utf-16")[:-1], "is not whole UTF-16"),
    "kind.yaml": ("- a", "ends in one of .jsonl, .json"),
    "notjson.jsonl": ('{"id":"a","prompt":"x"}\n{oops}\n', "notjson.jsonl:2: is not valid JSON"),
    "deep.json": ("[" * 100_000, "nested too deeply"),
    "number.jsonl": ("7\n", "number.jsonl:1: a prompt is a string or an object, not a number"),
    "object.json": (
        '{"prompt":"x"}',
        "is a list of strings or objects, or an object with one as prompts or annotations or data",
    ),
    "doubled.jsonl": (
        '{"id":"a","prompt":"x","prompt":"y"}',
        "doubled.jsonl:1: is not valid JSON: the key 'prompt'",
    ),
    "nan.json": ('[{"prompt":"x","score":NaN}]', "NaN is not a JSON number"),
    "huge.json": ('[{"prompt":"x","score":1e999}]', "too large"),
    "half.jsonl": (r'{"id":"a","prompt":"\ud83d"}', "half of a surrogate pair"),
    "field.jsonl": ('{"id":"a","promt":"x"}', "unknown field 'promt' (did you mean 'prompt'?)"),
    "nofield.jsonl": ('{"promt":"x"}', "(did you mean 'prompt'?)"),
    "missing.jsonl": ('{"id":"a"}', "needs a text in one of prompt"),
    "type.jsonl": ('{"id":"a","prompt":"x","tags":["t",1]}', "tags holds a number; a tag is a text"),
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
    "negatives.csv": ("prompt,negative\na fox,\na fox,blur\n", "negatives.csv:3: the id"),
    "slip.jsonl": ('{"id":"a","prompt":"x","tgas":["t"]}', "unknown field 'tgas' (did you mean 'tags'?)"),
    "slip.csv": ("prompt,Negative Promt\nx,y\n", "(did you mean 'negativeprompt'?)"),
    "slip.json": ('[{"prompt":"x","probe":"y"}]', "(did you mean 'probes'?)"),
    "spellings.json": ('[{"prompt":"x","negativePrompt":"y","negative_prompt":"z"}]', "are one field"),
    "half-id.json": ('[{"id":1.5,"prompt":"x"}]', "the id is a number; an id is a text or a whole number"),
    "tags.json": ('[{"prompt":"x","tags":7}]', "tags is a number"),
    "long-tag.json": (json.dumps([{"prompt": "x", "tags": ["t" * 201]}]), "a tag has 201 characters"),
    "long.txt": ("x" * 5_000_000, "a prompt has 5,000,000 characters; at most 100,000 are read"),
    "options.txt": ("--steps 30\n", "options.txt:1: needs a text in one of prompt"),
    "open.txt": ('--prompt "a kite\n', "the options cannot be read: No closing quotation"),
    "twice.txt": ("--prompt a --prompt b\n", "the option --prompt is given twice"),
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


def test_a_doubled_id_names_both_lines(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match=r"a\.jsonl:3.*a\.jsonl:1"):
        read_prompts(write(tmp_path, "a.jsonl", '{"id":"a","prompt":"x"}\n\n{"id":"a","prompt":"y"}\n'))


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="there is no such file"):
        read_prompts(tmp_path / "gone.jsonl")
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(SuiteError, match=r"one \.txt file for each; there is none"):
        read_prompts(tmp_path / "folder.jsonl")
    with pytest.raises(SuiteError, match="there is no such file"):
        read_prompts(tmp_path / ("x" * 5000 + ".jsonl"))


# --- what is not taken, and files as the field publishes them ----------------------------------


def read(folder: Path, name: str, content: str | bytes) -> tuple[tuple[Prompt, ...], str]:
    """The prompts of a file, and its notes in one text."""
    found = read_prompt_file(write(folder, name, content))
    return found.prompts, " ".join(found.notes)


@pytest.mark.parametrize(
    "name", ["negative", "negativePrompt", "Negative Prompt", "negative-prompt", "NEGATIVE_PROMPT", "neg", "uc"]
)
@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "tsv"])
def test_a_negative_prompt_is_taken_under_any_spelling(name: str, suffix: str, tmp_path: Path) -> None:
    entry = {"prompt": "a kite", name: "people"}
    texts = {
        "jsonl": json.dumps(entry),
        "json": json.dumps([entry]),
        "csv": f"prompt,{name}\na kite,people",
        "tsv": f"Prompt\t{name}\na kite\tpeople",
    }
    prompts, notes = read(tmp_path, f"a.{suffix}", texts[suffix])
    assert [(prompt.text, prompt.negative) for prompt in prompts] == [("a kite", "people")]
    assert notes == ""


@pytest.mark.parametrize("prompt_id", [0, 12, "EvalMuse_1"])
def test_one_entry_is_the_same_prompt_in_every_format(prompt_id: object, tmp_path: Path) -> None:
    entry = {"id": prompt_id, "prompt": "a kite", "type": "x", "image_path": "/p/1.jpg", "tag": "Sky High"}
    texts = {
        "a.jsonl": json.dumps(entry),
        "b.json": json.dumps([entry]),
        "c.csv": "id,prompt,type,image_path,tag\n" + ",".join(map(str, entry.values())),
        "d.tsv": "id\tprompt\ttype\timage_path\ttag\n" + "\t".join(map(str, entry.values())),
        "e.json": json.dumps({"data": [entry]}),
        "f.json": json.dumps({"first": entry}),
    }
    for name, text in texts.items():
        prompts, notes = read(tmp_path, name, text)
        assert prompts == (Prompt(id=str(prompt_id), text="a kite", tags=("sky-high",)),), name
        assert f"{name}: fields that are not taken: image_path, type." in notes


PUBLISHED = {
    "drawbench.csv": (
        "Prompts,Category\na kite,Colors\na boat,Colors\n",
        [("a kite", ("colors",)), ("a boat", ("colors",))],
        "",
    ),
    "coco.json": (
        '{"info":{},"annotations":[{"image_id":1,"id":7,"caption":"a kite"},{"image_id":1,"id":8,"caption":"a boat"}]}',
        [("a kite", ()), ("a boat", ())],
        "only the list 'annotations' is read, not info",
    ),
    "genai.json": ('{"00000":{"prompt":"a kite","models":{}}}', [("a kite", ())], "not taken: models"),
    "geneval.jsonl": (
        '{"tag":"counting","include":[{"class":"kite","count":2}],"prompt":"two kites"}',
        [("two kites", ("counting",))],
        "not taken: include",
    ),
    "pickapic.jsonl": (
        '{"caption":"a kite","label_0":1.0}\n{"caption":"a kite","label_0":0.5}',
        [("a kite", ())],
        "1 entry repeats an earlier prompt",
    ),
    "colour.txt": ("a kite\na kite\na boat\na kite\n", [("a kite", ()), ("a boat", ())], "2 entries repeat"),
    "sheet.csv": (
        '\ufeff"prompt";"category"\r\na kite;sky\r\na boat, blue;water\r\n',
        [("a kite", ("sky",)), ("a boat, blue", ("water",))],
        "",
    ),
    "tabs.csv": ("id\tprompt\n1\ta boat, blue\n", [("a boat, blue", ())], ""),
    "wide.csv": ("prompt\ncafé; dusk\n".encode("utf-16"), [("café; dusk", ())], ""),
    "unicode.csv": ("prompt,category\na kite,Himmel & Wolken; 风景\n", [("a kite", ("himmel-wolken", "风景"))], ""),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_shape_is_read(name: str, tmp_path: Path) -> None:
    text, expected, said = PUBLISHED[name]
    prompts, notes = read(tmp_path, name, text)
    assert [(prompt.text, prompt.tags) for prompt in prompts] == expected
    assert said in notes
    assert bool(notes) == bool(said)


def test_a_repetition_within_and_between_the_files_of_a_suite_is_said_without_the_folder(tmp_path: Path) -> None:
    suite = write_suite(tmp_path, '["own.jsonl"]', '["own.jsonl", "more.txt", "again.csv"]')
    write(tmp_path, "more.txt", "a kite\na kite\n")
    write(tmp_path, "again.csv", "id,prompt\n,a kite\nc,a pier\n")
    found = load_suite(str(suite))
    assert [prompt.text for prompt in found.prompts] == ["a fox", "a pier", "a kite", "a pier"]
    assert found.notes == (
        "more.txt: 1 entry repeats an earlier prompt, such as more.txt:2; each prompt is read once.",
        "own.toml: 1 entry repeats an earlier prompt, such as again.csv:2; each prompt is read once.",
    )
    assert protocol_digest(found) == protocol_digest(msgspec.structs.replace(found, notes=()))


def test_ids_of_objects_and_annotations_are_kept(tmp_path: Path) -> None:
    texts = ('{"00017":{"prompt":"a kite"}}', '{"annotations":[{"id":7,"caption":"a kite"}]}')
    assert [read(tmp_path, "a.json", text)[0][0].id for text in texts] == ["00017", "7"]


def test_a_folder_holds_one_prompt_a_file(tmp_path: Path) -> None:
    for name, text in {"1.txt": " a kite\n", "2.txt": "\ufeffa boat,\nblue", "notes.md": "x"}.items():
        write(tmp_path, name, text)
    found = read_prompt_file(tmp_path)
    assert found.prompts == (Prompt(id="1", text="a kite"), Prompt(id="2", text="a boat,\nblue"))
    assert "1 file or folder beside the .txt files left out" in found.notes[0]
    write(tmp_path, "3.txt", " ")
    with pytest.raises(SuiteError, match=r"3\.txt: the prompt is empty"):
        read_prompt_file(tmp_path)


def test_lines_of_options_are_read_as_the_web_ui_reads_them(tmp_path: Path) -> None:
    text = (
        "--prompt \"a red kite\" over a lake --negative_prompt 'people' --steps 30 --do_not_save_grid\na plain line\n"
    )
    prompts, notes = read(tmp_path, "a.txt", text)
    assert [(prompt.text, prompt.negative) for prompt in prompts] == [
        ("a red kite over a lake", "people"),
        ("a plain line", ""),
    ]
    assert "not taken: do_not_save_grid, steps" in notes


def test_comments_of_wildcard_lists_are_no_prompts_and_counted(tmp_path: Path) -> None:
    prompts, notes = read(tmp_path, "a.txt", "# colours\nred\n\n  # more\nblue # 2\n")
    assert [prompt.text for prompt in prompts] == ["red", "blue # 2"]
    assert "lines that begin with # are comments: 2" in notes


SYNTAX = {
    "(masterpiece:1.2), a kite": "a weight ((masterpiece:1.2))",
    "((kite)) in the sky": "a weight (((kite)))",
    "((kite in the sky": "a weight (((kite in the sky)",
    "(kite:1e9), a boat": "a weight ((kite:1e9))",
    "(kite:1.2.3), a boat": "a weight ((kite:1.2.3))",
    r"kite \(toy\), a boat": r"an escaped bracket (\()",
    "a [red] kite": "a word in square brackets ([red])",
    "a kite # mine": "a comment (# mine)",
    "2::kite": "a weight (2::)",
    "kite::3 boat": "a weight (::3)",
    "<lora:foo:0.8> a kite": "a LoRA or embedding tag (<lora:foo:0.8>)",
    "a kite, embedding:bad": "embedding:b",
    "a kite BREAK a lake": "BREAK",
    "[kite:boat:0.5]": "prompt editing ([kite:boat:0.5])",
    "[kite|boat] here": "prompt editing ([kite|boat])",
    "{red|blue} kite": "alternatives ({red|blue})",
    "__animals__ in a field": "a wildcard (__animals__)",
    "a kite --ar 16:9": "an option (--ar)",
}


@pytest.mark.parametrize("prompt", SYNTAX)
def test_syntax_that_is_drawn_as_words_is_named(prompt: str, tmp_path: Path) -> None:
    text = json.dumps(
        [{"prompt": prompt}, "a plain (and quiet) kite (1910): 10:30, [sic] [2], well-known -- a {brace} of #1 :(("]
    )
    prompts, notes = read(tmp_path, "a.json", text)
    assert prompts[0].text == prompt
    assert "1 prompt holds syntax" in notes
    assert SYNTAX[prompt] in notes
    assert SYNTAX[prompt] in read(tmp_path, "b.json", json.dumps([{"prompt": "x", "negative": prompt}]))[1]


@pytest.mark.parametrize("sign", list("({[<_:|-0 1.\\") + ["[:", "((", "(:", "__", "::", "(1", "{|", "<lora:", "(: "])
def test_the_longest_prompt_of_any_sign_is_searched_at_once(sign: str, tmp_path: Path) -> None:
    start = time.monotonic()
    read(tmp_path, "a.json", json.dumps(["x" + (sign * 100_000)[:99_998] + "x"]))
    assert time.monotonic() - start < 5.0


@pytest.mark.parametrize("name", list_prompt_sets())
def test_a_shipped_set_has_nothing_to_say(name: str) -> None:
    assert read_prompt_file(prompts_folder() / name).notes == ()
