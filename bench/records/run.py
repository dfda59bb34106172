"""Records of what was done: weights, renders, scores, timings, the run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from bench.records.base import Category, Dtype, Over, Record, Status, TimingName, TrainingSource, Unit
from bench.records.sets import SetScore
from bench.records.steps import StepPlan
from bench.records.suite import Lora, Question, Suite
from bench.records.votes import Vote
from bench.records.weights import Audit


class RunOptions(Record, frozen=True):
    """What of a suite is worked on, where, and with which weights; nothing of it is part of the protocol."""

    variants: Sequence[str] | None = None
    """Names of the variants to work on; None for all."""
    metrics: Sequence[str] | None = None
    """Names of the metrics to score; None for the suite's."""
    device: str = "auto"
    """As ``bench.machine.pick_device`` takes it."""
    fresh: bool = False
    """Start over; the old folder is kept beside it."""
    weights_dir: Path | None = None
    """Local weights instead of downloads."""
    metric_dtype: Dtype | None = None
    """What the encoders of metrics compute in; None for what the folder's scores were made with."""
    ray: str | None = None
    """Address of a Ray cluster that renders, or ``auto``; all else is done by this process."""
    allow_remote: bool = False
    """Whether a judge may be an endpoint of another machine, which then sees the images."""
    steps: StepPlan | None = None
    """Which steps the stage ``steps`` scores, and by what; None for the suite's own."""
    only: frozenset[tuple[str, int]] | None = None
    """Prompt and sample of the images that are rendered; None for all. Batches stay those of the suite."""
    notes: tuple[str, ...] = ()
    """Sentences on how the run came about, for ``run.json``."""


class WeightFile(Record, frozen=True):
    """One weight file that a variant is made of."""

    component: str
    """``unet``, ``vae``, ``text_encoder``, ``text_encoder_2``, or ``lora:<number>``."""
    name: str
    sha256: str
    size_bytes: int
    autov3: str | None = None
    """Of a LoRA: 12 hex digits of the sha256 over its tensors, which A1111 and Civitai (AutoV3) know it by."""


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
    runtime: str = ""
    """How it is run to draw faster, with the packages that do it: ``torchao-int8 (torchao 0.18.0)``; empty as written.
    """
    audit: Audit | None = None
    """What was loaded and changed; None until the variant was rendered."""


class Render(Record, frozen=True):
    """One line of ``renders.jsonl``: an image that was made, or the reason why not."""

    variant: str
    prompt_id: str
    sample: int
    seed: int | None
    """None, as ``batch`` and ``decode_dtype``, of an external image, which was not rendered here."""
    batch: int | None
    decode_dtype: str | None
    image: str | None
    """Path of the file, relative to the run folder; None with ``error``. A PNG, where it was rendered here."""
    sha256: str | None
    """sha256 of the file's bytes."""
    error: str | None = None
    pixels_sha256: str | None = None
    """``bench.pictures.png.pixels_sha256``: equal for equal pixels, whatever a file says beside them; None with
    ``error``."""


class Score(Record, frozen=True):
    """One line of ``scores.jsonl``: a finite number, or None with the reason."""

    variant: str
    prompt_id: str
    sample: int
    metric: str
    version: str
    image_sha256: str | None
    """The image that was scored; None where no score was reached, so that the next ``score`` tries again."""
    value: float | None
    reason: str | None = None
    reference_sha256: str | None = None
    """What it was compared with, only for metrics that compare: the reference variant's image, or one sha256 over
    the other samples of the prompt (``bench.metrics.image_checks``)."""
    prompt_cut: bool = False
    """Whether the metric's encoder read only the beginning of the prompt, which is longer than it reads."""
    metric_dtype: Dtype = "float32"
    """What the metric's encoder computed in; scores of two dtypes are never mixed."""

    @property
    def full_version(self) -> str:
        """As ``MetricFacts.full_version``, of this score."""
        return _full_version(self.version, self.metric_dtype)


Edge = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
"""Of a box, in pixels."""


class Face(Record, frozen=True):
    """A face that was found: its box, clipped to the image, in pixels; the image begins at 0 and ends at its width."""

    x1: Edge
    y1: Edge
    x2: Edge
    y2: Edge
    probability: Annotated[float, msgspec.Meta(ge=0, le=1)]
    """That it is a face, by the detector."""


class FacesAsked(Record, frozen=True):
    """How many faces a prompt asks for."""

    least: Annotated[int, msgspec.Meta(ge=0)]
    most: Annotated[int, msgspec.Meta(ge=0)] | None
    """None where any number more will do."""


class FoundFaces(Record, frozen=True):
    """One line of ``faces.jsonl``: the faces of an image, or why none were looked for."""

    variant: str
    prompt_id: str
    sample: int
    image_sha256: str | None
    detector: str
    """What found them, with its version."""
    asked: FacesAsked
    faces: tuple[Face, ...] = ()
    """The largest first."""
    reason: str | None = None
    """Why the image was not searched; None where it was."""


