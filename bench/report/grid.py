"""The reports of a grid: ``report.html``, ``report.md`` and its figure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from bench import formatting as text
from bench.compare.grid import compare_grid
from bench.compare.grid_view import GridView, grid_view
from bench.errors import InvalidError
from bench.plots.grid import draw_grid
from bench.plots.style import Format, house_style, inline_svg, write_figures
from bench.report import environment, page_css, page_policy
from bench.store.grid import GridRuns
from bench.store.journal import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HOW_TO_READ = (
    "Each difference is candidate minus reference, paired by prompt and noise. Intervals hold all settings of a table "
    "at once. An order holds under a setting whose interval lies on the same side of 0 as under the suite's own "
    "setting, else under most settings; it flips where the interval lies on the other side."
)
HOW_TO_READ_CHANGES = (
    "Below the settings of a table: what the difference changes along an axis, of each prompt the mean over the other "
    "axes, and the p-value that it is the same at every value (signs of prompts flipped, Holm over the pair's axes and "
    "metrics)."
)


def write_grid_report(found: GridRuns) -> tuple[Path, Path]:
    """Writes ``report.html``, ``report.md`` and ``plots/grid.png`` of a grid's folder, each whole or not at all.

    Raises:
        HotartError: as ``compare_grid``; the folder cannot be written.
    """
    folder = Path(found.path)
    view = grid_view(found, compare_grid(found))
    drawn = write_figures([("grid", lambda: grid_figure(view))], folder / "plots", "png", 150)
    with house_style():
        svg = [inline_svg(figure, "grid", "Differences under each setting", _HEARD) for figure in drawn.values()]
    page, note = folder / "report.html", folder / "report.md"
    html = environment(autoescape=True).get_template("grid.html.j2").render(
        view=view, policy=page_policy(), css=page_css(), figure=Markup(svg[0]) if svg else "",
        how_to_read=HOW_TO_READ, how_to_read_changes=HOW_TO_READ_CHANGES,
    )  # fmt: skip
    write_whole(page, html.encode())
    markdown = environment(autoescape=False).get_template("grid.md.j2").render(
        view=view, figures=[f"plots/{path.name}" for path in drawn], how_to_read=HOW_TO_READ,
        how_to_read_changes=HOW_TO_READ_CHANGES,
    )  # fmt: skip
    write_whole(note, markdown.encode())
    return page, note


_HEARD = (
    "Each pair's mean difference under each setting with its interval, a panel a metric; the tables have the numbers."
)


def grid_figure(view: GridView) -> Figure | None:
    """The figure of the metrics that say what is better."""
    lead = {facts.name: facts.unit for facts in view.headline}
    shown = [one for facts in view.headline for one in view.differences if one.metric == facts.name]
    return draw_grid(shown, [variant.name for variant in view.found.grid.suite.variants], lead)


def write_grid_plot(found: GridRuns, folder: Path, fmt: Format, dpi: int) -> tuple[Path, ...]:
    """Draws ``grid.<fmt>`` into a folder.

    Raises:
        InvalidError: nothing has been scored.
        HotartError: as ``compare_grid``; the folder cannot be written.
    """
    view = grid_view(found, compare_grid(found))
    written = tuple(write_figures([("grid", lambda: grid_figure(view))], folder, fmt, dpi))
    if not written:
        raise InvalidError(f"{found.path}: has no scores to draw.", f"{view.command} -o {text.argument(found.path)}")
    return written
