"""Whatever cannot be run is refused before anything is made, in a sentence or two; whatever can be, is."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny
from fakes import make_run, write_run
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.numpy import save_file
from suites import PROMPTS, write_suite

import bench.run
from bench.measure import measure
from bench.mini.weights import pipeline_folder
from bench.store import load_run


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A working directory with a good suite in it."""
    monkeypatch.chdir(tmp_path)
    write_suite(tmp_path)
    return tmp_path


def content(folder):
    """Every file and folder by name, files with their bytes; what a link points to does not count."""
    return {
        path.relative_to(folder): path.read_bytes() if path.is_file() and not path.is_symlink() else None
        for path in folder.rglob("*")
    }


@pytest.fixture
def refuses(home, cli):
    """Gives a command that must fail: with this code, two lines that say all these things, and no trace of it."""

    def check(code, arguments, *words):
        before = content(home)
        answer = cli(*arguments)
        assert answer.code == code, answer.err
        assert answer.out == ""
        first, *rest = answer.err.splitlines()
        assert re.fullmatch(r"hotart-bench: .+[.?]", first), answer.err
        assert [line[:8] for line in rest] == ["  next: "], answer.err
        assert "Traceback" not in answer.err
        assert all(str(word) in answer.err for word in words), answer.err
        assert content(home) == before

    return check


def test_the_suite_that_all_of_these_start_from_is_good(home, cli):
    assert cli("list", "variants", "own.toml").code == 0


# --- suites and prompt files ---------------------------------------------------------------

SUITES = {
    # what is wrong: (what is replaced in the good suite, by what, what the sentence names)
    "doubled field": ("samples = 2", "samples = 2\nsamples = 3", ["is no TOML", "line 5"]),
    "unknown field": ("samples = 2", "sample = 2", ["unknown field sample", "did you mean 'samples'"]),
    "unknown setting": ("steps = 20", "stpes = 20", ["settings.stpes", "did you mean 'steps'"]),
    "wrong type": ("steps = 20", 'steps = "20"', ["settings.steps", "expected int, got str"]),
    "0 steps": ("steps = 20", "steps = 0", ["settings.steps is 0", "1 to 1000"]),
    "NaN guidance": ("guidance = 5", "guidance = nan", ["settings.guidance is nan", "0 to 100"]),
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
    "no schema": ("schema = 1\n", "", ["the field schema is missing", "schema = 1"]),
}


@pytest.mark.parametrize("case", SUITES)
def test_a_bad_suite(case, refuses, home):
    old, new, words = SUITES[case]
    write_suite(home, old, new)
    refuses(2, ["run", "own.toml", "-o", "out"], "own.toml", *words)


FILES = {
    "empty": (b"", "the field schema is missing"),
    "binary": (b"\x89PNG\r\n\x00\x01", "holds zero bytes"),
    "of another code page": ('name = "Müller"'.encode("latin-1"), "is not UTF-8"),
    "JSON": (b'{"schema": 1}', "is no TOML"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_suite_file_that_is_no_suite(case, refuses, home):
    data, words = FILES[case]
    (home / "own.toml").write_bytes(data)
    refuses(2, ["run", "own.toml", "-o", "out"], "own.toml", words)


def test_a_suite_of_a_newer_schema(refuses, home):
    write_suite(home, "schema = 1", "schema = 2")
    refuses(4, ["run", "own.toml", "-o", "out"], "own.toml: has schema 2", "up to schema 1")


LINES = {
    "not JSON": ('{"id": "a", "prompt": "x"', "own.jsonl:3: is no JSON"),
    "NaN": ('{"id": "c", "prompt": "x", "tags": NaN}', "own.jsonl:3: is no JSON: NaN"),
    "doubled key": ('{"id": "c", "id": "d", "prompt": "x"}', "the key 'id' is given twice"),
    "unknown field": ('{"id": "c", "promt": "x"}', "unknown field 'promt' (did you mean 'prompt'?)"),
    "wrong type": ('{"id": "c", "prompt": 3}', "own.jsonl:3: prompt: expected str, got int"),
    "doubled id": ('{"id": "a", "prompt": "x"}', "the id 'a' is used twice"),
    "id with /": ('{"id": "a/b", "prompt": "x"}', "the id 'a/b' will not do"),
    "id ..": ('{"id": "..", "prompt": "x"}', "the id '..' will not do"),
    "id of nothing": ('{"id": "", "prompt": "x"}', "the id '' will not do"),
    "no object": ("[1, 2]", "own.jsonl:3: a prompt is a string or an object"),
    "half a surrogate pair": ('{"id": "c", "prompt": "\\ud800"}', "half of a surrogate pair"),
}


@pytest.mark.parametrize("case", LINES)
def test_a_bad_prompt(case, refuses, home):
    line, words = LINES[case]
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
    "weights that are not there": (["run", "own.toml", "--weights-dir", "gone"], ["--weights-dir", "gone"]),
}


@pytest.mark.parametrize("case", FLAGS)
def test_a_bad_flag(case, refuses):
    arguments, words = FLAGS[case]
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
    "newer schema": (4, '"schema": 1', '"schema": 2', ["run.json: has schema 2", "up to schema 1", "upgrade"]),
    "no JSON": (5, '"schema": 1', '"schema": ', ["run.json: is no card of a run"]),
    "unknown field": (5, '"schema": 1', '"schema": 1, "extra": 3', ["run.json", "extra"]),
    "doubled field": (5, '"schema": 1', '"schema": 1, "schema": 1', ["run.json", "'schema' is given twice"]),
}


