"""The page of the published report in a real Chromium: on a desktop, on a phone, in both themes, and on paper."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.report.html import to_html
from benchmarks.report.reader import read_report
from tests.chromium import IN_CHROMIUM

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = IN_CHROMIUM

DOCS = Path(__file__).resolve().parents[3] / "docs"
DESKTOP, PHONE = (1280, 900), (390, 844)
# The names of tables that are wider than their boxes.
CUT = """() => [...document.querySelectorAll('.table')]
    .filter(box => box.scrollWidth > box.clientWidth).map(box => box.innerText.slice(0, 40))"""
# The smallest text of the panels, in pixels on the screen.
SMALLEST = """() => Math.min(...[...document.querySelectorAll('.panel')].flatMap(panel => {
    const svg = panel.querySelector('svg');
    const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
    return [...svg.querySelectorAll('text')].map(text => scale * parseFloat(getComputedStyle(text).fontSize));
}))"""
# The texts of the panels that leave their picture.
OUTSIDE = """() => [...document.querySelectorAll('.panel')].flatMap(panel => {
    const box = panel.querySelector('svg').getBoundingClientRect();
    return [...panel.querySelectorAll('text')].filter(text => {
        const own = text.getBoundingClientRect();
        const across = own.left < box.left - 1 || own.right > box.right + 1;
        return across || own.top < box.top - 1 || own.bottom > box.bottom + 1;
    }).map(text => text.textContent);
})"""
OPEN = "() => document.querySelectorAll('details').forEach(one => { one.open = true; })"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of four models and twenty runners."""
    path = tmp_path_factory.mktemp("page é 50%#") / "report.html"
    path.write_text(to_html(read_report(DOCS / "benchmarks.json")), "utf-8")
    return path


def opened(chromium: Browser, file: Path, size: tuple[int, int], theme: str = "light") -> tuple[Page, list[str]]:
    """A page without scripts of its own, and everything that it asked for."""
    context = chromium.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=theme)  # type: ignore[arg-type]
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(file.as_uri())
    return page, asked


def widths(page: Page) -> list[int]:
    found: list[int] = page.evaluate("() => [document.documentElement.scrollWidth, innerWidth]")
    return found


def test_it_asks_nobody_for_anything(chromium: Browser, file: Path) -> None:
    _, asked = opened(chromium, file, DESKTOP)
    assert asked == [file.as_uri()]


def test_a_desktop_cuts_no_table(chromium: Browser, file: Path) -> None:
    page, _ = opened(chromium, file, DESKTOP)
    assert page.evaluate("() => document.querySelectorAll('details[open]').length") == 0
    page.evaluate(OPEN)
    assert page.evaluate(CUT) == []
    assert widths(page) == [1280, 1280]
    assert page.locator("h1").bounding_box()["y"] < 100  # type: ignore[index]
    assert page.locator("figure").first.bounding_box()["y"] < DESKTOP[1] / 2  # type: ignore[index]


def test_a_phone_shows_one_chart_a_row_and_every_column(chromium: Browser, file: Path) -> None:
    page, _ = opened(chromium, file, PHONE)
    page.evaluate(OPEN)
    assert widths(page) == [390, 390]
    lefts = page.evaluate("() => [...document.querySelectorAll('.panel')].map(one => one.getBoundingClientRect().left)")
    assert len(set(lefts)) == 1
    assert page.evaluate(SMALLEST) >= 9
    table = page.locator(".table").first
    assert page.locator(".hint").first.is_visible()
    table.evaluate("box => { box.scrollLeft = box.scrollWidth; }")
    name, last = table.locator("tbody tr").first.locator("th, td").all()[:: len(table.locator("thead th").all()) - 1]
    for cell in (name, last):
        box = cell.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= PHONE[0]


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_every_label_is_inside_its_picture_in_the_fonts_of_the_screen(
    chromium: Browser, file: Path, size: tuple[int, int]
) -> None:
    page, _ = opened(chromium, file, size)
    assert page.evaluate(OUTSIDE) == []


def test_both_themes_have_their_ground_and_paper_is_white(chromium: Browser, file: Path) -> None:
    ground = "() => getComputedStyle(document.body).backgroundColor"
    light, _ = opened(chromium, file, DESKTOP)
    dark, _ = opened(chromium, file, DESKTOP, "dark")
    assert (light.evaluate(ground), dark.evaluate(ground)) == ("rgb(255, 255, 255)", "rgb(13, 17, 23)")
    dark.emulate_media(media="print")
    assert dark.evaluate(ground) == "rgb(255, 255, 255)"
    assert not dark.locator("details").first.is_visible()
    assert dark.pdf().startswith(b"%PDF")
