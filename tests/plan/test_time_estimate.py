"""The estimate of time: by hand from a run's timings, and against the figures that the known cards' table rests on."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from fakes import make_run

from bench.plan.memory import SD15, SDXL
from bench.plan.time import A100, H100, estimate_time, image_seconds, scaled_seconds
from bench.records import Machine, MeasurePlan, Run, Settings, Timing

replace = msgspec.structs.replace
FULL = Settings(width=1024, height=1024, steps=30, guidance_scale=7.0, sampler="euler", dtype="bfloat16")


def card(name: str) -> Machine:
    return Machine(
        os="Linux", cpu="A CPU", cores=16, memory_bytes=1, device="cuda:0", device_name=name, device_memory_bytes=1
    )


def timing(variant: str, name: str, *values: float) -> Timing:
    return Timing(
        variant=variant, name=name, unit="second", round=0, process=1, warmups=(), values=values,  # type: ignore[arg-type]
    )  # fmt: skip


def timed_run(folder: Path) -> Run:
    run = make_run(folder, prompts=5)
    times = [timing("base", "load", 2.0), timing("base", "first_image", 1.0), timing("base", "end_to_end", 0.4, 9, 0.5)]
    times += [timing("spo", "end_to_end", 0.25), timing("dpo", "end_to_end", 0.25)]
    suite = replace(run.info.suite, measure=MeasurePlan(rounds=3, images=4, warmups=1))
    return replace(run, info=replace(run.info, suite=suite), timings=tuple(times))


# --- from a run ----------------------------------------------------------------------------


def test_a_runs_own_timings_by_hand(tmp_path: Path) -> None:
    run = timed_run(tmp_path)
    suite = run.info.suite
    found = estimate_time(suite, run.info.machine, run, None)
    assert found.render_s == pytest.approx(5 * suite.samples * (0.5 + 0.25 + 0.25))
    assert found.measure_s == pytest.approx(3 * (3 * (2.0 + 1.0) + 5 * (0.5 + 0.25 + 0.25)))
    assert "upper bound" in found.basis
    assert run.path in found.basis


@pytest.mark.parametrize("what", ["settings", "device", "timings"])
def test_a_run_of_another_kind_tells_nothing(tmp_path: Path, what: str) -> None:
    run = timed_run(tmp_path)
    suite, machine = run.info.suite, run.info.machine
    if what == "settings":
        suite = replace(suite, settings=replace(suite.settings, steps=999))
    elif what == "device":
        machine = replace(machine, device_name="another")
    else:
        run = replace(run, timings=())
    found = estimate_time(suite, machine, run, None)
    assert (found.render_s, found.measure_s) == (None, None)
    assert "hotart-bench measure" in found.basis


def test_other_settings_are_scaled_by_steps_guidance_sampler_and_pixels(tmp_path: Path) -> None:
    run = timed_run(tmp_path)  # 20 steps of ddim with guidance
    run = replace(run, timings=(*run.timings, timing("base", "denoise_step", 0.02), timing("spo", "denoise_step", 9.0)))
    suite = run.info.suite

    def seconds(**settings: object) -> dict[str, float]:
        return scaled_seconds(replace(suite, settings=replace(suite.settings, **settings)), run)

    # base: 0.5 s an image, 0.4 s of it in its 20 steps; spo: no more than all of it; dpo has no step timed.
    assert seconds() == pytest.approx({"base": 0.5, "spo": 0.25})
    assert seconds(steps=30) == pytest.approx({"base": 0.1 + 0.6, "spo": 0.375})
    assert seconds(sampler="heun")["base"] == pytest.approx(0.1 + 0.8)
    assert seconds(sampler="dpmpp_sde")["base"] == pytest.approx(0.1 + 0.8)
    assert seconds(guidance_scale=1.0)["base"] == pytest.approx(0.1 + 0.2)
    assert seconds(width=128, height=128, steps=10)["base"] == pytest.approx(4 * (0.1 + 0.2))
    assert scaled_seconds(suite, replace(run, timings=())) == {}


# --- from a known card ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch", "compiled", "steps_s"),
    [
        (1, False, 30 * 0.0757),
        (4, False, 30 * 0.0365),
        (8, False, 30 * 0.0346),
        (1, True, 1.87),
        (4, True, 1.035),
        (8, True, 0.995),
    ],
)
def test_an_image_on_an_h100_takes_its_steps_and_one_decode(batch: int, compiled: bool, steps_s: float) -> None:
    found = image_seconds(H100, replace(FULL, compile=compiled), batch)
    assert found == pytest.approx(steps_s + 0.125)
    assert image_seconds(H100, replace(FULL, compile=compiled, guidance_scale=1.0), batch) < 0.6 * found


def test_the_published_a100_is_its_3_31_seconds() -> None:
    assert image_seconds(A100, FULL, 1) == pytest.approx(3.31)
    assert image_seconds(A100, FULL, 8) == image_seconds(A100, FULL, 1), "no figure of batches is published"
    assert image_seconds(A100, replace(FULL, compile=True), 1) == pytest.approx(2.54)


def test_a_quarter_of_the_pixels_or_half_the_steps_take_less() -> None:
    whole = image_seconds(H100, FULL, 4)
    assert image_seconds(H100, replace(FULL, width=512, height=512), 4) == pytest.approx(whole / 4)
    assert whole / 2 < image_seconds(H100, replace(FULL, steps=15), 4) < whole


def test_a_batch_between_two_known_ones_takes_the_smaller_ones_time() -> None:
    assert image_seconds(H100, FULL, 7) == image_seconds(H100, FULL, 4)
    assert image_seconds(H100, replace(FULL, compile=True), 2) == image_seconds(H100, replace(FULL, compile=True), 1)


def test_a_whole_suite_on_a_known_card(tmp_path: Path) -> None:
    suite = replace(timed_run(tmp_path).info.suite, settings=replace(FULL, batch=8))
    found = estimate_time(suite, card("NVIDIA H100 80GB HBM3"), None, SDXL)
    assert found.render_s == pytest.approx(5 * suite.samples * 3 * image_seconds(H100, FULL, 8))
    assert found.measure_s == pytest.approx(3 * 3 * 6 * image_seconds(H100, FULL, 1))
    assert found.basis.startswith("Rough")
    fast = replace(suite, variants=(*suite.variants[:-1], replace(suite.variants[-1], runtime="compile")))
    said = estimate_time(fast, card("NVIDIA H100 80GB HBM3"), None, SDXL)
    assert said == replace(found, basis=f"{found.basis.removesuffix('.')}, and without what runtimes save.")


@pytest.mark.parametrize(
    ("name", "parts"), [("NVIDIA H100 80GB HBM3", SD15), ("NVIDIA H100 80GB HBM3", None), ("NVIDIA H100 PCIe", SDXL)]
)
def test_another_card_or_model_is_not_guessed_at(tmp_path: Path, name: str, parts: object) -> None:
    found = estimate_time(timed_run(tmp_path).info.suite, card(name), None, parts)  # type: ignore[arg-type]
    assert found.render_s is None
