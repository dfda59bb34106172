"""Reports: what they say against numbers computed anew, that prompts stay text, and every unfinished run."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from fakes import make_run, png_bytes, write_run
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from PIL import Image
from report_runs import HOSTILE, Page, hostile_run, page_of, with_info, with_suite

from bench import formatting as report_text
from bench.compare import compare_run
from bench.errors import InvalidError, UsageError
from bench.records import Interval, Run
from bench.report import draw_figures, html, markdown, write_report
from bench.report import pictures as report_images
from bench.report.facts import command, elapsed
from bench.report.page import build_view
from bench.store import load_run

MINUS = "\N{MINUS SIGN}"


def html_of(run: Run, folder: Path) -> str:
    """The page of ``run``, whose images lie in ``folder``; without drawing plots."""
    write_run(run, folder)
    run = msgspec.structs.replace(run, path=str(folder))
    return html(build_view(run, compare_run(run)))


def markdown_of(run: Run) -> str:
    return markdown(build_view(run, compare_run(run)), ())


def data_of(page: Page) -> dict:
    return json.loads(page.named("script", id="data")[0].text)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = make_run("run", prompts=6, failed={("spo", "case-001", 0)})
    folder = write_run(run, tmp_path_factory.mktemp("runs") / "run")
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return page_of((folder / "report.html").read_text())


# --- the files -----------------------------------------------------------------------------


def test_both_reports_and_the_plots_are_written_whole(folder: Path) -> None:
    names = ["costs.png", "differences.png", "distributions.png", "tradeoff.png", "wins.png"]
    assert sorted(path.name for path in (folder / "plots").iterdir()) == names
    assert not list(folder.rglob("*.tmp"))


def test_the_same_run_gives_the_same_page(folder: Path, tmp_path: Path) -> None:
    run = load_run(folder)
    view = build_view(run, compare_run(run))
    plots, figures = draw_figures(view, tmp_path)
    assert html(view, figures) == (folder / "report.html").read_text()
    assert markdown(view, plots) == (folder / "report.md").read_text()
    assert all(path.read_bytes() == (folder / "plots" / path.name).read_bytes() for path in plots)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        write_report(tmp_path / "nothing")


def test_reporting_imports_neither_torch_nor_matplotlib_before_it_draws() -> None:
    code = "import sys, bench.report; sys.exit(bool({'torch', 'matplotlib'} & set(sys.modules)))"
    root = Path(__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


# --- the page ------------------------------------------------------------------------------


def test_the_page_asks_the_network_for_nothing(page: Page) -> None:
    for element in page.elements:
        for name in ("src", "href", "srcset", "action", "poster", "data"):
            address = element.attributes.get(name, "")
            assert not address or address.startswith(("data:", "#")), (element.name, address)
    style = page.named("style")[0].text
    assert "url(" not in style
    assert "@import" not in style


def test_the_policy_lets_in_this_script_alone(page: Page) -> None:
    policy = page.named("meta", **{"http-equiv": "Content-Security-Policy"})[0].attributes["content"]
    scripts = [one.text for one in page.named("script") if "type" not in one.attributes]
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts]
    assert len(scripts) == 1
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digests[0]}'" in policy
    assert "unsafe-eval" not in policy


def test_every_place_of_the_grid_is_an_image_or_a_record(folder: Path, page: Page) -> None:
    shots = page.named("button", class_="shot")
    assert len(shots) == 6 * 2 * 3 - 1
    pictures = [one for one in page.named("img") if one.attributes["alt"].startswith("spo: image for case-000")]
    png = base64.b64decode(pictures[0].attributes["src"].removeprefix("data:image/png;base64,"))
    assert png == (folder / "images" / "spo" / "case-000-0.png").read_bytes()
    records = [one.text for one in page.named("div", class_="failed")]
    assert records == ["FailedThe image is uniformly black, also after decoding in float32."]


def test_every_image_has_words_and_every_control_a_name(page: Page) -> None:
    assert all(one.attributes.get("alt") for one in page.named("img"))
    for button in page.named("button"):
        assert button.text.strip() or button.attributes.get("aria-label")
    ids = [one.attributes["id"] for one in page.elements if "id" in one.attributes]
    assert len(ids) == len(set(ids))


def test_the_headline_is_the_mean_of_paired_prompts(folder: Path, page: Page) -> None:
    scores = [json.loads(line) for line in (folder / "scores.jsonl").read_text().splitlines()]
    values = {
        (one["variant"], one["prompt_id"], one["sample"]): one["value"]
        for one in scores
        if one["metric"] == "mini-preference" and one["value"] is not None
    }
    prompts: dict[str, list[float]] = {}
    for (variant, prompt_id, sample), value in values.items():
        if variant == "spo":
            prompts.setdefault(prompt_id, []).append(value - values["base", prompt_id, sample])
    mean = np.mean([np.mean(own) for own in prompts.values()])
    rows = [one for one in page.named("tr") if one.text.strip().startswith(f"spo {MINUS} base")]
    assert f"+{mean:.2f}" in rows[0].text
    assert "1 missing" in rows[0].text
    assert any(f"+{mean:.2f})" in one.text for one in page.named("p") if "lead" in one.attributes.get("class", ""))


def test_the_data_for_sorting_are_the_scores(page: Page) -> None:
    data = data_of(page)
    run = make_run("run", prompts=6, failed={("spo", "case-001", 0)})
    values = {(one.variant, one.prompt_id, one.sample, one.metric): one.value for one in run.scores}
    assert data["variants"] == ["base", "dpo", "spo"]
    assert [one["name"] for one in data["metrics"]][:3] == ["mini-preference", "mini-aesthetic", "mini-clip"]
    assert data["pairs"][0] == [2, 0]
    for place, (prompt, sample, _) in enumerate(data["rows"]):
        for number, metric in enumerate(data["metrics"]):
            for index, variant in enumerate(data["variants"]):
                cell = (variant, data["prompts"][prompt][0], sample, metric["name"])
                assert data["scores"][number][index][place] == values.get(cell)
    failed = [data["records"][cell[3]] for column in data["cells"] for cell in column if cell[3] >= 0]
    assert failed == [["Failed", "The image is uniformly black, also after decoding in float32.", 1]]


def test_the_pages_figures_are_named_searchable_text_in_the_pages_colours(page: Page) -> None:
    figures = [one for one in page.named("svg") if one.attributes.get("role") == "img"]
    assert len(figures) == 2
    titles = {one.attributes["id"]: one.text for one in page.named("title") if "id" in one.attributes}
    for one in figures:
        name, description = one.attributes["aria-labelledby"].split()
        assert titles[name]
        assert page.named("desc", id=description)[0].text
    assert f"spo {MINUS} base" in figures[0].text
    assert "Preference against alignment" in figures[1].text
    assert "what is better in both lies up and to the right" in page.named("section", id="headline")[0].text
    styles = {one.attributes["style"] for one in page.named("use") + page.named("path") if "style" in one.attributes}
    assert any("var(--v2)" in style for style in styles)
    assert not any("#" in style.replace("url(#", "") for style in styles), "a colour that no theme changes"


def test_what_was_run_is_told(page: Page) -> None:
    told = " ".join(one.text for one in page.named("main"))
    run = make_run("run", prompts=6)
    for words in (
        "LoRAs were fused for the run.", "+ LoRA mini:spo × 1", "LoRAs fused, 64 modules changed",
        "ddim, leading, 20 steps, CFG 3, eta 0", "A CPU of two cores", run.info.protocol_digest, "2 min 40 s",
        "hotart-bench run fake", "same data", "0123456789abcdef0123456789abcdef01234567", "Weak figures",
    ):  # fmt: skip
        assert words in told, words
    copies = {one.attributes["data-copy"] for one in page.named("button", class_="copy")}
    assert {one.digest for one in run.info.variants} <= copies


def test_weak_figures_are_starred_and_their_reasons_are_said_once(page: Page, folder: Path) -> None:
    costs = page.named("section", id="costs")[0].text
    assert costs.count("*") == 21 + 1, "each figure of three variants, and the note"
    assert costs.casefold().count("weak") == 1
    said = (folder / "report.md").read_text("utf-8").partition("## Latency and memory")[2].partition("\n## ")[0]
    assert said.casefold().count("weak") == 1
    assert said.count("5 or more processes would be firm") == costs.count("5 or more processes would be firm") == 3


# --- prompts are text ----------------------------------------------------------------------


def test_hostile_prompts_stay_text(tmp_path: Path) -> None:
    page = page_of(html_of(hostile_run(), tmp_path / "run"))
    assert len(page.named("script")) == 2
    assert not page.named("b", onclick="")
    assert not [one for one in page.elements if any(name.startswith("on") for name in one.attributes)]
    assert all(one.attributes["src"].startswith("data:") for one in page.named("img"))
    assert not page.named("s")
    assert not page.named("em")
    prompts = [one for one in page.named("p", class_="prompt") if one.attributes["id"].startswith("prompt-")]
    assert [one.text for one in prompts] == list(HOSTILE)
    assert all(one.attributes["dir"] == "auto" for one in prompts)
    folded = [one.attributes["id"] for one in prompts if "long" in one.attributes["class"]]
    assert folded == ["prompt-6", "prompt-7"]
    data = data_of(page)
    assert data["tags"][data["prompts"][0][4][0]] == "<i>tag</i>"
    assert [one[1] for one in data["prompts"]] == list(HOSTILE)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(json_values)
def test_script_json_is_the_same_value_without_markup(value: object) -> None:
    text = report_text.script_json(value)
    assert json.loads(text) == value
    assert not re.search("[<>&\u2028\u2029]", text)


def test_script_json_refuses_nan() -> None:
    with pytest.raises(ValueError, match="JSON"):
        report_text.script_json([float("nan")])


def inline_text(source: str) -> str:
    """What a CommonMark reader shows of a paragraph's ``source``; fails where it shows more than text."""
    reader = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    tokens = reader.parse(source)
    assert [one.type for one in tokens] in ([], ["paragraph_open", "inline", "paragraph_close"])
    shown = ""
    for child in tokens[1].children or () if tokens else ():
        assert child.type in ("text", "text_special", "html_inline"), child
        assert child.type != "html_inline" or child.content == "<!-- -->"
        shown += "" if child.type == "html_inline" else child.content
    return shown


