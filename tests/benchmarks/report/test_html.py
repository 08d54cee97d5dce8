"""The page of a report: it loads nothing, begins with its sentence, folds its details, and escapes every name."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from benchmarks.report.charts import CHARTS
from benchmarks.report.headline import headlines, opening
from benchmarks.report.html import to_html
from benchmarks.report.parts import folded_parts
from benchmarks.report.record import Report
from benchmarks.report.warnings import STOPPED
from tests.report_samples import large_report, report, result, strange_report

pytestmark = pytest.mark.slow

HOSTILE = '<script>alert("a|b")</script>'


@pytest.fixture(scope="module")
def large() -> Report:
    """Two presets, five runners."""
    return large_report()


@pytest.fixture(scope="module")
def page(large: Report) -> str:
    """The page of the large report."""
    return to_html(large)


class Page(HTMLParser):
    """Collects what a browser would see: tags with attributes, and text outside style."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def plain(html: str) -> str:
    """The text of a piece of HTML, with single spaces."""
    return " ".join("".join(Page(html).text).split())


def test_the_page_fetches_nothing(page: str) -> None:
    without_names = page.replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", without_names)
    tags = Page(page).tags
    assert not {tag for tag, _ in tags} & {"script", "link", "img", "iframe", "object", "base", "source"}
    assert all("src" not in attributes for _, attributes in tags)
    links = [value for _, attributes in tags for name, value in attributes.items() if name == "href"]
    assert all(value is not None and value.startswith("#") for value in links)


def test_every_reference_of_the_page_has_its_one_target(page: str) -> None:
    ids = [attributes["id"] for _, attributes in Page(page).tags if "id" in attributes]
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', page))
    assert used <= set(ids)
    assert len(ids) == len(set(ids))


def test_the_page_begins_with_the_sentence_and_its_picture(page: str, large: Report) -> None:
    (title,) = re.findall(r"<h1>(.*?)</h1>", page, re.DOTALL)
    assert plain(title) == opening(large)
    places = [
        page.index(text) for text in ("<h1>", "<svg", 'class="models"', "<h2>All runners", "<h2>Charts", "<details>")
    ]
    assert places == sorted(places)
    second = re.search(r'<ul class="models">(.*?)</ul>', page, re.DOTALL)
    assert second is not None
    assert plain(second[1]) == headlines(large)[1].text


def test_each_chart_has_one_drawing_a_model_for_both_themes(page: str) -> None:
    tags = Page(page).tags
    assert sum(tag == "figure" for tag, _ in tags) == len(CHARTS)
    assert sum(tag == "svg" for tag, _ in tags) == 2 * len(CHARTS)
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in tags
    assert "@media screen and (prefers-color-scheme: dark)" in page
    assert "@media print" in page


def test_details_are_folded_and_the_published_figures_are_last(page: str, large: Report) -> None:
    titles = re.findall(r"<details>\n<summary>(.*?)</summary>", page)
    assert titles == [part.title for part in folded_parts(large)]
    assert titles == [
        "Where another runtime is ahead",
        "What slmx chooses",
        "nano: main figures and all 30 cases",
        "medium: main figures and all 30 cases",
        "Failed: 1 case",
        "Skipped: 1 case",
        "Warnings that change nothing above: 1",
        "Machine and models",
        "Published figures",
    ]
    assert "<details open" not in page
    before, *_ = page.split("<details>")
    assert before.count("<table>") == 1
    assert "the load average was 1.8 of 2 cores" not in before


def test_one_model_is_not_shown_twice() -> None:
    titles = [part.title for part in folded_parts(report([result("int8"), result("torch eager")]))]
    assert titles == ["What slmx chooses", "nano: all 2 cases", "Machine and models", "Published figures"]


def test_what_changes_the_conclusion_stands_before_the_picture() -> None:
    page = to_html(report([result("int8")], [STOPPED]))
    assert page.index(STOPPED) < page.index("<svg")
    assert page.count(STOPPED) == 1


def test_our_rows_and_the_best_figures_are_marked(page: str) -> None:
    (table, *_) = re.findall(r"<table>.*?</table>", page, re.DOTALL)
    rows = re.findall(r'<tr( class="ours")?>\s*<th scope="row"[^>]*>(.*?)</th>', table)
    assert [name for ours, name in rows if ours] == [name for _, name in rows if name.startswith("slmx ")]
    assert rows[0] == (' class="ours"', "slmx int8")
    assert '<td class="best">8,250</td>' in table


def test_the_page_escapes_names_in_tables_and_charts() -> None:
    text = to_html(strange_report(HOSTILE))
    assert "<script" not in text
    found = Page(text)
    assert "script" not in {tag for tag, _ in found.tags}
    assert HOSTILE in "".join(found.text)
    assert f"{HOSTILE} is old" in found.text


def test_nothing_measured_is_a_page_too() -> None:
    page = to_html(report([]))
    assert "<h1>Nothing was measured.</h1>" in page
    assert "<svg" not in page
    assert "<summary>Machine and models</summary>" in page
