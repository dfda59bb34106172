"""The verdicts as markdown for people: a job summary, or a comment on a pull request."""

from __future__ import annotations

import html
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from bench import formatting as wording
from bench.baseline.pictures import SAMPLE, FrozenPictures
from bench.documents import resolved
from bench.errors import UsageError
from bench.formatting import joined, plural
from bench.gate.outcomes import WORDS, WORST_FIRST, formatted, unexplained, worst_first
from bench.records import Finding, FindingMetric, Gate, Outcome, Run, Verdict, WorstPrompt

# Markdown that is cut by whole rows to a size, and says so.

_BYTES_FOR_NOTE = 1_000


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
    left = most_bytes - _BYTES_FOR_NOTE
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
        parts.append(f"_Cut to fit here: {joined(cut)} left out. {rest}_\n")
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


# The images of the prompts that lost most, as pairs: which sample is taken, and how a summary names it.

SHOWN_WIDTH_PX = 192
_ADDRESS = re.compile(r"https?://[^\s\"'<>`\\]+")


class _Pictures:
    """Prompts, images and scores of the candidate's and the reference's run; either may be missing.

    Raises:
        UsageError: ``base`` is not an http(s) address, or the folders of two runs have one name, so that no single
            address can hold both.
    """

    def __init__(
        self, candidate: Run | None, reference: Run | None, base: str | None, frozen: FrozenPictures | None = None
    ) -> None:
        self.frozen = frozen if candidate is not None and reference is None else None
        self.runs, self.base = [run for run in (candidate, reference) if run is not None], base
        self.images: list[dict[tuple[str, str], dict[int, str]]] = []
        self.scores: list[dict[tuple[str, str, str], dict[int, float]]] = []
        for run in self.runs:
            images: defaultdict[tuple[str, str], dict[int, str]] = defaultdict(dict)
            scores: defaultdict[tuple[str, str, str], dict[int, float]] = defaultdict(dict)
            self.images.append(images)
            self.scores.append(scores)
            for render in run.renders:
                if render.image is not None:
                    images[render.variant, render.prompt_id][render.sample] = render.image
            for score in run.scores:
                if score.value is not None:
                    scores[score.variant, score.prompt_id, score.metric][score.sample] = score.value
        if base is None:
            return
        if _ADDRESS.fullmatch(base) is None:
            raise UsageError(
                f"The address of the images {base!r} is not an http:// or https:// address without spaces and quotes.",
                "Give the address under which both run folders lie by their names, or leave it out.",
            )
        names, ids = {_folder(run) for run in self.runs}, {run.info.id for run in self.runs}
        if len(names) < len(ids):
            raise UsageError(
                f"Both run folders are called {names.pop()!r}: one address cannot hold both.",
                "Rename one of the folders, or leave the address of the images out.",
            )

    def prompt(self, prompt_id: str) -> str:
        """The text of a prompt; empty where no run is there."""
        prompts = self.runs[0].info.suite.prompts if self.runs else ()
        return next((one.text for one in prompts if one.id == prompt_id), "")

    def pair(self, verdict: Verdict, worst: WorstPrompt) -> list[str]:
        """Markdown of the candidate's and the reference's image of one sample; empty where one of them is gone.

        The sample is the one with the largest loss by the verdict's metric, the first of equals.
        """
        if self.frozen is not None:
            return self._with_frozen(verdict, worst, self.frozen)
        if len(self.runs) < 2:
            return []
        variants, prompt_id = (verdict.candidate, verdict.reference), worst.prompt_id
        found = [
            {sample: image for sample, image in images[variant, prompt_id].items() if Path(run.path, image).is_file()}
            for run, images, variant in zip(self.runs, self.images, variants, strict=True)
        ]
        common = sorted(found[0].keys() & found[1].keys())
        if not common:
            return []
        ours, theirs = (
            scores[variant, prompt_id, verdict.name] for scores, variant in zip(self.scores, variants, strict=True)
        )
        sign = 1.0 if worst.reference >= worst.candidate else -1.0
        losses = {sample: sign * (theirs[sample] - ours[sample]) for sample in ours.keys() & theirs.keys()}
        sample = max(common, key=lambda number: (losses.get(number, float("-inf")), -number))
        return [self._markdown(run, images[sample]) for run, images in zip(self.runs, found, strict=True)]

    def _with_frozen(self, verdict: Verdict, worst: WorstPrompt, frozen: FrozenPictures) -> list[str]:
        """The pair where the reference's picture lies beside its baseline; empty where one of them is gone."""
        run, (path, _) = self.runs[0], frozen.files.get((verdict.reference, worst.prompt_id), (None, ""))
        ours = self.images[0][verdict.candidate, worst.prompt_id].get(SAMPLE)
        if ours is None or path is None or not path.is_file() or not Path(run.path, ours).is_file():
            return []
        theirs = "/".join(path.parts[-3:])  # its folder, the variant's, the file
        return [self._markdown(run, ours), _image(self.base, "", theirs) if self.base else _text(theirs, None)]

    def where(self) -> str:
        """A sentence on where the images are, or why there are none."""
        if self.frozen is not None:
            return self.frozen.note
        if len(self.runs) < 2:
            return "No pairs of images: they need both run folders."
        if self.base is not None:
            return "The images are those of the sample with the largest loss."
        ours, theirs = (_text(run.path, None) for run in self.runs)
        folders = f"the run folder {ours}" if ours == theirs else f"the run folders {ours} and {theirs}"
        return f"The images lie in {folders}; named is the sample with the largest loss."

    def _markdown(self, run: Run, image: str) -> str:
        if self.base is None:
            return _text(image, None)
        return _image(self.base, f"{_folder(run)}/", image)


