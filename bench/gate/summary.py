"""The verdicts as markdown for people: a job summary, or a comment on a pull request."""

from __future__ import annotations

import html
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from bench import formatting as wording
from bench.errors import UsageError
from bench.formatting import joined as listed
from bench.formatting import plural
from bench.gate.outcomes import GRAVEST_FIRST, WORDS, shown, unexplained, worst_first
from bench.records import Gate, Outcome, Run, Verdict, WorstPrompt

# Markdown that is cut by whole rows to a size, and says so.

_ROOM_FOR_NOTE_BYTES = 1_000


@dataclass(frozen=True)
class Section:
    """Part of a document: ``rows`` may be cut from the end, ``head`` and ``tail`` stand as long as a row does."""

    what: str
    """What one row is, in the singular."""
    rows: tuple[str, ...]
    head: tuple[str, ...] = ()
    tail: tuple[str, ...] = ()


def fitted(sections: Sequence[Section], most_bytes: int, rest: str) -> str:
    """The sections in order, empty ones left out, in at most ``most_bytes`` of UTF-8.

    Rows are left out from the end of a section that does not fit; the last line then counts them by kind and
    ends with ``rest``, a sentence on where they stand.
    """
    left = most_bytes - _ROOM_FOR_NOTE_BYTES
    parts: list[str] = []
    dropped: Counter[str] = Counter()
    for section in sections:
        kept = _rows_within(section, left)
        dropped[section.what] += len(section.rows) - kept
        if kept:
            parts.append(_joined(section, kept))
            left -= _size(parts[-1])
    cut = [plural(count, what) for what, count in dropped.items() if count]
    if cut:
        parts.append(f"_Cut to fit here: {listed(cut)} left out. {rest}_\n")
    return "\n".join(parts)


def _rows_within(section: Section, most_bytes: int) -> int:
    used = _size(_joined(section, 0))
    for count, row in enumerate(section.rows):
        used += _size(row) + 1
        if used > most_bytes:
            return count
    return len(section.rows)


def _joined(section: Section, kept: int) -> str:
    return "\n".join([*section.head, *section.rows[:kept], *section.tail]) + "\n"


def _size(text: str) -> int:
    # The newline that joins a part to the next one is counted too.
    return len(text.encode()) + 1


# The images of the prompts that lost most, as pairs: which sample is shown, and how a summary names it.

SHOWN_WIDTH_PX = 192

_ADDRESS = re.compile(r"https?://[^\s\"'<>`\\]+")


class _Side:
    """One run's images and scores by prompt, read once."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.name = Path(run.path).resolve().name
        self._images: defaultdict[tuple[str, str], dict[int, str]] = defaultdict(dict)
        self._scores: defaultdict[tuple[str, str, str], dict[int, float]] = defaultdict(dict)
        for render in run.renders:
            if render.image is not None:
                self._images[render.variant, render.prompt_id][render.sample] = render.image
        for score in run.scores:
            if score.value is not None:
                self._scores[score.variant, score.prompt_id, score.metric][score.sample] = score.value

    def images(self, variant: str, prompt_id: str) -> dict[int, str]:
        """Path in the run folder by sample, of the images that are still there."""
        found = self._images.get((variant, prompt_id), {})
        return {sample: image for sample, image in found.items() if Path(self.run.path, image).is_file()}

    def scores(self, variant: str, prompt_id: str, metric: str) -> Mapping[int, float]:
        return self._scores.get((variant, prompt_id, metric), {})


@dataclass(frozen=True)
class Pictures:
    """Prompts and images of the two runs of a gate; a run that is not there brings none."""

    candidate: _Side | None
    reference: _Side | None
    base: str | None

    def prompt(self, prompt_id: str) -> str:
        """The text of a prompt; empty where no run is there to ask."""
        side = self.candidate or self.reference
        prompts = () if side is None else side.run.info.suite.prompts
        return next((one.text for one in prompts if one.id == prompt_id), "")

    def pair(self, verdict: Verdict, worst: WorstPrompt) -> tuple[str, str] | None:
        """Markdown of the candidate's and the reference's image of one sample; None where one of them is gone.

        The sample is the one with the largest loss by the verdict's metric, the first of equals.
        """
        if self.candidate is None or self.reference is None:
            return None
        ours = self.candidate.images(verdict.candidate, worst.prompt_id)
        theirs = self.reference.images(verdict.reference, worst.prompt_id)
        common = sorted(ours.keys() & theirs.keys())
        if not common:
            return None
        losses = _losses(self.candidate, self.reference, verdict, worst)
        sample = max(common, key=lambda number: (losses.get(number, float("-inf")), -number))
        return self._show(self.candidate, ours[sample]), self._show(self.reference, theirs[sample])

    def where(self) -> str:
        """A sentence on where the images are, or why there are none."""
        if self.candidate is None or self.reference is None:
            return "No pairs of images: they need both run folders, and a frozen baseline holds numbers only."
        if self.base is not None:
            return "The images are those of the sample with the largest loss."
        ours, theirs = (_place_text(side.run.path) for side in (self.candidate, self.reference))
        folders = f"the run folder {ours}" if ours == theirs else f"the run folders {ours} and {theirs}"
        return f"The images lie in {folders}; named is the sample with the largest loss."

    def _show(self, side: _Side, image: str) -> str:
        if self.base is None:
            return _place_text(image)
        # A bar would end the cell of the table, and the address that was given may hold one.
        address = f"{self.base.rstrip('/')}/{quote(side.name)}/{quote(image)}".replace("|", "%7C")
        return f'<img src="{html.escape(address)}" width="{SHOWN_WIDTH_PX}" alt="{quote(image)}">'


def pictures_for(candidate: Run | None, reference: Run | None, base: str | None) -> Pictures:
    """The images of two runs, checked against the address under which both folders are said to lie.

    Raises:
        UsageError: no http(s) address, or one name for two folders, which no single address can hold.
    """
    if base is not None and _ADDRESS.fullmatch(base) is None:
        raise UsageError(
            f"The address of the images {base!r} is no http:// or https:// address without spaces and quotes.",
            "Give the address under which both run folders lie by their names, or leave it out.",
        )
    ours, theirs = (None if run is None else _Side(run) for run in (candidate, reference))
    if base is not None and ours and theirs and _clash(ours, theirs):
        raise UsageError(
            f"Both run folders are called {ours.name!r}: one address cannot hold both.",
            "Rename one of the folders, or leave the address of the images out.",
        )
    return Pictures(ours, theirs, base)


def _clash(ours: _Side, theirs: _Side) -> bool:
    return ours.name == theirs.name and ours.run.info.id != theirs.run.info.id


def _losses(candidate: _Side, reference: _Side, verdict: Verdict, worst: WorstPrompt) -> Mapping[int, float]:
    """Loss by sample, where both have a score; the direction is that of the prompt's own loss."""
    sign = 1.0 if worst.reference >= worst.candidate else -1.0
    ours = candidate.scores(verdict.candidate, worst.prompt_id, verdict.name)
    theirs = reference.scores(verdict.reference, worst.prompt_id, verdict.name)
    return {sample: sign * (theirs[sample] - ours[sample]) for sample in ours.keys() & theirs.keys()}


