"""Stories from every kind of source, and what is said of one that cannot be read."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pytest

from slm.data.sources import find_sources, read_stories
from slm.data.tables import hub_rows, hub_version
from slm.errors import SlmxError
from slm.tokenizer import END_OF_TEXT
from tests.conftest import as_corpus, run_slmx

pa = pytest.importorskip("pyarrow", reason="needs the train extra")
pq = pytest.importorskip("pyarrow.parquet", reason="needs the train extra")
zstandard = pytest.importorskip("zstandard", reason="needs the train extra")


def write(path: Path, stories: list[str]) -> Path:
    """The stories in the format that the name says."""
    kind = path.name.split(".", 1)[1]
    if kind == "parquet":
        pq.write_table(pa.table({"text": stories, "id": list(range(len(stories)))}), path)
        return path
    if kind == "csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "text"])
            writer.writerows(enumerate(stories))
        return path
    lines = "".join(json.dumps({"text": story, "id": n}) + "\n" for n, story in enumerate(stories))
    text = lines if kind.startswith("jsonl") else as_corpus(stories)
    if kind == "blank.txt":
        text = "\n\n".join(stories)
    content = text.encode()
    if kind.endswith("gz"):
        content = gzip.compress(content)
    if kind.endswith("zst"):
        content = zstandard.compress(content)
    path.write_bytes(content)
    return path


KINDS = ("txt", "blank.txt", "txt.gz", "txt.zst", "jsonl", "jsonl.gz", "jsonl.zst", "csv", "parquet")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_holds_the_same_stories(kind: str, stories: list[str], tmp_path: Path) -> None:
    path = write(tmp_path / f"stories.{kind}", stories[:40])
    assert list(read_stories([path])) == stories[:40]
    assert list(read_stories([str(path), path])) == stories[:40] * 2


def test_a_folder_is_all_its_files_in_order(stories: list[str], tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    write(tmp_path / "a.txt", stories[:5])
    write(tmp_path / "b.jsonl", stories[5:9])
    write(tmp_path / "deep" / "c.parquet", stories[9:12])
    (tmp_path / "notes.pdf").write_bytes(b"%PDF")
    assert list(read_stories([tmp_path])) == stories[:12]
    (tmp_path / "empty").mkdir()
    with pytest.raises(SlmxError, match=r"empty: no corpus in this folder \(looked for \.txt.*\.parquet\)"):
        list(read_stories([tmp_path / "empty"]))


def test_the_separator_is_found_and_can_be_forced(tmp_path: Path) -> None:
    marked, blank = tmp_path / "marked.txt", tmp_path / "blank.txt"
    marked.write_text(f"one\n\nstill one\n{END_OF_TEXT}\ntwo{END_OF_TEXT}three{END_OF_TEXT}\n", "utf-8")
    blank.write_text("one\nmore\n\n\n \ntwo\r\nmore\r\n\r\nthree", "utf-8", newline="")
    assert [source.separator for source in find_sources([marked, blank])] == ["endoftext", "blank"]
    assert list(read_stories([marked])) == ["one\n\nstill one", "two", "three"]
    assert list(read_stories([blank])) == ["one\nmore", "two\nmore", "three"]
    assert next(read_stories([marked], separator="blank")) == "one"
    assert list(read_stories([blank], separator="endoftext")) == ["one\nmore\n\n\n \ntwo\nmore\n\nthree"]
    with pytest.raises(SlmxError, match="--separator comma: choose one of auto, endoftext, blank"):
        find_sources([marked], "comma")


def test_a_marker_across_two_reads_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    path.write_text(f"one\n\nmore\n{END_OF_TEXT}\ntwo é\n", "utf-8")
    for size in range(1, 30):
        monkeypatch.setattr("slm.data.files.CHUNK", size)
        assert find_sources([path])[0].separator == "endoftext"
        assert list(read_stories([path])) == ["one\n\nmore", "two é"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", None, "cannot read the corpus (No such file or directory)"),
        ("a.jsonl", None, "cannot read the corpus (No such file or directory)"),
        ("a.txt", b"", "holds no story"),
        ("a.txt", b"<|endoftext|>\n \n", "holds no story"),
        ("a.txt", b"hello\nab\0c\n", ":2: a binary file"),
        ("a.txt", b"hello\n\xff\xfe\n", ":2: not UTF-8"),
        ("a.txt", "hello".encode("utf-16"), "UTF-16 text; convert it, for example with iconv -f UTF-16 -t UTF-8"),
        ("a.txt.gz", b"no archive", "cannot read the corpus ("),
        ("a.txt.gz", gzip.compress(b"once upon a time " * 99, mtime=0)[:40], "a damaged archive ("),
        ("a.txt.zst", b"no archive", "a damaged archive ("),
        ("a.jsonl", b'{"text": "a"}\n{"text": 1}\n', ": row 2: expected text in 'text', not 1"),
        ("a.jsonl", b"nonsense\n", "cannot read the corpus ("),
        ("a.jsonl", b'{"story": "a", "id": 1}\n', ": no column 'text'; it has id, story: choose one with --field"),
        ("a.jsonl", b'{"text": "a"}\n{"text": null}\n', ": row 2: expected text in 'text', not None"),
        ("a.jsonl", b'{"text": 5}\n', ": row 1: expected text in 'text', not 5"),
        ("a.jsonl", b'{"text": " "}\n', "holds no story"),
        ("a.csv", b"id,story\n1,once\n", ": no column 'text'; it has id, story: choose one with --field"),
        ("a.parquet", b"PAR1 or not", "cannot read the corpus ("),
    ],
)
def test_unusable_files_are_named_in_one_line(name: str, content: bytes | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SlmxError) as caught:
        list(read_stories([path]))
    assert str(caught.value).startswith(str(path))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_column_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"story": "once", "id": 1}\n', "utf-8")
    assert list(read_stories([path], field="story")) == ["once"]


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(f"one\n{END_OF_TEXT}\n", "utf-8-sig")
    assert list(read_stories([tmp_path / "a.txt"])) == ["one"]


def test_the_call_that_reads_the_hub_reads_a_local_data_set(stories: list[str], tmp_path: Path) -> None:
    write(tmp_path / "train-00000-of-00001.parquet", stories[:7])
    write(tmp_path / "validation-00000-of-00001.parquet", stories[7:9])
    for name, expected in ((str(tmp_path), stories[:7]), (f"{tmp_path}:validation", stories[7:9])):
        assert [row["text"] for row in hub_rows(name)] == expected
    assert hub_version(str(tmp_path)) == hub_version(f"{tmp_path}:validation")


def test_a_name_of_a_hub_data_set_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert [source.kind for source in find_sources(["roneneldan/TinyStories", "a/b:validation"])] == ["hub", "hub"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "stories").mkdir()
    (tmp_path / "mine" / "stories" / "a.txt").write_text("one", "utf-8")
    assert [source.kind for source in find_sources(["mine/stories"])] == ["text"]


def test_a_hub_that_cannot_be_reached_is_one_line(tmp_path: Path) -> None:
    ran = run_slmx(
        "prepare",
        "nobody/nothing-of-the-kind",
        "--out",
        tmp_path / "set",
        cwd=tmp_path,
        env={"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")},
    )
    assert ran.returncode == 1
    assert ran.stdout == ""
    line = ran.stderr.splitlines()[-1]
    assert line.startswith("slmx: nobody/nothing-of-the-kind: cannot read the corpus (")
    assert line.endswith("; check the name and the connection, or give a file")
    assert "Traceback" not in ran.stderr
    assert not (tmp_path / "set").exists()
