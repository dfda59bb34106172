"""Suite files that are refused: each with file, field, what is allowed, and the nearest match."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from suites import GOOD, METRICS, write_suite

from bench.errors import IncomparableError, SuiteError, UsageError
from bench.measure import open_jobs
from bench.run import run_stage
from bench.suite import load_suite

BAD = {
    "doubled field": ("samples = 2", "samples = 2\nsamples = 3", "is not valid TOML: Cannot overwrite a value"),
    "doubled table": ("[limits]", "[settings]\n[limits]", "is not valid TOML: Cannot declare"),
    "unknown field": (
        "samples = 2",
        "sample = 2",
        "unknown field sample (did you mean 'samples'?); at the top",
    ),
    "unknown setting": ("steps = 20", "stpes = 20", "unknown field settings.stpes (did you mean 'steps'?)"),
    "unknown in a variant": (
        'checkpoint = "mini"',
        'chekpoint = "mini"',
        "unknown field variants.base.chekpoint",
    ),
    "unknown in a lora": (
        "weight = 0.5",
        "wieght = 0.5",
        "variants.spo.loras[0].wieght (did you mean 'weight'?)",
    ),
    "unknown in what a lora leaves out": (
        "weight = 0.5",
        'leave_out = ["bundle_embs"]',
        "variants.spo.loras[0].leave_out[0] is 'bundle_embs' (did you mean 'bundle_emb'?)",
    ),
    "unknown in measure": ("rounds = 3", "round = 3", "unknown field measure.round (did you mean 'rounds'?)"),
    "no schema": ("schema = 2\n", "", "the field schema is missing; suites have schema = 2"),
    "text schema": ("schema = 2", 'schema = "1"', "the field schema is '1'"),
    "true schema": ("schema = 2", "schema = true", "the field schema is True"),
    "no prompts": ('prompts = ["own.jsonl"]\n', "", "missing field prompts"),
    "no steps": ("steps = 20\n", "", "settings: missing field steps"),
    "text steps": ("steps = 20", 'steps = "20"', "settings.steps: expected int, got str"),
    "half steps": ("steps = 20", "steps = 20.0", "settings.steps: expected int, got float"),
    "true steps": ("steps = 20", "steps = true", "settings.steps: expected int, got bool"),
    "0 steps": ("steps = 20", "steps = 0", "settings.steps is 0; allowed is 1 to 499"),
    "1001 steps": ("steps = 20", "steps = 1001", "settings.steps is 1001"),
    "NaN guidance": (
        "guidance_scale = 5",
        "guidance_scale = nan",
        "guidance_scale is nan; allowed is 0 to 100",
    ),
    "infinite guidance": ("guidance_scale = 5", "guidance_scale = inf", "settings.guidance_scale is inf"),
    "endless guidance": ("guidance_scale = 5", "guidance_scale = 1" + "0" * 400, "settings.guidance_scale"),
    "negative guidance": ("guidance_scale = 5", "guidance_scale = -0.5", "settings.guidance_scale is -0.5"),
    "width 63": ("width = 64", "width = 63", "settings.width is 63; it must be a multiple of 8, such as 64"),
    "width 10^7": ("width = 64", "width = 10_000_000", "settings.width is 10000000; allowed is 8 to 8192"),
    "height 0": ("height = 96", "height = 0", "settings.height is 0"),
    "negative seed": ("seed = 7", "seed = -1", "seed is -1; allowed is 0 to 9223372036854775807"),
    "huge seed": ("seed = 7", "seed = 9223372036854775808", "seed is 9223372036854775808"),
    "0 samples": ("samples = 2", "samples = 0", "samples is 0; allowed is 1 to 10000"),
    "negative batch": ("batch = 3", "batch = -3", "settings.batch is -3; allowed is 1 to 1024"),
    "eta 2": ("eta = 0.5", "eta = 2", "settings.eta is 2.0; allowed is 0 to 1"),
    "eta without ddim": ('"ddim"', '"euler"', "only the samplers ddim and tcd have an eta, not euler"),
    "sampler": (
        '"ddim"',
        '"DDIMM"',
        "settings.sampler is 'DDIMM' (did you mean 'ddim'?); allowed are ddim, ddpm",
    ),
    "dtype": ("batch = 3", 'dtype = "fp16"', "settings.dtype is 'fp16'"),
    "compile": ("batch = 3", 'compile = "wole"', "settings.compile is 'wole' (did you mean 'whole'?); allowed are"),
    "rounds": ("rounds = 3", "rounds = -1", "measure.rounds is -1; allowed is 0 to 1000"),
    "limit without rounds": ("rounds = 3", "rounds = 0", "limits.end_to_end is set, but nothing is timed"),
    "warmups": ("rounds = 3", "warmups = 101", "measure.warmups is 101; allowed is 0 to 100"),
    "bad name": ('name = "own"', 'name = "a/b"', "name is 'a/b'; a suite's name is 1 to 100"),
    "endless name": ('"own"', '"' + "n" * 1_000_000 + '"', f"name is '{'n' * 59}…'; a suite's name is 1 to 100"),
    "variant ..": ("[variants.base]", '[variants."a..b"]', "the variant name 'a..b' will not do"),
    "variant /": ("[variants.base]", '[variants."a/b"]', "the variant name 'a/b' will not do"),
    "variant of nothing": ("[variants.base]", '[variants.""]', "the variant name '' will not do"),
    "variant NUL": ("[variants.base]", "[variants.NUL]", "the variant name 'NUL' will not do"),
    "variant with newline": (
        "[variants.base]",
        '[variants."base\\n"]',
        r"the variant name 'base\n' will not do",
    ),
    "variants by case": ("[variants.base]", "[variants.SPO]", "'SPO' and 'spo' differ only in case"),
    "variant no table": (
        "[variants.base]",
        "[variants]\nbase = 3\n[variants.b]",
        "variants.base is 3; a variant is a table with a checkpoint",
    ),
    "variants are a list": ("[variants.base]", 'variants = ["base"]\n[other]', "unknown field other"),
    "text to keep": ("samples = 2", 'keep_training_prompts = "yes"', "keep_training_prompts: expected bool, got str"),
    "prompts are a text": ('["own.jsonl"]', '"own.jsonl"', "prompts: expected array, got str"),
    "a schedule that the sampler cannot follow": (
        "eta = 0.5",
        'schedule = "karras"',
        "cannot follow the schedule karras",
    ),
    "no checkpoint": ('checkpoint = "mini"\n\n', "\n", "missing field checkpoint"),
    "empty checkpoint": ('"mini"', '""', "variants.base.checkpoint is empty"),
    "NaN lora weight": (
        "weight = 0.5",
        "weight = nan",
        "variants.spo.loras[0].weight is nan; it must be a number from -1000 to 1000",
    ),
    "metric": ('"saturation"', '"saturatoin"', "unknown metric 'saturatoin' (did you mean 'saturation'?)"),
    "doubled metric": ('"saturation"', '"mini-aesthetic"', "metrics names 'mini-aesthetic' twice"),
    "doubled prompts": ('["own.jsonl"]', '["own.jsonl", "own.jsonl"]', "prompts names 'own.jsonl' twice"),
    "empty prompts": ('["own.jsonl"]', "[]", "prompts is empty"),
    "missing prompts": ('"own.jsonl"', '"onw.jsonl"', "'onw.jsonl' lies neither beside the suite nor among"),
    "limit compile": ("[limits]", '[limits]\ncompile = "5%"', "but nothing is compiled"),
    "limit joules": ('"0.1sd"', '"0.1sd"\nenergy_per_image = "20ms"', 'allowed are "5%" or "20J"'),
    "limit number": ('"0.1sd"', "0.1", "limits.mini-aesthetic is 0.1; a limit is a text"),
    "limit syntax": ('"0.1sd"', '"a bit"', "limits.mini-aesthetic is 'a bit'; a limit is a number"),
    "limit negative": ('"0.1sd"', '"-0"', "limits.mini-aesthetic is '-0'"),
    "limit name": (
        "end_to_end",
        "end_to_emd",
        "limits.end_to_emd is neither a metric of this suite nor a timing",
    ),
}


@pytest.mark.parametrize("prompt_id", BAD)
def test_a_bad_suite_is_refused_in_a_sentence(prompt_id: str, tmp_path: Path) -> None:
    old, new, sentence = BAD[prompt_id]
    path = write_suite(tmp_path, old, new)
    with pytest.raises(SuiteError) as caught:
        load_suite(str(path), known_metrics=METRICS)
    assert sentence in caught.value.message
    assert str(path) in caught.value.message


def test_a_suite_may_leave_timing_out(tmp_path: Path) -> None:
    text = re.sub(r"(?m)^(end_to_end|peak_allocated) = .*\n", "", GOOD.replace("rounds = 3", "rounds = 0"))
    path = write_suite(tmp_path)
    path.write_text(text, encoding="utf-8")
    suite = load_suite(str(path), known_metrics=METRICS)
    assert suite.measure.rounds == 0
    assert open_jobs(suite, suite.variants, (), "cpu") == ()
    with pytest.raises(UsageError, match="leaves timing out"):
        run_stage("measure", suite, tmp_path / "run")
    assert not (tmp_path / "run").exists()


PATHS = {
    r'checkpoint = "C:\models\x.safetensors"': "is not valid TOML",
    r'checkpoint = "C:\Users\me\x.safetensors"': "is not valid TOML",
    r'checkpoint = "C:\temp\new.safetensors"': r"variants.base.checkpoint holds a control character, written as \t",
    r'checkpoint = "models\robin"': r"variants.base.checkpoint holds a control character, written as \r",
    r'checkpoint = "mini"' + "\n" + r'vae = "\\server\new.vae"': r"variants.base.vae holds a control character",
    r'checkpoint = "mini"' + "\n" + r'loras = [{path = "a"}, {path = "D:\fast"}]': r"variants.base.loras.1.path holds",
}


@pytest.mark.parametrize("line", PATHS)
def test_a_windows_path_in_double_quotes_is_refused_with_the_way_to_write_it(line: str, tmp_path: Path) -> None:
    with pytest.raises(SuiteError) as caught:
        load_suite(str(write_suite(tmp_path, 'checkpoint = "mini"', line)))
    assert PATHS[line] in caught.value.message
    assert r"as 'C:\models\x.safetensors'" in caught.value.hint


@pytest.mark.parametrize("path", [r"'C:\temp\x.safetensors'", r'"C:\\temp\\x.safetensors"', '"C:/temp/x.safetensors"'])
def test_a_windows_path_in_single_quotes_or_with_other_slashes_is_taken(path: str, tmp_path: Path) -> None:
    suite = load_suite(str(write_suite(tmp_path, '"mini"', path)))
    assert suite.variants[0].checkpoint.replace("/", "\\") == r"C:\temp\x.safetensors"


def test_a_mistake_elsewhere_in_a_file_with_escapes_says_nothing_of_paths(tmp_path: Path) -> None:
    with pytest.raises(SuiteError) as caught:
        load_suite(str(write_suite(tmp_path, 'name = "own"', r'name = "a\"b\u0041" x')))
    assert caught.value.hint == ""


def test_every_value_that_cannot_be_is_named_at_once(tmp_path: Path) -> None:
    path = write_suite(tmp_path, "steps = 20\nguidance_scale = 5", "steps = 0\nguidance_scale = nan")
    with pytest.raises(SuiteError) as caught:
        load_suite(str(path))
    assert caught.value.message == (
        f"{path}: settings.steps is 0; allowed is 1 to 499. Also: settings.guidance_scale is nan; allowed is 0 to 100."
    )


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "the field schema is missing"),
        (b"\x00\x01\x02", "zero bytes"),
        (b"schema = 2\nname = '\xff'", ":2: is not UTF-8"),
        (b"{}", "is not valid TOML"),
        (b"x = " + b"[" * 100_000, "is not valid TOML"),
    ],
)
def test_a_file_that_is_no_suite_is_refused(content: bytes, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    with pytest.raises(SuiteError, match=sentence):
        load_suite(str(path))


def test_no_variants_and_a_newer_schema(tmp_path: Path) -> None:
    suite_file = write_suite(tmp_path)
    suite_file.write_text("schema = 3\nfuture = true\n", encoding="utf-8")
    with pytest.raises(IncomparableError, match="has schema 3; this hotart-bench reads suites of schema 2 only"):
        load_suite(str(suite_file))
    cut = GOOD[: GOOD.index("[variants.base]")]
    suite_file.write_text(cut + "[variants]\n", encoding="utf-8")
    with pytest.raises(SuiteError, match="there is no variant"):
        load_suite(str(suite_file))


OLD = GOOD.replace("schema = 2", "schema = 1").replace("guidance_scale", "guidance").replace("eta = 0.5\n", "")


@pytest.mark.parametrize(
    ("sampler", "more"),
    [
        ("ddim", ""),
        ("dpmpp_2m_karras", ' and sampler = "dpmpp_2m" with schedule = "karras" for sampler = "dpmpp_2m_karras"'),
        (
            "dpmpp_2m_sde_karras",
            ' and sampler = "dpmpp_2m_sde" with schedule = "karras" for sampler = "dpmpp_2m_sde_karras"',
        ),
    ],
)
def test_a_suite_of_schema_1_is_refused_with_the_words_to_change(sampler: str, more: str, tmp_path: Path) -> None:
    path = write_suite(tmp_path)
    path.write_text(OLD.replace("ddim", sampler), encoding="utf-8")
    with pytest.raises(IncomparableError, match="has schema 1; this hotart-bench reads suites of schema 2") as caught:
        load_suite(str(path))
    comma = "," if more else " and"
    assert caught.value.hint == f"write schema = 2{comma} guidance_scale for guidance{more}"
    changed = OLD.replace("schema = 1", "schema = 2").replace("guidance =", "guidance_scale =")
    new = f'{sampler.removesuffix("_karras")}"\nschedule = "karras' if more else sampler
    path.write_text(changed.replace("ddim", new), encoding="utf-8")
    loaded = load_suite(str(path)).settings
    assert (loaded.guidance_scale, loaded.sampler) == (5.0, sampler.removesuffix("_karras"))
    assert loaded.schedule == ("karras" if more else "leading")


def test_an_old_word_in_a_new_suite_is_refused_with_the_new_one(tmp_path: Path) -> None:
    path = write_suite(tmp_path, 'sampler = "ddim"', 'sampler = "dpmpp_2m_karras"')
    with pytest.raises(SuiteError, match=r"settings\.sampler is 'dpmpp_2m_karras'") as caught:
        load_suite(str(path))
    assert 'sampler = "dpmpp_2m" with schedule = "karras"' in caught.value.hint
    with pytest.raises(SuiteError, match=r"unknown field settings\.guidance \(did you mean 'guidance_scale'\?\)"):
        load_suite(str(write_suite(tmp_path, "guidance_scale", "guidance")))


def test_a_doubled_id_across_prompt_files_names_both_lines(tmp_path: Path) -> None:
    (tmp_path / "more.jsonl").write_text('{"id":"c","prompt":"x"}\n{"id":"B","prompt":"y"}\n', encoding="utf-8")
    with pytest.raises(SuiteError, match=r"more\.jsonl:2.*own\.jsonl:2"):
        load_suite(str(write_suite(tmp_path, '["own.jsonl"]', '["own.jsonl", "more.jsonl"]')))


@given(value=st.floats() | st.integers(-(2**70), 2**70))
@settings(max_examples=30, deadline=None)
def test_guidance_is_taken_exactly_in_its_range(value: float, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = write_suite(tmp_path_factory.mktemp("g"), "guidance_scale = 5", f"guidance_scale = {value}")
    if 0 <= value <= 100:
        assert load_suite(str(path)).settings.guidance_scale == value
    else:
        with pytest.raises(SuiteError, match=r"settings\.guidance_scale"):
            load_suite(str(path))
