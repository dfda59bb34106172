"""A gate's verdicts as the report shows them."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from bench import formatting as text
from bench.compare.pairing import ImageScores, usable_scores
from bench.errors import HotartError
from bench.gate.outcomes import WORDS, WORST_FIRST, formatted, unexplained
from bench.plots.gate import (
    LossGroup,
    LossRow,
    far,
    loss_groups,
    pair_title,
    reach,
    scale,
    title_of,
    window,
    within_run,
    word,
)
from bench.plots.style import shortened
from bench.records import Gate, Outcome, Render, Run, Verdict, WorstPrompt
from bench.report.facts import when
from bench.report.headline import Mark
from bench.report.pictures import LONG_PROMPT, Key, picture
from bench.store import load_run

# The report's forest of losses, in coordinates for SVG: once for wide pages, once for phones.


@dataclass(frozen=True)
class Layout:
    """Where the parts of a row stand, in the chart's units, which are a screen's pixels at full width."""

    name: str
    width: float
    left: float
    right: float
    row: float
    """Height of a row."""
    strip: float
    """From a row's top to the middle of its interval."""
    title: float
    """From a row's top to the base line of its title; its second line follows."""
    numbers: float
    """Where the numbers end, at the right."""
    title_characters: int
    reason_characters: int


WIDE = Layout("wide", 1150, 215, 900, 46, 23, 19, 1150, 27, 96)

NARROW = Layout("narrow", 340, 12, 328, 78, 60, 17, 338, 15, 46)

_TOP, _HEAD, _FOOT, _LINE = 30.0, 36.0, 44.0, 17.0


@dataclass(frozen=True)
class ForestLine:
    """One verdict's row: its mark and interval, or the reason why there are none."""

    title: str
    outcome: Outcome
    word: str
    numbers: str
    allowed: str
    top: float
    y: float
    x: float | None
    low: float
    high: float
    drawn: bool
    beyond: tuple[str, ...]
    far: str
    """The loss in margins, where its mark lies outside the window."""
    reason: tuple[str, ...]


@dataclass(frozen=True)
class ForestHead:
    """The name of a pair, above its rows."""

    title: str
    y: float


@dataclass(frozen=True)
class Forest:
    """The forest of losses in one layout."""

    layout: Layout
    height: float
    top: float
    bottom: float
    no_loss: float
    margin: float
    edge: float
    """Right end of the shaded zone beyond the margin."""
    heads: tuple[ForestHead, ...]
    lines: tuple[ForestLine, ...]
    marks: tuple[Mark, ...]
    title: str
    description: str


def forest(groups: tuple[LossGroup, ...], layout: Layout) -> Forest:
    """The forest of ``groups``: shares of the margin across, verdicts down."""
    ends = window(groups)

    def to_x(share: float) -> float:
        return round(layout.left + (layout.right - layout.left) * (share - ends[0]) / (ends[1] - ends[0]), 1)

    y, heads, lines = _TOP, [], []
    for group in groups:
        heads.append(ForestHead(shortened(group.title, 46), y + 24))
        y += _HEAD
        for row in group.rows:
            lines.append(_line(row, layout, ends, y))
            y += layout.row
    return Forest(
        layout=layout,
        height=y + _FOOT,
        top=_TOP,
        bottom=y,
        no_loss=to_x(0),
        margin=to_x(1),
        edge=layout.right,
        heads=tuple(heads),
        lines=tuple(lines),
        marks=tuple(Mark(to_x(at), label) for at, label in scale(ends)),
        title="Losses as shares of what is allowed",
        description=" ".join(_spoken(group, row) for group in groups for row in group.rows),
    )


def _line(row: LossRow, layout: Layout, ends: tuple[float, float], top: float) -> ForestLine:
    verdict, found = row.verdict, reach(row, ends)

    def to_x(share: float) -> float:
        return round(layout.left + (layout.right - layout.left) * (share - ends[0]) / (ends[1] - ends[0]), 1)

    numbers = formatted(verdict)
    interval = "" if verdict.interval is None else f" {numbers.interval}"
    return ForestLine(
        title=shortened(row.title, layout.title_characters),
        outcome=verdict.outcome,
        word=word(verdict.outcome),
        numbers="" if verdict.loss is None else numbers.loss + interval,
        allowed="" if verdict.margin is None else f"margin {numbers.margin}",
        top=top,
        y=top + layout.strip,
        x=None if found is None or found.at is None else to_x(found.at),
        low=0.0 if found is None else to_x(found.low),
        high=0.0 if found is None else to_x(found.high),
        drawn=found is not None,
        beyond=() if found is None else found.beyond,
        far="" if found is None else far(row, found),
        reason=_reason(verdict.sentence, layout.reason_characters) if found is None else (),
    )