printable = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp", "Zs")) | st.just(" "))


marks = st.text("-+=.)12 #>*_`~|[]()<!&@\\:/w$ab", max_size=12)


@settings(max_examples=300, deadline=None)
@given(printable | marks)
def test_markdown_shows_the_text_and_nothing_else(text: str) -> None:
    assert inline_text(report_text.markdown(text)) == " ".join(text.split())


@pytest.mark.parametrize("prompt", [*HOSTILE, "- item", "1. item", "12) item", "---", "===", "    code", "~~~", "+ a"])
def test_hostile_prompts_are_text_in_markdown(prompt: str) -> None:
    assert inline_text(report_text.markdown(prompt)) == " ".join(prompt.split())
    if "://" in prompt:
        assert "https://" not in report_text.markdown(prompt)
        assert "www." not in report_text.markdown(prompt)
    cut = inline_text(report_text.markdown(prompt, 40))
    assert len(cut) <= 40


# --- the markdown page ---------------------------------------------------------------------


def test_markdown_tables_have_whole_rows_and_images_exist(folder: Path) -> None:
    source = (folder / "report.md").read_text()
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(source)
    widths: list[list[int]] = []
    for token in tokens:
        if token.type == "table_open":
            widths.append([])
        elif token.type == "tr_open":
            widths[-1].append(0)
        elif token.type in ("th_open", "td_open"):
            widths[-1][-1] += 1
    assert len(widths) > 10
    assert all(len(set(rows)) == 1 for rows in widths)
    named = re.findall(r'<img src="([^"]+)"', source) + re.findall(r"!\[[^\]]*\]\(([^)]+)\)", source)
    assert len([path for path in named if path.startswith("plots/")]) == 5
    assert len([path for path in named if path.startswith("images/")]) >= 9
    assert all((folder / path).is_file() for path in named)
    # Each table row stands on its own line with as many bars as its head.
    for line in source.splitlines():
        assert not line.startswith("|") or line.endswith("|"), line


