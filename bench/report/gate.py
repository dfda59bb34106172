"""A gate as the reports show it: the outcome in words, what stands behind each verdict, and the worst prompts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from bench import formatting as text
from bench.baseline.pictures import SAMPLE, FrozenPictures, find_pictures, frozen_bytes
from bench.compare.pairing import ImageScores, usable_scores
from bench.errors import HotartError
from bench.gate.outcomes import WORDS, formatted, unexplained
from bench.plots.gate import within_run
from bench.records import Gate, Outcome, Render, Run, Verdict, WorstPrompt
from bench.report.pictures import Key, Picture, picture
from bench.score.images import ImageFileError, image_bytes
from bench.store import load_run

MEANINGS: Mapping[Outcome, str] = {
    "pass": "the whole interval stays within the margin",
    "inconclusive": "the interval holds the margin: more data would decide",
    "fail": "the whole interval lies beyond the margin",
    "invalid": "something that the verdict needs is missing",
}
"""What each outcome means, for the legend."""

SIDE_PX = 448
"""Longest side of an image of a pair; the grid has larger ones."""

MAX_BYTES = 12 * 2**20
"""Bytes of image data that the pairs of one report embed."""


def word(outcome: Outcome) -> str:
    """What an outcome is called where it stands alone."""
    return WORDS[outcome].capitalize()


def lead(gate: Gate) -> str:
    """The outcome of the whole gate in a sentence or two: how many of each, and which ones decide it."""
    strange = unexplained(gate)
    if strange is not None:
        return strange if not gate.verdicts else f"{strange} {tally(gate.verdicts)}"
    deciding = [f"{one.name} of {one.candidate}" for one in gate.verdicts if one.outcome == gate.outcome]
    named = text.joined(deciding if len(deciding) <= 4 else [*deciding[:3], f"{len(deciding) - 3} more"])
    shifted = " or shifted" if any(one.shift is not None for one in gate.verdicts) else ""
    says: Mapping[Outcome, str] = {
        "pass": f"No quantity lost{shifted} more than is allowed.",
        "fail": f"More was lost{shifted} than is allowed: {named}.",
        "inconclusive": f"The data do not decide whether too much was lost{shifted}: {named}.",
        "invalid": f"The gate gives no verdict, because this could not be checked: {named}.",
    }
    same = " Candidate and reference have the same weights." if all(one.equal_weights for one in gate.verdicts) else ""
    return f"{says[gate.outcome]} {tally(gate.verdicts)}{same}"


def tally(verdicts: Sequence[Verdict]) -> str:
    """How many verdicts there are of each outcome, in a sentence."""
    verbs = {"pass": ("passes", "pass"), "fail": ("fails", "fail")}
    parts = []
    for outcome in MEANINGS:
        count = sum(one.outcome == outcome for one in verdicts)
        one, many = verbs.get(outcome, (f"is {outcome}", f"are {outcome}"))
        if count:
            parts.append(f"{count} {one if count == 1 else many}")
    return f"Of {text.plural(len(verdicts), 'verdict')}, {text.joined(parts)}."


def against(gate: Gate) -> str:
    """What was compared with what, in a sentence."""
    if within_run(gate):
        pairs = dict.fromkeys(f"{one.candidate} with {one.reference}" for one in gate.verdicts)
        named = f": {text.joined(list(pairs))}" if pairs else ""
        return f"Two variants of this run were compared{named}."
    label = PurePath(gate.baseline.replace("\\", "/")).name or gate.baseline
    if gate.baseline_is_run:
        return f"{_whose(gate)} the run folder {label}, run {gate.baseline_id}."
    return f"{_whose(gate)} the frozen baseline {label}, made from run {gate.baseline_id}."


def _whose(gate: Gate) -> str:
    """``Compared: spo with spo of``; many pairs of one name are not listed."""
    pairs = list(dict.fromkeys((one.candidate, one.reference) for one in gate.verdicts))
    if not pairs:
        return "Compared with"
    if len(pairs) > 3 and all(one == other for one, other in pairs):
        return f"Compared: each of {len(pairs)} variants with the one of its name in"
    return f"Compared: {text.joined([f'{one} with {other}' for one, other in pairs])} of"


def method(verdicts: Sequence[Verdict]) -> str:
    """How to read the bars, with the level and the methods that the verdicts themselves name."""
    found = [one.interval for one in verdicts if one.interval is not None]
    methods = text.joined(list(dict.fromkeys(one.method for one in found)))
    levels = text.joined(list(dict.fromkeys(text.percent(one.level) for one in found)))
    shift = (
        " Of a metric that only describes it is how far it moved the way that its limit is on."
        if any(one.shift is not None for one in verdicts)
        else ""
    )
    how = f" Bars are {levels} intervals ({methods})." if found else ""
    return (
        "A loss is how much worse the candidate is; the margin is the largest loss that the suite allows."
        f"{shift} Units differ, so each loss is drawn as a share of its own margin.{how} Minimum detectable loss: "
        "the smallest true loss that 80 of 100 such gates would fail."
    )


def extras(verdict: Verdict) -> list[str]:
    """What stands beside a verdict: prompts and samples, the minimum detectable loss, what would decide it."""
    found = ["same weights on both sides"] if verdict.equal_weights else []
    found += [f"training overlap: {verdict.training_overlap}"] if verdict.training_overlap is not None else []
    found += [formatted(verdict).behind] if verdict.n else []
    found += [f"minimum detectable loss {formatted(verdict).detectable}"] if verdict.detectable is not None else []
    return found + ([f"about {needed(verdict)} would probably decide it"] if verdict.needed is not None else [])


def needed(verdict: Verdict) -> str:
    """``130 prompts``: what would probably decide an inconclusive verdict; a dash where it is not known."""
    if verdict.needed is None:
        return text.NONE
    return text.plural(verdict.needed, "prompt" if verdict.kind == "metric" else "round")


def change(verdicts: Sequence[Verdict]) -> str:
    """What the column of losses is called: of metrics that only describe it holds shifts."""
    return "loss or shift" if any(one.shift is not None for one in verdicts) else "loss"


def unit(verdict: Verdict) -> str:
    """The unit of a verdict's loss."""
    return verdict.unit if verdict.kind == "metric" else "loss in per cent of the median"


