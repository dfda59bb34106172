"""What a suite would take on this machine, foretold without loading anything: memory and time. Estimates."""

from __future__ import annotations

from bench.forecast.memory import forecast_memory
from bench.forecast.pace import forecast_time

__all__ = ["forecast_memory", "forecast_time"]
