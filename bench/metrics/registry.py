"""Metrics and encoders: how they are declared and found.

A metric is a decorated function from ``Inputs`` (a batch of images, their prompts, and the embeddings
of the encoder it names) to one number an image. An encoder is an image and text encoder, or a reward model that
reads both together; it is loaded once and shared by every metric that names it. A step metric scores an image while
it is being drawn, a set metric gives one number of the images of a prompt or tag. A whole metric, to be copied, is in
``docs/plugins.md``; the shortest of ours are in ``bench.metrics.pixels``.

A package names its module in the entry-point group ``hotart_bench.metrics``; ours are in ``OWN_MODULES``. A module of
metrics imports torch inside its functions only (and for type checkers under ``TYPE_CHECKING``): ``list metrics`` needs
no torch and answers at once.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.metadata
import io
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, runtime_checkable

import msgspec

from bench.errors import UsageError
from bench.formatting import did_you_mean
from bench.metrics.catalogue import find_entry
from bench.metrics.training_data import check_training_names, with_their_data
from bench.records import VOTES_METRIC, Dtype, FoundFaces, MetricFacts, Over, Question

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from PIL.Image import Image

# How metrics and encoders are declared.

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


# How metrics and encoders are found.

GROUP = "hotart_bench.metrics"
"""Entry-point group: each entry of another package names a module whose names hold metrics and encoders."""
OWN_MODULES = (
    "bench.metrics.pixels",
    "bench.metrics.openai_clip",
    "bench.metrics.aesthetic",
    "bench.metrics.safety",
    "bench.metrics.pickscore",
    "bench.metrics.hps",
    "bench.metrics.imagereward",
    "bench.metrics.sets",
    "bench.faces.metrics",
    "bench.mini.metrics",
    "bench.mini.judge",
    "bench.steps.published",
)
"""Our own modules of metrics; a new one is added here and nowhere else."""


Scored = Metric | SetMetric
"""What ``score`` computes; a suite's ``metrics`` names both."""
Declared = Scored | Encoder | StepMetric | Judge
M = TypeVar("M", Metric, StepMetric, SetMetric)


@dataclass(frozen=True)
class Registry:
    """The metrics, encoders, step metrics and set metrics there are, by name, and what could not be registered."""

    metrics: Mapping[str, Metric] = field(default_factory=dict)
    encoders: Mapping[str, Encoder] = field(default_factory=dict)
    step_metrics: Mapping[str, StepMetric] = field(default_factory=dict)
    judges: Mapping[str, Judge] = field(default_factory=dict)
    set_metrics: Mapping[str, SetMetric] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    """One sentence for each plug-in that was left out, prints, or cannot even be listed: package, module and why."""

    @property
    def scored(self) -> Mapping[str, Scored]:
        """The metrics and set metrics by name."""
        return {**self.metrics, **self.set_metrics}


def weights_of(name: str, registry: Registry) -> tuple[str, ...]:
    """The entries of ``bench.metrics.catalogue`` that a metric or set metric and its encoder read."""
    one = registry.scored[name]
    encoder = registry.encoders[one.facts.encoder].weights if one.facts.encoder is not None else ()
    return (*encoder, *one.weights)


def registry_of(*declared: Declared) -> Registry:
    """A registry of just these metrics and encoders, each name once.

    Raises:
        UsageError: two of them share a name, a metric names an encoder that is not among them, or one names weights
            that are not in ``bench.metrics.catalogue``; or ``trained_on`` names what is neither one of these metrics
            nor a known data set.
    """
    distinct = {id(item): item for item in declared}.values()
    metrics = [item for item in distinct if isinstance(item, Metric)]
    encoders = {item.name: item for item in distinct if isinstance(item, Encoder)}
    for what, count in Counter(_what(item) for item in distinct).items():
        if count > 1:
            raise UsageError(f"The {what} is declared twice.")
    sets = [item for item in distinct if isinstance(item, SetMetric)]
    for facts in [item.facts for item in metrics] + [item.facts for item in sets]:
        if facts.encoder is not None and facts.encoder not in encoders:
            raise UsageError(f"The metric {facts.name!r} names the unknown encoder {facts.encoder!r}.")
    for item in metrics:
        if item.judge is not None and not any(isinstance(one, Judge) and one.name == item.judge for one in distinct):
            raise UsageError(f"The metric {item.facts.name!r} names the unknown judge {item.judge!r}.")
    for name in (name for item in distinct if not isinstance(item, Judge) for name in item.weights):
        find_entry(name)
    steps = [item for item in distinct if isinstance(item, StepMetric)]
    every: list[Scored | StepMetric] = [*metrics, *steps, *sets]
    trained = {item.facts.name: item.facts.trained_on for item in every}
    for name, names in trained.items():
        check_training_names(names or (), f"trained_on of the metric {name!r}", trained)
    return Registry(
        {item.facts.name: _completed(item, trained) for item in metrics},
        encoders,
        {item.facts.name: _completed(item, trained) for item in steps},
        {item.name: item for item in distinct if isinstance(item, Judge)},
        {item.facts.name: _completed(item, trained) for item in sets},
    )


