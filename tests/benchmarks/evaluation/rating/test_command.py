"""`slmx evaluate --rating-sheet` and `--ratings`, from the options to the table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.evaluation.rating.questions import KEY, Key
from tests.benchmarks.evaluation.rating.sheets import saved
from tests.bundles import Slmx

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def text(stories: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stories that are long enough for endings of 60 words."""
    path = tmp_path_factory.mktemp("text") / "stories.txt"
    long = [" ".join(stories[number : number + 2]).replace("\n", " ") for number in range(0, 12, 2)]
    path.write_text("\n<|endoftext|>\n".join(long), "utf-8")
    return path


def test_a_sheet_is_made_rated_and_read_back(text: Path, slmx: Slmx, tmp_path: Path) -> None:
    command: list[str | Path] = ["evaluate", "nano", "--text", text, "--count", "3", "--out", "found"]
    done = slmx(*command, "--rating-sheet", "sheet.html")
    assert done.code == 0, done.stderr
    page = (tmp_path / "sheet.html").read_text("utf-8")
    key = Key.read(tmp_path / "found")
    assert key.pairs == (("nano int8", "true stories"),)
    assert all(question.id in page for question in key.questions)
    assert "nano" not in page
    assert "sheet.html: give this page to people" in done.stderr
    again = slmx(*command, "--rating-sheet", "sheet.html")
    assert again.code == 0, again.stderr
    assert (tmp_path / "sheet.html").read_text("utf-8") == page
    answers = {question.id: "a" if question.a == "true stories" else "b" for question in key.questions}
    file = saved(tmp_path / "rater.json", key, answers)
    read = slmx("evaluate", "--ratings", file, "--out", "found", "--json")
    assert read.code == 0, read.stderr
    assert json.loads(read.stdout)["pairs"][0]["lost"] == 3
    assert "| nano int8 | true stories | 0 | 3 |" in slmx("evaluate", "--ratings", file, "--out", "found").stdout
    slmx.refuses_unchanged("evaluate", "--ratings", tmp_path / "found" / KEY, "--out", "found")


def test_wrong_use_is_one_line_before_anything_is_written(text: Path, slmx: Slmx) -> None:
    start = ["evaluate", "nano", "--text", str(text)]
    for more, said in (
        (["--rating-sheet", "a.html"], "--rating-sheet needs --out DIR"),
        (["--rating-sheet", "no/a.html", "--out", "o"], "its folder does not exist"),
        (["--rating-sheet", "a.txt", "--out", "o"], "give a name that ends with .html"),
    ):
        assert said in slmx.refuses_unchanged(*start, *more, code=2)
    assert "the suite stories needs --text" in slmx.refuses_unchanged(
        "evaluate", "nano", "--rating-sheet", "a.html", "--out", "o", code=2
    )
    assert "MODEL is missing" in slmx.refuses_unchanged("evaluate", code=2)
