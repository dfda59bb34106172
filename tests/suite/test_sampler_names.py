"""Names of samplers and schedules in A1111, ComfyUI and diffusers."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from bench.records import Sampler, Schedule
from bench.records.base import SCHEDULES_OF
from bench.suite.sampler_names import (
    OTHER_SAMPLERS,
    OTHER_SCHEDULES,
    SAMPLER_NAMES,
    SCHEDULE_NAMES,
    Read,
    a1111_names,
    is_drawn,
    read_a1111,
    read_sampler,
    read_schedule,
)


def test_there_are_names_for_every_sampler_and_schedule() -> None:
    assert {*SAMPLER_NAMES, "none"} == {*get_args(Sampler)}
    assert {*SCHEDULE_NAMES} == {*get_args(Schedule)}


def test_every_name_of_every_program_is_read_as_its_own_and_no_name_is_two() -> None:
    seen: dict[str, str] = {}
    for name, names in (SAMPLER_NAMES | OTHER_SAMPLERS).items():
        for text in filter(None, (name, names.a1111, names.comfyui, *names.also)):
            assert read_sampler(text) == read_sampler(text.upper()) == Read(name, None)
            assert seen.setdefault(text.lower(), name) == name
    seen = {}
    for name, names in (SCHEDULE_NAMES | OTHER_SCHEDULES).items():
        for text in filter(None, (name, names.a1111, names.comfyui, *names.also)):
            assert read_schedule(text) == read_schedule(text.lower()) == name
            assert seen.setdefault(text.lower(), name) == name


@pytest.mark.parametrize(
    ("text", "sampler", "schedule"),
    [
        ("DPM++ 2M Karras", "dpmpp_2m", "karras"),
        ("DPM++ 2M SDE Exponential", "dpmpp_2m_sde", "exponential"),
        ("euler_ancestral", "euler_a", None),
        ("k_dpmpp_2m", "dpmpp_2m", None),
        ("K_DPM_2_ANCESTRAL", "dpm_2_a", None),
        ("dpmpp_3m_sde_gpu", "dpmpp_3m_sde", None),
        ("dpmpp_2m_k", "dpmpp_2m", "karras"),
        ("DPM2 a Karras", "dpm_2_a", "karras"),
        ("DPM fast", "dpm_fast", None),
        ("Restart", "restart", None),
        ("uni_pc", "unipc_bh1", None),
        ("a sampler of my own", None, None),
        ("Karras", None, None),
        ("", None, None),
    ],
)
def test_a_samplers_name_is_read_with_the_schedule_within_it(
    text: str, sampler: str | None, schedule: str | None
) -> None:
    assert read_sampler(text) == Read(sampler, schedule)


def test_a_schedule_that_a1111_leaves_out_depends_on_its_version() -> None:
    assert read_a1111("DPM++ 2M", None, (1, 8, 0)) == Read("dpmpp_2m", "normal")
    assert read_a1111("DPM++ 2M", None, (1, 9, 3)) == Read("dpmpp_2m", "karras")
    assert read_a1111("DPM++ 2M SDE", None, (1, 10, 1)) == Read("dpmpp_2m_sde", "exponential")
    assert read_a1111("DPM++ 2M SDE Karras", None, (1, 8)) == Read("dpmpp_2m_sde", "karras")
    assert read_a1111("DPM++ 2M", None, None) == Read("dpmpp_2m", None)
    assert read_a1111("DPM++ 2M", "Automatic", (1, 9)) == Read("dpmpp_2m", "automatic")
    assert read_a1111("Euler a", "SGM Uniform", (1, 9)) == Read("euler_a", "sgm_uniform")
    assert read_a1111("DDIM", None, (1, 6)) == Read("ddim", None), "it follows timesteps of its own"


def test_ours_in_a1111s_words() -> None:
    assert a1111_names("dpmpp_2m", "karras") == ("DPM++ 2M", "Karras")
    assert a1111_names("euler", "simple") == ("Euler", "Simple")
    assert a1111_names("euler_a", "normal") == ("Euler a", "Uniform")
    assert a1111_names("euler", "leading") == ("Euler", None)
    assert a1111_names("none", "leading") == (None, None)


def test_what_is_known_and_not_drawn_stays_what_it_is() -> None:
    assert is_drawn(Read("euler", "karras"))
    assert is_drawn(Read("euler", None))
    assert not is_drawn(Read("restart", None))
    assert not is_drawn(Read("euler", "kl_optimal"))
    assert not is_drawn(Read(None, None))


DOCS = (Path(__file__).parents[2] / "docs" / "samplers.md").read_text("utf-8")


def row_of(name: str, heading: str) -> list[str]:
    """The cells of a name's row in the table below a heading."""
    (row,) = [line for line in DOCS.split(heading)[1].splitlines() if line.startswith(f"| `{name}` |")][:1]
    return [cell.strip() for cell in row.strip("|").split("|")]


@pytest.mark.parametrize("sampler", SAMPLER_NAMES)
def test_the_docs_have_the_names_and_schedules_of_a_sampler(sampler: Sampler) -> None:
    _, a1111, comfyui, diffusers, schedules, _ = row_of(sampler, "## Samplers")
    names = SAMPLER_NAMES[sampler]
    assert a1111.startswith(names.a1111)
    assert f"`{names.comfyui}`" in comfyui
    assert diffusers.startswith(f"`{names.diffusers}`" if sampler not in ("dpmpp_sde", "dpmpp_3m_sde") else "none")
    wanted = SCHEDULES_OF[sampler]
    told = [name for name in get_args(Schedule) if name != "lcm"] if schedules == "all but `lcm`" else schedules
    assert all(f"`{name}`" in told or name in told for name in wanted)
    assert len(wanted) == (len(told) if isinstance(told, list) else told.count("`") // 2)


@pytest.mark.parametrize("schedule", SCHEDULE_NAMES)
def test_the_docs_have_the_names_of_a_schedule(schedule: Schedule) -> None:
    _, a1111, comfyui, diffusers, _ = row_of(schedule, "## Schedules")
    names = SCHEDULE_NAMES[schedule]
    if schedule != "ays":
        assert a1111.startswith(names.a1111 or "–")
    assert (f"`{names.comfyui}`" if names.comfyui else "") in comfyui
    assert names.diffusers.split("'")[0] in diffusers
