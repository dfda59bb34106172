"""A grid of believable runs made of numbers, as ``fakes`` makes one run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
from fakes import make_run, with_suite, write_run
from msgspec.structs import replace

from bench.records import Grid, GridValue, Prompt, Run
from bench.store.grid import GridRuns
from bench.suite.grid import make_grid, member_suite, read_axis

Setting = Mapping[str, GridValue]
Effect = Callable[[Setting], Mapping[str, Mapping[str, float]]]
AXES = {"guidance_scale": ("3", "7.5"), "sampler": ("ddim", "dpmpp_2m")}


def make_grid_runs(
    path: Path,
    effect: Effect = lambda setting: {},
    axes: Mapping[str, Sequence[str]] = AXES,
    prompts: Sequence[Prompt] | int = 12,
    samples: int = 1,
) -> GridRuns:
    """A grid whose scores have ``effect(setting)[variant][metric]`` added; noise of its own in each run."""
    count = prompts if isinstance(prompts, int) else len(prompts)
    plain = make_run(path, prompts=count, samples=samples)
    suite = plain.info.suite if isinstance(prompts, int) else replace(plain.info.suite, prompts=tuple(prompts))
    grid = make_grid(suite, [read_axis(name, texts) for name, texts in axes.items()])
    runs = []
    for number, member in enumerate(grid.members):
        run = make_run(path / member.folder, prompts=count, samples=samples, effect=effect(member.setting), seed=number)
        runs.append(with_suite(run, **fields_of(grid, member.setting)))
    return GridRuns(str(path), grid, tuple(runs))


def fields_of(grid: Grid, setting: Setting) -> dict[str, object]:
    """What of the suite of a setting is another than in a fake run."""
    suite = member_suite(grid.suite, setting)
    return {name: getattr(suite, name) for name in suite.__struct_fields__}


def write_grid(found: GridRuns, folder: Path) -> Path:
    """The grid as a folder; a run that is None is not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "grid.json").write_bytes(msgspec.json.encode(found.grid))
    for member, run in zip(found.grid.members, found.runs, strict=True):
        if run is not None:
            write_run(replace(run, timings=()), folder / member.folder)
    return folder


def score_of(run: Run, variant: str, metric: str, prompt_id: str) -> list[float]:
    """The scores of a prompt's images."""
    chosen = (variant, metric, prompt_id)
    return [s.value for s in run.scores if (s.variant, s.metric, s.prompt_id) == chosen and s.value is not None]
