"""Oracle: what was changed in a run is what the refusal names, and nothing else."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from fakes import make_run

from bench.compare import compare_runs
from bench.errors import IncomparableError, UsageError
from bench.records import Delta, Run
from bench.suite import protocol_digest

replace = msgspec.structs.replace
PREFERENCE = ["mini-preference"]


def _only(deltas: tuple[Delta, ...], metric: str, candidate: str, reference: str, tag: str | None = None) -> Delta:
    found = [d for d in deltas if (d.metric, d.candidate, d.reference, d.tag) == (metric, candidate, reference, tag)]
    assert len(found) == 1
    return found[0]


def _with_facts(run: Run, metric: str, **changes: object) -> Run:
    facts = tuple(replace(f, **changes) if f.name == metric else f for f in run.info.metrics)
    return replace(run, info=replace(run.info, metrics=facts))


def _with_suite(run: Run, **changes: object) -> Run:
    suite = replace(run.info.suite, **changes)
    return replace(run, info=replace(run.info, suite=suite, protocol_digest=protocol_digest(suite)))


def test_like_named_variants_of_two_runs(tmp_path: Path) -> None:
    old = make_run(tmp_path / "old", seed=1)
    new = make_run(tmp_path / "new", seed=2, effect={"spo": {"mini-preference": 1.6}})
    deltas = compare_runs(new, old, tags=False)
    assert list(dict.fromkeys((d.candidate, d.reference) for d in deltas)) == [
        ("base@new", "base@old"),
        ("dpo@new", "dpo@old"),
        ("spo@new", "spo@old"),
    ]
    gain = _only(deltas, "mini-preference", "spo@new", "spo@old")
    null = _only(deltas, "mini-preference", "base@new", "base@old")
    assert gain.interval is not None
    assert null.interval is not None
    assert gain.interval.low < 0.5 < gain.interval.high
    assert gain.interval.low > 0
    assert null.interval.low < 0 < null.interval.high
    distances = {d.candidate for d in deltas if d.metric == "ssim-to-base"}
    assert distances == {"dpo@new", "spo@new"}


def test_any_pair_of_two_runs_can_be_asked_for(tmp_path: Path) -> None:
    old = make_run(tmp_path / "old", seed=1, variants=("base", "hotart-1"))
    new = make_run(tmp_path / "new", seed=2, variants=("base", "hotart-2"))
    asked = compare_runs(new, old, pairs=[("hotart-2", "hotart-1")], metrics=PREFERENCE, tags=False)
    assert [(d.candidate, d.reference) for d in asked] == [("hotart-2@new", "hotart-1@old")]
    with pytest.raises(UsageError, match="The run old has no variant 'hotart-2'"):
        compare_runs(new, old, pairs=[("hotart-2", "hotart-2")])
    alone = make_run(tmp_path / "alone", variants=("hotart-3",))
    with pytest.raises(IncomparableError, match="share no variant"):
        compare_runs(alone, old)


def test_runs_are_called_by_what_tells_them_apart(tmp_path: Path) -> None:
    def name(one: Run, other: Run) -> str:
        return compare_runs(one, other, metrics=PREFERENCE, tags=False)[0].candidate

    here, there = make_run(tmp_path / "a/mini", seed=1), make_run(tmp_path / "b/mini", seed=2)
    assert name(here, there) == "base@fake-0001"
    assert name(here, replace(here, path=str(tmp_path / "b/mini"))) == f"base@{here.path}"
    with pytest.raises(UsageError, match="compared with itself") as caught:
        name(here, replace(here, path=str(tmp_path / "a" / ".." / "a" / "mini")))
    assert "hotart-bench compare" in caught.value.hint


def test_every_differing_fact_is_named_at_once(tmp_path: Path) -> None:
    old = make_run(tmp_path / "old")
    suite = old.info.suite
    prompts = (
        replace(suite.prompts[1], text="another text"),
        replace(suite.prompts[0], negative="blurry"),
        *suite.prompts[2:-1],
        replace(suite.prompts[-1], id="new-case"),
    )
    new = _with_suite(
        replace(old, path=str(tmp_path / "new")),
        settings=replace(suite.settings, steps=30, sampler="euler"),
        samples=4,
        seed=7,
        prompts=prompts,
    )
    new = _with_facts(new, "mini-clip", version="2")
    with pytest.raises(IncomparableError) as caught:
        compare_runs(new, old)
    assert caught.value.exit_code == 4
    assert caught.value.message == (
        "The runs new and old cannot be compared: "
        "samples is 4 in new and 2 in old; seed is 7 in new and 0 in old; "
        "settings.steps is 30 in new and 20 in old; settings.sampler is euler in new and ddim in old; "
        "1 prompt only in new (new-case); 1 prompt only in old (case-011); "
        "1 prompt with another text (case-001); 1 prompt with another negative prompt (case-000); "
        "the prompts stand in another order, which changes batches and so pixels; "
        "metric mini-clip is version 2 in new and 1 in old."
    )
    assert "hotart-bench run fake" in caught.value.hint


def test_a_digest_of_unknown_cause_is_still_refused(tmp_path: Path) -> None:
    old, new = make_run(tmp_path / "old"), make_run(tmp_path / "new", seed=1)
    new = replace(new, info=replace(new.info, protocol_digest="f" * 64))
    with pytest.raises(IncomparableError, match="digest is ffffffffffff in new"):
        compare_runs(new, old)


def test_metrics_of_another_version_are_refused_but_not_the_others(tmp_path: Path) -> None:
    old = make_run(tmp_path / "old")
    new = _with_facts(make_run(tmp_path / "new", seed=1), "mini-clip", version="2")
    with pytest.raises(IncomparableError, match="metric mini-clip is version 2 in new and 1 in old") as caught:
        compare_runs(new, old, metrics=["mini-clip", "mini-preference"])
    assert caught.value.hint.endswith("--metrics mini-preference")
    assert compare_runs(new, old, metrics=PREFERENCE)


def test_only_common_metrics_are_compared(tmp_path: Path) -> None:
    def keep(run: Run, *names: str) -> Run:
        return replace(run, info=replace(run.info, metrics=tuple(f for f in run.info.metrics if f.name in names)))

    old, new = make_run(tmp_path / "old"), make_run(tmp_path / "new", seed=1)
    both = compare_runs(keep(new, "mini-clip", "contrast"), keep(old, "contrast", "clipped"))
    assert {d.metric for d in both} == {"contrast"}
    with pytest.raises(IncomparableError, match=r"share no metric .new has mini-clip, old has clipped"):
        compare_runs(keep(new, "mini-clip"), keep(old, "clipped"))
    with pytest.raises(UsageError, match="The run old has no metric 'mini-clip'"):
        compare_runs(new, keep(old, "clipped"), metrics=["mini-clip"])
