"""Records of weights: what a checkpoint is, and what LoRAs and merges changed in it."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from bench.records.base import Record
from bench.records.ledger import LedgerEntry
from bench.records.suite import Lora

Component = Literal["unet", "text_encoder", "text_encoder_2", "vae"]
Layout = Literal["diffusers", "single-file", "random", "recipe"]
Family = Literal["sdxl", "sd15"]
Prediction = Literal["epsilon", "v_prediction"]
BetaSchedule = Literal["linear", "scaled_linear", "squaredcos_cap_v2"]
ChangeKind = Literal["lora", "tucker", "loha", "lokr", "diff", "norm", "bias"]


class NoiseSchedule(Record, frozen=True):
    """The noise that a model was trained with, by diffusers' names; as it stands that of SD 1.5 and SDXL."""

    beta_start: float = 0.00085
    beta_end: float = 0.012
    beta_schedule: BetaSchedule = "scaled_linear"
    num_train_timesteps: int = 1000
    trained_betas: tuple[float, ...] | None = None
    """The variance that each timestep adds, in place of ``beta_start`` to ``beta_schedule``."""


class CheckpointFacts(Record, frozen=True):
    """What a checkpoint is, as far as its files tell."""

    layout: Layout
    family: Family
    """Families that differ do not merge, and LoRAs of the one do not fit the other."""
    prediction: Prediction = "epsilon"
    zero_terminal_snr: bool = False
    """Whether it was trained with a noise schedule that ends in pure noise; the sampler must follow."""
    noise: NoiseSchedule = NoiseSchedule()
    prediction_from: str | None = None
    """The file beside a single file that says what the UNet predicts; None where its own file or folder does."""
    left_aside: tuple[str, ...] = ()
    """What its saved pipeline wishes that the suite decides: ``clip_sample = true``."""
    inpainting: bool = False
    """A UNet that also takes a mask and a masked image (9 channels)."""
    dtypes: dict[str, str] = msgspec.field(default_factory=dict)
    """Stored precision by component (``float16``); several are joined by ``+``."""
    licence: str | None = None
    """As the file's metadata or the folder's model card names it; None where they do not."""
    title: str | None = None


class ChangedModule(Record, frozen=True):
    """One module that a LoRA file changed, and by how much."""

    module: str
    """Component and path in diffusers' names: ``unet.mid_block.attentions.0.proj_in``."""
    kind: ChangeKind
    dora: bool
    """Whether the change also sets the weight's norm (DoRA), so that it is not additive."""
    rank: int | None
    """None for changes that are not a product of thin matrices."""
    alpha: float | None
    """None where the file has none, which means alpha = rank."""
    scale: float
    """What the file's matrices were multiplied with: alpha/rank (rsLoRA: alpha/sqrt(rank)) times ``weight``."""
    weight: float
    """The weight that the suite gives this module."""
    relative_change: float | None
    """Frobenius norm of the change over that of the weight before; of a weight of 0, the norm of the change. None where
    the LoRA was looked at without a checkpoint, as the next."""
    rounded_away: float | None
    """Share, 0 to 1, of the entries meant to change that are the same number in the dtype that is run."""


class LoraAudit(Record, frozen=True):
    """What one LoRA file is and did. Every key was applied: a file with others stops the run."""

    path: str
    """As the suite names it."""
    layout: str
    """How its keys are named: ``kohya, diffusers blocks``."""
    keys: int
    applied: dict[str, int]
    """Keys applied, by component."""
    modules: tuple[ChangedModule, ...]
    notes: tuple[str, ...] = ()
    """What else was done with the file, in sentences: what it was begun with taken away, embeddings left out."""


class PixelDifference(Record, frozen=True):
    """One image from unfused LoRAs and from fused ones, in 8-bit levels, 0 to 255."""

    prompt_id: str
    """Of the suite's first image, which is drawn both ways at the suite's settings but for the number of steps."""
    mean: float
    """Mean absolute difference over all pixels and channels."""
    max: int
    changed: float
    """Share, 0 to 1, of pixel values that differ."""
    steps: int | None = None
    """Denoising steps of both; None, which older versions wrote, is the suite's own number."""


