"""Verdicts and gates made by hand: for tests of what shows them."""

from __future__ import annotations

from typing import Any

from bench.records import SCHEMA, Gate, Interval, Limit, Outcome, Verdict, WorstPrompt

_NUMBERS: dict[Outcome, tuple[float, float, float]] = {
    "pass": (0.001, -0.004, 0.006),
    "fail": (0.031, 0.022, 0.040),
    "inconclusive": (0.008, -0.002, 0.018),
    "invalid": (0.0, 0.0, 0.0),
}
_WORST: tuple[Outcome, ...] = ("invalid", "fail", "inconclusive", "pass")


def make_verdict(outcome: Outcome = "pass", name: str = "mini-aesthetic", **changes: Any) -> Verdict:
    """A verdict on a metric with a margin of 0.01 and numbers that fit its outcome; an invalid one has none."""
    loss, low, high = _NUMBERS[outcome]
    known = outcome != "invalid"
    fields: dict[str, Any] = {
        "name": name,
        "kind": "metric",
        "unit": "score",
        "candidate": "spo",
        "reference": "base",
        "outcome": outcome,
        "sentence": f"{name} of spo is {outcome} against base.",
        "limit": Limit(name=name, text="0.01", kind="absolute", amount=0.01),
        "margin": 0.01 if known else None,
        "loss": loss if known else None,
        "interval": Interval(low=low, high=high, method="t and Hall", level=0.9) if known else None,
        "candidate_mean": 0.5 - loss if known else None,
        "reference_mean": 0.5 if known else None,
        "n": 24,
        "samples": 2,
        "detectable": 0.012 if known else None,
        "needed": 380 if outcome == "inconclusive" else None,
        "equal_weights": False,
    }
    return Verdict(**{**fields, **changes})


def timing_verdict(outcome: Outcome = "pass", **changes: Any) -> Verdict:
    """A verdict on seconds an image: 5 % are allowed, 144 ms became 151.2 ms."""
    fields: dict[str, Any] = {
        "kind": "timing",
        "unit": "second",
        "limit": Limit(name="end_to_end", text="5% floor 20ms", kind="relative", amount=0.05, floor=0.02),
        "margin": 0.05,
        "loss": 0.05,
        "interval": Interval(low=0.02, high=0.08, method="Welch's t", level=0.9),
        "candidate_mean": 0.1512,
        "reference_mean": 0.144,
        "n": 4,
        "samples": 10,
        "detectable": 0.03,
    }
    return make_verdict(outcome, "end_to_end", **{**fields, **changes})


def worst_prompts(count: int = 10) -> tuple[WorstPrompt, ...]:
    """The prompts of ``fakes.make_run`` in order, each with less loss than the one before."""
    return tuple(
        WorstPrompt(
            prompt_id=f"case-{number:03d}", candidate=0.4, reference=0.5 - number / 200, loss=0.1 - number / 200
        )
        for number in range(count)
    )


def make_gate(*verdicts: Verdict, **changes: Any) -> Gate:
    """A gate of these verdicts against a frozen baseline, its outcome the worst of theirs."""
    outcomes = [verdict.outcome for verdict in verdicts]
    fields: dict[str, Any] = {
        "schema": SCHEMA,
        "outcome": next((outcome for outcome in _WORST if outcome in outcomes), "invalid"),
        "run": "reports/runs/mini",
        "run_id": "fake-0001",
        "baseline": "reports/baseline-mini.json",
        "baseline_id": "fake-0000",
        "baseline_is_run": False,
        "protocol_digest": "0123456789abcdef" * 4,
        "verdicts": verdicts,
        "notes": (),
        "time": "2025-01-02T04:04:05+01:00",
    }
    return Gate(**{**fields, **changes})
