"""Figures: what they show against numbers computed anew, that nothing overlaps, and that bytes repeat."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

import msgspec
import numpy as np
import pytest
from fakes import make_run
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image

from bench.compare import compare_run, compare_runs
from bench.errors import UsageError
from bench.plots import (
    FIGURES,
    draw_costs,
    draw_differences,
    draw_tradeoff,
    draw_wins,
    write_plots,
    write_plots_for_runs,
)
from bench.plots.data import PlotData, data_of_run, data_of_runs, machine_differences
from bench.plots.style import _STYLES, figure_bytes, house_style, inline_svg, shortened, style_of
from bench.records import Run

ALL = ["differences", "distributions", "wins", "tradeoff", "costs"]
EIGHT = ("base", "dpo", "spo", "c", "d-with-a-name-that-is-as-long-as-names-get-here", "e", "f", "g")


def data_for(run: Run) -> PlotData:
    return data_of_run(run, compare_run(run, tags=False))


def prompt_means(run: Run, variant: str, metric: str) -> np.ndarray:
    """Each prompt's mean score, straight from the records."""
    found: dict[str, list[float]] = {prompt.id: [] for prompt in run.info.suite.prompts}
    for score in run.scores:
        if score.variant == variant and score.metric == metric and score.value is not None:
            found[score.prompt_id].append(score.value)
    return np.array([np.mean(values) for values in found.values()])


@pytest.fixture
def drawn_texts(monkeypatch: pytest.MonkeyPatch) -> Callable[[Figure], list[tuple[str, Bbox]]]:
    """What a figure writes and where; tick labels beyond an axis exist but are never drawn."""
    found: list[Text] = []
    draw = Text.draw

    def watched(text: Text, renderer: RendererBase) -> None:
        found.append(text)
        draw(text, renderer)

    monkeypatch.setattr(Text, "draw", watched)

    def texts(figure: Figure) -> list[tuple[str, Bbox]]:
        found.clear()
        figure.canvas.draw()
        shown = [text for text in found if text.get_visible() and text.get_text().strip()]
        return [(text.get_text(), text.get_window_extent()) for text in shown]

    return texts


def test_a_run_gives_every_figure_in_reading_order(tmp_path: Path) -> None:
    run = make_run("run", prompts=4)
    written = write_plots(run, compare_run(run), tmp_path / "plots", dpi=60)
    assert [path.name for path in written] == [f"{name}.png" for name in ALL]
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == sorted(f"{name}.png" for name in ALL)
    for path in written:
        with Image.open(path) as image:
            assert min(image.size) > 100
            assert image.info["dpi"] == pytest.approx((60, 60), abs=0.1)


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    run = make_run("run", prompts=3)
    deltas = compare_run(run, tags=False)
    once, twice = (write_plots(run, deltas, tmp_path / name, dpi=50) for name in ("a", "b"))
    assert [path.read_bytes() for path in once] == [path.read_bytes() for path in twice]


@pytest.mark.parametrize("fmt", ["svg", "pdf"])
def test_vector_files_repeat_and_carry_no_date(fmt: Literal["svg", "pdf"]) -> None:
    data = data_for(make_run("run", prompts=3))
    files = []
    for _ in range(2):
        with house_style():
            figure = draw_differences(data)
            assert figure is not None
            files.append(figure_bytes(figure, fmt, 150))
    assert files[0] == files[1]
    assert b"Date" not in files[0]
    assert b"dc:date" not in files[0]
    if fmt == "svg":
        assert ElementTree.fromstring(files[0]).tag == "{http://www.w3.org/2000/svg}svg"


def test_figures_of_one_page_share_no_ids_and_hold_no_markup_of_their_own() -> None:
    run = make_run("run", prompts=3)
    hostile = [msgspec.structs.replace(one, unit='</text><script id="x">') for one in run.info.metrics]
    data = data_for(msgspec.structs.replace(run, info=msgspec.structs.replace(run.info, metrics=tuple(hostile))))
    found: list[ElementTree.Element] = []
    with house_style():
        for name, draw in (("one", draw_differences), ("two", draw_differences), ("three", draw_tradeoff)):
            figure = draw(data)
            assert figure is not None
            found += ElementTree.fromstring(inline_svg(figure, name, "<b>", "&")).iter()
    ids = [one.attrib["id"] for one in found if "id" in one.attrib]
    assert len(ids) == len(set(ids)) > 6
    assert {one.attrib["href"] for one in found if one.tag == "use"} <= {f"#{name}" for name in ids}
    assert not {"script", "style", "b", "image"} & {one.tag for one in found}
    assert any('</text><script id="x">' in (one.text or "") for one in found if one.tag == "text")


