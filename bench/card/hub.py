"""The card of the Hub: README.md with the facts as YAML in front, which ``huggingface_hub`` reads and writes again.

One result a metric: the Hub puts results of equal task, data set type, configuration, split and revision together and
keeps the name and arguments of the first alone, so each metric has a configuration of its own. It has no field for an
interval; intervals are arguments of the metric.
"""

from __future__ import annotations

import re
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from bench.card.facts import CardFacts, interval_note, metric_rows, overlaps
from bench.card.pictures import CardPictures
from bench.errors import InvalidError
from bench.formatting import plural
from bench.report import environment

TASK = "text-to-image"
DATASET = "hotart-bench"
FAMILY_TAGS = {"sdxl": "stable-diffusion-xl", "sd15": "stable-diffusion"}


def hub_card(card: CardFacts, pictures: CardPictures) -> str:
    """The whole README.md, in markdown.

    Raises:
        InvalidError: a number that is not finite.
        ValueError: the Hub's own client does not read it as it was meant (an internal error).
    """
    data = card_data(card, pictures)
    body = environment(autoescape=False).get_template("card.md.j2").render(
        card=card,
        pictures=pictures,
        rows=metric_rows(card),
        overlaps=overlaps(card),
        interval_note=interval_note(card),
        fence=_fence(card.recipe),
        version=card.run.info.packages.get("hotart-bench", ""),
    )  # fmt: skip
    content = f"---\n{data.to_yaml(line_break=chr(10))}\n---\n\n{_squeezed(body)}"
    read: Any = ModelCard(content).data
    if read.to_dict() != data.to_dict():
        raise ValueError("the card is not read as it was written")
    return content


def card_data(card: CardFacts, pictures: CardPictures) -> Any:
    """What stands in front of the card, as a ``ModelCardData``; what is not known is left out.

    Raises:
        InvalidError: a number that is not finite.
    """
    terms = card.chain.terms
    family = FAMILY_TAGS[card.family] if card.family is not None else ""
    merge = "merge" if card.relation == "merge" else ""
    licence: dict[str, Any] = {}
    if terms is not None and terms.on_hub:
        licence = {"license": terms.id}
    elif terms is not None:
        licence = {"license": "other", "license_name": terms.id, "license_link": terms.link}
    elif card.chain.other:
        licence = {"license": "other", "license_name": _one_line(card.chain.other)}
    more: dict[str, Any] = {}
    if card.relation is not None and card.base_models:
        more["base_model_relation"] = card.relation
    if pictures.shown:
        more["thumbnail"] = pictures.shown[0].file
        more["widget"] = [_widget(card, pictures, index) for index in range(len(pictures.shown))]
    results = [] if card.limited else eval_results(card)
    return ModelCardData(
        base_model=list(card.base_models) if len(card.base_models) > 1 else next(iter(card.base_models), None),
        library_name="diffusers",
        pipeline_tag=TASK,
        tags=[tag for tag in (TASK, family, merge, DATASET) if tag],
        model_name=_one_line(card.title) if results else None,
        eval_results=results or None,
        **licence,
        **more,
    )


def _widget(card: CardFacts, pictures: CardPictures, index: int) -> dict[str, Any]:
    one = pictures.shown[index]
    negative = {"parameters": {"negative_prompt": _kept(one.prompt.negative)}} if one.prompt.negative else {}
    return {"text": _kept(one.prompt.text), **negative, "output": {"url": one.file}}


def _one_line(text: str) -> str:
    """A name as one line, since YAML takes U+0085 for a line's end and a lone U+00A0 for nothing."""
    return " ".join(text.split())


def _kept(text: str) -> str:
    """A prompt as it is, as far as YAML can hold it."""
    return text.replace("\x85", " ") if text.strip() else ""


def eval_results(card: CardFacts) -> list[EvalResult]:
    """A result for each metric of the variant: its mean, and as arguments its interval and what it was compared with.

    Raises:
        InvalidError: a number that is not finite.
    """
    suite = card.suite
    versions = {facts.name: facts.full_version for facts in card.run.info.metrics}
    found = []
    for one in card.means:
        arguments: dict[str, Any] = {"prompts": one.prompts, "samples": suite.samples}
        if one.interval is not None:
            arguments |= {"interval_low": one.interval.low, "interval_high": one.interval.high}
            arguments |= {"interval_level": one.interval.level, "interval_method": one.interval.method}
        delta = card.deltas.get(one.metric)
        if delta is not None:
            arguments |= {"reference": delta.reference, "reference_mean": delta.reference_mean}
            arguments |= {"difference": delta.mean}
            if delta.interval is not None:
                arguments |= {"difference_low": delta.interval.low, "difference_high": delta.interval.high}
        found.append(
            EvalResult(
                task_type=TASK,
                dataset_type=DATASET,
                dataset_name=f"{suite.name} ({plural(len(suite.prompts), 'prompt')} x {suite.samples})",
                dataset_config=f"{suite.name}/{one.metric}",
                dataset_revision=card.run.info.protocol_digest[:12],
                metric_type=one.metric,
                metric_name=one.metric,
                metric_value=_number(one.mean, one.metric),
                metric_config=f"version {versions[one.metric]}",
                metric_args={
                    name: _number(value, one.metric) if isinstance(value, float) else value
                    for name, value in arguments.items()
                },
            )
        )
    return found


def _number(value: float | None, metric: str) -> float:
    """A plain float: numpy's would be written as an object of Python, and a NaN as a number that is none."""
    found = float("nan") if value is None else float(value)
    if not abs(found) < float("inf"):
        raise InvalidError(f"A number of {metric} is {found}, which no card can hold.")
    return found


def _fence(content: str) -> str:
    """A fence that no run of backticks in the content ends."""
    longest = max((len(run) for run in re.findall(r"`+", content)), default=0)
    return "`" * max(3, longest + 1)


def _squeezed(body: str) -> str:
    """Without the empty lines that conditions leave."""
    return re.sub(r"\n{3,}", "\n\n", body).strip() + "\n"
