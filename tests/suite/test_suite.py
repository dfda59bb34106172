"""Suites: what a file means, its protocol digest, and the images and seeds it stands for."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from suites import GOOD, METRICS, write_suite

from bench.errors import SuiteError, UsageError
from bench.records import Lora, MeasurePlan, Prompt, Suite, TimingName
from bench.suite import (
    image_seed,
    list_prompt_sets,
    list_suites,
    load_suite,
    plan_images,
    prompt_files,
    prompts_folder,
    protocol_digest,
    read_prompts,
)


@pytest.fixture
def suite_file(tmp_path: Path) -> Path:
    return write_suite(tmp_path)


# --- what a file means ---------------------------------------------------------------------


def test_a_suite_file_gives_every_field(suite_file: Path) -> None:
    suite = load_suite(str(suite_file), known_metrics=METRICS)
    assert suite.source == str(suite_file)
    assert [prompt.id for prompt in suite.prompts] == ["a", "b"]
    assert (suite.samples, suite.seed, suite.limit) == (2, 7, None)
    assert (suite.settings.guidance_scale, suite.settings.eta, suite.settings.dtype) == (5.0, 0.5, "float32")
    assert [variant.name for variant in suite.variants] == ["base", "spo"]
    assert suite.variants[1].loras == (Lora(path="mini:spo", weight=0.5),)
    assert {limit.name: limit.text for limit in suite.limits} == {
        "mini-aesthetic": "0.1sd",
        "end_to_end": "5% floor 20ms",
        "peak_allocated": "3%",
    }
    assert suite.measure == MeasurePlan(rounds=3, images=4, warmups=1)


def test_limit_keeps_the_first_prompts_and_is_another_protocol(suite_file: Path) -> None:
    whole, one = load_suite(str(suite_file)), load_suite(str(suite_file), limit=1)
    assert one.prompts == whole.prompts[:1]
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
    write_suite(
        tmp_path,
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
    monkeypatch.setattr(prompt_files, "prompts_folder", lambda: shipped)
    assert [prompt.id for prompt in load_suite(str(suite_file)).prompts] == ["a", "b"]
    assert [prompt.id for prompt in load_suite("mini").prompts] == ["shipped"]
    (tmp_path / "own.jsonl").unlink()
    assert [prompt.id for prompt in load_suite(str(suite_file)).prompts] == ["shipped"]
    assert list_suites() == ("mini",)
    assert list_prompt_sets() == ("own.jsonl",)


@pytest.mark.parametrize("name", list_suites())
def test_no_shipped_suite_limits_what_a_gate_cannot_decide_without_a_calibration(name: str) -> None:
    limits = load_suite(name).limits
    assert limits
    assert not [one.name for one in limits if one.name in get_args(TimingName)]


@pytest.mark.parametrize("name", list_suites())
def test_shipped_suites_load(name: str) -> None:
    suite = load_suite(name)
    assert suite.name == name
    assert len(plan_images(suite)) == len(suite.prompts) * suite.samples


@pytest.mark.parametrize("name", list_prompt_sets())
def test_shipped_prompt_sets_load(name: str) -> None:
    assert read_prompts(prompts_folder() / name)


# --- digest, seeds, planned images ------------------------------------------------------------------


def test_the_digest_is_the_documented_one(suite_file: Path) -> None:
    facts = (
        '{"prompts":[["a","a fox",""],["b","a pier","blur"]],"samples":2,"schema":2,"seed":7,"settings":'
        '{"batch":3,"compile":false,"dtype":"float32","eta":0.5,"guidance_scale":5.0,"height":96,"sampler":"ddim",'
        '"schedule":"leading","steps":20,"vae_tiling":false,"width":64}}'
    )
    assert protocol_digest(load_suite(str(suite_file))) == hashlib.sha256(facts.encode()).hexdigest()


def test_only_the_protocol_changes_the_digest(suite_file: Path) -> None:
    suite = load_suite(str(suite_file))
    replace = msgspec.structs.replace
    same = [
        replace(suite, name="x", variants=(), metrics=(), limits=(), measure=MeasurePlan(), source="y"),
        replace(suite, prompts=tuple(replace(prompt, tags=("t",), probes="p") for prompt in suite.prompts)),
        replace(suite, settings=replace(suite.settings, guidance_scale=5)),
        msgspec.json.decode(msgspec.json.encode(suite), type=Suite),
    ]
    other = [
        replace(suite, samples=3),
        replace(suite, seed=8),
        replace(suite, prompts=suite.prompts[::-1]),
        replace(suite, prompts=(replace(suite.prompts[0], text="a föx"), suite.prompts[1])),
        replace(suite, prompts=(replace(suite.prompts[0], negative="blur"), suite.prompts[1])),
        *(
            replace(suite, settings=replace(suite.settings, **change))
            for change in (
                *({"batch": 4}, {"steps": 21}, {"dtype": "float16"}, {"eta": 0.0}),
                *({"compile": True}, {"compile": "whole"}, {"vae_slicing": True}),
            )
        ),
    ]
    digest = protocol_digest(suite)
    assert {protocol_digest(item) for item in same} == {digest}
    assert len({protocol_digest(item) for item in other} | {digest}) == len(other) + 1


def test_compiled_blocks_have_a_word_too(suite_file: Path) -> None:
    """``true`` and "blocks" are one protocol."""
    text = suite_file.read_text()
    read = {}
    for word in ("true", '"blocks"', '"whole"'):
        suite_file.write_text(text.replace("batch = 3", f"batch = 3\ncompile = {word}"))
        read[word] = load_suite(str(suite_file))
    assert [suite.settings.compile for suite in read.values()] == [True, True, "whole"]
    assert protocol_digest(read["true"]) == protocol_digest(read['"blocks"']) != protocol_digest(read['"whole"'])


@given(seed=st.integers(0, 2**63 - 1), prompt_id=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]*", fullmatch=True))
@settings(max_examples=50, deadline=None)
def test_image_seed_is_the_documented_hash(seed: int, prompt_id: str) -> None:
    digest = hashlib.sha256(b"%d\n%s\n3" % (seed, prompt_id.encode())).hexdigest()
    assert image_seed(seed, prompt_id, 3) == int(digest[:16], 16) % 2**63


def test_image_seed_never_changes() -> None:
    # From sha256sum on the command line.
    assert image_seed(0, "portrait-01", 0) == 3650154171876601154
    assert image_seed(2**63 - 1, "a", 9999) == 3105332299950408241


def test_images_are_planned_prompt_by_prompt_in_batches(suite_file: Path) -> None:
    suite = load_suite(str(suite_file))
    planned = plan_images(suite)
    assert [(image.prompt_id, image.sample, image.batch) for image in planned] == [
        ("a", 0, 0),
        ("a", 1, 0),
        ("b", 0, 0),
        ("b", 1, 1),
    ]
    assert [image.seed for image in planned] == [image_seed(7, image.prompt_id, image.sample) for image in planned]
    assert len({image.seed for image in planned}) == 4


def test_an_image_keeps_its_seed_when_prompts_come_and_go(suite_file: Path) -> None:
    suite = load_suite(str(suite_file))
    more = msgspec.structs.replace(suite, prompts=(Prompt(id="new", text="x"), *suite.prompts[::-1]))
    seeds = {(image.prompt_id, image.sample): image.seed for image in plan_images(more)}
    assert all(seeds[image.prompt_id, image.sample] == image.seed for image in plan_images(suite))


def test_an_unknown_suite_names_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sdxl-paper.toml").touch()
    (tmp_path / "notes.md").touch()
    monkeypatch.setattr(prompt_files, "prompts_folder", lambda: tmp_path)
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