def _completed(item: M, trained: Mapping[str, Sequence[str] | None]) -> M:
    """The metric, ``trained_on`` in its facts completed by the data of the metrics that are named there."""
    if item.facts.trained_on is None:
        return item
    names = with_their_data(item.facts.trained_on, trained)
    if names == item.facts.trained_on:
        return item
    return replace(item, facts=msgspec.structs.replace(item.facts, trained_on=names))


def build(own: Sequence[str], plugins: Iterable[importlib.metadata.EntryPoint]) -> Registry:
    """The registry of our own modules and of those that plug-ins name.

    An own module that fails is a bug and raises. A plug-in fails alone: when its module raises, declares
    nothing, or claims a name that is ours, its own twice, or another plug-in's (whose as well: which of
    the two is meant cannot be known), nothing of it is registered and ``problems`` says so.
    """
    core = [item for name in own for item in _declared_in(importlib.import_module(name))]
    registry_of(*core)
    found: dict[str, tuple[Declared, ...]] = {}
    problems: dict[str, str] = {}
    printed: dict[str, str] = {}
    entries = {entry.value: entry for entry in plugins if entry.value not in own}
    for module in sorted(entries):  # an order that no installer decides
        label, output = f"{module} of {_package_of(entries[module])}", io.StringIO()
        try:
            with contextlib.redirect_stdout(output):  # where results are, which another program may read
                declared = _declared_in(importlib.import_module(module))
            registry_of(*core, *declared)
            if not declared:
                raise UsageError("it declares no metric and no encoder.")
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            problems[label] = f"{type(error).__name__}: {str(error)[:300]}"
        else:
            found[label] = declared
        if output.getvalue().strip():
            printed[label] = output.getvalue()
    contested = _contested(found)
    kept = [item for label, declared in found.items() if label not in contested for item in declared]
    said = [f"The metric plug-in {label} was left out: {why}" for label, why in (problems | contested).items()]
    said += [
        f"The metric plug-in {label} prints when it is imported ({text[:60]!r}), which was hidden from the results."
        for label, text in printed.items()
    ]
    return replace(registry_of(*core, *kept), problems=tuple(said))


def _declared_in(module: ModuleType) -> tuple[Declared, ...]:
    """The metrics and encoders among a module's names, in the order in which they stand there."""
    return tuple(item for item in vars(module).values() if isinstance(item, Declared))


def _contested(found: Mapping[str, Sequence[Declared]]) -> dict[str, str]:
    """Plug-ins that claim a name that another one claims for something else, with the reason."""
    claims: dict[str, dict[str, int]] = {}
    for label, declared in found.items():
        for item in declared:
            claims.setdefault(_what(item), {})[label] = id(item)
    contested: dict[str, str] = {}
    for what, claimed in claims.items():
        if len(set(claimed.values())) > 1:
            contested |= dict.fromkeys(claimed, f"the {what} is declared by {' and by '.join(claimed)}.")
    return contested


def _what(item: Declared) -> str:
    if isinstance(item, Encoder | Judge):
        return f"{'encoder' if isinstance(item, Encoder) else 'judge'} {item.name!r}"
    return f"metric {item.facts.name!r}"


@functools.cache
def installed() -> Registry:
    """The registry of this installation; the entry-point group is read once a process."""
    entries, unread = find_plugins()
    registry = build(OWN_MODULES, entries)
    return replace(registry, problems=(*unread, *registry.problems))


def find_plugins() -> tuple[Iterable[importlib.metadata.EntryPoint], tuple[str, ...]]:
    """What installed packages name in the group, and a sentence for each package whose list cannot be read."""
    try:
        return importlib.metadata.entry_points(group=GROUP), ()
    except Exception:  # one package's damaged file; the others count all the same
        found: list[importlib.metadata.EntryPoint] = []
        problems = []
        for dist in importlib.metadata.distributions():
            try:
                found += dist.entry_points.select(group=GROUP)
            except Exception as error:
                place = getattr(dist, "_path", "an installed package")
                problems.append(
                    f"{place}: its entry_points.txt cannot be read ({type(error).__name__}), so that metrics of "
                    "this package are left out, and torch may not start; install the package again."
                )
        return found, tuple(problems)


