"""Weights by step in suites and recipes, and which steps are meant."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import write_tiny

from bench.checkpoints.fingerprint import fingerprint
from bench.errors import SuiteError, UsageError
from bench.merge.recipe import read_recipe
from bench.records import Lora, StepPlan, Suite, Variant
from bench.suite import load_suite
from bench.suite.attribution import attribution_suite
from bench.suite.step_ranges import (
    elsewhere,
    fraction_before,
    parse_steps,
    range_factors,
    runs_of,
    step_notes,
    steps_text,
    weight_factors,
)

OLD = "weight = 0.5"


def tiny(folder: Path, new: str, more: str = "") -> Suite:
    path = write_tiny(folder, OLD, new)
    path.write_text(path.read_text("utf-8") + more, "utf-8")
    return load_suite(str(path))


def test_a_range_and_weights_by_step_are_read(tmp_path: Path) -> None:
    (ranged,) = tiny(tmp_path / "a", 'weight = 0.5, step_range = "0-40%"').variants[1].loras
    assert (ranged.weight, ranged.step_factors) == (0.5, ((0.0, 1.0), (0.4, 0.0)))
    (weighted,) = tiny(tmp_path / "b", "weight = [[0.0, 1.0], [0.4, 0.2]]").variants[1].loras
    assert (weighted.weight, weighted.step_factors) == (1.0, ((0.0, 1.0), (0.4, 0.2)))
    (middle,) = tiny(tmp_path / "c", 'step_range = "33.5 - 70 %"').variants[1].loras
    assert middle.step_factors == ((0.0, 0.0), (0.335, 1.0), (0.7, 0.0))


@pytest.mark.parametrize(
    ("new", "words"),
    [
        ('step_range = "40-0%"', "must begin before it ends"),
        ('step_range = "40-40%"', "must begin before it ends"),
        ('step_range = "0-140%"', "lie within 0-100%"),
        ('step_range = "all"', 'such as "0-40%"'),
        ("step_range = 4", 'such as "0-40%"'),
        ('step_range = "1-30%"', "runs in none of the 3 steps"),
        ("weight = [[0.0, 0.0]]", "runs in none of the 3 steps"),
        ('weight = [[0.0, 1.0]], step_range = "0-40%"', "leave one of them out"),
        ("weight = [[0.1, 1.0]]", "rising from 0"),
        ("weight = [[0.0, 1.0], [0.4, 1.0], [0.2, 0.5]]", "rising from 0"),
        ("weight = [[0.0, 1.0], [1.0, 0.5]]", "to under 1"),
        ("weight = [0.0, 1.0]", "pairs such as"),
        ('weight = [[0.0, "x"]]', "pairs such as"),
        ("weight = []", "rising from 0"),
        ("weight = [[0.0, nan]]", "weight from 0 of the steps on is nan"),
        ("step_factors = [[0.0, 1.0]]", "unknown field"),
    ],
)
def test_what_cannot_be_a_range_is_refused(new: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match=words):
        tiny(tmp_path, new)


def test_a_recipe_takes_no_schedule(tmp_path: Path) -> None:
    for fields in ('step_range = "0-40%"', "weight = [[0.0, 1.0], [0.4, 0.0]]"):
        path = tmp_path / "x.toml"
        path.write_text(
            f'schema = 1\nmethod = "copy"\nmodels = ["mini"]\nloras = [{{ path = "mini:spo", {fields} }}]\n'
        )
        with pytest.raises(SuiteError, match="cannot be merged into a file"):
            read_recipe(path)


def test_a_schedule_is_part_of_what_a_variant_is() -> None:
    plain = Variant(name="x", checkpoint="mini", loras=(Lora(path="mini:spo"),))
    early = msgspec.structs.replace(plain, loras=(Lora(path="mini:spo", step_factors=((0.0, 1.0), (0.4, 0.0))),))
    assert fingerprint(plain).digest != fingerprint(early).digest
    assert fingerprint(msgspec.structs.replace(plain, unet_steps=((0.0, ""),))).digest != fingerprint(plain).digest


@given(st.integers(1, 60), st.integers(0, 99), st.integers(1, 100))
def test_the_steps_that_come_out_are_those_of_exact_fractions(steps: int, start: int, length: int) -> None:
    end = min(100, start + length)
    runs = runs_of(range_factors("x", f"{start}-{end}%"), steps)
    on = [step for first, last, factor in runs if factor for step in range(first, last + 1)]
    wanted = [k for k in range(1, steps + 1) if Fraction(start, 100) <= Fraction(k - 1, steps) < Fraction(end, 100)]
    assert on == wanted
    assert [first for first, *_ in runs] == [1, *(last + 1 for _, last, _ in runs[:-1])]


@given(st.integers(1, 60), st.data())
def test_a_boundary_written_as_a_float_is_at_its_step(steps: int, data: st.DataObject) -> None:
    step = data.draw(st.integers(1, steps))
    factors = ((0.0, 0.0), (fraction_before(step, steps), 1.0)) if step > 1 else ((fraction_before(1, steps), 1.0),)
    assert [first for first, _, factor in runs_of(factors, steps) if factor] == [step]


def test_steps_as_words() -> None:
    assert steps_text(range_factors("x", "0-40%"), 20) == "in steps 1-8 of 20"
    assert steps_text(range_factors("x", "95-100%"), 20) == "in steps 20 of 20"
    assert (
        steps_text(weight_factors("x", [[0.0, 1.0], [0.4, 0.2]]), 20)
        == "times 1 in steps 1-8 and 0.2 in steps 9-20 of 20"
    )


# Which steps are scored.


def test_which_steps_are_meant() -> None:
    assert parse_steps("all", 4) == (1, 2, 3, 4)
    assert parse_steps("every 3", 8) == (3, 6, 8)
    assert parse_steps("5,1", 8) == parse_steps([5, 1], 8) == (1, 5)


@pytest.mark.parametrize("at", ["0", "9", "1,1", "every 0", "some", "", [], [-1], "1.5"])
def test_steps_that_are_none_are_refused(at: str | list[int]) -> None:
    with pytest.raises(UsageError):
        parse_steps(at, 8)


def test_a_suite_may_say_which_steps_are_scored(tmp_path: Path) -> None:
    suite = tiny(tmp_path, OLD, '\n[step_metrics]\nmetrics = ["mini-step-aware"]\nat = [1, 3]\n')
    assert suite.step_metrics == StepPlan(metrics=("mini-step-aware",), at=(1, 3))
    for table, words in (("at = [4]", "no step 4"), ("metrics = []", "is empty"), ("when = 1", "unknown")):
        text = 'metrics = ["mini-clip"]\n' if "metrics" not in table else ""
        with pytest.raises(SuiteError, match=words):
            tiny(tmp_path / words.replace(" ", ""), OLD, f"\n[step_metrics]\n{text}{table}\n")


# A variant in windows of steps.


def test_windows_cover_the_steps_and_share_equal_ones(tmp_path: Path) -> None:
    suite = tiny(tmp_path, OLD)
    made = attribution_suite(suite, "spo", 3, lambda _: False)
    windows = {(one.kind, one.first, one.last): one.variant for one in made.attribution.windows}
    assert [key for key in windows if key[0] == "only"] == [("only", 1, 1), ("only", 2, 2), ("only", 3, 3)]
    assert windows["only", 1, 1] == windows["until", 1, 1]
    assert windows["only", 3, 3] == windows["from", 3, 3]
    assert [variant.name for variant in made.variants[:2]] == ["base", "spo"]
    assert len(made.variants) == 2 + 5
    for variant in made.variants[2:]:
        ((first, last, _),) = [run for run in runs_of(variant.loras[0].step_factors, 3) if run[2]]
        assert variant.name == f"spo-steps-{first}-{last}"


def test_text_encoders_stay_on_throughout(tmp_path: Path) -> None:
    made = attribution_suite(tiny(tmp_path, OLD), "spo", 3, lambda _: True)
    texts, unet = made.variants[2].loras
    assert (texts.unet, texts.step_factors) == (0.0, ())
    assert (unet.text_encoder, unet.text_encoder_2) == (0.0, 0.0)
    assert unet.step_factors


def test_another_unet_runs_in_the_window(tmp_path: Path) -> None:
    suite = tiny(tmp_path, OLD)
    other = msgspec.structs.replace(suite.variants[0], name="other", unet="other.safetensors")
    made = attribution_suite(
        msgspec.structs.replace(suite, variants=(suite.variants[0], other)), "other", 3, lambda _: False
    )
    middle = next(one for one in made.variants if one.name == "other-steps-2-2")
    assert [source for _, source in middle.unet_steps] == ["mini", "", "mini"]


@pytest.mark.parametrize(("name", "windows"), [("base", 3), ("spoo", 3), ("spo", 1), ("spo", 4)])
def test_what_cannot_be_attributed_is_refused(name: str, windows: int, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        attribution_suite(tiny(tmp_path, OLD), name, windows, lambda _: False)


def test_a_range_is_told_in_the_words_of_other_programs():
    """ComfyUI's percent p is the sigma of timestep 999 (1 - p): the steps within are those that were meant."""
    timesteps = [951.0 - 50 * step for step in range(20)]
    said = elsewhere(((0.0, 1.0), (0.2, 0.0), (0.8, 0.5)), timesteps)
    assert "1@0,1@0.2,0@0.2,0@0.8,0.5@0.8,0.5@1" in said
    start, end = 0.0, 1 - 776 / 999
    assert f"1 from 0.000 to {end:.3f}" in said
    within = [step for step, t in enumerate(timesteps, 1) if 999 * (1 - end) < t <= 999 * (1 - start)]
    assert within == [1, 2, 3, 4]
    assert f"0.5 from {1 - (201 + 151) / 2 / 999:.3f} to 1.000" in said
    assert [step for step, t in enumerate(timesteps, 1) if t <= (201 + 151) / 2] == [17, 18, 19, 20]


def test_the_steps_that_come_out_are_told():
    suite = load_suite("mini")
    base, own = suite.variants[0], suite.variants[1]
    early = msgspec.structs.replace(
        own, loras=(msgspec.structs.replace(own.loras[0], step_factors=((0.0, 1.0), (0.2, 0.0))),)
    )
    suite = msgspec.structs.replace(suite, variants=(base, own, early))
    steps = suite.settings.steps
    (said,) = step_notes(suite)
    assert said.startswith(f"{own.name}: {own.loras[0].path} runs in steps 1-{math.ceil(steps / 5)} of {steps}")
