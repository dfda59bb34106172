"""What the NVIDIA driver knows of a CUDA device: memory by process, energy, clocks, heat, slowdowns.

It is read through ``nvidia-ml-py`` (module ``pynvml``), which is optional. Some cards, drivers and containers do not
answer, so each function gives a ``Reading``: a value, or the reason why there is none.

Source: NVML API reference, "Device Queries"; the functions are called as ``nvidia-ml-py`` 12 and 13 have them.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from bench.records import DeviceState

REASONS = {
    0x2: "application clocks",
    0x4: "power limit",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "heat (software slowdown)",
    0x40: "heat (hardware slowdown)",
    0x80: "power brake",
    0x100: "display clocks",
    0x200: "board limit",
    0x400: "reliability limit",
}
"""What holds the clocks down, by the bits of nvml.h (``nvmlClocksEventReason...``)."""
IDLE = 0x1
"""The bit of a device that has nothing to do, which slows nothing down."""
COMPUTE, GRAPHICS = "nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetGraphicsRunningProcesses"


class Gpu(NamedTuple):
    """A device as the driver knows it."""

    nvml: Any
    """The module ``pynvml``, started."""
    handle: Any
    parents: int = 0
    """Other processes of this program that have a context on the device: 1 where the parent rendered before."""


class Reading(NamedTuple):
    """A whole number, or None with the sentence why there is none."""

    value: int | None
    reason: str = ""


def find_gpu(device: str, parents: int = 0) -> tuple[Gpu | None, str]:
    """Find torch's CUDA ``device`` in the driver, or say why it cannot be found; ``parents`` as in ``Gpu``.

    It is found by its UUID: indices differ under CUDA_VISIBLE_DEVICES. A MIG slice has none that the driver accepts.
    """
    if importlib.util.find_spec("pynvml") is None:
        return None, "nvidia-ml-py is not installed (pip install nvidia-ml-py)"
    import torch

    nvml = importlib.import_module("pynvml")
    try:
        nvml.nvmlInit()
        handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
    except nvml.NVMLError as error:
        return None, f"NVML reports: {error}"
    return Gpu(nvml, handle, parents), ""


def process_bytes(gpu: Gpu) -> Reading:
    """Read what the driver books for this process, in bytes: tensors, cache, context and libraries, now.

    This process is known by its number. In a container, whose numbers the driver does not know, it is known by there
    being no other process than those of this program: it has a context, so it is listed. Next to its parent it is the
    one with the most memory, since a context is all that the parent keeps.
    """
    processes, reason = _listed(gpu, COMPUTE)
    own = [processes[os.getpid()]] if os.getpid() in processes else [*processes.values()]
    alone = len(own) == 1 or len(own) == 1 + gpu.parents
    if not own or not alone or None in own:
        return Reading(None, reason or "the driver does not list this process, as in a container or a MIG slice")
    return Reading(max(int(used) for used in own if used is not None))


def other_processes(gpu: Gpu) -> Reading:
    """Count the foreign processes on the device: not this one, which has a context there already, nor its parent.

    Counted are those that compute and those that draw graphics; one that does both counts once. Only their number
    matters, so that it holds where the driver knows this process by another id. A driver that lists no process that
    computes, not even this one, cannot know; one that does not list graphics has none.
    """
    processes, reason = _listed(gpu, COMPUTE)
    if not processes:
        return Reading(None, reason or "the driver lists no processes, as in a container")
    graphics, _ = _listed(gpu, GRAPHICS)
    return Reading(max(0, len(processes.keys() | graphics.keys()) - 1 - gpu.parents))


def busy_percent(gpu: Gpu) -> Reading:
    """Read the share of time, 0 to 100, in which the device ran any kernel over the driver's last sample.

    Before this process gives the device work, all of it is foreign.
    """
    try:
        return Reading(int(gpu.nvml.nvmlDeviceGetUtilizationRates(gpu.handle).gpu))
    except gpu.nvml.NVMLError as error:
        return Reading(None, f"NVML reports: {error}")


def energy_millijoules(gpu: Gpu) -> Reading:
    """Read the energy that the whole device has taken since the driver was loaded, in mJ.

    A counter in the hardware of Volta and later cards; sampled power would miss most of the time on A100 and H100
    (arXiv 2312.02741).
    """
    return _ask(gpu, ("nvmlDeviceGetTotalEnergyConsumption",))


def clock_reasons(gpu: Gpu) -> Reading:
    """Read why the clocks are what they are now: an OR of bits, in words by ``words_of``.

    Newer drivers say "event" where older ones said "throttle".
    """
    return _ask(gpu, ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"))


def device_state(gpu: Gpu) -> DeviceState:
    """Read temperature (degrees Celsius) and clocks (MHz); None where the card does not say."""
    sensor = gpu.nvml.NVML_TEMPERATURE_GPU
    return DeviceState(
        temperature_c=_ask(gpu, ("nvmlDeviceGetTemperatureV", "nvmlDeviceGetTemperature"), sensor).value,
        sm_clock_mhz=_ask(gpu, ("nvmlDeviceGetClockInfo",), gpu.nvml.NVML_CLOCK_SM).value,
        memory_clock_mhz=_ask(gpu, ("nvmlDeviceGetClockInfo",), gpu.nvml.NVML_CLOCK_MEM).value,
    )


def words_of(bits: int) -> tuple[str, ...]:
    """Name what holds the clocks down; a bit that nvml.h did not have is given as a number."""
    found = [1 << place for place in range(bits.bit_length()) if bits >> place & 1]
    return tuple(REASONS.get(bit, f"reason {bit:#x}") for bit in found if bit != IDLE)


def _listed(gpu: Gpu, function: str) -> tuple[dict[int, int | None], str]:
    """Bytes by the number of each listed process, None where the driver hides them; and why there are none."""
    try:
        return {one.pid: one.usedGpuMemory for one in getattr(gpu.nvml, function)(gpu.handle)}, ""
    except gpu.nvml.NVMLError as error:
        return {}, f"NVML reports: {error}"


def _ask(gpu: Gpu, names: Sequence[str], *arguments: Any) -> Reading:
    """The answer of the first function that both the Python module and the driver have."""
    reason = "this nvidia-ml-py has no such function"
    for name in names:
        function = getattr(gpu.nvml, name, None)
        if function is None:
            continue
        try:
            return Reading(int(function(gpu.handle, *arguments)))
        except gpu.nvml.NVMLError as error:
            reason = f"NVML reports: {error}"
    return Reading(None, reason)
