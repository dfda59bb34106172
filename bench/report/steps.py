"""The section "Steps" of both reports: the sentences, and the small pictures of the film strip."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import documents
from bench import formatting as text
from bench.compare.attribution import attribute_steps
from bench.compare.steps import step_curves, step_orders, steps_of
from bench.metrics import installed
from bench.records import (
    AttributedMetric,
    Delta,
    Run,
    StepAttribution,
    StepCurve,
    StepOrder,
    StepScore,
    WindowFront,
    WindowPlace,
)

MOST_STRIPS = 4
"""Prompts that are shown as film strips."""
MOST_STRIP_BYTES = 3 * 2**20


@dataclass(frozen=True)
class Frame:
    """A variant's predicted image at one step, as a data URI."""

    variant: str
    step: int
    uri: str


@dataclass(frozen=True)
class FilmStrip:
    """One prompt's predicted images: a row a variant, a frame a step."""

    prompt_id: str
    prompt: str
    steps: tuple[int, ...]
    rows: tuple[tuple[str, tuple[Frame, ...]], ...]


@dataclass(frozen=True)
class StepsView:
    """What the reports show of the steps of a run."""

    sentences: tuple[str, ...]
    curves: tuple[StepCurve, ...]
    orders: tuple[StepOrder, ...]
    attribution: StepAttribution | None
    strips: tuple[FilmStrip, ...]
    notes: tuple[str, ...]


def steps_view(
    run: Run,
    scores: Sequence[StepScore],
    deltas: Sequence[Delta],
    pairs: Sequence[tuple[str, str]],
    *,
    with_pictures: bool = True,
) -> StepsView | None:
    """What the reports show of a run's steps; None where none was scored and it is no attribution.

    Args:
        run: a run as it was read.
        scores: of its ``steps.jsonl``.
        deltas: of ``compare_run``.
        pairs: (candidate, reference) whose curves are shown.
        with_pictures: whether film strips are read.
    """
    found = attribute_steps(run, deltas)
    if not scores and found is None:
        return None
    finals = {name: one.final_metric for name, one in installed().step_metrics.items() if one.final_metric}
    curves = step_curves(run, scores, pairs) if scores else ()
    orders = step_orders(run, scores, pairs, finals) if scores else ()
    sentences = [
        *([] if found is None else attribution_sentences(found)),
        *([] if found is None or found.front is None else front_sentences(found.front, found)),
        *curve_sentences(curves),
        *(order_sentence(one) for one in orders),
    ]
    return StepsView(
        tuple(sentences), curves, orders, found, film_strips(run, scores) if with_pictures else (), _notes(scores)
    )


def how_to_read(view: StepsView) -> str:
    """What the section shows."""
    said = []
    if view.curves:
        said.append(
            "Along each image's own path, the image that the model predicts at a step is decoded and scored. Steps "
            "count from 1; a band holds a whole curve."
        )
    if view.attribution is not None:
        said.append(
            f"{view.attribution.variant} ran in windows of steps only, {view.attribution.reference} in the others; "
            "what it changes in text encoders stayed on."
        )
    return " ".join(said)


def attribution_sentences(found: StepAttribution) -> list[str]:
    """What a maker wants to know: from which steps the gain comes, and what the others only cost."""
    said = []
    name, steps = found.variant, found.steps
    for one in found.metrics:
        if one.nearly_all_until is None:
            continue
        amount = text.signed(one.whole.mean, text.decimals_for(abs(one.whole.mean)))
        said.append(
            f"{one.metric}: nine tenths of {name}'s difference of {amount} come from the first {one.nearly_all_until} "
            f"of {steps} steps."
        )
        if one.additivity is not None and not _holds_zero(one):
            more = "more" if one.additivity.excess * one.whole.mean > 0 else "less"
            said.append(
                f"{one.metric}: its windows add up to {more} than the whole, so they do in part the same thing."
            )
    costly = _only_cost(found)
    if costly is not None:
        said.append(costly)
    return said


def front_sentences(front: WindowFront, found: StepAttribution) -> list[str]:
    """Which windows no other one beats, and the one that keeps the gain at the smallest loss."""
    spans = text.joined([window_span(one) for one in front.places if one.on_front])
    said = [
        f"In the gain in {front.metric} and the largest loss in another metric together, no window beats steps {spans} "
        "(the Pareto front, by the means)."
    ]
    if front.best is None:
        return [*said, f"No gain of {found.variant} in {front.metric} is told from 0, so no window is proposed."]
    best = front.best
    cost = (
        "no other metric got worse" if best.worst is None else f"the largest loss is {best.loss:.2f}, in {best.worst}"
    )
    return [
        *said,
        f"Of the windows that keep nine tenths of the gain in {front.metric}, steps {window_span(best)} cost least: "
        f"{best.share:.0%} of the gain, and {cost}. A window that was chosen on these prompts looks better on them "
        "than on others.",
        "Losses are in units of the metric's limit in the suite, or where it has none of its standard deviation over "
        "prompts.",
    ]


def window_span(place: WindowPlace) -> str:
    """``1-8`` as a window's steps are named."""
    return f"{place.first}-{place.last}"


def gain_cell(place: WindowPlace, front: WindowFront) -> str:
    """A window's gain, with the digits that the largest one asks for."""
    return text.signed(place.gain, text.decimals_for(max(abs(one.gain) for one in front.places) / 100))


