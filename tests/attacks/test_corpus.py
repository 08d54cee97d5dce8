"""Files that once did something else than to be read or refused in one line. The folder is the reader's name."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.attacks.conftest import GetReader
from tests.reliability import reader as readers
from tests.reliability.hostile import CORPUS

FILES = sorted(path.relative_to(CORPUS).as_posix() for path in CORPUS.glob("*/*"))


@pytest.mark.parametrize("file", FILES)
def test_what_once_failed_is_read_or_refused_in_one_line(file: str, reader: GetReader) -> None:
    fault = readers.fault_of(reader(Path(file).parent.name), (CORPUS / file).read_bytes())
    assert fault is None, fault