def _reason(sentence: str, characters: int) -> tuple[str, ...]:
    return tuple(textwrap.wrap(textwrap.shorten(sentence, 2 * characters - 8, placeholder=" …"), characters)[:2])


def _spoken(group: LossGroup, row: LossRow) -> str:
    """A row as one sentence, for readers who hear the chart."""
    said = f"{row.title}, {group.title}: {WORDS[row.verdict.outcome]}"
    if row.at is None:
        return f"{said}, not drawn."
    ends = "" if row.low is None or row.high is None else f", interval {row.low:.2f} to {row.high:.2f}"
    return f"{said}, loss {row.at:.2f} of the margin{ends}."


# The prompts that lost most, as pairs of images: the candidate's of this run, the reference's where they are.

SIDE_PX = 448

"""Longest side of an image of a pair; the grid has larger ones."""

MAX_BYTES = 12 * 2**20

"""Bytes of image data that the pairs of one report embed."""


@dataclass(frozen=True)
class Shot:
    """An image of a pair, or why there is none."""

    variant: str
    score: str
    uri: str
    width: int
    height: int
    reason: str


@dataclass(frozen=True)
class WorstPair:
    """One prompt on which the candidate lost: its texts, its scores, its images."""

    place: int
    prompt_id: str
    sample: int
    prompt: str
    long: bool
    loss: str
    row: int | None
    """Number of the row in the report's grid that shows the same sample."""
    shots: tuple[Shot, ...]


@dataclass(frozen=True)
class WorstGroup:
    """The worst prompts of one metric and pair."""

    metric: str
    pair: str
    outcome: Outcome
    word: str
    note: str
    pairs: tuple[WorstPair, ...]


@dataclass(frozen=True)
class _Side:
    """One run's images and scores, by place."""

    folder: Path
    renders: Mapping[Key, Render]
    cells: Mapping[tuple[str, str], ImageScores]


@dataclass
class _Album:
    """Both runs, their images by file, each read once, and the bytes that are left to embed."""

    ours: _Side
    theirs: _Side | None
    left: int
    read: dict[Path, tuple[str, int, int, str]] = field(default_factory=dict)

    def shot(self, side: _Side, key: Key, score: str) -> Shot:
        """The image of a cell with its score, or the reason why it cannot be shown."""
        render = side.renders.get(key)
        if render is None or render.image is None:
            why = "It is not rendered." if render is None else f"It could not be made: {render.error}"
            return Shot(key[0], score, "", 0, 0, why)
        path = side.folder / render.image
        if path not in self.read:
            self.read[path] = _read(path)
        uri, width, height, why = self.read[path]
        if len(uri) > self.left:
            return Shot(key[0], score, "", 0, 0, "It is not embedded, to keep this page small.")
        self.left -= len(uri)
        return Shot(key[0], score, uri, width, height, why)


def _side(run: Run) -> _Side:
    renders = {(one.variant, one.prompt_id, one.sample): one for one in run.renders}
    return _Side(Path(run.path), renders, usable_scores(run))


def _read(path: Path) -> tuple[str, int, int, str]:
    try:
        found = picture(path, SIDE_PX)
    except (OSError, SyntaxError) as error:  # Pillow reports a broken PNG chunk as a SyntaxError
        return "", 0, 0, f"The file cannot be read: {type(error).__name__}."
    return found.uri, found.width_px, found.height_px, ""


def worst_groups(run: Run, gate: Gate, rows: Mapping[tuple[str, int], int]) -> tuple[WorstGroup, ...]:
    """For each metric that failed or is not decided, its worst prompts, failed ones first.

    Args:
        run: the candidate's run, with its images.
        gate: what was judged of it.
        rows: number of the grid's row by (prompt, sample).
    """
    shown = [
        one
        for outcome in ("fail", "inconclusive")
        for one in gate.verdicts
        if one.outcome == outcome and one.kind == "metric" and one.worst
    ]
    if not shown:
        return ()
    other, note = reference_run(run, gate)
    album = _Album(_side(run), None if other is None else _side(other), MAX_BYTES)
    return tuple(
        WorstGroup(
            metric=verdict.name,
            pair=pair_title(gate, verdict.candidate, verdict.reference),
            outcome=verdict.outcome,
            word=word(verdict.outcome),
            note=note,
            pairs=tuple(_pair(run, verdict, place, rows, album) for place in range(len(verdict.worst))),
        )
        for verdict in shown
    )


def reference_run(run: Run, gate: Gate) -> tuple[Run | None, str]:
    """The run with the reference's images, and a sentence why there is none."""
    if within_run(gate):
        return run, ""
    if not gate.baseline_is_run:
        return None, "The candidate's images alone: a frozen baseline keeps scores, no images."
    try:
        found = load_run(gate.baseline)
    except HotartError:
        return None, "The candidate's images alone: the baseline's run folder is not there any more, or not readable."
    if found.info.id != gate.baseline_id:
        return None, "The candidate's images alone: the baseline's folder holds another run by now."
    return found, ""


