"""Set scores of a run in comparisons, both reports and frames, against the records they are made of."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import statistics
from pathlib import Path

import msgspec
import numpy as np
import pytest
from fake_metrics import put_image
from fake_sets import SETS, fakes, folder_of
from fakes import png_bytes
from scipy import stats as scipy_stats

from bench import compare_sets as framed
from bench.baseline import freeze
from bench.cli.compare import tidy_csv
from bench.compare import compare_run, compare_runs, compare_sets, metric_means
from bench.compare.finding import find_in_runs
from bench.compare.pairing import usable_sets
from bench.errors import UsageError
from bench.frames import Run as Frames
from bench.gate import check_limits, like_named
from bench.records import Run, SetScore
from bench.report import html, markdown
from bench.report.page import build_view
from bench.score import score
from bench.store import load_run
from bench.suite.limits import parse_limit

PAIRS = [("dpo", "base"), ("spo", "base"), ("spo", "dpo")]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("sets")
    with folder_of(path, ("alignment", *SETS), prompts=8, samples=2) as folder:
        score(folder, registry=fakes().registry)
    return load_run(path)


def value(run: Run, variant: str, metric: str, prompt: str | None = None, tag: str | None = None) -> SetScore:
    (one,) = [
        one
        for one in run.set_scores
        if (one.variant, one.metric, one.prompt_id, one.tag) == (variant, metric, prompt, tag)
    ]
    return one


def test_a_number_of_a_prompt_is_compared_as_any_metric_is(run: Run) -> None:
    (delta,) = [
        one
        for one in compare_run(run, tags=False)
        if (one.metric, one.candidate, one.reference) == ("vendi", "spo", "base")
    ]
    prompts = [prompt.id for prompt in run.info.suite.prompts]
    differences = [
        (value(run, "spo", "vendi", one).value or 0.0) - (value(run, "base", "vendi", one).value or 0.0)
        for one in prompts
    ]
    assert delta.mean == pytest.approx(statistics.mean(differences))
    assert (delta.prompts, delta.samples, delta.missing) == (8, 16, 0)
    assert delta.wins == sum(one > 0 for one in differences)


def test_a_number_of_a_tag_is_compared_by_its_difference_with_a_jackknife(run: Run) -> None:
    deltas = compare_sets(run, PAIRS)
    (whole,) = [
        one
        for one in deltas
        if (one.metric, one.candidate, one.reference, one.tag) == ("vendi-tag", "spo", "dpo", None)
    ]
    ours, theirs = value(run, "spo", "vendi-tag"), value(run, "dpo", "vendi-tag")
    assert whole.mean == pytest.approx((ours.value or 0) - (theirs.value or 0))
    left_out = np.array(ours.without) - np.array(theirs.without)
    error = math.sqrt(7 / 8 * np.sum((left_out - left_out.mean()) ** 2))
    half = scipy_stats.t.ppf(0.975, 7) * error
    assert whole.interval is not None
    assert (whole.interval.low, whole.interval.high) == pytest.approx((whole.mean - half, whole.mean + half))
    assert whole.p == pytest.approx(2 * scipy_stats.t.sf(abs(whole.mean) / error, 7))


def test_a_drift_is_the_mean_over_prompts_beside_what_another_noise_does(run: Run) -> None:
    (drift,) = [
        one for one in compare_sets(run, PAIRS) if (one.metric, one.candidate, one.tag) == ("drift", "spo", None)
    ]
    own = [value(run, "spo", "drift", prompt.id) for prompt in run.info.suite.prompts]
    assert drift.mean == pytest.approx(statistics.mean(one.value or 0 for one in own))
    assert drift.scale == pytest.approx(statistics.mean(one.scale or 0 for one in own))
    assert drift.interval is not None
    assert drift.interval.low < drift.mean < drift.interval.high


def test_distances_stand_beside_the_first_variant_only(run: Run) -> None:
    found = {(one.metric, one.candidate, one.reference) for one in compare_sets(run, PAIRS)}
    assert ("kid", "spo", "base") in found
    assert ("kid", "spo", "dpo") not in found
    assert ("drift", "spo", "dpo") not in found
    assert not [one for one in compare_sets(run, PAIRS) if one.metric == "vendi"]


def test_small_tags_have_no_row_and_large_ones_have_holm_among_them(run: Run) -> None:
    prompts = run.info.suite.prompts
    deltas = [one for one in compare_sets(run, [("spo", "base")]) if one.metric == "kid"]
    counts = {tag: sum(tag in one.tags for one in prompts) for one in prompts for tag in one.tags}
    assert {one.tag for one in deltas} == {None, *(tag for tag, count in counts.items() if count >= 3)}
    assert all(one.p_holm >= one.p for one in deltas)
    assert deltas[0].p_holm == deltas[0].p


def test_numbers_of_other_images_or_another_version_do_not_count(run: Run) -> None:
    stale = msgspec.structs.replace(run, set_scores=tuple(
        msgspec.structs.replace(one, images_sha256="0" * 64) for one in run.set_scores
    ))  # fmt: skip
    assert not list(usable_sets(stale))
    newer = tuple(msgspec.structs.replace(one, version="2") for one in run.info.metrics)
    other = msgspec.structs.replace(run, info=msgspec.structs.replace(run.info, metrics=newer))
    assert not list(usable_sets(other))
    assert len(list(usable_sets(run))) == sum(one.value is not None for one in run.set_scores)


def test_two_runs_are_compared_where_their_samples_are_the_same(run: Run, tmp_path: Path) -> None:
    with folder_of(tmp_path / "other", ("alignment", *SETS), prompts=8, samples=2) as folder:
        put_image(folder, ("spo", "case-001", 0), None)
        put_image(folder, ("spo", "case-002", 1), png_bytes("spo", "another", 3, 3))
        score(folder, registry=fakes().registry)
    other = load_run(tmp_path / "other")
    deltas = {one.candidate.partition("@")[0]: one for one in compare_runs(run, other, metrics=["vendi"], tags=False)}
    assert {name: one.prompts for name, one in deltas.items()} == {"base": 7, "dpo": 7, "spo": 7}
    (finding,) = find_in_runs(run, other, [("spo", "spo")])
    (vendi,) = [one for one in finding.metrics if one.metric == "vendi"]
    assert (vendi.prompts, vendi.missing, vendi.sample_sd) == (7, 1, None)
    tags = {one.tag for one in compare_sets(run, [("spo", "spo")], reference=other)}
    assert tags  # tags without the prompt that lost a sample are of the same images
    assert not tags & {None, *run.info.suite.prompts[1].tags}


def test_a_finding_reads_numbers_of_equal_sets_only_and_knows_no_spread_of_seeds(tmp_path: Path) -> None:
    runs = []
    for name, lost in (("new", ("spo", "case-001", 0)), ("old", None)):
        with folder_of(tmp_path / name, ("alignment", "vendi"), prompts=12, samples=3) as folder:
            if lost is not None:
                put_image(folder, lost, None)
            score(folder, registry=fakes().registry)
        runs.append(load_run(tmp_path / name))
    (found,) = find_in_runs(runs[0], runs[1], [("spo", "base")])
    alignment, vendi = found.metrics
    assert (alignment.prompts, vendi.prompts, vendi.missing) == (12, 11, 1)  # 2 images are not held against 3
    assert alignment.sample_sd is not None
    assert vendi.sample_sd is None  # three samples share one number


def test_two_equal_runs_differ_by_nothing_in_a_tag(run: Run) -> None:
    found = compare_sets(run, [("spo", "spo")], reference=run, suffixes=("@a", "@b"))
    assert {one.metric for one in found} == {"vendi-tag"}
    assert all(one.mean == 0 for one in found)
    assert found[0].candidate == "spo@a"


def test_means_leave_out_what_has_no_number_of_a_prompt(run: Run) -> None:
    found = {(one.metric, one.variant) for one in metric_means(run)}
    assert ("vendi", "base") in found
    assert ("drift", "spo") in found
    assert not {"kid", "vendi-tag"} & {metric for metric, _ in found}


def test_both_reports_show_each_number_beside_the_reference(run: Run) -> None:
    view = build_view(run, compare_run(run))
    assert view.sets is not None
    assert [row.metric.name for row in view.sets.rows] == list(SETS)
    page, note = html(view), markdown(view)
    section = note.split("## Sameness and drift")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ") and "| all |" in line]
    assert len(lines) == 4
    vendi = next(line for line in lines if line.startswith("| vendi (images)"))
    (delta,) = [
        one
        for one in compare_run(run, tags=False)
        if (one.metric, one.candidate, one.reference) == ("vendi", "spo", "base")
    ]
    shown = re.findall(r"× ([0-9.]+)", vendi)
    assert [float(one) for one in shown][-1] == pytest.approx(math.exp(delta.mean), abs=0.01)
    assert "between noises" in section
    assert 'id="sets"' in page
    assert view.pixels == ()  # where the descriptive metrics of images stand


def test_a_run_without_set_metrics_has_no_such_section(run: Run) -> None:
    metrics = tuple(one for one in run.info.metrics if one.over == "image")
    plain = msgspec.structs.replace(run, info=msgspec.structs.replace(run.info, metrics=metrics), set_scores=())
    view = build_view(plain, compare_run(plain))
    assert view.sets is None
    assert "Sameness and drift" not in html(view)


def test_the_terminal_and_the_table_have_them(run: Run, cli) -> None:  # type: ignore[no-untyped-def]
    shown = cli("compare", run.path).out
    assert "spo against base, numbers of sets of images" in shown
    assert "‡ between two noises of the reference" in shown
    rows = list(csv.DictReader(io.StringIO(tidy_csv((), (), (), sets=compare_sets(run, PAIRS)))))
    assert {row["kind"] for row in rows} == {"set"}
    drift = next(row for row in rows if row["name"] == "drift" and row["candidate"] == "spo" and not row["tag"])
    assert float(drift["reference_value"]) > 0
    known = json.loads(cli("compare", run.path, "--format", "json").out)["sets"]
    assert len(known) == len(compare_sets(run, PAIRS))


def test_frames_have_a_row_a_number(run: Run) -> None:
    frame = Frames(run).sets
    assert len(frame) == len(run.set_scores)
    one = frame[(frame.variant == "spo") & (frame.metric == "kid") & frame.tag.isna()]
    assert float(one.value.iloc[0]) == value(run, "spo", "kid").value
    assert list(Frames(run).scores.metric.cat.categories) == ["alignment"]
    assert len(framed(Frames(run)).to_frame()) == len(compare_sets(run, PAIRS))


def test_a_gate_takes_a_limit_on_a_number_of_prompts_and_refuses_one_of_tags(run: Run) -> None:
    def gate(name: str, run: Run = run):  # type: ignore[no-untyped-def]
        suite = msgspec.structs.replace(run.info.suite, limits=(parse_limit(name, "0.5sd"),))
        info = msgspec.structs.replace(run.info, suite=suite, status="complete")
        frozen = freeze(msgspec.structs.replace(run, info=info), hashes={
            str(one.image): one.sha256 for one in run.renders
        })  # fmt: skip
        return check_limits(
            frozen, frozen, [("spo", "base"), *like_named(frozen, frozen)][:1], run="run", baseline="run",
            baseline_is_run=True, time="2026-01-01T00:00:00Z", quality_only=True, prompts=suite.prompts,
        )  # fmt: skip

    (verdict,) = gate("vendi").verdicts
    differences = [
        (value(run, "base", "vendi", one.id).value or 0) - (value(run, "spo", "vendi", one.id).value or 0)
        for one in run.info.suite.prompts
    ]
    assert verdict.loss == pytest.approx(statistics.mean(differences), abs=1e-4)
    with pytest.raises(UsageError, match="one of each tag"):
        gate("vendi-tag")
    lost = [one for one in run.set_scores if (one.variant, one.metric, one.prompt_id) == ("spo", "vendi", "case-003")]
    for changed in ((), (msgspec.structs.replace(lost[0], value=None, reason="odd"),), (
        msgspec.structs.replace(lost[0], images_sha256="0" * 64),
    )):  # fmt: skip
        kept = tuple(one for one in run.set_scores if one not in lost)
        (verdict,) = gate("vendi", msgspec.structs.replace(run, set_scores=(*kept, *changed))).verdicts
        assert verdict.outcome == "invalid"
        assert "lacks scores of 1 prompt of 8 (case-003)" in verdict.sentence