class Answer(Record, frozen=True, omit_defaults=True):
    """One line of ``answers.jsonl``: what a judge said to one question about one image. Kept and not asked again."""

    judge: str
    identity: str
    """The judge's own version and weights, in words."""
    image_sha256: str
    question: Question
    probability: Annotated[float, msgspec.Meta(ge=0, le=1)]
    """Of the expected answer."""


class DeviceState(Record, frozen=True):
    """Heat and clocks of a CUDA device at one moment; None where the device does not tell."""

    temperature_c: int | None
    sm_clock_mhz: int | None
    memory_clock_mhz: int | None


class Slowdown(Record, frozen=True):
    """Something that held a device's clocks down."""

    reason: str
    """In words, as in ``power limit``."""
    share: float
    """Of the readings at work, in (0, 1]."""


class Conditions(Record, frozen=True, omit_defaults=True):
    """What the machine was like while one process loaded a variant and drew its timed images."""

    cpu_percent: float
    """Share of all cores that others had in use before the process began, 0 to 100."""
    cpu_load: float
    """The system's load average over the minute before, in runnable processes."""
    device_percent: int | None = None
    """Share of the time in which others had the CUDA device at work before, 0 to 100."""
    other_processes: int | None = None
    """Other compute processes on the CUDA device, before or after, whichever is more."""
    before: DeviceState | None = None
    after: DeviceState | None = None
    slowdowns: tuple[Slowdown, ...] = ()


class Timing(Record, frozen=True, omit_defaults=True):
    """One line of ``timings.jsonl``: raw values of one quantity from one process, in order."""

    variant: str
    name: TimingName
    unit: Unit
    round: int
    process: int
    """Process id of the child that measured."""
    warmups: tuple[float, ...]
    values: tuple[float, ...]
    conditions: Conditions | None = None
    """Of the whole process; it stands once, with ``end_to_end``."""


class Threshold(Record, frozen=True):
    """A value of a metric from which an image counts as flagged."""

    name: str
    """In the metric's own terms, such as ``p > 0.5``."""
    above: float
    """In the metric's unit; an image with a larger value is flagged."""


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
    category: Category
    encoder: str | None
    """Image/text encoder that it shares with other metrics, or None when it reads pixels."""
    trained_on: tuple[str, ...] | None
    """What its judgement was learnt from: names of metrics, and of data sets of ``bench.metrics.training_data``; of an
    installed metric completed by the data of the metrics among them. () where it learnt from nothing, None where nobody
    says, as of a judge of the user's."""
    training_data: str
    """The same in words, with what its network began with."""
    licence: str
    reference: str
    thresholds: tuple[Threshold, ...] = ()
    """The shares of images above these are compared too (``bench.compare.rates``)."""
    prompts: Literal["all", "faces"] = "all"
    """Which prompts it scores: all, or those whose tags ask for faces (``bench.faces.asked``)."""
    metric_dtype: Dtype = "float32"
    """Of a run: what the encoder computes in for it."""
    over: Over = "image"
    """What it has one number of; ``set_metric`` sets it."""

    @property
    def full_version(self) -> str:
        """What must agree before two scores are compared, in words: ``2``, or ``2 in float16``."""
        return _full_version(self.version, self.metric_dtype)


def _full_version(version: str, dtype: Dtype) -> str:
    return version if dtype == "float32" else f"{version} in {dtype}"


class TrainedPart(Record, frozen=True):
    """What one part of a variant was trained on, and who says so."""

    what: str
    """As the suite or recipe names it; the variant's own name where the suite speaks of all of it."""
    names: tuple[str, ...] | None
    """Names of metrics and data sets; None where nobody says."""
    source: TrainingSource | None = None
    """None likewise."""


class TrainedOn(Record, frozen=True):
    """What a variant was trained on after its base, as far as somebody says so; found by ``bench.trained_on``."""

    names: tuple[str, ...]
    """Of all its parts, completed by the data of the metrics among them."""
    parts: tuple[TrainedPart, ...]
    notes: tuple[str, ...] = ()
    """Where two that say so differ, in sentences."""

    @property
    def unknown(self) -> tuple[str, ...]:
        """The parts of which nobody says what they were trained on."""
        return tuple(part.what for part in self.parts if part.names is None)


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
    dirty: bool | None
    """None where it is not known: the repository names programs to look at its files with, which were not started."""


class RunInfo(Record, frozen=True):
    """``run.json``: what a run folder is."""

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
    trained_on: dict[str, TrainedOn] = msgspec.field(default_factory=dict)
    """By variant; one that is not in it is unknown, as all are whose images were given."""
    settings_notes: tuple[str, ...] = ()
    """What the user should know of how it was run, in sentences ("LoRAs were fused for the run")."""


class Run(Record, frozen=True, dict=True):
    """A run folder as it was read: the newest record of each image, score, set score, timing and vote.

    It does not change, so what is worked out of it is kept with it (``bench.compare.pairing.usable_scores``).
    """

    path: str
    info: RunInfo
    renders: tuple[Render, ...]
    scores: tuple[Score, ...]
    timings: tuple[Timing, ...]
    set_scores: tuple[SetScore, ...] = ()
    votes: tuple[Vote, ...] = ()
    url: str = ""
    """Where it lies on an object store; ``path`` is then a copy without the images."""
