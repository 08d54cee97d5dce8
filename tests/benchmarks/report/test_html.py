"""The page of a report: it loads nothing, works on phones and in both themes, and escapes every name."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from benchmarks.report.charts import CHARTS
from benchmarks.report.html import to_html
from benchmarks.report.printers import to_markdown
from benchmarks.report.record import Report
from tests.report_samples import large_report, strange_report

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


@pytest.mark.slow
def test_the_page_fetches_nothing(page: str) -> None:
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", page)
    tags = Page(page).tags
    assert not {tag for tag, _ in tags} & {"script", "link", "img", "iframe", "object", "base", "source"}
    assert all("src" not in attributes for _, attributes in tags)
    links = [value for _, attributes in tags for name, value in attributes.items() if name == "href"]
    assert links
    assert all(value is not None and value.startswith("#") for value in links)


def test_every_reference_of_the_page_has_its_one_target(page: str) -> None:
    ids = [attributes["id"] for _, attributes in Page(page).tags if "id" in attributes]
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', page))
    assert used <= set(ids)
    assert len(ids) == len(set(ids))


def test_the_page_is_for_phones_and_both_themes(page: str) -> None:
    tags = Page(page).tags
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in tags
    tables, boxes = (sum(tag == name for tag, _ in tags) for name in ("table", "figure"))
    assert tables == sum(attributes.get("class") == "table" for _, attributes in tags) == 5
    assert boxes == len(CHARTS)
    assert sum(tag == "svg" for tag, _ in tags) == 2 * boxes
    for theme in ("light", "dark"):
        assert sum(attributes.get("class") == theme for _, attributes in tags) == boxes
    assert "prefers-color-scheme: dark" in page


def test_the_page_is_in_the_order_of_the_markdown(large: Report, page: str) -> None:
    headings = re.findall(r"<h2>(.*)</h2>", page)
    assert headings == re.findall(r"^## (.*)$", to_markdown(large, [("a", "a.png")]), re.MULTILINE)
    shown = Page(page).text
    assert {"7,500", "not installed; pip install candle", "the load average was 1.8 of 2 cores"} <= set(shown)


@pytest.mark.slow
def test_the_page_escapes_names_in_tables_and_charts() -> None:
    text = to_html(strange_report(HOSTILE))
    assert "<script" not in text
    found = Page(text)
    assert "script" not in {tag for tag, _ in found.tags}
    assert HOSTILE in found.text
    assert f"{HOSTILE} is old" in found.text
