"""``nox -s page``: how quick and how large the folder page of a large run is in Chromium.

Two made runs: 8 variants x 500 prompts x 4 samples of 512x512 pictures, and 3 variants x 564 prompts of 1024x1024.
Their pictures are painted, not rendered. Each page is opened three times, each time by a browser that was just started,
with the files in the page cache. ``SHAPE`` (``many``, ``large``, ``tiny``) takes one of them; ``SHAPE=FOLDER`` keeps
its run there, or uses the one that is.
"""

from __future__ import annotations

import hashlib
import shutil
import statistics
import struct
import sys
import tempfile
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

import msgspec
import psutil
from fakes import make_run, png_bytes, write_run
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from bench.records import Render
from bench.report import write_report
from bench.report.folder import folder_bytes, write_folder
from bench.store import load_run

from .figure import Figure, figure_of, plain_figure, table

TURNS = 3
MIB = 2**20


class Shape(NamedTuple):
    """The size of a made run."""

    variants: int
    prompts: int
    samples: int
    side_px: int


SHAPES = {"many": Shape(8, 500, 4, 512), "large": Shape(3, 564, 1, 1024), "tiny": Shape(2, 6, 1, 64)}


def main(names: Sequence[str]) -> None:
    """Print the figures of the named runs, or of ``many`` and ``large``."""
    found: list[Figure] = []
    for name in names or ("many", "large"):
        shape, _, folder = name.partition("=")
        if shape not in SHAPES:
            raise SystemExit(f"There is no run {shape!r}; there are {', '.join(SHAPES)}.")
        with tempfile.TemporaryDirectory() as place:
            for figure in figures_of(shape, Path(folder or place)):
                sys.stdout.write(figure.line() + "\n")
                sys.stdout.flush()
                found.append(figure)
    sys.stdout.write("\n" + table(found) + "\n")


def figures_of(name: str, place: Path) -> Iterator[Figure]:
    """The figures of a run's folder page, and of its ``report.html`` beside them, which has no goals."""
    run = place / "run"
    if not run.is_dir():
        write_painted(SHAPES[name], run)
    start = time.perf_counter()
    page = write_folder(load_run(run))
    yield plain_figure(f"page_{name}_write_s", [time.perf_counter() - start])
    yield plain_figure(f"page_{name}_mib", [folder_bytes(page.parent) / MIB])
    yield from seen_figures(f"page_{name}", [looked_at(page) for _ in range(TURNS)])
    report, _ = write_report(run)
    yield plain_figure(f"report_{name}_mib", [report.stat().st_size / MIB])
    yield from seen_figures(f"report_{name}", [looked_at(report)], goals=False)


GOALS = {"first_paint_s": 1.0, "renderer_mib": 400.0, "search_s": 0.2, "sort_s": 0.2}


def seen_figures(prefix: str, turns: Sequence[dict[str, float]], *, goals: bool = True) -> Iterator[Figure]:
    """What was measured of a page, a figure each."""
    for name in turns[0]:
        values = [turn[name] for turn in turns]
        if goals and name in GOALS:
            yield figure_of(f"{prefix}_{name}", values, "<", GOALS[name])
        else:
            yield plain_figure(f"{prefix}_{name}", values)


def looked_at(page: Path) -> dict[str, float]:
    """Opens a page in a new browser, searches, sorts, scrolls and opens the large view.

    ``first_paint_s``: First Contentful Paint; ``load_s``: until all of the page is there. ``search_s``, ``sort_s``:
    from the input to the second frame after it, the median of several. ``scroll_s``: the same of a jump to another
    place of the list. ``heap_mib``: of the script's heap in use. ``renderer_mib``: resident memory of the process that
    has the page, at its largest of four moments: loaded, searched, scrolled, in the large view; ``processes_mib``: of
    all processes of the browser, shared memory counted once, at its largest.
    """
    with browser() as driver:
        driver.get(page.as_uri())
        driver.execute_async_script(_AFTER_LOAD)
        paint_s, load_s = driver.execute_script(_PAINT)
        memory = [memory_of(driver)]
        search = [driver.execute_async_script(_SEARCH, words) for words in ("red hair", "harbour", "lamp", "")]
        sort = [driver.execute_async_script(_SORT, order) for order in ("worst", "best", "change", "suite")]
        memory.append(memory_of(driver))
        scroll = [driver.execute_async_script(_SCROLL, share / 10) for share in (1, 9, 3, 7, 5, 2, 8)]
        memory.append(memory_of(driver))
        driver.execute_async_script(_LARGE_VIEW)
        memory.append(memory_of(driver))
        driver.execute_cdp_cmd("Performance.enable", {})
        metrics = driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
        heap = next(one["value"] for one in metrics if one["name"] == "JSHeapUsedSize")
        return {
            "first_paint_s": paint_s,
            "load_s": load_s,
            "search_s": statistics.median(search),
            "sort_s": statistics.median(sort),
            "scroll_s": statistics.median(scroll),
            "elements": driver.execute_script("return document.getElementsByTagName('*').length"),
            "heap_mib": heap / MIB,
            "renderer_mib": max(renderer for renderer, _ in memory),
            "processes_mib": max(whole for _, whole in memory),
        }


