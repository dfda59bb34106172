"""Records of what is to be run: prompts, variants, settings, the suite."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from bench.records.base import Compile, Dtype, PromptSyntax, Record, Sampler, Schedule
from bench.records.steps import StepPlan


class Question(Record, frozen=True, omit_defaults=True):
    """What an image of a prompt is asked, and the answer that it should get."""

    text: str = msgspec.field(name="question")
    answer: str = "yes"
    """``yes``, ``no``, a number (``three`` or ``3``), or one of ``choices``."""
    choices: tuple[str, ...] = ()
    """What may be answered, where that is neither yes or no nor a number."""
    skill: str = ""
    """What it tests, such as ``object``, ``attribute``, ``count`` or ``position``."""


class Prompt(Record, frozen=True):
    """One line of a prompt set."""

    id: str
    text: str = msgspec.field(name="prompt")
    """The prompt itself; ``prompt`` in files."""
    negative: str = ""
    tags: tuple[str, ...] = ()
    probes: str = ""
    """What the prompt tests, in a few words."""
    group: str = ""
    """What it is one of several of: paraphrases of one text, a template filled in, one subject. Prompts of a group are
    not independent, and statistics count the group; empty for a prompt that stands alone."""
    questions: tuple[Question, ...] = ()
    """Of the question file beside the prompt file (``bench.suite.questions``). They change no pixels."""

    @property
    def unit(self) -> tuple[str, str]:
        """What statistics count as one: the prompt's group, or the prompt itself where it names none."""
        return ("group", self.group) if self.group else ("prompt", self.id)


GridValue = int | float | str
"""What an axis of a grid holds: a number, a name such as that of a sampler, or a size such as ``64x64``."""
HEAVIEST_LORA = 1000.0
"""Largest weight of a LoRA that is taken for one, of either sign; with larger ones the arithmetic overflows."""


LeftOut = Literal["bundle_emb"]


class Lora(Record, frozen=True):
    """A LoRA file and the weight it is applied with (1.0 = as trained)."""

    path: str
    weight: float = 1.0
    unet: float | None = None
    """Weight of this component instead of ``weight``; likewise the two below."""
    text_encoder: float | None = None
    text_encoder_2: float | None = None
    blocks: dict[str, float] = msgspec.field(default_factory=dict)
    """Weights of blocks of the UNet by name (``IN00``, ``M00``, ``OUT00``, ``BASE``), instead of the above."""
    step_factors: tuple[tuple[float, float], ...] = ()
    """(fraction of the steps, factor) in rising order: from that fraction on all its weights count that much; ()
    leaves them alone throughout. A suite file writes ``step_range`` or a ``weight`` that is a list."""
    leave_out: tuple[LeftOut, ...] = ()
    """Parts of the file that are not applied: embeddings that a trainer bundled with the LoRA (``bundle_emb``)."""
    trained_on: tuple[str, ...] | None = None
    """Names of metrics and data sets that it learnt from; None where the suite does not say."""


class Variant(Record, frozen=True):
    """A model to be compared: a checkpoint and what is done to it."""

    name: str
    checkpoint: str
    """Shipped family, Hub id, diffusers folder, ``.safetensors`` file, recipe (``.toml``), or ``random:<shape>``."""
    revision: str | None = None
    """Commit of a Hub checkpoint; None where it is not pinned."""
    loras: tuple[Lora, ...] = ()
    fuse: bool = True
    """Whether LoRAs become part of the weights; else they run unfused: computed in every step."""
    unet: str | None = None
    vae: str | None = None
    unet_steps: tuple[tuple[float, str], ...] = ()
    """(fraction of the steps, source) in rising order: from there on this UNet runs; "" is the variant's own."""
    runtime: str | None = None
    """How it is run to draw faster: quantised, cached or compiled, as ``bench.suite.runtimes`` reads it; None as it is
    written. It changes pixels, and is part of the variant, not of the settings."""
    trained_on: tuple[str, ...] | None = None
    """Names of metrics and data sets that the variant as a whole was trained on after its base, to which its LoRAs may
    add; None where the suite does not say."""


class Embedding(Record, frozen=True):
    """A textual-inversion embedding that prompts use."""

    name: str
    """As prompts call it."""
    path: str
    sha256: str


