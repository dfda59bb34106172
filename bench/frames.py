"""The Python interface to a run folder: ``load_run`` gives a ``Run``, which the other functions here take.

Tables are pandas data frames. pandas is imported when a frame is made, so that ``import bench`` stays quick.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import msgspec

from bench import baseline, compare, documents, gate, records, store
from bench.comparability import check_names
from bench.compare import grid as compare_of_grid
from bench.compare import votes as compare_votes
from bench.compare.finding import find_in_run, find_in_runs
from bench.compare.votes import MARGIN
from bench.formatting import set_letters
from bench.records import (
    Baseline,
    Delta,
    Finding,
    GridDifference,
    MetricMean,
    Ranking,
    RateChange,
    RunInfo,
    SetDelta,
    TimingName,
    Verdict,
    VoteResults,
)
from bench.store import grid as store_grid
from bench.store.grid import GridRuns

if TYPE_CHECKING:
    import pandas as pd

R = TypeVar("R", bound=records.Record, covariant=True)
V = TypeVar("V", records.StepScore, records.FoundFaces)


class Run:
    """A run folder as it was read: tidy tables, and what the functions of ``bench`` take.

    ``variant``, ``metric`` and ``name`` are ordered categories, in the order of the suite.
    """

    def __init__(self, record: records.Run) -> None:
        self.record = record
        """The same as typed records."""

    def __repr__(self) -> str:
        return f"<Run {self.path}: {len(self.record.renders)} images, {len(self.record.scores)} scores>"

    @property
    def path(self) -> str:
        """The folder, as it was given."""
        return self.record.path

    @property
    def info(self) -> RunInfo:
        """``run.json``: suite, settings, metrics, machine, packages."""
        return self.record.info

    @cached_property
    def steps(self) -> pd.DataFrame:
        """One row a step score: the fields of ``StepScore``; empty where no step was scored."""
        scores = self._of_suite(store.load_steps(self.path))
        dtypes = {
            "variant": self._variants,
            "prompt_id": "string",
            "sample": "int64",
            "step": "int64",
            "timestep": "float64",
            "sigma": "float64",
            "metric": _ordered([], (score.metric for score in scores)),
            "version": "string",
            "image_sha256": "string",
            "value": "float64",
            "reason": "string",
            "prompt_cut": "bool",
            "metric_dtype": "string",
        }
        return _frame(map(msgspec.structs.astuple, scores), dtypes)

    @cached_property
    def sets(self) -> pd.DataFrame:
        """One row a number of a set metric: the fields of ``SetScore`` but ``without`` and ``interval``.

        ``prompt_id`` and ``tag`` are both missing where the set is of all prompts; ``value`` is NaN where there is a
        ``reason``.
        """
        metrics = [facts.name for facts in self.info.metrics if facts.over != "image"]
        dtypes = {
            "variant": self._variants,
            "prompt_id": "string",
            "tag": "string",
            "metric": _ordered(metrics, (score.metric for score in self.record.set_scores)),
            "prompts": "int64",
            "images": "int64",
            "value": "float64",
            "scale": "float64",
            "p": "float64",
            "reason": "string",
        }
        dtypes |= dict.fromkeys(("version", "metric_dtype", "images_sha256"), "string")
        return _frame(([getattr(one, name) for name in dtypes] for one in self.record.set_scores), dtypes)

    @cached_property
    def faces(self) -> pd.DataFrame:
        """One row an image that was searched for faces; empty where none was.

        ``least`` and ``most`` are how many the prompt asks for, ``count`` how many were found, missing where there is a
        ``reason``; ``faces`` is a tuple of ``Face`` records, the largest first.
        """
        dtypes = {
            "variant": self._variants,
            "prompt_id": "string",
            "sample": "int64",
            "least": "int64",
            "most": "Int64",
            "count": "Int64",
            "faces": "object",
            "reason": "string",
            "detector": "string",
            "image_sha256": "string",
        }
        rows = []
        for one in self._of_suite(store.load_faces(self.path)):
            count = len(one.faces) if one.reason is None else None
            asked = {"least": one.asked.least, "most": one.asked.most}
            known = {**msgspec.structs.asdict(one), **asked, "count": count}
            rows.append([known[name] for name in dtypes])
        return _frame(rows, dtypes)

    @cached_property
    def answers(self) -> pd.DataFrame:
        """One row an answer of a judge: ``probability`` is that of the expected ``answer``; empty where none was asked.

        An answer belongs to an image by its ``image_sha256``, as in ``renders.sha256``; ``choices`` is a tuple.
        """
        dtypes = {
            "judge": "string",
            "identity": "string",
            "image_sha256": "string",
            "question": "string",
            "answer": "string",
            "choices": "object",
            "skill": "string",
            "probability": "float64",
        }
        rows = (
            (one.judge, one.identity, one.image_sha256, *msgspec.structs.astuple(one.question), one.probability)
            for one in store.load_answers(self.path)
        )
        return _frame(rows, dtypes)

    @cached_property
    def votes(self) -> pd.DataFrame:
        """One row a vote, controls among them (``kind``): the fields of ``Vote``; empty where nobody voted."""
        dtypes = dict.fromkeys(records.Vote.__struct_fields__, "string") | {
            "left": self._variants,
            "right": self._variants,
            "sample": "int64",
            "seconds": "float64",
            "why": "object",
            "edited": "bool",
        }
        return _frame(([getattr(one, name) for name in dtypes] for one in self.record.votes), dtypes)

    @cached_property
    def renders(self) -> pd.DataFrame:
        """One row an image: the fields of ``Render``; ``image``, its hashes and ``error`` may be missing."""
        dtypes = {
            "variant": self._variants,
            "prompt_id": "string",
            "sample": "int64",
            "seed": _whole(render.seed for render in self.record.renders),
            "batch": _whole(render.batch for render in self.record.renders),
            "decode_dtype": "string",
            "image": "string",
            "sha256": "string",
            "error": "string",
            "pixels_sha256": "string",
        }
        return _frame(map(msgspec.structs.astuple, self.record.renders), dtypes)

    @cached_property
    def scores(self) -> pd.DataFrame:
        """One row a score: variant, prompt_id, prompt, tags, seed, sample, metric, value, then the rest of ``Score``.

        ``value`` is float64, NaN where there is a ``reason``; ``tags`` is a tuple; ``seed`` is missing where the
        image was not rendered here.
        """
        prompts = {prompt.id: prompt for prompt in self.info.suite.prompts}
        seeds = {(one.variant, one.prompt_id, one.sample): one.seed for one in self.record.renders}
        found = [seeds.get((one.variant, one.prompt_id, one.sample)) for one in self.record.scores]
        metrics = [facts.name for facts in self.info.metrics if facts.over == "image"]
        dtypes = {
            "variant": self._variants,
            "prompt_id": "string",
            "prompt": "string",
            "tags": "object",
            "seed": _whole(found),
            "sample": "int64",
            "metric": _ordered(metrics, (score.metric for score in self.record.scores)),
            "value": "float64",
            "reason": "string",
            "prompt_cut": "bool",
        }
        dtypes |= {name: "string" for name in records.Score.__struct_fields__ if name not in dtypes}
        rows = []
        for score, seed in zip(self.record.scores, found, strict=True):
            prompt = prompts.get(score.prompt_id)
            known = {
                **msgspec.structs.asdict(score),
                "prompt": None if prompt is None else prompt.text,
                "tags": () if prompt is None else prompt.tags,
                "seed": seed,
            }
            rows.append([known[name] for name in dtypes])
        return _frame(rows, dtypes)

    @cached_property
    def timings(self) -> pd.DataFrame:
        """One row a value: variant, name, unit, round, process, warmup (bool), index (from 0), value."""
        dtypes = {
            "variant": self._variants,
            "name": _ordered(get_args(TimingName), ()),
            "unit": "string",
            "round": "int64",
            "process": "int64",
            "warmup": "bool",
            "index": "int64",
            "value": "float64",
        }
        rows = (
            (timing.variant, timing.name, timing.unit, timing.round, timing.process, warmup, index, value)
            for timing in self.record.timings
            for warmup, values in ((True, timing.warmups), (False, timing.values))
            for index, value in enumerate(values)
        )
        return _frame(rows, dtypes)

    def scores_wide(self) -> pd.DataFrame:
        """One row an image (variant, prompt_id, sample, tags, image, error), then one float64 column a metric.

        Images in the order of ``renders``, metrics in the run's order; NaN where there is no score.
        """
        import pandas as pd

        keys = ["variant", "prompt_id", "sample"]
        values = self.scores.pivot(index=keys, columns="metric", values="value")
        values = values.reindex(columns=list(self.scores["metric"].cat.categories)).rename_axis(columns=None)
        images = self.renders[[*keys, "image", "error"]].copy()
        tags = {prompt.id: prompt.tags for prompt in self.info.suite.prompts}
        images.insert(3, "tags", pd.Series([tags.get(one, ()) for one in images["prompt_id"]], images.index, object))
        return images.join(values, on=keys)

    def _of_suite(self, found: Iterable[V]) -> list[V]:
        """Without records of variants that the suite no longer has, which ``store.load_run`` leaves out as well."""
        names = {one.name for one in self.info.suite.variants}
        return [one for one in found if one.variant in names]

    @property
    def _variants(self) -> pd.CategoricalDtype:
        written = [one.variant for one in self.record.renders]
        written += [one.variant for one in self.record.scores]
        written += [one.variant for one in self.record.timings]
        return _ordered([one.name for one in self.info.suite.variants], written)


class Records(tuple[R, ...]):
    """Typed records, which are also a table."""

    def to_frame(self) -> pd.DataFrame:
        """One row a record, of rankings one a variant, of findings one a metric.

        An interval is two columns, ``..._low`` and ``..._high``."""
        import pandas as pd

        return pd.DataFrame([row for record in self for row in _rows(record)])


class GridDifferences(Records[GridDifference]):
    """The differences of a grid, one a metric and pair of variants."""

    def to_frame(self) -> pd.DataFrame:
        """One row a setting: the pair, a column an axis, the means, the interval, and whether the order holds."""
        import pandas as pd

        rows = []
        for one in self:
            for cell in one.cells:
                (row,) = _rows(cell)
                del row["setting"]
                rows.append({**_of_pair(one), **cell.setting, **row, "winner": one.winner, "prompts": one.prompts})
        return pd.DataFrame(rows)

    def axes_frame(self) -> pd.DataFrame:
        """One row a value of an axis: its mean difference, the change from the axis' base, and the axis' p-values."""
        import pandas as pd

        rows = []
        for one in self:
            for effect in one.axes:
                of_axis = {"axis": effect.axis, "base": effect.base}
                tests = {"sd": effect.sd, "p": effect.p, "p_holm": effect.p_holm}
                rows += [
                    {**_of_pair(one), **of_axis, **row, **tests} for level in effect.levels for row in _rows(level)
                ]
        return pd.DataFrame(rows)


def _of_pair(one: GridDifference) -> dict[str, Any]:
    return {"metric": one.metric, "candidate": one.candidate, "reference": one.reference}


class Grid:
    """A grid's folder as it was read: the runs of its settings."""

    def __init__(self, found: GridRuns) -> None:
        self.record = found
        """The same as typed records."""

    def __repr__(self) -> str:
        return f"<Grid {self.path}: {len(self.record.runs)} settings>"

    @property
    def path(self) -> str:
        """The folder, as it was given."""
        return self.record.path

    @cached_property
    def scores(self) -> pd.DataFrame:
        """``Run.scores`` of all runs, after a column of each axis."""
        import pandas as pd

        frames = []
        for member, run in zip(self.record.grid.members, self.record.runs, strict=True):
            if run is not None:
                frame = Run(run).scores
                for place, (axis, value) in enumerate(member.setting.items()):
                    frame.insert(place, "suite_seed" if axis == "seed" else axis, value)
                frames.append(frame)
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