def share_cell(place: WindowPlace) -> str:
    """A window's share of the whole gain; a dash where that is not told from 0."""
    return text.NONE if place.share is None else f"{place.share:.0%}"


def _holds_zero(one: AttributedMetric) -> bool:
    return one.additivity is None or one.additivity.interval.low <= 0 <= one.additivity.interval.high


def _only_cost(found: StepAttribution) -> str | None:
    """The last windows in which nothing is told to gain, and something is told to get worse."""
    ends = []
    windows = sorted({(w.first, w.last) for one in found.metrics for w in one.windows if w.kind == "only"})
    for first, last in reversed(windows):
        signs = {one.metric: _sign(one, first, last) for one in found.metrics if one.higher_is_better is not None}
        if any(sign > 0 for sign in signs.values()) or not any(sign < 0 for sign in signs.values()):
            break
        ends.append((first, [metric for metric, sign in signs.items() if sign < 0]))
    if not ends:
        return None
    worse = text.joined(list(dict.fromkeys(metric for _, names in ends for metric in names)))
    return f"From step {ends[-1][0]} on, {found.variant} gains nothing that can be told, and costs {worse}."


def _sign(one: AttributedMetric, first: int, last: int) -> int:
    """1 where a window is told to be better, -1 where it is told to be worse, 0 where neither."""
    for window in one.windows:
        if window.kind == "only" and (window.first, window.last) == (first, last):
            ends = window.delta.interval
            if ends is None or ends.low <= 0 <= ends.high:
                return 0
            return 1 if (window.delta.mean > 0) == bool(one.higher_is_better) else -1
    return 0


def curve_sentences(curves: Sequence[StepCurve]) -> list[str]:
    """A sentence a curve that is told from 0 somewhere, and one on those that are not."""
    flat = [one for one in curves if all(low <= 0 <= high for low, high in zip(one.low, one.high, strict=True))]
    said = [curve_sentence(one) for one in curves if one not in flat]
    if flat:
        names = text.listed([f"{one.metric} of {one.candidate} - {one.reference}" for one in flat])
        said.append(f"At no step told from 0, with {text.plural(flat[0].prompts, 'prompt')}: {names}.")
    return said


def curve_sentence(curve: StepCurve) -> str:
    """Where a curve is told from 0, and where its peak is."""
    who = f"{curve.metric}, {curve.candidate} - {curve.reference}"
    below = [s for s, high in zip(curve.steps, curve.high, strict=True) if high < 0]
    above = [s for s, low in zip(curve.steps, curve.low, strict=True) if low > 0]
    parts = [f"above 0 at {text.steps(above)}"] if above else []
    parts += [f"below 0 at {text.steps(below)}"] if below else []
    peak = curve.steps[max(range(len(curve.steps)), key=lambda place: abs(curve.mean[place]))]
    return f"{who}: {' and '.join(parts)}; largest at step {peak}."


def order_sentence(order: StepOrder) -> str:
    """When the images are decided, and where the order at a step contradicts the final one."""
    what = (
        f"two samples of {order.candidate}"
        if order.candidate == order.reference
        else f"{order.candidate} and {order.reference}"
    )
    first = f"{order.metric} orders {what} as the final images in {order.agreement[0]:.0%} of pairs at step "
    first += f"{order.steps[0]}"
    decided = (
        f"; from step {order.decided_step} on in nine tenths or more"
        if order.decided_step is not None
        else "; in nine tenths at no step"
    )
    reversed_ = f"; at {text.steps(order.reversed_steps)} mostly the reverse" if order.reversed_steps else ""
    return f"{first}{decided}{reversed_} (final order by {_final(order)})."


def _final(order: StepOrder) -> str:
    return "its own last step" if order.final_is_last_step else order.final_metric


def film_strips(run: Run, scores: Sequence[StepScore]) -> tuple[FilmStrip, ...]:
    """The first prompts that have small pictures, until they are too large together."""
    steps, size = steps_of(scores), 0
    strips: list[FilmStrip] = []
    for prompt in run.info.suite.prompts:
        rows = []
        for variant in run.info.suite.variants:
            frames = [_frame(run, variant.name, prompt.id, step) for step in steps]
            there = tuple(frame for frame in frames if frame is not None)
            if there:
                rows.append((variant.name, there))
        if not rows:
            continue
        size += sum(len(frame.uri) for _, frames in rows for frame in frames)
        if strips and size > MOST_STRIP_BYTES:
            break
        strips.append(FilmStrip(prompt.id, prompt.text, steps, tuple(rows)))
        if len(strips) == MOST_STRIPS:
            break
    return tuple(strips)


def _frame(run: Run, variant: str, prompt_id: str, step: int) -> Frame | None:
    path = Path(run.path) / "steps" / variant / prompt_id / f"{step:03d}.webp"
    if not path.is_file():
        return None
    return Frame(variant, step, f"data:image/webp;base64,{base64.b64encode(documents.read_bytes(path)).decode()}")


def _notes(scores: Sequence[StepScore]) -> tuple[str, ...]:
    """Which step scores there are none of, and why."""
    reasons: dict[tuple[str, str], int] = {}
    for score in scores:
        if score.value is None:
            which = (score.metric, score.reason or "no reason was recorded")
            reasons[which] = reasons.get(which, 0) + 1
    return tuple(f"{metric}: {count:,} steps have no score: {why}." for (metric, why), count in reasons.items())
