"""A gate as a table, with a sentence for each verdict that needs one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from bench.cli.printing import Column, print_table, printable
from bench.records import Gate, Outcome, Verdict
from bench.wording import plural

MEANING: dict[Outcome, str] = {
    "pass": "nothing that is gated lost more than its limit allows",
    "fail": "something that is gated lost more than its limit allows",
    "inconclusive": "what was measured does not decide it, which is no pass",
    "invalid": "something is missing, is broken or tells nothing, so there is no verdict",
}


def print_gate(gate: Gate) -> None:
    """Prints on stdout the verdicts pair by pair, a sentence for each that did not pass, the notes, the whole."""
    from bench.gate.outcomes import GRAVEST_FIRST, WORDS, gravest_first, unexplained

    for pair in dict.fromkeys((verdict.candidate, verdict.reference) for verdict in gate.verdicts):
        of_pair = [one for one in gate.verdicts if (one.candidate, one.reference) == pair]
        print(printable(f"{pair[0]} against {pair[1]}{_whose(gate)}\n"))
        _print_verdicts(of_pair)
    told = [one for one in gravest_first(gate.verdicts) if one.outcome != "pass"]
    for verdict in told:
        print(printable(f"{WORDS[verdict.outcome].capitalize()}: {verdict.sentence}"))
    if told:
        print()
    equal = dict.fromkeys(one.candidate for one in gate.verdicts if one.equal_weights)
    same = f"The weights are equal on both sides: {', '.join(equal)}." if equal else None
    for note in filter(None, (same, *gate.notes, unexplained(gate))):
        print(printable(f"Note: {note}"))
    counts = Counter(verdict.outcome for verdict in gate.verdicts)
    parts = [f"{counts[outcome]} {WORDS[outcome]}" for outcome in GRAVEST_FIRST if counts[outcome]]
    print(
        f"The gate {'' if gate.outcome in ('pass', 'fail') else 'is '}{WORDS[gate.outcome]}: {MEANING[gate.outcome]} "
        f"(of {plural(len(gate.verdicts), 'verdict')}: {', '.join(parts) or 'none'})."
    )


def _whose(gate: Gate) -> str:
    return "" if gate.run == gate.baseline else f" of {gate.baseline}"


def _print_verdicts(verdicts: Sequence[Verdict]) -> None:
    from bench.gate.outcomes import WORDS, shown

    rows = []
    for verdict in verdicts:
        numbers = shown(verdict)
        rows.append(
            [
                verdict.name,
                WORDS[verdict.outcome],
                numbers.reference,
                numbers.candidate,
                numbers.loss,
                numbers.interval,
                numbers.margin,
                numbers.detectable,
            ]
        )
    headings = ("reference", "candidate", "loss", "interval", "allowed", "detectable")
    print_table([Column("gated"), Column("outcome"), *(Column(one, number=True) for one in headings)], rows)
    print()