class Verdicts(Records[Verdict]):
    """The verdicts of a gate."""

    gate: records.Gate
    """The outcome of the whole, its notes, and what was compared."""


def load_run(path: str | Path) -> Run:
    """The run folder at ``path``.

    Raises:
        HotartError: what ``bench.store.load_run`` refuses: no run folder, a damaged one, another schema.
    """
    return Run(store.load_run(path))


def load_grid(path: str | Path) -> Grid:
    """The grid's folder at ``path``, with its runs.

    Raises:
        HotartError: what ``bench.store.grid.load_grid`` refuses.
    """
    return Grid(store_grid.load_grid(path))


def compare_grid(
    grid: Grid, *, pairs: compare.Pairs | None = None, metrics: Sequence[str] | None = None, level: float = 0.95
) -> GridDifferences:
    """The difference under each setting: ``bench.compare.grid.compare_grid``, which says the arguments."""
    return GridDifferences(compare_of_grid.compare_grid(grid.record, pairs=pairs, metrics=metrics, level=level))


def metric_means(run: Run, *, level: float = 0.95) -> Records[MetricMean]:
    """Each variant's mean of each metric, with its interval over prompts: ``bench.compare.metric_means``."""
    return Records(compare.metric_means(run.record, level=level))


def compare_run(
    run: Run,
    *,
    pairs: compare.Pairs | None = None,
    metrics: Sequence[str] | None = None,
    tags: bool = True,
    level: float = 0.95,
) -> Records[Delta]:
    """Paired differences between variants of one run: ``bench.compare.compare_run``, which says the arguments."""
    return Records(compare.compare_run(run.record, pairs=pairs, metrics=metrics, tags=tags, level=level))


