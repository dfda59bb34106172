"""What every figure looks like: Okabe-Ito colours, markers, hatches, sizes, and bytes that repeat."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from bench.errors import UsageError
from bench.store.journal import write_whole, writing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Format = Literal["png", "svg", "pdf"]
"""Kinds of file that figures are written as."""

INK, SOFT, LINE = "#1b1c1e", "#55575c", "#dedbd2"


@dataclass(frozen=True)
class Style:
    """How one variant is drawn: a colour, and a marker and a hatch for readers who cannot tell colours."""

    colour: str
    marker: str
    hatch: str


# Okabe and Ito's palette, the reference in grey; the report's CSS has the same order.
_STYLES = (
    Style("#55575c", "s", ""),
    Style("#0072b2", "o", "////"),
    Style("#d55e00", "D", "...."),
    Style("#009e73", "^", "\\\\\\\\"),
    Style("#cc79a7", "v", "xxxx"),
    Style("#e69f00", "P", "----"),
    Style("#56b4e9", "X", "++++"),
    Style("#8a8000", "*", "oooo"),
)

_RC = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": SOFT,
    "axes.linewidth": 0.7,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8.5,
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.fonttype": "path",
    "svg.hashsalt": "hotart-bench",
    "pdf.fonttype": 42,
}


def style_of(index: int) -> Style:
    """Style of the variant at ``index`` in the suite; after eight they begin again."""
    return _STYLES[index % len(_STYLES)]


def shortened(name: str, limit: int = 22) -> str:
    """``name`` cut in its middle to ``limit`` characters, so that no label runs into the next."""
    if len(name) <= limit:
        return name
    return f"{name[: (limit - 1) // 2]}…{name[-(limit // 2) :]}"


@contextmanager
def house_style() -> Iterator[None]:
    """matplotlib's defaults with this house's changes, whatever a user's matplotlibrc says; Agg only."""
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_RC)
        yield


def new_figure(width_in: float, height_in: float) -> Figure:
    """An empty figure with constrained layout, outside pyplot's global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in))
    figure.set_layout_engine("constrained", w_pad=0.09, h_pad=0.11, wspace=0.03, hspace=0.03)
    FigureCanvasAgg(figure)
    return figure


def figure_bytes(figure: Figure, fmt: Format, dpi: int) -> bytes:
    """The figure's file, the same bytes for the same figure: no date, no version, fixed ids."""
    metadata = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[fmt]
    buffer = io.BytesIO()
    figure.savefig(buffer, format=fmt, dpi=dpi, metadata=metadata)
    return buffer.getvalue()


def write_figures(
    figures: Sequence[tuple[str, Callable[[], Figure | None]]], folder: Path, fmt: Format, dpi: int
) -> tuple[Path, ...]:
    """Draws figures by name into ``folder``, each file whole or not at all; one without data is left out.

    Raises:
        UsageError: another format than png, svg and pdf, or ``dpi`` outside 50 to 1200.
        MachineError: the folder cannot be written.
    """
    if fmt not in get_args(Format):
        raise UsageError(f"Plots are written as {', '.join(get_args(Format))}, not {fmt!r}.")
    if not 50 <= dpi <= 1200:
        raise UsageError(f"dpi is {dpi}; it may be 50 to 1200.")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    written = []
    with house_style():
        for name, draw in figures:
            figure = draw()
            if figure is not None:
                path = folder / f"{name}.{fmt}"
                write_whole(path, figure_bytes(figure, fmt, dpi))
                written.append(path)
    return tuple(written)