def test_the_forest_marks_the_mean_of_the_paired_differences() -> None:
    run = make_run("run", prompts=10)
    with house_style():
        figure = draw_differences(data_for(run))
    assert figure is not None
    shown = [line.get_xdata()[0] for line in figure.axes[0].lines if line.get_marker() in "oD"]
    means = {name: prompt_means(run, name, "mini-preference") for name in ("base", "dpo", "spo")}
    expected = [np.mean(means[one] - means[two]) for one, two in (("dpo", "base"), ("spo", "base"), ("spo", "dpo"))]
    assert shown == pytest.approx(expected, abs=1e-12)


def test_the_matrix_counts_won_prompts() -> None:
    run = make_run("run", prompts=10)
    with house_style():
        figure = draw_wins(data_for(run))
    assert figure is not None
    names = ["base", "dpo", "spo"]
    means = [prompt_means(run, name, "mini-clip") for name in names]
    axes = next(ax for ax in figure.axes if ax.get_title(loc="left") == "mini-clip")
    shown = {tuple(text.get_position()): text.get_text() for text in axes.texts}
    expected = {
        (column, row): f"{100 * np.mean(means[row] > means[column]):.0f}"
        for row in range(3)
        for column in range(3)
        if row != column
    }
    assert shown == expected


def test_a_metric_where_lower_is_better_turns_the_matrix() -> None:
    run = make_run("run", prompts=6, effect={"spo": {"mini-clip": 10.0}})
    facts = [
        msgspec.structs.replace(one, higher_is_better=False) if one.name == "mini-clip" else one
        for one in run.info.metrics
    ]
    run = msgspec.structs.replace(run, info=msgspec.structs.replace(run.info, metrics=tuple(facts)))
    with house_style():
        figure = draw_wins(data_for(run))
    assert figure is not None
    axes = next(ax for ax in figure.axes if ax.get_title(loc="left") == "mini-clip")
    # mini-clip is held to [-1, 1], so spo has the most of what there should be little of.
    assert {t.get_text() for t in axes.texts if t.get_position()[1] == 2} == {"0"}


def test_bars_are_as_long_as_the_medians() -> None:
    run = make_run("run", prompts=2)
    with house_style():
        figure = draw_costs(data_for(run))
    assert figure is not None
    axes = next(ax for ax in figure.axes if ax.get_title(loc="left") == "Denoise step")
    expected = [
        np.median([v for t in run.timings if t.variant == name and t.name == "denoise_step" for v in t.values])
        for name in ("base", "dpo", "spo")
    ]
    assert [bar.get_width() for bar in axes.patches] == pytest.approx(expected)


def test_what_a_run_lacks_is_not_drawn(tmp_path: Path) -> None:
    whole = make_run("run", prompts=3)
    untimed = msgspec.structs.replace(whole, timings=())
    unscored = msgspec.structs.replace(whole, scores=())
    alone = make_run("run", prompts=3, variants=("base",))
    empty = msgspec.structs.replace(unscored, timings=())

    def drawn(run: Run) -> list[str]:
        with house_style():
            return [name for name, draw in FIGURES if draw(data_for(run)) is not None]

    assert drawn(untimed) == ALL[:-1]
    assert drawn(unscored) == ["costs"]
    assert drawn(alone) == ["distributions", "costs"]
    assert drawn(empty) == []
    assert write_plots(empty, (), tmp_path / "plots") == ()