@pytest.mark.parametrize("verb", ["run", "report"])
@pytest.mark.parametrize("case", RUNS)
def test_a_run_folder_that_cannot_be_continued(case, verb, refuses, home):
    code, old, new, words = RUNS[case]
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


# --- LoRA files ----------------------------------------------------------------------------


def renamed(old, new):
    return {name.replace(old, new): tensor for name, tensor in tiny.lora_tensors(1).items()}


def without(end):
    return {name: tensor for name, tensor in tiny.lora_tensors(1).items() if not name.endswith(end)}


def of_other_widths():
    return {
        name: np.concatenate([tensor] * 2, axis=1 if "lora_A" in name else 0)
        for name, tensor in renamed("", "").items()
    }


LORAS = {
    "of another model's blocks": (lambda: renamed("blocks.0", "blocks.7"), ["fit no module of the checkpoint"]),
    "of another model's widths": (of_other_widths, ["56 of 56 modules", "fit no module of the checkpoint"]),
    "of a whole model": (lambda: {"conv_in.weight": np.zeros((4, 4, 3, 3), np.float32)}, ["1 of 1 keys", "layout"]),
    "of another layout": (lambda: renamed("unet.", "lora_unet_"), ["keys are not in the diffusers/PEFT layout"]),
    "with nothing in it": (dict, ["0 of 0 keys", "none at all"]),
    "with one matrix of two": (lambda: without("lora_B.weight"), ["lack one of their two matrices"]),
    "with ranks that differ": (
        lambda: {name: tensor[:4] if "lora_A" in name else tensor for name, tensor in tiny.lora_tensors(1).items()},
        ["do not multiply"],
    ),
}


def with_lora(home):
    write_suite(home, '"mini:spo"', '"own.safetensors"')


@pytest.mark.parametrize("case", LORAS)
def test_a_lora(case, refuses, home):
    make, words = LORAS[case]
    save_file(make(), home / "own.safetensors")
    with_lora(home)
    refuses(3, ["run", "own.toml", "-o", "out"], "own.safetensors", *words)


