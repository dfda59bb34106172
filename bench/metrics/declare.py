"""The kinds of metrics and encoders, and how each is declared.

A metric is a decorated function from ``Inputs`` (a batch of images, their prompts, and the embeddings
of the encoder it names) to one number an image. An encoder is an image and text encoder, or a reward model that
reads both together; it is loaded once and shared by every metric that names it. A step metric scores an image while
it is being drawn, a set metric gives one number of the images of a prompt or tag, a judge answers questions. A whole
metric, to be copied, is in ``docs/plugins.md``; the shortest of ours are in ``bench.metrics.pixels``. How declared ones
are found is in ``bench.metrics.registry``.

A module of metrics imports torch inside its functions only (and for type checkers under ``TYPE_CHECKING``):
``list metrics`` needs no torch and answers at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import msgspec

from bench.errors import UsageError
from bench.records import VOTES_METRIC, Dtype, FoundFaces, MetricFacts, Over, Question

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from PIL.Image import Image

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


class NoScoreError(Exception):
    """Raised by a metric for an image that has no score by the metric's definition, with the reason."""


class JudgeError(Exception):
    """Raised by a judge that cannot answer about an image now, with the reason; it is asked again another time."""


@dataclass(frozen=True)
class Place:
    """Where an encoder or head is loaded to, and where its files are looked for."""

    device: str = "cpu"
    """torch device string."""
    weights_dir: Path | None = None
    """Folder of local weights; None for the cache and the network."""
    dtype: Dtype = "float32"
    """What an encoder computes in; it takes and returns float32 all the same. Heads are always given float32."""
    allow_remote: bool = False
    """Whether a judge may be an endpoint of another machine."""


class LoadedEncoder(Protocol):
    """An image and text encoder in memory. Its ``embed`` functions are always given ``batch`` items."""

    batch: int
    """Images and prompts are embedded at this one batch shape, the last batch padded, so that no
    score depends on what else is in its batch."""
    logit_scale: float
    """exp(logit_scale): what the cosine is multiplied with where a metric asks for it."""

    def preprocess(self, image: Image, preprocessing: str, /) -> torch.Tensor:
        """One image, as it was opened, as float32 (3, h, w) on the CPU; called from several threads at once.

        The image is of any 8-bit mode (RGB, L, P, RGBA, CMYK, ...) and must not be changed: when it becomes RGB
        is part of the preprocessing. ``preprocessing`` is what the metric names, "" by default.
        """

    def embed_images(self, pixels: torch.Tensor) -> torch.Tensor:
        """Preprocessed images (batch, 3, h, w), on the encoder's device -> float32 (batch, d), unit L2 norm."""

    def embed_texts(self, prompts: Sequence[str]) -> torch.Tensor:
        """``batch`` prompts, padded to one length whatever they hold -> float32 (batch, d), unit L2 norm."""

    def truncated(self, prompts: Sequence[str]) -> Sequence[bool]:
        """Of each prompt, whether it is longer than the encoder reads; any number of prompts."""