DETAILS = ("<details>", "</details>", "<summary>", "</summary>")
"""Around the statistics of a finding."""


def test_markdown_of_a_hostile_run_has_no_markup_of_its_own(tmp_path: Path) -> None:
    run = hostile_run()
    write_run(run, tmp_path)
    source = markdown_of(msgspec.structs.replace(run, path=str(tmp_path)))
    tags = set(re.findall(r"<[^>]*>", re.sub(r"```.*?```", "", source, flags=re.DOTALL)))
    assert all(tag in ("<br>", "<!-- -->", *DETAILS) or tag.startswith('<img src="images/') for tag in tags), tags
    assert "alert(1)" not in re.sub(r"\\", "", "".join(tags))


# --- runs that lack something --------------------------------------------------------------


def test_a_started_run_says_so(tmp_path: Path) -> None:
    run = make_run("run", prompts=4)
    part = msgspec.structs.replace(with_info(run, status="started", end=None), renders=run.renders[:5], timings=())
    page = page_of(html_of(part, tmp_path / "run"))
    assert "not finished: 5 of 24 images" in page.named("p", class_="banner")[0].text
    assert "Not rendered yet" in page.named("div", class_="record")[0].text
    assert not [one for one in page.named("section") if one.attributes.get("id") == "costs"]