def _place_text(text: str) -> str:
    return wording.markdown(wording.plain(text))


# The verdicts as markdown for people: a job summary, or a comment on a pull request.

MARKER = "<!-- hotart-bench gate -->"

"""First line of every summary: how a comment of an earlier gate is found again."""

MAX_BYTES = 65_535

"""A comment holds fewer than 65,536 characters; bytes of UTF-8 are at least as many, and a job summary holds more."""

_PROMPT_CHARACTERS = 160

_TEXT_CHARACTERS = 1_000


def summary_markdown(
    gate: Gate,
    candidate_run: Run | None,
    reference_run: Run | None,
    *,
    image_base: str | None = None,
) -> str:
    """The gate in markdown, at most ``MAX_BYTES`` of UTF-8, with everything foreign escaped.

    Headline and counts, the table of verdicts, a sentence for each that did not pass, the notes, and for each
    metric that failed or stayed undecided the prompts that lost most. What does not fit is cut by rows from the
    end, and the last line says how much.

    A forge shows no image that lies on the machine of a job, and none that is written into the text as data. So
    a pair of images is named by its files, where both still exist, and shown only with ``image_base``.

    Args:
        gate: the verdicts.
        candidate_run: the judged run, for prompts and images; None leaves both out.
        reference_run: the run it was judged against; None where that is a frozen baseline, which has no images.
        image_base: http(s) address under which both run folders lie by their names.

    Raises:
        UsageError: ``image_base`` is no such address, or both run folders have one name.
    """
    pictures = pictures_for(candidate_run, reference_run, image_base)
    verdicts = worst_first(gate.verdicts)
    lost = [one for one in verdicts if one.worst and one.outcome in ("fail", "inconclusive")]
    sections = [
        _headline(gate),
        _table(verdicts),
        _sentences(verdicts),
        Section("note", tuple(f"- {_text(note)}" for note in gate.notes), ("**Notes**", "")),
        *(_worst(verdict, pictures, "" if _within_run(gate) else " of the baseline") for verdict in lost),
        _where_images_are(lost, pictures),
    ]
    rest = "All of it stands in the run folder's `gate.json` and in the file of `--json`."
    return fitted(sections, MAX_BYTES, rest)


def _headline(gate: Gate) -> Section:
    counts = Counter(verdict.outcome for verdict in gate.verdicts)
    told = [f"{counts[outcome]} {WORDS[outcome]}" for outcome in GRAVEST_FIRST if counts[outcome]]
    lines = [
        MARKER,
        f"## Regression gate: {WORDS[gate.outcome]}",
        "",
        f"{_MEANING[gate.outcome]} Of {wording.plural(len(gate.verdicts), 'verdict')}: {', '.join(told) or 'none'}.",
    ]
    reason = unexplained(gate)
    if reason is not None:
        lines += ["", f"**{_text(reason)}**"]
    return Section("headline", ("\n".join([*lines, "", _provenance(gate)]),))