def _image(base: str, folder: str, path: str) -> str:
    # A bar would end the table's cell, and the given address may hold one.
    address = f"{base.rstrip('/')}/{quote(folder + path)}".replace("|", "%7C")
    return f'<img src="{html.escape(address)}" width="{SHOWN_WIDTH_PX}" alt="{quote(path)}">'


def _folder(run: Run) -> str:
    return resolved(run.path).name


# The whole summary.

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
    frozen: FrozenPictures | None = None,
) -> str:
    """The gate in markdown, at most ``MAX_BYTES`` of UTF-8, with everything foreign escaped.

    Headline and counts, the table of verdicts, a sentence for each that did not pass, the notes, every metric with its
    value on both sides, and for each metric that failed or stayed undecided the prompts that lost most. What does not
    fit is cut by rows from the end, and the last line says how much.

    A forge shows no image that lies on the machine of a job, and none that is written into the text as data. So
    a pair of images is named by its files, where both still exist, and shown only with ``image_base``.

    Args:
        gate: the verdicts.
        candidate_run: the candidate's run, for prompts and images; None leaves both out.
        reference_run: the reference's run; None where that is a frozen baseline.
        image_base: http(s) address under which both run folders, or the run folder and the pictures of the baseline,
            lie by their names.
        frozen: the pictures that lie beside the baseline.

    Raises:
        UsageError: ``image_base`` is not such an address, or both run folders have one name.
    """
    pictures = _Pictures(candidate_run, reference_run, image_base, frozen)
    verdicts = worst_first(gate.verdicts)
    lost = [one for one in verdicts if one.worst and one.outcome in ("fail", "inconclusive")]
    sections = [
        _headline(gate),
        _findings(gate),
        _table(verdicts),
        _sentences(verdicts),
        Section("note", tuple(f"- {_text(note)}" for note in gate.notes), ("**Notes**", "")),
        *(_every_metric(finding) for finding in gate.findings),
        *(_worst(verdict, pictures, "" if _within_run(gate) else " of the baseline") for verdict in lost),
        Section("remark", (pictures.where(),) if lost else ()),
    ]
    rest = "All of it stands in the run folder's `gate.json` and in the file of `--json`."
    return fitted(sections, MAX_BYTES, rest)


def _headline(gate: Gate) -> Section:
    counts = Counter(verdict.outcome for verdict in gate.verdicts)
    parts = [f"{counts[outcome]} {WORDS[outcome]}" for outcome in WORST_FIRST if counts[outcome]]
    lines = [
        MARKER,
        f"## Regression gate: {WORDS[gate.outcome]}",
        "",
        f"{_MEANING[gate.outcome]} Of {wording.plural(len(gate.verdicts), 'verdict')}: {', '.join(parts) or 'none'}.",
    ]
    reason = unexplained(gate)
    if reason is not None:
        lines += ["", f"**{_text(reason)}**"]
    return Section("headline", ("\n".join([*lines, "", _provenance(gate)]),))


_MEANING: dict[Outcome, str] = {
    "pass": "Nothing that is gated lost more than its limit allows.",
    "fail": "Something that is gated lost more than its limit allows.",
    "inconclusive": "What was measured does not decide it; this is not a pass.",
    "invalid": "No outcome is possible: something is missing or broken. This is not a pass.",
}


def _provenance(gate: Gate) -> str:
    run, baseline = _text(gate.run), _text(gate.baseline)
    if _within_run(gate):
        what = f"Two variants of the run {run} ({_text(gate.run_id)})"
    else:
        kind = "the run" if gate.baseline_is_run else "the frozen baseline"
        what = f"{run} ({_text(gate.run_id)}) against {kind} {baseline} ({_text(gate.baseline_id)})"
    return f"{what}, protocol {_text(gate.protocol_digest[:12])}, checked {_text(gate.time)}."