@dataclass(frozen=True)
class WorstPair:
    """A prompt on which the candidate lost, and the sample that lost most, as images of both sides."""

    worst: WorstPrompt
    prompt: str
    sample: int
    row: int | None
    """Number of the row in the report's grid that shows the same sample."""
    images: tuple[Picture | str, Picture | str]
    """The candidate's and the reference's, or why there is none; empty where the note of all pairs says it."""


def worst_pairs(
    run: Run, gate: Gate, rows: Mapping[tuple[str, int], int]
) -> tuple[str, tuple[tuple[Verdict, list[WorstPair]], ...]]:
    """For each metric that failed or is not decided, its worst prompts, failed ones first.

    Args:
        run: the candidate's run, with its images.
        gate: the last gate on it.
        rows: number of the grid's row by (prompt, sample).

    Returns:
        A sentence on why the reference has no images, or an empty one; and the pairs of each verdict.
    """
    chosen = [
        one
        for outcome in ("fail", "inconclusive")
        for one in gate.verdicts
        if one.outcome == outcome and one.kind == "metric" and one.worst
    ]
    if not chosen:
        return "", ()
    other, note = reference_run(run, gate)
    frozen = FrozenPictures({}, note) if gate.baseline_is_run else find_pictures(gate.baseline, gate.baseline_id)
    album, scores = _Album(), usable_scores(run)
    other_scores = {} if other is None else usable_scores(other)
    texts = {prompt.id: prompt.text for prompt in run.info.suite.prompts}
    found = []
    for verdict in chosen:
        ours = scores.get((verdict.candidate, verdict.name), {})
        theirs = other_scores.get((verdict.reference, verdict.name), {})
        pairs = []
        for worst in verdict.worst:
            sample = SAMPLE if frozen.files else _worst_sample(run, verdict, worst, ours, theirs)
            place = (worst.prompt_id, sample)
            there = (
                album.frozen(frozen, (verdict.reference, worst.prompt_id))
                if frozen.files
                else album.image(other, (verdict.reference, *place))
            )
            images = (album.image(run, (verdict.candidate, *place)), there)
            pairs.append(WorstPair(worst, texts.get(worst.prompt_id, ""), sample, rows.get(place), images))
        found.append((verdict, pairs))
    return frozen.note, tuple(found)


