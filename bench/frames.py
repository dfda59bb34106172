"""A run folder as pandas data frames, for notebooks: ``bench.load_run``.

pandas is imported when a frame is made, so that ``import bench`` stays quick.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from msgspec import structs

from bench import store
from bench.records import Run, RunInfo, TimingName

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class RunFrames:
    """A run's journals as tidy tables; ``variant``, ``metric`` and ``name`` are ordered categories."""

    info: RunInfo
    renders: pd.DataFrame
    """One row an image: the fields of ``Render``; ``image``, ``sha256`` and ``error`` may be missing."""
    scores: pd.DataFrame
    """One row a score: the fields of ``Score``; ``value`` is float64, NaN where there is a ``reason``."""
    timings: pd.DataFrame
    """One row a value: variant, name, unit, round, process, warmup (bool), index (from 0), value."""


def load_run(path: str | Path) -> RunFrames:
    """The run folder at ``path`` as data frames.

    Raises:
        HotartError: what ``bench.store.load_run`` refuses: no run folder, a damaged one, a newer schema.
    """
    return run_frames(store.load_run(path))


def run_frames(run: Run) -> RunFrames:
    """The same frames from a ``Run`` that is already in memory."""
    return RunFrames(info=run.info, renders=_renders(run), scores=_scores(run), timings=_timings(run))


def scores_wide(frames: RunFrames) -> pd.DataFrame:
    """One row an image (variant, prompt, sample, tags, image, error), then one float64 column a metric.

    Images in the order of ``frames.renders``, metrics in the run's order; NaN where there is no score.
    """
    import pandas as pd

    keys = ["variant", "prompt_id", "sample"]
    values = frames.scores.pivot(index=keys, columns="metric", values="value")
    values = values.reindex(columns=list(frames.scores["metric"].cat.categories)).rename_axis(columns=None)
    images = frames.renders[[*keys, "image", "error"]].copy()
    tags = {prompt.id: prompt.tags for prompt in frames.info.suite.prompts}
    images.insert(3, "tags", pd.Series([tags.get(prompt, ()) for prompt in images["prompt_id"]], images.index, object))
    return images.join(values, on=keys)


def _renders(run: Run) -> pd.DataFrame:
    dtypes = {
        "variant": _variants(run),
        "prompt_id": "string",
        "sample": "int64",
        "seed": _whole(render.seed for render in run.renders),
        "batch": _whole(render.batch for render in run.renders),
        "decode_dtype": "string",
        "image": "string",
        "sha256": "string",
        "error": "string",
    }
    return _frame(map(structs.astuple, run.renders), dtypes)


def _scores(run: Run) -> pd.DataFrame:
    dtypes = {
        "variant": _variants(run),
        "prompt_id": "string",
        "sample": "int64",
        "metric": _ordered([facts.name for facts in run.info.metrics], (score.metric for score in run.scores)),
        "version": "string",
        "image_sha256": "string",
        "value": "float64",
        "reason": "string",
        "reference_sha256": "string",
        "prompt_cut": "bool",
        "metric_dtype": "string",
    }
    return _frame(map(structs.astuple, run.scores), dtypes)


def _timings(run: Run) -> pd.DataFrame:
    dtypes = {
        "variant": _variants(run),
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
        for timing in run.timings
        for warmup, values in ((True, timing.warmups), (False, timing.values))
        for index, value in enumerate(values)
    )
    return _frame(rows, dtypes)


def _variants(run: Run) -> pd.CategoricalDtype:
    written = {record.variant: None for record in run.renders}
    written.update((record.variant, None) for record in run.scores)
    written.update((record.variant, None) for record in run.timings)
    return _ordered([variant.name for variant in run.info.suite.variants], written)


def _ordered(known: Sequence[str], written: Iterable[str]) -> pd.CategoricalDtype:
    """Categories in the order of ``known``, then what an older state of the run folder left besides."""
    import pandas as pd

    return pd.CategoricalDtype(list(dict.fromkeys((*known, *written))), ordered=True)


def _whole(values: Iterable[int | None]) -> str:
    """The dtype of whole numbers; pandas' own one where some are unknown, as of given images."""
    return "Int64" if None in values else "int64"


def _frame(rows: Iterable[Sequence[Any]], dtypes: Mapping[str, Any]) -> pd.DataFrame:
    import pandas as pd

    columns = list(zip(*rows, strict=True)) or [()] * len(dtypes)
    pairs = zip(dtypes.items(), columns, strict=True)
    return pd.DataFrame({name: pd.Series(list(values), dtype=dtype) for (name, dtype), values in pairs})
