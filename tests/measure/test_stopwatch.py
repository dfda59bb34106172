"""The stopwatch, on a clock whose time passes only where a fake stage lets it pass."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.measure.stopwatch import (
    Clock,
    Seconds,
    Shot,
    Stages,
    device_clock,
    time_batches,
    time_image,
    time_variant,
    to_timings,
)
from bench.records import Conditions

SHOT = Shot(prompt="a lake", negative="", seed=7)


@dataclass
class FakeDevice:
    """A device that takes 1/1024 s ticks as it is told, so that sums of floats are exact."""

    load: int = 0
    encode: int = 0
    noise: int = 0
    steps: tuple[int, ...] = (0,)
    decode: int = 0
    now: int = 0
    pending: bool = False
    batch: list[int] = field(default_factory=list)
    drawn: list[tuple[Any, ...]] = field(default_factory=list)

    def work(self, ticks: int) -> None:
        self.now += ticks
        self.pending = True

    def stages(self) -> Stages:
        def load() -> str:
            self.work(self.load)
            return "pipe"

        def encode(pipe: Any, shot: Shot) -> str:
            self.work(self.encode)
            return f"text of {shot.prompt}"

        def noise(pipe: Any, shot: Shot) -> str:
            self.work(self.noise)
            return f"noise {shot.seed}"

        def denoise(pipe: Any, encoded: Any, latents: Any, shot: Shot, on_step: Any) -> str:
            for number, ticks in enumerate(self.steps):
                self.work(ticks)
                on_step(number)
            self.drawn.append((pipe, encoded, latents, shot))
            return f"clean {latents}"

        def decode(pipe: Any, latents: Any) -> str:
            self.work(self.decode)
            return f"pixels of {latents}"

        return Stages(load, encode, noise, denoise, decode, lambda pipe, shots: self.work(self.batch.pop(0)))

    def clock(self) -> Clock:
        def seconds(before: int, after: int) -> float:
            # As CUDA events: a question before the device is done is an error.
            assert not self.pending, "seconds were read before settle"
            return (after - before) / 1024

        return Clock(lambda: self.now, seconds, self.settle)

    def settle(self) -> None:
        self.pending = False


durations = st.integers(min_value=0, max_value=10_000)


@settings(max_examples=40, deadline=None)
@given(durations, durations, st.lists(durations, min_size=1, max_size=6), durations)
def test_each_part_gets_the_time_its_stage_took(encode: int, noise: int, steps: list[int], decode: int) -> None:
    device = FakeDevice(encode=encode, noise=noise, steps=tuple(steps), decode=decode, now=99)
    times = time_image(device.stages(), device.clock(), "pipe", SHOT)
    assert {name: [value * 1024 for value in values] for name, values in times.items()} == {
        "text_encode": [encode],
        "denoise_step": steps,
        "vae_decode": [decode],
        "end_to_end": [encode + noise + sum(steps) + decode],
    }


def test_an_image_is_drawn_from_its_own_prompt_and_seed() -> None:
    device = FakeDevice()
    time_image(device.stages(), device.clock(), "pipe", SHOT)
    assert device.drawn == [("pipe", "text of a lake", "noise 7", SHOT)]


def test_work_that_was_pending_before_an_image_is_not_booked_on_it() -> None:
    settled = []
    clock = Clock(lambda: len(settled), lambda before, after: after - before, lambda: settled.append(1))
    times = time_image(FakeDevice().stages(), clock, "pipe", SHOT)
    assert times["end_to_end"] == (0,)
    assert len(settled) == 2


def test_every_image_is_timed_and_ticks_come_after_each() -> None:
    device = FakeDevice(load=512, encode=1, steps=(2, 3), decode=4)
    ticks: list[tuple[int, int]] = []
    shots = [Shot(prompt=str(number), negative="", seed=number) for number in range(5)]
    pipe, load_s, images = time_variant(
        device.stages(), device.clock(), shots, lambda done: ticks.append((done, device.now))
    )
    assert (pipe, load_s) == ("pipe", 0.5)
    assert [image["end_to_end"] for image in images] == [(10 / 1024,)] * 5
    assert ticks == [(number, 512 + 10 * number) for number in range(1, 6)]
    assert [drawn[3].seed for drawn in device.drawn] == [0, 1, 2, 3, 4]


def image(text: float, steps: tuple[float, ...], decode: float, whole: float) -> Seconds:
    return {"text_encode": (text,), "denoise_step": steps, "vae_decode": (decode,), "end_to_end": (whole,)}


@pytest.mark.parametrize("warmups", [0, 1, 2])
def test_the_first_image_and_the_warmups_are_kept_apart(warmups: int) -> None:
    images = [image(0.0, (1.0,), 0.0, float(number)) for number in range(4)]
    found = {one.name: one for one in to_timings(0.5, images, warmups, "dpo", 0, 42)}
    assert found["first_image"].values == (0.0,)
    kept = (1.0, 2.0, 3.0)
    assert (found["end_to_end"].warmups, found["end_to_end"].values) == (kept[:warmups], kept[warmups:])


def test_what_a_tick_costs_is_in_no_time() -> None:
    device = FakeDevice(steps=(2,))
    _, _, images = time_variant(device.stages(), device.clock(), [SHOT] * 3, lambda done: device.work(10_000))
    assert [image["end_to_end"] for image in images] == [(2 / 1024,)] * 3


def test_timings_hold_raw_values_in_order() -> None:
    images = (
        image(0.5, (6.5, 0.25), 0.5, 8.0),
        image(0.1, (0.2, 0.3), 0.4, 1.1),
        image(1.0, (2.0, 3.0), 4.0, 10.5),
        image(5.0, (6.0, 7.0), 8.0, 26.5),
    )
    conditions = Conditions(cpu_percent=3.0, cpu_load=0.5)
    found = to_timings(9.0, images, 1, "dpo", 1, 42, conditions=conditions)
    values = {timing.name: (timing.warmups, timing.values) for timing in found}
    assert values == {
        "load": ((), (9.0,)),
        "first_image": ((), (8.0,)),
        "text_encode": ((0.1,), (1.0, 5.0)),
        "denoise_step": ((0.2, 0.3), (2.0, 3.0, 6.0, 7.0)),
        "vae_decode": ((0.4,), (4.0, 8.0)),
        "end_to_end": ((1.1,), (10.5, 26.5)),
    }
    assert {(t.variant, t.round, t.process, t.unit) for t in found} == {("dpo", 1, 42, "second")}
    assert {t.name: t.conditions for t in found if t.conditions} == {"end_to_end": conditions}
    compiled = to_timings(9.0, images, 1, "dpo", 1, 42, compiled=True)
    assert [(t.name, t.values) for t in compiled[:3]] == [
        ("load", (9.0,)),
        ("compile", (6.5,)),
        ("first_image", (8.0,)),
    ]
    whole = to_timings(9.0, images, 1, "dpo", 1, 42, compiled="whole")
    assert (whole[1].name, whole[1].values) == ("compile", (6.5 + 0.5,))


def test_a_batch_counts_by_its_images_and_the_first_does_not_count() -> None:
    device = FakeDevice(batch=[900, 8, 12])
    batches = [[SHOT] * 4] * 3
    found = time_batches(device.stages(), device.clock(), "pipe", batches)
    assert found == {"per_image_at_batch": (2 / 1024, 3 / 1024)}
    assert time_batches(device.stages(), device.clock(), "pipe", []) == {}


def test_the_cpu_clock_counts_seconds() -> None:
    clock = device_clock("cpu")
    before = clock.mark()
    start = time.monotonic()
    time.sleep(0.02)
    clock.settle()
    seconds = clock.seconds(before, clock.mark())
    assert 0.02 <= seconds <= time.monotonic() - start + 0.05


def test_the_cuda_clock_reads_events_of_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    now = iter([10.0, 2510.0])

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            self.milliseconds = next(now)

        def elapsed_time(self, later: Event) -> float:
            return later.milliseconds - self.milliseconds

    cuda = SimpleNamespace(
        Event=Event,
        set_device=lambda device: calls.append(f"set {device}"),
        synchronize=lambda device: calls.append(f"wait {device}"),
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    clock = device_clock("cuda:1")
    assert calls == ["set cuda:1", "wait cuda:1"]
    before, after = clock.mark(), clock.mark()
    clock.settle()
    assert clock.seconds(before, after) == 2.5
    assert calls[-1] == "wait cuda:1"
