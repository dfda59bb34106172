"""A suite under several settings: the axes that flags name, their product, and the suite of each setting."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from bench.errors import UsageError
from bench.formatting import did_you_mean, joined, plural, value_text
from bench.records import SCHEMA, AxisName, Grid, GridAxis, GridMember, GridValue, Suite
from bench.records.base import SCHEDULES_OF
from bench.suite.file import problems_of
from bench.suite.limits import quantity_of
from bench.suite.sampler_names import is_drawn, read_sampler
from bench.suite.sampling import ETA, SAMPLERS, SCHEDULES, sampler_of, sampling_notes, schedule_of, usual_schedule
from bench.suite.sweep import UNTIMED

SEED: AxisName = "seed"
MOST_SETTINGS = 500
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?(e-?[0-9]{1,3})?")
_WHOLE = re.compile(r"-?[0-9]{1,30}")
_SIZE = re.compile(r"([0-9]{1,5})x([0-9]{1,5})")


# What an axis is: how its values are read, and what of a suite they replace.


def _number(text: str) -> float | None:
    value = float(text) if _NUMBER.fullmatch(text) else math.inf
    return value if math.isfinite(value) else None


def _whole(text: str) -> int | None:
    return int(text) if _WHOLE.fullmatch(text) else None


def _size(text: str) -> str | None:
    found = _SIZE.fullmatch(text)
    return found and f"{int(found[1])}x{int(found[2])}"


_READERS: dict[AxisName, tuple[Callable[[str], GridValue | None], str]] = {
    "guidance_scale": (_number, "a number, such as 7.5"),
    "sampler": (sampler_of, f"one of {', '.join(SAMPLERS)}"),
    "schedule": (schedule_of, f"one of {', '.join(SCHEDULES)}"),
    "steps": (_whole, "a whole number, such as 20"),
    "eta": (_number, "a number, such as 0.5"),
    "size": (_size, "width and height in pixels, such as 1024x768"),
    SEED: (_whole, "a whole number, such as 0"),
}
AXES: tuple[AxisName, ...] = tuple(_READERS)
"""The axes there may be; a grid's come in this order, so that seeds run fastest."""


def flag_of(axis: str) -> str:
    """``--guidance-scale`` for ``guidance_scale``."""
    return f"--{axis.replace('_', '-')}"


def read_axis(name: AxisName, texts: Sequence[str]) -> GridAxis:
    """An axis from the values of its flag.

    Raises:
        UsageError: a value that is none, with the nearest one, or one that is given twice.
    """
    read, form = _READERS[name]
    values: list[GridValue] = []
    for text in texts:
        value = read(text)
        if value is None:
            near = did_you_mean(text, {"sampler": SAMPLERS, "schedule": SCHEDULES}.get(name, ()))
            raise UsageError(f"{flag_of(name)}: {text!r} is not {form}{near}.", _how_to_write(name, text))
        if value in values:
            raise UsageError(f"{flag_of(name)}: {value_text(value)} is given twice.")
        values.append(value)
    return GridAxis(name=name, values=tuple(sorted(values, key=_rank)))


def _how_to_write(name: AxisName, text: str) -> str:
    """The flags for a sampler's name that holds a schedule, as A1111's before 1.9 do; else where to look."""
    held = read_sampler(text)
    if name == "sampler" and held.schedule and is_drawn(held):
        return f"write --sampler {held.sampler} --schedule {held.schedule}"
    return "hotart-bench grid --help"


def _rank(value: GridValue) -> tuple[float, float]:
    if not isinstance(value, str):
        return float(value), 0.0
    if value in SAMPLERS or value in SCHEDULES:
        return float((*SAMPLERS, *SCHEDULES).index(value)), 0.0
    width, height = map(int, value.split("x"))
    return float(width * height), float(width)


def value_words(axis: str, value: GridValue) -> str:
    """A value in words: ``guidance scale 7.5``, ``20 steps``, ``ddim``."""
    text = value_text(value)
    words = {"sampler": text, "size": text, "schedule": f"schedule {text}", "steps": f"{text} steps"}
    return words.get(axis, f"{axis.replace('_', ' ')} {text}")


def setting_words(setting: Mapping[str, GridValue]) -> str:
    """A setting in words: ``guidance scale 7.5, ddim, 20 steps``."""
    return ", ".join(value_words(axis, value) for axis, value in setting.items())


def own_value(suite: Suite, axis: str) -> GridValue:
    """What the suite file says itself."""
    if axis == SEED:
        return suite.seed
    if axis == "size":
        return f"{suite.settings.width}x{suite.settings.height}"
    value: GridValue = getattr(suite.settings, axis)
    return value


# The grid.


