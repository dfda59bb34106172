"""The child: its messages, its errors, its memory pass, and the process itself with a fake pipeline."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from bench import meters, worker
from bench.errors import MachineError, WeightsError
from bench.laps import Clock, Shot, Stages
from bench.meters import DevicePeaks, Reading
from bench.records import Lora, Settings, Variant
from bench.worker import (
    Failure,
    Message,
    Reply,
    Request,
    Tick,
    answer,
    encode,
    measure_memory,
    measure_request,
)

SETTINGS = Settings(width=64, height=64, steps=3, guidance=3.0, sampler="ddim")
CLOCK = Clock(lambda: 0.0, lambda before, after: after - before, lambda: None)


def make_request(device: str = "cpu", images: int = 2, warmups: int = 1) -> Request:
    """A request whose prompts need every kind of escaping."""
    shots = tuple(
        Shot(prompt=f'a "lake" {n}\n💃', negative="", seed=2**63 - 1 - n) for n in range(1 + warmups + images)
    )
    return Request(
        variant=Variant(name="dpo", checkpoint="mini", loras=(Lora(path="mini:dpo", weight=0.5),)),
        settings=SETTINGS,
        device=device,
        weights_dir=None,
        round=1,
        warmups=warmups,
        shots=shots,
    )


def make_stages(load: Callable[[], Any] = lambda: "pipe") -> Stages:
    """Stages that do nothing, in three steps."""

    def denoise(pipe: Any, encoded: Any, latents: Any, shot: Shot, on_step: Callable[[int], None]) -> None:
        for number in range(3):
            on_step(number)

    return Stages(load, lambda *_: None, lambda *_: None, denoise, lambda *_: None)


# --- messages ------------------------------------------------------------------------------


def test_a_request_survives_the_pipe_as_one_line() -> None:
    line = encode(make_request())
    assert line.count(b"\n") == 1
    assert msgspec.json.decode(line, type=Request) == make_request()


@pytest.mark.parametrize(
    "message",
    [
        Tick(done=3),
        Reply(timings=(), threads=2, notes=("a note",)),
        Failure(exit_code=3, message="no such file", hint="fetch it"),
    ],
)
def test_each_message_comes_back_as_its_own_kind(message: Message) -> None:
    assert msgspec.json.decode(encode(message), type=Message) == message


# --- one request ---------------------------------------------------------------------------


def test_the_reply_holds_every_name_with_as_many_values_as_asked_for() -> None:
    ticks: list[int] = []
    reply = measure_request(make_request(), make_stages(), CLOCK, ticks.append)
    counts = {timing.name: (len(timing.warmups), len(timing.values)) for timing in reply.timings}
    assert counts == {
        "load": (0, 1),
        "first_image": (0, 1),
        "text_encode": (1, 2),
        "denoise_step": (3, 6),
        "vae_decode": (1, 2),
        "end_to_end": (1, 2),
        "peak_rss": (0, 1),
    }
    assert ticks == [1, 2, 3, 4]
    assert {(t.variant, t.round, t.process) for t in reply.timings} == {("dpo", 1, os.getpid())}
    assert reply.threads == torch.get_num_threads()
    assert reply.notes == ()


@pytest.fixture
def cuda_meters(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A CUDA device of numbers; gives the order in which its meters were used."""
    calls: list[str] = []
    answers: dict[str, object] = {
        "reset_device_peaks": None,
        "device_peaks": DevicePeaks(700, 1100),
        "device_process_bytes": Reading(1500),
        "device_load_percent": Reading(0),
        "peak_rss_bytes": 2000,
    }
    for name, value in answers.items():
        monkeypatch.setattr(meters, name, lambda *_, name=name, value=value: (calls.append(name), value)[1])
    return calls


def test_device_memory_is_of_one_image_between_reset_and_reading(cuda_meters: list[str]) -> None:
    records, notes = measure_memory(make_request("cuda:0"), lambda: cuda_meters.append("draw"))
    assert cuda_meters[:3] == ["reset_device_peaks", "draw", "device_peaks"]
    assert {r.name: r.values for r in records} == {
        "peak_allocated": (700.0,),
        "peak_reserved": (1100.0,),
        "peak_process": (1500.0,),
        "peak_rss": (2000.0,),
    }
    assert {r.unit for r in records} == {"byte"}
    assert notes == ()