def test_a_failed_run_says_so(tmp_path: Path) -> None:
    page = page_of(html_of(with_info(make_run("run", prompts=2), status="failed"), tmp_path / "run"))
    assert "ended with an error" in page.named("p", class_="banner")[0].text


def test_a_limited_run_says_so(tmp_path: Path) -> None:
    run = with_suite(make_run("run", prompts=2), limit=2)
    page = page_of(html_of(run, tmp_path / "run"))
    assert "Only the first 2 prompts" in page.named("p", class_="banner")[0].text
    assert "hotart-bench run fake --limit 2" in page.named("div", class_="command")[0].text


def test_nothing_rendered_is_a_page_all_the_same(tmp_path: Path) -> None:
    run = with_info(make_run("run", prompts=2), status="started", end=None, variants=(), git=None)
    empty = msgspec.structs.replace(run, renders=(), scores=(), timings=())
    page = page_of(html_of(empty, tmp_path / "run"))
    assert page.named("p", class_="lead")[0].text == "Nothing has been scored yet."
    assert "not in a git repository" in page.named("main")[0].text
    assert "not loaded in this run" in page.named("main")[0].text


@pytest.mark.parametrize("variants", [("base",), ("base", "spo")])
def test_few_variants_and_one_prompt(tmp_path: Path, variants: tuple[str, ...]) -> None:
    run = make_run("run", prompts=1, samples=1, variants=variants)
    page = page_of(html_of(run, tmp_path / "run"))
    lead = page.named("p", class_="lead")[0].text
    assert lead.startswith("One variant" if len(variants) == 1 else "Not shown: spo gains over base in no metric")
    assert len(page.named("article")) == 1


def test_missing_scores_are_dashes(tmp_path: Path) -> None:
    run = make_run("run", prompts=3, samples=1)
    kept = tuple(one for one in run.scores if (one.metric, one.prompt_id) != ("mini-preference", "case-000"))
    page = page_of(html_of(msgspec.structs.replace(run, scores=kept), tmp_path / "run"))
    cells = [one.text for one in page.named("span", **{"data-score": "0"})]
    assert cells[0] == "–"
    assert "–" not in cells[1:]


def test_unreadable_images_are_said_to_be(tmp_path: Path) -> None:
    run = make_run("run", prompts=2, samples=1)
    folder = write_run(run, tmp_path / "run")
    (folder / "images/dpo/case-000-0.png").unlink()
    (folder / "images/spo/case-001-0.png").write_bytes(png_bytes("spo", "case-001", 0, 0)[:60])
    run = msgspec.structs.replace(run, path=str(folder))
    page = page_of(html(build_view(run, compare_run(run))))
    assert [one.text.split(":")[0] for one in page.named("div", class_="failed")] == [
        "UnreadableThe file images/dpo/case-000-0.png cannot be read",
        "UnreadableThe file images/spo/case-001-0.png cannot be read",
    ]
    assert "2 image files of the run folder could not be read." in page.named("p", class_="banner")[0].text


