"""The error of a file that cannot be read."""

from __future__ import annotations

import errno
import gzip
import os
from pathlib import Path

import pytest

from slm.storage.disk import WriteError
from slm.storage.read_errors import LONGEST_REASON, reason_of, unreadable
from slm.storage.system_errors import system_line


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOENT, "check the path"),
        (errno.ENOTDIR, "check the path"),
        (errno.EACCES, "check its permissions"),
        (errno.EIO, "check the file"),
    ],
)
def test_the_advice_follows_from_the_error(number: int, advice: str) -> None:
    assert str(unreadable(Path("a/b"), OSError(number, "It is so", "c"))) == f"a/b: cannot read (It is so); {advice}"


def test_the_caller_says_what_was_read_and_what_to_do() -> None:
    error = unreadable("a/b", ValueError("more than 5 bytes"), "the merges", "copy the folder again")
    assert str(error) == "a/b: cannot read the merges (more than 5 bytes); copy the folder again"


def test_without_permission_no_other_advice_helps() -> None:
    error = unreadable("key", OSError(errno.EACCES, "Permission denied"), "the key", "slmx keygen makes one")
    assert str(error) == "key: cannot read the key (Permission denied); check its permissions"


@pytest.mark.parametrize("name", ["b", "b/c.json"])
def test_a_folder_without_permission_is_named_and_not_a_file_in_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "ä closed"
    (closed / "b").mkdir(parents=True)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != closed)
    error = OSError(errno.EACCES, "Permission denied", str(closed / name))
    assert str(unreadable(closed / name, error)) == f"{closed}: cannot read (Permission denied); check its permissions"
    assert system_line(error) == f"{closed}: Permission denied; check its permissions"
    unwritten = WriteError(errno.EACCES, "Permission denied", str(closed / name))
    advice = "check its permissions, or use another folder"
    assert system_line(unwritten) == f"{closed}: cannot write (Permission denied); {advice}"


def test_a_current_folder_without_permission_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(self: Path) -> os.stat_result:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "stat", closed)
    error = OSError(errno.EACCES, "Permission denied", "bundles/nano")
    assert system_line(error) == ".: Permission denied; check its permissions"


def test_the_reason_is_one_short_plain_line() -> None:
    assert reason_of(gzip.BadGzipFile("Not a gzipped file")) == "Not a gzipped file", "an OSError without a number"
    assert reason_of(RuntimeError("in two\n\tlines\x1b[1m")) == "in two lines?[1m"
    assert reason_of(ValueError()) == "ValueError"
    assert len(reason_of(ValueError("long " * LONGEST_REASON))) == LONGEST_REASON