_AFTER_LOAD = """
const done = arguments[0];
const settle = () => setTimeout(done, 1500);
if (document.readyState === 'complete') settle(); else addEventListener('load', settle);
"""
_PAINT = """
const paint = performance.getEntriesByName('first-contentful-paint')[0];
return [paint.startTime / 1000, performance.getEntriesByType('navigation')[0].loadEventEnd / 1000];
"""
_TIMED = """
const [value, done] = arguments;
const start = performance.now();
const end = () => requestAnimationFrame(() => requestAnimationFrame(() => done((performance.now() - start) / 1000)));
"""
_SEARCH = f"{_TIMED} const field = document.getElementById('search'); field.value = value;"
_SEARCH += "field.dispatchEvent(new Event('input', {bubbles: true})); end();"
_SORT = f"{_TIMED} const field = document.getElementById('order'); field.value = value;"
_SORT += "field.dispatchEvent(new Event('change', {bubbles: true})); end();"
_SCROLL = f"{_TIMED} scrollTo({{top: value * document.documentElement.scrollHeight, behavior: 'instant'}}); end();"
_LARGE_VIEW = """
const done = arguments[0];
location.hash = '#row-0';
setTimeout(() => {
  document.querySelector('[data-open]').click();
  document.querySelector('[data-mode=side]')?.click();
  setTimeout(done, 1500);
}, 500);
"""


@contextmanager
def browser() -> Iterator[webdriver.Chrome]:
    """A Chromium that was just started, with a profile of its own."""
    options = webdriver.ChromeOptions()
    options.binary_location = _found("chromium", "chromium-browser", "google-chrome")
    with tempfile.TemporaryDirectory() as profile:
        for flag in (
            *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--window-size=1440,900"),
            f"--user-data-dir={profile}",
        ):
            options.add_argument(flag)
        driver = webdriver.Chrome(options=options, service=Service(_found("chromedriver")))
        try:
            driver.set_script_timeout(120)
            yield driver
        finally:
            driver.quit()


def _found(*names: str) -> str:
    found = next((path for path in map(shutil.which, names) if path), None)
    if found is None:
        raise SystemExit(f"nox -s page needs {names[0]}; on Debian: apt-get install chromium chromium-driver")
    return found


def memory_of(driver: webdriver.Chrome) -> tuple[float, float]:
    """MiB of the largest renderer, resident, and of all processes of the browser, shared memory counted once."""
    processes = psutil.Process(driver.service.process.pid).children(recursive=True)
    renderers, whole = [0.0], 0.0
    for process in processes:
        try:
            info = process.memory_full_info()
            if "--type=renderer" in process.cmdline():
                renderers.append(info.rss / MIB)
            whole += info.pss / MIB
        except psutil.Error:  # it has just ended
            continue
    return max(renderers), whole


def write_painted(shape: Shape, folder: Path) -> None:
    """A run of this shape whose pictures are painted: a few, each written many times with another number inside."""
    names = ["base", *(f"variant-{number}" for number in range(1, shape.variants))]
    run = make_run(folder, prompts=shape.prompts, samples=shape.samples, variants=names, effect={})
    settings = msgspec.structs.replace(run.info.suite.settings, width=shape.side_px, height=shape.side_px)
    info = msgspec.structs.replace(run.info, suite=msgspec.structs.replace(run.info.suite, settings=settings))
    write_run(msgspec.structs.replace(run, info=info, renders=(), scores=()), folder)
    painted = [_painted(folder, one, number, shape) for number, one in enumerate(run.renders)]
    _write_lines(folder / "renders.jsonl", painted)
    digests = {(one.variant, one.prompt_id, one.sample): one.sha256 for one in painted}
    scored = (
        msgspec.structs.replace(one, image_sha256=digests[one.variant, one.prompt_id, one.sample]) for one in run.scores
    )
    _write_lines(folder / "scores.jsonl", scored)


def _write_lines(path: Path, records: Iterable[msgspec.Struct]) -> None:
    path.write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in records))


def _painted(folder: Path, render: Render, number: int, shape: Shape) -> Render:
    data = _numbered(_painting(render.variant, number % 4, shape.side_px), number)
    path = folder / str(render.image)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    return msgspec.structs.replace(render, sha256=digest, pixels_sha256=digest)


@cache
def _painting(variant: str, number: int, side_px: int) -> bytes:
    return png_bytes(variant, f"painting-{number}", 0, 0, side_px)


def _numbered(png: bytes, number: int) -> bytes:
    """A PNG with a text chunk that has a number, so that no two files are equal."""
    body = b"tEXtnumber\x00" + str(number).encode()
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return png[:33] + chunk + png[33:]  # after the signature and IHDR


if __name__ == "__main__":
    main(sys.argv[1:])
