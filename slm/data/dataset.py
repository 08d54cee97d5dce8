"""A prepared data set: a folder of token shards, their tokenizer, and `dataset.json` with every count and hash."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slm.data.corpus import Shards, TokenArray, TokenStream
from slm.errors import SlmxError
from slm.hashing import sha256_of
from slm.tokenizer import JSON_FILE, RANKS_FILE, Tokenizer, load_merges

DATASET_FILE = "dataset.json"
FORMAT_VERSION = 1
SHARD_TOKENS = 2**24
SIDES = ("train", "valid")


def is_dataset(folder: str | Path) -> bool:
    """Whether a folder is a prepared data set."""
    return (Path(folder) / DATASET_FILE).is_file()


@dataclass(frozen=True)
class Dataset:
    """The two sides of a corpus as tokens, memory-mapped, with the tokenizer they were made by."""

    folder: Path
    record: dict[str, Any]
    tokenizer: Tokenizer
    train: TokenStream
    valid: TokenStream

    @property
    def merges(self) -> list[tuple[str, str]]:
        """The tokenizer's merges in the order they were learned."""
        return load_merges(self.folder)

    @classmethod
    def open(cls, folder: Path) -> Dataset:
        """Read `dataset.json` and map the shards, after checking every file's SHA-256.

        Raises SlmxError naming the file that is missing, altered or from a newer format.
        """
        path = folder / DATASET_FILE
        try:
            record = json.loads(path.read_text("utf-8"))
            version = record["format_version"]
            if version != FORMAT_VERSION:
                raise SlmxError(
                    f"{path}: data set format {version}, this slmx reads {FORMAT_VERSION}; prepare it again"
                )
            files: dict[str, dict[str, Any]] = record["files"]
            sides = {side: record["sides"][side] for side in SIDES}
            for name in (RANKS_FILE, JSON_FILE, *(shard for side in SIDES for shard in sides[side]["shards"])):
                _check(folder / name, files[name]["sha256"])
        except OSError as error:
            raise SlmxError(
                f"{path}: cannot read the data set ({error.strerror}); make it with slmx prepare"
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise SlmxError(f"{path}: not a data set of slmx prepare ({error!r})") from error
        tokenizer = Tokenizer.load(folder)
        streams = {side: _open_side(folder, sides[side]) for side in SIDES}
        return cls(folder, record, tokenizer, streams["train"], streams["valid"])


def _check(path: Path, digest: str) -> None:
    if not path.is_file():
        raise SlmxError(f"{path}: missing from the data set; prepare it again with --force")
    if sha256_of(path) != digest:
        raise SlmxError(f"{path}: changed since {DATASET_FILE} was written; prepare it again with --force")


def _open_side(folder: Path, side: dict[str, Any]) -> TokenStream:
    arrays: list[TokenArray] = [np.load(folder / name, mmap_mode="r", allow_pickle=False) for name in side["shards"]]
    return TokenStream(Shards(arrays), side["text_bytes"], side["stories"])


class ShardWriter:
    """Collects the ids of one side and writes `SIDE-00000.npy`, `SIDE-00001.npy`, ... of `SHARD_TOKENS` each."""

    def __init__(self, folder: Path, side: str) -> None:
        self.folder = folder
        self.side = side
        self.buffer = np.empty(SHARD_TOKENS, np.uint16)
        self.filled = 0
        self.tokens = 0
        self.text_bytes = 0
        self.stories = 0
        self.shards: list[str] = []

    def add(self, stories: TokenStream) -> None:
        """Append encoded stories."""
        ids = stories.ids[:]
        self.tokens += len(ids)
        self.text_bytes += stories.text_bytes
        self.stories += stories.stories
        while len(ids):
            taken = min(len(ids), SHARD_TOKENS - self.filled)
            self.buffer[self.filled : self.filled + taken] = ids[:taken]
            self.filled += taken
            ids = ids[taken:]
            if self.filled == SHARD_TOKENS:
                self._write()

    def close(self) -> dict[str, Any]:
        """Write what is left; returns the side's entry of `dataset.json`."""
        if self.filled:
            self._write()
        return {
            "stories": self.stories,
            "tokens": self.tokens,
            "text_bytes": self.text_bytes,
            "bytes_per_token": round(self.text_bytes / max(1, self.tokens), 4),
            "shards": self.shards,
        }

    def _write(self) -> None:
        name = f"{self.side}-{len(self.shards):05d}.npy"
        np.save(self.folder / name, self.buffer[: self.filled], allow_pickle=False)
        self.shards.append(name)
        self.filled = 0
