"""What a reader should hold against the numbers: cut prompts, doubled images, prompts a model was trained on."""

from __future__ import annotations

from collections.abc import Sequence

from bench import wording as text
from bench.compare.truncation import cut_prompts
from bench.metrics.tripwires import duplicates
from bench.names import listed
from bench.records import Run, Suite
from bench.suite.contamination import training_cases
from bench.suite.pairs import NOT_GIVEN

MOST_NAMED = 12
"""Ids that a sentence names; the journal has them all."""


def cut_notes(run: Run) -> tuple[str, ...]:
    """One sentence for each metric that judged images by the beginning of their prompts alone."""
    return tuple(
        f"{found.metric} read only the beginning of {text.plural(len(found.cases), 'prompt')} of "
        f"{len(run.info.suite.cases):,}: {_ids(found.cases)}."
        for found in cut_prompts(run)
    )


def left_out_notes(suite: Suite) -> tuple[str, ...]:
    """A sentence on the prompts that were left out because SPO was trained on them; none where there are none."""
    if not suite.left_out:
        return ()
    count = text.plural(len(suite.left_out), "prompt")
    return (f"{count} of the prompt files were left out, since SPO was trained on them: {_ids(suite.left_out)}.",)


def image_banners(run: Run) -> tuple[str, ...]:
    """How many images could not be made or used, how many were not given, and how many equal another one."""
    lost = [one for one in run.renders if one.image is None]
    absent = sum(one.error == NOT_GIVEN for one in lost)
    failed, doubled = len(lost) - absent, len(duplicates(run.renders))
    found = []
    if failed:
        verb = "made" if run.info.suite.given is None else "used"
        found.append(f"{text.plural(failed, 'image')} could not be {verb}; each is shown below with its error.")
    if absent:
        found.append(f"{text.plural(absent, 'sample')} were not given that other variants or prompts have.")
    if doubled:
        found.append(
            f"{text.plural(doubled, 'image')} equal another image of their variant: the model heeded neither noise nor "
            "prompt. They have no scores."
        )
    return tuple(found)


def training_facts(run: Run) -> tuple[tuple[str, str], ...]:
    """Which prompts SPO was trained on, as (label, value): those left out, and those that were kept."""
    suite = run.info.suite
    kept = training_cases(suite.cases)
    facts = [("Left out", note) for note in left_out_notes(suite)]
    said = f"{text.plural(len(kept), 'prompt')}: {_ids(kept)}" if kept else "none"
    facts.append(("Training prompts of SPO", said))
    return tuple(facts)


def _ids(cases: Sequence[str]) -> str:
    return listed(cases, MOST_NAMED)
