"""What metrics and variants learnt from: the data sets by name, and how much a metric shares with a variant. No torch.

``trained_on`` is a list of names: of metrics and step metrics, and of the data sets of ``DATA_SETS``. Of a metric it is
the data that its judgement was learnt from, of a variant what it was tuned to please. Pictures and captions that a
network began with are on neither list: CLIP's of a reward model, those of Stable Diffusion of a variant. All variants
share these, and nearly all metrics.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from bench.errors import UsageError
from bench.formatting import did_you_mean, quoted
from bench.records import MetricFacts, Record, TrainedOn, TrainingOverlap

SAY_IT = "say what it was trained on: trained_on = [...]"
"""What to do where an overlap is unknown."""
SAY_IT_OF_JUDGE = "a judge says it in its own table: [judges.NAME] trained_on = [...]"
"""Likewise, where the metric is made of a judge's answers."""


class DataSet(Record, frozen=True):
    """A data set that metrics or variants were trained on."""

    name: str
    summary: str
    source: str
    """Where it is described or lies, and its licence as far as one is stated."""


DATA_SETS: dict[str, DataSet] = {
    name: DataSet(name=name, summary=summary, source=source)
    for name, summary, source in (
        (
            "pick-a-pic",
            "Choices of users of a web application between two pictures of diffusion models; versions 1 and 2.",
            "Y. Kirstain et al., arXiv 2305.01569; no licence stated",
        ),
        (
            "hpd-v2",
            "Choices of hired annotators between pictures of diffusion and other models; DiffusionDB and COCO prompts.",
            "X. Wu et al., arXiv 2306.09341; Apache-2.0",
        ),
        (
            "imagereward-db",
            "Ratings and rankings by trained annotators, of pictures for prompts of DiffusionDB.",
            "J. Xu et al., arXiv 2304.05977; Apache-2.0",
        ),
        (
            "simulacra",
            "Simulacra Aesthetic Captions: ratings of early diffusion pictures from 1 to 10.",
            "J. D. Pressman et al., 2022; CC0",
        ),
        ("ava", "Ratings of photographs from 1 to 10.", "N. Murray et al., CVPR 2012; no licence stated"),
        ("laion-logos", "Ratings of logos from 1 to 10.", "LAION-5B, arXiv 2210.08402; no licence stated"),
        (
            "webimagetext",
            "400 million pictures of the web with their captions, from which openai's CLIP learnt.",
            "A. Radford et al., arXiv 2103.00020; not published",
        ),
        ("laion-nsfw", "Pictures of the web labelled as safe or not.", "LAION-AI, 2022; not published"),
        (
            "smid",
            "Photographs with moral ratings.",
            "D. Crone et al., PLOS ONE 13(1), 2018; no licence stated",
        ),
        (
            "wider-face",
            "Photographs with boxes around their faces.",
            "S. Yang et al., WIDER FACE, CVPR 2016; for research",
        ),
        (
            "facescore-pairs",
            "Faces of photographs, each with a copy inpainted by a diffusion model, which counts as the worse one.",
            "Z. Liao et al., FaceScore, arXiv 2406.17100; not published",
        ),
        ("mini-scenes", "Pictures of the embedded world with their captions.", "docs/mini.md; Apache-2.0"),
        ("mini-ratings", "Noisy ratings of the craft of pictures of the embedded world.", "docs/mini.md; Apache-2.0"),
        (
            "mini-raters",
            "Noisy choices between two pictures of one caption of the embedded world.",
            "docs/mini.md; Apache-2.0",
        ),
        (
            "mini-scenes-2",
            "Pictures of the embedded world with their captions, none of them in mini-scenes.",
            "docs/mini.md; Apache-2.0",
        ),
        (
            "mini-raters-2",
            "Noisy choices between pictures of mini-scenes-2, by raters of their own.",
            "docs/mini.md; Apache-2.0",
        ),
        (
            "mini-measured",
            "Pictures of the embedded world, none of them elsewhere, with their qualities and attributes as drawn.",
            "docs/mini.md; Apache-2.0",
        ),
    )
}

