"""People vote in Chromium: from a disk and from ``vote serve``, at three widths, and what they give back is counted."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait
from vote_runs import make_voted, newest_ballot

from bench.cli import run_command_line
from bench.compare.votes import vote_results
from bench.records import KeyPair
from bench.store import RunFolder, load_run
from bench.votes.key import KEY
from bench.votes.read import add_votes, read_votes
from bench.votes.serve import VOTES, open_server

WIDTHS = ((1440, 900), (768, 1024), (390, 844))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run and its page."""
    return make_voted(tmp_path_factory.mktemp("votes"), prompts=4, samples=2, variants=("base", "spo"))


@pytest.fixture
def fresh_run(made: tuple[Path, Path]) -> Iterator[Path]:
    """The run, without votes before and after."""
    yield made[0]
    (made[0] / "votes.jsonl").unlink(missing_ok=True)


@contextmanager
def served(page: Path) -> Iterator[str]:
    with open_server(page, 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server.address
        server.shutdown()
        thread.join()


def element(browser: Chrome, selector: str):
    return browser.find_element(By.CSS_SELECTOR, selector)


def waited(browser: Chrome, script: str) -> object:
    return WebDriverWait(browser, 20).until(lambda driver: driver.execute_script(f"return {script}"))


READY = "!document.querySelector('#vote').hidden && !document.querySelector('#pair').classList.contains('waiting')"


def progress(browser: Chrome) -> str:
    return element(browser, "#progress").text


def begin(browser: Chrome, address: str, name: str) -> None:
    browser.get(address)
    element(browser, "#name").send_keys(name)
    element(browser, "#begin button").click()
    waited(browser, READY)


def shown(browser: Chrome, pairs: dict[str, KeyPair]) -> tuple[KeyPair, str]:
    """The pair on the screen, and which of it is on the left."""
    left = browser.execute_script("return document.querySelector('#left').src").rpartition("/")[2]
    return next((pair, side) for pair in pairs.values() for side in ("a", "b") if getattr(pair, side).file == left)


def vote(browser: Chrome, pairs: dict[str, KeyPair], press: Callable[[str], None]) -> None:
    """Votes for spo, sees broken pictures, and calls equal ones a tie."""
    pair, left = shown(browser, pairs)
    right = "b" if left == "a" else "a"
    if pair.kind == "same":
        press("tie")
    elif pair.broken is not None:
        press("right" if pair.broken == left else "left")
    else:
        press("left" if getattr(pair, left).variant == "spo" else "right")
    assert {left, right} == {"a", "b"}


def by_key(browser: Chrome) -> Callable[[str], None]:
    keys = {"left": Keys.ARROW_LEFT, "right": Keys.ARROW_RIGHT, "tie": "t", "bad": "b"}
    return lambda choice: browser.switch_to.active_element.send_keys(keys[choice])


def by_click(browser: Chrome) -> Callable[[str], None]:
    return lambda choice: element(browser, f"[data-choice={choice}]").click()


def vote_all(browser: Chrome, run: Path, press: Callable[[str], None]) -> int:
    pairs = {pair.id: pair for pair in newest_ballot(run).pairs}
    for number in range(len(pairs)):
        waited(
            browser, f"{READY} && document.querySelector('#progress').textContent.startsWith('Pair {number + 1} of')"
        )
        vote(browser, pairs, press)
    waited(browser, "!document.querySelector('#done').hidden")
    return len(pairs)


def download(browser: Chrome, folder: Path) -> Path:
    folder.mkdir()
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(folder)})
    element(browser, "#done .save").click()
    return WebDriverWait(browser, 20).until(lambda _: next(iter(folder.glob("*.json")), None))


def asked_elsewhere(browser: Chrome, address: str) -> list[str]:
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"]
    return [url for url in asked if not url.startswith(("data:", "blob:", address))]


