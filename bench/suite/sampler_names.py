"""What samplers and schedules are called: here, in A1111 and Forge, in ComfyUI and in diffusers. No torch.

A name of either program is read as ours. What is known and cannot be drawn here (``Restart``, ``ddim_uniform``) is read
as itself, so that a picture says what it was drawn with; suites refuse it. One name may mean other noise levels in
another program: ``docs/samplers.md`` says whose are drawn here.
"""

from __future__ import annotations

import re
from typing import NamedTuple, get_args

from bench.records import Sampler, Schedule


class Names(NamedTuple):
    """One sampler or schedule in each program; "" where a program has none."""

    a1111: str = ""
    comfyui: str = ""
    diffusers: str = ""
    also: tuple[str, ...] = ()
    """Further names that are read."""
    automatic: str = ""
    """Of a sampler: the schedule that A1111 1.9 and later takes for ``Automatic``; "" where it follows its own."""


SAMPLER_NAMES: dict[str, Names] = {
    "ddim": Names("DDIM", "ddim", "DDIMScheduler"),
    "ddpm": Names("DDPM", "ddpm", "DDPMScheduler"),
    "euler": Names("Euler", "euler", "EulerDiscreteScheduler", (), "normal"),
    "euler_a": Names("Euler a", "euler_ancestral", "EulerAncestralDiscreteScheduler", ("euler ancestral",), "normal"),
    "heun": Names("Heun", "heun", "HeunDiscreteScheduler", (), "normal"),
    "dpmpp_2m": Names("DPM++ 2M", "dpmpp_2m", "DPMSolverMultistepScheduler", (), "karras"),
    "dpmpp_2m_sde": Names(
        "DPM++ 2M SDE", "dpmpp_2m_sde", "DPMSolverMultistepScheduler", ("dpmpp_2m_sde_gpu",), "exponential"
    ),
    "unipc": Names("UniPC", "uni_pc_bh2", "UniPCMultistepScheduler", ()),
    "lcm": Names("LCM", "lcm", "LCMScheduler"),
    "tcd": Names("TCD", "tcd", "TCDScheduler"),
    "dpmpp_sde": Names("DPM++ SDE", "dpmpp_sde", "DPMSolverSDEScheduler", ("dpmpp_sde_gpu",), "karras"),
    "dpmpp_3m_sde": Names("DPM++ 3M SDE", "dpmpp_3m_sde", "", ("dpmpp_3m_sde_gpu",), "exponential"),
}
"""The samplers that suites may name."""

OTHER_SAMPLERS: dict[str, Names] = {
    "dpm_2": Names("DPM2", "dpm_2", "KDPM2DiscreteScheduler", (), "karras"),
    "dpm_2_a": Names("DPM2 a", "dpm_2_ancestral", "KDPM2AncestralDiscreteScheduler", (), "karras"),
    "lms": Names("LMS", "lms", "LMSDiscreteScheduler", (), "normal"),
    "dpmpp_2s_a": Names("DPM++ 2S a", "dpmpp_2s_ancestral", "", (), "karras"),
    "dpmpp_2m_sde_heun": Names(
        "DPM++ 2M SDE Heun",
        "dpmpp_2m_sde_heun",
        "DPMSolverMultistepScheduler",
        ("dpmpp_2m_sde_heun_gpu",),
        "exponential",
    ),
    "unipc_bh1": Names("", "uni_pc"),
    "restart": Names("Restart", "restart", "", (), "karras"),
    "dpm_fast": Names("DPM fast", "dpm_fast"),
    "dpm_adaptive": Names("DPM adaptive", "dpm_adaptive"),
    "plms": Names("PLMS", "", "PNDMScheduler"),
    "ddim_cfgpp": Names("DDIM CFG++"),
    "heunpp2": Names("HeunPP2", "heunpp2", "", (), "normal"),
    "ipndm": Names("IPNDM", "ipndm", "", (), "normal"),
    "ipndm_v": Names("IPNDM_V", "ipndm_v", "", (), "normal"),
    "deis": Names("DEIS", "deis", "DEISMultistepScheduler", (), "normal"),
    "euler_cfg_pp": Names("Euler CFG++", "euler_cfg_pp"),
    "euler_a_cfg_pp": Names("Euler a CFG++", "euler_ancestral_cfg_pp"),
    "dpmpp_2m_cfg_pp": Names("DPM++ 2M CFG++", "dpmpp_2m_cfg_pp"),
    "dpmpp_2s_a_cfg_pp": Names("DPM++ 2S a CFG++", "dpmpp_2s_ancestral_cfg_pp"),
    "res_multistep": Names("", "res_multistep"),
    "er_sde": Names("", "er_sde"),
    "gradient_estimation": Names("", "gradient_estimation"),
}
"""Samplers that are known and not drawn here."""

SCHEDULE_NAMES: dict[str, Names] = {
    "leading": Names("", "", 'timestep_spacing="leading"'),
    "linspace": Names("", "", 'timestep_spacing="linspace"'),
    "simple": Names("Simple", "simple", 'timestep_spacing="trailing"', ("trailing",)),
    "normal": Names("Uniform", "normal", "", ("Normal",)),
    "sgm_uniform": Names("SGM Uniform", "sgm_uniform", "", ("SGMUniform",)),
    "karras": Names("Karras", "karras", "use_karras_sigmas=True"),
    "exponential": Names("Exponential", "exponential", "use_exponential_sigmas=True"),
    "beta": Names("Beta", "beta", "use_beta_sigmas=True"),
    "ays": Names("Align Your Steps", "", "AysSchedules", ("AlignYourSteps", "align_your_steps")),
    "lcm": Names("", "", "LCMScheduler's own"),
    "timesteps": Names("", "", "timesteps=[...]"),
}
"""The schedules that suites may name. ComfyUI has ``ays`` as a node, AlignYourStepsScheduler."""

