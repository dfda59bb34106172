"""A swept LoRA: the suite that is made of it, its curves, and the front against a loop over all pairs."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import numpy as np
import pytest
from fakes import make_run
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from report_runs import page_of

from bench.compare import compare_run
from bench.compare.sweep import PIXEL_SHIFT, sweep_curve
from bench.errors import UsageError
from bench.formatting import NONE
from bench.plots import draw_sweep, write_sweep_plot
from bench.records import Lora, Run, Suite, Sweep
from bench.report import draw_figures, gate_of, html, markdown
from bench.report.facts import command, setting_facts
from bench.report.page import build_view
from bench.report.tables import sweep_note, swept_metrics
from bench.suite import load_suite, protocol_digest, sweep_suite

replace = msgspec.structs.replace
WEIGHTS = (0.0, 0.5, 1.0, 1.5)


@pytest.fixture(scope="module")
def mini() -> Suite:
    return load_suite("mini")


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A fake run whose variants are called after weights; their planted effects differ by name."""
    names = ("base", "spo-0.5", "spo-1", "spo-1.5")
    run = make_run(tmp_path_factory.mktemp("run"), prompts=24, variants=names)
    shifts = {name: 0.3 * number for number, name in enumerate(names)}
    scores = tuple(
        replace(one, value=one.value + (shifts[one.variant] if one.metric == "mini-preference" else 0.0))
        for one in run.scores
    )
    suite = replace(run.info.suite, sweep=Sweep(lora="spo", weights=WEIGHTS, variants=names))
    return replace(run, scores=scores, info=replace(run.info, suite=suite))


# --- the suite -----------------------------------------------------------------------------


def test_each_weight_is_a_variant_and_0_the_reference_without_the_lora(mini: Suite) -> None:
    suite = sweep_suite(mini, "spo", [1.0, 0, 0.25])
    assert [variant.name for variant in suite.variants] == ["base", "spo-0.25", "spo-1"]
    assert [[lora.weight for lora in variant.loras] for variant in suite.variants] == [[], [0.25], [1.0]]
    assert suite.sweep == Sweep(lora="spo", weights=(0.0, 0.25, 1.0), variants=("base", "spo-0.25", "spo-1"))
    assert suite.limits == ()
    assert suite.measure.rounds == 0
    assert protocol_digest(suite) == protocol_digest(mini)


def test_0_is_added_where_it_was_not_named(mini: Suite) -> None:
    assert sweep_suite(mini, "dpo", [0.5]).sweep == Sweep(lora="dpo", weights=(0.0, 0.5), variants=("base", "dpo-0.5"))


def test_own_weights_of_components_and_blocks_keep_their_proportion(mini: Suite) -> None:
    lora = Lora(path="mini:spo", weight=0.8, unet=0.4, blocks={"M00": -1.0})
    variants = tuple(replace(v, loras=(lora,) if v.name == "spo" else v.loras) for v in mini.variants)
    (_, half) = sweep_suite(replace(mini, variants=variants), "spo", [0.5]).variants
    assert half.loras == (Lora(path="mini:spo", weight=0.5, unet=0.25, blocks={"M00": -0.625}),)


def test_further_loras_keep_their_proportion_to_the_first(mini: Suite) -> None:
    loras = (Lora(path="mini:spo", weight=0.5), Lora(path="mini:dpo", weight=0.25))
    variants = tuple(replace(v, loras=loras if v.name == "spo" else v.loras) for v in mini.variants)
    (_, one) = sweep_suite(replace(mini, variants=variants), "spo", [1.0]).variants
    assert one.loras == (Lora(path="mini:spo", weight=1.0), Lora(path="mini:dpo", weight=0.5))


def test_the_weights_of_parts_alone_are_multiplied(mini: Suite) -> None:
    lora = Lora(path="mini:spo", weight=0.0, blocks={"M00": 2.0})
    variants = tuple(replace(v, loras=(lora,) if v.name == "spo" else v.loras) for v in mini.variants)
    (_, half) = sweep_suite(replace(mini, variants=variants), "spo", [0.5]).variants
    assert half.loras == (Lora(path="mini:spo", weight=0.0, blocks={"M00": 1.0}),)


def test_the_reference_is_never_called_what_has_a_lora(mini: Suite) -> None:
    """The only variant is the swept one; the first one is called as a weight will be; it has another checkpoint."""
    (spo,) = (variant for variant in mini.variants if variant.name == "spo")
    plain = replace(mini.variants[0], name="SPO-1")
    other = replace(mini.variants[0], name="other", checkpoint="random:tiny")
    for variants, lora, names in (
        ((spo,), "spo", ["spo-0", "spo-1"]),
        ((spo,), "mini:dpo", ["dpo-0", "dpo-1"]),
        ((plain,), "mini:spo", ["spo-0", "spo-1"]),
        ((other, spo), "spo", ["spo-0", "spo-1"]),
    ):
        suite = sweep_suite(replace(mini, variants=variants), lora, [1.0])
        assert [variant.name for variant in suite.variants] == names
        assert suite.sweep is not None
        assert suite.sweep.variants == tuple(names)
        assert suite.variants[0].loras == ()
        assert len({variant.checkpoint for variant in suite.variants}) == 1


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("mini:dpo", "dpo-0.5"),
        ("loras/glow v2.safetensors", "lora-0.5"),
        ("loras/glow.safetensors", "glow-0.5"),
        ("owner/name:glow.safetensors", "glow-0.5"),
        ("x" * 80 + ".safetensors", "lora-0.5"),
    ],
)
def test_a_file_is_swept_on_the_first_variants_checkpoint(mini: Suite, path: str, name: str) -> None:
    base, half = sweep_suite(mini, path, [0.5]).variants
    assert (base.name, half.name) == ("base", name)
    assert half.checkpoint == mini.variants[0].checkpoint
    assert half.loras == (Lora(path=path, weight=0.5),)


