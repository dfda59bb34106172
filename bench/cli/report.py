"""``report``: the page, the markdown and the plots alone, or the page as a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.options import Limit, Output, Quiet, RunOrSuite
from bench.cli.printing import DONE, say, show
from bench.cli.progress import show_progress
from bench.cli.stages import do_stage
from bench.cli.targets import find_target
from bench.errors import InvalidError, UsageError
from bench.formatting import argument, continuing, plural, quantity
from bench.report.folder import folder_bytes, write_folder
from bench.report.grid import write_grid_report
from bench.run.status import lost_images
from bench.store import image_hashes, load_run
from bench.store.grid import is_grid, load_grid
from bench.store.objects import is_url


def report(
    run_or_suite: RunOrSuite,
    output: Output = None,
    limit: Limit = None,
    folder: Annotated[
        bool, typer.Option("--folder", help="A page with every image as it is stored, its files beside it.")
    ] = False,
    to: Annotated[
        Path | None,
        typer.Option(
            "--to",
            metavar="DIR",
            help="With --folder: where to, with copies of the images.  [default: page in the run folder]",
            show_default=False,
        ),
    ] = None,
    quiet: Quiet = False,
) -> int:
    """Write report.html, report.md and the plots of a run or a grid anew.

    Examples:
      hotart-bench report reports/runs/mini
      hotart-bench report reports/runs/mini --folder
      hotart-bench report reports/runs/mini --folder --to mini-page
      hotart-bench report reports/runs/grid-mini
      hotart-bench report mini
    """
    if to is not None and not folder:
        raise UsageError("--to goes with --folder; report.html lies in the run folder.")
    if is_grid(run_or_suite):
        if folder:
            raise UsageError(f"{run_or_suite} is a grid; --folder makes the page of one run: name a run of the grid.")
        if output is None and limit is None:
            page, _ = write_grid_report(load_grid(run_or_suite))
            show(str(page))
            return DONE
    suite, place = find_target(run_or_suite, output, limit, begun=True)
    if folder:
        return _folder(place, to, quiet)
    do_stage("report", suite, place, quiet)
    return DONE


def _folder(place: Path | str, to: Path | None, quiet: bool) -> int:
    """Makes the page as a folder; one that lacks images is made, and then ends as ``report`` does."""
    if is_url(place):
        raise UsageError(f"--folder shows the images from a disk; copy {place} to this machine and name the copy.")
    run = load_run(Path(place))
    images = {str(one.image): one.sha256 for one in run.renders if one.image}
    if not images:
        raise InvalidError("There is nothing to show: no image is rendered.", f"hotart-bench render {argument(place)}")
    with show_progress(quiet) as progress:
        hashes = image_hashes(run, progress)
        if all(found is None for found in hashes.values()):
            raise InvalidError(
                f"There is nothing to show: of {plural(len(images), 'image')} no file is there.",
                continuing(run.info.suite, place),
            )
        page = write_folder(run, to, progress)
    left_out = sum(hashes[name] != digest for name, digest in images.items())
    if left_out or not quiet:
        done = f"Written without {left_out:,} of {plural(len(images), 'image')}" if left_out else "Done"
        size = quantity(folder_bytes(page.parent), "byte")
        where = "" if to is not None else ", without the images of the run folder, where it looks for them"
        say(f"{done}: {size} in {page.parent}{where}.")
    lost = lost_images(run, place, hashes, variants=[variant.name for variant in run.info.suite.variants])
    if lost is not None:
        raise lost
    show(str(page))
    return DONE