class Settings(Record, frozen=True):
    """Whatever changes pixels. Lengths in pixels, ``guidance_scale`` is the CFG scale.

    Of external images (``Suite.external_images``) the size that most of them have is known, and steps and guidance
    scale where all say the same of themselves, else 0; ``sampler`` is ``none``, since nothing was rendered.
    """

    width: int
    height: int
    steps: int
    guidance_scale: float
    sampler: Sampler
    schedule: Schedule = "leading"
    dtype: Dtype = "float32"
    batch: int | None = 1
    """Images that are drawn at once, which changes pixels; None, ``"auto"`` in a suite file, until a run has chosen."""
    eta: float = 0.0
    """How much fresh noise the steps of ``ddim`` and ``tcd`` add: 0 none, 1 as much as DDPM and LCM do. 0 for all
    other samplers."""
    vae_tiling: bool = False
    compile: Compile = False
    prompt_syntax: PromptSyntax = "plain"
    prompt_loras: Literal["refuse", "ignore"] = "refuse"
    """What becomes of ``<lora:...>`` within a prompt of another syntax than ``plain``; LoRAs belong to variants."""
    clip_skip: int | None = None
    """As A1111 counts: 1 is the text encoder's last layer, 2 the one before; None leaves the family's own."""
    embeddings: tuple[Embedding, ...] = ()
    """Those that the suite's prompts use, by name; a suite file names their folder."""
    guidance_rescale: float = 0.0
    """phi of Lin et al. 2023, section 3.4: 0 leaves guided predictions alone, 1 gives them the deviation of the
    conditional ones."""
    timesteps: tuple[int, ...] = ()
    """Of the schedule ``timesteps``: those that the steps visit, falling; () for every other schedule."""
    original_size: tuple[int, int] | None = None
    """SDXL's size conditioning, width and height in pixels; None for the size that is drawn."""
    target_size: tuple[int, int] | None = None
    """Likewise."""
    crop: tuple[int, int] = (0, 0)
    """SDXL's crop conditioning: pixels cut off at the left and at the top."""
    vae_slicing: bool = False
    """Whether the VAE decodes the images of a batch one by one: in the memory of one, with no regard to the others."""

    def told(self) -> dict[str, object]:
        """Every field as plain values; of embeddings their names and sha256, not where they lie."""
        values: dict[str, object] = msgspec.to_builtins(self)
        return values | {"embeddings": {one.name: one.sha256 for one in self.embeddings}}


class MeasurePlan(Record, frozen=True):
    """What ``measure`` does for each variant: ``rounds`` fresh processes of ``images`` timed images."""

    rounds: int = 2
    """0 leaves timing out: none is planned, and none may be limited."""
    images: int = 10
    warmups: int = 1
    batches: int = 0
    """Batches of the suite's size that each process draws after the images, for the throughput."""


class ExternalImages(Record, frozen=True, omit_defaults=True):
    """Where images come from that were not rendered here."""

    images: str
    """The folder, as the user gave it."""
    prompts: str
    """The file that pairs images with prompts, as the user gave it; empty where there is none."""
    variants: tuple[str, ...] = ()
    """Those that were chosen, the reference first; () for all."""
    settings: str = ""
    """What the images themselves say of their settings, in a line; empty where they were not asked."""


class Sweep(Record, frozen=True):
    """The weights of a LoRA as the variants of one suite."""

    lora: str
    """As the user named it: a variant of the suite that was swept, or a LoRA file."""
    weights: tuple[float, ...]
    """Rising."""
    variants: tuple[str, ...]
    """The variant of each weight; that of 0 is the reference, which has no LoRA."""


class StepWindow(Record, frozen=True):
    """A variant that is another one in some steps only."""

    kind: Literal["only", "until", "from"]
    """Whether it is one of the windows, all steps up to the end of one, or all from the beginning of one on."""
    first: int
    """Counted from 1, as ``last``, which is in it."""
    last: int
    variant: str


class Attribution(Record, frozen=True):
    """One variant in windows of steps as the variants of a suite: the reference, the variant, then the windows."""

    variant: str
    windows: tuple[StepWindow, ...]
    lora: str | None = None
    """Of ``sweep --windows``: the LoRA as the user named it; None for ``steps --attribute``."""
    gain: str | None = None
    """Of ``sweep --windows``: the metric that the windows are ranked by; None for the first of preference."""
    limits: tuple[Limit, ...] = ()
    """The suite's own: what a loss in another metric is measured by."""


