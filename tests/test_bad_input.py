"""Whatever cannot be run is refused before anything is made, in a sentence or two; whatever can be, is."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest
import tiny
from fakes import make_run, write_run
from suites import PROMPTS, write_suite

import bench.run.stages
from bench.measure import measure
from bench.store import load_run


def test_the_suite_that_all_of_these_start_from_is_good(home, cli):
    assert cli("list", "variants", "own.toml").code == 0


# --- suites and prompt files ---------------------------------------------------------------

SUITES = {
    # what is wrong: (what is replaced in the good suite, by what, what the sentence names)
    "doubled field": ("samples = 2", "samples = 2\nsamples = 3", ["is not valid TOML", "line 5"]),
    "unknown field": ("samples = 2", "sample = 2", ["unknown field sample", "did you mean 'samples'"]),
    "unknown setting": ("steps = 20", "stpes = 20", ["settings.stpes", "did you mean 'steps'"]),
    "wrong type": ("steps = 20", 'steps = "20"', ["settings.steps", "expected int, got str"]),
    "0 steps": ("steps = 20", "steps = 0", ["settings.steps is 0", "1 to 499"]),
    "NaN guidance": ("guidance_scale = 5", "guidance_scale = nan", ["settings.guidance_scale is nan", "0 to 100"]),
    "width 63": ("width = 64", "width = 63", ["settings.width is 63", "multiple of 8, such as 64"]),
    "width 10^7": ("width = 64", "width = 10000000", ["settings.width is 10000000", "8 to 8192"]),
    "negative seed": ("seed = 7", "seed = -1", ["seed is -1", "0 to"]),
    "negative batch": ("batch = 3", "batch = -3", ["settings.batch is -3", "1 to 1024"]),
    "unknown sampler": ('"ddim"', '"dddim"', ["settings.sampler is 'dddim'", "did you mean 'ddim'", "unipc"]),
    "unknown dtype": ("batch = 3", 'batch = 3\ndtype = "fp16"', ["settings.dtype is 'fp16'", "float16, bfloat16"]),
    "unknown metric": ('"saturation"', '"saturatoin"', ["unknown metric 'saturatoin'", "did you mean 'saturation'"]),
    "variant with /": ("[variants.base]", '[variants."a/b"]', ["variant name 'a/b'"]),
    "variant ..": ("[variants.base]", '[variants.".."]', ["variant name '..'"]),
    "variant of nothing": ("[variants.base]", '[variants.""]', ["variant name ''"]),
    "suite's name with ..": ('name = "own"', 'name = "../own"', ["name is '../own'"]),
    "missing prompts": ('"own.jsonl"', '"onw.jsonl"', ["'onw.jsonl'", "did you mean 'own.jsonl'"]),
    "no prompts": ('["own.jsonl"]', "[]", ["prompts is empty"]),
    "no checkpoint": ('checkpoint = "mini"\n\n', "\n", ["missing field checkpoint"]),
    "no schema": ("schema = 2\n", "", ["the field schema is missing", "schema = 2"]),
}


@pytest.mark.parametrize("prompt_id", SUITES)
def test_a_bad_suite(prompt_id, refuses, home):
    old, new, words = SUITES[prompt_id]
    write_suite(home, old, new)
    refuses(2, ["run", "own.toml", "-o", "out"], "own.toml", *words)


FILES = {
    "empty": (b"", "the field schema is missing"),
    "binary": (b"\x89PNG\r\n\x00\x01", "holds zero bytes"),
    "of another code page": ('name = "Müller"'.encode("latin-1"), "is not UTF-8"),
    "JSON": (b'{"schema": 1}', "is not valid TOML"),
}


@pytest.mark.parametrize("prompt_id", FILES)
def test_a_suite_file_that_is_no_suite(prompt_id, refuses, home):
    data, words = FILES[prompt_id]
    (home / "own.toml").write_bytes(data)
    refuses(2, ["run", "own.toml", "-o", "out"], "own.toml", words)


def test_a_suite_of_a_newer_schema(refuses, home):
    write_suite(home, "schema = 2", "schema = 3")
    refuses(4, ["run", "own.toml", "-o", "out"], "own.toml: has schema 3", "of schema 2 only")


LINES = {
    "not JSON": ('{"id": "a", "prompt": "x"', "own.jsonl:3: is not valid JSON"),
    "NaN": ('{"id": "c", "prompt": "x", "tags": NaN}', "own.jsonl:3: is not valid JSON: NaN"),
    "doubled key": ('{"id": "c", "id": "d", "prompt": "x"}', "the key 'id' is given twice"),
    "unknown field": ('{"id": "c", "promt": "x"}', "unknown field 'promt' (did you mean 'prompt'?)"),
    "wrong type": ('{"id": "c", "prompt": 3}', "own.jsonl:3: the prompt is a number, not a text"),
    "doubled id": ('{"id": "a", "prompt": "x"}', "the id 'a' is used twice"),
    "id with /": ('{"id": "a/b", "prompt": "x"}', "the id 'a/b' will not do"),
    "id ..": ('{"id": "..", "prompt": "x"}', "the id '..' will not do"),
    "id of nothing": ('{"id": "", "prompt": "x"}', "the id '' will not do"),
    "no object": ("[1, 2]", "own.jsonl:3: a prompt is a string or an object"),
    "half a surrogate pair": ('{"id": "c", "prompt": "\\ud800"}', "half of a surrogate pair"),
}


@pytest.mark.parametrize("prompt_id", LINES)
def test_a_bad_prompt(prompt_id, refuses, home):
    line, words = LINES[prompt_id]
    (home / "own.jsonl").write_text(f"{PROMPTS}{line}\n", encoding="utf-8")
    refuses(2, ["run", "own.toml", "-o", "out"], "own.jsonl", words)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "own.jsonl: holds no prompt"),
        (b"\0\1\2", "zero bytes"),
        (b'{"prompt": "\xff"}', "own.jsonl:1: is not UTF-8"),
    ],
    ids=["empty", "binary", "not UTF-8"],
)
def test_a_prompt_file_that_is_none(data, words, refuses, home):
    (home / "own.jsonl").write_bytes(data)
    refuses(2, ["run", "own.toml", "-o", "out"], words)


# --- flags and folders ---------------------------------------------------------------------

FLAGS = {
    "suite that is not there": (["run", "gone.toml"], ["gone.toml", "no such file"]),
    "unknown suite": (["run", "mimi"], ["'mimi'", "did you mean 'mini'"]),
    "folder that is no run": (["run", "."], [".", "neither a run nor a suite"]),
    "unknown variant": (["run", "own.toml", "--variants", "sop"], ["'sop'", "base, spo", "did you mean 'spo'"]),
    "no variant": (["run", "own.toml", "--variants", "base,,spo"], ["--variants", "empty name"]),
    "unknown metric": (["run", "own.toml", "--metrics", "sharpnes"], ["'sharpnes'", "did you mean 'sharpness'"]),
    "limit of 0": (["run", "own.toml", "--limit", "0"], ["--limit is 0", "at least 1"]),
    "limit of words": (["run", "own.toml", "--limit", "few"], ["--limit", "integer"]),
    "unknown device": (["run", "own.toml", "--device", "tpu"], ["--device", "'tpu'", "cuda:<number>"]),
    "unknown flag": (["run", "own.toml", "--stepps", "3"], ["--stepps"]),
    "unknown verb": (["runn"], ["'runn'"]),
    "weights under a name too long": (["run", "own.toml", "--weights-dir", "x" * 300], ["--weights-dir", "x" * 300]),
    "prompts under a name too long": (["list", "prompts", "x" * 300], ["x" * 300, "neither a shipped prompt set"]),
    "weights that are not there": (["run", "own.toml", "--weights-dir", "gone"], ["--weights-dir", "gone"]),
}


@pytest.mark.parametrize("prompt_id", FLAGS)
def test_a_bad_flag(prompt_id, refuses):
    arguments, words = FLAGS[prompt_id]
    refuses(2, arguments, *words)


def test_a_device_that_this_machine_has_not(refuses, monkeypatch):
    monkeypatch.setattr("bench.machine._devices", lambda: ("cpu",))
    refuses(2, ["run", "own.toml", "-o", "out", "--device", "cuda"], "--device is cuda", "only cpu", "doctor")


def test_an_output_that_is_a_file_or_another_folder(refuses, home):
    (home / "notes").mkdir()
    (home / "notes" / "mine.txt").write_text("do not touch", encoding="utf-8")
    refuses(2, ["run", "own.toml", "-o", "own.jsonl"], "own.jsonl: is a file", "-o")
    refuses(2, ["run", "own.toml", "-o", "own.jsonl/out"], "own.jsonl", "is a file", "-o")
    refuses(2, ["run", "own.toml", "-o", "notes"], "notes: is not empty and holds no run", "mine.txt", "-o")
    refuses(6, ["run", "own.toml", "-o", "x" * 300], "x" * 300, "too long")


RUNS = {
    "newer schema": (4, '"schema": 4', '"schema": 5', ["run.json: has schema 5", "of schema 4 only", "upgrade"]),
    "no JSON": (5, '"schema": 4', '"schema": ', ["run.json: is not a valid run"]),
    "unknown field": (5, '"schema": 4', '"schema": 4, "extra": 3', ["run.json", "extra"]),
    "doubled field": (5, '"schema": 4', '"schema": 4, "schema": 4', ["run.json", "'schema' is given twice"]),
}


@pytest.mark.parametrize("verb", ["run", "report"])
@pytest.mark.parametrize("prompt_id", RUNS)
def test_a_run_folder_that_cannot_be_continued(prompt_id, verb, refuses, home):
    code, old, new, words = RUNS[prompt_id]
    write_run(make_run(home / "there", prompts=2), home / "there")
    card = home / "there" / "run.json"
    text = card.read_text("utf-8")
    assert old in text
    card.write_text(text.replace(old, new, 1), encoding="utf-8")
    refuses(code, ["run", "own.toml", "-o", "there"] if verb == "run" else ["report", "there"], *words)


def test_a_run_folder_of_another_suite(refuses, home):
    write_run(make_run(home / "there", prompts=2), home / "there")
    refuses(
        4, ["run", "own.toml", "-o", "there"], "there: holds a run of another protocol", "--fresh", "settings.height"
    )


# --- prompts may hold anything -------------------------------------------------------------

HOSTILE = {
    "emoji": "a dancer 💃🏽 in the rain 🌧️\u200d🔥",
    "arabic": "صورة فوتوغرافية \u202eلبحيرة عند الفجر",
    "markup": "</script><img src=x onerror=alert(1)>{{ 7 * 7 }} | `tick` \\ \"quoted\" 'too'",
    "control": "a\tb\nc\x1b[2J\x7f",
    "zero-width": "\u200b\ufeff\u2028",
    "long": " ".join(f"word{number}" for number in range(5000)),
    "nothing": "",
}
HOSTILE_SUITE = """\
schema = 2
name = "hostile"
prompts = ["hostile.jsonl"]
metrics = ["mini-clip", "saturation"]
[settings]
width = 64
height = 64
steps = 2
guidance_scale = 3.0
sampler = "ddim"
batch = 7
[variants.base]
checkpoint = "mini"
[measure]
rounds = 1
images = 1
warmups = 0
"""


def test_hostile_prompts_are_rendered_and_the_run_ends_well(home, cli, monkeypatch):
    monkeypatch.setattr(bench.run.stages, "measure", functools.partial(measure, command=tiny.TIMER))
    lines = [
        json.dumps({"id": name, "prompt": text, "negative": text, "tags": ["<b>tag</b>"]})
        for name, text in HOSTILE.items()
    ]
    Path("hostile.jsonl").write_text("\n".join(lines), encoding="utf-8")
    Path("hostile.toml").write_text(HOSTILE_SUITE, encoding="utf-8")
    answer = cli("run", "hostile.toml", "-o", "out", "--device", "cpu")
    assert answer.code == 0, answer.err
    run = load_run("out")
    assert {one.prompt_id: one.error for one in run.renders} == dict.fromkeys(HOSTILE)
    assert {one.metric for one in run.scores if one.value is not None} == {"mini-clip", "saturation"}
    assert {prompt.id: prompt.text for prompt in run.info.suite.prompts} == HOSTILE
    page, note = ((home / "out" / name).read_text("utf-8") for name in ("report.html", "report.md"))
    assert "<img src=x" not in page + note
    assert "<b>tag</b>" not in page + note
    again = cli("compare", "out", "--format", "json")
    assert again.code == 5
    assert "out has one variant" in again.err
