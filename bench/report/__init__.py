"""The reports of a run folder: ``report.html``, one self-contained page, and ``report.md`` with plots.

Each figure is drawn once: its PNG lies in ``plots/`` for ``report.md``, the page holds it as SVG.
"""

from __future__ import annotations

import base64
import hashlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from bench import formatting
from bench.compare import compare_run
from bench.gate import outcomes
from bench.metrics import installed
from bench.plots import draw_sweep, figures_of
from bench.plots import gate as gate_plot
from bench.plots.steps import draw_attribution, draw_step_curves, draw_step_orders
from bench.plots.style import TIMING_TITLES, house_style, inline_svg, write_figures
from bench.records import Gate, Run
from bench.report import (
    audits,
    faces,
    facts,
    findings,
    headline,
    pictures,
    sets,
    skills,
    steps,
    tables,
    training,
    votes,
)
from bench.report import gate as gates
from bench.report.copies import EMBEDDED_PX, names_of, remove_others
from bench.report.facts import gate_of
from bench.report.page import View, build_view
from bench.report.pictures import GridRow
from bench.report.steps import StepsView
from bench.store import load_run
from bench.store.journal import SMALL, write_whole
from bench.suite import grid as suite_grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "draw_figures",
    "environment",
    "gate_of",
    "gate_page",
    "html",
    "markdown",
    "page_css",
    "page_policy",
    "page_script",
    "shown_figures",
    "write_report",
]

_TEMPLATES = Path(__file__).parent.parent / "templates"

_FIGURES = {
    "differences": "Paired differences",
    "distributions": "Distributions of the scores",
    "wins": "Prompts won",
    "tradeoff": "Preference against alignment",
    "costs": "Latency and memory",
    "gate": "Losses as shares of what is allowed",
    "sweep": "Every metric over the weight of the LoRA",
    "steps": "Differences at each step",
    "orders": "When an image is decided",
    "attribution": "Where the gain comes from",
}
_SCRIPTS = ("page", "rows", "ranges", "viewer", "address")
_ON_THE_PAGE = ("differences", "tradeoff", "gate", "sweep", "steps", "orders", "attribution")


def write_report(run: Run | Path) -> tuple[Path, Path]:
    """Writes ``report.html``, ``report.md`` and ``plots/`` of a run folder, each file whole or not at all.

    Args:
        run: a run as it was read, or its folder; finished or not.

    Returns:
        The HTML file and the markdown file.

    Raises:
        HotartError: what ``bench.store.load_run`` refuses.
        InvalidError: a timing of 0 or less.
        MachineError: the folder cannot be written.
    """
    if isinstance(run, Path):
        run = load_run(run)
    folder = Path(run.path)
    view = build_view(run, compare_run(run), gate_of(run), keep=True)
    remove_others(folder / SMALL, names_of(run), EMBEDDED_PX)
    plots, figures = draw_figures(view, folder / "plots")
    page, note = folder / "report.html", folder / "report.md"
    write_whole(page, html(view, figures).encode())
    write_whole(note, markdown(view, plots).encode())
    return page, note


def gate_page(run: Run, gate: Gate) -> str:
    """The page of a run with a gate on it, as one HTML file for anywhere; nothing is written into the run folder.

    Raises:
        InvalidError: a timing of 0 or less.
        MachineError: no room for the figures.
    """
    view = build_view(run, compare_run(run), gate)
    with tempfile.TemporaryDirectory(prefix="hotart-gate-") as folder:
        _, figures = draw_figures(view, Path(folder))
    return html(view, figures)


def draw_figures(view: View, folder: Path) -> tuple[tuple[Path, ...], dict[str, str]]:
    """Draws a report's figures into ``folder``, which is made.

    Returns:
        The PNG files in reading order, and those of the page as ``<svg>`` elements by name.

    Raises:
        MachineError: the folder cannot be written.
    """
    gate, curve, metrics = view.gate, view.sweep, view.run.info.metrics
    figures = figures_of(view.differences)
    if gate is not None:
        figures.append(("gate", lambda: gate_plot.draw_gate(gate)))
    if curve is not None:
        figures.append(("sweep", lambda: draw_sweep(curve, metrics)))
    if view.steps is not None:
        figures += step_figures(view.steps, view.run)
    drawn = write_figures(figures, folder, "png", 150)
    with house_style():
        inline = {
            path.stem: inline_svg(figure, path.stem, _FIGURES[path.stem], _description(path.stem, gate))
            for path, figure in drawn.items()
            if path.stem in _ON_THE_PAGE
        }
    return tuple(drawn), inline