def compare_runs(
    candidate: Run,
    reference: Run,
    *,
    pairs: compare.Pairs | None = None,
    metrics: Sequence[str] | None = None,
    tags: bool = True,
    level: float = 0.95,
) -> Records[Delta]:
    """Paired differences between two runs of one protocol: ``bench.compare.compare_runs``, which says the arguments."""
    both = candidate.record, reference.record
    return Records(compare.compare_runs(*both, pairs=pairs, metrics=metrics, tags=tags, level=level))


def rate_changes(run: Run, *, pairs: compare.Pairs | None = None, level: float = 0.95) -> Records[RateChange]:
    """Changes of the share of flagged images: ``bench.compare.rates.rate_changes``; pairs as of ``compare_run``."""
    wanted = compare.variant_pairs(run.info.suite) if pairs is None else pairs
    return Records(compare.rate_changes(run.record, wanted, level=level))


def vote_results(run: Run, *, pairs: compare.Pairs | None = None, margin: float = MARGIN) -> VoteResults | None:
    """What people's votes say, None where nobody voted: ``bench.compare.votes.vote_results``.

    ``pairs`` None means all that were voted on; ``margin`` is the half width, as a share, that ``needed`` is about.
    """
    return compare_votes.vote_results(run.record, pairs, margin=margin)


