"""Meters of memory and load, against processes whose memory and work are known."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.compare.timing import BUSY_PERCENT
from bench.measure import meters

MIB = 2**20


def _peak_in_child(code: str) -> int:
    root = str(Path(meters.__file__).resolve().parents[2])
    start = f"import sys; sys.path.insert(0, {root!r})\nfrom bench.measure.meters import peak_rss_bytes"
    program = f"{start}\n{code}\nprint(peak_rss_bytes())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_the_peak_stays_when_the_memory_is_given_back() -> None:
    small = _peak_in_child("")
    big = _peak_in_child(f"block = b'x' * {200 * MIB}; del block")
    assert 190 * MIB < big - small < 230 * MIB


def test_the_peak_of_a_child_is_not_its_parents() -> None:
    block = b"x" * (300 * MIB)
    assert meters.peak_rss_bytes() > len(block)
    del block
    assert _peak_in_child("") < 200 * MIB


def test_elsewhere_the_peak_is_what_getrusage_says_in_its_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meters, "PROC_STATUS", meters.PROC_STATUS / "missing")
    usage = SimpleNamespace(ru_maxrss=3000)
    monkeypatch.setattr(meters.resource, "getrusage", lambda who: usage)
    monkeypatch.setattr(meters.sys, "platform", "darwin")
    assert meters.peak_rss_bytes() == 3000
    monkeypatch.setattr(meters.sys, "platform", "freebsd14")
    assert meters.peak_rss_bytes() == 3000 * 1024


def test_a_spinning_process_is_seen_as_load() -> None:
    spin = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        deadline = time.monotonic() + 10
        while meters.cpu_load().percent <= BUSY_PERCENT:
            assert time.monotonic() < deadline, "a machine that is kept busy was not called busy"
    finally:
        for process in spin:
            process.kill()
            process.wait()


def test_polling_keeps_a_peak_that_is_gone_when_the_work_is_done() -> None:
    level = [1]
    with meters.polled(lambda: level[0], 0.001) as samples:
        level[0] = 7
        deadline = time.monotonic() + 10
        while 7 not in samples:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        level[0] = 2
    assert (max(samples), samples[-1]) == (7, 2), "and reads once more at the end"


def test_polling_reads_once_even_of_work_that_takes_no_time() -> None:
    with meters.polled(lambda: 3, 60.0) as samples:
        pass
    assert samples == [3]


def test_polling_ends_with_the_work_whatever_ends_it() -> None:
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError), meters.polled(lambda: 3, 60.0):
        raise ZeroDivisionError
    assert threading.active_count() == before


def test_what_a_meter_raises_is_not_swallowed() -> None:
    def broken() -> int:
        raise ArithmeticError

    with pytest.raises(ArithmeticError), meters.polled(broken, 0.001):
        time.sleep(0.05)


def test_mps_memory_is_what_tensors_hold_and_what_metal_gave(monkeypatch: pytest.MonkeyPatch) -> None:
    mps = SimpleNamespace(current_allocated_memory=lambda: 5, driver_allocated_memory=lambda: 9)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(mps=mps))
    assert meters.mps_bytes() == meters.DevicePeaks(allocated_bytes=5, reserved_bytes=9)


def test_device_peaks_are_read_after_the_device_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    cuda = SimpleNamespace()
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    for name, value in {
        "synchronize": None,
        "empty_cache": None,
        "reset_peak_memory_stats": None,
        "max_memory_allocated": 7,
        "max_memory_reserved": 11,
    }.items():
        setattr(cuda, name, lambda device="", name=name, value=value: (calls.append(name), value)[1])
    meters.reset_device_peaks("cuda:0")
    assert calls == ["synchronize", "empty_cache", "reset_peak_memory_stats"]
    calls.clear()
    assert meters.device_peaks("cuda:0") == meters.DevicePeaks(7, 11)
    assert calls[0] == "synchronize"
