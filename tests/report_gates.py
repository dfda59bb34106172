"""Gates made by hand on fake runs: a verdict of every outcome, a timing, equal weights, an interval far out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean

from fakes import make_run, write_run

from bench.compare import compare_run
from bench.records import Gate, Interval, Limit, Outcome, Run, Verdict, WorstPrompt
from bench.report.page import View, build_view

HOSTILE_NOTE = "The variant <b>new</b> is not in the baseline & was | not gated."


def interval(low: float, high: float) -> Interval:
    return Interval(low=low, high=high, method="BCa bootstrap over prompts", level=0.9)


def verdict(name: str, outcome: Outcome, **changes: object) -> Verdict:
    """A verdict on a metric of spo against base: a margin of 0.05, no numbers unless they are given."""
    fields: dict[str, object] = {
        "kind": "metric",
        "unit": "points",
        "candidate": "spo",
        "reference": "base",
        "sentence": f"{name} is {outcome}.",
        "limit": Limit(name=name, text="0.1sd", kind="sd", amount=0.1),
        "margin": 0.05,
        "loss": None,
        "interval": None,
        "candidate_mean": None,
        "reference_mean": None,
        "n": 8,
        "samples": 2,
        "detectable": None,
        "needed": None,
        "equal_weights": False,
    }
    return Verdict(name=name, outcome=outcome, **{**fields, **changes})  # type: ignore[arg-type]


def prompt_means(run: Run, variant: str, metric: str) -> Mapping[str, float]:
    """Mean score by prompt, from the records."""
    found: dict[str, list[float]] = defaultdict(list)
    for one in run.scores:
        if (one.variant, one.metric) == (variant, metric) and one.value is not None:
            found[one.prompt_id].append(one.value)
    return {prompt_id: fmean(values) for prompt_id, values in found.items()}


def worst(run: Run, metric: str, candidate: str, other: Run, reference: str) -> tuple[WorstPrompt, ...]:
    """The ten prompts with the largest losses where higher is better, the largest first."""
    ours, theirs = prompt_means(run, candidate, metric), prompt_means(other, reference, metric)
    found = [
        WorstPrompt(
            prompt_id=prompt_id,
            candidate=ours[prompt_id],
            reference=theirs[prompt_id],
            loss=theirs[prompt_id] - ours[prompt_id],
        )
        for prompt_id in ours
        if prompt_id in theirs
    ]
    return tuple(sorted(found, key=lambda one: -one.loss)[:10])


def verdicts(run: Run, other: Run, candidate: str = "spo", reference: str = "base") -> tuple[Verdict, ...]:
    """One verdict of each kind on ``candidate`` against ``reference``."""
    pair = {"candidate": candidate, "reference": reference}
    return (
        verdict(
            "mini-aesthetic", "fail", **pair, loss=0.121, interval=interval(0.071, 0.168), candidate_mean=5.31,
            reference_mean=5.431, detectable=0.093, worst=worst(run, "mini-aesthetic", candidate, other, reference),
            sentence="The aesthetic score fell by 0.121 points, and even the smallest plausible loss of 0.071 is more "
            "than the 0.050 allowed.",
        ),
        verdict(
            "mini-clip", "inconclusive", **pair, unit="cosine", margin=0.006, loss=0.004,
            interval=interval(-0.003, 0.011), candidate_mean=0.606, reference_mean=0.61, detectable=0.015, needed=31,
            worst=worst(run, "mini-clip", candidate, other, reference),
            sentence="The loss may be anything from a gain of 0.003 to a loss of 0.011, and 0.006 is allowed.",
        ),
        verdict(
            "mini-preference", "pass", **pair, unit="logit", margin=0.09, loss=-1.1, interval=interval(-1.22, -0.98),
            candidate_mean=19.3, reference_mean=18.2, detectable=0.17,
            sentence="The preference score rose by 1.10 logits.",
        ),
        verdict(
            "saturation", "invalid", **pair, unit="share", margin=None, n=0,
            sentence="Sample 1 of the prompt case-004 has no score: the image could not be made.",
        ),
        verdict(
            "end_to_end", "pass", **pair, kind="timing", unit="second", margin=0.05, loss=0.012,
            interval=interval(-0.004, 0.029), candidate_mean=0.4554, reference_mean=0.45, n=5, samples=10,
            detectable=0.071, limit=Limit(name="end_to_end", text="5% floor 20ms", kind="relative", amount=0.05),
            sentence="An image takes 1.2 % longer, and at most 2.9 %, of the 5 % that are allowed.",
        ),
        verdict(
            "peak_allocated", "fail", **pair, kind="timing", unit="byte", margin=0.03, loss=0.42,
            interval=interval(0.41, 0.43), candidate_mean=6.1e9, reference_mean=4.3e9, n=5, samples=1,
            limit=Limit(name="peak_allocated", text="3%", kind="relative", amount=0.03),
            sentence="Peak memory grew by 42 %; 3 % are allowed.",
        ),
    )  # fmt: skip


def gate_on(run: Run, found: tuple[Verdict, ...], outcome: Outcome, **changes: object) -> Gate:
    """A gate on ``run`` against a frozen baseline of another run."""
    fields: dict[str, object] = {
        "run": run.path,
        "run_id": run.info.id,
        "baseline": "baselines/<release>.json",
        "baseline_id": "fake-0777",
        "baseline_is_run": False,
        "protocol_digest": run.info.protocol_digest,
        "notes": (HOSTILE_NOTE,),
        "time": "2025-02-03T04:05:06+00:00",
    }
    return Gate(schema=2, outcome=outcome, verdicts=found, **{**fields, **changes})  # type: ignore[arg-type]


def view_of(run: Run, gate: Gate | None) -> View:
    return build_view(run, compare_run(run, tags=False), gate)


def written(path: Path, **changes: object) -> Run:
    """A fake run that lies in a folder."""
    run = make_run(path, **changes)  # type: ignore[arg-type]
    write_run(run, path)
    return run


def within(run: Run) -> Mapping[str, object]:
    """What makes a gate one of two variants of ``run``."""
    return {"baseline": run.path, "baseline_id": run.info.id, "baseline_is_run": True}
