"""Names, tags and words without a space, as long as they may be: nothing is wider than the window, all stay text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from fakes import make_run, write_run
from report_gates import gate_on, verdicts
from report_runs import with_info, with_suite
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from bench.compare import compare_run
from bench.report import draw_figures, html
from bench.report.page import build_view

LONG = "v" * 100
"""As long as a variant, a suite or a prompt's id may be."""
MARKUP = "<img/src=x/onerror=alert(1)>" + "&amp;" * 60
"""Tags and paths may be anything."""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("long") / "run"
    names = tuple(letter + LONG[1:] for letter in "abc")
    run = make_run(folder, prompts=4, samples=1, variants=names)
    write_run(run, folder)
    prompts = tuple(
        msgspec.structs.replace(prompt, tags=(MARKUP, "t" * 300), text="w" * 3000, negative="n" * 900, probes="p" * 900)
        for prompt in run.info.suite.prompts
    )
    run = with_suite(run, name="s" * 100, source=f"suites/{MARKUP}.toml", prompts=prompts, prompt_files=("f" * 200,))
    prints = tuple(msgspec.structs.replace(one, checkpoint=f"folder/{MARKUP}") for one in run.info.variants)
    run = with_info(run, variants=prints, settings_notes=("o" * 400,))
    gate = gate_on(run, verdicts(run, run), "fail", baseline=str(folder), baseline_id="i" * 100, baseline_is_run=True)
    path = Path(folder) / "report.html"
    view = build_view(run, compare_run(run), gate)
    path.write_text(html(view, draw_figures(view, Path(folder) / "plots")[1]))
    return path.as_uri()


@pytest.mark.parametrize("width", [1280, 360])
def test_nothing_is_wider_than_the_window(page: Chrome, resize: Callable[[int, int], None], width: int) -> None:
    resize(width, 900)
    page.execute_script("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    page.execute_script(
        "document.querySelectorAll('.case').forEach((one) => { one.style.contentVisibility = 'visible'; })"
    )
    assert page.execute_script(TOO_WIDE) == []
    assert page.execute_script("return document.documentElement.scrollWidth") <= width


TOO_WIDE = """
const scrolls = (one) => one.closest('.scroll, .figure, dialog') || one.matches('.skip');
return [...document.querySelectorAll('body *')]
  .filter((one) => !scrolls(one) && one.getBoundingClientRect().right > innerWidth + 1)
  .map((one) => `${one.tagName}.${one.className} in ${one.parentElement.className}: ${one.textContent.slice(0, 30)}`);
"""
"""Every element that ends beyond the window and lies in nothing that scrolls by itself."""


def test_what_is_no_name_stays_text(page: Chrome) -> None:
    assert page.find_elements(By.CSS_SELECTOR, "[onerror]") == []
    tags = page.execute_script("return [...document.querySelectorAll('.case .tag')].map((one) => one.textContent)")
    assert MARKUP in tags