def _package_of(entry: importlib.metadata.EntryPoint) -> str:
    try:
        return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unknown package"
    except Exception:  # its metadata are damaged
        return "a package with damaged metadata"


def all_metrics() -> dict[str, Scored]:
    """Every metric and set metric of this installation by name, those of images first."""
    return dict(installed().scored)


def all_facts() -> tuple[MetricFacts, ...]:
    """What every metric and set metric of this installation says of itself, in that order; needs no torch."""
    return tuple(declared.facts for declared in installed().scored.values())


def training_of_metrics() -> dict[str, tuple[str, ...] | None]:
    """What each metric of every kind of this installation was trained on, by its name."""
    return trained_names(installed())


def trained_names(registry: Registry) -> dict[str, tuple[str, ...] | None]:
    """What each metric of every kind was trained on, by its name; None where nobody says."""
    named = {**registry.scored, **registry.step_metrics}
    return {name: one.facts.trained_on for name, one in named.items()}


def plugin_problems() -> tuple[str, ...]:
    """One sentence for each plug-in module that was left out; empty when all is well."""
    return installed().problems


# The metrics of a run, each with the dtype that its encoder computes in.


def facts_for(names: Sequence[str], registry: Registry | None = None) -> tuple[MetricFacts, ...]:
    """The facts of the metrics named, in that order; needs no torch.

    Raises:
        UsageError: a name that no metric has (with the nearest one, and with the plug-ins that were
            left out), or that is given twice.
    """
    known = registry if registry is not None else installed()
    there = known.scored
    for name, count in Counter(names).items():
        if name not in there:
            near, left_out = did_you_mean(name, there), "".join(f" {problem}" for problem in known.problems)
            names_there = ", ".join(sorted(there))
            raise UsageError(
                f"There is no metric {name!r}{near}; there are: {names_there}.{left_out}",
                hint="hotart-bench list metrics",
            )
        if count > 1:
            raise UsageError(f"The metric {name!r} is named {count} times; name each once.")
    return tuple(there[name].facts for name in names)


def metrics_of_run(
    names: Sequence[str],
    recorded: Sequence[MetricFacts],
    rescored: Sequence[str],
    dtype: Dtype | None,
    registry: Registry,
) -> tuple[Scored, ...]:
    """The metrics by their names, each with the dtype that its encoder computes in (``facts.metric_dtype``).

    Args:
        names: in this order; each metric once.
        recorded: what the run's card has; a metric stays at the dtype that is recorded here, else float32.
        rescored: those of ``names`` that ``dtype`` is for; where their encoder cannot compute in it, float32.
        dtype: None keeps what is recorded of them too.
        registry: where metrics and encoders are looked up.

    Raises:
        UsageError: an unknown metric, or a dtype that no encoder of ``rescored`` computes in.
    """
    facts_for(names, registry)
    dtypes = {facts.name: facts.metric_dtype for facts in recorded}
    if dtype is not None:
        dtypes |= dict.fromkeys(rescored, dtype)
    metrics: list[Scored] = []
    for name in names:
        found = registry.scored[name]
        used: Encoder | Judge | None = (
            registry.encoders[found.facts.encoder] if found.facts.encoder is not None else None
        )
        if isinstance(found, Metric) and found.judge is not None:
            used = registry.judges[found.judge]
        own = dtypes.get(name, "float32")
        own = own if used is not None and own in used.dtypes else "float32"
        metrics.append(replace(found, facts=msgspec.structs.replace(found.facts, metric_dtype=own)))
    reached = {metric.facts.metric_dtype for metric in metrics if metric.facts.name in rescored}
    if dtype not in (None, "float32", *reached):
        raise UsageError(
            f"--metric-dtype {dtype}: none of the metrics {', '.join(rescored)} has an encoder that computes in it.",
            "hotart-bench list metrics",
        )
    return tuple(metrics)


def facts_of_run(
    names: Sequence[str],
    recorded: Sequence[MetricFacts],
    rescored: Sequence[str],
    dtype: Dtype | None,
    registry: Registry | None = None,
) -> tuple[MetricFacts, ...]:
    """What a run's card says of its metrics: the facts of ``metrics_of_run``, which says what the arguments are."""
    known = registry if registry is not None else installed()
    return tuple(metric.facts for metric in metrics_of_run(names, recorded, rescored, dtype, known))