def compare_sets(
    run: Run, *, pairs: compare.Pairs | None = None, metrics: Sequence[str] | None = None, level: float = 0.95
) -> Records[SetDelta]:
    """What set metrics over tags, and distances, say of variants of one run: ``bench.compare.compare_sets``.

    ``pairs`` None means each variant with the first, and spo with dpo.
    """
    wanted = compare.variant_pairs(run.info.suite) if pairs is None else pairs
    return Records(compare.compare_sets(run.record, wanted, metrics=metrics, level=level))


def findings(candidate: Run, reference: Run | None = None, *, pairs: compare.Pairs | None = None) -> Records[Finding]:
    """Whether each gain is earned, bought, mixed with a price, or not shown: ``bench.compare.finding.find``.

    Args:
        candidate: a run, or the run of the candidates.
        reference: the run that it is compared with; None compares variants of one run.
        pairs: (candidate, reference) variants; None means each with the first and spo with dpo, or those of like name.

    Raises:
        UsageError: an unknown variant.
        IncomparableError: another protocol, or nothing in common.
    """
    ours = candidate.record
    if reference is None:
        known = [variant.name for variant in ours.info.suite.variants]
        check_names([name for pair in pairs or () for name in pair], known, "The run has no variant")
        return Records(find_in_run(ours, compare.variant_pairs(ours.info.suite) if pairs is None else pairs))
    names = [[variant.name for variant in run.info.suite.variants] for run in (ours, reference.record)]
    for place, known in enumerate(names):
        check_names([pair[place] for pair in pairs or ()], known, "The run has no variant")
    like_named = [(name, name) for name in names[0] if name in names[1]]
    return Records(find_in_runs(ours, reference.record, like_named if pairs is None else pairs))


