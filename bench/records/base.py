"""What all records share: the base class, the schema, and the words that fields are chosen from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol, get_args

import msgspec

SCHEMA = 2
"""Version of the formats of suites, journals, gates and calibrations."""

RUN_SCHEMA = 4
"""Version of ``run.json``. In 2 a metric had one training overlap for all variants; in 3 images had no hash of their
pixels."""

BASELINE_SCHEMA = 4
"""Version of the frozen baseline's file. 1 held seven digits of a score and every timed value, 2 had limits as text,
3 one training overlap of a metric for all variants."""

Sampler = Literal[
    "ddim",
    "ddpm",
    "euler",
    "euler_a",
    "heun",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "dpmpp_3m_sde",
    "dpmpp_sde",
    "unipc",
    "lcm",
    "tcd",
    "none",
]
"""Samplers by the names that the field uses; ``bench.pipeline.schedulers`` maps them to diffusers.

``none`` is what external images have, which were not rendered here; no suite file may name it.
"""

Schedule = Literal[
    "leading",
    "linspace",
    "simple",
    "normal",
    "sgm_uniform",
    "karras",
    "exponential",
    "beta",
    "ays",
    "lcm",
    "timesteps",
]
"""Which noise levels the steps visit; ``bench.pipeline.noise_levels`` has the formula of each. ``timesteps`` are those
that the suite gives by hand."""

EVEN: tuple[Schedule, ...] = ("leading", "simple")
DISTILLED: tuple[Schedule, ...] = ("lcm", "simple", "sgm_uniform", "timesteps")
ANY_LEVELS: tuple[Schedule, ...] = tuple(name for name in get_args(Schedule) if name != "lcm")
SCHEDULES_OF: Mapping[Sampler, tuple[Schedule, ...]] = {
    **{name: ANY_LEVELS for name in get_args(Sampler) if name != "none"},
    "ddim": EVEN,
    "ddpm": EVEN,
    "lcm": DISTILLED,
    "tcd": DISTILLED,
}
"""The schedules that a sampler can follow. DDIM, DDPM, LCM and TCD look whole timesteps up, of which DDIM and DDPM take
the next one to be as far away as the last."""

PromptSyntax = Literal["plain", "a1111", "comfyui"]
"""Whose grammar and arithmetic prompts follow: none, so that brackets are drawn as words, or that program's."""

Dtype = Literal["float32", "float16", "bfloat16"]

Compile = bool | Literal["whole"]
"""What torch compiles: nothing, the UNet's blocks that repeat (``true``, or "blocks" in a suite file), or the whole
UNet and the VAE's decoder."""

Status = Literal["started", "complete", "failed"]

Unit = Literal["second", "byte", "joule"]

Category = Literal["preference", "aesthetic", "alignment", "pixels", "diversity", "distance", "safety", "faces"]

Over = Literal["image", "prompt", "tag", "prompt pairs"]
"""What a metric has one number of: an image, the images of a prompt, those of a tag, or every pair of prompts of a tag,
whose mean is the tag's. All but the first are set metrics (``SetScore``)."""

TrainingOverlap = Literal["same data", "related data", "none", "unknown"]
"""What a metric shares with what a variant was trained on; the rule is ``bench.metrics.training_data``'s."""

TrainingSource = Literal["suite", "name", "modelspec", "shipped"]
"""Who says what a part of a variant was trained on: the suite, only its name, its file, or this package."""

TimingName = Literal[
    "load",
    "compile",
    "first_image",
    "text_encode",
    "denoise_step",
    "vae_decode",
    "end_to_end",
    "per_image_at_batch",
    "peak_allocated",
    "peak_reserved",
    "peak_process",
    "peak_rss",
    "energy_per_image",
]


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all records: frozen, keyword-only, unknown fields refused."""


class Progress(Protocol):
    """How long work tells how far it is; only ``bench.cli`` shows it."""

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        """``done`` of ``total`` units of a stage are done; ``note`` says what is being worked on."""