CUTS = {
    "empty": lambda data: b"",
    "cut in its length": lambda data: data[:5],
    "cut in its header": lambda data: data[:300],
    "cut in its weights": lambda data: data[: len(data) // 2],
    "cut by a byte": lambda data: data[:-1],
    "longer than it says": lambda data: data + b"\0",
    "a web page": lambda data: b"<!DOCTYPE html><html>Log in to download</html>",
    "a pickle": lambda data: b"\x80\x02}q\x00." + b"x" * 100,
}


@pytest.mark.parametrize("case", CUTS)
def test_a_lora_file_that_is(case, refuses, home):
    tiny.write_lora(home / "own.safetensors", 1)
    (home / "own.safetensors").write_bytes(CUTS[case]((home / "own.safetensors").read_bytes()))
    with_lora(home)
    refuses(3, ["run", "own.toml", "-o", "out"], "own.safetensors: is damaged, cut short, or no .safetensors file")


def test_a_lora_that_is_not_there(refuses, home):
    with_lora(home)
    refuses(3, ["run", "own.toml", "-o", "out"], "own.safetensors: no such LoRA file", "mini:dpo, mini:spo")
    write_suite(home, '"mini:spo"', '"mini:sop"')
    refuses(3, ["run", "own.toml", "-o", "out"], "mini:sop", "dpo, spo")


# --- checkpoints ---------------------------------------------------------------------------


def copy_checkpoint(home):
    """The embedded pipeline as a folder ``model``, its files links, and a suite that names it."""
    shutil.copytree(pipeline_folder(), home / "model", copy_function=os.symlink)
    write_suite(home, '[variants.spo]\ncheckpoint = "mini"', '[variants.spo]\ncheckpoint = "model"')
    return home / "model"


def rewrite(path, data):
    path.unlink()
    path.write_bytes(data)


def cut(path):
    data = path.read_bytes()
    rewrite(path, data[: len(data) // 2])


def pickle_only(folder):
    (folder / "diffusion_pytorch_model.safetensors").rename(folder / "diffusion_pytorch_model.bin")


CHECKPOINTS = {
    "without model_index.json": (lambda model: (model / "model_index.json").unlink(), ["model_index.json is missing"]),
    "with a broken index": (lambda model: rewrite(model / "model_index.json", b"{"), ["model_index.json"]),
    "of a list": (lambda model: rewrite(model / "model_index.json", b"[]"), ["model_index.json"]),
    "of another family": (
        lambda model: rewrite(model / "model_index.json", b'{"_class_name": "FluxPipeline"}'),
        ["holds a FluxPipeline", "StableDiffusionXLPipeline"],
    ),
    "with a cut UNet": (
        lambda model: cut(model / "unet" / "diffusion_pytorch_model.safetensors"),
        ["diffusion_pytorch_model.safetensors: is damaged, cut short"],
    ),
    "with a cut text encoder": (
        lambda model: cut(model / "text_encoder_2" / "model.safetensors"),
        ["model.safetensors: is damaged, cut short"],
    ),
    "without a VAE": (lambda model: shutil.rmtree(model / "vae"), ["vae", "holds no .safetensors weights for vae"]),
    "of pickles": (lambda model: pickle_only(model / "unet"), ["pickled weights are not read", "safe_serialization"]),
}


@pytest.mark.parametrize("case", CHECKPOINTS)
def test_a_checkpoint_folder(case, refuses, home):
    damage, words = CHECKPOINTS[case]
    damage(copy_checkpoint(home))
    refuses(3, ["run", "own.toml", "-o", "out"], home / "model", *words)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("./gone", ["./gone: no such folder"]),
        ("mimi", ["mimi: no such folder", "did you mean 'mini'"]),
        ("gone.safetensors", ["gone.safetensors", "single files are not read", "from_single_file"]),
        ("old.ckpt", ["old.ckpt", "single files are not read", "from_single_file"]),
    ],
)
def test_a_checkpoint_that_is_no_folder(name, words, refuses, home):
    (home / "old.ckpt").write_bytes(b"\x80\x02}q\x00.")
    for field in ("checkpoint", 'checkpoint = "mini"\nvae', 'checkpoint = "mini"\nunet'):
        write_suite(home, 'checkpoint = "mini"', f'{field} = "{name}"')
        refuses(3, ["run", "own.toml", "-o", "out"], *words)


def test_a_hub_id_that_cannot_be_downloaded(refuses, home, monkeypatch):
    def offline(repository, **_):
        raise LocalEntryNotFoundError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda repository, file, **_: offline(repository))
    write_suite(home, 'checkpoint = "mini"', 'checkpoint = "nobody/no-such-model"')
    refuses(3, ["run", "own.toml", "-o", "out"], "nobody/no-such-model", "could not be downloaded", "--weights-dir")
    write_suite(home, '"mini:spo"', '"nobody/no-such-lora:x.safetensors"')
    refuses(3, ["run", "own.toml", "-o", "out"], "nobody/no-such-lora:x.safetensors", "hf download")


def change(path, **fields):
    rewrite(path, json.dumps({**json.loads(path.read_text("utf-8")), **fields}).encode())


CONFIGS = {
    "no JSON": lambda model: rewrite(model / "unet" / "config.json", b"{"),
    "other widths": lambda model: change(model / "vae" / "config.json", block_out_channels=[8, 8, 8, 8]),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_checkpoint_whose_weights_and_configuration_differ(case, home, cli):
    # Only the loading finds this out: the run has begun, but nothing was rendered of it.
    CONFIGS[case](copy_checkpoint(home))
    answer = cli("run", "own.toml", "-o", "out", "--variants", "spo", "--device", "cpu", "--quiet")
    assert answer.code == 3, answer.err
    assert "Traceback" not in answer.err
    assert f"{home / 'model'}: could not be loaded as StableDiffusionXLPipeline" in answer.err
    assert len(answer.err.splitlines()) == 2
    assert [path.name for path in (home / "out").iterdir()] == ["run.json"]
    assert load_run(home / "out").info.status == "started"


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
schema = 1
name = "hostile"
prompts = ["hostile.jsonl"]
metrics = ["mini-clip", "saturation"]
[settings]
width = 64
height = 64
steps = 2
guidance = 3.0
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
    monkeypatch.setattr(bench.run, "measure", functools.partial(measure, command=tiny.TIMER))
    lines = [
        json.dumps({"id": name, "prompt": text, "negative": text, "tags": ["<b>tag</b>"]})
        for name, text in HOSTILE.items()
    ]
    Path("hostile.jsonl").write_text("\n".join(lines), encoding="utf-8")
    Path("hostile.toml").write_text(HOSTILE_SUITE, encoding="utf-8")
    answer = cli("run", "hostile.toml", "-o", "out", "--device", "cpu")
    assert answer.code == 0, answer.err
    run = load_run("out")
    assert {one.case: one.error for one in run.renders} == dict.fromkeys(HOSTILE)
    assert {one.metric for one in run.scores if one.value is not None} == {"mini-clip", "saturation"}
    assert {case.id: case.prompt for case in run.info.suite.cases} == HOSTILE
    page, note = ((home / "out" / name).read_text("utf-8") for name in ("report.html", "report.md"))
    assert "<img src=x" not in page + note
    assert "<b>tag</b>" not in page + note
    again = cli("compare", "out", "--json")
    assert (again.code, again.err) == (0, "")
