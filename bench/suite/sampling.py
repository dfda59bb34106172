"""How a suite's images are sampled: other programs' names read as ours, what goes together, what a model wants."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path, PurePath
from typing import Any, NamedTuple, get_args

from bench.errors import SuiteError
from bench.formatting import joined, plural
from bench.records import Sampler, Schedule, Settings, Suite, Variant
from bench.records.base import SCHEDULES_OF
from bench.suite.sampler_names import (
    AUTOMATIC,
    OTHER_SAMPLERS,
    OTHER_SCHEDULES,
    SAMPLER_NAMES,
    Read,
    is_drawn,
    read_sampler,
    read_schedule,
)

SAMPLERS: tuple[Sampler, ...] = tuple(name for name in get_args(Sampler) if name != "none")
SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)
LAST_TIMESTEP = 999
MOST_DISTILLED = 50
"""Steps of the schedule ``lcm``: the timesteps that LCM was distilled at."""
ETA: Mapping[str, float] = {"tcd": 0.3}
"""eta where a suite leaves it out, of the TCD paper (arXiv 2402.19159); 0 for any other sampler."""
WITH_ETA = ("ddim", "tcd")
TWICE = ("heun", "dpmpp_sde")
"""Samplers that ask the UNet twice in most steps."""


def read_sampling(file: Path | str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The table ``settings`` with sampler and schedule by our names, and with what follows from them.

    A name that no program has, and a value of another type, stay as they are. A schedule that is left out is
    ``timesteps`` where these are given, ``lcm`` for ``lcm`` and ``tcd``, else ``leading``.

    Raises:
        SuiteError: a sampler or schedule that is known and not drawn here; two schedules.
    """
    found, read = dict(settings), Read(None, None)
    if isinstance(settings.get("sampler"), str):
        read = _sampler(file, settings["sampler"])
        found["sampler"] = read.sampler or settings["sampler"]
    if isinstance(settings.get("schedule"), str):
        found["schedule"] = _schedule(file, settings["schedule"], read.sampler)
        if read.schedule and found["schedule"] != read.schedule:
            raise SuiteError(
                f"{file}: settings.sampler is {settings['sampler']!r}, which holds the schedule {read.schedule}, and "
                f"settings.schedule is {settings['schedule']!r}.",
                f'write sampler = "{read.sampler}" and the schedule that you mean',
            )
    elif read.schedule:
        found["schedule"] = read.schedule
    elif "schedule" not in settings:
        found["schedule"] = usual_schedule(found)
    if str(found.get("sampler")) in ETA:
        found.setdefault("eta", ETA[str(found["sampler"])])
    times = found.get("timesteps")
    if isinstance(times, list) and times:
        found.setdefault("steps", len(times))
    return found


def usual_schedule(settings: Mapping[str, Any]) -> Schedule:
    """The schedule of a table ``settings`` that names none."""
    if settings.get("timesteps"):
        return "timesteps"
    return "lcm" if settings.get("sampler") in ("lcm", "tcd") else "leading"


def _sampler(file: Path | str, text: str) -> Read:
    """A sampler's name as ours; nothing where no program has it."""
    if text in SAMPLERS:
        return Read(text, None)
    if read_schedule(text) == AUTOMATIC:
        raise SuiteError(
            f"{file}: settings.sampler is {text!r}: whatever a program takes; a suite names it.",
            f"write one of {joined(SAMPLERS)}",
        )
    read = read_sampler(text)
    if read.sampler is None or is_drawn(read):
        return read
    raise SuiteError(
        f"{file}: settings.sampler is {text!r}, {_whose(OTHER_SAMPLERS, read.sampler)}; it is not drawn here. Allowed "
        f"are {', '.join(SAMPLERS)}."
    )


