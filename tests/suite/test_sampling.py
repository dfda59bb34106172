"""Sampler and schedule of a suite: names of other programs, what goes together, and what a model wants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from suites import write_suite

from bench.errors import SuiteError, UsageError
from bench.records import Lora, Settings, Suite, Variant
from bench.records.base import SCHEDULES_OF
from bench.suite import load_suite, protocol_digest
from bench.suite.grid import make_grid, member_notes, member_suite, read_axis
from bench.suite.sampling import (
    SAMPLERS,
    SCHEDULES,
    few_steps_of,
    problems_of_sampling,
    read_sampling,
    sampling_notes,
)

DDIM = 'sampler = "ddim"'
ETA = "eta = 0.5\n"


def settings_of(folder: Path, lines: str, steps: str = "steps = 20") -> Settings:
    path = write_suite(folder, DDIM, lines)
    text = path.read_text("utf-8").replace(ETA, "").replace("steps = 20", steps)
    path.write_text(text, "utf-8")
    return load_suite(str(path)).settings


@pytest.mark.parametrize(
    ("lines", "sampler", "schedule"),
    [
        ('sampler = "DPM++ 2M Karras"', "dpmpp_2m", "karras"),
        ('sampler = "DPM++ 2M"\nschedule = "Karras"', "dpmpp_2m", "karras"),
        ('sampler = "DPM++ 2M Karras"\nschedule = "karras"', "dpmpp_2m", "karras"),
        ('sampler = "DPM++ 2M"', "dpmpp_2m", "leading"),
        ('sampler = "Euler a"\nschedule = "Uniform"', "euler_a", "normal"),
        ('sampler = "euler_ancestral"\nschedule = "sgm_uniform"', "euler_a", "sgm_uniform"),
        ('sampler = "dpmpp_3m_sde_gpu"\nschedule = "exponential"', "dpmpp_3m_sde", "exponential"),
        ('sampler = "euler"\nschedule = "trailing"', "euler", "simple"),
        ('sampler = "lcm"', "lcm", "lcm"),
        ('sampler = "TCD"', "tcd", "lcm"),
        ('sampler = "lcm"\nschedule = "simple"', "lcm", "simple"),
    ],
)
def test_names_of_other_programs_are_read_as_ours(lines: str, sampler: str, schedule: str, tmp_path: Path) -> None:
    settings = settings_of(tmp_path, lines)
    assert (settings.sampler, settings.schedule) == (sampler, schedule)


def test_the_protocol_holds_our_names(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    for folder in (first, second):
        folder.mkdir()
    theirs = write_suite(first, DDIM + "\n", 'sampler = "DPM++ 2M Karras"\n')
    ours = write_suite(second, DDIM + "\n", 'sampler = "dpmpp_2m"\nschedule = "karras"\n')
    for path in (theirs, ours):
        path.write_text(path.read_text("utf-8").replace(ETA, ""), "utf-8")
    assert protocol_digest(load_suite(str(theirs))) == protocol_digest(load_suite(str(ours)))


def test_tcd_has_the_eta_of_its_paper_where_none_is_said(tmp_path: Path) -> None:
    assert settings_of(tmp_path, 'sampler = "tcd"').eta == 0.3
    assert settings_of(tmp_path, 'sampler = "tcd"\neta = 0.0').eta == 0.0
    assert settings_of(tmp_path, 'sampler = "lcm"').eta == 0.0


def test_timesteps_by_hand_make_the_steps_and_the_schedule(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, 'sampler = "lcm"\ntimesteps = [999, 749, 499, 249]', steps="")
    assert (settings.schedule, settings.steps, settings.timesteps) == ("timesteps", 4, (999, 749, 499, 249))
    settings = settings_of(tmp_path, 'sampler = "lcm"\ntimesteps = [800]', steps="steps = 1")
    assert (settings.schedule, settings.steps) == ("timesteps", 1)


BAD: dict[str, tuple[str, str]] = {
    "karras with lcm": (
        'sampler = "lcm"\nschedule = "karras"',
        "the sampler lcm cannot follow the schedule karras; it can follow lcm, simple, sgm_uniform and timesteps",
    ),
    "by hand with ddim": ('sampler = "ddim"\ntimesteps = [999]', "ddim cannot follow the schedule timesteps"),
    "the schedule lcm with euler": ('sampler = "euler"\nschedule = "lcm"', "it can follow leading, linspace, simple"),
    "rising": ('sampler = "lcm"\ntimesteps = [249, 499]', "each must be less than the one before"),
    "twice": ('sampler = "lcm"\ntimesteps = [499, 499]', "each must be less than the one before"),
    "beyond": ('sampler = "lcm"\ntimesteps = [1000, 499]', "settings.timesteps holds 1000; a timestep is 0 to 999"),
    "under zero": ('sampler = "lcm"\ntimesteps = [9, -1]', "settings.timesteps holds -1"),
    "another count": ('sampler = "lcm"\ntimesteps = [999, 499]', "settings.steps is 20, but settings.timesteps has 2"),
    "half a timestep": ('sampler = "lcm"\ntimesteps = [999.5]', "settings.timesteps[0]: expected int"),
    "two wishes": ('sampler = "lcm"\nschedule = "simple"\ntimesteps = [999]', "but the schedule is simple"),
    "none given": ('sampler = "lcm"\nschedule = "timesteps"', "needs settings.timesteps, such as [999, 749, 499, 249]"),
    "two schedules": ('sampler = "DPM++ 2M Karras"\nschedule = "beta"', "which holds the schedule karras, and"),
    "Automatic": ('sampler = "DPM++ 2M"\nschedule = "Automatic"', "which for DPM++ 2M is karras; a suite names it"),
    "the sampler Automatic": ('sampler = "Automatic"', "settings.sampler is 'Automatic': whatever a program takes;"),
    "DPM fast": ('sampler = "DPM fast"', "'DPM fast', a name of A1111 and ComfyUI; it is not drawn here. Allowed are"),
    "Restart": ('sampler = "Restart"', "it is not drawn here"),
    "ddim_uniform": ('sampler = "euler"\nschedule = "ddim_uniform"', "'ddim_uniform', a name of A1111 and ComfyUI"),
    "KL Optimal": ('sampler = "euler"\nschedule = "KL Optimal"', "it is not drawn here. Allowed are leading"),
    "no name": ('sampler = "euler"\nschedule = "karas"', "settings.schedule is 'karas' (did you mean 'karras'?)"),
    "a sampler that is a list": ('sampler = ["euler"]', "settings.sampler"),
    "a schedule that is a number": ('sampler = "euler"\nschedule = 3', "settings.schedule"),
    "eta": ('sampler = "lcm"\neta = 0.3', "only the samplers ddim and tcd have an eta, not lcm"),
    "many steps": ('sampler = "lcm"\nsteps = 51', "settings.steps is 51; the schedule lcm has 50 timesteps"),
    "rescale": ('sampler = "euler"\nguidance_rescale = 1.5', "settings.guidance_rescale is 1.5; allowed is 0 to 1"),
    "NaN rescale": ('sampler = "euler"\nguidance_rescale = nan', "settings.guidance_rescale is nan"),
    "no size": ('sampler = "euler"\noriginal_size = [0, 64]', "settings.original_size is [0, 64]"),
    "half a size": ('sampler = "euler"\ntarget_size = [64]', "settings.target_size"),
    "crop": ('sampler = "euler"\ncrop = [0, -8]', "settings.crop is [0, -8]; left and top are 0 to 65536 pixels"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_is_refused_in_a_sentence(name: str, tmp_path: Path) -> None:
    lines, said = BAD[name]
    with pytest.raises(SuiteError) as caught:
        settings_of(tmp_path, lines, steps="" if "\nsteps = " in lines else "steps = 20")
    assert said in caught.value.message


@given(st.sampled_from(SAMPLERS), st.sampled_from(SCHEDULES), st.integers(1, 50))
def test_each_sampler_is_refused_just_the_schedules_that_it_cannot_follow(sampler: Any, schedule: Any, n: int) -> None:
    times = tuple(range(999, 999 - n, -1)) if schedule == "timesteps" else ()
    settings = Settings(
        width=64, height=64, steps=n, guidance_scale=1.0, sampler=sampler, schedule=schedule, timesteps=times
    )
    assert (not list(problems_of_sampling(settings))) is (schedule in SCHEDULES_OF[sampler])


@given(
    st.dictionaries(
        st.sampled_from(["sampler", "schedule", "timesteps", "steps", "eta"]),
        st.one_of(st.text(max_size=8), st.integers(), st.none(), st.lists(st.integers(), max_size=3), st.floats()),
    )
)
def test_whatever_the_table_holds_is_read_or_refused_in_a_sentence(table: dict[str, Any]) -> None:
    try:
        found = read_sampling("x.toml", table)
    except SuiteError:
        return
    assert table.keys() <= found.keys()


# --- what a model wants ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variant", "name"),
    [
        (Variant(name="a", checkpoint="stabilityai/sdxl-turbo"), "SDXL Turbo"),
        (Variant(name="a", checkpoint=r"C:\models\DreamShaperXL_Lightning.safetensors"), "SDXL Lightning"),
        (Variant(name="a", checkpoint="x", unet="ByteDance/SDXL-Lightning:sdxl_4step.safetensors"), "SDXL Lightning"),
        (Variant(name="a", checkpoint="x", loras=(Lora(path="dmd2_sdxl_4step_lora_fp16.safetensors"),)), "DMD2"),
        (Variant(name="a", checkpoint="x", loras=(Lora(path="latent-consistency/lcm-lora-sdxl"),)), "LCM"),
        (Variant(name="a", checkpoint="x", loras=(Lora(path="Hyper-SDXL-8steps-lora.safetensors"),)), "Hyper-SD"),
        (Variant(name="a", checkpoint="x", loras=(Lora(path="Hyper-SDXL-8steps-CFG-lora.safetensors"),)), None),
        (Variant(name="a", checkpoint="dreamshaperXL_lightningDPMSDE.safetensors"), "SDXL Lightning"),
        (Variant(name="a", checkpoint="dreamshaperXL_v21TurboDPMSDE.safetensors"), "SDXL Turbo"),
        (Variant(name="a", checkpoint="realvisxlV40_v40LightningBakedvae.safetensors"), "SDXL Lightning"),
        (Variant(name="a", checkpoint="lustifySDXLNSFW_oltDMD2.safetensors"), "DMD2"),
        (Variant(name="a", checkpoint="turbovisionxlSuperFastXLBasedOnNew_tvxlV431Bakedvae.safetensors"), "SDXL Turbo"),
        (Variant(name="a", checkpoint="juggernautXL_v9Hyper.safetensors"), "Hyper-SD"),
        (Variant(name="a", checkpoint="dreamshaperXLLCM_v1.safetensors"), "LCM"),
        (Variant(name="a", checkpoint="dreamLcm.safetensors"), "LCM"),
        (Variant(name="a", checkpoint="x", loras=(Lora(path="lcmlorasdxl.safetensors"),)), "LCM"),
        (Variant(name="a", checkpoint="x", loras=(Lora(path="pcm_sdxl_smallcfg_4step.safetensors"),)), "PCM"),
        (Variant(name="a", checkpoint="x", loras=(Lora(path="pcm_sdxl_normalcfg_4step.safetensors"),)), None),
        (Variant(name="a", checkpoint="hyperrealism_v3.safetensors"), None),
        (Variant(name="a", checkpoint="hyperRealism_v3.safetensors"), None),
        (Variant(name="a", checkpoint="volcmania.safetensors"), None),
        (Variant(name="a", checkpoint="lightning/base.safetensors"), None),
        (Variant(name="a", checkpoint="mini"), None),
    ],
)
def test_models_of_few_steps_are_known_by_name(variant: Variant, name: str | None) -> None:
    kind = few_steps_of(variant)
    assert (kind and kind.name) == name


def noted(suite: Suite, **changes: Any) -> str:
    settings = msgspec.structs.replace(suite.settings, **changes)
    turbo = Variant(name="turbo", checkpoint="sdxl_turbo.safetensors")
    return " ".join(sampling_notes(msgspec.structs.replace(suite, settings=settings, variants=(turbo,))))


def test_what_a_model_does_not_want_is_said_and_not_refused() -> None:
    suite = load_suite("mini")
    said = noted(suite, guidance_scale=7.0, steps=30)
    assert "The variant turbo is named after SDXL Turbo, which wants no guidance, or at most 2" in said
    assert "made for at most 8 steps: these are 30" in said
    assert noted(suite, guidance_scale=2.0, steps=4) == ""


def test_lcm_with_much_guidance_is_said_of_the_sampler(tmp_path: Path) -> None:
    path = write_suite(tmp_path, DDIM, 'sampler = "lcm"')
    path.write_text(path.read_text("utf-8").replace(ETA, ""), "utf-8")
    suite = load_suite(str(path))
    assert "The sampler lcm is that of LCM, which wants no guidance" in " ".join(suite.notes)


def test_negative_prompts_without_guidance_are_said(tmp_path: Path) -> None:
    suite = load_suite("mini")
    one = msgspec.structs.replace(suite.prompts[0], negative="grey")
    suite = msgspec.structs.replace(suite, prompts=(one, *suite.prompts[1:]))
    assert "1 prompt has a negative prompt, which no image is told of: guidance_scale is 1." in noted(
        suite, guidance_scale=1.0, steps=4
    )
    assert "negative" not in noted(suite, guidance_scale=1.5, steps=4)


def test_guidance_rescale_without_guidance_is_said() -> None:
    suite = load_suite("mini")
    said = noted(suite, guidance_scale=1.0, guidance_rescale=0.7, steps=4)
    assert said == "guidance_rescale is 0.7, which changes nothing without guidance: guidance_scale is 1."
    assert noted(suite, guidance_scale=1.5, guidance_rescale=0.7, steps=4) == ""


# --- grids -----------------------------------------------------------------------------------


def test_axes_take_names_of_other_programs_and_hold_ours() -> None:
    assert read_axis("sampler", ["Euler a", "lcm", "dpmpp_3m_sde_gpu"]).values == ("euler_a", "dpmpp_3m_sde", "lcm")
    assert read_axis("schedule", ["Karras", "SGM Uniform", "trailing"]).values == ("simple", "sgm_uniform", "karras")


@pytest.mark.parametrize("text", ["DPM++ 2M Karras", "Restart", "none"])
def test_an_axis_takes_no_sampler_that_holds_a_schedule_or_is_not_drawn(text: str) -> None:
    with pytest.raises(UsageError, match="is not one of ddim, ddpm"):
        read_axis("sampler", [text])


def test_the_hint_splits_a_sampler_s_name_that_holds_a_schedule() -> None:
    with pytest.raises(UsageError) as caught:
        read_axis("sampler", ["DPM++ 2M Karras"])
    assert caught.value.hint == "write --sampler dpmpp_2m --schedule karras"


def test_lcm_in_a_grid_follows_its_own_schedule_where_the_suite_names_none_and_this_is_said() -> None:
    suite = load_suite("mini")
    grid = make_grid(suite, [read_axis("sampler", ["euler", "lcm"])])
    found = [member_suite(suite, member.setting).settings.schedule for member in grid.members]
    assert found == ["leading", "lcm"]
    assert "The sampler lcm follows the schedule lcm in this grid, since it cannot follow leading." in member_notes(
        grid
    )
    lcm = member_suite(suite, {"sampler": "lcm"})
    assert member_suite(lcm, {"sampler": "euler"}).settings.schedule == "leading"


def test_a_schedule_that_a_suite_names_is_no_other_in_a_grid() -> None:
    suite = member_suite(load_suite("mini"), {"sampler": "euler", "schedule": "karras"})
    with pytest.raises(UsageError, match="lcm cannot follow the schedule karras"):
        make_grid(suite, [read_axis("sampler", ["lcm"])])


def test_a_sampler_twice_by_two_names_is_refused() -> None:
    with pytest.raises(UsageError, match="euler_a is given twice"):
        read_axis("sampler", ["euler_a", "Euler a"])


def test_tcd_in_a_grid_has_its_own_eta_and_leaves_it_to_no_other() -> None:
    suite = load_suite("mini")
    assert member_suite(suite, {"sampler": "tcd", "schedule": "lcm"}).settings.eta == 0.3
    assert member_suite(suite, {"sampler": "tcd", "schedule": "lcm", "eta": 1.0}).settings.eta == 1.0
    tcd = member_suite(suite, {"sampler": "tcd", "schedule": "lcm"})
    assert member_suite(tcd, {"sampler": "lcm"}).settings.eta == 0.0
    assert member_suite(tcd, {"steps": 4}).settings.eta == 0.3


def test_what_a_grid_s_settings_are_not_made_for_is_said_once() -> None:
    axes = [read_axis("sampler", ["ddim", "lcm"]), read_axis("schedule", ["simple"]), read_axis("seed", ["0", "1"])]
    said = member_notes(make_grid(load_suite("mini"), axes))
    assert len(said) == 2
    assert "The sampler lcm is that of LCM, which wants no guidance, or at most 2: guidance_scale is 3" in said[0]


def test_a_grid_over_schedules_leaves_timesteps_by_hand_to_their_own() -> None:
    suite = load_suite("mini")
    settings = msgspec.structs.replace(
        suite.settings, sampler="lcm", schedule="timesteps", timesteps=(999, 499), steps=2
    )
    suite = msgspec.structs.replace(suite, settings=settings)
    grid = make_grid(suite, [read_axis("schedule", ["lcm", "timesteps"])])
    found = [member_suite(suite, member.setting).settings.timesteps for member in grid.members]
    assert found == [(), (999, 499)]
