"""The readers of all files, and the line with which they refuse one."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from slm.console.errors import SlmxError
from tests.reliability.reader import Reader
from tests.reliability.readers import READERS

GetReader = Callable[[str], Reader]


@pytest.fixture(scope="session")
def reader(tmp_path_factory: pytest.TempPathFactory) -> GetReader:
    """Returns the reader of a kind of file, which is made once."""
    return cache(lambda name: READERS[name](tmp_path_factory.mktemp(name)))


def refusal(reader: Reader, content: bytes) -> str:
    """The one line that refuses a content."""
    with pytest.raises(SlmxError) as caught:
        reader.read(content)
    (line,) = str(caught.value).splitlines()
    return line


def outside(path: Path) -> Path:
    """A file that no attack may touch."""
    return path / "touched.txt"
