"""The page of an evaluation: it loads nothing, escapes every text, says how it was made, and stays small."""

from __future__ import annotations

import json
import random
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from benchmarks.evaluation.page.headline import headline
from benchmarks.evaluation.page.html import to_html
from benchmarks.evaluation.run import TRUE, Evaluation
from benchmarks.evaluation.tables import tables
from benchmarks.report.warnings import STOPPED
from tests.benchmarks.evaluation.samples import endings, evaluation, full_evaluation, loss
from tests.report_samples import report, result

pytestmark = pytest.mark.slow

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>&amp;\ud800\x00"
MOST_BYTES = 400_000
COMMAND = "slmx evaluate nano --seed 7"


class Seen(HTMLParser):
    """Collects the tags with their attributes, and the text outside scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_data(self, data: str) -> None:
        if self._inside not in ("script", "style"):
            self.text.append(data)


@pytest.fixture
def found() -> Evaluation:
    """Four models with every suite."""
    return full_evaluation()


@pytest.fixture(scope="module")
def page() -> str:
    """Their page."""
    return to_html(full_evaluation(), COMMAND)


def data_of(page: str) -> list[dict[str, Any]]:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    found: list[dict[str, Any]] = json.loads(text)
    return found


def test_it_loads_nothing(page: str) -> None:
    without_names = page.replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert not re.search(r"https?:|//[a-z]+\.|@import|url\((?!#)|\bfetch\(|XMLHttpRequest", without_names)
    tags = Seen(page).tags
    assert not {tag for tag, _ in tags} & {"link", "img", "iframe", "object", "base", "source", "embed"}
    assert all("src" not in attributes for _, attributes in tags)
    links = [value for _, attributes in tags for name, value in attributes.items() if name == "href"]
    assert all(value is not None and value.startswith("#") for value in links)


def test_ids_are_unique_and_references_have_their_targets(page: str) -> None:
    ids = [attributes["id"] for _, attributes in Seen(page).tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', page)) <= set(ids)


def test_it_begins_with_the_sentence_the_command_and_the_seed(page: str, found: Evaluation) -> None:
    (title,) = re.findall(r"<h1>(.*?)</h1>", page, re.DOTALL)
    assert re.sub(r"<[^>]*>", "", title) == headline(found).text
    places = [page.index(text) for text in ("seed 7", "<h1>", COMMAND, "4 of 4 models qualify", "<svg", "<h2>Loss")]
    assert places == sorted(places)


def test_every_table_is_there(page: str, found: Evaluation) -> None:
    text = "".join(Seen(page).text)
    for one in tables(found):
        assert f"<h2>{one.heading}</h2>" in page
        assert one.note in text
        assert all(cell in text for row in one.rows for cell in row)


def test_the_script_knows_sizes_and_qualities_of_which_less_is_better(found: Evaluation) -> None:
    bench = report([result("int8", speed=5000)])
    found.results["nano int8"]["bytes"] = 2 * 2**20
    page = to_html(found, COMMAND, bench)
    models = data_of(page)
    assert [model["size"] for model in models] == [2 * 2**20, 7_400_000, 2_000_000, 1_500_000]
    assert [model["speed"] for model in models] == [pytest.approx(5000), 0, 0, 0]
    assert models[1]["loss"] == {"loss": 0.744, "pairs": pytest.approx(-89.7)}
    assert models[1]["told"]["loss"] == "nano fp32: 0.7440 ± 0.0120 bits per byte, 7.40 MB"
    assert 'id="speed"' in page
    assert 'id="speed"' not in to_html(full_evaluation(), COMMAND)


def test_where_the_speeds_are_from_and_what_disturbed_them_is_told(found: Evaluation, page: str) -> None:
    bench = report([result("int8", speed=5000)], [STOPPED])
    assert "has no speed of these models" in to_html(full_evaluation(), COMMAND, bench)
    found.results["nano int8"]["bytes"] = 2 * 2**20
    told = to_html(found, COMMAND, bench)
    assert "<code>slmx bench</code>: Test CPU, 2 cores, onnxruntime 1.32.0, 2026-01-02." in told
    assert f"<li>{STOPPED}</li>" in told
    assert "The speed is not known here." in page


def test_the_figures_of_the_axes_are_whole(page: str) -> None:
    drawing = re.findall(r"<svg.*?</svg>", page, re.DOTALL)[0]
    ticks = [text for text in re.findall(r">([\d.]+)</text>", drawing) if text.startswith("0.7")]
    assert len(ticks) == len(set(ticks)) > 2


def test_models_that_are_nearly_equal_have_whole_figures_too() -> None:
    page = to_html(
        evaluation({"a": {"bytes": 5, "loss": loss(0.7)}, "b": {"bytes": 6, "loss": loss(0.7 + 1e-8)}}), COMMAND
    )
    drawing = re.findall(r"<svg.*?</svg>", page, re.DOTALL)[0]
    assert "1e" not in re.sub(r"<[^>]*>", "", drawing)
    assert len([text for text in re.findall(r">([\d.]+)</text>", drawing) if text.startswith(("0.69", "0.70"))]) > 2


def test_one_model_has_no_choice_and_no_script() -> None:
    page = to_html(evaluation({"nano int8": {"bytes": 5, "loss": loss(0.7)}}), COMMAND)
    assert "<script" not in page
    assert page.count("<svg") == 1
    assert "<h2>The stories" not in page


def test_nothing_measured_is_a_page_too() -> None:
    assert "<h1>Nothing was measured.<strong></strong></h1>" in to_html(evaluation({}), COMMAND)


def test_every_text_is_escaped(page: str) -> None:
    written = endings({TRUE: [HOSTILE], "nano int8": [HOSTILE + " a"], "nano fp32": [HOSTILE]}, HOSTILE)
    results = {name.replace("nano", HOSTILE): suites for name, suites in full_evaluation().results.items()}
    hostile = to_html(evaluation(results, {}, written), HOSTILE)
    kinds = [attributes for tag, attributes in Seen(hostile).tags if tag == "script"]
    assert kinds == [{"type": "application/json", "id": "data"}, {}]
    assert "img" not in {tag for tag, _ in Seen(hostile).tags}
    assert HOSTILE.rstrip("\x00") in "".join(Seen(hostile).text)
    assert data_of(hostile)[0]["told"]["loss"].startswith("</script><script>")


def test_a_hundred_beginnings_and_three_models_have_room() -> None:
    rng = random.Random(1)
    words = [f"word{number}" for number in range(300)]
    found = full_evaluation()
    del found.results["nano q8"]
    texts = {
        name: [" ".join(rng.choices(words, k=110)) for _ in range(100)] for name in (TRUE, *list(found.results)[:3])
    }
    found.endings = endings(texts, " ".join(words[:50]))
    assert len(to_html(found, COMMAND).encode()) < MOST_BYTES
