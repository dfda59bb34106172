"""The axes of a grid as flags write them, and the suite of each setting."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from suites import METRICS, write_suite

from bench.errors import UsageError
from bench.formatting import continuing, is_good_name, making
from bench.records import StepPlan
from bench.suite import load_suite, protocol_digest
from bench.suite.file import SAMPLERS
from bench.suite.grid import left_out_notes, make_grid, member_suite, members_of, read_axis, setting_words


@pytest.fixture
def suite(tmp_path):
    return load_suite(str(write_suite(tmp_path, "eta = 0.5", "eta = 0")), known_metrics=METRICS)


def test_values_are_read_sorted_and_written_as_they_were():
    assert read_axis("guidance_scale", ["7.5", "3", "5.0"]).values == (3.0, 5.0, 7.5)
    assert read_axis("sampler", ["dpmpp_2m", "ddim"]).values == ("ddim", "dpmpp_2m")
    assert read_axis("size", ["768x512", "064x64", "512x768"]).values == ("64x64", "512x768", "768x512")
    folders = [
        m.folder for m in members_of([read_axis("guidance_scale", ["3", "7.5"]), read_axis("seed", ["0", "12"])])
    ]
    assert folders == [f"guidance-scale-{g}_seed-{s}" for g in ("3", "7.5") for s in ("0", "12")]


@pytest.mark.parametrize(
    ("axis", "text", "said"),
    [
        ("guidance_scale", "3,5", "--guidance-scale: '3,5' is not a number"),
        ("guidance_scale", "nan", "'nan' is not a number"),
        ("guidance_scale", "1e999", "'1e999' is not a number"),
        ("steps", "20.5", "--steps: '20.5' is not a whole number"),
        ("sampler", "dim", "did you mean 'ddim'?"),
        ("sampler", "none", "is not one of ddim, ddpm"),
        ("schedule", "karas", "did you mean 'karras'?"),
        ("size", "1024", "is not width and height in pixels"),
    ],
)
def test_a_value_that_is_none_is_refused(axis, text, said):
    with pytest.raises(UsageError) as refused:
        read_axis(axis, [text])
    assert said in str(refused.value)


@pytest.mark.parametrize("twice", [["3", "3.0"], ["3", "5", "3"]])
def test_a_value_that_comes_twice_is_refused(twice):
    with pytest.raises(UsageError, match="--guidance-scale: 3 is given twice"):
        read_axis("guidance_scale", twice)


def test_all_settings_that_cannot_be_are_named_at_once(suite):
    axes = [read_axis("eta", ["0", "1"]), read_axis("sampler", ["ddim", "euler", "unipc"])]
    axes.append(read_axis("schedule", ["leading", "karras"]))
    with pytest.raises(UsageError) as refused:
        make_grid(suite, axes)
    said = str(refused.value)
    for sampler in ("euler", "unipc"):
        assert f"only the samplers ddim and tcd have an eta, not {sampler}" in said
    assert "the sampler ddim cannot follow the schedule karras" in said
    with pytest.raises(UsageError, match=r"settings.guidance_scale is 200.0; allowed is 0 to 100"):
        make_grid(suite, [read_axis("guidance_scale", ["3", "200"])])
    with pytest.raises(UsageError, match=r"settings.height is 100; it must be a multiple of 8, such as 96"):
        make_grid(suite, [read_axis("size", ["64x100"])])
    with pytest.raises(UsageError, match=r"seed is -1; allowed is 0"):
        make_grid(suite, [read_axis("seed", ["-1"])])


def test_a_grid_needs_an_axis_and_has_an_end(suite):
    with pytest.raises(UsageError, match=r"--guidance-scale, --sampler, .*--size and --seed"):
        make_grid(suite, [])
    with pytest.raises(UsageError, match="501 settings; a grid has at most 500"):
        make_grid(suite, [read_axis("seed", list(map(str, range(501))))])


@given(
    guidance=st.lists(st.floats(0, 100).map(repr), min_size=1, max_size=3, unique_by=float),
    samplers=st.lists(st.sampled_from(SAMPLERS), min_size=1, max_size=3, unique=True),
    seeds=st.lists(st.integers(0, 2**63 - 1).map(str), min_size=1, max_size=3, unique=True),
)
def test_every_combination_has_a_folder_of_its_own(guidance, samplers, seeds):
    lists = {"guidance_scale": guidance, "sampler": samplers, "seed": seeds}
    members = members_of([read_axis(name, texts) for name, texts in lists.items()])
    expected = {(float(g), s, int(n)) for g, s, n in itertools.product(guidance, samplers, seeds)}
    assert {tuple(member.setting.values()) for member in members} == expected
    assert len({member.folder.casefold() for member in members}) == len(expected)
    assert all(is_good_name(member.folder) for member in members)


def test_the_suite_of_a_setting_differs_in_its_fields_only(suite):
    setting = {"guidance_scale": 7.5, "sampler": "dpmpp_2m", "steps": 30, "size": "128x64", "seed": 3}
    found = member_suite(suite, setting)
    assert found.settings == replace(
        suite.settings, guidance_scale=7.5, sampler="dpmpp_2m", steps=30, width=128, height=64
    )
    assert (found.seed, found.prompts, found.variants) == (3, suite.prompts, suite.variants)
    own = {"guidance_scale": 5.0, "seed": 7}
    assert protocol_digest(member_suite(suite, own)) == protocol_digest(suite)


def test_what_a_grid_leaves_out_is_said(suite):
    suite = replace(suite, step_metrics=StepPlan(metrics=("mini-clip",), at=(1,)))
    found = member_suite(suite, {"steps": 30})
    assert found.measure.rounds == 0
    assert found.step_metrics is None
    assert [limit.name for limit in found.limits] == ["mini-aesthetic"]
    said = " ".join(left_out_notes(suite))
    assert "end_to_end and peak_allocated" in said
    assert "hotart-bench steps" in said
    assert left_out_notes(replace(suite, step_metrics=None, limits=found.limits)) == ()


def test_words_and_commands(suite):
    setting = {"guidance_scale": 7.5, "sampler": "ddim", "schedule": "leading", "steps": 20, "eta": 0.5, "seed": 1}
    assert setting_words(setting) == "guidance scale 7.5, ddim, schedule leading, 20 steps, eta 0.5, seed 1"
    found = member_suite(suite, {"guidance_scale": 7.0, "seed": 1})
    assert making(found).endswith("own.toml --guidance-scale 7 --seed 1")
    assert making(found).startswith("hotart-bench grid ")
    assert continuing(found, "runs/g/seed-1") == "hotart-bench render runs/g/seed-1"
    assert continuing(suite, "runs/own").endswith("own.toml -o runs/own")