def _schedule(file: Path | str, text: str, sampler: str | None) -> str:
    """A schedule's name as ours; the text itself where no program has it."""
    read = text if text in SCHEDULES else read_schedule(text)
    if read is None or read in SCHEDULES:
        return read or text
    own = SAMPLER_NAMES[sampler].automatic if sampler in SAMPLER_NAMES else ""
    if read == AUTOMATIC:
        takes = f", which for {SAMPLER_NAMES[sampler].a1111} is {own}" if sampler and own else ""
        raise SuiteError(
            f"{file}: settings.schedule is {text!r}: whatever A1111 takes for the sampler{takes}; a suite names it.",
            f'write schedule = "{own}"' if own else f"write one of {joined(SCHEDULES)}",
        )
    raise SuiteError(
        f"{file}: settings.schedule is {text!r}, {_whose(OTHER_SCHEDULES, read)}; it is not drawn here. Allowed are "
        f"{', '.join(SCHEDULES)}."
    )


def _whose(table: Mapping[str, Any], name: str) -> str:
    names = table[name]
    whose = [program for program, known in (("A1111", names.a1111), ("ComfyUI", names.comfyui)) if known]
    return f"a name of {joined(whose)}"


def sampler_of(text: str) -> Sampler | None:
    """A sampler by any program's name; None for one that is not drawn here, or with a schedule in its name."""
    read = Read(text, None) if text in SAMPLERS else read_sampler(text)
    return next((name for name in SAMPLERS if read == Read(name, None)), None)


def schedule_of(text: str) -> Schedule | None:
    """A schedule by any program's name; None for one that is not drawn here."""
    return next((name for name in SCHEDULES if name == (text if text in SCHEDULES else read_schedule(text))), None)


# What goes together.


def problems_of_sampling(settings: Settings) -> Iterator[str]:
    """What of the sampler's settings cannot be, alone or together, a clause each."""
    able = SCHEDULES_OF.get(settings.sampler, ())
    if settings.schedule not in able:
        yield f"the sampler {settings.sampler} cannot follow the schedule {settings.schedule}; {_can(able)}"
    if settings.eta and settings.sampler not in WITH_ETA:
        only = f"only the samplers {joined(WITH_ETA)} have an eta, not {settings.sampler}"
        yield f"settings.eta is {settings.eta}, but {only}; leave it out or set it to 0"
    if settings.schedule == "lcm" and settings.steps > MOST_DISTILLED:
        yield f"settings.steps is {settings.steps}; the schedule lcm has {MOST_DISTILLED} timesteps to choose from"
    yield from _problems_of_timesteps(settings)
    for field in ("original_size", "target_size"):
        size = getattr(settings, field)
        if size is not None and not all(1 <= pixels <= 65_536 for pixels in size):
            yield f"settings.{field} is {list(size)}; width and height are 1 to 65536 pixels"
    if not all(0 <= pixels <= 65_536 for pixels in settings.crop):
        yield f"settings.crop is {list(settings.crop)}; left and top are 0 to 65536 pixels"


def _can(schedules: tuple[Schedule, ...]) -> str:
    return f"it can follow {joined(schedules)}"


def _problems_of_timesteps(settings: Settings) -> Iterator[str]:
    times, steps = settings.timesteps, settings.steps
    if (settings.schedule == "timesteps") != bool(times):
        if times:
            yield f"settings.timesteps are given, but the schedule is {settings.schedule}; leave one of them out"
        else:
            yield "the schedule timesteps needs settings.timesteps, such as [999, 749, 499, 249]"
        return
    if times and len(times) != steps:
        yield f"settings.steps is {steps}, but settings.timesteps has {len(times)}; leave steps out"
    out = [time for time in times if not 0 <= time <= LAST_TIMESTEP]
    if out:
        yield f"settings.timesteps holds {out[0]}; a timestep is 0 to {LAST_TIMESTEP}"
    if any(later >= earlier for earlier, later in pairwise(times)):
        yield f"settings.timesteps is {list(times)}; each must be less than the one before"


# What a model wants.


class FewSteps(NamedTuple):
    """A kind of model that is drawn in few steps and with next to no guidance, as its authors say."""

    name: str
    most_steps: int