@pytest.mark.parametrize(
    ("lora", "weights", "said"),
    [
        ("spo", [], "0 weights beside 0"),
        ("spo", [0.0], "0 weights beside 0"),
        ("spo", [1.0, 1.0], "1 is given twice"),
        ("spo", [math.nan], "nan is no weight"),
        ("spo", [math.inf], "inf is no weight"),
        ("spo", [1e308], "from -1000 to 1000"),
        ("spo", [0.1234567, 0.1234568], "share a name"),
        ("spo", [float(n) for n in range(1, 60)], "1 to 49"),
        ("base", [1.0], "has no LoRA"),
        ("spp", [1.0], "did you mean 'spo'"),
    ],
)
def test_what_cannot_be_swept_is_refused(mini: Suite, lora: str, weights: list[float], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        sweep_suite(mini, lora, weights)


# --- what it found -------------------------------------------------------------------------


def test_another_run_has_no_curve(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    assert sweep_curve(run, compare_run(run)) is None


def test_curves_are_the_differences_to_weight_0(swept: Run) -> None:
    deltas = compare_run(swept, tags=False)
    curve = sweep_curve(swept, deltas)
    assert curve is not None
    assert [point.weight for point in curve.points] == list(WEIGHTS)
    assert curve.points[0].deltas == {}
    for point in curve.points[1:]:
        assert point.deltas["mini-preference"] in deltas
        assert point.deltas["mini-preference"].candidate == point.variant
    means = [point.deltas["mini-preference"].mean for point in curve.points[1:]]
    assert means == sorted(means)


def test_pixel_shift_is_the_root_mean_square_in_standard_deviations(swept: Run) -> None:
    curve = sweep_curve(swept, compare_run(swept, tags=False))
    assert curve is not None
    pixels = [facts.name for facts in swept.info.metrics if facts.category == "pixels"]
    cells = {(s.variant, s.metric, s.prompt_id, s.sample): s.value for s in swept.scores}
    prompts = [prompt.id for prompt in swept.info.suite.prompts]
    for point in curve.points:
        squares = []
        for name in pixels:
            base = np.array([[cells["base", name, prompt, k] for k in range(2)] for prompt in prompts], float).mean(
                axis=1
            )
            mine = np.array([[cells[point.variant, name, prompt, k] for k in range(2)] for prompt in prompts], float)
            squares.append(((mine.mean(axis=1) - base).mean() / base.std(ddof=1)) ** 2)
        assert point.pixel_shift == pytest.approx(math.sqrt(sum(squares) / len(squares)))


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3), st.integers(0, 3)), min_size=1, max_size=5))
def test_front_holds_just_the_points_that_no_other_beats(places: list[tuple[int, int, int]]) -> None:
    from bench.compare.sweep import _mark_front
    from bench.records import SweepPoint

    goals = [("mini-preference", 1), ("mini-clip", 1), (PIXEL_SHIFT, -1)]
    points = [
        SweepPoint(weight=n, variant=str(n), deltas={"mini-preference": _delta(a), "mini-clip": _delta(b)},
                   pixel_shift=c, on_front=False)
        for n, (a, b, c) in enumerate(places)
    ]  # fmt: skip
    found = [point.on_front for point in _mark_front(points, goals, "base")]
    for mine, on_front in zip(places, found, strict=True):
        beaten = any(a >= mine[0] and b >= mine[1] and c <= mine[2] and (a, b, c) != mine for a, b, c in places)
        assert on_front == (not beaten)


def _delta(mean: float):
    from bench.records import Delta

    return Delta(
        metric="", candidate="", reference="", tag=None, prompts=1, samples=1, missing=0, candidate_mean=mean,
        reference_mean=0, mean=mean, interval=None, small_sample=None, d_z=None, wins=0, ties=0, losses=0,
        win_rate=None, win_interval=None, correlation=None,
    )  # fmt: skip


def test_a_point_without_a_score_is_on_no_front(swept: Run) -> None:
    left = tuple(s for s in swept.scores if (s.variant, s.metric) != ("spo-1", "mini-preference"))
    run = replace(swept, scores=left)
    curve = sweep_curve(run, compare_run(run, tags=False))
    assert curve is not None
    assert not curve.points[2].on_front
    assert any(point.on_front for point in curve.points)


