"""The log that a stopped run continues from: the values that it keeps and refuses, and damaged files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.run.resume_log import ResumeLog
from slm.console.errors import SlmxError
from tests import bundles


@dataclass(frozen=True)
class Value:
    """The content of a line."""

    number: float
    words: list[str]


ONE, TWO = Value(1.5, ["é", "a\u2028b"]), Value(2.0, [])
ARGUMENTS = {"rounds": 3, "presets": ("nano",)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The log, in a folder that does not exist yet."""
    return tmp_path / "out é 50%#" / "log.jsonl"


def opened(path: Path, lines: list[str] | None = None, **changes: object) -> ResumeLog:
    log = ResumeLog(path, ARGUMENTS | changes, ([] if lines is None else lines).append)
    log.open()
    return log


def test_values_come_back_in_a_run_with_the_same_arguments(path: Path) -> None:
    lines: list[str] = []
    log = opened(path, lines)
    assert log.get("one", Value) is None
    log.put("one", ONE)
    log.put("two", TWO)
    assert (log.get("one", Value), lines) == (ONE, [])
    for _ in range(2):
        again = opened(path, lines)
        assert (again.get("one", Value), again.get("two", Value)) == (ONE, TWO)
    assert lines == [f"{path}: continues after 2 finished parts"] * 2
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_other_arguments_start_from_the_beginning(path: Path) -> None:
    lines: list[str] = []
    opened(path).put("one", ONE)
    log = opened(path, lines, rounds=4)
    assert lines == [f"{path}: made with other arguments, code or machine; starts from the beginning"]
    assert log.get("one", Value) is None
    assert opened(path).get("one", Value) is None


def test_a_finished_run_leaves_nothing(path: Path) -> None:
    log = opened(path)
    log.put("one", ONE)
    log.finish()
    log.finish()
    assert list(path.parent.iterdir()) == []


@settings(deadline=None)
@given(length=st.integers(0))
def test_a_log_that_was_cut_off_anywhere_is_continued(length: int) -> None:
    path = bundles.folder("log") / "log.jsonl"
    log = opened(path)
    log.put("one", ONE)
    log.put("two", TWO)
    whole = path.read_bytes()
    path.write_bytes(whole[: length % (len(whole) + 1)])
    again = opened(path)
    assert again.get("one", Value) in (None, ONE)
    assert again.get("two", Value) is None or again.get("one", Value) == ONE
    again.put("three", TWO)
    assert opened(path).get("three", Value) == TWO


@pytest.mark.parametrize(
    "line",
    [
        "[]",
        "1",
        "null",
        "{}",
        '{"key": "one"}',
        '{"key": 1, "value": {}}',
        '{"key": ["one"], "value": {}}',
        '{"key": "one", "value": 1}',
        '{"key": "one", "value": {"number": "1.5", "words": []}}',
        '{"key": "one", "value": {"number": 1.5}}',
        '{"key": "one", "value": {"number": 1.5, "words": [], "more": 1}}',
        "[" * 100_000,
        "no JSON",
    ],
    ids=range(13),
)
def test_a_line_that_holds_something_else_is_no_value(path: Path, line: str) -> None:
    opened(path).put("two", TWO)
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    log = opened(path)
    assert log.get("one", Value) is None
    assert log.get("two", Value) == TWO


def test_a_file_that_is_no_log_is_replaced(path: Path) -> None:
    path.parent.mkdir()
    for content in (b"", b"\xff\xfe", b"[]\n[]\n", json.dumps({"arguments": 1}).encode()):
        path.write_bytes(content)
        log = opened(path)
        log.put("one", ONE)
        assert opened(path).get("one", Value) == ONE


def test_what_cannot_be_written_is_one_line(tmp_path: Path, path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SlmxError, match=r"log: cannot write \(File exists\); use another folder"):
        opened(tmp_path / "file" / "log")
    log = opened(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(SlmxError, match=r"log\.jsonl: cannot write \(Is a directory\)"):
        log.put("one", ONE)
