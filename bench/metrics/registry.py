"""Metrics and encoders: how they are declared.

A metric is a decorated function from ``Inputs`` (a batch of images, their prompts, and the embeddings
of the encoder it asks for) to one number an image. An encoder is an image/text encoder, loaded once and
shared by every metric that names it. A complete metric, to be copied:

    # my_package/my_metrics.py

    from __future__ import annotations

    from typing import TYPE_CHECKING

    from bench.metrics import Inputs, metric
    from bench.records import MetricFacts

    if TYPE_CHECKING:
        import torch


    @metric(
        MetricFacts(
            name="brightness",
            version="1",
            summary="Mean of all channels: 0 black, 1 white.",
            unit="share",
            higher_is_better=None,
            low=0.0,
            high=1.0,
            category="pixels",
            encoder=None,
            trained_on="nothing",
            training_overlap="none",
            licence="Apache-2.0",
            reference="none",
        )
    )
    def brightness(inputs: Inputs) -> torch.Tensor:
        # (n, 3, H, W) in [0, 1] -> (n,)
        return inputs.pixels.mean(dim=(1, 2, 3))

``bench.metrics.registry`` finds it. A module of metrics imports torch inside its functions only (and for
type checkers under ``TYPE_CHECKING``), so that ``list metrics`` answers at once.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.metadata
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol, get_args, runtime_checkable

import msgspec

from bench.errors import UsageError
from bench.records import Dtype, MetricFacts
from bench.weights import find_entry

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

# Metrics and encoders: how they are declared.

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


class NoScoreError(Exception):
    """Raised by a metric for an image that has no score by the metric's definition, with the reason."""


@dataclass(frozen=True)
class Place:
    """Where an encoder or head is loaded to, and where its files are looked for."""

    device: str = "cpu"
    """torch device string."""
    weights_dir: Path | None = None
    """Folder of local weights, as ``bench.weights.find_weights`` takes it; None for the cache and the network."""
    dtype: Dtype = "float32"
    """What an encoder computes in; it takes and returns float32 all the same. Heads are always given float32."""


class LoadedEncoder(Protocol):
    """An image/text encoder in memory. Its ``embed`` functions are always given ``batch`` items."""

    batch: int
    """Images and prompts are embedded at this one batch shape, the last batch padded, so that no
    score depends on its batch-mates."""
    logit_scale: float
    """exp(logit_scale): what the cosine is multiplied with where a metric asks for it."""

    def preprocess(self, image: Image, view: str) -> torch.Tensor:
        """One image, as it was opened, as float32 (3, h, w) on the CPU; called from several threads at once.

        The image is of any 8-bit mode (RGB, L, P, RGBA, CMYK, ...) and must not be changed: when it becomes RGB
        is part of the preprocessing. ``view`` is the metric's: the name of the official preprocessing that it follows.
        """

    def embed_images(self, pixels: torch.Tensor) -> torch.Tensor:
        """Preprocessed images (batch, 3, h, w), on the encoder's device -> float32 (batch, d), unit L2 norm."""

    def embed_texts(self, prompts: Sequence[str]) -> torch.Tensor:
        """``batch`` prompts, padded to one length whatever they hold -> float32 (batch, d), unit L2 norm."""

    def truncated(self, prompts: Sequence[str]) -> Sequence[bool]:
        """Of each prompt, whether it is longer than the encoder reads; any number of prompts."""


