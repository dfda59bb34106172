"""The report in Chromium: sorting, filtering, the large view by keyboard, themes, a phone."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from report_runs import HOSTILE
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait

from bench.records import Run


def element(page: Chrome, selector: str) -> WebElement:
    return page.find_element(By.CSS_SELECTOR, selector)


def choose(page: Chrome, name: str, text: str) -> None:
    Select(element(page, f"#{name}")).select_by_visible_text(text)


def shown_rows(page: Chrome) -> list[tuple[str, int]]:
    """(prompt, sample) of the visible rows, from top to bottom."""
    rows = page.execute_script(
        "const data = JSON.parse(document.getElementById('data').textContent);"
        "return [...document.querySelectorAll('.case')].filter((card) => card.checkVisibility())"
        ".map((card) => data.rows[card.dataset.row]).map(([prompt, sample]) => [data.prompts[prompt][0], sample]);"
    )
    return [(prompt_id, sample) for prompt_id, sample in rows]


def differences(run: Run, metric: str, candidate: str, reference: str) -> dict[tuple[str, int], float | None]:
    values = {(one.variant, one.prompt_id, one.sample): one.value for one in run.scores if one.metric == metric}
    found: dict[tuple[str, int], float | None] = {}
    for _, prompt_id, sample in values:
        above, below = values[candidate, prompt_id, sample], values[reference, prompt_id, sample]
        found[prompt_id, sample] = None if above is None or below is None else above - below
    return found


def open_large(page: Chrome, prompt_id: str, sample: int, variant: str) -> None:
    label = f"Large view of {variant}, {prompt_id}, sample {sample}"
    button = element(page, f"button[aria-label='{label}']")
    page.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", button)
    button.click()


def divide(page: Chrome) -> str:
    return page.execute_script("return document.getElementById('stage').style.getPropertyValue('--at')")


def press(page: Chrome, *keys: str) -> None:
    for key in keys:
        page.switch_to.active_element.send_keys(key)


def is_open(page: Chrome) -> bool:
    return bool(page.execute_script("return document.getElementById('viewer').open"))


def test_opening_runs_no_prompt_and_shows_every_image(page: Chrome) -> None:
    page.execute_script(
        "document.querySelectorAll('.case').forEach((one) => { one.style.contentVisibility = 'visible'; })"
    )
    loaded = "return [...document.images].every((image) => image.complete && image.naturalWidth > 0)"
    WebDriverWait(page, 20).until(lambda driver: driver.execute_script(loaded))
    assert len(page.find_elements(By.CSS_SELECTOR, "#grid img")) == 8 * 2 * 3 - 1
    prompts = page.execute_script(
        "return [...document.querySelectorAll('.case:nth-child(odd) .prompt')].map((one) => one.textContent)"
    )
    assert prompts == list(HOSTILE)
    directions = page.execute_script(
        "return [...document.querySelectorAll('.case .prompt')].map((one) => getComputedStyle(one).direction)"
    )
    assert directions[4] == "rtl"
    assert directions[0] == "ltr"


@pytest.mark.parametrize(
    ("order", "sign"), [("Most improved first", -1), ("Most worsened first", 1), ("Largest change first", 0)]
)
def test_rows_sort_by_difference(page: Chrome, run: Run, order: str, sign: int) -> None:
    choose(page, "metric", "mini-clip")
    choose(page, "pair", "spo − dpo")
    choose(page, "order", order)
    found = differences(run, "mini-clip", "spo", "dpo")
    known = {cell: value for cell, value in found.items() if value is not None}
    expected = sorted(known, key=lambda cell: sign * known[cell] if sign else -abs(known[cell]))
    shown = shown_rows(page)
    assert shown[:-1] == expected
    assert shown[-1] == ("case-001", 0), "the row with the failed image has no difference and comes last"
    line = element(page, ".case .difference").text
    assert line.startswith("mini-clip, spo − dpo: ")
    assert float(line.rsplit(" ", 1)[1].replace("−", "-")) == pytest.approx(known[expected[0]], abs=5e-4)


def test_a_metric_that_only_describes_is_sorted_by_its_change_and_called_neither_better_nor_worse(
    page: Chrome, run: Run
) -> None:
    choose(page, "metric", "clipped")
    choose(page, "pair", "spo − base")
    words = [one.text for one in Select(element(page, "#order")).options]
    assert words == ["As in the suite", "Largest increase first", "Largest decrease first", "Largest change first"]
    known = {cell: value for cell, value in differences(run, "clipped", "spo", "base").items() if value is not None}
    for order, sign in (("Largest increase first", -1), ("Largest decrease first", 1)):
        choose(page, "order", order)
        assert shown_rows(page)[:-1] == sorted(known, key=lambda cell: sign * known[cell])
    choose(page, "metric", "mini-clip")
    words = [one.text for one in Select(element(page, "#order")).options]
    assert words[1:3] == ["Most improved first", "Most worsened first"]
    assert Select(element(page, "#order")).first_selected_option.text == "Most worsened first"


def stands_on(page: Chrome, row: int) -> None:
    """Waits until a row begins just below what covers the top of the window."""
    WebDriverWait(page, 5).until(
        lambda driver: driver.execute_script(
            "const toolbar = Math.max(0, document.querySelector('.toolbar').getBoundingClientRect().bottom);"
            "const top = document.getElementById(arguments[0]).getBoundingClientRect().top;"
            "return toolbar <= top && top < toolbar + 100",
            f"row-{row}",
        )
    )


@pytest.mark.parametrize("row", [3, 13])
def test_an_address_with_a_row_opens_on_that_row(page: Chrome, address: str, row: int) -> None:
    page.get("about:blank")
    page.get(f"{address}#row-{row}")
    stands_on(page, row)


def test_a_new_address_shows_its_row_however_the_rows_are_sorted_and_filtered(page: Chrome) -> None:
    choose(page, "order", "Most worsened first")
    page.execute_script("location.hash = '#row-9'")
    stands_on(page, 9)
    assert Select(element(page, "#order")).first_selected_option.text == "Most worsened first"
    element(page, "#search").send_keys("no prompt says this")
    page.execute_script("location.hash = '#row-4'")
    stands_on(page, 4)


def test_scores_follow_the_chosen_metric(page: Chrome, run: Run) -> None:
    choose(page, "metric", "saturation")
    shown = [one.text for one in page.find_elements(By.CSS_SELECTOR, "#row-0 [data-score]")]
    expected = [
        one.value for one in run.scores if (one.metric, one.prompt_id, one.sample) == ("saturation", "case-000", 0)
    ]
    assert [float(text) for text in shown] == pytest.approx(expected, abs=5e-3)


def test_rows_filter_by_tag_words_and_failure(page: Chrome, run: Run) -> None:
    tagged = [prompt.id for prompt in run.info.suite.prompts if "portrait" in prompt.tags]
    choose(page, "tag", "portrait")
    assert shown_rows(page) == [(prompt, sample) for prompt in tagged for sample in (0, 1)]
    assert element(page, "#count").text == f"{2 * len(tagged)} of 16 rows"
    element(page, "#search").send_keys("RAIN dancer")
    assert shown_rows(page) == []
    assert element(page, "#none").is_displayed()
    element(page, "#reset").click()
    assert len(shown_rows(page)) == 16
    element(page, "#search").send_keys("RAIN dancer")
    assert shown_rows(page) == [("case-003", 0), ("case-003", 1)]
    element(page, "#reset").click()
    element(page, "#failed").click()
    assert shown_rows(page) == [("case-001", 0)]


def test_the_large_view_works_by_keyboard_alone(page: Chrome) -> None:
    button = element(page, "button[aria-label='Large view of spo, case-000, sample 0']")
    page.execute_script("arguments[0].focus()", button)
    press(page, Keys.ENTER)
    assert is_open(page)
    assert page.switch_to.active_element.get_attribute("id") == "slider"
    assert [one.text for one in page.find_elements(By.CSS_SELECTOR, "#stage .label")] == ["base", "spo"]
    assert divide(page) == "50%"
    press(page, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert divide(page) == "58%"
    assert element(page, "#slider").get_attribute("aria-valuetext") == "58 % base, 42 % spo"
    press(page, Keys.ARROW_LEFT)
    assert divide(page) == "54%"
    press(page, Keys.END)
    assert divide(page) == "100%"
    press(page, Keys.ARROW_RIGHT)
    assert divide(page) == "100%"
    press(page, Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    assert element(page, "#view-title").text == "case-001 · sample 0"
    assert element(page, "#view-count").text == "3 of 16"
    assert "The image is uniformly black" in element(page, "#stage .record").get_attribute("textContent")
    press(page, Keys.ARROW_UP)
    assert element(page, "#view-title").text == "case-000 · sample 1"
    press(page, Keys.ESCAPE)
    assert not is_open(page)
    shown = "Large view of spo, case-000, sample 1"  # gets the focus in the dialog's close event, which comes after
    WebDriverWait(page, 5).until(lambda driver: driver.switch_to.active_element.get_attribute("aria-label") == shown)


def test_the_large_view_goes_through_the_sorted_rows(page: Chrome) -> None:
    choose(page, "order", "Most worsened first")
    order = shown_rows(page)
    open_large(page, *order[0], "dpo")
    assert not element(page, "#previous").is_enabled()
    for prompt_id, sample in order[1:4]:
        element(page, "#next").click()
        assert element(page, "#view-title").text == f"{prompt_id} · sample {sample}"
    element(page, "#close").click()
    assert not is_open(page)


def test_the_large_view_marks_the_faces_that_were_found(page: Chrome) -> None:
    def frames(side: str) -> list[list[float]]:
        found = page.find_elements(By.CSS_SELECTOR, f"#stage .faces.{side} rect")
        return [[float(one.get_dom_attribute(name)) for name in ("x", "y", "width", "height")] for one in found]

    open_large(page, "case-000", 0, "spo")
    assert [8.0, 4.0, 32.0, 32.0] in frames("left")
    assert [8.0, 8.0, 32.0, 28.0] in frames("right")
    assert element(page, "#stage .faces").get_dom_attribute("viewBox") == "0 0 64 64"
    assert element(page, "#view-faces").text == "Faces found: base 1, spo 2. The prompt asks for 1."
    assert [
        len(one.find_elements(By.TAG_NAME, "svg")) for one in page.find_elements(By.CSS_SELECTOR, "#view-crops > div")
    ] == [1, 2]
    element(page, "#show-faces").click()
    assert frames("left") == frames("right") == []
    element(page, "#show-faces").click()
    choose(page, "side-b", "dpo")
    assert element(page, "#view-faces").text == "Faces found: base 1, dpo 0. The prompt asks for 1."
    element(page, "#next").click()
    assert element(page, "#view-faces").text == "No face was looked for in these images."
    assert frames("left") == []


def test_the_divide_follows_the_pointer_and_sides_can_be_chosen(page: Chrome, run: Run) -> None:
    open_large(page, "case-002", 0, "dpo")
    assert [one.text for one in page.find_elements(By.CSS_SELECTOR, "#stage .label")] == ["base", "dpo"]
    stage = element(page, "#stage")
    quarter = -stage.size["width"] // 4
    ActionChains(page).move_to_element_with_offset(stage, quarter, 0).click().perform()
    assert float(divide(page).rstrip("%")) == pytest.approx(25, abs=1)
    choose(page, "side-b", "spo")
    values = {
        one.variant: one.value
        for one in run.scores
        if (one.metric, one.prompt_id, one.sample) == ("mini-preference", "case-002", 0)
    }
    cells = [
        one.text.replace("−", "-") for one in page.find_elements(By.CSS_SELECTOR, "#view-scores tr:first-child td")
    ]
    assert [float(text) for text in cells] == pytest.approx(
        [values["base"], values["spo"], values["spo"] - values["base"]], abs=5e-3
    )
    element(page, "#swap").click()
    assert [one.text for one in page.find_elements(By.CSS_SELECTOR, "#stage .label")] == ["spo", "base"]


def test_the_theme_can_be_changed(page: Chrome) -> None:
    def paper() -> str:
        return str(page.execute_script("return getComputedStyle(document.body).backgroundColor"))

    light = paper()
    element(page, "#theme").click()
    dark = paper()
    assert dark != light
    assert element(page, "#theme").text == "Light theme"
    element(page, "#theme").click()
    assert paper() == light
    page.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    )
    page.refresh()
    assert paper() == dark
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_figures_take_the_colours_of_the_theme(page: Chrome, theme: str) -> None:
    page.execute_script(f"document.documentElement.dataset.theme = '{theme}'")
    ink, colours = page.execute_script(
        "return [getComputedStyle(document.body).color, "
        "[...document.querySelectorAll('.figure text')].map((one) => getComputedStyle(one).fill)]"
    )
    soft = page.execute_script("return getComputedStyle(document.querySelector('.soft')).color")
    assert len(colours) > 20
    assert set(colours) == {ink, soft}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_stands_out_from_its_ground(page: Chrome, theme: str) -> None:
    page.execute_script(f"document.documentElement.dataset.theme = '{theme}'")
    ratios = page.execute_script(CONTRAST)
    assert len(ratios) > 8
    assert {name: ratio for name, ratio in ratios.items() if ratio < 4.5} == {}


CONTRAST = """
const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
const light = (name) => {
  const probe = document.createElement('span');
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  canvas.fillStyle = getComputedStyle(probe).color;
  probe.remove();
  canvas.fillRect(0, 0, 1, 1);
  const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map((value) => {
    const share = value / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const grounds = ['paper', 'card', 'sunken'];
const found = {};
for (const ink of ['ink', 'soft', 'accent', 'better', 'worse']) {
  for (const ground of grounds) {
    const [a, b] = [light(ink), light(ground)].sort((x, y) => y - x);
    found[`${ink} on ${ground}`] = (a + 0.05) / (b + 0.05);
  }
}
return found;
"""


def test_a_long_prompt_is_folded_and_opens(page: Chrome) -> None:
    card = element(page, "#row-12")
    prompt, more = (card.find_element(By.CSS_SELECTOR, one) for one in (".prompt", ".more"))
    page.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", card)
    assert len(prompt.get_attribute("textContent") or "") == len(HOSTILE[6])
    folded = prompt.size["height"]
    more.click()
    assert more.get_attribute("aria-expanded") == "true"
    assert prompt.size["height"] > 2 * folded
    more.click()
    assert prompt.size["height"] == folded


def test_nothing_scrolls_sideways_on_a_phone(page: Chrome, resize: Callable[[int, int], None]) -> None:
    resize(360, 800)
    width = "return [document.documentElement.scrollWidth, document.body.scrollWidth]"
    assert page.execute_script(width) == [360, 360]
    open_large(page, "case-000", 0, "spo")
    wide = "return [...document.querySelectorAll('#viewer, #viewer .body')].map((one) => one.scrollWidth)"
    assert page.execute_script(wide) == [360, 360]
    boxes = [element(page, selector).rect for selector in ("#stage", "#slider", "#view-prompt")]
    for above, below in pairwise(boxes):
        assert above["y"] + above["height"] <= below["y"]