def _within_run(gate: Gate) -> bool:
    return gate.baseline_is_run and gate.run_id == gate.baseline_id


def _findings(gate: Gate) -> Section:
    """What each pair's finding is, in its first sentence."""
    head = ("**Is a gain real?** For information: the outcome rests on the limits alone.", "")
    return Section("finding", tuple(f"- {_text(one.sentences[0])}" for one in gate.findings), head)


def _table(verdicts: Sequence[Verdict]) -> Section:
    head = (
        "| outcome | quantity | training overlap | candidate | reference | loss or shift | interval | allowed "
        "| detectable | behind it |",
        "|---|---|---|---|---|---:|---|---:|---:|---|",
    )
    tail = (
        "",
        "_Loss: how much worse the candidate is, over 0 is worse; of times and memory in per cent. Shift: of a metric "
        "that only describes, candidate - reference; its limit says which way it may move. A verdict passes "
        "when the whole interval (90 %) lies within what is allowed, and fails when the whole of it lies beyond. "
        "Detectable: the smallest loss beyond the allowed one that such a gate calls in 80 of 100 runs._",
    )
    return Section("verdict", tuple(_row(verdict) for verdict in verdicts), head, tail)


def _row(verdict: Verdict) -> str:
    words = formatted(verdict)
    outcome = WORDS[verdict.outcome]
    behind = words.behind if verdict.needed is None else f"{words.behind}; about {verdict.needed:,} would decide"
    cells = [
        outcome if verdict.outcome == "pass" else f"**{outcome}**",
        _text(verdict.name),
        verdict.training_overlap or wording.NONE,
        f"{_text(verdict.candidate)} {_text(words.candidate)}",
        f"{_text(verdict.reference)} {_text(words.reference)}",
        _text(words.loss),
        _text(words.interval),
        f"{_text(words.margin)} ({_text(verdict.limit.text)})",
        _text(words.detectable),
        _text(behind),
    ]
    return f"| {' | '.join(cells)} |"


def _every_metric(finding: Finding) -> Section:
    """Every metric and descriptive value, the candidate's beside the reference's, limited or not."""
    head = (
        "<details>",
        f"<summary>Every metric: {_text(finding.candidate)} beside {_text(finding.reference)}</summary>",
        "",
        "| metric | candidate | reference | difference | interval | reads |",
        "|---|---:|---:|---:|---|---|",
    )
    return Section("metric", tuple(map(_metric_row, finding.metrics)), head, ("", "</details>"))


def _metric_row(one: FindingMetric) -> str:
    half = 0.0 if one.interval is None else (one.interval.high - one.interval.low) / 2
    decimals = wording.decimals_for(half if half > 0 else abs(one.mean or 0.0))
    mean = None if one.reference_mean is None or one.mean is None else one.reference_mean + one.mean
    cells = [
        _text(one.metric),
        wording.number(mean, decimals),
        wording.number(one.reference_mean, decimals),
        wording.signed(one.mean, decimals),
        wording.interval(one.interval, decimals),
        _text(one.reads + (f" ({one.reason})" if one.reason else "")),
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


def _worst(verdict: Verdict, pictures: _Pictures, whose: str) -> Section:
    pair = f"{_text(verdict.candidate)} against {_text(verdict.reference)}{whose}"
    moved, change = ("lost", "loss") if verdict.shift is None else ("moved", verdict.limit.limited)
    head = (
        "<details>",
        f"<summary>Prompts that {moved} most on {_text(verdict.name)}: {pair}</summary>",
        "",
        f"| prompt | {change} | candidate ({_text(verdict.candidate)}) | reference ({_text(verdict.reference)}) |",
        "|---|---:|---|---|",
    )
    decimals = wording.decimals_for(wording.scale_of(one.loss for one in verdict.worst) / 10)
    rows = tuple(_worst_row(verdict, one, decimals, pictures) for one in verdict.worst)
    return Section("prompt", rows, head, ("", "</details>"))


def _worst_row(verdict: Verdict, worst: WorstPrompt, decimals: int, pictures: _Pictures) -> str:
    prompt = pictures.prompt(worst.prompt_id)
    name = f"**{_text(worst.prompt_id)}**" + (f"<br>{_text(prompt, _PROMPT_CHARACTERS)}" if prompt else "")
    cells = [wording.number(value, decimals) for value in (worst.candidate, worst.reference)]
    pair = pictures.pair(verdict, worst)
    if pair:
        cells = [f"{score}<br>{image}" for score, image in zip(cells, pair, strict=True)]
    return f"| {name} | {wording.signed(worst.loss, decimals)} | {' | '.join(cells)} |"


def _text(text: str, limit: int | None = _TEXT_CHARACTERS) -> str:
    return wording.markdown(wording.plain(text), limit)
