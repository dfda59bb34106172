"""axe-core finds nothing in the page, at three widths, light and dark; and what is printed is whole."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import pytest
from axe_rules import found, opened
from selenium.webdriver import Chrome

from bench.records import Run
from bench.report.folder import write_folder
from bench.store import load_run

WIDTHS = [(1440, 900), (768, 1024), (390, 844)]


@pytest.fixture(scope="module")
def folder_address(run: Run, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_folder(load_run(Path(run.path)), tmp_path_factory.mktemp("axe") / "page").as_uri()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", WIDTHS)
def test_the_page_keeps_the_rules(
    page: Chrome, address: str, resize: Callable[[int, int], None], size: tuple[int, int], theme: str
) -> None:
    resize(*size)
    opened(page, address, theme)
    assert found(page) == []
    page.execute_script("document.querySelector('#row-0 [data-open=\"2\"]').click()")
    assert found(page) == []
    page.execute_script("document.querySelector('[data-mode=side]').click()")
    assert found(page) == []


@pytest.mark.parametrize(
    ("size", "theme"), [*((size, "light") for size in WIDTHS), *((size, "dark") for size in WIDTHS)]
)
def test_the_page_of_a_folder_keeps_the_rules(
    browser: Chrome, folder_address: str, resize: Callable[[int, int], None], size: tuple[int, int], theme: str
) -> None:
    resize(*size)
    opened(browser, folder_address, theme)
    assert found(browser) == []
    browser.execute_script("document.querySelector('#row-0 [data-open=\"2\"]').click()")
    browser.execute_script("document.querySelector('[data-mode=difference]').click()")
    assert found(browser) == []


def test_on_paper_nothing_is_cut_and_heads_stay_with_what_follows(
    page: Chrome, resize: Callable[[int, int], None]
) -> None:
    resize(688, 1000)  # what A4 leaves between margins of 14 mm
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    wide = page.execute_script(
        "return [...document.querySelectorAll('main *')].filter((one) => one.checkVisibility()"
        " && one.getBoundingClientRect().right > 689 && !one.closest('pre, code'))"
        ".map((one) => `${one.tagName}.${one.getAttribute('class')}`)"
    )
    kept = page.execute_script(
        "return [...document.querySelectorAll('.section > header, h2, caption')]"
        ".filter((one) => getComputedStyle(one).breakAfter !== 'avoid').length"
    )
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert wide == []
    assert kept == 0
    printed = base64.b64decode(page.print_page())
    assert printed.startswith(b"%PDF")