def test_process_memory_that_cannot_be_read_is_left_out_and_said(
    cuda_meters: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meters, "device_process_bytes", lambda device: Reading(None, "it is not installed"))
    records, notes = measure_memory(make_request("cuda:0"), lambda: None)
    assert "peak_process" not in {r.name for r in records}
    assert notes == ("peak_process was not measured: it is not installed.",)


def test_a_cpu_draws_nothing_for_memory() -> None:
    records, _ = measure_memory(make_request(), lambda: pytest.fail("an image was drawn"))
    assert [r.name for r in records] == ["peak_rss"]


@pytest.mark.parametrize(("percent", "notes"), [(None, 0), (0, 0), (25, 0), (26, 1)])
def test_foreign_work_on_the_device_is_noted(monkeypatch: pytest.MonkeyPatch, percent: int | None, notes: int) -> None:
    monkeypatch.setattr(meters, "device_load_percent", lambda device: Reading(percent))
    found = worker.busy_device_notes(make_request("cuda:0"))
    assert len(found) == notes
    assert all("26 % busy" in note and "dpo, round 2" in note for note in found)
    assert worker.busy_device_notes(make_request("cpu")) == ()


# --- errors --------------------------------------------------------------------------------


def _answer_with(error: Exception) -> Message:
    def load() -> None:
        raise error

    sent: list[Message] = []
    answer(make_request(), make_stages(load), CLOCK, sent.append)
    (message,) = sent
    return message


def test_an_error_for_the_user_is_sent_with_code_and_hint() -> None:
    message = _answer_with(WeightsError("unet.safetensors is truncated.", "hotart-bench doctor"))
    assert message == Failure(exit_code=3, message="unet.safetensors is truncated.", hint="hotart-bench doctor")


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB\nmore")]
)
def test_no_memory_is_the_machines_error(error: Exception) -> None:
    message = _answer_with(error)
    assert isinstance(message, Failure)
    assert message.exit_code == MachineError.exit_code
    assert "dpo does not fit into the memory of cpu" in message.message
    assert "\n" not in message.message


def test_a_bug_ends_the_process_with_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        _answer_with(ZeroDivisionError())


# --- the process ---------------------------------------------------------------------------

FAKE = """
    import os, sys, time
    sys.path.insert(0, {root!r})
    from bench import worker
    from bench.laps import Stages, device_clock

    def denoise(pipe, encoded, latents, shot, on_step):
        print("a library prints")
        os.write(1, b"and so does its C part\\n")
        time.sleep({sleep})
        on_step(0)

    worker.pipeline_stages = lambda request: Stages(
        lambda: None, lambda *_: None, lambda *_: None, denoise, lambda *_: None
    )
    worker.main()
"""


def _start_worker(sleep_s: float) -> subprocess.Popen[bytes]:
    root = str(Path(worker.__file__).resolve().parent.parent)
    program = textwrap.dedent(FAKE.format(root=root, sleep=sleep_s))
    pipe = subprocess.PIPE
    child = subprocess.Popen([sys.executable, "-P", "-c", program], stdin=pipe, stdout=pipe, stderr=pipe)
    assert child.stdin is not None
    child.stdin.write(encode(make_request()))
    child.stdin.flush()
    return child


def test_stdout_holds_messages_alone_whatever_libraries_print() -> None:
    with _start_worker(sleep_s=0) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        messages = [msgspec.json.decode(line, type=Message) for line in child.stdout]
        noise = child.stderr.read()
    assert child.returncode == 0
    assert messages[:-1] == [Tick(done=1), Tick(done=2), Tick(done=3), Tick(done=4)]
    assert isinstance(messages[-1], Reply)
    assert {timing.process for timing in messages[-1].timings} == {child.pid}
    assert noise.count(b"a library prints") == 4
    assert noise.count(b"and so does its C part") == 4


def test_the_child_ends_when_its_parent_is_gone() -> None:
    with _start_worker(sleep_s=600) as child:
        assert child.stdin is not None
        assert child.stderr is not None
        assert child.stderr.readline()  # it is in the middle of an image
        child.stdin.close()
        assert child.wait(timeout=30) == 1