def test_a_timing_of_zero_is_refused(tmp_path: Path) -> None:
    run = make_run("run", prompts=1)
    zero = msgspec.structs.replace(run.timings[0], values=(0.0,))
    broken = msgspec.structs.replace(run, timings=(zero, *run.timings[1:]))
    with pytest.raises(InvalidError):
        html_of(broken, tmp_path / "run")


def test_many_rows_are_embedded_up_to_a_limit_and_the_rest_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_images, "MAX_ROWS", 10)
    variants = ("base", "dpo", "spo", "c", "d", "e", "f", "g")
    run = make_run("run", prompts=12, samples=2, variants=variants)
    page = page_of(html_of(run, tmp_path / "run"))
    assert len(page.named("button", class_="shot")) == 10 * 8
    links = [one.attributes["href"] for one in page.named("a") if one.attributes["href"].startswith("images/")]
    assert len(links) == (24 - 10) * 8
    assert all((tmp_path / "run" / link).is_file() for link in links)
    assert "80 of 192 images are embedded" in page.named("main")[0].text
    # A cut takes second samples first: every prompt keeps a picture as long as there are rows for it.
    assert {link.rsplit("-", 1)[1] for link in links} == {"0.png", "1.png"}
    assert sum(link.endswith("-0.png") for link in links) == 2 * 8


def test_the_budget_of_bytes_ends_embedding_at_a_whole_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run("run", prompts=5, samples=1)
    run = msgspec.structs.replace(run, path=str(write_run(run, tmp_path)))
    monkeypatch.setattr(report_images, "MAX_BYTES", 1)
    pictures, broken = report_images.embed(run, [(prompt.id, 0) for prompt in run.info.suite.prompts])
    assert set(pictures) == {(name, "case-000", 0) for name in ("base", "dpo", "spo")}
    assert not broken


def test_two_hundred_prompts_and_eight_variants_are_reported(tmp_path: Path) -> None:
    variants = ("base", "dpo", "spo", "c", "d", "e", "f", "g")
    run = make_run("run", prompts=220, samples=1, variants=variants)
    view = build_view(msgspec.structs.replace(run, path=str(tmp_path)), ())
    text = html(view)
    assert len(view.rows) == 220
    assert text.count('<article class="case" id=') == 220
    assert view.title == "8 variants"


# --- images --------------------------------------------------------------------------------


def test_small_images_are_embedded_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "small.png"
    path.write_bytes(png_bytes("base", "case-000", 0, 0))
    found = report_images.picture(path.read_bytes())
    assert base64.b64decode(found.uri.removeprefix("data:image/png;base64,")) == path.read_bytes()
    assert (found.width_px, found.height_px, found.reduced) == (64, 64, False)