FEW_STEPS: Mapping[str, FewSteps] = {
    "turbo": FewSteps("SDXL Turbo", 8),
    "lightning": FewSteps("SDXL Lightning", 8),
    "hyper": FewSteps("Hyper-SD", 8),
    "dmd2": FewSteps("DMD2", 8),
    "lcm": FewSteps("LCM", 8),
    "tcd": FewSteps("TCD", 50),
    "pcm": FewSteps("PCM", 16),
}
"""What such a model wants. A name proves nothing: it is said, and nothing is refused."""
MOST_GUIDANCE = 2.0
_LETTERS = r"(?<![A-Za-z]){0}(?![a-z])|(?:{1}|{2})(?![a-z])|{0}[-_ ]?lora"
"""Three letters that may stand within another word: a word, also of CamelCase, or before "lora"."""
_NAMED: Mapping[str, re.Pattern[str]] = {
    "turbo": re.compile("turbo", re.IGNORECASE),
    "lightning": re.compile("lightning", re.IGNORECASE),
    "hyper": re.compile(r"hyper[-_ ]?sd|(?<![a-z])hyper(?![a-z])", re.IGNORECASE),  # not "hyperrealism"
    "dmd2": re.compile("dmd2", re.IGNORECASE),
    **{name: re.compile(_LETTERS.format(name, name.upper(), name.title())) for name in ("lcm", "tcd", "pcm")},
}
_GUIDED = re.compile(r"(?<![a-z])cfg(?![a-z])|normalcfg", re.IGNORECASE)
"""LoRAs of Hyper-SD and PCM that are made to be guided."""


def few_steps_named(text: str) -> FewSteps | None:
    """The kind of model that the last part of a path or repository is named after; None where it is not."""
    name = _file_name(text)
    return next((FEW_STEPS[kind] for kind, pattern in _NAMED.items() if pattern.search(name)), None)


def _file_name(text: str) -> str:
    return PurePath(text.replace("\\", "/")).name


def few_steps_of(variant: Variant) -> FewSteps | None:
    """The kind of model that a variant's files are named after, but for those that are made to be guided."""
    for text in (variant.unet or variant.checkpoint, *(lora.path for lora in variant.loras)):
        found = few_steps_named(text)
        if found and not _GUIDED.search(_file_name(text)):
            return found
    return None


def sampling_notes(suite: Suite) -> tuple[str, ...]:
    """Sentences on settings that a model does not want, by the names of a variant's files or else by the sampler.

    And on negative prompts and guidance rescale, which no guidance leaves without effect.
    """
    settings, notes = suite.settings, []
    negative = sum(1 for prompt in suite.prompts if prompt.negative)
    if negative and settings.guidance_scale <= 1:
        have = f"{plural(negative, 'prompt')} {'has' if negative == 1 else 'have'} a negative prompt"
        notes.append(f"{have}, which no image is told of: guidance_scale is {settings.guidance_scale:g}.")
    if settings.guidance_rescale and settings.guidance_scale <= 1:
        notes.append(
            f"guidance_rescale is {settings.guidance_rescale:g}, which changes nothing without guidance: "
            f"guidance_scale is {settings.guidance_scale:g}."
        )
    for variant in suite.variants:
        kind = few_steps_of(variant)
        named = f"The variant {variant.name} is named after {kind.name}" if kind else ""
        if kind is None and settings.sampler in FEW_STEPS:
            kind = FEW_STEPS[settings.sampler]
            named = f"The sampler {settings.sampler} is that of {kind.name}"
        if kind is not None and settings.guidance_scale > MOST_GUIDANCE:
            scale = f"guidance_scale is {settings.guidance_scale:g}"
            notes.append(
                f"{named}, which wants no guidance, or at most {MOST_GUIDANCE:g}: {scale}, expect burnt images."
            )
        if kind is not None and settings.steps > kind.most_steps:
            notes.append(f"{named}, which is made for at most {kind.most_steps} steps: these are {settings.steps}.")
    return tuple(dict.fromkeys(notes))
