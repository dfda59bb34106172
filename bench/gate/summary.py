"""The verdicts as markdown for people: a job summary, or a comment on a pull request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from bench import wording
from bench.gate.fitting import Section, fitted
from bench.gate.image_pairs import Pictures, pictures_for
from bench.gate.outcomes import GRAVEST_FIRST, WORDS, gravest_first, shown, unexplained
from bench.records import Gate, Outcome, Run, Verdict, WorstPrompt

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
    verdicts = gravest_first(gate.verdicts)
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
    prompt = pictures.prompt(worst.case)
    name = f"**{_text(worst.case)}**" + (f"<br>{_text(prompt, _PROMPT_CHARACTERS)}" if prompt else "")
    candidate, reference = (wording.number(value, decimals) for value in (worst.candidate, worst.reference))
    pair = pictures.pair(verdict, worst)
    if pair is not None:
        candidate, reference = f"{candidate}<br>{pair[0]}", f"{reference}<br>{pair[1]}"
    return f"| {name} | {wording.signed(worst.loss, decimals)} | {candidate} | {reference} |"


def _where_images_are(lost: Sequence[Verdict], pictures: Pictures) -> Section:
    return Section("remark", (pictures.where(),) if lost else ())


def _text(text: str, limit: int = _TEXT_CHARACTERS) -> str:
    return wording.markdown(wording.plain(text), limit)