@runtime_checkable
class LoadedRewardModel(Protocol):
    """A model in memory that scores an image and its prompt together, such as one with cross-attention.

    It has ``score`` where a ``LoadedEncoder`` has embeddings, and is otherwise used in the same way.
    """

    batch: int

    def preprocess(self, image: Image, preprocessing: str, /) -> torch.Tensor:
        """As ``LoadedEncoder.preprocess``."""

    def score(self, pixels: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        """(batch, 3, h, w) on the model's device and ``batch`` prompts -> float32 (batch,), any range."""

    def truncated(self, prompts: Sequence[str]) -> Sequence[bool]:
        """As ``LoadedEncoder.truncated``."""


@dataclass(frozen=True)
class Encoder:
    """How an encoder is named and loaded."""

    name: str
    load: Callable[[Place], LoadedEncoder | LoadedRewardModel]
    weights: tuple[str, ...] = ()
    """Names in ``bench.metrics.catalogue`` that ``load`` asks for; ``doctor`` and ``fetch`` read them."""
    dtypes: tuple[Dtype, ...] = ("float32", "float16", "bfloat16")
    """What ``load`` can compute in; its metrics stay at float32 where another is asked for."""


class LoadedJudge(Protocol):
    """Somebody who answers questions about images."""

    def ask(self, image: Path, sha256: str, prompt: str, questions: Sequence[Question], /) -> Sequence[float]:
        """Of each question the probability of its expected answer, in [0, 1].

        Args:
            image: a PNG, JPEG or WebP file.
            sha256: of its bytes.
            prompt: of the image; empty where it has none.
            questions: at least one.

        Raises:
            JudgeError: no answer, with the reason.
        """

    def close(self) -> None:
        """Nothing will be asked any more."""


@dataclass(frozen=True)
class Judge:
    """How somebody who answers questions is named and begun with."""

    name: str
    identify: Callable[[Place], str]
    """Version and weights in words, without a semicolon: what answers must share to be compared. No torch."""
    load: Callable[[Place], LoadedJudge]
    dtypes: tuple[Dtype, ...] = ("float32",)


@dataclass(frozen=True)
class Inputs:
    """What a metric sees of a batch of n images.

    A metric without an encoder is given one image at a time (n = 1), a metric on an encoder the encoder's
    ``batch`` of them, the last one padded: either way one fixed shape, so that (in float32 on a CPU) the
    score of an image is the same, bit for bit, alone, among others and in any order.
    """

    prompts: tuple[str, ...]
    pixels: torch.Tensor
    """(n, 3, H, W), float32 in [0, 1]; empty (0 images) for a metric on an encoder."""
    reference_pixels: torch.Tensor | None = None
    """The reference variant's images of the same prompts and samples; None for a metric that does not ask for them."""
    image_embeds: torch.Tensor | None = None
    text_embeds: torch.Tensor | None = None
    """(n, d), float32, unit norm; None for a metric without an encoder, and without ``needs_text``."""
    logit_scale: float = 1.0
    head: Any = None
    """What the metric's ``load_head`` returned, or None."""
    reward: torch.Tensor | None = None
    """What a ``LoadedRewardModel`` gave, float32 (n,); None on any other encoder."""
    other_sample_pixels: tuple[torch.Tensor, ...] | None = None
    """The other samples of the prompt and variant, each (1, 3, H, W); None for a metric that does not ask."""
    pair_values: tuple[torch.Tensor, ...] | None = None
    """What the metric's ``of_pair`` gave of the image and each other sample, each (1,); None without ``of_pair``."""
    faces: tuple[FoundFaces, ...] | None = None
    """The faces of each image, and how many its prompt asks for; None for a metric that does not ask, and on an
    encoder."""
    answers: tuple[float, ...] = ()
    """Of the metric's judge, one for each question of the prompt (n = 1), in [0, 1]; empty without a judge."""

    def cosines(self) -> torch.Tensor:
        """The cosine of each image's and its prompt's embedding, (n,) float32 in [-1, 1]."""
        if self.image_embeds is None or self.text_embeds is None:
            raise ValueError("cosines need an encoder's embeddings of images and of prompts (needs_text)")
        return (self.image_embeds * self.text_embeds).sum(dim=1)


@dataclass(frozen=True)
class Metric:
    """A declared metric: its facts, its arithmetic, and the weights of its own head."""

    facts: MetricFacts
    """Their ``metric_dtype`` is what its encoder computes in for it."""
    compute: Callable[[Inputs], torch.Tensor]
    """Inputs -> (n,) float32."""
    load_head: Callable[[Place], Any] | None = None
    """Loads the metric's own small weights; always in float32."""
    needs_reference: bool = False
    """Whether it compares with the reference variant's image, and so scores no reference variant."""
    needs_other_samples: bool = False
    """Whether it compares with the other samples of the prompt, which are images of the same variant."""
    needs_faces: bool = False
    """Whether it looks at faces: it scores only prompts that ask for some (``bench.faces.asked``), and its encoder is
    given the crop of the largest face."""
    needs_text: bool = True
    """Whether it reads ``text_embeds``; without it an image-only encoder will do."""
    weights: tuple[str, ...] = ()
    """Names in ``bench.metrics.catalogue`` that ``load_head`` asks for."""
    preprocessing: str = ""
    """The official preprocessing that it follows, as its encoder names it; "" where the encoder has only one."""
    judge: str | None = None
    """Whose answers it is made of; it reads nothing else of an image."""
    of_pair: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None
    """Its value of two samples, (1, 3, H, W) twice -> (1,), which it then reads instead of the samples."""

    def __call__(self, inputs: Inputs) -> torch.Tensor:
        """Call the decorated function, as if it had not been decorated."""
        return self.compute(inputs)


def metric(
    facts: MetricFacts,
    *,
    load_head: Callable[[Place], Any] | None = None,
    needs_reference: bool = False,
    needs_other_samples: bool = False,
    needs_faces: bool = False,
    needs_text: bool = True,
    weights: Sequence[str] = (),
    preprocessing: str = "",
    of_pair: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
) -> Callable[[Callable[[Inputs], torch.Tensor]], Metric]:
    """Declare the decorated function, ``Inputs`` -> (n,) float32, as a metric.

    To say that an image has no score (it is too small, say) the function raises ``NoScoreError`` with
    the reason. Any other error, a wrong number of values, NaN or infinity become nulls with a reason
    too, for the images concerned only, and are tried again by the next ``score``.

    Args:
        facts: what the metric says of itself.
        load_head: loads the metric's own small weights to a ``Place``; they come as ``Inputs.head``.
        needs_reference: ask for ``reference_pixels``; only for a metric without an encoder.
        needs_other_samples: ask for ``other_sample_pixels``; only for a metric without an encoder or a reference.
        needs_faces: ask for ``faces``, or on an encoder for the crop of the largest; not with the two above.
        needs_text: False spares a metric that reads only the image embedding the texts' embedding.
        weights: names in ``bench.metrics.catalogue`` that ``load_head`` asks for.
        preprocessing: the official preprocessing that it follows, as its encoder names it.
        of_pair: with ``needs_other_samples``, for a metric that is made of values of pairs: of two samples,
            (1, 3, H, W) twice -> (1,), the same bits in either order. It is computed once a pair, and
            ``Inputs.pair_values`` has those of an image instead of ``other_sample_pixels``.

    Raises:
        UsageError: facts that cannot be: a name of other characters, an empty version, ``low`` above
            ``high``, a field of the wrong type, ``needs_reference`` or ``needs_other_samples`` on an encoder or both,
            or one of them beside ``needs_faces``.
    """
    who = f"Metric {facts.name!r}"
    _check_facts(who, facts)
    if needs_reference and facts.encoder is not None:
        raise UsageError(f"{who}: needs_reference is for a metric without an encoder.")
    if needs_other_samples and (needs_reference or facts.encoder is not None):
        raise UsageError(f"{who}: needs_other_samples goes with neither an encoder nor needs_reference.")
    if of_pair is not None and not needs_other_samples:
        raise UsageError(f"{who}: of_pair goes with needs_other_samples.")
    if needs_faces and (needs_reference or needs_other_samples):
        raise UsageError(f"{who}: needs_faces goes with neither needs_reference nor needs_other_samples.")

    def declare(compute: Callable[[Inputs], torch.Tensor]) -> Metric:
        own = msgspec.structs.replace(facts, prompts="faces") if needs_faces else facts
        needs = (needs_reference, needs_other_samples, needs_faces, needs_text)
        return Metric(own, compute, load_head, *needs, tuple(weights), preprocessing, of_pair=of_pair)

    return declare


def encoder(
    name: str,
    *,
    weights: Sequence[str] = (),
    dtypes: Sequence[Dtype] = ("float32", "float16", "bfloat16"),
) -> Callable[[Callable[[Place], LoadedEncoder | LoadedRewardModel]], Encoder]:
    """Declare the decorated function, ``Place`` -> ``LoadedEncoder`` or ``LoadedRewardModel``, as the encoder ``name``.

    Args:
        name: what metrics call it by.
        weights: names in ``bench.metrics.catalogue`` that the function asks for.
        dtypes: what it can compute in, float32 among them.

    Raises:
        UsageError: a name of other characters than those of the message.
    """
    _check_name("Encoder", name)
    return lambda load: Encoder(name, load, tuple(weights), tuple(dtypes))


class LoadedStepMetric(Protocol):
    """A step metric in memory. Its ``score`` is always given ``batch`` items."""

    batch: int

    def score(self, seen: torch.Tensor, timesteps: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        """What the metric reads of n images at their timesteps, and their n prompts -> float32 (n,), any range.

        Args:
            seen: on the metric's device; of ``reads = "picture"`` the predicted image as the VAE decodes it, float32
                (n, 3, height, width), about [-1, 1], not clamped; of ``reads = "latent"`` the noisy latent of the
                variance-preserving process, float32 (n, c, h, w).
            timesteps: float32 (n,), 0 to 999.
            prompts: n of them.
        """

    def truncated(self, prompts: Sequence[str]) -> Sequence[bool]:
        """Of each prompt, whether it is longer than the metric reads."""


@dataclass(frozen=True)
class StepMetric:
    """A declared step metric: it scores an image while it is being drawn, at its timestep."""

    facts: MetricFacts
    load: Callable[[Place], LoadedStepMetric]
    reads: Literal["picture", "latent"]
    families: tuple[str, ...] = ()
    """Families of checkpoints that it was made for; () for all."""
    final_metric: str | None = None
    """The metric that tells the order of the final images; None for its own last step."""
    weights: tuple[str, ...] = ()
    """Names in ``bench.metrics.catalogue`` that ``load`` asks for."""


def step_metric(
    facts: MetricFacts,
    *,
    reads: Literal["picture", "latent"],
    families: Sequence[str] = (),
    final_metric: str | None = None,
    weights: Sequence[str] = (),
) -> Callable[[Callable[[Place], LoadedStepMetric]], StepMetric]:
    """Declare the decorated function, ``Place`` -> ``LoadedStepMetric``, as a step metric.

    Args:
        facts: what the metric says of itself.
        reads: the predicted image, decoded, or the noisy latent itself.
        families: those of checkpoints that it was made for; by default all.
        final_metric: the metric that tells the order of the final images, where it has a counterpart among metrics.
        weights: names in ``bench.metrics.catalogue`` that the function asks for.

    Raises:
        UsageError: a name of other characters than those of the message.
    """
    _check_name("Step metric", facts.name)
    return lambda load: StepMetric(facts, load, reads, tuple(families), final_metric, tuple(weights))


@dataclass(frozen=True)
class SetInputs:
    """What a set metric sees of a set of images: their embeddings, prompt by prompt."""

    images: tuple[NDArray[np.float64], ...]
    """For each prompt (n, d), unit rows by sample; one prompt for a metric over prompts. n may differ by prompt, but
    not between variants."""
    reference: tuple[NDArray[np.float64], ...] | None = None
    """The reference variant's of the same prompts and samples; None for a metric that does not ask for them."""


@dataclass(frozen=True)
class SetMetric:
    """A declared set metric: its facts, its arithmetic, and what it needs of a set."""

    facts: MetricFacts
    """Their ``over`` is what it has one number of, their ``metric_dtype`` what its encoder computes in for it."""
    compute: Callable[[SetInputs], float] | Callable[[SetInputs], NDArray[np.float64]]
    """A number of a prompt or tag; of a metric over pairs of prompts the matrix (P, P) of their numbers."""
    needs_reference: bool = False
    """Whether it compares with the reference variant's images, and so has no number of that variant."""
    min_samples: int = 1
    """Images of a prompt that it needs."""
    scale: Callable[[SetInputs], float] | None = None
    """What the number is to be held against, from the same embeddings."""
    preprocessing: str = ""
    """As ``Metric.preprocessing``."""
    weights: tuple[str, ...] = ()
    """None of its own: it reads its encoder's embeddings."""


def set_metric(
    facts: MetricFacts,
    *,
    over: Over,
    needs_reference: bool = False,
    min_samples: int = 1,
    scale: Callable[[SetInputs], float] | None = None,
    preprocessing: str = "",
) -> Callable[[Callable[[SetInputs], Any]], SetMetric]:
    """Declare the decorated function, from ``SetInputs`` to one number of a set of images, as a set metric.

    To say that a set has no number the function raises ``NoScoreError`` with the reason. Any other error, NaN or
    infinity become a null with a reason too, and are tried again by the next ``score``.

    Args:
        facts: what the metric says of itself; it names an encoder.
        over: "prompt": a number of a prompt's images. "tag": a number of the images of a tag, and of all, computed
            again without each prompt in turn, for the interval. "prompt pairs": a symmetric matrix (P, P) of a tag's
            P prompts, of which the mean off the diagonal is the tag's number.
        needs_reference: ask for the reference variant's embeddings; its category is then "distance", and only then.
        min_samples: images of a prompt that it needs; a prompt with fewer is a null with that reason.
        scale: of a metric over prompts, what a number is to be held against.
        preprocessing: the official preprocessing that it follows, as its encoder names it.

    Raises:
        UsageError: facts that cannot be, no encoder, or something above that does not go together.
    """
    who = f"Set metric {facts.name!r}"
    _check_facts(who, facts)
    if facts.encoder is None:
        raise UsageError(f"{who} names no encoder; it reads embeddings.")
    if over not in ("prompt", "tag", "prompt pairs"):
        raise UsageError(f"{who}: over is {over!r}; allowed are 'prompt', 'tag' and 'prompt pairs'.")
    if needs_reference != (facts.category == "distance"):
        raise UsageError(f"{who}: needs_reference and the category 'distance' go together.")
    if (over == "prompt pairs" and not needs_reference) or (over == "tag" and needs_reference):
        raise UsageError(f"{who}: over 'prompt pairs' goes with needs_reference, over 'tag' does not.")
    if over != "prompt" and (scale is not None or min_samples != 1):
        raise UsageError(f"{who}: scale and min_samples are for a metric over prompts.")
    known = msgspec.structs.replace(facts, over=over)
    return lambda compute: SetMetric(known, compute, needs_reference, min_samples, scale, preprocessing)


def _check_facts(who: str, facts: MetricFacts) -> None:
    try:
        msgspec.convert(msgspec.to_builtins(facts), MetricFacts)  # msgspec checks types only when it decodes
    except msgspec.ValidationError as error:
        raise UsageError(f"{who}: {error}.") from error
    _check_name("Metric", facts.name)
    if not facts.version:
        raise UsageError(f"{who} has an empty version; scores are kept by version.")
    if facts.low is not None and facts.high is not None and not facts.low < facts.high:
        raise UsageError(f"{who}: low {facts.low} is not below high {facts.high}.")


def _check_name(kind: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise UsageError(f"{kind} name {name!r}: use lower-case letters, digits, '.', '_' and '-'.")
    if name == VOTES_METRIC:
        raise UsageError(f"{kind} name {name!r}: it is that of people's votes; choose another one.")


Scored = Metric | SetMetric
"""What ``score`` computes; a suite's ``metrics`` names both."""
Declared = Scored | Encoder | StepMetric | Judge
