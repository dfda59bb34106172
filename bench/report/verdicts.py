"""A gate's verdicts as the report shows them: the outcome in words, the forest, the numbers, the worst prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from bench import wording as text
from bench.gate.outcomes import GRAVEST_FIRST, shown, unexplained
from bench.plots.losses import LossGroup, loss_groups, title_of, within_run, word
from bench.records import Gate, Outcome, Run, Verdict
from bench.report.facts import when
from bench.report.gate_chart import NARROW, WIDE, Forest, forest
from bench.report.worst import WorstGroup, worst_groups

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
    def gravest_first(self) -> tuple[VerdictView, ...]:
        """The verdicts by outcome, in the gate's order within one."""
        return tuple(sorted(self.verdicts, key=lambda one: GRAVEST_FIRST.index(one.outcome)))


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
        rows: number of the grid's row by (case, sample), for the links to it.
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
        legend=tuple((outcome, word(outcome), MEANINGS[outcome]) for outcome in reversed(GRAVEST_FIRST)),
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
    named = text.listed(deciding if len(deciding) <= 4 else [*deciding[:3], f"{len(deciding) - 3} more"])
    says: Mapping[Outcome, str] = {
        "pass": "No quantity lost more than is allowed.",
        "fail": f"More was lost than is allowed: {named}.",
        "inconclusive": f"The data do not decide whether too much was lost: {named}.",
        "invalid": f"The gate gives no verdict, because this could not be judged: {named}.",
    }
    same = " Candidate and reference have the same weights." if all(one.equal_weights for one in gate.verdicts) else ""
    return f"{says[gate.outcome]} {_tally(gate.verdicts)}{same}"


def _tally(verdicts: Sequence[Verdict]) -> str:
    counts = {outcome: sum(one.outcome == outcome for one in verdicts) for outcome in reversed(GRAVEST_FIRST)}
    verbs = {"pass": ("passes", "pass"), "fail": ("fails", "fail")}
    parts = []
    for outcome, count in counts.items():
        one, many = verbs.get(outcome, (f"is {outcome}", f"are {outcome}"))
        if count:
            parts.append(f"{count} {one if count == 1 else many}")
    whole = "Of 1 verdict" if len(verdicts) == 1 else f"Of {len(verdicts):,} verdicts"
    return f"{whole}, {text.listed(parts)}."


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
    methods = text.listed(list(dict.fromkeys(one.method for one in found)))
    levels = text.listed(list(dict.fromkeys(text.percent(one.level) for one in found)))
    how = f" Bars are {levels} intervals ({methods})." if found else ""
    return (
        "A loss is how much worse the candidate is; the margin is the largest loss that the suite allows. Units "
        f"differ, so each loss is drawn as a share of its own margin.{how} The minimum detectable loss is the "
        "smallest true loss that 80 of 100 such gates would fail."
    )


def _group(group: LossGroup) -> VerdictGroup:
    return VerdictGroup(group.title, tuple(_verdict(row.verdict) for row in group.rows))


def _verdict(verdict: Verdict) -> VerdictView:
    numbers = shown(verdict)
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
        found.append(shown(verdict).behind)
    if verdict.detectable is not None:
        found.append(f"minimum detectable loss {shown(verdict).detectable}")
    if verdict.needed is not None:
        found.append(f"about {_needed(verdict)} would probably decide it")
    return tuple(found)


def _needed(verdict: Verdict) -> str:
    """``130 prompts``: what would probably decide an inconclusive verdict; a dash where it is not known."""
    if verdict.needed is None:
        return text.NONE
    return text.plural(verdict.needed, "prompt" if verdict.kind == "metric" else "round")