@pytest.mark.parametrize("size", WIDTHS, ids=str)
def test_votes_from_a_disk_come_back_as_a_file_that_counts(
    browser: Chrome, made: tuple[Path, Path], fresh_run: Path, tmp_path: Path, size: tuple[int, int], resize
) -> None:
    run, page = made
    resize(*size)
    browser.get_log("browser"), browser.get_log("performance")
    begin(browser, (page / "index.html").as_uri(), "Ada Łoś")
    many = vote_all(browser, run, by_key(browser) if size[0] > 1000 else by_click(browser))
    file = download(browser, tmp_path / "downloads")
    assert file.name.startswith("votes-Ada-Łoś-")
    assert browser.get_log("browser") == []
    assert asked_elsewhere(browser, page.as_uri()) == []
    with RunFolder.reopen(run) as folder:
        added = add_votes(folder, [file])
    assert (added.new, added.voters) == (many, ("Ada Łoś",))
    results = vote_results(load_run(run))
    assert results is not None
    (pair,) = results.pairs
    assert (pair.candidate, pair.wins, pair.losses) == ("spo", 8, 0)
    (voter,) = results.voters
    assert (voter.broken_right, voter.same_tied, voter.repeated_alike) == (2, 2, 2), "repeats have their sides changed"


def test_a_served_page_saves_every_vote_as_it_is_cast(
    browser: Chrome, made: tuple[Path, Path], fresh_run: Path, resize, capsys: pytest.CaptureFixture[str]
) -> None:
    run, page = made
    resize(1440, 900)
    pairs = {pair.id: pair for pair in newest_ballot(run).pairs}
    with served(page) as address:
        begin(browser, address, "Ben")
        for number in range(3):
            waited(
                browser, f"{READY} && document.querySelector('#progress').textContent.startsWith('Pair {number + 1} ')"
            )
            vote(browser, pairs, by_click(browser))
        waited(browser, "document.querySelector('#saved').textContent.startsWith('3 votes are kept by the server')")
        (file,) = (page / VOTES).glob("*.json")
        assert len(read_votes(file).votes) == 3
        begin_again = "document.querySelector('#voters button')"
        browser.get(address)
        waited(browser, begin_again)
        element(browser, "#voters button").click()
        waited(browser, READY)
        assert progress(browser).startswith("Pair 4 of"), "the same browser goes on where it stopped"
    browser.get_log("browser")
    assert run_command_line(["vote", "add", str(run), str(page / VOTES)]) == 0
    assert run_command_line(["vote", "status", str(run)]) == 0
    assert run_command_line(["compare", str(run)]) == 0
    out = capsys.readouterr().out
    assert "Votes of people" in out
    assert "Ben" in out
    file.unlink()


def test_going_back_changes_a_vote_and_reasons_are_kept(
    browser: Chrome, made: tuple[Path, Path], resize, tmp_path: Path
) -> None:
    page = made[1]
    resize(1280, 900)
    begin(browser, (page / "index.html").as_uri(), "Cy")
    browser.switch_to.active_element.send_keys("2", "5", Keys.ARROW_LEFT)
    waited(browser, f"{READY} && document.querySelector('#progress').textContent.startsWith('Pair 2 ')")
    browser.switch_to.active_element.send_keys(Keys.BACKSPACE)
    waited(browser, f"{READY} && document.querySelector('#progress').textContent.startsWith('Pair 1 ')")
    ticked = browser.execute_script(
        "return [...document.querySelectorAll('.why input:checked')].map((one) => one.value)"
    )
    assert ticked == ["composition", "faces and hands"]
    browser.switch_to.active_element.send_keys("b")
    waited(browser, f"{READY} && document.querySelector('#progress').textContent.startsWith('Pair 2 ')")
    folder = tmp_path / "downloads"
    folder.mkdir()
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(folder)})
    element(browser, "#vote .save").click()
    file = WebDriverWait(browser, 20).until(lambda _: next(iter(folder.glob("*.json")), None))
    (cast,) = read_votes(file).votes
    assert (cast.choice, cast.why) == ("bad", ("composition", "faces and hands"))


