"""What a verb works on: a suite by name or file with its default folder, or a run folder with its own suite.

A run folder is a path of this machine, or the URL of one on an object store.
"""

from __future__ import annotations

from pathlib import Path

from bench.documents import exists
from bench.errors import SuiteError, UsageError
from bench.formatting import argument, did_you_mean
from bench.metrics import all_metrics, facts_for
from bench.questions.registry import registry_of_suite, training_for_suite
from bench.records import Suite
from bench.store import read_info
from bench.store.grid import is_grid, read_grid
from bench.store.object_store import is_run_at, run_url, working_folder
from bench.store.objects import is_url
from bench.store.reading import RUNS, folder_of
from bench.suite import list_suites, load_suite
from bench.suite.limits import check_metric_limit
from bench.trained_on import check_suite


def as_place(text: str) -> Path | str:
    """What a flag or argument names: a path, or a URL as it was given."""
    return text if is_url(text) else Path(text)


def at_hand(place: str | Path) -> Path:
    """The run folder as a path of this machine; of a run on an object store, a copy that is brought here just now."""
    return folder_of(place) if is_url(place) else Path(place)


def disk_for(place: str | Path) -> Path:
    """The folder of this machine that fills up while a run is made at a path or URL."""
    return working_folder(run_url(str(place)), "run") if is_url(place) else Path(place)


def default_folder(suite: Suite) -> Path:
    """Where a suite's run lies unless -o says otherwise; a limited suite is another suite, so elsewhere."""
    return RUNS / (suite.name if suite.limit is None else f"{suite.name}-limit-{suite.limit}")


def find_target(
    run_or_suite: str, output: str | None, limit: int | None, *, begun: bool = False
) -> tuple[Suite, str | Path]:
    """The suite and the run folder that a single stage works on.

    A run folder brings the suite it was made with; a suite brings its default folder. A shipped suite's
    name is never taken for a folder; ``./mini`` is one.

    Args:
        run_or_suite: path or URL of a run, name or file of a suite.
        output: the run folder, where a suite is named.
        limit: how many prompts of the suite, likewise.
        begun: whether the stage needs a run that was begun before.

    Raises:
        UsageError: it is neither; a flag does not go with it; a run is needed, and lies only in a folder that is called
            like a shipped suite.
    """
    if not names_run(run_or_suite):
        if is_url(run_or_suite):
            raise UsageError(f"{run_or_suite}: there is no run here, and a suite is a file of this machine.")
        shipped = list_suites()
        if run_or_suite not in shipped and not run_or_suite.endswith(".toml") and not exists(Path(run_or_suite)):
            near = did_you_mean(run_or_suite, shipped)
            raise UsageError(
                f"{run_or_suite!r} is neither a run folder, nor a shipped suite ({', '.join(shipped)}){near}, nor a "
                ".toml file.",
                "hotart-bench list suites",
            )
        suite = read_suite(run_or_suite, limit)
        place = as_place(output) if output else default_folder(suite)
        if begun:
            _refuse_namesake(run_or_suite, place)
        return suite, place
    for flag, value in (("-o", output), ("--limit", limit)):
        if value is not None:
            raise UsageError(
                f"{flag} goes with a suite; {run_or_suite} is a run folder: its suite and place are fixed."
            )
    return recorded_suite(run_or_suite), as_place(run_or_suite)


def _refuse_namesake(suite: str, place: Path | str) -> None:
    """Refuses a suite without a run where a run folder of its name lies here: that one may be meant."""
    if exists(Path(suite) / "run.json") and not is_url(place) and not exists(Path(place) / "run.json"):
        raise UsageError(
            f"{place}: there is no run here; {suite} is a shipped suite, and this is its run folder.",
            f"name the run folder that is here: ./{suite}",
        )


def names_run(name: str) -> bool:
    """Whether there is a run of this path or URL; a shipped suite's name never means one."""
    if name in list_suites():
        return False
    return is_run_at(name) if is_url(name) else exists(Path(name) / "run.json")


def recorded_suite(folder: str) -> Suite:
    """The suite that a run was made with."""
    return read_info(folder_of(folder)).suite


def read_suite(name_or_path: str, limit: int | None) -> Suite:
    """The suite of that name or file, its metrics and their limits checked against those that are installed."""
    path = Path(name_or_path)
    if name_or_path not in list_suites() and is_grid(path):
        raise UsageError(
            f"{name_or_path} is a grid: a folder of runs, which compare, report and plot take as a whole.",
            f"name one of its runs: {argument(path / read_grid(path).members[0].folder)}",
        )
    if name_or_path not in list_suites() and exists(path) and path.is_dir():
        raise UsageError(
            f"{name_or_path} is a folder without run.json: neither a run nor a suite.",
            "hotart-bench list suites",
        )
    suite = load_suite(name_or_path, limit=limit, known_metrics=all_metrics())
    check_suite(suite, training_for_suite(suite))
    facts = {one.name: one for one in facts_for(suite.metrics, registry_of_suite(suite))}
    for one in suite.limits:
        try:
            if one.name in facts:
                check_metric_limit(one, facts[one.name])
        except UsageError as error:
            raise SuiteError(f"{suite.source}: {error}", error.hint) from error
    return suite
