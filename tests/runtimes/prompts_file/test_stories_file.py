"""The file of stories: rows are whole or absent, and only the same run goes on."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from runtimes.prompts_file.record import Position
from runtimes.prompts_file.writer import Row, StoriesFile
from slm.console.errors import SlmxError

SETTINGS: dict[str, object] = {"bundle": "a", "seed": 1, "temperature": 0.9}
SHA = "0" * 64


def row(line: int, index: int = 0, failed: bool = False) -> Row:
    values = {"line": line, "index": index} | ({"error": "x"} if failed else {"text": "é"})
    return Row(line, index, json.dumps(values).encode() + b"\n", failed)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """The file of a run that wrote the rows of two lines."""
    path = tmp_path / "o.jsonl"
    file = StoriesFile(path, SETTINGS, 0, False)
    file.open()
    file.write([row(1), row(1, 1, True)], Position(3, SHA))
    file.write([row(3)], Position(4, SHA))
    file.close()
    return path


def refused(path: Path, force: bool = False, **changes: object) -> str:
    before = path.read_bytes()
    with pytest.raises(SlmxError) as caught:
        StoriesFile(path, SETTINGS | changes, 0, force)
    assert path.read_bytes() == before
    return str(caught.value)


def test_the_same_run_goes_on(out: Path) -> None:
    file = StoriesFile(out, SETTINGS, 0, False)
    assert (file.done.line, file.done.index, file.done.rows, file.done.failed) == (3, 0, 3, 1)
    assert file.last == Position(3, SHA)
    assert file.done.first_failed == 1
    before = out.read_bytes()
    file.open()
    file.write([row(5)], Position(6, SHA))
    file.close()
    assert out.read_bytes() == before + row(5).content
    assert StoriesFile(out, SETTINGS, 0, False).done.rows == 4


@pytest.mark.parametrize("cut", range(1, 20))
def test_a_torn_last_row_is_cut_off(out: Path, cut: int) -> None:
    whole = out.read_bytes()
    out.write_bytes(whole[:-cut])
    file = StoriesFile(out, SETTINGS, 0, False)
    file.open()
    file.close()
    assert out.read_bytes() == whole[: -len(row(3).content)]


def test_a_torn_record_is_cut_off(out: Path) -> None:
    record = out.with_name("o.jsonl.run")
    record.write_bytes(record.read_bytes() + b'{"line": 9, "sha')
    assert StoriesFile(out, SETTINGS, 0, False).last == Position(3, SHA)


def test_rows_that_the_record_does_not_know_are_cut_off(out: Path) -> None:
    """After a power cut the rows can be on the disk, and the record not yet."""
    whole = out.read_bytes()
    out.write_bytes(whole + row(4).content)
    file = StoriesFile(out, SETTINGS, 0, False)
    file.open()
    file.close()
    assert out.read_bytes() == whole


def test_other_settings_are_refused(out: Path) -> None:
    assert refused(out, temperature=0.5) == (
        f"{out}: holds stories of another run: its temperature was 0.9, now 0.5; choose another --out, or add --force "
        "to begin anew"
    )
    assert "its bundle was" in refused(out, bundle="b")
    assert "its stop was null, now" in refused(out, stop=["a"])
    assert StoriesFile(out, SETTINGS | {"seed": None}, 99, False).seed == 1


def test_a_file_of_someone_else_is_refused(out: Path) -> None:
    whole = out.read_bytes()
    out.write_bytes(b"notes\n" + whole)
    assert "row 1 is not one that slmx wrote" in refused(out)
    out.write_bytes(whole + row(1).content + row(4).content)
    assert "row 4 is not one that slmx wrote" in refused(out)
    out.write_bytes(whole)
    record = out.with_name("o.jsonl.run")
    record.write_bytes(record.read_bytes()[:30] + b"\n")
    assert "not the record of a run" in refused(out)
    never = ", and slmx never replaces such a file; choose another --out, or move it away"
    for force in (False, True):
        record.write_text("notes\n")
        assert refused(out, force) == f"{record}: not the record of a run{never}"
        record.write_text("")
        assert refused(out, force) == f"{out}: exists already, without the record of a run{never}"
        record.unlink()
        assert refused(out, force) == f"{out}: exists already, without the record of a run{never}"


@pytest.mark.parametrize("seed", ['"x"', "null", "-5", "1.5", str(2**63)])
def test_a_record_with_a_seed_that_is_none_is_refused(out: Path, seed: str) -> None:
    record = out.with_name("o.jsonl.run")
    record.write_text(record.read_text().replace('"seed": 1', f'"seed": {seed}'))
    assert "not the record of a run (seed is not a whole number" in refused(out)


@pytest.mark.parametrize(
    ("number", "advice"), [(errno.EDQUOT, "make room"), (errno.EIO, "check the disk and its permissions")]
)
def test_a_disk_that_fails_is_told_with_what_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, advice: str
) -> None:
    def fail(folder: Path) -> None:
        raise OSError(number, os.strerror(number), folder)

    monkeypatch.setattr("runtimes.prompts_file.writer.sync", fail)
    file = StoriesFile(tmp_path / "o.jsonl", SETTINGS, 0, False)
    file.open()
    with pytest.raises(SlmxError) as caught:
        file.begin()
    file.close()
    said = f"{file.path}: cannot write ({os.strerror(number)}); it keeps 0 stories; "
    assert str(caught.value) == f"{said}{advice}, and the same command goes on"


def test_a_record_of_someone_else_is_refused_without_stories(tmp_path: Path) -> None:
    record = tmp_path / "o.jsonl.run"
    record.write_text("notes\n")
    with pytest.raises(SlmxError, match="not the record of a run, and slmx never replaces such a file"):
        StoriesFile(tmp_path / "o.jsonl", SETTINGS, 0, True)
    assert record.read_text() == "notes\n"


def test_force_begins_anew(out: Path) -> None:
    before = out.read_bytes()
    file = StoriesFile(out, SETTINGS | {"temperature": 0.5}, 0, True)
    assert (file.done.rows, file.last) == (0, None)
    file.open()
    file.close()
    assert out.read_bytes() == before, "the old rows stay until there are new ones"
    assert file.kept() == ("the stories of the other run", "the same command")
    file.open()
    file.begin()
    file.close()
    assert out.read_bytes() == b""
    assert file.kept() == ("0 stories", "the same command without --force")
    assert StoriesFile(out, SETTINGS | {"temperature": 0.5}, 0, False).done.rows == 0