_MEANING: dict[Outcome, str] = {
    "pass": "Nothing that is gated lost more than its limit allows.",
    "fail": "Something that is gated lost more than its limit allows.",
    "inconclusive": "What was measured does not decide it; this is no pass.",
    "invalid": "No judgement is possible: something is missing or broken. This is no pass.",
}


def _provenance(gate: Gate) -> str:
    run, baseline = _text(gate.run), _text(gate.baseline)
    if _within_run(gate):
        what = f"Two variants of the run {run} ({_text(gate.run_id)})"
    else:
        kind = "the run" if gate.baseline_is_run else "the frozen baseline"
        what = f"{run} ({_text(gate.run_id)}) against {kind} {baseline} ({_text(gate.baseline_id)})"
    return f"{what}, protocol {_text(gate.protocol_digest[:12])}, judged {_text(gate.time)}."


def _within_run(gate: Gate) -> bool:
    return gate.baseline_is_run and gate.run_id == gate.baseline_id


def _table(verdicts: Sequence[Verdict]) -> Section:
    columns = (
        "outcome",
        "quantity",
        "candidate",
        "reference",
        "loss",
        "interval",
        "allowed",
        "detectable",
        "behind it",
    )
    head = (
        f"| {' | '.join(columns)} |",
        "|---|---|---|---|---:|---|---:|---:|---|",
    )
    tail = (
        "",
        "_Loss: how much worse the candidate is, over 0 is worse; of times and memory in per cent. A verdict passes "
        "when the whole interval (90 %) lies within what is allowed, and fails when the whole of it lies beyond. "
        "Detectable: the smallest loss beyond the allowed one that such a gate calls in 80 of 100 runs._",
    )
    return Section("verdict", tuple(_row(verdict) for verdict in verdicts), head, tail)


def _row(verdict: Verdict) -> str:
    words = shown(verdict)
    outcome = WORDS[verdict.outcome]
    behind = words.behind if verdict.needed is None else f"{words.behind}; about {verdict.needed:,} would decide"
    cells = [
        outcome if verdict.outcome == "pass" else f"**{outcome}**",
        _text(verdict.name),
        f"{_text(verdict.candidate)} {_text(words.candidate)}",
        f"{_text(verdict.reference)} {_text(words.reference)}",
        _text(words.loss),
        _text(words.interval),
        f"{_text(words.margin)} ({_text(verdict.limit.text)})",
        _text(words.detectable),
        _text(behind),
    ]
    return f"| {' | '.join(cells)} |"


def _sentences(verdicts: Sequence[Verdict]) -> Section:
    return Section(
        "sentence",
        tuple(
            f"- **{_text(one.name)}** of {_text(one.candidate)}, {WORDS[one.outcome]}: {_text(one.sentence)}"
            for one in verdicts
            if one.outcome != "pass"
        ),
    )


def _worst(verdict: Verdict, pictures: Pictures, whose: str) -> Section:
    pair = f"{_text(verdict.candidate)} against {_text(verdict.reference)}{whose}"
    head = (
        "<details>",
        f"<summary>Prompts that lost most on {_text(verdict.name)}: {pair}</summary>",
        "",
        f"| prompt | loss | candidate ({_text(verdict.candidate)}) | reference ({_text(verdict.reference)}) |",
        "|---|---:|---|---|",
    )
    decimals = wording.decimals_for(wording.scale_of(one.loss for one in verdict.worst) / 10)
    rows = tuple(_worst_row(verdict, one, decimals, pictures) for one in verdict.worst)
    return Section("prompt", rows, head, ("", "</details>"))


def _worst_row(verdict: Verdict, worst: WorstPrompt, decimals: int, pictures: Pictures) -> str:
    prompt = pictures.prompt(worst.prompt_id)
    name = f"**{_text(worst.prompt_id)}**" + (f"<br>{_text(prompt, _PROMPT_CHARACTERS)}" if prompt else "")
    candidate, reference = (wording.number(value, decimals) for value in (worst.candidate, worst.reference))
    pair = pictures.pair(verdict, worst)
    if pair is not None:
        candidate, reference = f"{candidate}<br>{pair[0]}", f"{reference}<br>{pair[1]}"
    return f"| {name} | {wording.signed(worst.loss, decimals)} | {candidate} | {reference} |"


def _where_images_are(lost: Sequence[Verdict], pictures: Pictures) -> Section:
    return Section("remark", (pictures.where(),) if lost else ())


def _text(text: str, limit: int = _TEXT_CHARACTERS) -> str:
    return wording.markdown(wording.plain(text), limit)
