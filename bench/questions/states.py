"""Whether the judges of a suite can be asked on this machine, as far as that is seen without asking. No torch."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from bench.errors import HotartError
from bench.metrics.registry import Registry
from bench.questions.endpoint import is_local
from bench.questions.weights import find_vlm, identify_vlm
from bench.records import Judge, Record, Suite


class JudgeState(Record, frozen=True):
    """A judge of the suite as it stands on this machine."""

    judge: str
    what: str
    """How it is asked: the program, the address and the model, or the vision-language model."""
    found: bool
    state: str
    """In words; of what is not found, what is missing."""
    weights: bool = False
    """Whether what is missing are weights, which ``fetch`` gets."""


def judges_asked(suite: Suite, metrics: Sequence[str], registry: Registry) -> tuple[Judge, ...]:
    """The suite's judges whose answers some of these metrics are made of."""
    asked = {registry.metrics[name].judge for name in metrics if name in registry.metrics}
    return tuple(judge for judge in suite.judges if judge.name in asked)


def state_of(judge: Judge, weights_dir: Path | None) -> JudgeState:
    """What is to be seen of a judge; no program is started, no server asked, nothing downloaded."""
    if judge.command:
        return _program(judge)
    return _endpoint(judge) if judge.endpoint else _vlm(judge, weights_dir)


def _program(judge: Judge) -> JudgeState:
    found = shutil.which(judge.command[0]) is not None
    state = "there; it is started when it is asked" if found else f"{judge.command[0]} is not a program here"
    return JudgeState(judge=judge.name, what=" ".join(judge.command), found=found, state=state)


def _endpoint(judge: Judge) -> JudgeState:
    words = ["of this machine" if is_local(judge.endpoint) else "of another machine: needs --allow-remote"]
    lacks_key = bool(judge.key) and not os.environ.get(judge.key)
    if judge.key:
        words.append(f"{judge.key} is {'not set' if lacks_key else 'set'}")
    what = f"{judge.model} at {judge.endpoint}"
    return JudgeState(judge=judge.name, what=what, found=not lacks_key, state="; ".join(words))


def _vlm(judge: Judge, weights_dir: Path | None) -> JudgeState:
    missing = find_vlm(judge.vlm, weights_dir) is None
    try:
        found, state = True, identify_vlm(judge.vlm, weights_dir)
    except HotartError as error:
        found, state = False, "missing" if missing else error.message
    return JudgeState(judge=judge.name, what=judge.vlm, found=found, state=state, weights=not found)
