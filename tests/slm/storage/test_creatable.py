"""A check whether a file can be made."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, Any

import pytest

from slm.storage.disk import check_creatable


def test_the_temporary_file_is_closed_before_it_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows removes no open file."""
    opened: list[IO[Any]] = []
    fdopen, unlink = os.fdopen, os.unlink

    def open_watched(descriptor: int, mode: str) -> IO[Any]:
        opened.append(fdopen(descriptor, mode))
        return opened[-1]

    def unlink_closed(path: str) -> None:
        assert [file.closed for file in opened] == [True]
        unlink(path)

    monkeypatch.setattr("slm.storage.disk.os.fdopen", open_watched)
    monkeypatch.setattr("slm.storage.disk.os.unlink", unlink_closed)
    check_creatable(tmp_path / "story.txt")
    assert opened
    assert not list(tmp_path.iterdir())