AUTOMATIC = "automatic"
OTHER_SCHEDULES: dict[str, Names] = {
    AUTOMATIC: Names("Automatic"),
    "polyexponential": Names("Polyexponential", "", "", ("PolyexponentialScheduler",)),
    "ddim_uniform": Names("DDIM", "ddim_uniform"),
    "kl_optimal": Names("KL Optimal", "kl_optimal"),
    "turbo": Names("Turbo", "", "", ("SDTurboScheduler",)),
    "linear_quadratic": Names("Linear Quadratic", "linear_quadratic"),
    "ays_gits": Names("Align Your Steps GITS", "", "", ("GITSScheduler",)),
    "ays_11": Names("Align Your Steps 11"),
    "ays_32": Names("Align Your Steps 32"),
}
"""Schedules that are known and not drawn here. ``Automatic`` is whatever the sampler's own is."""


class Read(NamedTuple):
    """A sampler and a schedule by our names; None where nothing is said, or nothing that is known."""

    sampler: str | None
    schedule: str | None


def _plain(text: str) -> str:
    """What names are compared by: ``DPM++ 2M SDE`` and ``k_dpmpp_2m_sde`` are one."""
    folded = text.strip().lower().replace("dpm++", "dpmpp").replace("cfg++", "cfgpp").replace("cfg_pp", "cfgpp")
    return re.sub(r"[^a-z0-9]", "", re.sub(r"^(k|sample)_", "", folded))


def _by_every_name(table: dict[str, Names]) -> dict[str, str]:
    written = [(one, name) for name, names in table.items() for one in (name, names.a1111, names.comfyui, *names.also)]
    exact = {one.lower(): name for one, name in reversed(written) if one}
    return {_plain(one): name for one, name in reversed(written) if one} | exact


def _find(table: dict[str, str], text: str) -> str | None:
    """As it is written, else by ``_plain``: ``uni_pc`` is ComfyUI's, ``UniPC`` A1111's."""
    return table.get(text.strip().lower()) or table.get(_plain(text))


_SAMPLERS = _by_every_name(SAMPLER_NAMES | OTHER_SAMPLERS)
_SCHEDULES = _by_every_name(SCHEDULE_NAMES | OTHER_SCHEDULES)
_ENDINGS = ("karras", "exponential", "sgm uniform", "simple", "beta")
"""Schedules that A1111 before 1.9, Forge and InvokeAI (``_k``) write behind a sampler's name."""


def read_schedule(text: str) -> str | None:
    """Our name of a schedule, in whatever case; ``automatic``, ``ddim_uniform`` and the like as themselves."""
    return _find(_SCHEDULES, text)


def read_sampler(text: str) -> Read:
    """A sampler's name, with a schedule where the name holds one: ``DPM++ 2M Karras`` is (dpmpp_2m, karras)."""
    found = _find(_SAMPLERS, text)
    if found:
        return Read(found, None)
    words = text.strip().lower().replace("_", " ")
    for ending in _ENDINGS:
        sampler = _find(_SAMPLERS, words.removesuffix(ending))
        if words.endswith(f" {ending}") and sampler:
            return Read(sampler, read_schedule(ending))
    sampler = _find(_SAMPLERS, words.removesuffix(" k"))
    return Read(sampler, "karras") if sampler and words.endswith(" k") else Read(None, None)


def read_a1111(sampler: str, schedule_type: str | None, version: tuple[int, ...] | None) -> Read:
    """``Sampler`` and ``Schedule type`` of A1111's settings text.

    Before 1.9 there was no ``Schedule type``: a sampler without a schedule in its name was drawn with the uniform one
    (ours: ``normal``). From 1.9 on it is drawn with the sampler's own. Of neither is told where the version is not, nor
    of samplers that follow timesteps of their own (DDIM, UniPC, LCM). ``Automatic`` stays what it is.

    Args:
        sampler: such as ``DPM++ 2M Karras``.
        schedule_type: None where the text has none.
        version: of A1111, such as (1, 10, 1); None where it is not told.
    """
    found = read_sampler(sampler)
    if schedule_type is not None:
        return found._replace(schedule=read_schedule(schedule_type))
    if found.sampler is None or found.schedule is not None or version is None:
        return found
    own = (SAMPLER_NAMES | OTHER_SAMPLERS)[found.sampler].automatic
    return found._replace(schedule=(own if version >= (1, 9) else "normal") if own else None)


def a1111_names(sampler: str, schedule: str) -> tuple[str | None, str | None]:
    """A1111's ``Sampler`` and ``Schedule type`` of ours; None where it has no name for it.

    ``leading`` and ``linspace`` are diffusers' alone, ``lcm`` and timesteps by hand have no name either.
    """
    names = (SAMPLER_NAMES | OTHER_SAMPLERS).get(sampler, Names())
    schedules = (SCHEDULE_NAMES | OTHER_SCHEDULES).get(schedule, Names())
    return names.a1111 or None, schedules.a1111 or None


def is_drawn(read: Read) -> bool:
    """Whether a suite may name them: both are known, and drawn here."""
    return read.sampler in get_args(Sampler) and (read.schedule is None or read.schedule in get_args(Schedule))