def test_a_weight_that_failed_is_shown_as_unknown_and_on_no_front(swept: Run, tmp_path: Path) -> None:
    """Nothing is known of it: not that it changes nothing, which would be the best pixel shift of all."""
    run = replace(swept, scores=tuple(one for one in swept.scores if one.variant != "spo-1.5"))
    deltas = compare_run(run)
    curve = sweep_curve(run, deltas)
    assert curve is not None
    failed = curve.points[3]
    assert (failed.deltas, failed.pixel_shift, failed.on_front) == ({}, None, False)
    view = build_view(run, deltas)
    assert view.sweep is not None
    (table,) = [part for part in markdown(view).split("\n## ") if part.startswith("Weights of spo")]
    first, *_, last = [line.split("|")[2:-2] for line in table.splitlines() if line.startswith("| ")][1:]
    assert {cell.strip() for cell in first[:-1]} == {"0"}
    assert {cell.strip() for cell in last} == {NONE}
    figure = draw_sweep(curve, run.info.metrics)
    assert figure is not None
    curves = [line for ax in figure.axes for line in ax.lines if len(line.get_xdata()) == len(WEIGHTS)]
    assert len(curves) == sum(ax.get_visible() for ax in figure.axes)
    for line in curves:
        assert line.get_ydata()[0] == 0
        assert np.isfinite(line.get_ydata()).tolist() == [True, True, True, False]


def test_without_statistics_of_pixels_the_front_is_about_the_judges_alone(swept: Run) -> None:
    pixels = {facts.name for facts in swept.info.metrics if facts.category == "pixels"}
    run = replace(swept, scores=tuple(one for one in swept.scores if one.metric not in pixels))
    curve = sweep_curve(run, compare_run(run, tags=False))
    assert curve is not None
    assert PIXEL_SHIFT not in curve.goals
    assert len(curve.goals) == 2
    assert any(point.on_front for point in curve.points)


# --- how it is shown -----------------------------------------------------------------------


def test_reports_show_every_weight_and_the_plot(swept: Run, tmp_path: Path) -> None:
    deltas = compare_run(swept)
    curve = sweep_curve(swept, deltas)
    assert curve is not None
    plots = write_sweep_plot(curve, swept.info.metrics, tmp_path)
    assert [path.name for path in plots] == ["sweep.png"]
    assert write_sweep_plot(curve, swept.info.metrics, tmp_path)[0].read_bytes() == plots[0].read_bytes()
    view = build_view(swept, deltas, gate_of(swept))
    drawn, figures = draw_figures(view, tmp_path / "again")
    page, note = html(view, figures), markdown(view, drawn)
    assert drawn[-1].read_bytes() == plots[0].read_bytes()
    assert command(swept) == "hotart-bench sweep fake --lora spo --lora-weights 0,0.5,1,1.5 --device cpu"
    assert dict(setting_facts(swept))["Timing"] == "2 rounds of 5 images a variant, each in a fresh process"
    for text in (page, note):
        assert "Weights of spo" in text
        assert text.count("★") >= 1 + sum(point.on_front for point in curve.points)
    assert "weight of the LoRA; band: 95 % interval" in page
    assert "plots/sweep.png" in note
    rows = [line for line in note.splitlines() if line.startswith(tuple(f"| {w:g} |" for w in WEIGHTS))]
    assert len(rows) == len(WEIGHTS)
    assert len({row.count("|") for row in rows}) == 1


def test_the_section_stands_in_the_page_and_the_head_links_to_it(swept: Run) -> None:
    page = page_of(html(build_view(swept, compare_run(swept))))
    (nav,) = page.named("nav")
    assert [one.attributes["href"] for one in page.named("a") if one.text == "Weights"] == ["#sweep"]
    assert "Pareto" not in nav.text
    assert "Pareto" in page.named("main")[0].text
    names = {one.attributes["id"] for one in page.elements if "id" in one.attributes}
    assert {one.attributes["href"].removeprefix("#") for one in page.named("a")} - names == set()


def test_the_table_is_one_in_markdown(swept: Run) -> None:
    deltas = compare_run(swept)
    view = build_view(swept, deltas)
    assert view.sweep is not None
    tokens = MarkdownIt("commonmark").enable("table").parse(markdown(view, ()))
    heading = next(n for n, one in enumerate(tokens) if one.content == "Weights of spo")
    start = next(n for n in range(heading, len(tokens)) if tokens[n].type == "table_open")
    end = next(n for n in range(start, len(tokens)) if tokens[n].type == "table_close")
    between = [one.content for one in tokens[heading + 1 : start] if one.type == "inline"]
    assert between == [" ".join(sweep_note(view.sweep).split())]
    cells = [one.content for one in tokens[start:end] if one.type == "inline"]
    names = swept_metrics(swept, view.sweep)
    width = len(names) + 3
    assert cells[:width] == ["weight", *names, "pixel shift", "front"]
    assert cells[width::width] == [f"{weight:g}" for weight in WEIGHTS]
    assert len(cells) == width * (1 + len(WEIGHTS))
