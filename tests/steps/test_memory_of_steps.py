"""What is held at once while steps are scored: one step's pictures, one batch's prompts, no old scores."""

from __future__ import annotations

import weakref
from pathlib import Path

import msgspec
import pytest
import torch

from bench.pipeline.switch import load_pipeline
from bench.records import StepScore
from bench.steps import paths
from bench.steps.paths import StepPainter
from bench.steps.plan import StepJob
from bench.steps.scorers import StepBatch, StepValue
from bench.store.journal import Journal, append_records
from bench.suite import load_suite, plan_images

STEPS = 6


class Counting:
    """A scorer that counts how many steps' decoded pictures are in memory when it is called."""

    def __init__(self) -> None:
        self._seen: list[weakref.ref[torch.Tensor]] = []
        self.alive: list[int] = []

    def __call__(self, batch: StepBatch) -> list[StepValue]:
        """Count; no value."""
        self._seen.append(weakref.ref(batch.decoded))
        self.alive.append(sum(one() is not None for one in self._seen))
        return []


@pytest.fixture(scope="module")
def suite():
    torch.set_num_threads(1)
    known = load_suite("mini", limit=6)
    settings = msgspec.structs.replace(known.settings, steps=STEPS, batch=4)
    return msgspec.structs.replace(known, settings=settings, variants=known.variants[:1])


@pytest.fixture(scope="module")
def pipe(suite):
    return load_pipeline(suite.variants[0], suite.settings, device="cpu")


def jobs_of(suite, prompts: int, steps: tuple[int, ...]) -> list[StepJob]:
    """The batches of the first prompts."""
    images = plan_images(suite)[: prompts * suite.samples]
    numbers = dict.fromkeys(image.batch for image in images)
    return [StepJob("base", tuple(image for image in images if image.batch == number), steps, ()) for number in numbers]


@pytest.mark.parametrize("steps", [(STEPS,), tuple(range(1, STEPS + 1))])
@pytest.mark.parametrize("prompts", [2, 6])
def test_one_step_of_one_batch_is_decoded_at_a_time(suite, pipe, monkeypatch, steps, prompts) -> None:
    asked: list[int] = []
    real = paths.encode_prompts

    def encoding(*given):
        found = real(*given)
        asked.append(len(found))
        return found

    monkeypatch.setattr(paths, "encode_prompts", encoding)
    counting = Counting()
    painter = StepPainter(suite, [counting])
    jobs = jobs_of(suite, prompts, steps)
    for job in jobs:
        painter.paint(pipe, job)
    assert counting.alive == [1] * (len(steps) * len(jobs))
    assert asked == [2] * len(jobs)  # two prompts of two samples fill a batch


def score_of(step: int, variant: str = "base") -> StepScore:
    return StepScore(
        variant=variant,
        prompt_id="dunes",
        sample=0,
        step=step,
        timestep=1000.0 - step,
        sigma=1.0,
        metric="mini-preference",
        version="1",
        image_sha256="0" * 64,
        value=float(step),
    )


def test_a_journal_that_is_not_kept_is_read_from_the_disk_each_time(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "steps.jsonl", StepScore, kept=False)
    journal.append([score_of(1)])
    assert journal.records() == (score_of(1),)
    append_records(journal.path, [score_of(2)])  # behind its back: what is in memory would not have it
    assert journal.records() == (score_of(1), score_of(2))
    journal.append([score_of(3, "spo")])
    journal.drop_variant("base")
    assert journal.records() == (score_of(3, "spo"),)
    journal.path.unlink()
    assert journal.records() == ()


def test_what_lies_in_a_folder_that_is_begun_again_does_not_count(tmp_path: Path) -> None:
    append_records(tmp_path / "steps.jsonl", [score_of(1)])
    journal = Journal(tmp_path / "steps.jsonl", StepScore, empty=True, kept=False)
    assert journal.records() == ()
    journal.path.unlink()  # moved aside, as a run folder does before its first write
    journal.append([score_of(2)])
    assert journal.records() == (score_of(2),)
