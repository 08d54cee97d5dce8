"""The rating sheet in a real Chromium: by mouse, by keys, on a phone, in both themes, and what it saves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.evaluation.rating.answers import measure, read_raters
from benchmarks.evaluation.rating.page import to_html
from benchmarks.evaluation.rating.questions import Key, key_of
from tests.benchmarks.evaluation.rating.sheets import ONE, PAIRS, endings
from tests.chromium import IN_CHROMIUM

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

pytestmark = IN_CHROMIUM

DESKTOP, PHONE = (1280, 900), (320, 640)
COUNT = 7


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sheet é 50%#")


@pytest.fixture(scope="module")
def key(folder: Path) -> Key:
    found = key_of(folder, endings(), PAIRS)
    (folder / "sheet.html").write_text(to_html(found, endings()), "utf-8")
    return found


@pytest.fixture
def context(chromium: Browser, key: Key) -> Iterator[BrowserContext]:
    """A browser that has not seen the page."""
    opened = chromium.new_context(viewport={"width": DESKTOP[0], "height": DESKTOP[1]})
    yield opened
    opened.close()


def opened(context: BrowserContext, folder: Path, said: list[str] | None = None) -> Page:
    page = context.new_page()
    if said is not None:
        page.on("request", lambda request: said.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
    page.goto((folder / "sheet.html").as_uri())
    return page


def place(page: Page) -> str:
    return page.locator("#place").inner_text()


def save(page: Page, target: Path) -> Path:
    with page.expect_download() as download:
        page.click("#save")
    download.value.save_as(target)
    assert download.value.suggested_filename.startswith("ratings-")
    return target


def test_it_asks_nobody_for_anything_and_runs_no_text_of_a_story(context: BrowserContext, folder: Path) -> None:
    said: list[str] = []
    page = opened(context, folder, said)
    for _ in range(COUNT):
        page.keyboard.press("ArrowLeft")
    assert said == [(folder / "sheet.html").as_uri()]
    assert page.title() == "Which ending is better?"
    assert page.locator("article img, article b, article i, article script").count() == 0


def test_the_texts_are_shown_as_they_are(context: BrowserContext, folder: Path, key: Key) -> None:
    page = opened(context, folder)
    for question in key.questions:
        sides = page.locator("article:visible .side .text")
        for side, model in enumerate((question.a, question.b)):
            assert sides.nth(side).text_content() == endings()[model][question.opening].text.strip()
        page.keyboard.press("0")


def test_keys_and_buttons_answer_and_the_file_is_read_back(
    context: BrowserContext, folder: Path, key: Key, tmp_path: Path
) -> None:
    page = opened(context, folder)
    assert place(page) == f"1 of {COUNT}"
    expected = {}
    for number, question in enumerate(key.questions):
        side = ("a", "same", "b")[number % 3]
        expected[question.id] = side
        if number < 4:
            page.keyboard.press({"a": "ArrowLeft", "same": "0", "b": "ArrowRight"}[side])
        else:
            page.click(f"#{side}")
    assert place(page) == f"{COUNT} of {COUNT} answered"
    assert not page.locator("#left").is_visible()
    page.fill("#name", "Zoë <b>0</b>")  # keys in the field answer nothing
    file = save(page, tmp_path / "saved.json")
    content = json.loads(file.read_text("utf-8"))
    assert content["answers"] == expected
    assert content["name"] == "Zoë <b>0</b>"
    assert json.loads(page.locator("#copy").input_value()) == content
    found = measure(key, read_raters([file], key))
    assert found["answers"] == COUNT
    assert found["pairs"][0]["model"] == ONE


def test_an_answer_can_be_changed(context: BrowserContext, folder: Path, key: Key, tmp_path: Path) -> None:
    page = opened(context, folder)
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Backspace")
    assert place(page) == f"1 of {COUNT}"
    assert page.locator("#a").get_attribute("aria-pressed") == "true"
    page.keyboard.press("ArrowRight")
    page.click("#stop")
    assert page.locator("#open").inner_text() == str(COUNT - 1)
    content = json.loads(save(page, tmp_path / "saved.json").read_text("utf-8"))
    assert content["answers"] == {key.questions[0].id: "b"}
    page.click("#on")
    assert place(page) == f"2 of {COUNT}"


def test_progress_is_kept_when_the_page_is_closed(context: BrowserContext, folder: Path) -> None:
    page = opened(context, folder)
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("0")
    page.close()
    again = opened(context, folder)
    assert place(again) == f"3 of {COUNT}"
    assert again.locator("#bar").evaluate("bar => bar.value") == 2


@pytest.mark.parametrize("kept", ["nonsense", "null", '{"rater": "r", "name": "", "answers": null}', "[]"])
def test_damaged_progress_starts_again(context: BrowserContext, folder: Path, key: Key, kept: str) -> None:
    page = opened(context, folder)
    page.evaluate("([key, kept]) => localStorage.setItem(key, kept)", [f"slmx ratings 1 {key.sheet}", kept])
    page.reload()
    assert place(page) == f"1 of {COUNT}"


def test_a_browser_that_keeps_nothing_says_so(context: BrowserContext, folder: Path) -> None:
    context.add_init_script("Object.defineProperty(window, 'localStorage', { get() { throw new Error('no'); } });")
    page = opened(context, folder)
    assert page.locator("#unkept").is_visible()
    page.keyboard.press("ArrowLeft")
    assert place(page) == f"2 of {COUNT}"


def test_a_phone_shows_one_ending_below_the_other_and_buttons_for_thumbs(
    chromium: Browser, folder: Path, key: Key
) -> None:
    context = chromium.new_context(viewport={"width": PHONE[0], "height": PHONE[1]}, has_touch=True, is_mobile=True)
    page = opened(context, folder)
    first, second = (page.locator("article:visible .side").nth(side).bounding_box() for side in (0, 1))
    assert first is not None
    assert second is not None
    assert first["x"] == second["x"]
    assert second["y"] >= first["y"] + first["height"]
    for number in range(COUNT + 1):
        assert page.evaluate("() => document.documentElement.scrollWidth") == PHONE[0]
        for button in page.locator("button:visible").all():
            box = button.bounding_box()
            assert box is not None
            assert box["height"] >= 44
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= PHONE[0]
            assert button.evaluate("one => one.scrollWidth <= one.clientWidth")
        if number < COUNT:
            page.tap("#same")
    context.close()


def test_the_last_line_of_an_ending_is_not_below_the_buttons(chromium: Browser, folder: Path, key: Key) -> None:
    context = chromium.new_context(viewport={"width": PHONE[0], "height": PHONE[1]})
    page = opened(context, folder)
    page.evaluate("() => scrollTo(0, document.body.scrollHeight)")
    last, bar = page.locator("article:visible .side").nth(1).bounding_box(), page.locator("nav").bounding_box()
    assert last is not None
    assert bar is not None
    assert last["y"] + last["height"] <= bar["y"]
    context.close()


def test_both_themes_have_their_ground(chromium: Browser, folder: Path, key: Key) -> None:
    found = []
    for theme in ("light", "dark"):
        context = chromium.new_context(color_scheme=theme)
        found.append(opened(context, folder).evaluate("() => getComputedStyle(document.body).backgroundColor"))
        context.close()
    assert found == ["rgb(255, 255, 255)", "rgb(13, 17, 23)"]
