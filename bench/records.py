"""Every record that passes between rooms. Imports nothing from ``bench``.

All are frozen msgspec structs: they are checked when they are read from disk and cannot change
after. Quantities carry their unit in the name or in a ``unit`` field.
"""

from __future__ import annotations

from typing import Literal, Protocol

import msgspec

SCHEMA = 1
"""Version of the suite, run folder and journal formats."""

Sampler = Literal[
    "ddim", "ddpm", "euler", "euler_a", "heun", "dpmpp_2m", "dpmpp_2m_karras", "dpmpp_2m_sde_karras", "unipc"
]
"""Samplers by the names that the field uses; ``bench.variants.samplers`` maps them to diffusers."""

Dtype = Literal["float32", "float16", "bfloat16"]
Status = Literal["started", "complete", "failed"]
Unit = Literal["second", "byte", "joule"]
Axis = Literal["preference", "aesthetic", "alignment", "pixels", "distance"]
Standing = Literal["in-family", "related", "held-out"]
TimingName = Literal[
    "load",
    "first_image",
    "text_encode",
    "denoise_step",
    "vae_decode",
    "end_to_end",
    "peak_allocated",
    "peak_reserved",
    "peak_process",
    "peak_rss",
]


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all records: frozen, keyword-only, unknown fields refused."""


class Progress(Protocol):
    """How long work tells how far it is; only ``bench.cli`` shows it."""

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        """``done`` of ``total`` units of a stage are done; ``note`` says what is being worked on."""


# --- what is asked for ---------------------------------------------------------------------


class Case(Record, frozen=True):
    """One line of a prompt set."""

    id: str
    prompt: str
    negative: str = ""
    tags: tuple[str, ...] = ()
    probes: str = ""
    """What the prompt tests, in a few words."""


class Lora(Record, frozen=True):
    """A LoRA file and the weight it is applied with (1.0 = as trained)."""

    path: str
    weight: float = 1.0


class Variant(Record, frozen=True):
    """A model to be compared: a checkpoint and what is done to it."""

    name: str
    checkpoint: str
    """Shipped family, Hub id, diffusers folder, single ``.safetensors`` file, or ``random:<shape>``."""
    revision: str | None = None
    """Commit of a Hub checkpoint; None where it is not pinned."""
    loras: tuple[Lora, ...] = ()
    unet: str | None = None
    vae: str | None = None


class Settings(Record, frozen=True):
    """Whatever changes pixels. Lengths in pixels, ``guidance`` is the CFG scale."""

    width: int
    height: int
    steps: int
    guidance: float
    sampler: Sampler
    dtype: Dtype = "float32"
    batch: int = 1
    eta: float = 0.0
    """DDIM's eta: 0 deterministic, 1 as much fresh noise as DDPM; only for ``sampler = "ddim"``."""
    vae_tiling: bool = False
    compile: bool = False


class Plan(Record, frozen=True):
    """What ``measure`` does for each variant: ``rounds`` fresh processes of ``images`` timed images."""

    rounds: int = 2
    images: int = 10
    warmups: int = 1


class Suite(Record, frozen=True):
    """A checked suite: everything that a run needs to know. Made by ``bench.suite.load_suite``."""

    schema: int
    name: str
    prompts: tuple[str, ...]
    """The prompt files as the suite names them; their lines are in ``cases``."""
    cases: tuple[Case, ...]
    samples: int
    seed: int
    metrics: tuple[str, ...]
    settings: Settings
    variants: tuple[Variant, ...]
    """The first one is the reference ("base")."""
    limits: dict[str, str] = {}
    """How much worse is still allowed, by metric or timing name; judged by the gate."""
    measure: Plan = Plan()
    limit: int | None = None
    """``--limit N`` in force: a suite for trying out, which no gate takes."""
    source: str = ""
    """The suite's shipped name or file as the user gave it, for the command that repeats the run."""


class Cell(Record, frozen=True):
    """One image to make: a case, a sample number, its seed and the planned batch it belongs to."""

    case: str
    sample: int
    seed: int
    batch: int


# --- what was done -------------------------------------------------------------------------


class WeightFile(Record, frozen=True):
    """One weight file that a variant is made of."""

    component: str
    """``unet``, ``vae``, ``text_encoder``, ``text_encoder_2``, or ``lora:<number>``."""
    name: str
    sha256: str
    size_bytes: int


class Fingerprint(Record, frozen=True):
    """What a variant *is*. Two variants with the same ``digest`` have the same weights."""

    name: str
    digest: str
    """sha256 over checkpoint weights, LoRA weights and their order and weights; not over names or paths."""
    checkpoint: str
    pipeline: str
    """The diffusers pipeline class."""
    files: tuple[WeightFile, ...]
    loras: tuple[Lora, ...] = ()
    lora_mode: Literal["none", "fused", "unfused"] = "none"
    modules_changed: int = 0
    """How many modules of the pipeline the LoRAs were applied to."""


