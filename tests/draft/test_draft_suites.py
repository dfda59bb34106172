"""The suites of ``init`` and ``quick``: their files are read back as they were made."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from bench.draft.make import (
    Draft,
    init_suite,
    make_draft,
    prompts_text,
    quick_name,
    quick_prompts,
    quick_suite,
    usable_metrics,
)
from bench.draft.sources import make_variants
from bench.draft.suite_text import suite_text, with_metrics
from bench.errors import UsageError
from bench.metrics import installed
from bench.records import Lora
from bench.suite import load_suite, prompts_folder, protocol_digest, read_prompts

FAMILIES = ("mini", "sdxl", "sd15")


def draft(family, *loras: Lora) -> Draft:
    return Draft(family, make_variants([r"C:\models\old v9.5.safetensors", "owner/name"], loras), ())


@pytest.mark.parametrize("family", FAMILIES)
def test_an_init_suite_is_the_shipped_one_with_other_variants(family, tmp_path):
    made = init_suite(draft(family, Lora(r"C:\x's.safetensors", 0.8)), "my suite!")
    path = tmp_path / "my.toml"
    path.write_text(suite_text(made, tmp_path, ["A heading."]), "utf-8")
    found, shipped = load_suite(str(path)), load_suite(family)
    assert found == msgspec.structs.replace(made, source=str(path))
    assert found.name == "my-suite"
    assert protocol_digest(found) == protocol_digest(shipped)
    assert (found.metrics, found.limits, found.measure) == (shipped.metrics, shipped.limits, shipped.measure)
    assert [one.name for one in found.variants] == ["old-v9.5", "name", "old-v9.5-x-s-0.8", "name-x-s-0.8"]
    assert path.read_text("utf-8").startswith("# A heading.\n")


def test_every_variant_is_drawn_once_more_with_each_runtime(tmp_path):
    made = make_draft(["mini"], ["mini:spo:0.5"], None, ["deepcache:3", "compile+torchao-int8"])
    assert [(one.name, one.runtime) for one in made.variants] == [
        ("mini", None),
        ("mini-spo-0.5", None),
        ("mini-deepcache-3", "deepcache:3"),
        ("mini-spo-0.5-deepcache-3", "deepcache:3"),
        ("mini-torchao-int8-compile", "torchao-int8+compile"),
        ("mini-spo-0.5-torchao-int8-compile", "torchao-int8+compile"),
    ]
    assert [len(one.loras) for one in made.variants] == [0, 1] * 3
    path = tmp_path / "my.toml"
    path.write_text(suite_text(init_suite(made, "my"), tmp_path, []), "utf-8")
    assert load_suite(str(path)).variants == made.variants
    assert quick_name(make_draft(["mini"], [], None, ["deepcache:3"])) == "quick-mini-deepcache-3"


@pytest.mark.parametrize(
    ("runtimes", "said"),
    [
        (["deepcash:3"], "--runtime: 'deepcash:3' is no runtime (did you mean 'deepcache'?)"),
        (["compile+torchao-int8", "torchao-int8+compile"], "--runtime: torchao-int8+compile is given twice"),
    ],
)
def test_a_runtime_that_there_is_not_or_twice_is_refused(runtimes, said):
    with pytest.raises(UsageError) as error:
        make_draft(["mini"], [], None, runtimes)
    assert error.value.message.startswith(said)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_quick_suite_draws_8_portraits_and_8_landscapes_once_and_times_nothing(family, tmp_path):
    made = quick_suite(draft(family), "quick-x", "q.jsonl")
    made = with_metrics(made, usable_metrics(made, installed()))
    (tmp_path / "q.toml").write_text(suite_text(made, tmp_path, []), "utf-8")
    (tmp_path / "q.jsonl").write_text(prompts_text(made.prompts), "utf-8")
    found = load_suite(str(tmp_path / "q.toml"))
    assert (found.samples, found.measure.rounds, found.settings.batch) == (1, 0, 16 if family == "mini" else None)
    assert [sum(tag in one.tags for one in found.prompts) for tag in ("portrait", "landscape")] == [8, 8]
    assert [one.tags[0] for one in found.prompts[:4]] == ["portrait", "landscape"] * 2
    assert {limit.name for limit in found.limits} <= set(found.metrics)
    assert found.limits
    shipped = {one.id: one for one in load_suite(family).prompts}
    for one in found.prompts:
        assert msgspec.structs.replace(shipped[one.id], questions=()) == one


def test_quick_prompts_are_in_turns_and_not_those_that_spo_learnt_from():
    assert [one.id for one in quick_prompts("mini")[:2]] == ["mini-portrait-01", "mini-landscape-01"]
    assert len({one.id for one in quick_prompts("sdxl")}) == 16
    assert load_suite("sdxl").left_out == ()
    assert quick_prompts("sdxl")[1] in read_prompts(prompts_folder() / "landscapes.jsonl")


def test_metrics_that_one_sample_or_one_variant_cannot_have_are_left_out():
    suite = quick_suite(draft("mini"), "q", "q.jsonl")
    found = usable_metrics(suite, installed())
    assert "mini-vendi" not in found
    assert {"mini-clip", "mini-vendi-tag", "ssim-to-base"} <= set(found)
    alone = msgspec.structs.replace(suite, variants=suite.variants[:1])
    assert "ssim-to-base" not in usable_metrics(alone, installed())
    two = msgspec.structs.replace(suite, samples=2)
    assert usable_metrics(two, installed()) == suite.metrics


def test_a_quick_run_is_called_as_its_variants():
    found = Draft("mini", make_variants(["mini", "x/y"], [Lora("mini:spo"), Lora("mini:dpo", 0.5)]), ())
    assert quick_name(found) == "quick-mini-y-spo-dpo-0.5"
    many = Draft("mini", make_variants([f"model-number-{number}.safetensors" for number in range(9)], []), ())
    assert len(quick_name(many)) < 100


def test_what_was_assumed_is_noted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = make_draft(["gone.safetensors"], [], None)
    assert found.family == "sdxl"
    assert any("taken for SDXL" in note for note in found.notes)
    assert any("nothing to compare it with" in note for note in found.notes)
    assert found.lost == ("gone.safetensors: there is no such file here.",)
    assert any("Weight 1.0 for mini:spo" in note for note in make_draft(["mini"], ["mini:spo"], None).notes)
    assert make_draft(["mini"], ["mini:spo:1"], None).notes == ()


def test_relative_files_are_found_from_the_suites_folder(mini_copy, tmp_path, monkeypatch):
    monkeypatch.chdir(mini_copy.parent)
    made = init_suite(make_draft([mini_copy.name, "mini"], [], None), "x")
    folder = Path("deep/er")
    folder.mkdir(parents=True)
    (folder / "x.toml").write_text(suite_text(made, folder, []), "utf-8")
    assert load_suite("deep/er/x.toml").variants[0].checkpoint == str(mini_copy)


def test_every_setting_that_is_not_the_usual_one_is_written(tmp_path):
    made = init_suite(draft("sdxl"), "x")
    settings = msgspec.structs.replace(
        made.settings, sampler="dpmpp_2m", schedule="karras", clip_skip=2, vae_tiling=True, batch=None, crop=(8, 0)
    )
    made = msgspec.structs.replace(made, settings=settings)
    (tmp_path / "x.toml").write_text(suite_text(made, tmp_path, []), "utf-8")
    assert load_suite(str(tmp_path / "x.toml")).settings == settings
