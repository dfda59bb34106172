"""The child: its messages, its errors, its passes, and the process itself with a fake pipeline."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import msgspec
import pytest
import torch
from fake_nvml import FakeDriver

from bench.errors import MachineError, WeightsError
from bench.measure import meters, worker
from bench.measure.nvml import Gpu
from bench.measure.process import GO, Failure, Message, Ready, Reply, Request, encode
from bench.measure.stopwatch import Clock, Shot, Stages
from bench.measure.worker import answer, measure_request
from bench.pipeline import denoise as variant_stages
from bench.pipeline.denoise import Decoded
from bench.records import Conditions, Lora, Settings, Variant

SETTINGS = Settings(width=64, height=64, steps=3, guidance_scale=3.0, sampler="ddim")
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


class Unet(torch.nn.Module):
    """As much of a UNet as is looked at."""

    attn_processors: ClassVar[dict[str, object]] = {}


PIPE = SimpleNamespace(unet=Unet())


@pytest.fixture(autouse=True)
def quiet_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meters, "cpu_load", lambda: (3.0, 0.5))


def make_stages(load: Callable[[], Any] = lambda: PIPE) -> Stages:
    """Stages that do nothing, in three steps."""

    def denoise(pipe: Any, encoded: Any, latents: Any, shot: Shot, on_step: Callable[[int], None]) -> None:
        for number in range(3):
            on_step(number)

    return Stages(load, lambda *_: None, lambda *_: None, denoise, lambda *_: None, lambda *_: None)


# --- messages ------------------------------------------------------------------------------


def test_a_request_survives_the_pipe_as_one_line() -> None:
    line = encode(make_request())
    assert line.count(b"\n") == 1
    assert msgspec.json.decode(line, type=Request) == make_request()


@pytest.mark.parametrize(
    "message",
    [
        3,
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
    assert reply.notes == ("Arithmetic of the timing processes: float32; attention by none; not compiled.",)


def test_batches_are_timed_after_the_peak_of_one_image() -> None:
    request = make_request()
    request = msgspec.structs.replace(request, batches=(request.shots[:2],) * 3)
    names = [(timing.name, len(timing.values)) for timing in _reply(request).timings]
    assert names[-2:] == [("peak_rss", 1), ("per_image_at_batch", 2)]


def _reply(request: Request) -> Reply:
    return measure_request(request, make_stages(), CLOCK, lambda done: None)


def test_the_conditions_stand_once_with_the_whole_images() -> None:
    reply = measure_request(make_request(), make_stages(), CLOCK, lambda done: None)
    (of,) = (timing for timing in reply.timings if timing.conditions is not None)
    assert of.name == "end_to_end"
    assert of.conditions == Conditions(cpu_percent=3.0, cpu_load=0.5)


def test_a_compiled_variant_has_the_time_of_its_compilation() -> None:
    request = msgspec.structs.replace(make_request(), settings=msgspec.structs.replace(SETTINGS, compile=True))
    reply = measure_request(request, make_stages(), CLOCK, lambda done: None)
    assert [timing.name for timing in reply.timings][:3] == ["load", "compile", "first_image"]


def test_a_variant_that_is_compiled_whole_has_the_time_of_both_graphs_and_says_how_it_runs() -> None:
    request = make_request()
    request = msgspec.structs.replace(request, variant=Variant(name="fast", checkpoint="mini", runtime="compile"))
    now = iter(range(1000))
    clock = Clock(lambda: float(next(now)), lambda before, after: after - before, lambda: None)
    reply = measure_request(request, make_stages(), clock, lambda done: None)
    values = {timing.name: timing.values for timing in reply.timings}
    assert list(values)[:3] == ["load", "compile", "first_image"]
    assert values["compile"] == (values["denoise_step"][0] + values["vae_decode"][0],)
    assert reply.notes[0].startswith("Arithmetic of the timing processes of fast, which runs by compile: float32;")


def test_on_cuda_times_come_first_then_energy_then_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[str] = []
    pids = {os.getppid(): 400, os.getpid(): 1500}
    driver = FakeDriver(processes=[SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in pids.items()])
    now = [0.0]

    def drawn(pipe: Any, latents: Any) -> None:
        now[0] += 2.0
        driver.millijoules += 1_400_000
        passes.append("image")

    monkeypatch.setattr(worker, "find_gpu", lambda device, parents: (Gpu(driver.module(), "handle", parents), ""))
    monkeypatch.setattr(worker, "arithmetic_note", lambda *_: "as usual")
    monkeypatch.setattr(meters, "reset_device_peaks", lambda device: passes.append("reset"))
    monkeypatch.setattr(meters, "device_peaks", lambda device: (700, 1100))
    clock = Clock(lambda: now[0], lambda before, after: after - before, lambda: None)
    request = msgspec.structs.replace(make_request("cuda:0"), parents=1)
    reply = measure_request(request, make_stages()._replace(decode=drawn), clock, lambda done: None)
    values = {timing.name: timing.values for timing in reply.timings}
    assert values["energy_per_image"] == (1400.0, 1400.0)
    assert (values["peak_allocated"], values["peak_reserved"], values["peak_process"]) == ((700,), (1100,), (1500,))
    units = {timing.name: timing.unit for timing in reply.timings}
    assert (units["energy_per_image"], units["peak_process"], units["end_to_end"]) == ("joule", "byte", "second")
    assert [one.conditions.other_processes for one in reply.timings if one.conditions] == [0], "the parent is none"
    # The first image, a warm-up and two timed ones; two windows of 3 images of 2 s; one image for memory.
    assert passes == ["image"] * (4 + 2 * 3) + ["reset", "image"]
    assert reply.notes == ("as usual",)


def test_without_the_driver_it_is_said_once_and_torchs_peaks_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "find_gpu", lambda *_: (None, "nvidia-ml-py is not installed"))
    monkeypatch.setattr(worker, "arithmetic_note", lambda *_: "as usual")
    monkeypatch.setattr(meters, "reset_device_peaks", lambda device: None)
    monkeypatch.setattr(meters, "device_peaks", lambda device: (700, 1100))
    reply = measure_request(make_request("cuda:0"), make_stages(), CLOCK, lambda done: None)
    names = {timing.name for timing in reply.timings}
    assert {"peak_allocated", "peak_reserved"} < names
    assert not {"peak_process", "energy_per_image"} & names
    assert reply.notes == (
        "as usual",
        "Energy, process memory, clocks and heat were not read: nvidia-ml-py is not installed.",
    )


def test_decoding_is_timed_as_rendering_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def decode_levels(pipe: Any, latents: Any) -> Decoded:
        done.append(f"{pipe} decodes {latents}")
        return Decoded(
            torch.zeros(1, 8, 8, 3, dtype=torch.uint8), torch.zeros(1), "bfloat16", lambda: done.append("wait")
        )

    monkeypatch.setattr(variant_stages, "decode_levels", decode_levels)
    monkeypatch.setattr(worker, "import_models", lambda sampler: None)
    levels = worker.pipeline_stages(make_request()).decode("the VAE", "them")
    assert done == ["the VAE decodes them", "wait"], "the pixels are in host memory when it returns"
    assert levels.dtype == torch.uint8


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
    from bench.measure import worker
    from bench.measure.stopwatch import Stages, device_clock

    def denoise(pipe, encoded, latents, shot, on_step):
        print("a library prints")
        os.write(1, b"and so does its C part\\n")
        time.sleep({sleep})
        on_step(0)

    worker.arithmetic_note = lambda *_: "as usual"
    worker.pipeline_stages = lambda request: Stages(
        lambda: None, lambda *_: None, lambda *_: None, denoise, lambda *_: None, lambda *_: None
    )
    worker.main()
"""