def rank_variants(run: Run, *, metrics: Sequence[str] | None = None, level: float = 0.95) -> Records[Ranking]:
    """Three or more variants ranked by each metric: ``bench.compare.rank_variants``, which says the arguments."""
    return Records(compare.rank_variants(run.record, metrics=metrics, level=level))


def freeze(run: Run, *, variants: Sequence[str] | None = None) -> Baseline:
    """A run frozen to what ``check_limits`` needs: ``bench.baseline.freeze``. Nothing is written."""
    return baseline.freeze(run.record, variants=variants)


def check_limits(
    candidate: Run,
    reference: Run | Baseline,
    *,
    pairs: compare.Pairs | None = None,
    quality_only: bool = False,
) -> Verdicts:
    """Whether a run lost more than its reference's limits allow: ``bench.gate.check_limits``, as ``hotart-bench gate``.

    Args:
        candidate: the run that is checked.
        reference: another run, a baseline from ``freeze`` or ``read_baseline``, or, with ``pairs``, the same run.
        pairs: (candidate, reference) variants; None means those of like name.
        quality_only: leave timed quantities out, so that different machines can be compared.

    Raises:
        UsageError: no limit, an unknown variant, or a variant as its own reference.
        IncomparableError: another protocol, another version of a metric, or timings of different machines.
    """
    ours, notes = baseline.freeze_to_check(candidate.record)
    theirs, more = baseline.freeze_to_check(reference.record) if isinstance(reference, Run) else (reference, ())
    found = gate.check_limits(
        ours,
        theirs,
        gate.like_named(ours, theirs) if pairs is None else pairs,
        run=candidate.path,
        baseline=reference.path if isinstance(reference, Run) else f"the baseline of {theirs.run_id}",
        baseline_is_run=isinstance(reference, Run),
        time=documents.utc_now(),
        quality_only=quality_only,
        prompts=candidate.info.suite.prompts,
        notes=dict.fromkeys((*notes, *more)),
    )
    verdicts = Verdicts(found.verdicts)
    verdicts.gate = found
    return verdicts


def _rows(record: records.Record) -> Iterable[dict[str, Any]]:
    """The rows of a record, its intervals and limits as plain columns."""
    if isinstance(record, Ranking):
        for strength in record.strengths:
            (found,) = _rows(strength)
            sets = set_letters(strength.variant, record.tied_sets)
            yield {"metric": record.metric, **found, "tied_sets": sets, "prompts": record.prompts}
        return
    if isinstance(record, Finding):
        for metric in record.metrics:
            (found,) = _rows(metric)
            spreads = {"prompt_spreads": metric.prompt_spreads, "sample_spreads": metric.sample_spreads}
            yield {
                "candidate": record.candidate,
                "reference": record.reference,
                "word": record.word,
                **found,
                **spreads,
            }
        return
    row: dict[str, Any] = {}
    for name, value in msgspec.structs.asdict(record).items():
        if name.endswith(("interval", "small_sample")):
            row[f"{name}_low"], row[f"{name}_high"] = (value.low, value.high) if value else (None, None)
        elif isinstance(value, records.Limit):
            row[name] = value.text
        elif name != "worst":
            row[name] = value
    yield row


def _ordered(known: Sequence[str], written: Iterable[str]) -> pd.CategoricalDtype:
    """Categories in the order of ``known``, then what an older state of the run folder left besides."""
    import pandas as pd

    return pd.CategoricalDtype(list(dict.fromkeys((*known, *written))), ordered=True)


def _whole(values: Iterable[int | None]) -> str:
    """The dtype of whole numbers; pandas' own one where some are unknown, as of external images."""
    return "Int64" if None in values else "int64"


def _frame(rows: Iterable[Sequence[Any]], dtypes: Mapping[str, Any]) -> pd.DataFrame:
    import pandas as pd

    columns = list(zip(*rows, strict=True)) or [()] * len(dtypes)
    pairs = zip(dtypes.items(), columns, strict=True)
    return pd.DataFrame({name: pd.Series(list(values), dtype=dtype) for (name, dtype), values in pairs})