def _pair(run: Run, verdict: Verdict, place: int, rows: Mapping[tuple[str, int], int], album: _Album) -> WorstPair:
    one, decimals = verdict.worst[place], _decimals(verdict.worst)
    sample = _sample(run, verdict, one.prompt_id, album)
    ours, theirs = (text.number(value, decimals) for value in (one.candidate, one.reference))
    shots = [album.shot(album.ours, (verdict.candidate, one.prompt_id, sample), ours)]
    if album.theirs is None:
        shots.append(Shot(verdict.reference, theirs, "", 0, 0, ""))
    else:
        shots.append(album.shot(album.theirs, (verdict.reference, one.prompt_id, sample), theirs))
    prompt = next((prompt.text for prompt in run.info.suite.prompts if prompt.id == one.prompt_id), "")
    return WorstPair(
        place=place + 1,
        prompt_id=one.prompt_id,
        sample=sample,
        prompt=prompt,
        long=len(prompt) > LONG_PROMPT or prompt.count("\n") > 4,
        loss=text.signed(one.loss, decimals),
        row=rows.get((one.prompt_id, sample)),
        shots=tuple(shots),
    )


def _sample(run: Run, verdict: Verdict, prompt_id: str, album: _Album) -> int:
    """The prompt's sample with the largest loss of its own; the first one where that is not known."""
    ours = album.ours.cells.get((verdict.candidate, verdict.name), {})
    theirs = {} if album.theirs is None else album.theirs.cells.get((verdict.reference, verdict.name), {})
    better = next((one.higher_is_better for one in run.info.metrics if one.name == verdict.name), None)
    sign = -1 if better is False else 1
    losses = {
        sample: sign * (theirs[prompt_id, sample] - ours[prompt_id, sample])
        for sample in range(run.info.suite.samples)
        if (prompt_id, sample) in ours and (prompt_id, sample) in theirs
    }
    return max(losses, key=lambda sample: losses[sample], default=0)


def _decimals(worst: Sequence[WorstPrompt]) -> int:
    """Three figures of the largest loss."""
    return text.decimals_for(max(abs(one.loss) for one in worst) / 10)


# A gate's verdicts as the report shows them: the outcome in words, the forest, the numbers, the worst prompts.

MEANINGS: Mapping[Outcome, str] = {
    "pass": "the whole interval stays within the margin",
    "fail": "the whole interval lies beyond the margin",
    "inconclusive": "the interval holds the margin: more data would decide",
    "invalid": "something that the verdict needs is missing",
}

"""What each outcome means, for the legend."""


@dataclass(frozen=True)
class VerdictView:
    """One verdict in words and as the numbers of one row of the table."""

    title: str
    unit: str
    outcome: Outcome
    word: str
    sentence: str
    extras: tuple[str, ...]
    """What stands beside it: prompts and samples, the minimum detectable loss, what would decide it."""
    candidate: str
    reference: str
    loss: str
    interval: str
    margin: str
    limit: str
    counts: str
    detectable: str
    needed: str
    same_weights: bool


@dataclass(frozen=True)
class VerdictGroup:
    """The verdicts on one candidate against one reference, in the gate's order."""

    title: str
    verdicts: tuple[VerdictView, ...]

    @property
    def worst_first(self) -> tuple[VerdictView, ...]:
        """The verdicts by outcome, in the gate's order within one."""
        return tuple(sorted(self.verdicts, key=lambda one: WORST_FIRST.index(one.outcome)))


@dataclass(frozen=True)
class GateView:
    """The gate's section, in reading order."""

    outcome: Outcome
    word: str
    lead: str
    against: str
    time: str
    groups: tuple[VerdictGroup, ...]
    forests: tuple[Forest, ...]
    legend: tuple[tuple[Outcome, str, str], ...]
    method: str
    notes: tuple[str, ...]
    worst: tuple[WorstGroup, ...]
    worst_note: str


def gate_view(run: Run, gate: Gate, rows: Mapping[tuple[str, int], int]) -> GateView:
    """What the report shows of ``gate``, a gate on ``run``; reads the images of the worst prompts.

    Args:
        run: the candidate's run.
        gate: what was judged of it.
        rows: number of the grid's row by (prompt, sample), for the links to it.
    """
    groups = loss_groups(gate)
    drawn = any(row.at is not None for group in groups for row in group.rows)
    samples = run.info.suite.samples
    return GateView(
        outcome=gate.outcome,
        word=word(gate.outcome),
        lead=lead(gate),
        against=_against(gate),
        time=when(gate.time),
        groups=tuple(_group(group) for group in groups),
        forests=(forest(groups, WIDE), forest(groups, NARROW)) if drawn else (),
        legend=tuple((outcome, word(outcome), MEANINGS[outcome]) for outcome in reversed(WORST_FIRST)),
        method=_method(gate.verdicts),
        notes=gate.notes,
        worst=worst_groups(run, gate, rows),
        worst_note="Scores are means over a prompt's samples; the images are of the sample that lost most."
        if samples > 1
        else "",
    )


