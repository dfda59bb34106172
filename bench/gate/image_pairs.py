"""The images of the prompts that lost most, as pairs: which sample is shown, and how a summary names it."""

from __future__ import annotations

import html
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from bench import wording
from bench.errors import UsageError
from bench.records import Run, Verdict, WorstPrompt

SHOWN_WIDTH_PX = 192
_ADDRESS = re.compile(r"https?://[^\s\"'<>`\\]+")


class _Side:
    """One run's images and scores by prompt, read once."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.name = Path(run.path).resolve().name
        self._images: defaultdict[tuple[str, str], dict[int, str]] = defaultdict(dict)
        self._scores: defaultdict[tuple[str, str, str], dict[int, float]] = defaultdict(dict)
        for render in run.renders:
            if render.image is not None:
                self._images[render.variant, render.case][render.sample] = render.image
        for score in run.scores:
            if score.value is not None:
                self._scores[score.variant, score.case, score.metric][score.sample] = score.value

    def images(self, variant: str, case: str) -> dict[int, str]:
        """Path in the run folder by sample, of the images that are still there."""
        found = self._images.get((variant, case), {})
        return {sample: image for sample, image in found.items() if Path(self.run.path, image).is_file()}

    def scores(self, variant: str, case: str, metric: str) -> Mapping[int, float]:
        return self._scores.get((variant, case, metric), {})


@dataclass(frozen=True)
class Pictures:
    """Prompts and images of the two runs of a gate; a run that is not there brings none."""

    candidate: _Side | None
    reference: _Side | None
    base: str | None

    def prompt(self, case: str) -> str:
        """The text of a prompt; empty where no run is there to ask."""
        side = self.candidate or self.reference
        cases = () if side is None else side.run.info.suite.cases
        return next((one.prompt for one in cases if one.id == case), "")

    def pair(self, verdict: Verdict, worst: WorstPrompt) -> tuple[str, str] | None:
        """Markdown of the candidate's and the reference's image of one sample; None where one of them is gone.

        The sample is the one with the largest loss by the verdict's metric, the first of equals.
        """
        if self.candidate is None or self.reference is None:
            return None
        ours = self.candidate.images(verdict.candidate, worst.case)
        theirs = self.reference.images(verdict.reference, worst.case)
        common = sorted(ours.keys() & theirs.keys())
        if not common:
            return None
        losses = _losses(self.candidate, self.reference, verdict, worst)
        sample = max(common, key=lambda number: (losses.get(number, float("-inf")), -number))
        return self._show(self.candidate, ours[sample]), self._show(self.reference, theirs[sample])

    def where(self) -> str:
        """A sentence on where the images are, or why there are none."""
        if self.candidate is None or self.reference is None:
            return "No pairs of images: they need both run folders, and a frozen baseline holds numbers only."
        if self.base is not None:
            return "The images are those of the sample with the largest loss."
        ours, theirs = (_text(side.run.path) for side in (self.candidate, self.reference))
        folders = f"the run folder {ours}" if ours == theirs else f"the run folders {ours} and {theirs}"
        return f"The images lie in {folders}; named is the sample with the largest loss."

    def _show(self, side: _Side, image: str) -> str:
        if self.base is None:
            return _text(image)
        # A bar would end the cell of the table, and the address that was given may hold one.
        address = f"{self.base.rstrip('/')}/{quote(side.name)}/{quote(image)}".replace("|", "%7C")
        return f'<img src="{html.escape(address)}" width="{SHOWN_WIDTH_PX}" alt="{quote(image)}">'


def pictures_for(candidate: Run | None, reference: Run | None, base: str | None) -> Pictures:
    """The images of two runs, checked against the address under which both folders are said to lie.

    Raises:
        UsageError: no http(s) address, or one name for two folders, which no single address can hold.
    """
    if base is not None and _ADDRESS.fullmatch(base) is None:
        raise UsageError(
            f"The address of the images {base!r} is no http:// or https:// address without spaces and quotes.",
            "Give the address under which both run folders lie by their names, or leave it out.",
        )
    ours, theirs = (None if run is None else _Side(run) for run in (candidate, reference))
    if base is not None and ours and theirs and _clash(ours, theirs):
        raise UsageError(
            f"Both run folders are called {ours.name!r}: one address cannot hold both.",
            "Rename one of the folders, or leave the address of the images out.",
        )
    return Pictures(ours, theirs, base)


def _clash(ours: _Side, theirs: _Side) -> bool:
    return ours.name == theirs.name and ours.run.info.id != theirs.run.info.id


def _losses(candidate: _Side, reference: _Side, verdict: Verdict, worst: WorstPrompt) -> Mapping[int, float]:
    """Loss by sample, where both have a score; the direction is that of the prompt's own loss."""
    sign = 1.0 if worst.reference >= worst.candidate else -1.0
    ours = candidate.scores(verdict.candidate, worst.case, verdict.name)
    theirs = reference.scores(verdict.reference, worst.case, verdict.name)
    return {sample: sign * (theirs[sample] - ours[sample]) for sample in ours.keys() & theirs.keys()}


def _text(text: str) -> str:
    return wording.markdown(wording.plain(text))
