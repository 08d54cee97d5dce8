"""The figures of the shipped models in the documents, from evaluations."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks.evaluation.run import Evaluation
from benchmarks.evaluation.write_docs import PAGE, write_docs
from slm.console.errors import SlmxError
from tests.benchmarks.evaluation.samples import full_evaluation

ROOT = Path(__file__).resolve().parents[3]


def test_the_page_keeps_its_sentences_and_has_the_tables_of_each_model(tmp_path: Path) -> None:
    page = tmp_path / PAGE
    page.write_text("# Figures\n\nWhat é says.\n\n## old\n\n### Loss\n\nOld figures.\n", "utf-8")
    (tmp_path / "quality").mkdir()
    write_docs({"nano": full_evaluation(), "two": full_evaluation()}, tmp_path)
    text = page.read_text("utf-8")
    assert text.startswith("# Figures\n\nWhat é says.\n\n## nano\n\n![Bits per byte of each variant of nano against")
    assert "Old figures" not in text
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["nano", "two"]
    assert text.count("\n### Loss\n") == 2
    assert sorted(path.name for path in (tmp_path / "quality").iterdir()) == ["nano-size.svg", "two-size.svg"]
    before = text
    write_docs({"nano": full_evaluation(), "two": full_evaluation()}, tmp_path)
    assert page.read_text("utf-8") == before


@pytest.mark.parametrize("name", ["nano", "micro", "small"])
def test_a_picture_defines_each_colour_that_it_has(name: str) -> None:
    picture = (ROOT / "docs" / "quality" / f"{name}-size.svg").read_text("utf-8")
    style = ET.fromstring(picture).find("{http://www.w3.org/2000/svg}style")
    assert style is not None
    assert style.text is not None
    light, dark = style.text.split("@media")
    used = set(re.findall(r"var\((--c\d+)\)", picture))
    assert used
    for theme in (light, dark):
        assert used <= set(re.findall(r"(--c\d+): #", theme))


def test_an_evaluation_without_loss_has_nothing_to_draw(tmp_path: Path) -> None:
    (tmp_path / PAGE).write_text("# Figures\n", "utf-8")
    with pytest.raises(SlmxError, match=r"^nano: no loss of two variants to draw"):
        write_docs({"nano": Evaluation({"model": "nano"})}, tmp_path)
    assert (tmp_path / PAGE).read_text("utf-8") == "# Figures\n"
