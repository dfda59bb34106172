"""Rendering on many GPUs and machines: workers on a Ray cluster draw, this process writes the run folder.

A worker holds one pipeline on one device of its own. What it is given is a planned batch of the suite, so its
images are the same bytes as from one process on that kind of device. Neither Ray nor torch is imported before
there is something to render.
"""

from __future__ import annotations

from bench.fleet.crew import Fleet
from bench.fleet.drive import render_on_fleet

__all__ = ["Fleet", "render_on_fleet"]
