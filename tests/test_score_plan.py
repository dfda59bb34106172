"""Which metrics share a pass over the images, and what a plan counts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
from fake_metrics import ALIGNMENT, BEAUTY, OTHER_ALIGNMENT, facts
from fakes import make_run

from bench.metrics import Metric, metric
from bench.metrics.pixels import contrast, saturation, ssim_to_base
from bench.score.plan import make_score, plan_passes, plan_scores

HEAVY = metric(facts("heavy"), load_head=str)(lambda inputs: inputs.pixels.mean(dim=(1, 2, 3)))
METRICS: tuple[Metric, ...] = (ALIGNMENT, saturation, HEAVY, OTHER_ALIGNMENT, ssim_to_base, BEAUTY, contrast)


def test_metrics_share_a_pass_with_their_encoder_and_own_weights_stand_alone(tmp_path: Path) -> None:
    run = msgspec.structs.replace(make_run(tmp_path, prompts=2), scores=())
    _, jobs = plan_scores(run, METRICS)
    assert plan_passes(jobs) == (
        (ALIGNMENT, BEAUTY),
        (saturation, contrast, ssim_to_base),
        (HEAVY,),
        (OTHER_ALIGNMENT,),
    )


def test_a_plan_goes_sample_by_sample_with_the_reference_first_and_counts_every_score(tmp_path: Path) -> None:
    run = msgspec.structs.replace(make_run(tmp_path, prompts=2, failed=[("spo", "case-001", 1)]), scores=())
    nulls, jobs = plan_scores(run, METRICS)
    assert len(nulls) + sum(len(job.metrics) for job in jobs) == 3 * 2 * 2 * len(METRICS)
    order = [(job.render.prompt_id, job.render.sample, job.render.variant) for job in jobs]
    assert order == [
        (prompt_id, sample, variant)
        for prompt_id in ("case-000", "case-001")
        for sample in (0, 1)
        for variant in ("base", "dpo", "spo")
        if (variant, prompt_id, sample) != ("spo", "case-001", 1)
    ]
    assert {job.reference.variant for job in jobs if job.reference is not None} == {"base"}
    assert [null.reason for null in nulls].count("is the reference") == 4


def test_what_the_fakes_scored_is_done_and_an_older_version_is_not(tmp_path: Path) -> None:
    run = make_run(tmp_path, prompts=2)
    assert plan_scores(run, [saturation, contrast]) == ((), ())
    newer = Metric(msgspec.structs.replace(contrast.facts, version="2"), contrast.compute)
    nulls, jobs = plan_scores(run, [saturation, newer])
    assert (len(nulls), len(jobs)) == (0, 12)
    assert all(job.metrics == (newer,) for job in jobs)


def test_a_score_of_another_dtype_is_not_done(tmp_path: Path) -> None:
    run = msgspec.structs.replace(make_run(tmp_path, prompts=2), scores=())
    nulls, jobs = plan_scores(run, [BEAUTY])
    done = tuple(make_score(job.render, BEAUTY, job.reference, value=1.0) for job in jobs)
    half = replace(BEAUTY, facts=msgspec.structs.replace(BEAUTY.facts, metric_dtype="float16"))
    scored = msgspec.structs.replace(run, scores=done)
    assert (nulls, plan_scores(scored, [BEAUTY])) == ((), ((), ()))
    assert len(plan_scores(scored, [half])[1]) == len(done) == 12
    assert plan_passes(plan_scores(run, [BEAUTY, half])[1]) == ((BEAUTY,), (half,))