@pytest.mark.parametrize(("prompts", "variants"), [(1, ("base", "spo")), (5, EIGHT), (40, ("base", "dpo", "spo"))])
def test_no_text_overlaps_or_leaves_the_page(
    prompts: int, variants: tuple[str, ...], drawn_texts: Callable[[Figure], list[tuple[str, Bbox]]]
) -> None:
    run = make_run("run", prompts=prompts, samples=1, variants=variants)
    data = data_for(run)
    for name, draw in FIGURES:
        with house_style():
            figure = draw(data)
            assert figure is not None
            boxes = drawn_texts(figure)
        page = figure.bbox
        for text, box in boxes:
            inside = box.x0 >= page.x0 and box.x1 <= page.x1 and box.y0 >= page.y0 and box.y1 <= page.y1
            assert inside, f"{name}: {text!r} leaves the page"
        for (one, a), (two, b) in combinations(boxes, 2):
            # The boxes of turned labels overlap where the labels do not.
            turned = name == "wins" and {one, two} <= {shortened(variant, 14) for variant in variants}
            wide, high = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
            assert turned or wide < 1.5 or high < 1.5, f"{name}: {one!r} overlaps {two!r}"


def test_two_runs_are_drawn_side_by_side(tmp_path: Path) -> None:
    ours, theirs = make_run("new", prompts=4, seed=1), make_run("old", prompts=4)
    deltas = compare_runs(ours, theirs)
    data = data_of_runs(ours, theirs, deltas)
    labels = [one.label for one in data.series]
    assert labels == ["base@old", "base@new", "dpo@old", "dpo@new", "spo@old", "spo@new"]
    assert not any(data.second(delta) for delta in data.deltas)
    expected = prompt_means(ours, "spo", "mini-clip") - prompt_means(theirs, "spo", "mini-clip")
    shown = [one.difference for one in data.paired("mini-clip", "spo@new", "spo@old")]
    assert shown == pytest.approx(expected)
    written = write_plots_for_runs(ours, theirs, deltas, tmp_path, dpi=50)
    assert [path.stem for path in written] == ALL


def test_costs_of_machine_differences_are_not_drawn_side_by_side(tmp_path: Path) -> None:
    ours, theirs = make_run("new", prompts=4, seed=1), make_run("old", prompts=4)
    machine = msgspec.structs.replace(ours.info.machine, device="cuda:0", device_name="a card")
    ours = msgspec.structs.replace(ours, info=msgspec.structs.replace(ours.info, machine=machine))
    assert len(machine_differences(ours, theirs)) >= 2
    assert not machine_differences(theirs, theirs)
    data = data_of_runs(ours, theirs, compare_runs(ours, theirs))
    assert not any(one.timings for one in data.series)
    assert any(one.scores for one in data.series)
    assert draw_costs(data) is None


def test_the_tradeoff_leaves_out_second_references() -> None:
    with house_style():
        figure = draw_tradeoff(data_for(make_run("run", prompts=4)))
    assert figure is not None
    assert [text.get_text() for text in figure.legends[0].texts] == ["dpo − base", "spo − base"]


def test_styles_differ_without_colour() -> None:
    assert len({style.colour for style in _STYLES}) == len(_STYLES) == 8
    assert len({style.marker for style in _STYLES}) == 8
    assert len({style.hatch for style in _STYLES}) == 8
    assert style_of(9) == style_of(1)


def test_the_report_has_the_same_colours() -> None:
    css = (Path(__file__).parents[1] / "bench" / "templates" / "report.css").read_text()
    for index, style in enumerate(_STYLES):
        light = css.split(f"--v{index}: light-dark(")[1].split(",")[0]
        ours, theirs = (tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5)) for colour in (style.colour, light))
        # On a screen some are darkened for contrast; the hue stays.
        assert np.argmax(ours) == np.argmax(theirs)


def test_long_names_are_cut_in_the_middle() -> None:
    assert shortened("spo") == "spo"
    cut = shortened("a" * 30 + "b" * 30, 20)
    assert len(cut) == 20
    assert (cut[0], cut[-1]) == ("a", "b")


@pytest.mark.parametrize(("fmt", "dpi", "said"), [("gif", 150, "gif"), ("png", 10, "10"), ("png", 5000, "5000")])
def test_impossible_files_are_refused(tmp_path: Path, fmt: str, dpi: int, said: str) -> None:
    run = make_run("run", prompts=2)
    with pytest.raises(UsageError, match=said):
        write_plots(run, compare_run(run), tmp_path / "plots", fmt, dpi)  # type: ignore[arg-type]
    assert not (tmp_path / "plots").exists()
