"""What may be compared, and what may lie in one run folder: each fact that was changed is named, and no other."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from fakes import make_run, only, with_facts, with_suite

from bench.baseline import freeze
from bench.comparability import (
    check_environment,
    pixel_facts,
    protocol_facts,
    refuse_other_protocol,
    timing_facts,
)
from bench.compare import compare_runs
from bench.errors import IncomparableError, UsageError
from bench.records import Run

replace = msgspec.structs.replace
PREFERENCE = ["mini-preference"]


def test_like_named_variants_of_two_runs(tmp_path: Path) -> None:
    old = make_run(tmp_path / "old", seed=1)
    new = make_run(tmp_path / "new", seed=2, effect={"spo": {"mini-preference": 1.6}})
    deltas = compare_runs(new, old, tags=False)
    assert list(dict.fromkeys((d.candidate, d.reference) for d in deltas)) == [
        ("base@new", "base@old"),
        ("dpo@new", "dpo@old"),
        ("spo@new", "spo@old"),
    ]
    gain = only(deltas, "mini-preference", "spo@new", "spo@old")
    null = only(deltas, "mini-preference", "base@new", "base@old")
    assert gain.interval is not None
    assert null.interval is not None
    assert gain.interval.low < 0.5 < gain.interval.high
    assert gain.interval.low > 0
    assert null.interval.low < 0 < null.interval.high
    distances = {d.candidate for d in deltas if d.metric == "ssim-to-base"}
    assert distances == {"dpo@new", "spo@new"}


def test_any_pair_of_two_runs_can_be_compared(tmp_path: Path) -> None:
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
    new = with_suite(
        replace(old, path=str(tmp_path / "new")),
        settings=replace(suite.settings, steps=30, sampler="euler"),
        samples=4,
        seed=7,
        prompts=prompts,
    )
    new = with_facts(new, "mini-clip", version="2")
    with pytest.raises(IncomparableError) as caught:
        compare_runs(new, old)
    assert caught.value.exit_code == 4
    assert caught.value.message == (
        "The runs new and old cannot be compared: "
        "samples is 4 in new and 2 in old; seed is 7 in new and 0 in old; "
        "settings.steps is 30 in new and 20 in old; settings.sampler is euler in new and ddim in old; "
        "1 prompt only in new (new-case); 1 prompt only in old (case-011); "
        "2 prompts with another text or negative prompt (case-000, case-001); "
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
    new = with_facts(make_run(tmp_path / "new", seed=1), "mini-clip", version="2")
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


# --- what must not mix in one run folder ---------------------------------------------------


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(tmp_path / "run", prompts=3, samples=2, variants=("base", "spo"))


def test_another_protocol_is_refused_with_every_difference(run: Run) -> None:
    suite = run.info.suite
    prompts = (replace(suite.prompts[0], text="other"), replace(suite.prompts[1], id="new"))
    other = replace(
        suite, prompts=prompts, seed=9, limit=2, settings=replace(suite.settings, steps=30, sampler="euler")
    )
    with pytest.raises(IncomparableError) as caught:
        refuse_other_protocol(Path("runs/mini"), run.info, other)
    assert caught.value.message.startswith("runs/mini: holds a run of another protocol: ")
    for fact in (
        "seed is 0 there and 9 here",
        "limit is not set there and 2 here",
        "settings.steps is 20 there and 30 here",
        "settings.sampler is ddim there and euler here",
        "2 prompts only there (case-001, case-002)",
        "1 prompt only here (new)",
        "1 prompt with another text or negative prompt (case-000)",
    ):
        assert fact in caught.value.message
    assert "samples" not in caught.value.message
    assert "-o" in caught.value.hint
    assert "--fresh" in caught.value.hint
    with pytest.raises(IncomparableError, match="the prompts stand in another order"):
        refuse_other_protocol(Path("runs/mini"), run.info, replace(suite, prompts=suite.prompts[::-1]))


def test_the_same_device_may_render_on_whatever_else_changed(run: Run) -> None:
    info = replace(run.info, machine=replace(run.info.machine, device="cuda:0", device_name="H200"))
    here = replace(info.machine, device="cuda:1", cores=64, driver="999", os="other")
    check_environment(info, here, {**info.packages, "numpy": "9", "peft": "9", "python": "3.14"})


def test_another_number_of_threads_is_another_environment_on_a_cpu_alone(run: Run) -> None:
    info = replace(run.info, machine=replace(run.info.machine, threads=2))
    with pytest.raises(IncomparableError, match="threads is 2 there and 8 here"):
        check_environment(info, replace(info.machine, threads=8), info.packages)
    on_cuda = replace(info.machine, device="cuda:0")
    check_environment(replace(info, machine=on_cuda), replace(on_cuda, threads=8), info.packages)


def test_another_environment_is_refused_with_every_difference(run: Run) -> None:
    machine = replace(run.info.machine, device="cuda:0", device_name="H200")
    with pytest.raises(IncomparableError) as caught:
        check_environment(run.info, machine, {"torch": "9.9"})
    assert caught.value.exit_code == 4
    for fact in (
        "the kind of device is cpu there and cuda here",
        "the device name is A CPU of two cores there and H200 here",
        "torch is 2.8.0 there and 9.9 here",
        "diffusers is 0.36.0 there and not set here",
    ):
        assert fact in caught.value.message


def test_timings_need_more_facts_to_agree_than_images(run: Run) -> None:
    info = replace(run.info, machine=replace(run.info.machine, device="cuda:0", device_name="H200"))
    here = replace(info.machine, cores=64, driver="999", threads=7, memory_bytes=2**40, device_memory_bytes=2**37)
    check_environment(info, here, info.packages)
    with pytest.raises(IncomparableError, match="its timings must not mix") as caught:
        check_environment(info, here, info.packages, timing_facts)
    for fact in ("driver is not set there and 999 here", "device memory in GiB is not set there and 128", "cores is"):
        assert fact in caught.value.message
    check_environment(info, replace(here, os="another"), {**info.packages, "numpy": "9"})


def test_a_run_and_its_baseline_give_the_same_facts(run: Run) -> None:
    frozen = freeze(run)
    assert protocol_facts(frozen) == protocol_facts(run.info.suite)
    for facts in (pixel_facts, timing_facts):
        assert facts(frozen.machine, frozen.packages) == facts(run.info.machine, run.info.packages)
