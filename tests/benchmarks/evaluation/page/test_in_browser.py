"""The page of an evaluation in a real Chromium: its fields choose, on a desktop and on a phone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.evaluation.page.choice import LOSS, MB, PAIRS, points_of
from benchmarks.evaluation.page.html import result_words, to_html
from tests.benchmarks.evaluation.samples import MODELS, full_evaluation
from tests.chromium import IN_CHROMIUM
from tests.report_samples import report, result

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from benchmarks.report.record import Report

pytestmark = IN_CHROMIUM

DESKTOP, PHONE = (1280, 900), (320, 700)
SPEEDS = {"int8": 4000.0, "fp32": 2000.0, "q8": 3500.0, "int4": 4500.0}
# The classes of the marks of each model in the pictures that are shown.
MARKS = """number => [...document.querySelectorAll(`figure:not([hidden]) [id$="-point-${number}"]`)]
    .map(mark => mark.getAttribute('class') ?? '')"""


def bench() -> Report:
    results = []
    for name, (size, _, _) in MODELS.items():
        variant = name.split()[1]
        one = result("int8", speed=SPEEDS[variant])
        results.append(replace(one, case=replace(one.case, runner=variant), disk_bytes=size))
    return report(results)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page é 50%#") / "evaluation.html"
    path.write_text(to_html(full_evaluation(), "slmx evaluate nano " + "--variant int8 " * 30, bench()), "utf-8")
    return path


def opened(chromium: Browser, file: Path, size: tuple[int, int], script: bool = True) -> tuple[Page, list[str]]:
    """The page, and what went wrong and what was asked for."""
    context = chromium.new_context(viewport={"width": size[0], "height": size[1]}, java_script_enabled=script)
    page = context.new_page()
    told: list[str] = []
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("request", lambda request: told.append(request.url))
    page.goto(file.as_uri())
    return page, told


def test_the_fields_choose_as_the_rule_says(chromium: Browser, file: Path) -> None:
    page, told = opened(chromium, file, DESKTOP)
    points = points_of(full_evaluation().results, bench())
    for measure in (PAIRS, LOSS):
        page.check(f"input[value={measure.key}]")
        shown = page.locator("figure:visible[data-measure]")
        assert [one.get_attribute("data-measure") for one in shown.all()] == [measure.key] * 2
        for size, speed in ((8, 0), (2, 0), (1.95, 3000), (8, 3600), (1.5, 4500), (1.5, 4501), (1, 0), (1.9, 0.5)):
            page.fill("#size", str(size))
            page.fill("#speed", str(speed))
            assert page.inner_text("#best") == result_words(points, measure, size * MB, speed)
            fit = [point for point in points if point.size <= size * MB and (point.speed or 0) >= speed]
            rows = page.locator("#models tbody tr").all()
            for number, (row, point) in enumerate(zip(rows, points, strict=True)):
                classes = (row.get_attribute("class") or "").split()
                assert ("out" in classes) == (point not in fit)
                assert all(("out" in mark.split()) == (point not in fit) for mark in page.evaluate(MARKS, number))
            assert page.locator("#models tr.first").count() == bool(fit)
    assert told == [file.as_uri()]


def test_a_slider_moves_its_field_and_an_empty_field_sets_no_limit(chromium: Browser, file: Path) -> None:
    page, told = opened(chromium, file, DESKTOP)
    page.locator(".limit[data-limit=size] input[type=range]").focus()
    page.keyboard.press("Home")
    assert page.input_value("#size") == "1.5"
    assert page.inner_text("#best").startswith("1 of 4 models qualify. The best figure is that of nano int4")
    page.fill("#size", "")
    assert page.inner_text("#best").startswith("4 of 4")
    page.fill("#speed", "4200")
    assert page.input_value(".limit[data-limit=speed] input[type=range]") == "4200"
    page.keyboard.press("Enter")
    assert told == [file.as_uri()]


def test_without_scripts_everything_can_be_read(chromium: Browser, file: Path) -> None:
    page, _ = opened(chromium, file, DESKTOP, script=False)
    assert not page.locator("#choice").is_visible()
    assert page.inner_text("#best").startswith("4 of 4 models qualify. The best figure is that of nano fp32")
    assert page.locator("figure:visible").count() == page.locator("figure").count() == 6


def test_a_phone_scrolls_tables_and_not_the_page(chromium: Browser, file: Path) -> None:
    page, told = opened(chromium, file, PHONE)
    page.evaluate("() => document.querySelectorAll('details').forEach(one => { one.open = true; })")
    assert page.evaluate("() => [document.documentElement.scrollWidth, innerWidth]") == [320, 320]
    table = page.locator(".table", has_text="perplexity").first
    table.evaluate("box => { box.scrollLeft = box.scrollWidth; }")
    name, last = table.locator("tbody tr").first.locator("th, td").all()[::5]
    for cell in (name, last):
        box = cell.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= PHONE[0]
    assert told == [file.as_uri()]


def test_paper_leaves_out_what_is_folded_and_the_fields(chromium: Browser, file: Path) -> None:
    page, _ = opened(chromium, file, DESKTOP)
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("() => getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator("#choice").is_visible()
    assert page.locator("details:visible").count() == 3
    page.set_viewport_size({"width": 720, "height": 1000})
    assert page.evaluate("() => document.documentElement.scrollWidth") == 720
    assert page.pdf().startswith(b"%PDF")