def step_figures(view: StepsView, run: Run) -> list[tuple[str, Callable[[], Figure | None]]]:
    """The figures of the steps of a run."""
    variants = [variant.name for variant in run.info.suite.variants]
    facts = {facts.name: facts for facts in run.info.metrics}
    facts |= {name: one.facts for name, one in installed().step_metrics.items()}
    units = {name: one.unit for name, one in facts.items()}
    found: list[tuple[str, Callable[[], Figure | None]]] = []
    if view.curves:
        found.append(("steps", lambda: draw_step_curves(view.curves, variants, units)))
    if view.orders:
        found.append(("orders", lambda: draw_step_orders(view.orders)))
    attribution = view.attribution
    if attribution is not None:
        found.append(("attribution", lambda: draw_attribution(attribution, run.info.metrics)))
    return found


def _description(name: str, gate: Gate | None) -> str:
    """What a figure of the page shows, for readers who hear it."""
    if name == "gate" and gate is not None:
        return gate_plot.described(gate)
    return {
        "differences": "Mean paired differences with 95 % intervals, a panel a metric; the tables have the numbers.",
        "tradeoff": "Each variant's difference in alignment over its difference in preference, with 95 % intervals.",
        "sweep": "The difference to the weight 0 over the weight, with 95 % intervals; the table has the numbers.",
        "steps": "The paired difference at each step with a band for the whole curve, a panel a metric.",
        "orders": "The share of pairs of images whose order at a step is that of the final images, with bands.",
        "attribution": "The difference of the variant in windows of steps, up to each and from each on.",
    }[name]


def html(view: View, figures: Mapping[str, str] | None = None) -> str:
    """The page: style, script, data and images inside it, and a policy that lets nothing else in.

    Everything from the run is escaped: in the text by autoescaping, in the data by ``script_json``. The
    policy names the script by its hash, so that no other one would run. ``figures`` are those of ``draw_figures``.
    """
    script = page_script()
    return environment(autoescape=True).get_template("report.html.j2").render(
        view=view,
        beside=False,
        policy=page_policy(script),
        css=page_css(),
        script=Markup(script),
        data=Markup(formatting.script_json(view.data)),
        figures=shown_figures(figures),
    )  # fmt: skip


def shown_figures(figures: Mapping[str, str] | None) -> dict[str, Markup]:
    """The figures of a page by name, empty where one is not drawn."""
    return {name: Markup((figures or {}).get(name, "")) for name in _ON_THE_PAGE}


def page_script() -> str:
    """The page's script: its parts share one scope, which nothing outside reaches."""
    parts = "".join(
        (_TEMPLATES / name).read_text() for name in ("page.js", "rows.js", "ranges.js", "viewer.js", "address.js")
    )
    return f'"use strict";\n(() => {{\n{parts}}})();\n'


def page_policy(script: str = "") -> str:
    """The content security policy of a page: what is in it and nothing else, and of scripts this one alone."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    scripts = f"script-src 'sha256-{digest}'; " if script else ""
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; {scripts}base-uri 'none'; form-action 'none'"


def page_css() -> Markup:
    """The style sheets of a page."""
    names = ("report.css", "viewer.css", "finding.css", "gate.css")
    return Markup("".join((_TEMPLATES / name).read_text() for name in names))


def markdown(view: View, plots: Sequence[Path] = ()) -> str:
    """The page for a repository or pull request: tables, plots and a few rows of images by relative path."""
    found = [(path.stem, _FIGURES[path.stem], f"plots/{path.name}") for path in plots if path.stem in _FIGURES]
    return environment(autoescape=False).get_template("report.md.j2").render(
        view=view,
        examples=_examples(view),
        figures=[(title, path) for name, title, path in found if name != "gate"],
        gate_figures=[path for name, _, path in found if name == "gate"],
    )  # fmt: skip


def _examples(view: View) -> list[GridRow]:
    """The typical row and the suite's first rows of other prompts, four in all."""
    firsts = [row for row in view.rows if row.sample == 0]
    chosen = [view.typical] if view.typical is not None else []
    return [*chosen, *(row for row in firsts if row not in chosen)][:4]


def environment(*, autoescape: bool) -> Environment:
    """The templates, with the words and numbers of these modules as filters and by the modules' names."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "interval": formatting.interval,
        "md": formatting.markdown,
        "number": formatting.number,
        "percent": formatting.percent,
        "plural": formatting.plural,
        "quantity": formatting.quantity,
        "signed": formatting.signed,
    }
    modules = {"audits": audits, "facts": facts, "gates": gates, "headline": headline, "outcomes": outcomes}
    modules |= {"faces": faces, "findings": findings, "sets": sets, "settings": suite_grid, "steps": steps}
    modules |= {"pictures": pictures, "plots": gate_plot, "skills": skills, "tables": tables, "text": formatting}
    modules |= {"training": training, "votes": votes}
    environment.globals |= {**modules, "TIMING_TITLES": TIMING_TITLES}
    return environment
