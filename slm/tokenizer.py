"""Byte-level BPE, trained with `tokenizers` and run with `tiktoken` from a rank file. Nothing is downloaded.

A tokenizer has two files. slmx runs `tokenizer.tiktoken`, which is in tiktoken's own format: a token in base64 and its
rank on each line. `tokenizer.json` holds the same vocabulary for Hugging Face and related tools.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import tiktoken

from slm.errors import SlmxError
from slm.json_reader import Fields, read_json

END_OF_TEXT = "<|endoftext|>"
RANKS_FILE = "tokenizer.tiktoken"
JSON_FILE = "tokenizer.json"
MAX_JSON_BYTES = 2**27
# GPT-2's split rule, which the ByteLevel pre-tokenizer of `tokenizers` also applies.
SPLIT_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
# tiktoken's regular expressions overflow their stack on several hundred thousand spaces in a row.
LONGEST_SPACE = 100_000
_LONG_SPACE = re.compile(rf"(?<!\s)\s{{{LONGEST_SPACE + 1},}}")


class Tokenizer:
    """Converts text to token ids and back. Thread-safe.

    `<|endoftext|>` has the last id and begins every story.

    Args:
        ranks: The ids of all tokens but `<|endoftext|>`, as `parse_ranks` returns them.
    """

    def __init__(self, ranks: dict[bytes, int]) -> None:
        self.ranks = ranks
        self.end_of_text = len(ranks)
        self.encoding = tiktoken.Encoding(
            name="slmx",
            pat_str=SPLIT_PATTERN,
            mergeable_ranks=ranks,
            special_tokens={END_OF_TEXT: self.end_of_text},
        )

    @property
    def vocab_size(self) -> int:
        """Number of ids, including `<|endoftext|>`."""
        return len(self.ranks) + 1

    @cached_property
    def longest_token(self) -> int:
        """Bytes in the longest token. A text of n bytes has at least n / longest_token tokens."""
        return max(len(END_OF_TEXT), *map(len, self.ranks))

    def encode(self, text: str, allow_special: bool = False) -> list[int]:
        """Encodes a text.

        Args:
            text: Any text without lone surrogates. White space of more than 100,000 characters is encoded in parts.
            allow_special: Whether `<|endoftext|>` in the text becomes the special token. If not, it is plain text.

        Returns:
            The ids.
        """
        parts = text.split(END_OF_TEXT) if allow_special else [text]
        ids: list[int] = []
        for number, part in enumerate(parts):
            if number:
                ids.append(self.end_of_text)
            for piece in bounded_pieces(part):
                ids += self.encoding.encode_ordinary(piece)
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of ids. Bytes that are not UTF-8 become U+FFFD.

        Raises:
            SlmxError: An id is outside the vocabulary.
        """
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Returns the bytes of ids. `<|endoftext|>` has none.

        Raises:
            SlmxError: An id is outside the vocabulary.
        """
        ordinary = [i for i in ids if i != self.end_of_text]
        for extreme in (min(ordinary, default=0), max(ordinary, default=0)):
            if not 0 <= extreme < self.end_of_text:
                raise SlmxError(f"no token has the id {extreme}; ids go from 0 to {self.end_of_text}")
        return self.encoding.decode_bytes(ordinary)

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """Reads the `tokenizer.tiktoken` of a folder; SlmxError if it is missing or not a rank file."""
        path = folder / RANKS_FILE
        try:
            return cls.from_bytes(path.read_bytes(), str(path))
        except OSError as error:
            raise SlmxError(f"{path}: cannot read the tokenizer ({error.strerror})") from error

    @classmethod
    def from_bytes(cls, content: bytes, where: str) -> Tokenizer:
        """Reads the content of a `tokenizer.tiktoken`; SlmxError that names `where` if it is not a rank file."""
        try:
            return cls(parse_ranks(content))
        except ValueError as error:
            raise SlmxError(f"{where}: not a tiktoken rank file ({error})") from error

    def save(self, folder: Path, merges: list[tuple[str, str]]) -> None:
        """Writes both files. `merges` are the pairs in the order that `tokenizers` learned them."""
        lines = [base64.b64encode(token) + b" %d" % rank for token, rank in self.ranks.items()]
        (folder / RANKS_FILE).write_bytes(b"\n".join(lines) + b"\n")
        (folder / JSON_FILE).write_text(json.dumps(self._to_json(merges), ensure_ascii=False), "utf-8")

    def _to_json(self, merges: list[tuple[str, str]]) -> dict[str, Any]:
        special = {
            "id": self.end_of_text,
            "content": END_OF_TEXT,
            "special": True,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
        }
        level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
        vocab = {to_unicode(token): rank for token, rank in self.ranks.items()}
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [special],
            "normalizer": None,
            "pre_tokenizer": level,
            "post_processor": None,
            "decoder": level,
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": False,
                "vocab": vocab | {END_OF_TEXT: self.end_of_text},
                "merges": [list(pair) for pair in merges],
            },
        }


def bounded_pieces(text: str) -> Iterator[str]:
    """Yields a text in pieces. It is cut only inside white space that is longer than LONGEST_SPACE."""
    start = 0
    if len(text) > LONGEST_SPACE:
        for run in _LONG_SPACE.finditer(text):
            for end in range(run.start() + LONGEST_SPACE, run.end(), LONGEST_SPACE):
                yield text[start:end]
                start = end
    yield text[start:]


def parse_ranks(content: bytes) -> dict[bytes, int]:
    """Parses tiktoken's rank format: a token in base64, a space and its rank on each line.

    Returns:
        The ranks by token.

    Raises:
        ValueError: The ranks are not 0, 1, 2, ... in order, a token is repeated or empty, or a single byte is missing.
    """
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(content.splitlines()):
        try:
            token, rank = line.split()
            decoded = base64.b64decode(token, validate=True)
            value = int(rank)
        except (ValueError, binascii.Error):
            raise ValueError(f"line {number + 1} is not a base64 token and its rank") from None
        if value != number:
            raise ValueError(f"line {number + 1} has rank {str(value)[:20]}, expected {number}")
        if not decoded:
            raise ValueError(f"line {number + 1} has an empty token")
        if decoded in ranks:
            raise ValueError(f"line {number + 1} repeats the token of rank {ranks[decoded]}")
        ranks[decoded] = value
    missing = sum(bytes([byte]) not in ranks for byte in range(256))
    if missing:
        raise ValueError(f"{len(ranks)} tokens, {missing} of the 256 single bytes not among them")
    return ranks


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> tuple[Tokenizer, list[tuple[str, str]]]:
    """Learns a vocabulary from texts.

    Args:
        texts: The texts.
        vocab_size: Most ids, including `<|endoftext|>`. Few texts can give a smaller vocabulary.

    Returns:
        The tokenizer, and its merges in the order they were learned.
    """
    from tokenizers import Tokenizer as Trainee
    from tokenizers import models, pre_tokenizers, trainers

    trainee = Trainee(models.BPE())
    trainee.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,
        min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    trainee.train_from_iterator(texts, trainer)
    model = json.loads(trainee.to_str())["model"]
    by_id = sorted(model["vocab"].items(), key=lambda item: item[1])
    ranks = {to_bytes(token): rank for token, rank in by_id}
    return Tokenizer(ranks), [(left, right) for left, right in model["merges"]]


def load_merges(folder: Path) -> list[tuple[str, str]]:
    """Reads the merges of a folder's `tokenizer.json`, in the order they were learned; SlmxError if that fails."""
    path = folder / JSON_FILE
    try:
        return read_merges(Fields(read_json(path, MAX_JSON_BYTES)).object("model"))
    except OSError as error:
        raise SlmxError(f"{path}: cannot read the merges ({error.strerror}); copy the folder again") from error
    except ValueError as error:
        raise SlmxError(f"{path}: cannot read the merges ({error}); copy the folder again") from error