def _start_worker(sleep_s: float, *, has_turn: bool = True) -> subprocess.Popen[bytes]:
    root = str(Path(worker.__file__).resolve().parents[2])
    program = textwrap.dedent(FAKE.format(root=root, sleep=sleep_s))
    pipe = subprocess.PIPE
    child = subprocess.Popen([sys.executable, "-P", "-c", program], stdin=pipe, stdout=pipe, stderr=pipe)
    assert child.stdin is not None
    child.stdin.write(encode(make_request()))
    child.stdin.flush()
    assert child.stdout is not None
    assert msgspec.json.decode(child.stdout.readline(), type=Message) == Ready()
    if has_turn:
        child.stdin.write(GO)
        child.stdin.flush()
    return child


def test_stdout_holds_messages_alone_whatever_libraries_print() -> None:
    with _start_worker(sleep_s=0) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        messages = [msgspec.json.decode(line, type=Message) for line in child.stdout]
        noise = child.stderr.read()
    assert child.returncode == 0
    assert messages[:-1] == [1, 2, 3, 4]
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


def test_a_child_that_waits_for_its_turn_ends_with_its_parent_too() -> None:
    with _start_worker(sleep_s=0, has_turn=False) as child:
        assert child.stdin is not None
        child.stdin.close()
        assert child.wait(timeout=30) == 1
