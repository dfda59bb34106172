"""Suites whose prompts are written for A1111 or ComfyUI: what is refused, what is said, what the protocol holds."""

from __future__ import annotations

import json
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
from safetensors.numpy import save_file

from bench.comparability import protocol_facts
from bench.errors import SuiteError
from bench.records import Embedding, Settings, Suite
from bench.suite import load_suite, protocol_digest
from bench.suite.prompt_syntax import plain_text

SUITE = """\
schema = 2
name = "own"
prompts = ["own.jsonl"]
[settings]
width = 64
height = 64
steps = 2
guidance_scale = 5
sampler = "ddim"
{settings}
[variants.base]
checkpoint = "mini"
"""


def suite_of(folder: Path, settings: str, *prompts: str | tuple[str, str]) -> Suite:
    """A suite with these lines in its settings and these prompts, or (prompt, negative), called p0, p1, ..."""
    pairs = [one if isinstance(one, tuple) else (one, "") for one in prompts]
    lines = [
        json.dumps({"id": f"p{number}", "prompt": text, "negative": negative})
        for number, (text, negative) in enumerate(pairs)
    ]
    (folder / "own.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (folder / "own.toml").write_text(SUITE.format(settings=settings), encoding="utf-8")
    return load_suite(str(folder / "own.toml"))


def refusal(folder: Path, settings: str, *prompts: str | tuple[str, str]) -> str:
    with pytest.raises(SuiteError) as caught:
        suite_of(folder, settings, *prompts)
    return f"{caught.value} {caught.value.hint}"


A1111, COMFYUI = 'prompt_syntax = "a1111"', 'prompt_syntax = "comfyui"'


def embedding(folder: Path, name: str, value: float = 1.0) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"emb_params": np.full((1, 4), value, np.float32)}, path)
    return path


# --- refused -------------------------------------------------------------------------------


def test_what_is_not_drawn_is_refused_by_name_all_at_once(tmp_path: Path) -> None:
    said = refusal(
        tmp_path,
        A1111,
        "a <lora:spo:0.8> kite",
        "[a:b:0.5]",
        ("a cat", "[c|d]"),
        "a cat AND a dog",
        "{red|blue} kite",
        "__animals__",
        "wide, 16:9",
        "a (fine:1.2) one",
    )
    expected = (
        "p0: '<lora:spo:0.8>' (LoRAs belong to variants",
        "p1: '[a:b:0.5]' (prompt editing",
        "p2: '[c|d]' (alternation",
        "p3: 'a cat AND a dog' (AND",
        "p4: '{red|blue}' (alternatives",
        "p5: '__animals__' (a wildcard",
        "p6: its end 'wide, 16:9'",
    )
    for clause in expected:
        assert clause in said
    assert "p7" not in said
    assert 'prompt_loras = "ignore"' in said


def test_weights_that_cannot_be_are_refused_by_name(tmp_path: Path) -> None:
    said = refusal(tmp_path, A1111, "a (kite:1.2.3)", ("a", "(x:99999)"), "(" * 101)
    assert "p0: '(kite:1.2.3)': '1.2.3' is not a number" in said
    assert "p1: '(x:99999)': 99999 is not a weight from -1000 to 1000" in said
    assert "p2: more than 100 brackets within one another" in said
    said = refusal(tmp_path, COMFYUI, "(kite:nan)", "(kite:1e9)")
    assert "p0: '(kite:nan)': nan is not a weight" in said
    assert "p1: '(kite:1e9)': 1e9 is not a weight" in said


def test_many_refusals_are_counted(tmp_path: Path) -> None:
    assert "; and 12 more" in refusal(tmp_path, A1111, *(f"[a{number}|b]" for number in range(20)))


def test_comfyuis_page_syntax_is_refused(tmp_path: Path) -> None:
    said = refusal(tmp_path, COMFYUI, "a kite // tall", "a /* red */ kite", "{a|b}", "<lora:x:1>")
    assert "p0: '// tall' (a comment" in said
    assert "p1: '/* red */' (a comment" in said
    assert "p2: '{a|b}'" in said
    assert "p3: '<lora:x:1>'" in said


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ('prompt_syntax = "a1112"', "did you mean 'a1111'"),
        ('prompt_loras = "drop"', "settings.prompt_loras is 'drop'"),
        ('prompt_loras = "ignore"', "plain prompts have no tags"),
        ("clip_skip = 0", "settings.clip_skip is 0; allowed is 1 (the last layer) to 12"),
        ("clip_skip = 13", "settings.clip_skip is 13"),
        ('embeddings = "there"', "plain prompts use no embeddings"),
        (f"{A1111}\nembeddings = 1", "it is the name of a folder"),
        (f'{A1111}\nembeddings = "nowhere"', "is not a folder"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: str, said: str, tmp_path: Path) -> None:
    assert said in refusal(tmp_path, settings, "a kite")