@runtime_checkable
class LoadedRewardModel(Protocol):
    """A model in memory that judges picture and prompt together, such as one with cross-attention.

    It has ``score`` where a ``LoadedEncoder`` has embeddings, and is otherwise used in the same way.
    """

    batch: int

    def preprocess(self, image: Image, view: str) -> torch.Tensor:
        """As ``LoadedEncoder.preprocess``."""

    def score(self, pixels: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        """(batch, 3, h, w) on the encoder's device and ``batch`` prompts -> float32 (batch,), any range."""

    def truncated(self, prompts: Sequence[str]) -> Sequence[bool]:
        """As ``LoadedEncoder.truncated``."""


@dataclass(frozen=True)
class Encoder:
    """How an encoder is named and loaded."""

    name: str
    load: Callable[[Place], LoadedEncoder | LoadedRewardModel]
    weights: tuple[str, ...] = ()
    """Names in the catalogue of ``bench.weights`` that ``load`` asks for; ``doctor`` and ``fetch`` read them."""
    dtypes: tuple[Dtype, ...] = ("float32", "float16", "bfloat16")
    """What ``load`` can compute in; asked for another, its metrics stay at float32."""


@dataclass(frozen=True)
class Inputs:
    """What a metric sees of a batch of n images.

    A metric without an encoder is given one image at a time (n = 1), a metric on an encoder the encoder's
    ``batch`` of them, the last one padded: either way one fixed shape, so that (in float32 on a CPU) the
    score of an image is the same, bit for bit, alone, among others and in any order.
    """

    prompts: tuple[str, ...]
    pixels: torch.Tensor
    """(n, 3, H, W), float32 in [0, 1]; empty (0 images) for a metric on an encoder, which keeps the
    embeddings and lets the images go."""
    reference_pixels: torch.Tensor | None
    """The same cells of the reference variant, or None for a metric that does not ask for them."""
    image_embeds: torch.Tensor | None
    text_embeds: torch.Tensor | None
    """(n, d), float32, unit norm; None for a metric without an encoder, and without ``needs_text``."""
    logit_scale: float
    head: Any
    """What the metric's ``load_head`` returned, or None."""
    joint: torch.Tensor | None = None
    """What a ``LoadedRewardModel`` gave, float32 (n,); None on any other encoder."""
    other_sample_pixels: tuple[torch.Tensor, ...] | None = None
    """The other samples of the prompt and variant, each (1, 3, H, W); None for a metric that does not ask."""


@dataclass(frozen=True)
class Metric:
    """A declared metric: its facts, its arithmetic, and the weights of its own head."""

    facts: MetricFacts
    compute: Callable[[Inputs], torch.Tensor]
    """Inputs -> (n,) float32."""
    load_head: Callable[[Place], Any] | None = None
    """Loads the metric's own small weights; always in float32."""
    needs_reference: bool = False
    """Whether it compares with the reference variant's image, and so scores no reference variant."""
    needs_text: bool = True
    """Whether it reads ``text_embeds``; without it an image-only encoder will do."""
    weights: tuple[str, ...] = ()
    """Names in the catalogue of ``bench.weights`` that ``load_head`` asks for."""
    view: str = ""
    """The official preprocessing that it follows, as its encoder names it; "" where the encoder has one only."""
    needs_other_samples: bool = False
    """Whether it compares with the other samples of the prompt, which are images of the same variant."""
    dtype: Dtype = "float32"
    """What its encoder computes in for it; the version says so too, see ``bench.metrics.registry``."""

    def __call__(self, inputs: Inputs) -> torch.Tensor:
        """Call the decorated function, as if it had not been decorated."""
        return self.compute(inputs)


@dataclass(frozen=True)
class Registry:
    """The metrics and encoders there are, by name, and what could not be registered."""

    metrics: Mapping[str, Metric] = field(default_factory=dict)
    encoders: Mapping[str, Encoder] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    """One sentence for each plug-in module that was left out: package, module and why."""


def metric(
    facts: MetricFacts,
    *,
    load_head: Callable[[Place], Any] | None = None,
    needs_reference: bool = False,
    needs_other_samples: bool = False,
    needs_text: bool = True,
    weights: Sequence[str] = (),
    view: str = "",
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
        needs_text: False spares a metric that reads only the image embedding the texts' embedding.
        weights: names in the catalogue of ``bench.weights`` that ``load_head`` asks for.
        view: the official preprocessing that it follows, as its encoder names it.

    Raises:
        UsageError: facts that cannot be: a name that is no name, an empty version, ``low`` above
            ``high``, a field of the wrong type, ``needs_reference`` or ``needs_other_samples`` on an encoder or both.
    """
    _check_facts(facts, needs_reference)
    if needs_other_samples and (needs_reference or facts.encoder is not None):
        raise UsageError(
            f"Metric {facts.name!r}: needs_other_samples goes with neither an encoder nor needs_reference."
        )

    def declare(compute: Callable[[Inputs], torch.Tensor]) -> Metric:
        return Metric(facts, compute, load_head, needs_reference, needs_text, tuple(weights), view, needs_other_samples)

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
        weights: names in the catalogue of ``bench.weights`` that the function asks for.
        dtypes: what it can compute in, float32 among them.

    Raises:
        UsageError: a name that is no name.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(f"Encoder name {name!r}: use lower-case letters, digits, '.', '_' and '-'.")
    return lambda load: Encoder(name, load, tuple(weights), tuple(dtypes))


def _check_facts(facts: MetricFacts, needs_reference: bool) -> None:
    """Refuse facts that cannot be; msgspec checks types only when it decodes, hence the round trip."""
    try:
        msgspec.convert(msgspec.to_builtins(facts), MetricFacts)
    except msgspec.ValidationError as error:
        raise UsageError(f"Metric {facts.name!r}: {error}.") from error
    if not _NAME.fullmatch(facts.name):
        raise UsageError(f"Metric name {facts.name!r}: use lower-case letters, digits, '.', '_' and '-'.")
    if not facts.version:
        raise UsageError(f"Metric {facts.name!r} has an empty version; scores are kept by version.")
    if "+" in facts.version:
        raise UsageError(
            f"Metric {facts.name!r}: version {facts.version!r} holds a '+', which a dtype is written after."
        )
    if facts.low is not None and facts.high is not None and not facts.low < facts.high:
        raise UsageError(f"Metric {facts.name!r}: low {facts.low} is not below high {facts.high}.")
    if needs_reference and facts.encoder is not None:
        raise UsageError(f"Metric {facts.name!r}: needs_reference is for a metric without an encoder.")


# Metrics and encoders: how they are found.

GROUP = "hotart_bench.metrics"

"""Entry-point group: each entry names a module whose names hold metrics and encoders."""

OWN_MODULES = (
    "bench.metrics.pixels",
    "bench.metrics.openai_clip",
    "bench.metrics.aesthetic",
    "bench.metrics.pickscore",
    "bench.metrics.hps",
    "bench.metrics.imagereward",
    "bench.mini.metrics",
)

"""Our own entries of the group, loaded by name as well, so that a checkout needs no installation."""


def registry_of(*declared: Metric | Encoder) -> Registry:
    """A registry of just these metrics and encoders, each name once.

    Raises:
        UsageError: two of them share a name, a metric names an encoder that is not among them, or one names weights
            that the catalogue of ``bench.weights`` has not.
    """
    distinct = {id(item): item for item in declared}.values()
    metrics = [item for item in distinct if isinstance(item, Metric)]
    encoders = [item for item in distinct if isinstance(item, Encoder)]
    metric_names, encoder_names = [m.facts.name for m in metrics], [t.name for t in encoders]
    for kind, names in (("metric", metric_names), ("encoder", encoder_names)):
        if doubled := [name for name, count in Counter(names).items() if count > 1]:
            raise UsageError(f"The {kind} {doubled[0]!r} is declared twice.")
    for item in metrics:
        if item.facts.encoder is not None and item.facts.encoder not in encoder_names:
            raise UsageError(f"The metric {item.facts.name!r} names the unknown encoder {item.facts.encoder!r}.")
    for name in (name for item in distinct for name in item.weights):
        find_entry(name)
    return Registry({item.facts.name: item for item in metrics}, {item.name: item for item in encoders})


def declared_in(module: ModuleType) -> tuple[Metric | Encoder, ...]:
    """The metrics and encoders among a module's names, in the order in which they stand there."""
    return tuple(item for item in vars(module).values() if isinstance(item, Metric | Encoder))


def build(own: Sequence[str], plugins: Iterable[importlib.metadata.EntryPoint]) -> Registry:
    """The registry of our own modules and of those that plug-ins name.

    An own module that fails is a bug and raises. A plug-in fails alone: when its module raises, declares
    nothing, or claims a name that is ours, its own twice, or another plug-in's (whose as well: which of
    the two is meant cannot be known), nothing of it is registered and ``problems`` says so.
    """
    core = [item for name in own for item in declared_in(importlib.import_module(name))]
    registry_of(*core)
    found: dict[str, tuple[Metric | Encoder, ...]] = {}
    problems: list[str] = []
    for entry in _foreign(own, plugins):
        try:
            declared = declared_in(importlib.import_module(entry.value))
            registry_of(*core, *declared)
            if not declared:
                raise UsageError("it declares no metric and no encoder.")
        except (Exception, SystemExit) as error:
            problems.append(_problem(entry, f"{type(error).__name__}: {error}"))
        else:
            found[_label(entry)] = declared
    contested = _contested(found)
    problems += [f"The metric plug-in {label} was left out: {why}" for label, why in contested.items()]
    kept = [item for label, declared in found.items() if label not in contested for item in declared]
    registry = registry_of(*core, *kept)
    return Registry(registry.metrics, registry.encoders, tuple(problems))


def _foreign(
    own: Sequence[str], plugins: Iterable[importlib.metadata.EntryPoint]
) -> list[importlib.metadata.EntryPoint]:
    """The entries that name no module of ours, each module once, in an order that no installer decides."""
    by_module = {entry.value: entry for entry in plugins if entry.value not in own}
    return [by_module[module] for module in sorted(by_module)]


def _label(entry: importlib.metadata.EntryPoint) -> str:
    package = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unknown package"
    return f"{entry.value} of {package}"


def _problem(entry: importlib.metadata.EntryPoint, why: str) -> str:
    return f"The metric plug-in {_label(entry)} was left out: {why}"


def _contested(found: Mapping[str, tuple[Metric | Encoder, ...]]) -> dict[str, str]:
    """Plug-ins that claim a name that another one claims for something else, with the reason."""
    claims: dict[str, list[tuple[str, Metric | Encoder]]] = {}
    for label, declared in found.items():
        for item in declared:
            what = f"metric {item.facts.name!r}" if isinstance(item, Metric) else f"encoder {item.name!r}"
            claims.setdefault(what, []).append((label, item))
    contested: dict[str, str] = {}
    for what, claimed in claims.items():
        if len({id(item) for _, item in claimed}) > 1:
            labels = [label for label, _ in claimed]
            contested |= dict.fromkeys(labels, f"the {what} is declared by {' and by '.join(labels)}.")
    return contested


@functools.cache
def installed() -> Registry:
    """The registry of this installation; the entry-point group is read once a process."""
    return build(OWN_MODULES, importlib.metadata.entry_points(group=GROUP))


def all_metrics() -> dict[str, Metric]:
    """Every metric of this installation by name, our own first."""
    return dict(installed().metrics)


def all_facts() -> tuple[MetricFacts, ...]:
    """What every metric of this installation says of itself, our own first; needs no torch."""
    return tuple(declared.facts for declared in installed().metrics.values())


def plugin_problems() -> tuple[str, ...]:
    """One sentence for each plug-in module that was left out; empty when all is well."""
    return installed().problems


def facts_for(names: Sequence[str], registry: Registry | None = None) -> tuple[MetricFacts, ...]:
    """The facts of the metrics named, in that order; needs no torch.

    Raises:
        UsageError: a name that no metric has (with the nearest one, and with the plug-ins that were
            left out), or that is given twice.
    """
    known = registry if registry is not None else installed()
    for name, count in Counter(names).items():
        if name not in known.metrics:
            raise _unknown_metric(name, known)
        if count > 1:
            raise UsageError(f"The metric {name!r} is asked for {count} times; name each once.")
    return tuple(known.metrics[name].facts for name in names)


def _unknown_metric(name: str, known: Registry) -> UsageError:
    near = difflib.get_close_matches(name, known.metrics, n=1)
    closest = f" Did you mean {near[0]!r}?" if near else ""
    left_out = "".join(f" {problem}" for problem in known.problems)
    return UsageError(
        f"There is no metric {name!r}; there are: {', '.join(sorted(known.metrics))}.{closest}{left_out}",
        hint="hotart-bench list metrics",
    )


# What a metric's encoder computes in, and how its version says so.


def version_dtype(version: str) -> Dtype:
    """What the encoder computed in for scores of this version."""
    written = version.partition("+")[2]
    return next((dtype for dtype in get_args(Dtype) if dtype == written), "float32")


def at_dtype(metric: Metric, dtype: Dtype, registry: Registry) -> Metric:
    """The metric on its encoder in ``dtype``; as it is without an encoder, or where the encoder has no such dtype."""
    encoder = registry.encoders[metric.facts.encoder] if metric.facts.encoder is not None else None
    if encoder is None or dtype == "float32" or dtype not in encoder.dtypes:
        return metric
    facts = msgspec.structs.replace(metric.facts, version=f"{metric.facts.version}+{dtype}")
    return replace(metric, facts=facts, dtype=dtype)


def metrics_of_run(names: Sequence[str], recorded: Sequence[MetricFacts], registry: Registry) -> tuple[Metric, ...]:
    """The metrics by their names, each in the dtype that the run's card has for it, or else in float32."""
    dtypes = {facts.name: version_dtype(facts.version) for facts in recorded}
    return tuple(at_dtype(registry.metrics[name], dtypes.get(name, "float32"), registry) for name in names)


def metrics_in(names: Sequence[str], dtype: Dtype, registry: Registry) -> tuple[Metric, ...]:
    """The metrics by their names, those on encoders in ``dtype`` as far as the encoders have it.

    Raises:
        UsageError: none of them has an encoder that computes in it.
    """
    metrics = tuple(at_dtype(registry.metrics[name], dtype, registry) for name in names)
    if dtype != "float32" and all(metric.dtype == "float32" for metric in metrics):
        raise UsageError(
            f"--encoder-dtype {dtype}: none of the metrics {', '.join(names)} has an encoder that computes in it.",
            "hotart-bench list metrics",
        )
    return metrics


def facts_of_run(
    names: Sequence[str],
    recorded: Sequence[MetricFacts],
    asked: Sequence[str],
    dtype: Dtype | None,
    registry: Registry | None = None,
) -> tuple[MetricFacts, ...]:
    """What a run's card says of its metrics: those asked for at ``dtype``, if one is given, the others as before.

    Raises:
        UsageError: an unknown metric, or a dtype that no encoder of those asked for computes in.
    """
    known = registry if registry is not None else installed()
    facts_for(names, known)
    new = () if dtype is None else metrics_in(asked, dtype, known)
    chosen = {metric.facts.name: metric.facts for metric in (*metrics_of_run(names, recorded, known), *new)}
    return tuple(chosen[name] for name in names)
