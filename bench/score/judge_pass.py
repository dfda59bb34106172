"""The pass over a judge: what it has not been asked yet is asked, kept in ``answers.jsonl``, and made into scores."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from dataclasses import replace as with_fields
from pathlib import Path

import torch

from bench.errors import HotartError, WeightsError
from bench.metrics.declare import Inputs, JudgeError, LoadedJudge, Metric, Place
from bench.metrics.registry import Registry
from bench.questions.canaries import Pictured, check
from bench.questions.metrics import as_asked, identity_of
from bench.records import Answer, Question, Render, Run, Score
from bench.score.batches import memory_for, metric_values, result_score
from bench.score.images import ImageFileError, image_bytes
from bench.score.passes import load_part
from bench.score.plan import Job
from bench.store import RunFolder
from bench.suite.prompt_syntax import plain_text

JOURNAL_IMAGES = 8
"""Images that are asked about between two appends to the journals."""


@dataclass
class Known:
    """What a judge said about the run's images, and why it says no more."""

    judge: str
    identity: str
    answers: dict[tuple[str, Question], float]
    refused: Exception | None = None
    """Why it is not believed, or not to be had; then nothing is asked."""

    def missing(self, job: Job) -> list[Question]:
        """The questions of an image that it has not been asked."""
        return [one for one in job.questions if (str(job.render.sha256), as_asked(one)) not in self.answers]


def judge_pass(
    metrics: Sequence[Metric],
    jobs: Sequence[Job],
    folder: RunFolder,
    place: Place,
    registry: Registry,
    failures: list[WeightsError],
) -> Generator[list[Score], None, None]:
    """The scores of the metrics of one judge, some images at a time; it is opened only where it has to be asked.

    A judge that fails its canaries gives nulls with the reason, which are tried again by the next ``score``. Where it
    cannot be loaded, the error is added to ``failures`` and nothing is recorded.
    """
    facts = metrics[0].facts
    name, identity = str(metrics[0].judge), identity_of(facts)
    jobs = [job for job in jobs if job.lacking(metrics)]
    answers = {
        (one.image_sha256, as_asked(one.question)): one.probability
        for one in folder.answers()
        if (one.judge, one.identity) == (name, identity)
    }
    known = Known(name, identity, answers)
    if not any(known.missing(job) for job in jobs):
        yield from _scores_of(metrics, jobs, folder, None, known)
        return
    there = with_fields(place, dtype=facts.metric_dtype)
    try:
        judge = load_part(f"judge {name!r}", lambda: registry.judges[name].load(there))
    except WeightsError as error:
        failures.append(error)
        return
    with closing(judge):
        known.refused = _distrust(judge, folder, name)
        yield from _scores_of(metrics, jobs, folder, judge, known)


def _distrust(judge: LoadedJudge, folder: RunFolder, name: str) -> Exception | None:
    """Why the judge is not believed, by its canaries; None where it is."""
    run = folder.run()
    settings = run.info.suite.settings
    try:
        with memory_for("asking a judge"):
            skipped = check(judge, pictured(run), (settings.width, settings.height))
    except JudgeError as error:
        return JudgeError(f"the judge {name} is not believed: {error}")
    except HotartError:
        raise
    except Exception as error:  # a model may fail in any way; it is the nulls' reason
        return error
    if skipped is not None:
        folder.add_notes([f"The judge {name} was not asked the canary of pairing: {skipped}."])
    return None


def pictured(run: Run) -> list[Pictured]:
    """The first image of each prompt with questions, of the variant that has most of them, in the suite's order.

    An image whose file is gone or another one is left out: that is no fault of the judge.
    """
    prompts = {prompt.id: prompt for prompt in run.info.suite.prompts if prompt.questions}
    by_variant: dict[str, dict[str, Render]] = {}
    for render in run.renders:
        if render.prompt_id in prompts and render.image is not None:
            by_variant.setdefault(render.variant, {}).setdefault(render.prompt_id, render)
    most = max(by_variant.values(), key=len, default={})
    words = {key: plain_text(prompt.text, run.info.suite.settings) for key, prompt in prompts.items()}
    return [
        Pictured(Path(run.path) / str(most[key].image), str(most[key].sha256), words[key], prompt.questions)
        for key, prompt in prompts.items()
        if key in most and _is_there(Path(run.path), most[key])
    ]


def _is_there(folder: Path, render: Render) -> bool:
    try:
        image_bytes(folder, render)
    except (OSError, ImageFileError):
        return False
    return True


def _scores_of(
    metrics: Sequence[Metric], jobs: Sequence[Job], folder: RunFolder, judge: LoadedJudge | None, known: Known
) -> Generator[list[Score], None, None]:
    for start in range(0, len(jobs), JOURNAL_IMAGES):
        some = jobs[start : start + JOURNAL_IMAGES]
        results = [_answers(job, folder, judge, known) for job in some]
        folder.append_answers([answer for _, new in results for answer in new])
        yield [
            _score(job, metric, result)
            for job, (result, _) in zip(some, results, strict=True)
            for metric in job.lacking(metrics)
        ]


def _answers(
    job: Job, folder: RunFolder, judge: LoadedJudge | None, known: Known
) -> tuple[list[float] | Exception, list[Answer]]:
    """All answers about an image, or why there are none, and those that are new."""
    sha256, missing, new = str(job.render.sha256), known.missing(job), list[Answer]()
    if missing:
        if judge is None or known.refused is not None:
            return known.refused or JudgeError("the judge was not asked"), []
        try:
            image_bytes(folder.path, job.render)  # refuses a file that is gone, or another one
            with memory_for("asking a judge"):
                found = judge.ask(folder.path / str(job.render.image), sha256, job.prompt, missing)
        except HotartError:
            raise
        except Exception as error:  # it is the null's reason, and must not stop the other images
            return error, []
        for question, answer in zip(missing, found, strict=True):
            known.answers[sha256, as_asked(question)] = answer
            new.append(
                Answer(
                    judge=known.judge,
                    identity=known.identity,
                    image_sha256=sha256,
                    question=question,
                    probability=answer,
                )
            )
    return [known.answers[sha256, as_asked(one)] for one in job.questions], new


def _score(job: Job, metric: Metric, result: list[float] | Exception) -> Score:
    if isinstance(result, Exception):
        return result_score(job, metric, result)
    inputs = Inputs(prompts=(job.prompt,), pixels=torch.empty(0, 3, 0, 0), answers=tuple(result))
    return result_score(job, metric, metric_values(metric, inputs)[0])