def _worst_sample(run: Run, verdict: Verdict, worst: WorstPrompt, ours: ImageScores, theirs: ImageScores) -> int:
    """The prompt's sample with the largest loss of its own; the first one where that is not known."""
    better = next((one.higher_is_better for one in run.info.metrics if one.name == verdict.name), None)
    rises = worst.candidate > worst.reference if verdict.shift is not None else better is False
    sign = -1 if rises else 1
    keys = [(worst.prompt_id, sample) for sample in range(run.info.suite.samples)]
    losses = {key[1]: sign * (theirs[key] - ours[key]) for key in keys if key in ours and key in theirs}
    return max(losses, key=lambda sample: losses[sample], default=0)


def worst_decimals(verdict: Verdict) -> int:
    """Decimals of the worst prompts' scores: three figures of the largest loss."""
    return text.decimals_for(max(abs(one.loss) for one in verdict.worst) / 10)


def reference_run(run: Run, gate: Gate) -> tuple[Run | None, str]:
    """The run with the reference's images, and a sentence why there is none; a frozen baseline is no run."""
    if within_run(gate):
        return run, ""
    if not gate.baseline_is_run:
        return None, ""
    try:
        found = load_run(gate.baseline)
    except HotartError:
        return None, "The candidate's images alone: the baseline's run folder is not there any more, or not readable."
    if found.info.id != gate.baseline_id:
        return None, "The candidate's images alone: the baseline's folder holds another run by now."
    return found, ""


class _Album:
    """Images of runs, each file read once, until the budget of bytes is used up."""

    def __init__(self) -> None:
        self.left = MAX_BYTES
        self.renders: dict[str, dict[Key, Render]] = {}
        self.read: dict[Path, Picture | str] = {}

    def image(self, run: Run | None, key: Key) -> Picture | str:
        """The image of a variant, prompt and sample, or the reason why it cannot be shown."""
        if run is None:
            return ""
        if run.path not in self.renders:
            self.renders[run.path] = {(one.variant, one.prompt_id, one.sample): one for one in run.renders}
        render = self.renders[run.path].get(key)
        if render is None or render.image is None:
            return "It is not rendered." if render is None else f"It could not be made: {render.error}"
        return self._shown(Path(run.path) / render.image, lambda: image_bytes(Path(run.path), render))

    def frozen(self, pictures: FrozenPictures, key: tuple[str, str]) -> Picture | str:
        """The picture of a variant and prompt that lies beside a baseline, or the reason why it cannot be shown."""
        if key not in pictures.files:
            return "The baseline keeps no picture of it."
        path, sha256 = pictures.files[key]
        return self._shown(path, lambda: frozen_bytes(path, sha256))

    def _shown(self, path: Path, read: Callable[[], bytes]) -> Picture | str:
        if path not in self.read:
            try:
                self.read[path] = picture(read(), SIDE_PX)
            except FileNotFoundError:
                self.read[path] = "The file is gone."
            except (OSError, ImageFileError) as error:
                self.read[path] = f"The file cannot be read: {error}."
        found = self.read[path]
        size = 0 if isinstance(found, str) else len(found.uri)
        if size > self.left:
            return "It is not embedded, to keep this page small."
        self.left -= size
        return found
