"""The page as a folder in Chromium, from a disk: stored files in the large view, many rows, nothing fetched."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from fakes import make_run, write_run
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait

from bench.records import Run
from bench.report.folder import write_folder
from bench.store import load_run


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``index.html`` of 220 rows; the first two variants' images of the first prompt are equal."""
    run = make_run("run", prompts=110, samples=2)
    first = next(one for one in run.renders if (one.variant, one.prompt_id) == ("base", "case-000"))
    renders = tuple(
        msgspec.structs.replace(one, pixels_sha256=first.pixels_sha256)
        if (one.variant, one.prompt_id, one.sample) == ("dpo", "case-000", 0)
        else one
        for one in run.renders
    )
    folder = write_run(msgspec.structs.replace(run, renders=renders), tmp_path_factory.mktemp("many") / "run")
    return write_folder(load_run(folder))


@pytest.fixture
def folder_page(browser: Chrome, many: Path, resize: Callable[[int, int], None]) -> Chrome:
    resize(1280, 900)
    browser.get("about:blank")
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get(many.as_uri())
    return browser


def rows(page: Chrome) -> list[int]:
    found: list[int] = page.execute_script(
        "return [...document.querySelectorAll('.case')].map((one) => Number(one.dataset.row))"
    )
    return found


def settled(page: Chrome) -> None:
    page.execute_async_script(
        "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 60)))"
    )


def test_only_its_own_files_are_loaded_and_the_console_is_silent(folder_page: Chrome, many: Path) -> None:
    folder_page.execute_script("document.querySelector('[data-open=\"2\"]').click()")
    whole = "return [...document.images].filter((one) => one.checkVisibility()).every((one) => one.naturalWidth > 0)"
    WebDriverWait(folder_page, 10).until(lambda driver: driver.execute_script(whole))
    assert folder_page.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in folder_page.get_log("performance")]
    asked = [one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"]
    home = many.parent.parent.as_uri()
    assert [url for url in asked if not url.startswith(("data:", home))] == []
    assert f"{home}/images/spo/case-000-0.png" in asked, "the large view shows the stored file"
    assert sum(url.endswith(".webp") for url in asked) < 220, "and the list only copies that are near"


def test_few_rows_are_in_the_page_and_all_can_be_reached(folder_page: Chrome) -> None:
    assert folder_page.find_element(By.ID, "count").text == "220 of 220 rows"
    assert len(rows(folder_page)) < 30
    seen = set(rows(folder_page))
    height = folder_page.execute_script("return document.documentElement.scrollHeight")
    for top in range(0, height, 1200):
        folder_page.execute_script("scrollTo({top: arguments[0], behavior: 'instant'})", top)
        settled(folder_page)
        now = rows(folder_page)
        assert now == sorted(now)
        assert len(now) < 30
        seen |= set(now)
    assert seen == set(range(220))


def test_the_place_of_a_row_holds_while_rows_above_it_are_measured(folder_page: Chrome, many: Path) -> None:
    folder_page.get("about:blank")
    folder_page.get(f"{many.as_uri()}#row-171")
    settled(folder_page)
    top = "return document.getElementById('row-171').getBoundingClientRect().top"
    WebDriverWait(folder_page, 5).until(lambda driver: 0 < driver.execute_script(top) < 260)
    before = folder_page.execute_script(top)
    for _ in range(3):
        settled(folder_page)
    assert folder_page.execute_script(top) == pytest.approx(before, abs=2)


def test_search_and_order_reach_rows_that_are_not_in_the_page(folder_page: Chrome) -> None:
    folder_page.find_element(By.ID, "search").send_keys("case-109")
    assert rows(folder_page) == [218, 219]
    folder_page.find_element(By.ID, "reset").click()
    Select(folder_page.find_element(By.ID, "order")).select_by_visible_text("Most worsened first")
    data = json.loads(folder_page.execute_script("return JSON.stringify(window.hotartBench)"))
    candidate, reference = data["pairs"][0]
    change = [a - b for a, b in zip(data["scores"][0][candidate], data["scores"][0][reference], strict=True)]
    worst = sorted(range(220), key=lambda row: change[row])
    assert rows(folder_page) == worst[: len(rows(folder_page))]


def test_equal_pixels_are_said_to_be(folder_page: Chrome) -> None:
    assert [one.text for one in folder_page.find_elements(By.CSS_SELECTOR, "#row-0 .same")] == ["same pixels as base"]
    folder_page.execute_script("document.querySelector('#row-0 [data-open=\"1\"]').click()")
    assert folder_page.find_element(By.ID, "view-note").text == "dpo: the same pixels as base. 64 × 64 px."


def test_a_page_whose_stored_files_are_gone_shows_its_copies(
    browser: Chrome, tmp_path: Path, resize: Callable[[int, int], None]
) -> None:
    resize(1280, 900)
    run = make_run("run", prompts=2, samples=1)
    home = write_run(run, tmp_path / "run")
    write_folder(load_run(home))
    shutil.move(home / "page", tmp_path / "sent")
    browser.get((tmp_path / "sent" / "index.html").as_uri())
    browser.execute_script("document.querySelector('[data-open=\"2\"]').click()")
    note = "return document.getElementById('view-note').textContent"
    WebDriverWait(browser, 5).until(lambda driver: "small copy is shown" in driver.execute_script(note))
    copies = browser.find_elements(By.CSS_SELECTOR, "#stage .plane img")
    assert [one.get_attribute("alt") for one in copies] == ["base: image for case-000", "spo: image for case-000"]
    browser.get_log("browser")


def test_a_folder_elsewhere_is_whole_by_itself(
    browser: Chrome, run: Run, tmp_path: Path, resize: Callable[[int, int], None]
) -> None:
    resize(390, 800)
    page = write_folder(load_run(Path(run.path)), tmp_path / "page")
    browser.get("about:blank")
    browser.get_log("browser")
    browser.get(page.as_uri())
    prompts = browser.execute_script(
        "return [...document.querySelectorAll('.case .prompt')].map((one) => one.textContent)"
    )
    assert prompts[::2] == [one.text for one in run.info.suite.prompts]
    assert browser.execute_script("return document.documentElement.scrollWidth") == 390
    browser.execute_script("document.querySelector('[data-open=\"2\"]').click()")
    loaded = "return [...document.querySelectorAll('#stage img')].every((one) => one.complete && one.naturalWidth > 0)"
    WebDriverWait(browser, 5).until(lambda driver: driver.execute_script(loaded))
    sources = browser.execute_script("return [...document.querySelectorAll('#stage img')].map((one) => one.src)")
    assert (page.parent / "images/spo/case-000-0.png").as_uri() in sources
    assert browser.get_log("browser") == []
