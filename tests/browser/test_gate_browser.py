"""The gate's section in Chromium: words and shapes, the figure, image pairs, links, themes, a phone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from axe_rules import found, opened
from fakes import make_run, write_run
from report_gates import gate_on, verdicts
from report_runs import HOSTILE, with_suite
from selenium.webdriver import Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from bench.compare import compare_run
from bench.report import draw_figures, html
from bench.report.page import build_view


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report of a run with hostile prompts and a gate of every outcome between two of its variants."""
    folder = tmp_path_factory.mktemp("gated") / "run"
    run = make_run(folder, prompts=len(HOSTILE), samples=2, failed={("spo", "case-001", 0)})
    prompts = tuple(
        msgspec.structs.replace(prompt, text=text) for prompt, text in zip(run.info.suite.prompts, HOSTILE, strict=True)
    )
    run = with_suite(run, prompts=prompts)
    write_run(run, folder)
    gate = gate_on(
        run, verdicts(run, run), "invalid", baseline=str(folder), baseline_id=run.info.id, baseline_is_run=True
    )
    path = Path(folder) / "report.html"
    view = build_view(run, compare_run(run, tags=False), gate)
    path.write_text(html(view, draw_figures(view, Path(folder) / "plots")[1]))
    return path.as_uri()


def element(page: Chrome, selector: str) -> WebElement:
    return page.find_element(By.CSS_SELECTOR, selector)


def visible(page: Chrome, selector: str) -> list[WebElement]:
    return [one for one in page.find_elements(By.CSS_SELECTOR, selector) if one.is_displayed()]


def test_the_outcome_is_on_the_first_screen_and_leads_to_the_section(page: Chrome) -> None:
    link = element(page, ".gate-line a")
    assert link.rect["y"] + link.rect["height"] < 900
    assert link.text == "Gate: Invalid"
    page.execute_script("arguments[0].focus()", link)
    page.switch_to.active_element.send_keys(Keys.ENTER)
    top = page.execute_script("return document.getElementById('gate').getBoundingClientRect().top")
    assert 0 <= top < 100


def test_each_pair_of_images_is_loaded_and_its_prompt_stays_text(page: Chrome) -> None:
    page.execute_script("document.querySelectorAll('.worst').forEach((one) => { one.open = true; })")
    page.execute_script("document.querySelectorAll('.worst img').forEach((one) => { one.loading = 'eager'; })")
    loaded = "return [...document.querySelectorAll('.worst img')].every((one) => one.complete && one.naturalWidth > 0)"
    WebDriverWait(page, 20).until(lambda driver: driver.execute_script(loaded))
    pairs = page.find_elements(By.CSS_SELECTOR, ".worst .pairs > li")
    assert len(pairs) == 2 * len(HOSTILE)
    said = page.execute_script(
        "return [...document.querySelectorAll('.worst .quote')]"
        ".map((one) => [one.textContent, getComputedStyle(one).direction])"
    )
    assert {text for text, _ in said} == set(HOSTILE)
    assert dict(said)[HOSTILE[2]] == "rtl"


def test_the_folded_parts_open_by_keyboard(page: Chrome) -> None:
    summary = element(page, ".numbers > summary")
    assert not visible(page, ".numbers table")
    page.execute_script("arguments[0].focus()", summary)
    page.switch_to.active_element.send_keys(Keys.ENTER)
    assert len(visible(page, ".numbers table")) == 1
    rows = page.find_elements(By.CSS_SELECTOR, ".numbers tbody tr")
    assert len(rows) == 6
    assert "+0.121" in rows[0].text


def test_a_link_shows_its_row_even_where_a_filter_hid_it(page: Chrome) -> None:
    link = element(page, ".worst a[data-row-link]")
    row = f"#row-{link.get_attribute('data-row-link')}"
    element(page, "#search").send_keys("no prompt says this")
    assert not visible(page, row)
    page.execute_script("arguments[0].focus()", link)
    page.switch_to.active_element.send_keys(Keys.ENTER)
    assert element(page, row).is_displayed()
    top = "return document.querySelector(arguments[0]).getBoundingClientRect().top"
    WebDriverWait(page, 5).until(lambda driver: -5 <= driver.execute_script(top, row) < 900)


@pytest.mark.parametrize("width", [1280, 360])
def test_the_figures_text_is_readable_at_every_width(
    page: Chrome, resize: Callable[[int, int], None], width: int
) -> None:
    resize(width, 900)
    assert element(page, "#gate .figure svg").is_displayed()
    heights = page.execute_script(
        "return [...document.querySelectorAll('.figure text')].map((one) => one.getBoundingClientRect().height)"
    )
    assert len(heights) > 30
    assert min(heights) >= 11
    assert page.execute_script(OVERLAPS) == []


OVERLAPS = """
const found = [];
for (const figure of document.querySelectorAll('.figure svg')) {
  const boxes = [...figure.querySelectorAll('text')].map((one) => [one.textContent, one.getBoundingClientRect()]);
  for (const [index, [name, a]] of boxes.entries()) {
    for (const [other, b] of boxes.slice(index + 1)) {
      const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (wide > 1 && high > 4) found.push(`${name} / ${other}`);
    }
  }
}
return found;
"""


def test_nothing_scrolls_sideways_on_a_phone(page: Chrome, resize: Callable[[int, int], None]) -> None:
    resize(360, 800)
    page.execute_script("document.querySelectorAll('#gate details').forEach((one) => { one.open = true; })")
    assert page.execute_script("return document.documentElement.scrollWidth") == 360


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_of_a_gate_keeps_the_rules(page: Chrome, address: str, theme: str) -> None:
    opened(page, address, theme)
    assert found(page) == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_outcomes_colours_stand_out_from_the_page(page: Chrome, theme: str) -> None:
    page.execute_script(f"document.documentElement.dataset.theme = '{theme}'")
    ratios = page.execute_script(CONTRAST)
    assert set(ratios) == {"pass", "fail", "inconclusive", "invalid"}
    assert min(ratios.values()) >= 4.5


CONTRAST = """
const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
const light = (colour) => {
  canvas.fillStyle = colour;
  canvas.fillRect(0, 0, 1, 1);
  const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map((value) => {
    const share = value / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const paper = light(getComputedStyle(document.body).backgroundColor);
const found = {};
for (const item of document.querySelectorAll('.verdicts > li')) {
  const ink = light(getComputedStyle(item.querySelector('.verdict-word')).color);
  const [a, b] = [ink, paper].sort((x, y) => y - x);
  found[item.className] = (a + 0.05) / (b + 0.05);
}
return found;
"""