Limited = Literal["loss", "rise", "fall", "shift"]
"""What a limit is on: a loss, or of a metric that only describes a rise, a fall, or a shift either way."""


class Judge(Record, frozen=True, omit_defaults=True):
    """Who answers questions: exactly one of ``command``, ``endpoint`` and ``vlm`` says how. It changes no pixels."""

    name: str
    command: tuple[str, ...] = ()
    """A program that speaks the protocol of ``docs/questions.md``, and its arguments."""
    endpoint: str = ""
    """Address of an OpenAI-compatible server, up to and with ``/v1``."""
    model: str = ""
    """What the endpoint calls the model."""
    version: str = ""
    """What else tells one version of the endpoint's model from another."""
    key: str = ""
    """Name of the environment variable that holds the endpoint's key; never the key."""
    vlm: str = ""
    """A vision-language model of transformers: a Hub id, ``owner/name@revision``, or a folder."""
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=86_400)] = 120.0
    """How long one image may take."""
    trained_on: tuple[str, ...] | None = None
    """What its judgement was learnt from: names of metrics and of data sets, as of ``MetricFacts.trained_on``; None
    where the suite does not say, so that its overlap with a variant is unknown."""


class Limit(Record, frozen=True):
    """How much worse, or how different, is still allowed. The margin is ``max(amount in its kind, floor)``."""

    name: str
    """A metric or a timed quantity."""
    text: str
    """As the user wrote it, such as ``0.1sd``, ``+0.02`` or ``5% floor 20ms``."""
    kind: Literal["absolute", "sd", "relative"]
    amount: Annotated[float, msgspec.Meta(gt=0)]
    """In the metric's unit, in standard deviations of the reference's prompt means, or a share (0.05 is 5 %)."""
    floor: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """In the quantity's own unit (seconds, bytes and joules for timed quantities)."""
    limited: Limited = "loss"


class Suite(Record, frozen=True, kw_only=True):
    """A checked suite: everything that a run needs to know. Made by ``bench.suite.load_suite``."""

    schema: int
    name: str
    prompt_files: tuple[str, ...]
    """The prompt files as the suite names them; their lines are in ``prompts``."""
    prompts: tuple[Prompt, ...]
    samples: int = 1
    """Images of each prompt, each from noise of its own."""
    seed: int = 0
    metrics: tuple[str, ...] = ()
    settings: Settings
    variants: tuple[Variant, ...]
    """The first one is the reference ("base")."""
    limits: tuple[Limit, ...] = ()
    """How much worse is still allowed: what the gate checks."""
    measure: MeasurePlan = MeasurePlan()
    compare_unfused: bool = True
    """Whether one image a LoRA file is drawn with unfused LoRAs too, to see how far fusing moves pixels."""
    limit: int | None = None
    """``--limit N`` in force: a suite for trying out, which no gate takes."""
    source: str = ""
    """The suite's shipped name or file as the user gave it, for the command that repeats the run."""
    external_images: ExternalImages | None = None
    """None where the images are rendered; else seeds and settings are unknown."""
    left_out: tuple[str, ...] = ()
    """Ids of the prompts of the prompt files that were left out because SPO was trained on them."""
    notes: tuple[str, ...] = ()
    """Sentences of the readers of its prompt files: what was not taken, or is drawn otherwise than one may think."""
    sweep: Sweep | None = None
    """None where the variants are those of the suite file."""
    attribution: Attribution | None = None
    """Likewise."""
    step_metrics: StepPlan | None = None
    """Which steps are scored, and by what; None where none is."""
    grid_setting: dict[str, GridValue] = msgspec.field(default_factory=dict)
    """Of a run of a grid: the axes and their values; empty where the settings are those of the suite file."""
    judges: tuple[Judge, ...] = ()
    """Who may answer questions, besides the judge of the embedded family."""


class PlannedImage(Record, frozen=True):
    """One image to make: a prompt, a sample number, its seed and the planned batch it belongs to."""

    prompt_id: str
    sample: int
    seed: int
    batch: int