def read_merges(model: Fields) -> list[tuple[str, str]]:
    """Reads the merges of the `model` in a `tokenizer.json`.

    Each merge is a pair of texts, or one text with a space between the two parts.

    Raises:
        ValueError: A merge is neither.
    """
    merges = model.value("merges")
    if not isinstance(merges, list):
        raise ValueError("model.merges is not a list")
    pairs = []
    for number, merge in enumerate(merges):
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(part, str) and part for part in pair):
            raise ValueError(f"merge {number} is not a pair of texts")
        pairs.append((pair[0], pair[1]))
    return pairs


def _byte_alphabet() -> dict[int, str]:
    """Returns GPT-2's printable character for each byte: printable Latin-1 is unchanged, the rest is from U+0100."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


_BYTE_TO_CHAR = _byte_alphabet()
_CHAR_TO_BYTE = {char: byte for byte, char in _BYTE_TO_CHAR.items()}


def to_unicode(token: bytes) -> str:
    """Returns a token as tokenizer.json spells it."""
    return "".join(_BYTE_TO_CHAR[byte] for byte in token)


def to_bytes(token: str) -> bytes:
    """Returns the bytes of a token of tokenizer.json; KeyError for a character that stands for no byte."""
    return bytes(_CHAR_TO_BYTE[char] for char in token)
