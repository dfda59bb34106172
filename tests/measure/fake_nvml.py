"""A driver made of numbers: a module ``pynvml`` that answers as ``nvidia-ml-py`` does, by its own names and units."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace

import pytest


class FakeNvmlError(Exception):
    """Stands for ``pynvml.NVMLError``."""


@dataclass
class FakeDriver:
    """One device, which torch sees as cuda:0 and the driver knows by its UUID; change the numbers as you like."""

    processes: list[SimpleNamespace] = field(default_factory=list)
    graphics: list[SimpleNamespace] = field(default_factory=list)
    percent: int = 0
    millijoules: int = 1_000_000
    reasons: int = 0
    celsius: int = 45
    megahertz: dict[int, int] = field(default_factory=lambda: {1: 1980, 2: 2619})
    errors: dict[str, str] = field(default_factory=dict)
    """What a function says instead of an answer, by its name."""
    missing: tuple[str, ...] = ()
    """Functions that this version of the module does not have."""

    def module(self) -> ModuleType:
        module = ModuleType("pynvml")
        module.__spec__ = SimpleNamespace()  # type: ignore[assignment]  # what find_spec looks at
        members = {
            "nvmlInit": lambda: None,
            "nvmlDeviceGetHandleByUUID": lambda uuid: {"GPU-1234-abcd": "handle"}[uuid],
            "nvmlDeviceGetComputeRunningProcesses": lambda handle: list(self.processes),
            "nvmlDeviceGetGraphicsRunningProcesses": lambda handle: list(self.graphics),
            "nvmlDeviceGetUtilizationRates": lambda handle: SimpleNamespace(gpu=self.percent, memory=1),
            "nvmlDeviceGetTotalEnergyConsumption": lambda handle: self.millijoules,
            "nvmlDeviceGetCurrentClocksEventReasons": lambda handle: self.reasons,
            "nvmlDeviceGetCurrentClocksThrottleReasons": lambda handle: self.reasons,
            "nvmlDeviceGetTemperatureV": lambda handle, sensor: {0: self.celsius}[sensor],
            "nvmlDeviceGetTemperature": lambda handle, sensor: {0: self.celsius}[sensor],
            "nvmlDeviceGetClockInfo": lambda handle, kind: self.megahertz[kind],
        }
        constants = {"NVMLError": FakeNvmlError, "NVML_TEMPERATURE_GPU": 0, "NVML_CLOCK_SM": 1, "NVML_CLOCK_MEM": 2}
        for name, member in members.items():
            if name not in self.missing:
                setattr(module, name, self._refusing(name, member))
        for name, value in constants.items():
            setattr(module, name, value)
        return module

    def _refusing(self, name: str, member: object) -> object:
        def asked(*arguments: object) -> object:
            if name in self.errors:
                raise FakeNvmlError(self.errors[name])
            assert name == "nvmlInit" or arguments[0] in ("handle", "GPU-1234-abcd")
            return member(*arguments)  # type: ignore[operator]

        return asked


def install(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the driver's module where ``pynvml`` is looked for, and a torch that knows the device's UUID."""
    monkeypatch.setitem(sys.modules, "pynvml", driver.module())
    cuda = SimpleNamespace(get_device_properties=lambda device: {"cuda:0": SimpleNamespace(uuid="1234-abcd")}[device])
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