class MergeAudit(Record, frozen=True):
    """What a recipe made, compared with its first model."""

    method: str
    models: tuple[str, ...]
    """As the recipe names them."""
    fields: dict[str, Any] = msgspec.field(default_factory=dict)
    """What else the recipe says, LoRAs left out: ``alpha``, ``blocks``, ``weights``, ``density``, ``drop``, ``seed``,
    ``components``, ``vae``, ``dtype``; under ``recipes`` the same of those that it is made of, by their names here."""
    base: str = ""
    """The model that ``blocks`` are measured from: the first, or the first of that one's where it is a recipe."""
    fused_loras: tuple[Lora, ...] = ()
    """The LoRAs that it fuses, those of recipes within it first, as named and weighted there."""
    loras: tuple[LoraAudit, ...] = ()
    """What each of them did, without the norms of the changes."""
    blocks: dict[str, float] = msgspec.field(default_factory=dict)
    """Relative change by block from ``base`` to the result, as it was computed; ``VAE`` too."""
    rounded_away: float | None = None
    """Share, 0 to 1, of the entries meant to change that are the same number in the precision that is run."""


class QuantizedLayers(Record, frozen=True):
    """What of a UNet a runtime quantised."""

    layers: int
    """Linear layers of the transformer blocks, all of which are."""
    of_weights: float
    """Share of the UNet's parameters that lie in them, 0 to 1."""


class Audit(Record, frozen=True):
    """What was loaded for a variant, and what was changed in it."""

    checkpoint: CheckpointFacts
    dtype: str
    """Precision that is run, for which ``rounded_away`` holds."""
    loras: tuple[LoraAudit, ...] = ()
    blocks: dict[str, float] = msgspec.field(default_factory=dict)
    """Relative change by block (``IN00``, ``M00``, ``OUT00``, ``BASE``, ``TE1``, ``TE2``), all LoRAs together."""
    non_finite: dict[str, int] = msgspec.field(default_factory=dict)
    """How many of the checkpoint's own numbers are NaN or infinite in ``dtype``, by tensor; others are left out."""
    merge: MergeAudit | None = None
    """Of a checkpoint that is a recipe; None of any other."""
    fused_against_unfused: PixelDifference | None = None
    """Of the variant's LoRAs and of those that its recipe fuses, once a LoRA file. None without LoRAs, with one that
    can only be fused, where earlier variants of the suite have them all, and with ``compare_unfused = false``."""
    quantized: QuantizedLayers | None = None
    """What the variant's runtime quantised; None where it quantises nothing."""


class Inspection(Record, frozen=True):
    """What ``inspect`` found in a checkpoint or a LoRA file, and what it would change in another checkpoint."""

    path: str
    """As the user named it."""
    kind: Literal["checkpoint", "lora"]
    files: dict[str, str]
    """sha256 of every weight file by its name, that of a component behind the component's."""
    checkpoint: CheckpointFacts | None
    """None of a LoRA."""
    lora: LoraAudit | None
    """None of a checkpoint."""
    tensors: dict[str, int]
    """How many tensors, by component."""
    parameters: dict[str, int]
    """How many numbers, by component."""
    non_finite: dict[str, int]
    """How many numbers are NaN or infinite, by tensor; those without any are left out. Of a LoRA with ``against``: in
    the tensors that it changes, once they are changed and rounded to ``dtype``."""
    against: str | None = None
    """The checkpoint that it was compared with."""
    dtype: str | None = None
    """Precision for which ``rounded_away`` holds."""
    equal: int = 0
    """Of two checkpoints, how many tensors are equal to the last bit."""
    only_here: tuple[str, ...] = ()
    """Of two checkpoints, tensors that only the first has; likewise the next."""
    only_there: tuple[str, ...] = ()
    blocks: dict[str, float | None] = msgspec.field(default_factory=dict)
    """Relative change by block: of a LoRA at its weight, or from ``against`` to the checkpoint. None where
    a weight or its change is not finite."""
    metadata: dict[str, str] = msgspec.field(default_factory=dict)
    """What the file says of itself: ``modelspec.*``, ``ss_*``, a recipe."""
    ledger: tuple[LedgerEntry, ...] = ()
    """The entries of a ledger that any of the files stands in."""