# --- said ----------------------------------------------------------------------------------


def test_tags_may_be_left_out_and_that_is_said(tmp_path: Path) -> None:
    suite = suite_of(tmp_path, f'{A1111}\nprompt_loras = "ignore"', "a kite <lora:spo:0.8>", "a lake")
    assert suite.notes == ("own.toml: 1 prompt holds tags, which are left out (<lora:spo:0.8>).",)
    assert plain_text(suite.prompts[0].text, suite.settings) == "a kite"


def test_what_an_author_may_not_expect_is_said_once(tmp_path: Path) -> None:
    notes = suite_of(tmp_path, A1111, "a kite # mine", "(b BREAK c:1.2)", "a (fine:1.2) one").notes
    assert notes == (
        "own.toml: 2 prompts hold a comment, which is left out as A1111 does (# mine) and "
        "BREAK within weighted brackets, where A1111 draws the word (BREAK).",
    )
    (note,) = suite_of(tmp_path, COMFYUI, "a BREAK b", "[a:b:0.5]").notes
    assert "BREAK, which ComfyUI draws as words" in note
    assert "[a:b:0.5]" in note


@pytest.mark.parametrize("syntax", [A1111, COMFYUI])
def test_numbers_that_may_be_meant_otherwise_are_said(syntax: str, tmp_path: Path) -> None:
    (note,) = suite_of(tmp_path, syntax, "a (kite:1,3)", "a clock (at 10:30)", "a (fine:1.4) one").notes
    assert "2 prompts hold a number that is no weight there, and is drawn ((kite:1,3))" in note
    assert "a weight over 5, which may be a time or a ratio ((at 10:30) weighs 30)" in note


@pytest.mark.parametrize(
    ("syntax", "prompt", "example"),
    [
        (COMFYUI, "a) cat, (dog:1.4)", "a) cat, (dog:1.4)"),
        (COMFYUI, "a (red:1.2", "a (red:1.2"),
        (A1111, "(smile :), happy:1.2)", "mile :), happy:1.2)"),
        (A1111, "((((calico", "((((calico"),
        (A1111, "a [calico", "a [calico"),
    ],
)
def test_a_bracket_without_its_pair_is_said(syntax: str, prompt: str, example: str, tmp_path: Path) -> None:
    (note,) = suite_of(tmp_path, syntax, prompt).notes
    assert f"1 prompt holds a bracket without its pair ({example})" in note


def test_an_end_in_an_open_bracket_is_refused_with_the_bracket(tmp_path: Path) -> None:
    assert "; close the bracket, or write something after it" in refusal(tmp_path, A1111, "a (red:1.2")
    assert "close the bracket" not in refusal(tmp_path, A1111, "wide, 16:9")


@pytest.mark.parametrize("syntax", [A1111, COMFYUI])
def test_brackets_that_are_paired_or_escaped_are_not(syntax: str, tmp_path: Path) -> None:
    assert suite_of(tmp_path, syntax, r"a (cat:1.2), \( ((dog)) \)").notes == ()


def test_plain_prompts_say_what_looks_like_syntax_and_where_it_would_be_read(tmp_path: Path) -> None:
    (note,) = suite_of(tmp_path, "", "a (kite:1.2)", "wide, 16:9", "a cat AND a dog").notes
    assert "3 prompts hold syntax of other programs, which is drawn as words here: a weight ((kite:1.2))" in note
    assert "an end that A1111 takes for a weight (16:9)" in note
    assert "AND" in note
    assert 'prompt_syntax = "a1111" or "comfyui"' in note
    assert suite_of(tmp_path, A1111, "a (kite:1.2)").notes == ()


# --- embeddings and the protocol -----------------------------------------------------------


def test_the_protocol_holds_the_embeddings_that_prompts_use_and_not_where_they_lie(tmp_path: Path) -> None:
    for place, folder in (("one", "emb"), ("two", "other")):
        for name in ("good-hands.safetensors", "deep/unused.safetensors"):
            embedding(tmp_path / place / folder, name)
    texts = ("a man, Good-Hands, x", "a lake")
    one = suite_of(tmp_path / "one", f'{A1111}\nembeddings = "emb"', *texts)
    two = suite_of(tmp_path / "two", f'{A1111}\nembeddings = "{tmp_path}/two/other"', *texts)
    assert [used.name for used in one.settings.embeddings] == ["good-hands"]
    assert one.notes == ("own.toml: Prompts use the embeddings good-hands.",)
    assert protocol_digest(one) == protocol_digest(two)
    assert protocol_facts(one) == protocol_facts(two)
    embedding(tmp_path / "two" / "other", "good-hands.safetensors", 2.0)
    changed = load_suite(str(tmp_path / "two" / "own.toml"))
    assert protocol_digest(one) != protocol_digest(changed)
    assert protocol_facts(one) != protocol_facts(changed)