def make_grid(suite: Suite, axes: Sequence[GridAxis]) -> Grid:
    """The grid of a suite over axes, each setting checked.

    Raises:
        UsageError: no axis, too many settings, or values that cannot be, alone or together: all of them at once.
    """
    if not axes:
        flags = joined([flag_of(name) for name in AXES])
        raise UsageError(
            f"A grid needs values of a setting; there are {flags}.",
            "hotart-bench grid mini --guidance-scale 3,7.5 --sampler ddim,dpmpp_2m",
        )
    ordered = tuple(sorted(axes, key=lambda axis: AXES.index(axis.name)))
    count = math.prod(len(axis.values) for axis in ordered)
    if count > MOST_SETTINGS:
        raise UsageError(f"These are {plural(count, 'setting')}; a grid has at most {MOST_SETTINGS}.")
    grid = Grid(kind="hotart-bench grid", schema=SCHEMA, suite=suite, axes=ordered, members=members_of(ordered))
    suites = [member_suite(suite, member.setting) for member in grid.members]
    problems = [problem for one in suites for problem in problems_of(replace(one, measure=suite.measure))]
    if problems:
        raise UsageError(f"Settings of this grid cannot be: {'. Also: '.join(dict.fromkeys(problems))}.")
    return grid


def members_of(axes: Sequence[GridAxis]) -> tuple[GridMember, ...]:
    """The product of the axes, each setting with the name of its folder."""
    names: list[str] = [axis.name for axis in axes]
    settings = [dict(zip(names, values, strict=True)) for values in itertools.product(*(axis.values for axis in axes))]
    return tuple(GridMember(folder=_folder_name(setting), setting=setting) for setting in settings)


def _folder_name(setting: Mapping[str, GridValue]) -> str:
    return "_".join(f"{axis.replace('_', '-')}-{value_text(value)}" for axis, value in setting.items())


def member_suite(suite: Suite, setting: Mapping[str, GridValue]) -> Suite:
    """The suite of one setting: nothing is timed, no step is scored, and limits on timings are left out."""
    fields: dict[str, Any] = {axis: value for axis, value in setting.items() if axis not in (SEED, "size")}
    if setting.get("schedule", "timesteps") != "timesteps":
        fields["timesteps"] = ()
    sampler = str(setting.get("sampler", suite.settings.sampler))
    fields = {**_eta_of(suite, sampler), **_schedule_of(suite, sampler), **fields}
    if "size" in setting:
        fields["width"], fields["height"] = map(int, str(setting["size"]).split("x"))
    return replace(
        suite,
        settings=replace(suite.settings, **fields),
        seed=setting.get(SEED, suite.seed),
        limits=tuple(limit for limit in suite.limits if quantity_of(limit.name) == "metric"),
        measure=UNTIMED,
        step_metrics=None,
        grid_setting=dict(setting),
    )


def _eta_of(suite: Suite, sampler: str) -> dict[str, float]:
    """The usual eta of another sampler than the suite's where one of both has its own; else the suite's stays."""
    own = suite.settings.sampler
    return {"eta": ETA.get(sampler, 0.0)} if sampler != own and {sampler, own} & ETA.keys() else {}


def _schedule_of(suite: Suite, sampler: str) -> dict[str, str]:
    """The usual schedule of a sampler that cannot follow the suite's, where this is the usual one of its sampler."""
    own = suite.settings
    usual = usual_schedule({"sampler": own.sampler, "timesteps": own.timesteps})
    can = any(name == sampler and own.schedule in able for name, able in SCHEDULES_OF.items())
    if own.schedule != usual or own.timesteps or can:
        return {}
    return {"schedule": usual_schedule({"sampler": sampler})}


def member_notes(grid: Grid) -> tuple[str, ...]:
    """Sentences on what the models do not want of the grid's settings, beside those of the suite."""
    said = (note for one in grid.members for note in _notes_of(grid.suite, one.setting))
    return tuple(note for note in dict.fromkeys(said) if note not in grid.suite.notes)


def _notes_of(suite: Suite, setting: Mapping[str, GridValue]) -> Iterator[str]:
    member = member_suite(suite, setting)
    sampler, schedule, own = member.settings.sampler, member.settings.schedule, suite.settings.schedule
    if "schedule" not in setting and schedule != own:
        yield f"The sampler {sampler} follows the schedule {schedule} in this grid, since it cannot follow {own}."
    yield from sampling_notes(member)


def left_out_notes(suite: Suite) -> tuple[str, ...]:
    """Sentences on what a suite asks for and a grid does not do."""
    notes = []
    timed = [limit.name for limit in suite.limits if quantity_of(limit.name) != "metric"]
    if timed:
        notes.append(f"Nothing is timed in a grid, so its runs have no limits on {joined(timed)}.")
    if suite.step_metrics is not None:
        notes.append("No steps are scored in a grid; hotart-bench steps RUN does it for one of its runs.")
    return tuple(notes)