RELATED: tuple[tuple[frozenset[str], str], ...] = (
    (
        frozenset({"pick-a-pic", "hpd-v2"}),
        "both are choices between pictures of diffusion models, and the metrics that learnt from them, PickScore and "
        "HPS, fine-tune the same CLIP ViT-H/14",
    ),
    (frozenset({"hpd-v2", "imagereward-db"}), "both hold prompts and pictures of DiffusionDB"),
    (
        frozenset({"simulacra", "ava", "laion-logos"}),
        "all are ratings of beauty, and LAION's predictors learnt from them",
    ),
    (
        frozenset({"mini-scenes", "mini-ratings", "mini-raters"}),
        "all are of the same pictures, and ratings and choices follow the same craft",
    ),
    (frozenset({"mini-scenes-2", "mini-raters-2"}), "the choices are between these pictures"),
)
"""Data sets any two of which are related, and why."""


def check_training_names(names: Sequence[str], where: str, metrics: Collection[str]) -> None:
    """Refuse names that are not of a metric or data set, and names that come twice.

    Args:
        names: of a ``trained_on``.
        where: what the sentence begins with, such as ``mine.toml: variants.spo.trained_on``.
        metrics: the names of all metrics and step metrics.

    Raises:
        UsageError: with the name, the nearest one and all that there are.
    """
    allowed = (*metrics, *DATA_SETS)
    for name in names:
        if name not in allowed:
            raise UsageError(
                f"{where} names {quoted(name)}, which is neither a metric nor a known data set"
                f"{did_you_mean(name, allowed)}; metrics: {', '.join(metrics)}; data sets: {', '.join(DATA_SETS)}.",
                "hotart-bench list metrics",
            )
        if list(names).count(name) > 1:
            raise UsageError(f"{where} names {name!r} twice.", "name it once")


def with_their_data(names: Iterable[str], metrics: Mapping[str, Sequence[str] | None]) -> tuple[str, ...]:
    """The names, and after each metric the data that it learnt from, to the end; each name once.

    Args:
        names: of metrics and data sets.
        metrics: what each metric was trained on, by its name; None where nobody says.
    """
    found: dict[str, None] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop(0)
        if name not in found:
            found[name] = None
            waiting = [*(metrics.get(name) or ()), *waiting]
    return tuple(found)


def training_overlap(facts: MetricFacts, trained_on: Sequence[str] | None) -> TrainingOverlap:
    """How much a metric shares with what a variant was trained on.

    The rule, the first that holds:

    1. ``unknown``: nobody said what the variant was trained on (None), or what the metric was and the variant, which
       was trained on something, does not name it.
    2. ``same data``: the variant was trained on the metric itself, or on a name that the metric learnt from as well.
    3. ``related data``: a name of the one is listed in ``RELATED`` with a name of the other.
    4. ``none``, as with an empty list.

    Naming a metric counts as naming its data as well; so both lists are as ``with_their_data`` completes them, which
    the registry does for the facts of its metrics, and ``bench.trained_on`` for variants.

    Args:
        facts: of a metric or step metric.
        trained_on: names; None where nobody said.
    """
    if trained_on is None:
        return "unknown"
    ours, theirs = {facts.name, *(facts.trained_on or ())}, set(trained_on)
    if ours & theirs:
        return "same data"
    if facts.trained_on is None:
        return "unknown" if theirs else "none"
    return "related data" if any(ours & group and theirs & group for group, _ in RELATED) else "none"


def overlap_with(facts: MetricFacts, variant: TrainedOn | None) -> TrainingOverlap:
    """The overlap of a metric with a variant, some parts of which may be unknown.

    What is known of its parts proves ``same data`` or ``related data``; ``none`` needs all of them, and is ``unknown``
    where a part is (``training_overlap`` has the rule).

    Args:
        facts: of a metric or step metric.
        variant: None where the run does not say.
    """
    proven = training_overlap(facts, None if variant is None else variant.names)
    return "unknown" if proven == "none" and variant is not None and variant.unknown else proven


def related_data(facts: MetricFacts, variant: TrainedOn | None) -> tuple[str, ...]:
    """Why a metric and a variant are related, one clause for each entry of ``RELATED`` that both are in."""
    if variant is None:
        return ()
    ours, theirs = {facts.name, *(facts.trained_on or ())}, set(variant.names)
    return tuple(why for group, why in RELATED if ours & group and theirs & group)
