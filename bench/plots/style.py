"""What every figure looks like: Okabe-Ito colours, markers, hatches, sizes, and bytes that repeat."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args
from xml.etree import ElementTree

from bench.errors import UsageError
from bench.records import Outcome, TimingName
from bench.store.journal import make_folder, write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Format = Literal["png", "svg", "pdf"]
"""Kinds of file that figures are written as."""

INK, SOFT, LINE = "#1b1c1e", "#55575c", "#dedbd2"

WIDTH_IN = 7.2
"""Width of a figure: the text width of an A4 page."""


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

OUTCOME_COLOURS: dict[Outcome, str] = {
    "pass": "#00664a", "fail": "#a83f00", "inconclusive": "#7a5200", "invalid": INK,
}  # fmt: skip

# The variable of the report's style sheet that a colour of a figure stands for.
_THEME = {
    **{style.colour: f"var(--v{place})" for place, style in enumerate(_STYLES)},
    **{INK: "var(--ink)", SOFT: "var(--soft)", LINE: "var(--line)", "#ffffff": "var(--paper)"},
    **{OUTCOME_COLOURS["pass"]: "var(--better)", OUTCOME_COLOURS["fail"]: "var(--worse)"},
    OUTCOME_COLOURS["inconclusive"]: "var(--unsure)",
}

_COLOUR = re.compile(r"#[0-9a-f]{6}\b")

_TARGET = re.compile(r"#([A-Za-z]\w{6,})")  # what a href or url() points to; a colour has six digits only

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
    "svg.fonttype": "none",
    "svg.hashsalt": "hotart-bench",
    "pdf.fonttype": 42,
}


SCREEN_SCALE = 1.42
"""CSS pixels of a page for a point of a figure: text of 7.5 points becomes 11 pixels high."""

TIMING_TITLES: dict[TimingName, str] = {
    "load": "Load",
    "compile": "Compile",
    "first_image": "First image",
    "text_encode": "Text encode",
    "denoise_step": "Denoise step",
    "vae_decode": "VAE decode",
    "end_to_end": "End to end, one image",
    "per_image_at_batch": "An image of a batch",
    "peak_allocated": "Peak memory, allocated",
    "peak_reserved": "Peak memory, reserved",
    "peak_process": "Peak memory, process on device",
    "peak_rss": "Peak memory, resident (RSS)",
    "energy_per_image": "Energy of an image",
}
"""What the timed quantities are called in figures and reports."""


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


def panels(figure: Figure, count: int, columns: int) -> Sequence[Axes]:
    """``count`` axes from left to right and from top to bottom; what is left of the last row stays empty."""
    axes = figure.subplots(-(-count // columns), columns, squeeze=False).ravel()
    for ax in axes[count:]:
        ax.set_visible(False)
    return list(axes[:count])


def figure_bytes(figure: Figure, fmt: Format, dpi: int) -> bytes:
    """The figure's file, the same bytes for the same figure: no date, no version, fixed ids.

    The first file of a figure settles its layout, which takes much of the time; the next ones keep it.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    # ``Figure.savefig`` draws and lays out twice; a canvas by itself does it once.
    buffer = io.BytesIO()
    figure.set_dpi(dpi)
    if fmt == "png":
        FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    elif fmt == "svg":
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    else:
        figure.savefig(buffer, format=fmt, metadata={"CreationDate": None})
    figure.set_layout_engine("none")
    return buffer.getvalue()


def inline_svg(figure: Figure, name: str, title: str, description: str) -> str:
    """The figure as an ``<svg>`` element for a page: named for readers who hear it, in the colours of the page's theme.

    Text stays text. Ids begin with ``name``, so that several figures fit one page. Colours of the house become CSS
    variables of the page: ``--ink``, ``--soft``, ``--line``, ``--paper``, ``--v0`` to ``--v7``, ``--better``,
    ``--worse`` and ``--unsure``.
    """
    for patch in (figure.patch, *(ax.patch for ax in figure.axes)):
        patch.set_visible(False)  # the page is the background
    root = ElementTree.fromstring(figure_bytes(figure, "svg", 72))
    for part in root.findall("{*}metadata") + root.findall("{*}defs[{*}style]"):
        root.remove(part)  # who made the file, and a style sheet that would reach the whole page
    used = {place for element in root.iter() for value in element.attrib.values() for place in _TARGET.findall(value)}
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        found = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
        own = found.pop("id", None)
        element.attrib = {key: _TARGET.sub(rf"#{name}-\1", value) for key, value in found.items()}
        if own in used:
            element.set("id", f"{name}-{own}")
        if "style" in found:
            element.set("style", _COLOUR.sub(lambda colour: _THEME.get(colour[0], colour[0]), element.attrib["style"]))
    width = float(root.attrib["viewBox"].split()[2])
    root.attrib = {
        "viewBox": root.attrib["viewBox"],
        "width": f"{width * SCREEN_SCALE:.0f}",
        "role": "img",
        "aria-labelledby": f"{name}-title {name}-description",
    }
    for place, (tag, kind, text) in enumerate((("title", "title", title), ("desc", "description", description))):
        said = ElementTree.Element(tag, id=f"{name}-{kind}")
        said.text = text
        root.insert(place, said)
    return ElementTree.tostring(root, "unicode")


def write_figures(
    figures: Sequence[tuple[str, Callable[[], Figure | None]]], folder: Path, fmt: Format, dpi: int
) -> dict[Path, Figure]:
    """Draws figures by name into ``folder``, each file whole or not at all; one without data is left out.

    Raises:
        UsageError: another format than png, svg and pdf, or ``dpi`` outside 50 to 1200.
        MachineError: the folder cannot be written.
    """
    if fmt not in get_args(Format):
        raise UsageError(f"Plots are written as {', '.join(get_args(Format))}, not {fmt!r}.")
    if not 50 <= dpi <= 1200:
        raise UsageError(f"dpi is {dpi}; it may be 50 to 1200.")
    make_folder(folder)
    written = {}
    with house_style():
        for name, draw in figures:
            figure = draw()
            if figure is not None:
                path = folder / f"{name}.{fmt}"
                write_whole(path, figure_bytes(figure, fmt, dpi))
                written[path] = figure
    return written