def test_large_images_become_small_webp_of_the_same_shape(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (832, 1216, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "large.png")
    found = report_images.picture((tmp_path / "large.png").read_bytes())
    (tmp_path / "copy.webp").write_bytes(base64.b64decode(found.uri.removeprefix("data:image/webp;base64,")))
    with Image.open(tmp_path / "copy.webp") as copy:
        assert copy.format == "WEBP"
        assert copy.size == (640, 438)
    assert (found.width_px, found.height_px, found.reduced) == (1216, 832, True)


# --- words and numbers ---------------------------------------------------------------------


def test_the_summary_names_what_is_better_worse_and_not_told_apart(tmp_path: Path) -> None:
    run = make_run("run", prompts=40, effect={"spo": {"mini-preference": 2.0, "mini-clip": -0.2}})
    view = build_view(msgspec.structs.replace(run, path=str(tmp_path)), compare_run(run))
    assert re.fullmatch(
        r"spo is better than base on preference \(mini-preference \+[\d.]+\); worse on alignment "
        rf"\(mini-clip {MINUS}[\d.]+\); not told apart on aesthetics \(mini-aesthetic .[\d.]+\)\.",
        view.summary[1],
    )
    assert not any("few" in one for one in view.cautions)


def test_that_every_metric_overlaps_in_training_is_said(tmp_path: Path) -> None:
    run = make_run("run", prompts=3)
    said = build_view(msgspec.structs.replace(run, path=str(tmp_path)), compare_run(run)).cautions
    assert any(
        "was trained to please mini-preference" in one or "were trained to please mini-preference" in one
        for one in said
    )
    assert any("free of training overlap" in one for one in said)
    other = with_info(run, trained_on={})
    said = build_view(msgspec.structs.replace(other, path=str(tmp_path)), compare_run(other)).cautions
    assert any("unknown: say what it was trained on: trained_on = [...]" in one for one in said)
    facts = tuple(msgspec.structs.replace(one, trained_on=()) for one in run.info.metrics)
    other = with_info(run, metrics=facts)
    said = build_view(msgspec.structs.replace(other, path=str(tmp_path)), compare_run(other)).cautions
    assert said == ("3 prompts are few: read the intervals, not the means.",)


@pytest.mark.parametrize(
    ("value", "unit", "written"),
    [
        (0.0213, "second", "21.3 ms"), (1.3, "second", "1.30 s"), (123.4, "second", "123 s"),
        (0.0000042, "second", "4.20 µs"), (640 * 2**20, "byte", "640 MiB"), (5.5 * 2**30, "byte", "5.50 GiB"),
        (12.0, "joule", "12.0 J"), (0.0, "second", "0 µs"),
    ],
)  # fmt: skip
def test_quantities_have_three_figures(value: float, unit: str, written: str) -> None:
    assert report_text.quantity(value, unit) == written  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "decimals", "written"),
    [(1.234, 2, "+1.23"), (-0.5, 1, f"{MINUS}0.5"), (-0.0001, 2, "0.00"), (0.0, 1, "0.0"), (None, 2, "–")],
)
def test_signs_are_true_and_zero_has_none(value: float | None, decimals: int, written: str) -> None:
    assert report_text.signed(value, decimals) == written


@pytest.mark.parametrize(
    ("value", "low", "high", "written"),
    [
        (1.034, 1.0101, 1.0584, "1.034 [1.010, 1.058]"), (5.123, 0.024, 386.204, "5 [0.02, 386]"),
        (0.51, 0.4, 0.65, "0.51 [0.40, 0.65]"), (12.4, 11.9, 12.9, "12.40 [11.90, 12.90]"),
        (1.0, 1.0, 1.0, "1.000 [1.000, 1.000]"), (1.0341, None, None, "1.03"), (13.41, None, None, "13.4"),
    ],
)  # fmt: skip
def test_ratios_have_the_digits_that_their_interval_supports(
    value: float, low: float | None, high: float | None, written: str
) -> None:
    found = None if low is None or high is None else Interval(low=low, high=high, method="t")
    assert " ".join(report_text.ratio_and_interval(value, found)).rstrip() == written


@pytest.mark.parametrize(("share", "written"), [(0.5, "50 %"), (0.999, ">99 %"), (0.001, "<1 %"), (1.0, "100 %")])
def test_per_cents_are_never_rounded_to_certainty(share: float, written: str) -> None:
    assert report_text.percent(share) == written


def test_the_command_is_quoted_for_a_shell() -> None:
    run = with_suite(make_run("run"), source="my suites/it's.toml")
    assert command(run) == "hotart-bench run 'my suites/it'\"'\"'s.toml' --device cpu"
    part = with_info(make_run("run"), variants=make_run("run").info.variants[::2])
    assert command(part) == "hotart-bench run fake --variants base,spo --device cpu"


def test_durations_are_in_the_units_one_thinks_in() -> None:
    start = "2025-01-02T03:04:05+00:00"
    assert elapsed(start, "2025-01-02T03:04:35+00:00") == "30 s"
    assert elapsed(start, "2025-01-02T03:06:10+00:00") == "2 min 05 s"
    assert elapsed(start, "2025-01-02T05:06:10+00:00") == "2 h 02 min"
