"""The reports of a run folder: ``report.html``, one self-contained page, and ``report.md`` with plots."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from bench import formatting as report_text
from bench.compare import compare_run
from bench.compare.sweep import sweep_curve
from bench.plots import write_plots, write_sweep_plot
from bench.plots.gate import write_gate_plot
from bench.records import Run
from bench.report.facts import gate_of
from bench.report.page import View, build_view
from bench.report.pictures import GridRow
from bench.store import load_run
from bench.store.journal import write_whole

__all__ = ["gate_of", "html", "markdown", "write_report"]

_TEMPLATES = Path(__file__).parent.parent / "templates"
_PLOT_TITLES = {
    "differences": "Paired differences",
    "distributions": "Distributions of the scores",
    "wins": "Prompts won",
    "tradeoff": "Preference against alignment",
    "costs": "Latency and memory",
    "sweep": "Every metric over the weight of the LoRA",
}


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
    deltas = compare_run(run)
    gate = gate_of(run)
    view = build_view(run, deltas, gate)
    plots = write_plots(run, deltas, folder / "plots")
    if gate is not None:
        plots = (*plots, *write_gate_plot(gate, folder / "plots"))
    curve = sweep_curve(run, deltas)
    if curve is not None:
        plots = (*plots, *write_sweep_plot(curve, run.info.metrics, folder / "plots"))
    page, note = folder / "report.html", folder / "report.md"
    write_whole(page, html(view, plots).encode())
    write_whole(note, markdown(view, plots).encode())
    return page, note


def html(view: View, plots: tuple[Path, ...] = ()) -> str:
    """The page: style, script, data and images inside it, and a policy that lets nothing else in.

    Everything from the run is escaped: in the text by autoescaping, in the data by ``script_json``. The
    policy names the script by its hash, so that no other one would run.
    """
    script = (_TEMPLATES / "report.js").read_text()
    curves = [base64.b64encode(path.read_bytes()).decode() for path in plots if path.name == "sweep.png"]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return _environment(autoescape=True).get_template("report.html.j2").render(
        view=view,
        policy=f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'",
        css=Markup("".join((_TEMPLATES / name).read_text() for name in ("report.css", "gate.css"))),
        script=Markup(script),
        data=Markup(report_text.script_json(view.data)),
        sweep_plot=curves[0] if curves else "",
    )  # fmt: skip


def markdown(view: View, plots: tuple[Path, ...]) -> str:
    """The page for a repository or pull request: tables, plots and a few rows of images by relative path."""
    environment = _environment(autoescape=False)
    environment.filters["md"] = report_text.markdown
    return environment.get_template("report.md.j2").render(
        view=view,
        examples=_examples(view),
        plots=[(_PLOT_TITLES[path.stem], f"plots/{path.name}") for path in plots if path.stem in _PLOT_TITLES],
        gate_plots=[f"plots/{path.name}" for path in plots if path.stem == "gate"],
    )


def _examples(view: View) -> list[GridRow]:
    """The typical row and the suite's first rows of other prompts, four in all."""
    firsts = [row for row in view.grid.rows if row.sample == 0]
    chosen = [view.typical] if view.typical is not None else []
    return [*chosen, *(row for row in firsts if row not in chosen)][:4]


def _environment(*, autoescape: bool) -> Environment:
    return Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