def to_pair(browser: Chrome, number: int) -> None:
    waited(browser, f"{READY} && document.querySelector('#progress').textContent.startsWith('Pair {number} ')")


def test_a_picture_that_is_gone_is_counted_and_comes_again_without_what_has_a_vote(
    browser: Chrome, tmp_path: Path, resize
) -> None:
    page = make_voted(tmp_path, prompts=2, samples=1, variants=("base", "spo"))[1]
    many = len(newest_ballot(tmp_path / "run").pairs)
    resize(1280, 900)
    begin(browser, (page / "index.html").as_uri(), "Flo")
    browser.switch_to.active_element.send_keys("t")
    to_pair(browser, 2)
    gone = page / browser.execute_script("return document.querySelector('#left').src.split('/').slice(-2).join('/')")
    data = gone.read_bytes()
    gone.write_bytes(b"")
    browser.get((page / "index.html").as_uri())
    element(browser, "#voters li:last-child button").click()
    to_pair(browser, 3)
    browser.switch_to.active_element.send_keys(Keys.BACKSPACE)
    to_pair(browser, 1)
    browser.switch_to.active_element.send_keys("b")
    for number in range(3, many + 1):
        to_pair(browser, number)
        browser.switch_to.active_element.send_keys("t")
    waited(browser, "!document.querySelector('#done').hidden")
    assert element(browser, "#told").text == f"You voted on {many - 1} of {many} pairs; 1 could not be shown."
    gone.write_bytes(data)
    browser.get((page / "index.html").as_uri())
    element(browser, "#voters li:last-child button").click()
    to_pair(browser, 2)
    browser.switch_to.active_element.send_keys("t")
    waited(browser, "!document.querySelector('#done').hidden")
    assert element(browser, "#told").text == f"You voted on {many} pairs, which are all."
    browser.get_log("browser")


def test_each_voter_sees_another_order_and_other_sides(browser: Chrome, made: tuple[Path, Path], resize) -> None:
    run, page = made
    resize(1280, 900)
    pairs = {pair.id: pair for pair in newest_ballot(run).pairs}
    seen = []
    for number in range(24):
        begin(browser, (page / "index.html").as_uri(), f"d{number}")
        seen.append(shown(browser, pairs))
    # All sides alike has a chance of 1 in 8 million.
    assert {left for _, left in seen} == {"a", "b"}
    assert len({pair.id for pair, _ in seen}) > 4


@pytest.mark.parametrize("size", WIDTHS, ids=str)
def test_the_page_is_labelled_fits_and_has_targets_of_24_px(
    browser: Chrome, made: tuple[Path, Path], resize, size: tuple[int, int], tmp_path: Path
) -> None:
    page = made[1]
    resize(*size)
    begin(browser, (page / "index.html").as_uri(), "Eve")
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    small = browser.execute_script(
        "return [...document.querySelectorAll('button, input, summary')].filter((one) => one.checkVisibility())"
        ".map((one) => [one.id || one.textContent, one.getBoundingClientRect()])"
        ".filter(([, box]) => box.width < 24 || box.height < 24).map(([name]) => name)"
    )
    assert small == []
    unnamed = browser.execute_script(
        "return [...document.querySelectorAll('button, input, img')].filter((one) => one.checkVisibility())"
        ".filter((one) => !(one.textContent.trim() || one.alt || one.ariaLabel || one.labels?.length)).length"
    )
    assert unnamed == 0
    browser.switch_to.active_element.send_keys(Keys.TAB)
    outline = browser.execute_script("return getComputedStyle(document.activeElement).outlineWidth")
    assert outline == "3px"
    element(browser, "#show-left").click()
    assert browser.execute_script("return document.querySelector('#large').open")
    browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not browser.execute_script("return document.querySelector('#large').open")


def test_the_page_never_gets_the_key(made: tuple[Path, Path]) -> None:
    assert not (made[1] / KEY).exists()