def lead(gate: Gate) -> str:
    """The outcome of the whole gate in a sentence or two: how many of each, and which ones decide it."""
    strange = unexplained(gate)
    if strange is not None:
        return strange if not gate.verdicts else f"{strange} {_tally(gate.verdicts)}"
    deciding = [f"{one.name} of {one.candidate}" for one in gate.verdicts if one.outcome == gate.outcome]
    named = text.joined(deciding if len(deciding) <= 4 else [*deciding[:3], f"{len(deciding) - 3} more"])
    says: Mapping[Outcome, str] = {
        "pass": "No quantity lost more than is allowed.",
        "fail": f"More was lost than is allowed: {named}.",
        "inconclusive": f"The data do not decide whether too much was lost: {named}.",
        "invalid": f"The gate gives no verdict, because this could not be judged: {named}.",
    }
    same = " Candidate and reference have the same weights." if all(one.equal_weights for one in gate.verdicts) else ""
    return f"{says[gate.outcome]} {_tally(gate.verdicts)}{same}"


def _tally(verdicts: Sequence[Verdict]) -> str:
    counts = {outcome: sum(one.outcome == outcome for one in verdicts) for outcome in reversed(WORST_FIRST)}
    verbs = {"pass": ("passes", "pass"), "fail": ("fails", "fail")}
    parts = []
    for outcome, count in counts.items():
        one, many = verbs.get(outcome, (f"is {outcome}", f"are {outcome}"))
        if count:
            parts.append(f"{count} {one if count == 1 else many}")
    whole = "Of 1 verdict" if len(verdicts) == 1 else f"Of {len(verdicts):,} verdicts"
    return f"{whole}, {text.joined(parts)}."


def _against(gate: Gate) -> str:
    label = PurePath(gate.baseline.replace("\\", "/")).name or gate.baseline
    if within_run(gate):
        return "Two variants of this run were compared."
    if gate.baseline_is_run:
        return f"Compared with the run folder {label}, run {gate.baseline_id}."
    return f"Compared with the frozen baseline {label}, made from run {gate.baseline_id}."


def _method(verdicts: Sequence[Verdict]) -> str:
    """How to read the bars, with the level and the methods that the verdicts themselves name."""
    found = [one.interval for one in verdicts if one.interval is not None]
    methods = text.joined(list(dict.fromkeys(one.method for one in found)))
    levels = text.joined(list(dict.fromkeys(text.percent(one.level) for one in found)))
    how = f" Bars are {levels} intervals ({methods})." if found else ""
    return (
        "A loss is how much worse the candidate is; the margin is the largest loss that the suite allows. Units "
        f"differ, so each loss is drawn as a share of its own margin.{how} The minimum detectable loss is the "
        "smallest true loss that 80 of 100 such gates would fail."
    )


def _group(group: LossGroup) -> VerdictGroup:
    return VerdictGroup(group.title, tuple(_verdict(row.verdict) for row in group.rows))


def _verdict(verdict: Verdict) -> VerdictView:
    numbers = formatted(verdict)
    return VerdictView(
        title=title_of(verdict),
        unit=verdict.unit if verdict.kind == "metric" else "loss in per cent of the median",
        outcome=verdict.outcome,
        word=word(verdict.outcome),
        sentence=verdict.sentence,
        extras=_extras(verdict),
        candidate=numbers.candidate,
        reference=numbers.reference,
        loss=numbers.loss,
        interval=numbers.interval,
        margin=numbers.margin,
        limit=verdict.limit.text,
        counts=numbers.behind,
        detectable=numbers.detectable,
        needed=_needed(verdict),
        same_weights=verdict.equal_weights,
    )


def _extras(verdict: Verdict) -> tuple[str, ...]:
    found = []
    if verdict.equal_weights:
        found.append("same weights on both sides")
    if verdict.n:
        found.append(formatted(verdict).behind)
    if verdict.detectable is not None:
        found.append(f"minimum detectable loss {formatted(verdict).detectable}")
    if verdict.needed is not None:
        found.append(f"about {_needed(verdict)} would probably decide it")
    return tuple(found)


def _needed(verdict: Verdict) -> str:
    """``130 prompts``: what would probably decide an inconclusive verdict; a dash where it is not known."""
    if verdict.needed is None:
        return text.NONE
    return text.plural(verdict.needed, "prompt" if verdict.kind == "metric" else "round")