def test_only_the_embeddings_of_the_prompts_that_are_drawn_count(tmp_path: Path) -> None:
    embedding(tmp_path, "alpha.safetensors")
    embedding(tmp_path, "omega.safetensors")
    suite_of(tmp_path, f'{A1111}\nembeddings = "."', "an alpha", "an omega")
    found = load_suite(str(tmp_path / "own.toml"), limit=1)
    assert [used.name for used in found.settings.embeddings] == ["alpha"]


def test_a_folder_that_no_prompt_uses_is_said(tmp_path: Path) -> None:
    embedding(tmp_path, "alpha.safetensors")
    assert "No prompt uses an embedding" in suite_of(tmp_path, f'{A1111}\nembeddings = "."', "a kite").notes[0]


def test_comfyui_names_embeddings_by_their_path_with_a_suffix_or_without(tmp_path: Path) -> None:
    embedding(tmp_path, "emb/alpha.safetensors")
    embedding(tmp_path, "emb/deep/omega.safetensors")
    text = "a embedding:alpha, (embedding:deep/omega.safetensors:1.2) alpha"
    suite = suite_of(tmp_path, f'{COMFYUI}\nembeddings = "emb"', text)
    assert [used.name for used in suite.settings.embeddings] == ["alpha", "deep/omega.safetensors"]
    assert plain_text(text, suite.settings) == "a , alpha"
    said = refusal(tmp_path, f'{COMFYUI}\nembeddings = "emb"', "a embedding:alhpa, b")
    assert "p0: 'embedding:alhpa': there is no embedding of this name (did you mean 'alpha'?)" in said
    assert "name their folder" in refusal(tmp_path, COMFYUI, "embedding:alpha")


def test_one_name_of_two_files_is_refused_where_it_is_used(tmp_path: Path) -> None:
    embedding(tmp_path, "emb/alpha.safetensors")
    embedding(tmp_path, "emb/deep/alpha.safetensors")
    settings = f'{A1111}\nembeddings = "emb"'
    assert suite_of(tmp_path, settings, "a kite").settings.embeddings == ()
    assert "the embedding alpha is there 2 times" in refusal(tmp_path, settings, "alpha")


def test_new_settings_make_other_protocols(tmp_path: Path) -> None:
    made = [suite_of(tmp_path, lines, "a kite") for lines in ("", A1111, COMFYUI, "clip_skip = 2")]
    assert len({protocol_digest(one) for one in made}) == 4
    again = msgspec.json.decode(msgspec.json.encode(made[1]), type=Suite)
    assert protocol_digest(again) == protocol_digest(made[1])


# --- the words that metrics are given ------------------------------------------------------

SETTINGS = Settings(width=64, height=64, steps=2, guidance_scale=5, sampler="ddim", prompt_syntax="a1111")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a (red:1.3)  tent, [fog] BREAK ((sea))", "a red tent, fog sea"),
        (r"a kite \(blue\) # note", "a kite (blue)"),
        ("a kite, (people:0), (fog:-1)", "a kite, ,"),
        ("a (Bad-Hand:1.2) kite", "a kite"),
    ],
)
def test_metrics_are_given_the_words(text: str, words: str) -> None:
    used = msgspec.structs.replace(SETTINGS, embeddings=(Embedding(name="bad-hand", path="x", sha256="0"),))
    assert plain_text(text, used) == words


def test_a_plain_prompt_stays_as_it_is() -> None:
    text = "a (red:1.3)  tent "
    assert plain_text(text, msgspec.structs.replace(SETTINGS, prompt_syntax="plain")) is text


@pytest.mark.parametrize("syntax", [A1111, COMFYUI])
def test_prompts_of_100000_characters_are_checked_in_seconds(syntax: str, tmp_path: Path) -> None:
    embedding(tmp_path, "alpha.safetensors")
    began = time.process_time()
    suite_of(tmp_path, f'{syntax}\nembeddings = "."', "a (kite:1.2), " * 7000, "kite " * 10_000)
    assert time.process_time() - began < 20