class Render(Record, frozen=True):
    """One line of ``renders.jsonl``: an image that was made, or the reason why not."""

    variant: str
    case: str
    sample: int
    seed: int
    batch: int
    decode_dtype: str
    image: str | None
    """Path of the PNG, relative to the run folder; None with ``error``."""
    sha256: str | None
    """sha256 of the PNG file's bytes."""
    error: str | None = None


class Score(Record, frozen=True):
    """One line of ``scores.jsonl``: a finite number, or None with the reason."""

    variant: str
    case: str
    sample: int
    metric: str
    version: str
    image_sha256: str | None
    """The image that was judged; None where no judgement was reached, so that the next ``score`` tries again."""
    value: float | None
    reason: str | None = None
    reference_sha256: str | None = None
    """The reference variant's image that it was compared with; only for metrics that need one."""


class Timing(Record, frozen=True):
    """One line of ``timings.jsonl``: raw values of one quantity from one process, in order."""

    variant: str
    name: TimingName
    unit: Unit
    round: int
    process: int
    """Process id of the child that measured."""
    warmups: tuple[float, ...]
    values: tuple[float, ...]


class MetricFacts(Record, frozen=True):
    """What a metric says of itself, once; ``list metrics`` and both reports show it."""

    name: str
    version: str
    summary: str
    unit: str
    higher_is_better: bool | None
    """None where a number is only descriptive (pixel statistics)."""
    low: float | None
    high: float | None
    """The range; None where it has no bound."""
    axis: Axis
    tower: str | None
    """Image/text encoder that it shares with other metrics, or None when it reads pixels."""
    trained_on: str
    standing: Standing
    """What that makes it for preference-optimised variants: a judge that the training used is in-family."""
    licence: str
    reference: str


class Machine(Record, frozen=True):
    """The facts of the machine a run was made on."""

    os: str
    cpu: str
    cores: int
    memory_bytes: int
    device: str
    """torch device string, such as ``cpu`` or ``cuda:0``."""
    device_name: str
    device_memory_bytes: int | None = None
    driver: str | None = None
    threads: int | None = None


class Git(Record, frozen=True):
    """Commit of the folder the run was started in, and whether it had changes."""

    commit: str
    dirty: bool


class RunInfo(Record, frozen=True):
    """``run.json``: the identity card of a run folder."""

    schema: int
    id: str
    status: Status
    suite: Suite
    protocol_digest: str
    variants: tuple[Fingerprint, ...]
    metrics: tuple[MetricFacts, ...]
    machine: Machine
    packages: dict[str, str]
    """Version by package name: python, hotart-bench, torch, diffusers, transformers, peft, ..."""
    git: Git | None
    start: str
    """ISO 8601, UTC."""
    end: str | None
    settings_notes: tuple[str, ...] = ()
    """What the user should know of how it was run, in sentences ("LoRAs were fused for the run")."""


class Run(Record, frozen=True):
    """A run folder as it was read: the newest record of each cell."""

    path: str
    info: RunInfo
    renders: tuple[Render, ...]
    scores: tuple[Score, ...]
    timings: tuple[Timing, ...]


# --- what it means -------------------------------------------------------------------------


class Interval(Record, frozen=True):
    """A two-sided interval and the method that made it."""

    low: float
    high: float
    method: str
    level: float = 0.95


class Delta(Record, frozen=True):
    """Paired difference ``candidate - reference`` of one metric, prompts as the unit."""

    metric: str
    candidate: str
    reference: str
    tag: str | None
    """None: all prompts; else only the prompts with this tag."""
    prompts: int
    samples: int
    """Pairs of images behind the prompts' means."""
    missing: int
    """Pairs left out because one side has no score."""
    candidate_mean: float
    reference_mean: float
    mean: float
    interval: Interval | None
    """None with fewer than 2 prompts."""
    small_sample: Interval | None
    """t interval beside the bootstrap, under 30 prompts."""
    d_z: float | None
    """Mean over standard deviation of the per-prompt differences; None when that is zero."""
    wins: int
    ties: int
    losses: int
    win_rate: float | None
    """(wins + ties / 2) / pairs of prompts, in the metric's better direction."""
    win_interval: Interval | None
    correlation: float | None
    """Pearson's r of the prompts' means; None when one side is constant."""


class MetricMean(Record, frozen=True):
    """Mean of one metric of one variant, prompts as the unit."""

    variant: str
    metric: str
    mean: float | None
    """Mean of the prompts' means; None where no image has a score."""
    interval: Interval | None
    """None with fewer than 2 prompts."""
    prompts: int
    missing: int
    """Images of the suite without a score."""


class TimingSummary(Record, frozen=True):
    """Statistics of one timed quantity of one variant over all rounds."""

    variant: str
    name: TimingName
    unit: Unit
    n: int
    rounds: int
    median: float
    p90: float
    iqr: float
    minimum: float
    weak: str | None
    """Why the figure is weak and what would make it strong; None when it is not."""


class Ratio(Record, frozen=True):
    """Ratio of medians of a timed quantity, candidate over reference."""

    name: TimingName
    candidate: str
    reference: str
    ratio: float
    interval: Interval | None
