"""What ``doctor`` foretells of memory and time, in words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bench.records import Machine, MemoryForecast, Suite, TimeForecast
from bench.wording import quantity

if TYPE_CHECKING:
    from bench.variants import Needed


def foretell(
    suite: Suite, machine: Machine, needed: tuple[Needed, ...], folder: Path
) -> tuple[MemoryForecast | None, TimeForecast]:
    """Memory and time of a suite on this machine, from headers and from the timings that its folder may hold.

    Raises:
        WeightsError: the header of a file of weights cannot be read.
        HotartError: the folder holds a run that cannot be read.
    """
    from bench.forecast import forecast_memory, forecast_time
    from bench.forecast.parts import parts_of
    from bench.store import load_run

    run = load_run(folder) if (folder / "run.json").is_file() else None
    parts = parts_of(suite.variants[0], needed)
    return forecast_memory(suite, machine, needed), forecast_time(suite, machine, run, parts)


def memory_words(found: MemoryForecast | None, weights_bytes: int | None) -> str:
    """The row on memory: peak and need against what there is; without a forecast what the weights alone take."""
    if found is None:
        if weights_bytes is None:
            return "unknown until the weights are here"
        return f"{quantity(weights_bytes, 'byte')} for the largest variant's weights, and working space"
    part = "decoding" if found.decode_bytes >= found.denoise_bytes else "denoising"
    fits = "which fits" if found.fits else "which does NOT fit"
    return (
        f"about {quantity(found.peak_bytes, 'byte')} at the peak ({part}, {found.variant}); with context and reserve "
        f"{quantity(found.needed_bytes, 'byte')} of {quantity(found.available_bytes, 'byte')}, {fits}"
    )


def time_words(found: TimeForecast | None) -> str:
    """The row on time: rendering and measuring, or that it cannot be told."""
    if found is None or found.render_s is None or found.measure_s is None:
        return "not known"
    return f"about {clock_words(found.render_s)} to render, {clock_words(found.measure_s)} to measure; scoring on top"


def clock_words(seconds: float) -> str:
    """A span to the accuracy of a forecast: ``50 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def memory_advice(found: MemoryForecast) -> str:
    """The settings that would fit, in a sentence; nothing where there are none, or the suite's do."""
    return f"In [settings], {'; or '.join(found.advice)}. Each makes another protocol." if found.advice else ""


def forecast_notes(memory: MemoryForecast | None, time: TimeForecast | None) -> tuple[str, ...]:
    """What the forecasts rest on, and which settings would fit."""
    notes: list[str] = []
    if memory is not None:
        notes.append(memory.basis)
        if memory.advice:
            notes.append(memory_advice(memory))
    if time is not None:
        notes.append(time.basis)
    return tuple(notes)
