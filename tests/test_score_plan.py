"""Which metrics share a pass over the images, and what a plan counts."""

from __future__ import annotations

from pathlib import Path

import msgspec
from fake_judges import ALIGNMENT, BEAUTY, OTHER_ALIGNMENT, facts
from fakes import make_run

from bench.metrics import Metric, metric
from bench.metrics.pixels import contrast, saturation, ssim_to_base
from bench.score.plan import plan_passes, plan_scores

HEAVY = metric(facts("heavy"), load_head=str)(lambda inputs: inputs.pixels.mean(dim=(1, 2, 3)))
METRICS: tuple[Metric, ...] = (ALIGNMENT, saturation, HEAVY, OTHER_ALIGNMENT, ssim_to_base, BEAUTY, contrast)


def test_metrics_share_a_pass_with_their_encoder_and_own_weights_stand_alone(tmp_path: Path) -> None:
    run = msgspec.structs.replace(make_run(tmp_path, prompts=2), scores=())
    passes = plan_passes(plan_scores(run, METRICS).jobs)
    assert [(judging.encoder, judging.metrics, judging.has_weights) for judging in passes] == [
        ("conv", (ALIGNMENT, BEAUTY), True),
        (None, (saturation, contrast, ssim_to_base), False),
        (None, (HEAVY,), True),
        ("other", (OTHER_ALIGNMENT,), True),
    ]


def test_a_plan_goes_cell_by_cell_with_the_reference_first_and_counts_every_score(tmp_path: Path) -> None:
    run = msgspec.structs.replace(make_run(tmp_path, prompts=2, failed=[("spo", "case-001", 1)]), scores=())
    plan = plan_scores(run, METRICS)
    assert plan.total == 3 * 2 * 2 * len(METRICS)
    order = [(job.render.prompt_id, job.render.sample, job.render.variant) for job in plan.jobs]
    assert order == [
        (prompt_id, sample, variant)
        for prompt_id in ("case-000", "case-001")
        for sample in (0, 1)
        for variant in ("base", "dpo", "spo")
        if (variant, prompt_id, sample) != ("spo", "case-001", 1)
    ]
    assert {job.reference.variant for job in plan.jobs if job.reference is not None} == {"base"}
    assert [null.reason for null in plan.nulls].count("is the reference") == 4


def test_what_the_fakes_scored_is_done_and_an_older_version_is_not(tmp_path: Path) -> None:
    run = make_run(tmp_path, prompts=2)
    assert plan_scores(run, [saturation, contrast]).total == 0
    newer = Metric(msgspec.structs.replace(contrast.facts, version="2"), contrast.compute)
    plan = plan_scores(run, [saturation, newer])
    assert plan.total == 12
    assert all(job.metrics == (newer,) for job in plan.jobs)
