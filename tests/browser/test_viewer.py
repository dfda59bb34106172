"""The large view in Chromium: ways to compare, zoom and movement in step, keys, addresses that show the same again."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qsl

import numpy as np
import pytest
from fakes import make_run, write_run
from PIL import Image
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait

from bench.compare import compare_run
from bench.records import Run
from bench.report import html
from bench.report.page import build_view


def element(page: Chrome, selector: str) -> WebElement:
    return page.find_element(By.CSS_SELECTOR, selector)


def texts(page: Chrome, selector: str) -> list[str]:
    found = page.find_elements(By.CSS_SELECTOR, selector)
    return [one.text for one in found if one.is_displayed()]


def open_first(page: Chrome, row: int = 0, variant: int = 2) -> None:
    page.execute_script(f"document.querySelector('#row-{row} [data-open=\"{variant}\"]').click()")


def press(page: Chrome, *keys: str) -> None:
    for key in keys:
        element(page, "#viewer").send_keys(key)


def planes(page: Chrome) -> list[list[float]]:
    """Left, top, width and height of every image of the stage, from the corner of its pane, in pixels."""
    found: list[list[float]] = page.execute_script(
        "return [...document.querySelectorAll('#stage .plane')].map((one) => {"
        "const [a, b] = [one.getBoundingClientRect(), one.closest('.pane').getBoundingClientRect()];"
        "return [a.left - b.left, a.top - b.top, a.width, a.height]; })"
    )
    return found


def state(page: Chrome) -> dict[str, str]:
    """What the address says, once it is kept."""
    page.execute_async_script("setTimeout(arguments[0], 250)")
    return dict(parse_qsl(page.execute_script("return location.hash.replace(/^#/, '')"), keep_blank_values=True))


def test_all_variants_stand_side_by_side_and_move_in_step(page: Chrome) -> None:
    open_first(page)
    press(page, "g")
    assert texts(page, "#stage .label") == ["base", "dpo", "spo"]
    assert [one.text for one in page.find_elements(By.CSS_SELECTOR, "#view-heads th")] == [
        "metric", "base", "dpo", "spo",
    ]  # fmt: skip
    press(page, "1")
    assert element(page, "#zoom").text == "100 %"
    assert {tuple(one[2:]) for one in planes(page)} == {(64, 64)}
    for _ in range(12):
        press(page, "+")
    before = planes(page)
    assert before[0][2] > 64 * 12
    ActionChains(page).drag_and_drop_by_offset(element(page, "#stage .pane:nth-child(2)"), 40, 30).perform()
    after = planes(page)
    assert [pytest.approx([x + 40, y + 30, w, h], abs=1.5) for x, y, w, h in before] == after
    ActionChains(page).key_down(Keys.SHIFT).send_keys(Keys.ARROW_LEFT).key_up(Keys.SHIFT).perform()
    assert planes(page)[2][0] == pytest.approx(after[2][0] + 60, abs=1.5)
    press(page, "0")
    assert texts(page, "#zoom") != ["100 %"]
    element(page, "#choose-many label:nth-child(2) input").click()
    assert texts(page, "#stage .label") == ["base", "spo"]


def test_the_wheel_zooms_about_the_pointer(page: Chrome) -> None:
    open_first(page)
    stage = element(page, "#stage")
    before = planes(page)[0]
    at = (stage.rect["x"] + 100, stage.rect["y"] + 120)
    page.execute_script(
        "document.getElementById('stage').dispatchEvent(new WheelEvent('wheel', "
        "{deltaY: -100, clientX: arguments[0], clientY: arguments[1], bubbles: true, cancelable: true}))",
        *at,
    )
    box = element(page, "#stage .pane").rect
    pointer = (at[0] - box["x"], at[1] - box["y"])  # the stage has grown to all of its room
    left, top, width, height = planes(page)[0]
    share = (100 / before[2], 120 / before[3])
    assert width == pytest.approx(before[2] * 1.0015**100, rel=0.01)
    # What was under the pointer is at the same share of the new pane, as far as the edges of the image allow.
    assert left <= 0 < left + width
    assert top <= 0 < top + height
    assert 0 < (pointer[0] - left) / width < share[0] + 0.5


def test_two_fingers_zoom_on_a_phone(page: Chrome, resize: Callable[[int, int], None]) -> None:
    resize(390, 800)
    open_first(page)
    before = planes(page)[0][2]
    box = element(page, "#stage").rect
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def touch(kind: str, *points: tuple[float, float]) -> None:
        found = [{"x": one[0], "y": one[1], "id": number} for number, one in enumerate(points)]
        page.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": found})

    touch("touchStart", (x - 30, y), (x + 30, y))
    touch("touchMove", (x - 60, y), (x + 60, y))
    touch("touchEnd")
    assert planes(page)[0][2] == pytest.approx(2 * before, rel=0.2)
    assert page.execute_script("return document.documentElement.scrollWidth") == 390


def test_blink_stops_and_changes_by_hand(page: Chrome) -> None:
    open_first(page)
    press(page, "b")
    assert texts(page, "#stage .label") == ["base"], "a reader who wants no motion gets none by itself"
    assert texts(page, "#pause") == ["Play"]
    press(page, Keys.SPACE)
    assert texts(page, "#stage .label") == ["spo"]
    press(page, "p")
    assert texts(page, "#pause") == ["Pause"]
    seen = set()
    WebDriverWait(page, 6).until(lambda driver: seen.update(texts(driver, "#stage .label")) or len(seen) == 2)
    press(page, Keys.SPACE)
    assert texts(page, "#pause") == ["Play"]
    press(page, Keys.ESCAPE)


def pixels(page: Chrome) -> np.ndarray:
    """The middle row of the stage as it is painted."""
    page.execute_script("for (const one of document.querySelectorAll('.label, .edge')) one.style.visibility = 'hidden'")
    shown = np.asarray(Image.open(io.BytesIO(element(page, "#stage").screenshot_as_png)).convert("RGB"))
    return shown[shown.shape[0] // 2].astype(float)


def stored(run: Run, variant: str) -> np.ndarray:
    file = next(
        one.image for one in run.renders if (one.variant, one.prompt_id, one.sample) == (variant, "case-000", 0)
    )
    with Image.open(Path(run.path) / str(file)) as image:
        return np.asarray(image.convert("RGB")).astype(float)


RAMP = np.array(
    [[0, 0.24, 0.58, 0.87, 0.99, 0.99], [0, 0.06, 0.15, 0.32, 0.65, 1], [0.02, 0.42, 0.40, 0.23, 0.04, 0.64]]
)
"""Red, green and blue of the heat map, from no difference to the largest that is told apart."""


def away(shown: np.ndarray, wanted: np.ndarray) -> float:
    """Levels by which a painted row is off at most; a pixel to each side is as near as the painting is."""
    places = ((np.arange(64) + 0.5) * len(shown) / 64).astype(int)
    around = [np.roll(wanted, shift, axis=(0, 1))[32] for shift in [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1)]]
    off = np.min([np.abs(shown[places] - one).max(axis=1) for one in around], axis=0)
    return float(off[1:-1].max())


def test_the_heat_map_is_the_mean_difference_of_the_channels_magnified(page: Chrome, run: Run) -> None:
    open_first(page)
    press(page, "d")
    assert texts(page, "#legend-most") == ["64 levels or more"]
    change = np.abs(stored(run, "spo") - stored(run, "base")).mean(axis=2)
    heat = np.clip(4 * change / 255, 0, 1)
    wanted = np.stack([255 * np.interp(heat, np.linspace(0, 1, 6), channel) for channel in RAMP], axis=2)
    assert away(pixels(page), wanted) < 12
    assert change[32].max() > 5
    element(page, "#swap").click()
    assert away(pixels(page), wanted) < 12


def test_onion_skin_mixes_the_two_images(page: Chrome, run: Run) -> None:
    open_first(page)
    press(page, "o")
    for keys, share in (([], 0.5), ([Keys.ARROW_RIGHT] * 5, 0.7)):
        press(page, *keys)
        wanted = (1 - share) * stored(run, "base") + share * stored(run, "spo")
        assert away(pixels(page), wanted) < 6


def test_keys_change_sides_and_tell_of_themselves(page: Chrome) -> None:
    open_first(page)
    assert texts(page, "#stage .label") == ["base", "spo"]
    press(page, "x")
    assert texts(page, "#stage .label") == ["spo", "base"]
    press(page, "]")
    assert texts(page, "#stage .label") == ["spo", "dpo"]
    press(page, "[")
    assert texts(page, "#stage .label") == ["spo", "base"]
    assert not element(page, "#keys dl").is_displayed()
    press(page, "?")
    listed = element(page, "#keys dl").text
    for word in ("G S B O D", "Space", "1 0", "Shift", "Esc"):
        assert word in listed


def test_the_key_for_the_keys_shows_them_on_a_narrow_page(page: Chrome, resize: Callable[[int, int], None]) -> None:
    resize(360, 800)
    open_first(page)
    press(page, "?")
    listed = element(page, "#keys dl")
    assert "G S B O D" in listed.text
    top, bottom, right = page.execute_script(
        "const box = document.getElementById('keys').getBoundingClientRect(); return [box.top, box.bottom, box.right]"
    )
    assert 0 <= top < bottom <= 800.5
    assert right <= 360
    assert listed.size["height"] > 100
    press(page, "?")
    assert not listed.is_displayed()


def test_the_address_shows_the_same_again(page: Chrome, address: str) -> None:
    Select(element(page, "#metric")).select_by_visible_text("mini-clip")
    Select(element(page, "#pair")).select_by_visible_text("spo − dpo")
    Select(element(page, "#order")).select_by_visible_text("Most worsened first")
    element(page, "#search").send_keys("a")
    first = element(page, ".case").get_attribute("id")
    page.execute_script("document.querySelector('.case [data-open=\"1\"]').click()")
    press(page, "o", Keys.ARROW_RIGHT, "1", "+", "+")
    kept = state(page)
    assert kept["metric"] == "mini-clip"
    assert kept["pair"] == "spo/dpo"
    assert kept["order"] == "worst"
    assert kept["q"] == "a"
    assert kept["view"] == "onion"
    assert kept["at"] == "54"
    place, count, zoom = page.execute_script("return location.href"), texts(page, "#view-count"), texts(page, "#zoom")
    page.get("about:blank")
    page.get(place)
    assert (texts(page, "#view-count"), texts(page, "#zoom")) == (count, zoom)
    assert element(page, "#slider").get_attribute("value") == "54"
    press(page, Keys.ESCAPE)
    assert element(page, ".case").get_attribute("id") == first
    assert Select(element(page, "#pair")).first_selected_option.text == "spo − dpo"
    assert "open" not in state(page)


@pytest.mark.parametrize(
    "hash_",
    [
        "#open=99", "#open=-1&view=side", "#metric=nothing&pair=a/b&order=sideways", "#range=x:y:z", "#zoom=1",
        "#open=0&view=odd&left=<b>&right=x&zoom=NaN,1,1&at=900&variants=/", "#range=mini-clip:spo:abc:1", "#row-99",
        "#%E0%A4%A", "#open=0&zoom=1e99,5,5", "#tag=<script>&q=%00", "#headline",
    ],
)  # fmt: skip
def test_an_address_written_by_hand_breaks_nothing(page: Chrome, address: str, hash_: str) -> None:
    page.get("about:blank")
    page.get(address + hash_)
    assert element(page, "#count").get_attribute("textContent").endswith(" of 16 rows")


def test_worse_rows_are_those_whose_difference_is(page: Chrome, run: Run) -> None:
    Select(element(page, "#metric")).select_by_visible_text("mini-clip")
    values = {(one.variant, one.prompt_id, one.sample): one.value for one in run.scores if one.metric == "mini-clip"}
    element(page, "#regressed").click()
    worse = [
        cell for cell in {key[1:] for key in values}
        if values["spo", *cell] is not None and values["spo", *cell] - values["base", *cell] < -5e-4
    ]  # fmt: skip
    assert texts(page, "#count") == [f"{len(worse)} of 16 rows"]
    assert 0 < len(worse) < 16
    assert all(
        "worse" in (one.get_attribute("class") or "") for one in page.find_elements(By.CSS_SELECTOR, ".difference span")
    )
    Select(element(page, "#metric")).select_by_visible_text("clipped")
    assert not element(page, "#regressed").is_enabled()


def test_ranges_are_chosen_in_histograms_and_by_number(page: Chrome, run: Run) -> None:
    values = {
        (one.variant, one.prompt_id, one.sample): one.value for one in run.scores if one.metric == "mini-preference"
    }
    page.execute_script("document.getElementById('ranges').open = true")
    WebDriverWait(page, 5).until(lambda driver: driver.find_elements(By.CSS_SELECTOR, ".histogram"))
    assert texts(page, ".histogram figcaption") == ["spo − base", "base", "dpo", "spo"]
    svg = element(page, ".histogram:nth-child(2) svg")
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", svg)
    half = svg.size["width"] // 2
    ActionChains(page).move_to_element_with_offset(svg, 2, 0).click_and_hold().move_by_offset(
        half - 4, 0
    ).release().perform()
    low = float(element(page, ".histogram:nth-child(2) input").get_attribute("value") or "nan")
    above = {key[1:] for key, value in values.items() if key[0] == "base" and value is not None and value >= low}
    assert texts(page, "#count") == [f"{len(above)} of 16 rows"]
    assert 0 < len(above) < 16
    box = element(page, ".histogram:nth-child(1) input:last-child")
    box.clear()
    box.send_keys("0.5", Keys.TAB)
    both = {
        cell for cell in above
        if values["spo", *cell] is not None and values["spo", *cell] - values["base", *cell] <= 0.5
    }  # fmt: skip
    assert texts(page, "#count") == [f"{len(both)} of 16 rows"]
    assert len(texts(page, ".chip")) == 2
    assert "range" in state(page)
    count, place = texts(page, "#count"), page.execute_script("return location.href")
    page.get("about:blank")
    page.get(place)
    assert texts(page, "#count") == count
    element(page, ".chip").click()
    element(page, ".chip").click()
    assert texts(page, "#count") == ["16 of 16 rows"]


def test_a_row_leads_to_itself(page: Chrome) -> None:
    link = element(page, "#row-5 .link")
    page.execute_script("arguments[0].scrollIntoView({block: 'center'}); arguments[0].focus()", link)
    page.switch_to.active_element.send_keys(Keys.ENTER)
    assert "row-5" in state(page)


def test_one_variant_is_looked_at_alone(browser: Chrome, tmp_path: Path) -> None:
    run = make_run(tmp_path, prompts=2, variants=("base",))
    write_run(run, tmp_path)
    (tmp_path / "report.html").write_text(html(build_view(run, compare_run(run)), {}))
    browser.get((tmp_path / "report.html").as_uri())
    open_first(browser, variant=0)
    assert texts(browser, "#stage .label") == ["base"]
    assert not element(browser, "[data-mode=slider]").is_enabled()
    press(browser, "b", "1", "+")
    assert len(planes(browser)) == 1
    assert browser.get_log("browser") == []
