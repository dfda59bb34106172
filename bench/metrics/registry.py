"""Metrics and towers: how they are declared.

A metric is a decorated function from ``Inputs`` (a batch of images, their prompts, and the embeddings
of the tower it asks for) to one number an image. A tower is an image/text encoder, loaded once and
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
            axis="pixels",
            tower=None,
            trained_on="nothing",
            standing="held-out",
            licence="Apache-2.0",
            reference="none",
        )
    )
    def brightness(inputs: Inputs) -> torch.Tensor:
        # (n, 3, H, W) in [0, 1] -> (n,)
        return inputs.pixels.mean(dim=(1, 2, 3))

``bench.metrics.discovery`` finds it. A module of metrics imports torch inside its functions only (and for
type checkers under ``TYPE_CHECKING``), so that ``list metrics`` answers at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from bench.errors import UsageError
from bench.records import MetricFacts

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


class NoScoreError(Exception):
    """Raised by a metric for an image that has no score by the metric's definition, with the reason."""


class LoadedTower(Protocol):
    """An image/text encoder in memory. Its ``embed`` functions are always given ``batch`` items."""

    batch: int
    """Images and prompts are embedded at this one batch shape, the last batch padded, so that no
    score depends on its batch-mates."""
    logit_scale: float
    """exp(logit_scale): what the cosine is multiplied with where a metric asks for it."""

    def preprocess(self, image: Image) -> torch.Tensor:
        """One RGB image as float32 (3, h, w) on the CPU; called from several threads at once."""

    def embed_images(self, pixels: torch.Tensor) -> torch.Tensor:
        """Preprocessed images (batch, 3, h, w), on the tower's device -> float32 (batch, d), unit L2 norm."""

    def embed_texts(self, prompts: Sequence[str]) -> torch.Tensor:
        """``batch`` prompts, padded to one length whatever they hold -> float32 (batch, d), unit L2 norm."""


@dataclass(frozen=True)
class Tower:
    """How a tower is named and loaded."""

    name: str
    load: Callable[[str], LoadedTower]
    """Takes the torch device string."""


@dataclass(frozen=True)
class Inputs:
    """What a metric sees of a batch of n images.

    A metric without a tower is given one image at a time (n = 1), a metric on a tower the tower's
    ``batch`` of them, the last one padded: either way one fixed shape, so that (in float32 on a CPU) the
    score of an image is the same, bit for bit, alone, among others and in any order.
    """

    prompts: tuple[str, ...]
    pixels: torch.Tensor
    """(n, 3, H, W), float32 in [0, 1]; empty (0 images) for a metric on a tower, which keeps the
    embeddings and lets the images go."""
    reference_pixels: torch.Tensor | None
    """The same cells of the reference variant, or None for a metric that does not ask for them."""
    image_embeds: torch.Tensor | None
    text_embeds: torch.Tensor | None
    """(n, d), float32, unit norm; None for a metric without a tower, and without ``needs_text``."""
    logit_scale: float
    head: Any
    """What the metric's ``load_head`` returned, or None."""


@dataclass(frozen=True)
class Metric:
    """A declared metric: its facts, its arithmetic, and the weights of its own head."""

    facts: MetricFacts
    compute: Callable[[Inputs], torch.Tensor]
    """Inputs -> (n,) float32."""
    load_head: Callable[[str], Any] | None = None
    """Loads the metric's own small weights onto a device."""
    needs_reference: bool = False
    """Whether it compares with the reference variant's image, and so scores no reference variant."""
    needs_text: bool = True
    """Whether it reads ``text_embeds``; without it an image-only tower will do."""

    def __call__(self, inputs: Inputs) -> torch.Tensor:
        """Call the decorated function, as if it had not been decorated."""
        return self.compute(inputs)


@dataclass(frozen=True)
class Registry:
    """The metrics and towers there are, by name, and what could not be registered."""

    metrics: Mapping[str, Metric] = field(default_factory=dict)
    towers: Mapping[str, Tower] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    """One sentence for each plug-in module that was left out: package, module and why."""


def metric(
    facts: MetricFacts,
    *,
    load_head: Callable[[str], Any] | None = None,
    needs_reference: bool = False,
    needs_text: bool = True,
) -> Callable[[Callable[[Inputs], torch.Tensor]], Metric]:
    """Declare the decorated function, ``Inputs`` -> (n,) float32, as a metric.

    To say that an image has no score (it is too small, say) the function raises ``NoScoreError`` with
    the reason. Any other error, a wrong number of values, NaN or infinity become nulls with a reason
    too, for the images concerned only, and are tried again by the next ``score``.

    Args:
        facts: what the metric says of itself.
        load_head: loads the metric's own small weights onto a torch device; they come as ``Inputs.head``.
        needs_reference: ask for ``reference_pixels``; only for a metric without a tower.
        needs_text: False spares a metric that reads only the image embedding the texts' embedding.

    Raises:
        UsageError: facts that cannot be: a name that is no name, an empty version, ``low`` above
            ``high``, a field of the wrong type, ``needs_reference`` on a tower.
    """
    _check_facts(facts, needs_reference)

    def declare(compute: Callable[[Inputs], torch.Tensor]) -> Metric:
        return Metric(facts, compute, load_head, needs_reference, needs_text)

    return declare


def tower(name: str) -> Callable[[Callable[[str], LoadedTower]], Tower]:
    """Declare the decorated function, torch device string -> ``LoadedTower``, as the tower ``name``."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"Tower name {name!r}: use lower-case letters, digits, '.', '_' and '-'.")
    return lambda load: Tower(name, load)


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
    if facts.low is not None and facts.high is not None and not facts.low < facts.high:
        raise UsageError(f"Metric {facts.name!r}: low {facts.low} is not below high {facts.high}.")
    if needs_reference and facts.tower is not None:
        raise UsageError(f"Metric {facts.name!r}: needs_reference is for a metric without a tower.")
