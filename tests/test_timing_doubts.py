"""What a process's conditions say against its times: planted loads, neighbours and slowdowns."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from fakes import make_run

from bench.compare import summarize_timings
from bench.compare.timing import BUSY_PERCENT, TRANSIENT, weak_conditions
from bench.measure.nvml import REASONS
from bench.records import Conditions, DeviceState, Slowdown, Timing

replace = msgspec.structs.replace
COOL = DeviceState(temperature_c=40, sm_clock_mhz=1980, memory_clock_mhz=2619)
QUIET = Conditions(cpu_percent=2.0, cpu_load=0.1, device_percent=0, other_processes=0, before=COOL, after=COOL)


def _process(number: int, name: str = "end_to_end", variant: str = "base") -> Timing:
    return Timing(
        variant=variant,
        name=name,  # type: ignore[arg-type]
        unit="byte" if name.startswith("peak") else "joule" if name.startswith("energy") else "second",
        round=number,
        process=100 + number,
        warmups=(),
        values=(1.0, 1.01),
    )


def _said(*conditions: Conditions) -> str:
    timings = [_process(number) for number in range(len(conditions))]
    known = {("base", number, 100 + number): one for number, one in enumerate(conditions)}
    return " ".join(weak_conditions(timings, known))


def test_quiet_processes_and_those_that_told_nothing_are_not_doubted() -> None:
    assert _said(QUIET, QUIET) == ""
    assert _said(Conditions(cpu_percent=BUSY_PERCENT, cpu_load=9.0)) == ""
    assert weak_conditions([_process(0)], {}) == ()


def test_each_doubt_says_how_much_in_how_many_and_what_to_do() -> None:
    busy = replace(QUIET, cpu_percent=61.4)
    assert _said(QUIET, busy, QUIET) == (
        "Others kept up to 61% of the CPU busy before 1 of 3 processes; measure on a quiet machine."
    )
    assert _said(replace(QUIET, device_percent=80)) == (
        "Others kept the device busy for up to 80% of the time before 1 of 1 process; measure while it is idle."
    )
    crowd = [replace(QUIET, other_processes=number) for number in (0, 1, 2)]
    assert _said(*crowd) == "Up to 2 other processes had the device in 2 of 3 processes; measure while it is free."
    hot = Slowdown(reason="heat (hardware slowdown)", share=0.02)
    assert _said(QUIET, replace(QUIET, slowdowns=(hot,))) == (
        "The device slowed down (heat (hardware slowdown)) in 1 of 2 processes; let it cool, or set lower clocks."
    )


@pytest.mark.parametrize("reason", ["power limit", "application clocks"])
def test_a_cards_own_steady_limit_is_no_doubt(reason: str) -> None:
    assert _said(replace(QUIET, slowdowns=(Slowdown(reason=reason, share=1.0),))) == ""


def test_slowdowns_are_told_by_the_words_that_the_driver_room_gives() -> None:
    assert set(REASONS.values()) > TRANSIENT


def test_foreign_load_makes_times_and_energy_of_its_variant_weak_but_not_memory(tmp_path: Path) -> None:
    busy = replace(QUIET, cpu_percent=90.0)
    timings = []
    for variant in ("base", "dpo"):
        for number in range(5):
            conditions = busy if variant == "dpo" and number == 3 else QUIET
            timings.append(replace(_process(number, variant=variant), conditions=conditions))
            timings += [_process(number, name, variant) for name in ("energy_per_image", "peak_rss")]
    run = replace(make_run(tmp_path, prompts=1), timings=tuple(timings))
    weak = {(one.variant, one.name): one.weak for one in summarize_timings(run)}
    reason = "Others kept up to 90% of the CPU busy before 1 of 5 processes; measure on a quiet machine."
    assert weak == {
        ("base", "end_to_end"): None,
        ("base", "energy_per_image"): None,
        ("base", "peak_rss"): None,
        ("dpo", "end_to_end"): reason,
        ("dpo", "energy_per_image"): reason,
        ("dpo", "peak_rss"): None,
    }
