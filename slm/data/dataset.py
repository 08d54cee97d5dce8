"""A prepared data set: a folder of token shards, their tokenizer, and `dataset.json` with every count and hash."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap

from slm.console.counted import counted
from slm.console.errors import SlmxError
from slm.console.plain_text import as_plain_text
from slm.data.corpus import ShardArray, Shards, TokenStream
from slm.storage.file_names import DATASET_FILE, JSON_FILE, RANKS_FILE
from slm.storage.hashing import sha256_of_bytes
from slm.storage.json_reader import Fields, parse_json, read_limited
from slm.storage.listing import Listing, check_file, not_replaced
from slm.storage.read_errors import unreadable
from slm.tokenizers.settings import MAX_LISTING_BYTES, TokenizerSettings
from slm.tokenizers.tokenizer import Tokenizer
from slm.tokenizers.tokenizer_json import load_merges

DATA_SET_LISTING = Listing(DATASET_FILE, "files")
FORMAT_VERSION = 2
SHARD_TOKENS = 2**24
SPLITS = ("train", "valid")
PREPARE_AGAIN = "delete the folder and prepare it again"
SHARD_NAME = re.compile(r"(train|valid)-\d{5,}\.npy")


def check_context(where: str, split: str, tokens: int, context: int, advice: str) -> None:
    """Checks that a split holds one context and the token after it.

    Args:
        where: What is before the name of the split in the message.
        split: `train` or `valid`.
        tokens: The number of tokens of the split.
        context: Tokens that the model reads at once.
        advice: How the split gets longer.

    Raises:
        SlmxError: The split is shorter.
    """
    if tokens > context:
        return
    raise SlmxError(
        f"{where} {split} split is {counted(tokens, 'token')}, too short for one context of {context:,}: "
        f"{advice}; a new model can have --block-size {largest_context(tokens)}"
    )


def largest_context(tokens: int) -> int:
    """Returns the largest power of two that is a context for a split of so many tokens; at least 1."""
    return int(2 ** max(0, (tokens - 1).bit_length() - 1))


def is_dataset(folder: str | Path) -> bool:
    """Returns whether a folder is a prepared data set."""
    return (Path(folder) / DATASET_FILE).is_file()


@dataclass(frozen=True)
class Dataset:
    """The two splits of a corpus as tokens, memory-mapped, with the tokenizer that encoded them.

    Attributes:
        folder: The folder of the data set.
        record: The content of `dataset.json` in the current format.
        sha256: The SHA-256 of the `dataset.json` that was read.
        tokenizer: The tokenizer of both splits.
        merges: The tokenizer's merges in the order they were learned.
        train: The training stories.
        valid: The stories held out for validation.
    """

    folder: Path
    record: dict[str, Any]
    sha256: str
    tokenizer: Tokenizer
    merges: list[tuple[str, str]]
    train: TokenStream
    valid: TokenStream

    @classmethod
    def open(cls, folder: Path) -> Dataset:
        """Opens a data set: checks the SHA-256 of every file and maps the shards.

        Args:
            folder: The folder of the data set.

        Raises:
            SlmxError: A file is missing, altered, damaged or of a newer format, a shard holds an id that the tokenizer
                does not have, or another data set took the place of the folder meanwhile. The message names it.
        """
        path = folder / DATASET_FILE
        try:
            content = read_limited(path, MAX_LISTING_BYTES)
            sha256 = sha256_of_bytes(content)
            with not_replaced(path, sha256, "data set"):
                record = _in_current_format(parse_json(content), path)
                fields = Fields(record)
                fields.objects("sources")
                fields.optional("settings", fields.object)
                files, splits = fields.object("files"), fields.object("splits")
                shards = {split: splits.object(split).texts("shards") for split in SPLITS}
                every = [name for names in shards.values() for name in names]
                if not all(SHARD_NAME.fullmatch(name) for name in every):
                    raise ValueError(f"shards named {every}")
                for name in (RANKS_FILE, JSON_FILE, *every):
                    check_file(folder / name, files.object(name).sha256("sha256"), DATASET_FILE, PREPARE_AGAIN)
                tokenizer, merges = Tokenizer.load(folder, TokenizerSettings.read(fields)), load_merges(folder)
                train, valid = (
                    _open_split(folder, shards[split], splits.object(split), tokenizer.vocab_size) for split in SPLITS
                )
        except OSError as error:
            raise unreadable(error.filename or path, error, "the data set", "make it with slmx prepare") from error
        except ValueError as error:
            raise SlmxError(f"{path}: not a data set of slmx prepare ({error!r:.200}); prepare it again") from error
        return cls(folder, record, sha256, tokenizer, merges, train, valid)


def _in_current_format(record: object, path: Path) -> dict[str, Any]:
    """Converts a record to the current format. Format 1 says `side`, `training` and `validation`."""
    fields = Fields(record)
    version = fields.integer("format_version")
    values = {name: fields.value(name) for name in fields}
    if version == FORMAT_VERSION:
        return values
    if version != 1:
        raise SlmxError(f"{path}: data set format {version}, this slmx reads up to {FORMAT_VERSION}; prepare it again")
    names = {"training": "train", "validation": "valid"}

    def renamed(side: str) -> str:
        if side not in names:
            raise ValueError(f"the side {side[:40]!a}")
        return names[side]

    values["splits"] = values.pop("sides", None)
    values["sources"] = [
        {"split": renamed(source.text("side")), **{name: source.value(name) for name in source if name != "side"}}
        for source in fields.objects("sources")
    ]
    cleaning = fields.object("cleaning")
    values["cleaning"] = {renamed(name): cleaning.value(name) for name in cleaning}
    return values


def _open_split(folder: Path, shards: Sequence[str], entry: Fields, vocab_size: int) -> TokenStream:
    """Maps the shards of a split; OSError if one cannot be read, ValueError if one holds anything but ids."""
    arrays: list[ShardArray] = []
    for name in shards:
        try:
            array = open_memmap(folder / name, mode="r")
        except OSError:
            raise
        except Exception as error:  # the header of a shard is a Python expression, whose reader raises many kinds
            raise ValueError(f"{name} is no array ({as_plain_text(str(error))[:80]})") from None
        if array.dtype != np.uint16 or array.ndim != 1:
            raise ValueError(f"{name} is not a row of uint16")
        if len(array) and int(array.max()) >= vocab_size:
            raise ValueError(f"{name} holds the id {int(array.max())}, and the tokenizer has {vocab_size}")
        arrays.append(array)
    if not any(map(len, arrays)):
        raise ValueError("a split without tokens")
    return TokenStream(Shards(arrays), entry.integer("text_bytes"), entry.integer("stories"))


class ShardWriter:
    """Collects the ids of one split and writes `SPLIT-00000.npy`, `SPLIT-00001.npy`, ... of `SHARD_TOKENS` each.

    Args:
        folder: The folder of the shards.
        split: `train` or `valid`.
    """

    def __init__(self, folder: Path, split: str) -> None:
        self.folder = folder
        self.split = split
        self.buffer = np.empty(SHARD_TOKENS, np.uint16)
        self.filled = 0
        self.tokens = 0
        self.text_bytes = 0
        self.stories = 0
        self.shards: list[str] = []

    def add(self, stories: TokenStream) -> None:
        """Appends encoded stories."""
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
        """Writes the remaining ids and returns the split's entry of `dataset.json`."""
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
        name = f"{self.split}-{len(self.shards):05d}.npy"
        ids = self.buffer[: self.filled]
        with (self.folder / name).open("wb") as file:  # np.save would not say which error a full disk is
            np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(ids))
            file.write(ids.data)
        self.shards.append(name)
        self.filled = 0
