"""Both reports say which prompts were cut or trained on, and count broken and doubled images."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from fake_gates import make_gate, make_verdict
from fakes import make_run, write_run

from bench.compare.pairing import cut_prompts
from bench.records import MeasurePlan, Run
from bench.report import write_report
from bench.report.facts import cut_notes, image_banners, training_facts
from bench.report.page import banners, build_view
from bench.store import load_run

pytestmark = pytest.mark.usefixtures("blank_plots")


def with_cut(run: Run, metric: str, prompts: set[str], version: str = "1") -> Run:
    scores = tuple(
        msgspec.structs.replace(one, prompt_cut=True, version=version)
        if one.metric == metric and one.prompt_id in prompts
        else one
        for one in run.scores
    )
    return msgspec.structs.replace(run, scores=scores)


def test_each_metric_names_the_prompts_that_it_cut_in_the_suites_order(tmp_path: Path) -> None:
    run = with_cut(make_run(tmp_path), "mini-clip", {"case-007", "case-002"})
    assert [tuple(found) for found in cut_prompts(run)] == [("mini-clip", ("case-002", "case-007"))]
    assert cut_notes(run) == ("mini-clip read only the beginning of 2 prompts of 12: case-002, case-007.",)
    assert cut_prompts(with_cut(make_run(tmp_path), "mini-clip", {"case-002"}, version="0")) == ()


def test_both_reports_and_score_say_it(tmp_path: Path, cli) -> None:
    run = with_cut(make_run(tmp_path, prompts=3), "mini-clip", {"case-001"})
    folder = write_run(run, tmp_path / "run")
    page, note = write_report(folder)
    sentence = "mini-clip read only the beginning of 1 prompt of 3: case-001."
    assert sentence in page.read_text(encoding="utf-8")
    assert sentence.replace(".", "\\.") in note.read_text(encoding="utf-8") or sentence in note.read_text(
        encoding="utf-8"
    )
    assert sentence in cli("report", folder).err


def test_broken_and_doubled_images_are_counted(tmp_path: Path) -> None:
    run = make_run(tmp_path, prompts=4, failed=[("dpo", "case-001", 0)])
    assert image_banners(run) == ("1 image could not be made; each is shown below with its error.",)
    twin = next(one for one in run.renders if one.variant == "spo")
    renders = tuple(
        msgspec.structs.replace(one, pixels_sha256=twin.pixels_sha256)
        if (one.variant, one.prompt_id, one.sample) == ("spo", "case-002", 1)
        else one
        for one in run.renders
    )
    found = image_banners(msgspec.structs.replace(run, renders=renders))
    assert found[1].startswith("2 images equal another image of their variant")


def test_a_run_that_lacks_timings_alone_is_finished_and_says_how_many(tmp_path: Path) -> None:
    run = make_run(tmp_path, prompts=2)
    assert banners(run, {}) == ()
    fewer = msgspec.structs.replace(run, timings=tuple(one for one in run.timings if one.round == 0))
    (said,) = banners(fewer, {})
    assert said.startswith("Not all timings are there: 3 of 6 rounds are missing. hotart-bench measure takes them")
    suite = msgspec.structs.replace(run.info.suite, measure=MeasurePlan(rounds=0))
    untimed = msgspec.structs.replace(run.info, suite=suite)
    assert banners(msgspec.structs.replace(run, info=untimed, timings=()), {}) == ()
    started = msgspec.structs.replace(run.info, status="started")
    (said,) = banners(msgspec.structs.replace(run, info=started, scores=()), {})
    assert "12 of 12 images are recorded, and what is missing are scores or image files" in said


def test_a_report_of_one_variant_says_what_its_gate_compared_it_with(tmp_path: Path) -> None:
    run = make_run(tmp_path, prompts=2, variants=("base",))
    assert "hotart-bench gate compares it" in build_view(run, ()).summary[0]
    gate = make_gate(make_verdict("fail", candidate="base"), run_id=run.info.id)
    assert build_view(run, (), gate).summary == (
        "One variant: compared: base with base of the frozen baseline baseline-mini.json, made from run fake-0000.",
    )


def test_provenance_names_training_prompts_that_were_left_out_or_kept(tmp_path: Path) -> None:
    run = make_run(tmp_path, prompts=3)
    assert training_facts(run) == (("Training prompts of SPO", "none"),)
    prompt = msgspec.structs.replace(run.info.suite.prompts[1], text="Hand.")
    prompts = (run.info.suite.prompts[0], prompt, run.info.suite.prompts[2])
    suite = msgspec.structs.replace(run.info.suite, prompts=prompts, left_out=("old",))
    info = msgspec.structs.replace(run.info, suite=suite)
    facts = dict(training_facts(msgspec.structs.replace(run, info=info)))
    assert facts["Training prompts of SPO"] == "1 prompt: case-001"
    assert facts["Left out"].endswith("since SPO was trained on them: old.")
    folder = write_run(msgspec.structs.replace(run, info=info), tmp_path / "run")
    page, note = write_report(folder)
    for text in (page.read_text(encoding="utf-8"), note.read_text(encoding="utf-8")):
        assert "since SPO was trained on them: old" in text
    assert load_run(folder).info.suite.left_out == ("old",)
