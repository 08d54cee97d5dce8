"""One column of a table: the text of every row, and one correct line for an unreadable table."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slm.console.errors import SlmxError
from slm.data.cleaning import Cleaning
from slm.data.sources import read_stories
from slm.data.tables import hub_rows, hub_version, read_column
from slm.tokenizers.settings import END_OF_TEXT
from tests.slm.data.conftest import write

pytestmark = pytest.mark.slow

pa = pytest.importorskip("pyarrow", reason="needs the train extra")
pq = pytest.importorskip("pyarrow.parquet", reason="needs the train extra")

KINDS = {"jsonl": "json", "json": "json", "csv": "csv", "tsv": "tsv", "parquet": "parquet"}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cells=st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"), min_size=1), min_size=1)
)
@pytest.mark.parametrize("suffix", KINDS)
def test_every_cell_is_read_as_it_was_written(suffix: str, cells: list[str], tmp_path: Path) -> None:
    path = write(tmp_path / f"a.{suffix}", cells)
    assert list(read_column(KINDS[suffix], path.name, path, "text")) == cells


@pytest.mark.parametrize("suffix", KINDS)
def test_words_that_look_like_nothing_are_text(suffix: str, tmp_path: Path) -> None:
    words = ["NA", "null", "None", "nan", "N/A", "-", "0"]
    assert list(read_stories([write(tmp_path / f"a.{suffix}", words)])) == words


def test_a_csv_with_semicolons_is_read(tmp_path: Path) -> None:
    path = tmp_path / "excel é.csv"
    path.write_text('id;text\n1;"One, two; three."\n2;Four, five.\n', "utf-8")
    assert list(read_stories([path])) == ["One, two; three.", "Four, five."]


@pytest.mark.parametrize("suffix", KINDS)
def test_a_marker_in_a_row_ends_a_story(suffix: str, tmp_path: Path) -> None:
    rows = [f"One day.\n{END_OF_TEXT}", f"Two.{END_OF_TEXT}Three.", f"{END_OF_TEXT}Four."]
    assert list(read_stories([write(tmp_path / f"a.{suffix}", rows)])) == ["One day.", "Two.", "Three.", "Four."]


@pytest.mark.parametrize("suffix", KINDS)
def test_line_ends_are_those_of_a_text_file(suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"a.{suffix}", ["one\r\ntwo\rthree\nfour"])
    text = tmp_path / "a.txt"
    text.write_bytes(b"one\r\ntwo\rthree\nfour")
    assert list(read_stories([path])) == list(read_stories([text])) == ["one\ntwo\nthree\nfour"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", '{"text": "one"}\n{"text": null}\n\n{"text": ""}\n{"id": 3}\n{"text": "two"}'),
        ("a.json", '[{"text": "one"},\n {"text": null},\n {"text": " "},\n {},\n {"text": "two"}]\n'),
        ("a.csv", 'id,text\n1,one\n2,\n\n3," "\n4,""\n5,two\n'),
        ("a.tsv", "text\tid\none\t1\n\t2\n\t3\n\t4\ntwo\t5"),
        ("a.parquet", ""),
    ],
)
def test_empty_rows_are_counted_and_skipped(name: str, content: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(content, "utf-8-sig")
    if name.endswith("parquet"):
        pq.write_table(pa.table({"text": ["one", None, "", "  ", "two"]}), path)
    counts = Cleaning()
    assert list(read_stories([path], counts=counts)) == ["one", "two"]
    assert (counts.read, counts.empty) == (3, 3)


@pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet"])
def test_only_the_wanted_column_is_looked_at(suffix: str, tmp_path: Path) -> None:
    """The other column is null for the first 10 MB, then text, then a number."""
    path = tmp_path / f"a.{suffix}"
    others: list[object] = [*[None] * 5000, "text", 7, {"deep": [1]}]
    rows = [{"text": f"{number} " + "word " * 500, "other": other} for number, other in enumerate(others)]
    if suffix == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    elif suffix == "json":
        path.write_text(json.dumps(rows, indent=1), "utf-8")
    else:
        pq.write_table(pa.table({"other": [b"\xff"] * len(rows), "text": [row["text"] for row in rows]}), path)
    assert list(read_stories([path])) == [str(row["text"]).strip() for row in rows]


def test_a_damaged_column_beside_the_wanted_one_does_not_matter(stories: list[str], tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", stories[:9])
    start = pq.read_metadata(path).row_group(0).column(1).dictionary_page_offset
    content = bytearray(path.read_bytes())
    content[start : start + 8] = b"\xff" * 8
    path.write_bytes(content)
    assert list(read_stories([path])) == stories[:9]
    with pytest.raises(SlmxError, match="cannot read the text"):
        list(read_stories([path], field="id"))


def test_a_json_array_on_one_line_or_over_many(tmp_path: Path) -> None:
    for indent in (None, 1):
        (tmp_path / "a.json").write_text(json.dumps([{"text": "one"}, {"text": "two"}], indent=indent), "utf-8")
        assert list(read_stories([tmp_path / "a.json"])) == ["one", "two"]


def test_letters_that_utf_8_cannot_hold_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "\\ud83d\\ude00 \\ud83d!"}', "utf-8")
    assert list(read_stories([tmp_path / "a.jsonl"])) == ["\U0001f600 \ufffd!"]


def test_long_cells_are_read(tmp_path: Path) -> None:
    with (tmp_path / "a.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["text"], ["word " * 50_000]])
    assert list(read_stories([tmp_path / "a.csv"])) == [("word " * 50_000).strip()]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"text": "a"}\n{"text": 1}\n', ": row 2: expected text in 'text', not 1"),
        ("a.jsonl", '{"text": 5}\n', ": row 1: expected text in 'text', not 5"),
        (
            "a.jsonl",
            "nonsense\n",
            ":1: not JSON (Expecting value, column 1); expected one object per line, or an array",
        ),
        ("a.jsonl", '\n{"text": "a"}\n{"text": "b"\n', ":3: not JSON ("),
        ("a.json", '[{"text": "a"},\n{"text" "b"}]', ":2: not JSON (Expecting ':' delimiter, column 9)"),
        ("a.json", '{\n"text": "b"}', ":1: not JSON ("),
        ("a.jsonl", '{"text": "a"}\n"b"\n', ": row 2: expected an object with 'text', not 'b'"),
        ("a.jsonl", "[" * 100_000, ":1: JSON nested too deep"),
        ("a.jsonl", f'{{"text": "a", "id": {"9" * 5000}}}', ":1: a number of too many digits; shorten it"),
        ("a.jsonl", '{"a\\nb\\u2028": 1}\n', ": no column 'text'; it has a?b?: choose one with slmx prepare --field"),
        ("a.csv", "a\x0bb,c\n1,2\n", ": no column 'text'; it has a?b, c: choose one with slmx prepare --field"),
        (
            "a.csv",
            "a, b;text\n1;2\n",
            ": no column 'text'; it has a,  b;text: choose one with slmx prepare --field, or rename it to 'text'; the "
            "first line has , and ; and was divided at , (a file with ; needs a first line without ,)",
        ),
        ("a.jsonl", '{"text": " "}\n', ": holds no story; expected text in 'text'"),
        ("a.csv", "", ": holds no story"),
        ("a.csv", "text\n", ": holds no story"),
        ("a.csv", "text\none, two\n", ":2: 2 cells, but 1 column; quote a text that holds the separator"),
        ("a.csv", "id,text\n1,one, two\n", ":2: 3 cells, but 2 columns; quote a text that holds the separator"),
        ("a.csv", 'text\n"never closed\n', ":2: not CSV (unexpected end of data); check its quotes"),
        ("a.tsv", 'text\n"Hi" he said\n', ":2: not TSV ("),
        ("a.csv", "text\na\0b\n", ":2: a binary file"),
        ("a.parquet", "PAR1 or not", ": cannot read the text ("),
    ],
)
def test_unusable_tables_are_named_in_one_line(name: str, content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(content, "utf-8")
    with pytest.raises(SlmxError) as caught:
        list(read_stories([path]))
    assert str(caught.value).startswith(f"{path}{message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", KINDS)
def test_a_missing_column_is_named_with_advice_that_works_for_every_command(suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"a.{suffix}", ["once"])
    with pytest.raises(SlmxError) as caught:
        list(read_stories([path], field="story"))
    columns = "id, text" if suffix in ("csv", "tsv") else "text, id"
    assert str(caught.value) == (
        f"{path}: no column 'story'; it has {columns}: choose one with slmx prepare --field, or rename it to 'story'"
    )
    assert list(read_stories([path], field="text")) == ["once"]


def test_a_column_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", ["once"])
    with pytest.raises(SlmxError, match="row 1: expected text in 'id', not 0"):
        list(read_stories([path], field="id"))


def test_a_packed_parquet_file_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet.gz", ["once"])
    with pytest.raises(SlmxError, match=r"a\.parquet\.gz: Parquet inside \.gz; unpack it first"):
        list(read_stories([path]))


def test_the_call_that_reads_the_hub_reads_a_local_data_set(stories: list[str], tmp_path: Path) -> None:
    folder = tmp_path.parent / "data"  # datasets takes [, * and ? in a name for a pattern
    folder.mkdir()
    write(folder / "train-00000-of-00001.parquet", stories[:7])
    write(folder / "validation-00000-of-00001.parquet", stories[7:9])
    for name, expected in ((str(folder), stories[:7]), (f"{folder}:validation", stories[7:9])):
        assert [row["text"] for row in hub_rows(name)] == expected
        assert list(read_column("hub", name, None, "text")) == expected
    assert hub_version(str(folder)) == hub_version(f"{folder}:validation")
    with pytest.raises(SlmxError, match="no column 'story'; it has text, id: choose one with slmx prepare --field"):
        list(read_column("hub", str(folder), None, "story"))
