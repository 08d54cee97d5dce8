"""Fixtures of the tests of slm.data. Their paths have characters that are special in URLs, globs and rich."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from slm.data.corpus import TokenStream
from slm.data.prepare import PrepareSettings
from slm.tokenizers.tokenizer import Tokenizer
from tests.conftest import as_corpus

COMPRESS: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


@pytest.fixture
def tmp_path(tmp_path: Path) -> Path:
    """A folder with an unusual name inside pytest's folder."""
    folder = tmp_path / "my é 50%20 a#b [red]*?"
    folder.mkdir()
    return folder


def compress(content: bytes, suffix: str) -> bytes:
    """The content packed as a suffix says."""
    if suffix == ".zst":
        zstandard = pytest.importorskip("zstandard", reason="needs the train extra")
        packed: bytes = zstandard.compress(content)
        return packed
    return COMPRESS[suffix](content)


def write(path: Path, stories: list[str]) -> Path:
    """Writes the stories in the format of the name's suffixes. A table also has a column `id`."""
    packed = path.suffix in (*COMPRESS, ".zst")
    kind = (path.with_suffix("") if packed else path).suffix
    rows = [{"text": story, "id": number} for number, story in enumerate(stories)]
    if kind == ".parquet":
        pa = pytest.importorskip("pyarrow", reason="needs the train extra")
        pq = pytest.importorskip("pyarrow.parquet", reason="needs the train extra")
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif kind in (".csv", ".tsv"):
        with path.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file, delimiter="\t" if kind == ".tsv" else ",", quoting=csv.QUOTE_NONNUMERIC)
            table.writerow(["id", "text"])
            table.writerows(enumerate(stories))
    elif kind == ".json":
        path.write_text(json.dumps(rows, indent=1), "utf-8")
    elif kind in (".jsonl", ".ndjson"):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    else:
        path.write_text(as_corpus(stories), "utf-8")
    if packed:
        path.write_bytes(compress(path.read_bytes(), path.suffix))
    return path


@pytest.fixture
def corpus_file(corpus_file: Path, tmp_path: Path) -> Path:
    """The stories, in a folder with an unusual name."""
    return Path(shutil.copy(corpus_file, tmp_path / "stories.txt"))


@pytest.fixture
def plan(corpus_file: Path, tmp_path: Path) -> PrepareSettings:
    """The stories to be prepared with 300 tokens."""
    return PrepareSettings((str(corpus_file),), "nano", tmp_path / "set", vocab_size=300)


@pytest.fixture
def console() -> Console:
    """A console whose text can be read, as a terminal would show it."""
    return Console(file=io.StringIO(), record=True, width=200)


def stories_of(stream: TokenStream, tokenizer: Tokenizer) -> list[str]:
    """The texts that a stream holds."""
    ids = stream.ids[:]
    pieces = np.split(ids, np.flatnonzero(ids == tokenizer.end_of_text))[1:]
    return [tokenizer.decode(piece.tolist()) for piece in pieces]
