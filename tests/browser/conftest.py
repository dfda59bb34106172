"""A real Chromium on a real report, opened as a file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from fakes import make_run, write_run
from report_runs import HOSTILE, with_suite
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from bench.compare import compare_run
from bench.records import Face, FacesAsked, FoundFaces, Run
from bench.report import draw_figures, html
from bench.report.page import build_view
from bench.store.journal import append_records

FAILED = ("spo", "case-001", 0)
FACES = {"base": 1, "dpo": 0, "spo": 2}
"""Faces of the first prompt's first sample, of 64 pixels a side."""


def find(names: tuple[str, ...], package: str) -> str:
    """The first of ``names`` that is installed; a machine without a browser fails these tests."""
    for name in names:
        found = shutil.which(name)
        if found:
            return found
    raise FileNotFoundError(f"The report's browser tests need {names[0]}; on Debian: apt-get install {package}")


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = find(("chromium", "/usr/bin/chromium", "chromium-browser", "google-chrome"), "chromium")
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--no-first-run",
        "--force-prefers-reduced-motion",  # no smooth scrolling under a click
        "--window-size=1280,900",
        f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = Service(find(("chromedriver", "/usr/bin/chromedriver"), "chromium-driver"))
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Eight prompts, two samples, three variants; one image failed, and the prompts are hostile."""
    made = make_run("run", prompts=len(HOSTILE), samples=2, failed={FAILED})
    prompts = tuple(
        msgspec.structs.replace(prompt, text=text)
        for prompt, text in zip(made.info.suite.prompts, HOSTILE, strict=True)
    )
    made = with_suite(made, prompts=prompts)
    folder = write_run(made, tmp_path_factory.mktemp("runs") / "run")
    images = {(one.variant, one.prompt_id, one.sample): one.sha256 for one in made.renders}
    append_records(
        folder / "faces.jsonl",
        [
            FoundFaces(
                variant=variant,
                prompt_id="case-000",
                sample=0,
                image_sha256=images[variant, "case-000", 0],
                detector="test",
                asked=FacesAsked(least=1, most=1),
                faces=tuple(Face(x1=8.0, y1=4.0 * x, x2=40.0, y2=36.0, probability=0.97) for x in range(1, count + 1)),
            )
            for variant, count in FACES.items()
        ],
    )
    return msgspec.structs.replace(made, path=str(folder))


@pytest.fixture(scope="session")
def address(run: Run) -> str:
    path = Path(run.path) / "report.html"
    view = build_view(run, compare_run(run, tags=False))
    path.write_text(html(view, draw_figures(view, Path(run.path) / "plots")[1]))
    return path.as_uri()


@pytest.fixture
def resize(browser: webdriver.Chrome) -> Callable[[int, int], None]:
    """Makes the view exactly so many pixels wide and high, a phone's where it is narrow."""

    def to(width: int, height: int) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    return to


@pytest.fixture
def page(browser: webdriver.Chrome, address: str, resize: Callable[[int, int], None]) -> Iterator[webdriver.Chrome]:
    """The report just opened; afterwards: nothing on the console, and nothing asked of any network."""
    resize(1280, 900)
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get(address)
    yield browser
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [
        message["params"]["request"]["url"] for message in messages if message["method"] == "Network.requestWillBeSent"
    ]
    assert [url for url in asked if not url.startswith(("data:", address))] == []
    assert address in asked
