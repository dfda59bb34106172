"""The prompts that lost most, as pairs of images: the candidate's of this run, the reference's where they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import wording as text
from bench.compare.pairing import Cells, usable_scores
from bench.errors import HotartError
from bench.plots.losses import pair_title, within_run, word
from bench.records import Gate, Outcome, Render, Run, Verdict, WorstPrompt
from bench.report.grid import LONG_PROMPT
from bench.report.images import Key, picture
from bench.store import load_run

SIDE_PX = 448
"""Longest side of an image of a pair; the grid has larger ones."""
MAX_BYTES = 12 * 2**20
"""Bytes of image data that the pairs of one report embed."""


@dataclass(frozen=True)
class Shot:
    """An image of a pair, or why there is none."""

    variant: str
    score: str
    uri: str
    width: int
    height: int
    reason: str


@dataclass(frozen=True)
class WorstPair:
    """One prompt on which the candidate lost: its texts, its scores, its images."""

    place: int
    case: str
    sample: int
    prompt: str
    long: bool
    loss: str
    row: int | None
    """Number of the row in the report's grid that shows the same sample."""
    shots: tuple[Shot, ...]


@dataclass(frozen=True)
class WorstGroup:
    """The worst prompts of one metric and pair."""

    metric: str
    pair: str
    outcome: Outcome
    word: str
    note: str
    pairs: tuple[WorstPair, ...]


@dataclass(frozen=True)
class _Side:
    """One run's images and scores, by place."""

    folder: Path
    renders: Mapping[Key, Render]
    cells: Mapping[tuple[str, str], Cells]


@dataclass
class _Album:
    """Both runs, their images by file, each read once, and the bytes that are left to embed."""

    ours: _Side
    theirs: _Side | None
    left: int
    read: dict[Path, tuple[str, int, int, str]] = field(default_factory=dict)

    def shot(self, side: _Side, key: Key, score: str) -> Shot:
        """The image of a cell with its score, or the reason why it cannot be shown."""
        render = side.renders.get(key)
        if render is None or render.image is None:
            why = "It is not rendered." if render is None else f"It could not be made: {render.error}"
            return Shot(key[0], score, "", 0, 0, why)
        path = side.folder / render.image
        if path not in self.read:
            self.read[path] = _read(path)
        uri, width, height, why = self.read[path]
        if len(uri) > self.left:
            return Shot(key[0], score, "", 0, 0, "It is not embedded, to keep this page small.")
        self.left -= len(uri)
        return Shot(key[0], score, uri, width, height, why)


def _side(run: Run) -> _Side:
    renders = {(one.variant, one.case, one.sample): one for one in run.renders}
    return _Side(Path(run.path), renders, usable_scores(run))


def _read(path: Path) -> tuple[str, int, int, str]:
    try:
        found = picture(path, SIDE_PX)
    except (OSError, SyntaxError) as error:  # Pillow reports a broken PNG chunk as a SyntaxError
        return "", 0, 0, f"The file cannot be read: {type(error).__name__}."
    return found.uri, found.width_px, found.height_px, ""


def worst_groups(run: Run, gate: Gate, rows: Mapping[tuple[str, int], int]) -> tuple[WorstGroup, ...]:
    """For each metric that failed or is not decided, its worst prompts, failed ones first.

    Args:
        run: the candidate's run, with its images.
        gate: what was judged of it.
        rows: number of the grid's row by (case, sample).
    """
    shown = [
        one
        for outcome in ("fail", "inconclusive")
        for one in gate.verdicts
        if one.outcome == outcome and one.kind == "metric" and one.worst
    ]
    if not shown:
        return ()
    other, note = reference_run(run, gate)
    album = _Album(_side(run), None if other is None else _side(other), MAX_BYTES)
    return tuple(
        WorstGroup(
            metric=verdict.name,
            pair=pair_title(gate, verdict.candidate, verdict.reference),
            outcome=verdict.outcome,
            word=word(verdict.outcome),
            note=note,
            pairs=tuple(_pair(run, verdict, place, rows, album) for place in range(len(verdict.worst))),
        )
        for verdict in shown
    )


def reference_run(run: Run, gate: Gate) -> tuple[Run | None, str]:
    """The run with the reference's images, and a sentence why there is none."""
    if within_run(gate):
        return run, ""
    if not gate.baseline_is_run:
        return None, "The candidate's images alone: a frozen baseline keeps scores, no images."
    try:
        found = load_run(gate.baseline)
    except HotartError:
        return None, "The candidate's images alone: the baseline's run folder is not there any more, or not readable."
    if found.info.id != gate.baseline_id:
        return None, "The candidate's images alone: the baseline's folder holds another run by now."
    return found, ""


def _pair(run: Run, verdict: Verdict, place: int, rows: Mapping[tuple[str, int], int], album: _Album) -> WorstPair:
    one, decimals = verdict.worst[place], _decimals(verdict.worst)
    sample = _sample(run, verdict, one.case, album)
    ours, theirs = (text.number(value, decimals) for value in (one.candidate, one.reference))
    shots = [album.shot(album.ours, (verdict.candidate, one.case, sample), ours)]
    if album.theirs is None:
        shots.append(Shot(verdict.reference, theirs, "", 0, 0, ""))
    else:
        shots.append(album.shot(album.theirs, (verdict.reference, one.case, sample), theirs))
    prompt = next((case.prompt for case in run.info.suite.cases if case.id == one.case), "")
    return WorstPair(
        place=place + 1,
        case=one.case,
        sample=sample,
        prompt=prompt,
        long=len(prompt) > LONG_PROMPT or prompt.count("\n") > 4,
        loss=text.signed(one.loss, decimals),
        row=rows.get((one.case, sample)),
        shots=tuple(shots),
    )


def _sample(run: Run, verdict: Verdict, case: str, album: _Album) -> int:
    """The prompt's sample with the largest loss of its own; the first one where that is not known."""
    ours = album.ours.cells.get((verdict.candidate, verdict.name), {})
    theirs = {} if album.theirs is None else album.theirs.cells.get((verdict.reference, verdict.name), {})
    better = next((one.higher_is_better for one in run.info.metrics if one.name == verdict.name), None)
    sign = -1 if better is False else 1
    losses = {
        sample: sign * (theirs[case, sample] - ours[case, sample])
        for sample in range(run.info.suite.samples)
        if (case, sample) in ours and (case, sample) in theirs
    }
    return max(losses, key=lambda sample: losses[sample], default=0)


def _decimals(worst: Sequence[WorstPrompt]) -> int:
    """Three figures of the largest loss."""
    return text.decimals_for(max(abs(one.loss) for one in worst) / 10)
