"""Suites: what a file means, its digest and seeds, and how a bad one is refused."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import suite as room
from bench.errors import IncomparableError, SuiteError, UsageError
from bench.prompt_files import read_prompts
from bench.records import Case, Lora, Plan, Suite
from bench.suite import (
    image_seed,
    list_prompt_sets,
    list_suites,
    load_suite,
    plan_cells,
    prompts_folder,
    protocol_digest,
)

GOOD = """\
schema = 1
name = "own"
prompts = ["own.jsonl"]
samples = 2
seed = 7
metrics = ["mini-aesthetic", "saturation"]

[settings]
width = 64
height = 96
steps = 20
guidance = 5
sampler = "ddim"
batch = 3
eta = 0.5

[variants.base]
checkpoint = "mini"

[variants.spo]
checkpoint = "mini"
loras = [{ path = "mini:spo", weight = 0.5 }]

[limits]
mini-aesthetic = "0.1sd"
end_to_end = "5% floor 20ms"
peak_allocated = "3%"

[measure]
rounds = 3
images = 4
"""
PROMPTS = '{"id":"a","prompt":"a fox","tags":["animal"]}\n{"id":"b","prompt":"a pier","negative":"blur"}\n'
METRICS = ("mini-aesthetic", "mini-clip", "saturation")


@pytest.fixture
def suite_file(tmp_path: Path) -> Path:
    (tmp_path / "own.jsonl").write_text(PROMPTS, encoding="utf-8")
    path = tmp_path / "own.toml"
    path.write_text(GOOD, encoding="utf-8")
    return path


def edited(path: Path, old: str, new: str) -> str:
    assert old in GOOD
    path.write_text(GOOD.replace(old, new, 1), encoding="utf-8")
    return str(path)


# --- what a file means ---------------------------------------------------------------------


def test_a_suite_file_gives_every_field(suite_file: Path) -> None:
    suite = load_suite(str(suite_file), known_metrics=METRICS)
    assert suite.source == str(suite_file)
    assert [case.id for case in suite.cases] == ["a", "b"]
    assert (suite.samples, suite.seed, suite.limit) == (2, 7, None)
    assert (suite.settings.guidance, suite.settings.eta, suite.settings.dtype) == (5.0, 0.5, "float32")
    assert [variant.name for variant in suite.variants] == ["base", "spo"]
    assert suite.variants[1].loras == (Lora(path="mini:spo", weight=0.5),)
    assert suite.limits == {"mini-aesthetic": "0.1sd", "end_to_end": "5% floor 20ms", "peak_allocated": "3%"}
    assert suite.measure == Plan(rounds=3, images=4, warmups=1)


def test_limit_keeps_the_first_cases_and_is_another_protocol(suite_file: Path) -> None:
    whole, one = load_suite(str(suite_file)), load_suite(str(suite_file), limit=1)
    assert one.cases == whole.cases[:1]
    assert one.limit == 1
    assert protocol_digest(one) != protocol_digest(whole)
    assert load_suite(str(suite_file), limit=2) == whole  # cuts nothing off: no limited suite
    with pytest.raises(UsageError, match="--limit is 0"):
        load_suite(str(suite_file), limit=0)


def test_paths_beside_the_suite_become_absolute_and_nothing_else(
    suite_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("mini", "own.safetensors", "vae"):
        (tmp_path / name).mkdir()
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "merge.safetensors").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "home")
    edited(
        suite_file,
        'checkpoint = "mini"\n',
        'checkpoint = "own.safetensors"\nvae = "./vae"\nunet = "stabilityai/sdxl"\n'
        '[variants.hub]\ncheckpoint = "stabilityai/sdxl"\n[variants.shape]\ncheckpoint = "random:sdxl"\n'
        '[variants.hot]\ncheckpoint = "~/merge.safetensors"\n',
    )
    base, hub, shape, hot, spo = load_suite("../own.toml").variants
    assert base.checkpoint == str(tmp_path / "own.safetensors")
    assert (base.vae, base.unet) == (str(tmp_path / "vae"), "stabilityai/sdxl")
    assert (hub.checkpoint, shape.checkpoint) == ("stabilityai/sdxl", "random:sdxl")
    assert hot.checkpoint == str(tmp_path / "home" / "merge.safetensors")
    assert (spo.checkpoint, spo.loras[0].path) == ("mini", "mini:spo")  # not the folder "mini" beside it


def test_prompts_lie_beside_the_suite_before_the_shipped_sets(
    suite_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = tmp_path / "shipped"
    shipped.mkdir()
    (shipped / "own.jsonl").write_text('{"id":"shipped","prompt":"x"}', encoding="utf-8")
    (shipped / "mini.toml").write_text(GOOD.replace('"own"', '"mini"'), encoding="utf-8")
    monkeypatch.setattr(room, "prompts_folder", lambda: shipped)
    assert [case.id for case in load_suite(str(suite_file)).cases] == ["a", "b"]
    assert [case.id for case in load_suite("mini").cases] == ["shipped"]
    (tmp_path / "own.jsonl").unlink()
    assert [case.id for case in load_suite(str(suite_file)).cases] == ["shipped"]
    assert list_suites() == ("mini",)
    assert list_prompt_sets() == ("own.jsonl",)


@pytest.mark.parametrize("name", list_suites())
def test_shipped_suites_load(name: str) -> None:
    suite = load_suite(name)
    assert suite.name == name
    assert len(plan_cells(suite)) == len(suite.cases) * suite.samples


@pytest.mark.parametrize("name", list_prompt_sets())
def test_shipped_prompt_sets_load(name: str) -> None:
    assert read_prompts(prompts_folder() / name)


# --- digest, seeds, cells ------------------------------------------------------------------


def test_the_digest_is_the_documented_one(suite_file: Path) -> None:
    facts = (
        '{"cases":[["a","a fox",""],["b","a pier","blur"]],"samples":2,"schema":1,"seed":7,"settings":'
        '{"batch":3,"compile":false,"dtype":"float32","eta":0.5,"guidance":5.0,"height":96,"sampler":"ddim",'
        '"steps":20,"vae_tiling":false,"width":64}}'
    )
    assert protocol_digest(load_suite(str(suite_file))) == hashlib.sha256(facts.encode()).hexdigest()


def test_only_the_protocol_changes_the_digest(suite_file: Path) -> None:
    suite = load_suite(str(suite_file))
    replace = msgspec.structs.replace
    same = [
        replace(suite, name="x", variants=(), metrics=(), limits={}, measure=Plan(), source="y"),
        replace(suite, cases=tuple(replace(case, tags=("t",), probes="p") for case in suite.cases)),
        replace(suite, settings=replace(suite.settings, guidance=5)),
        msgspec.json.decode(msgspec.json.encode(suite), type=Suite),
    ]
    other = [
        replace(suite, samples=3),
        replace(suite, seed=8),
        replace(suite, cases=suite.cases[::-1]),
        replace(suite, cases=(replace(suite.cases[0], prompt="a föx"), suite.cases[1])),
        replace(suite, cases=(replace(suite.cases[0], negative="blur"), suite.cases[1])),
        *(
            replace(suite, settings=replace(suite.settings, **change))
            for change in ({"batch": 4}, {"steps": 21}, {"dtype": "float16"}, {"compile": True}, {"eta": 0.0})
        ),
    ]
    digest = protocol_digest(suite)
    assert {protocol_digest(item) for item in same} == {digest}
    assert len({protocol_digest(item) for item in other} | {digest}) == len(other) + 1


@given(seed=st.integers(0, 2**63 - 1), case=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]*", fullmatch=True))
@settings(max_examples=50, deadline=None)
def test_image_seed_is_the_documented_hash(seed: int, case: str) -> None:
    digest = hashlib.sha256(b"%d\n%s\n3" % (seed, case.encode())).hexdigest()
    assert image_seed(seed, case, 3) == int(digest[:16], 16) % 2**63


def test_image_seed_never_changes() -> None:
    # From sha256sum on the command line.
    assert image_seed(0, "portrait-01", 0) == 3650154171876601154
    assert image_seed(2**63 - 1, "a", 9999) == 3105332299950408241


def test_cells_run_case_by_case_in_planned_batches(suite_file: Path) -> None:
    suite = load_suite(str(suite_file))
    cells = plan_cells(suite)
    assert [(cell.case, cell.sample, cell.batch) for cell in cells] == [
        ("a", 0, 0),
        ("a", 1, 0),
        ("b", 0, 0),
        ("b", 1, 1),
    ]
    assert [cell.seed for cell in cells] == [image_seed(7, cell.case, cell.sample) for cell in cells]
    assert len({cell.seed for cell in cells}) == 4


def test_an_image_keeps_its_seed_when_cases_come_and_go(suite_file: Path) -> None:
    suite = load_suite(str(suite_file))
    more = msgspec.structs.replace(suite, cases=(Case(id="new", prompt="x"), *suite.cases[::-1]))
    seeds = {(cell.case, cell.sample): cell.seed for cell in plan_cells(more)}
    assert all(seeds[cell.case, cell.sample] == cell.seed for cell in plan_cells(suite))


# --- refusals ------------------------------------------------------------------------------

BAD = {
    "doubled field": ("samples = 2", "samples = 2\nsamples = 3", "is no TOML: Cannot overwrite a value"),
    "doubled table": ("[limits]", "[settings]\n[limits]", "is no TOML: Cannot declare"),
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
    "unknown in measure": ("rounds = 3", "round = 3", "unknown field measure.round (did you mean 'rounds'?)"),
    "no schema": ("schema = 1\n", "", "the field schema is missing; a suite file begins with schema = 1"),
    "text schema": ("schema = 1", 'schema = "1"', "the field schema is '1'"),
    "true schema": ("schema = 1", "schema = true", "the field schema is True"),
    "no prompts": ('prompts = ["own.jsonl"]\n', "", "missing field prompts"),
    "no steps": ("steps = 20\n", "", "settings: missing field steps"),
    "text steps": ("steps = 20", 'steps = "20"', "settings.steps: expected int, got str"),
    "half steps": ("steps = 20", "steps = 20.0", "settings.steps: expected int, got float"),
    "true steps": ("steps = 20", "steps = true", "settings.steps: expected int, got bool"),
    "0 steps": ("steps = 20", "steps = 0", "settings.steps is 0; allowed is 1 to 1000"),
    "1001 steps": ("steps = 20", "steps = 1001", "settings.steps is 1001"),
    "NaN guidance": ("guidance = 5", "guidance = nan", "settings.guidance is nan; allowed is 0 to 100"),
    "infinite guidance": ("guidance = 5", "guidance = inf", "settings.guidance is inf"),
    "endless guidance": ("guidance = 5", "guidance = 1" + "0" * 400, "settings.guidance"),
    "negative guidance": ("guidance = 5", "guidance = -0.5", "settings.guidance is -0.5"),
    "width 63": ("width = 64", "width = 63", "settings.width is 63; it must be a multiple of 8, such as 64"),
    "width 10^7": ("width = 64", "width = 10_000_000", "settings.width is 10000000; allowed is 8 to 8192"),
    "height 0": ("height = 96", "height = 0", "settings.height is 0"),
    "negative seed": ("seed = 7", "seed = -1", "seed is -1; allowed is 0 to 9223372036854775807"),
    "huge seed": ("seed = 7", "seed = 9223372036854775808", "seed is 9223372036854775808"),
    "0 samples": ("samples = 2", "samples = 0", "samples is 0; allowed is 1 to 10000"),
    "negative batch": ("batch = 3", "batch = -3", "settings.batch is -3; allowed is 1 to 1024"),
    "eta 2": ("eta = 0.5", "eta = 2", "settings.eta is 2.0; allowed is 0 to 1"),
    "eta without ddim": ('"ddim"', '"euler"', "only the sampler ddim has an eta, not euler"),
    "sampler": (
        '"ddim"',
        '"DDIMM"',
        "settings.sampler is 'DDIMM' (did you mean 'ddim'?); allowed are ddim, ddpm",
    ),
    "dtype": ("batch = 3", 'dtype = "fp16"', "settings.dtype is 'fp16'"),
    "rounds": ("rounds = 3", "rounds = 0", "measure.rounds is 0; allowed is 1 to 1000"),
    "warmups": ("rounds = 3", "warmups = 101", "measure.warmups is 101; allowed is 0 to 100"),
    "bad name": ('name = "own"', 'name = "a/b"', "name is 'a/b'; a suite's name is 1 to 100"),
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
        "variants[...]: expected object",
    ),
    "no checkpoint": ('checkpoint = "mini"\n\n', "\n", "missing field checkpoint"),
    "empty checkpoint": ('"mini"', '""', "variants.base.checkpoint is empty"),
    "NaN lora weight": (
        "weight = 0.5",
        "weight = nan",
        "variants.spo.loras[0].weight is nan; it must be finite",
    ),
    "metric": ('"saturation"', '"saturatoin"', "unknown metric 'saturatoin' (did you mean 'saturation'?)"),
    "doubled metric": ('"saturation"', '"mini-aesthetic"', "metrics names 'mini-aesthetic' twice"),
    "doubled prompts": ('["own.jsonl"]', '["own.jsonl", "own.jsonl"]', "prompts names 'own.jsonl' twice"),
    "empty prompts": ('["own.jsonl"]', "[]", "prompts is empty"),
    "missing prompts": ('"own.jsonl"', '"onw.jsonl"', "'onw.jsonl' lies neither beside the suite nor among"),
    "limit number": ('"0.1sd"', "0.1", "limits[...]: expected str, got float"),
    "limit syntax": ('"0.1sd"', '"a bit"', "limits.mini-aesthetic is 'a bit'; a limit is a number"),
    "limit negative": ('"0.1sd"', '"-0.1"', "limits.mini-aesthetic is '-0.1'"),
    "limit name": (
        "end_to_end",
        "end_to_emd",
        "limits.end_to_emd is neither a metric of this suite nor a timing",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_suite_is_refused_in_a_sentence(case: str, suite_file: Path) -> None:
    old, new, sentence = BAD[case]
    with pytest.raises(SuiteError) as caught:
        load_suite(edited(suite_file, old, new), known_metrics=METRICS)
    assert sentence in caught.value.message
    assert str(suite_file) in caught.value.message


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "the field schema is missing"),
        (b"\x00\x01\x02", "zero bytes"),
        (b"schema = 1\nname = '\xff'", ":2: is not UTF-8"),
        (b"{}", "is no TOML"),
        (b"x = " + b"[" * 100_000, "is no TOML"),
    ],
)
def test_a_file_that_is_no_suite_is_refused(content: bytes, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    with pytest.raises(SuiteError, match=sentence):
        load_suite(str(path))


def test_no_variants_and_a_newer_schema(suite_file: Path) -> None:
    suite_file.write_text("schema = 2\nfuture = true\n", encoding="utf-8")
    with pytest.raises(
        IncomparableError, match="has schema 2; this hotart-bench knows suites up to schema 1"
    ):
        load_suite(str(suite_file))
    cut = GOOD[: GOOD.index("[variants.base]")]
    suite_file.write_text(cut + "[variants]\n", encoding="utf-8")
    with pytest.raises(SuiteError, match="there is no variant"):
        load_suite(str(suite_file))


def test_a_doubled_id_across_prompt_files_names_both_lines(suite_file: Path, tmp_path: Path) -> None:
    (tmp_path / "more.jsonl").write_text(
        '{"id":"c","prompt":"x"}\n{"id":"B","prompt":"y"}\n', encoding="utf-8"
    )
    with pytest.raises(SuiteError, match=r"more\.jsonl:2.*own\.jsonl:2"):
        load_suite(edited(suite_file, '["own.jsonl"]', '["own.jsonl", "more.jsonl"]'))


def test_an_unknown_suite_names_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sdxl-paper.toml").touch()
    (tmp_path / "notes.md").touch()
    monkeypatch.setattr(room, "prompts_folder", lambda: tmp_path)
    with pytest.raises(
        SuiteError, match=r"neither a shipped suite \(sdxl-paper\).*did you mean 'sdxl-paper'"
    ) as caught:
        load_suite("sdxl-papr")
    assert caught.value.hint == "hotart-bench list suites"
    with pytest.raises(SuiteError, match=r"gone\.toml: there is no such file"):
        load_suite("gone.toml")
    with pytest.raises(SuiteError, match=r"a suite file ends in \.toml"):
        load_suite(str(tmp_path / "notes.md"))
    with pytest.raises(SuiteError, match="neither a shipped suite"):
        load_suite("x" * 5000)


@given(value=st.floats() | st.integers(-(2**70), 2**70))
@settings(max_examples=60, deadline=None)
def test_guidance_is_taken_exactly_in_its_range(
    value: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("g")
    (folder / "own.jsonl").write_text(PROMPTS, encoding="utf-8")
    path = folder / "own.toml"
    path.write_text(GOOD.replace("guidance = 5", f"guidance = {value}"), encoding="utf-8")
    if 0 <= value <= 100:
        assert load_suite(str(path)).settings.guidance == value
    else:
        with pytest.raises(SuiteError, match=r"settings\.guidance"):
            load_suite(str(path))
