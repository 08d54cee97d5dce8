"""Tokenizers: byte-level BPE, run with `tiktoken`, and the BPE of SentencePiece. Nothing is downloaded.

A tokenizer has two files. slmx runs `tokenizer.tiktoken`, which is in tiktoken's own format: a token in base64 and its
rank on each line. `tokenizer.json` holds the same vocabulary for Hugging Face and related tools. `TokenizerSettings`
says what else is needed to run the first file.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from slm.console.errors import SlmxError
from slm.storage.file_names import JSON_FILE, RANKS_FILE
from slm.storage.json_reader import read_limited
from slm.storage.read_errors import unreadable
from slm.tokenizers.byte_level import MOST_MISSING_BYTES, SINGLE_BYTES, ByteLevel, missing_bytes
from slm.tokenizers.settings import DEFAULT_SETTINGS, SCHEMES, TokenizerSettings

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from slm.tokenizers.sentencepiece import SentencePiece

MAX_RANKS_BYTES = 2**27
# How many times as long as its normal form C a text can be, in UTF-8. Three Hangul letters are one syllable.
NFC_SHRINKS = 3


def check_id(token: int, vocab_size: int, where: str = "") -> None:
    """Raises SlmxError if a vocabulary of this size does not have an id. `where` says what names it."""
    if not 0 <= token < vocab_size:
        raise SlmxError(f"{where and f'{where}: '}no token has the id {token}; ids go from 0 to {vocab_size - 1}")


class Tokenizer:
    """Converts text to token ids and back. Thread-safe.

    The ordinary tokens have the first ids. The special tokens follow: the end of a text, and then the begin of a text
    if that is another token.

    Args:
        tokens: The ordinary tokens in the order of their ids, as `parse_tokens` returns them.
        settings: How text is split, and the special tokens.

    Attributes:
        tokens: The ordinary tokens. With the scheme `sentencepiece` the first 256 are the single bytes.
        settings: How text is split, and the special tokens.
        end_of_text: The id that ends a text.
        begin: The id that begins a text. It is `end_of_text` unless the settings name another token.
    """

    def __init__(self, tokens: Iterable[bytes], settings: TokenizerSettings = DEFAULT_SETTINGS) -> None:
        self.tokens = list(tokens)
        self.settings = settings
        self.end_of_text = len(self.tokens)
        self.specials = {token: self.end_of_text + number for number, token in enumerate(settings.specials)}
        self.begin = self.end_of_text + len(self.specials) - 1
        self._engine = _engine(self.tokens, settings)
        self._prefix = settings.prefix if SCHEMES[settings.scheme].pattern is None else "never"

    def __eq__(self, other: object) -> bool:
        """Returns whether both give the same ids to every text."""
        return isinstance(other, Tokenizer) and (self.settings, self.tokens) == (other.settings, other.tokens)

    @property
    def vocab_size(self) -> int:
        """Number of ids, including those of the special tokens."""
        return len(self.tokens) + len(self.specials)

    @property
    def drops_space(self) -> bool:
        """Whether `decode` leaves out a space at the start of a text, because `encode` put it there."""
        return self._prefix != "never"

    def drops_space_after(self, ids: Sequence[int]) -> bool:
        """Returns whether `decode` leaves out a space at the start of what follows these ids: no text is in them."""
        return self.drops_space and all(token >= self.end_of_text for token in ids)

    @cached_property
    def longest_token(self) -> int:
        """Bytes of text in the longest token. A text of n bytes has at least n / longest_token tokens."""
        scheme = SCHEMES[self.settings.scheme]
        longest = max(*(len(token.encode("utf-8")) for token in self.specials), *map(len, self.tokens))
        if scheme.pattern is None:  # a space may be an U+2581 in the text, which has three bytes
            return max(longest, *(len(token) + 2 * token.count(b" ") for token in self.tokens))
        return longest * NFC_SHRINKS if scheme.nfc else longest

    def encode(self, text: str, allow_special: bool = False) -> list[int]:
        """Encodes a text.

        Args:
            text: Any text without lone surrogates. White space of more than 100,000 characters is encoded in parts.
            allow_special: Whether special tokens in the text become their ids. If not, they are plain text.

        Returns:
            The ids.
        """
        if not allow_special:
            return self._engine.encode(self._prefixed(text))
        return self.encode_parts(self._special_pattern.split(text))

    def encode_parts(self, parts: Iterable[str]) -> list[int]:
        """Encodes texts with special tokens between them.

        Args:
            parts: A text, a special token, a text, a special token, and so on. A text may be empty. Special tokens in a
                text are plain text.

        Returns:
            The ids.

        Raises:
            KeyError: The tokenizer does not have a special token.
        """
        ids: list[int] = []
        for number, part in enumerate(parts):
            if number % 2:
                ids.append(self.specials[part])
            else:
                ids += self._engine.encode(self._prefixed(part, number == 0))
        return ids

    def encode_to_numpy(self, text: str) -> npt.NDArray[np.uint32]:
        """Encodes a text, as `encode` does without special tokens. Returns uint32 [tokens]."""
        return self._engine.encode_to_numpy(self._prefixed(text))

    @cached_property
    def _special_pattern(self) -> re.Pattern[str]:
        longest_first = sorted(self.specials, key=len, reverse=True)
        return re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")

    def _prefixed(self, text: str, first: bool = True) -> str:
        """Returns a text between special tokens with the space that the settings put before it."""
        if self._prefix == "never" or not text:
            return text
        if self._prefix == "first" and (not first or text[0] in " \u2581"):
            return text
        return " " + text

    def token_bytes(self, token: int) -> bytes:
        """Returns the bytes of an id. A special token has none."""
        return self.tokens[token] if token < self.end_of_text else b""

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of ids. Bytes that are not UTF-8 become U+FFFD.

        Raises:
            SlmxError: An id is outside the vocabulary.
        """
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Returns the bytes of ids. A special token has none.

        Raises:
            SlmxError: An id is outside the vocabulary.
        """
        ids = list(ids)
        for extreme in (min(ids, default=0), max(ids, default=0)):
            check_id(extreme, self.vocab_size)
        text = b"".join(map(self.token_bytes, ids))
        return text.removeprefix(b" ") if self.drops_space else text

    @classmethod
    def load(cls, folder: Path, settings: TokenizerSettings = DEFAULT_SETTINGS) -> Tokenizer:
        """Reads the `tokenizer.tiktoken` of a folder; SlmxError if it is missing or not a rank file."""
        path = folder / RANKS_FILE
        try:
            content = read_limited(path, MAX_RANKS_BYTES)
        except (OSError, ValueError) as error:
            raise unreadable(path, error, "the tokenizer", "copy the folder again") from error
        return cls.from_bytes(content, str(path), settings)

    @classmethod
    def from_bytes(cls, content: bytes, where: str, settings: TokenizerSettings = DEFAULT_SETTINGS) -> Tokenizer:
        """Reads the content of a `tokenizer.tiktoken`; SlmxError that names `where` if it is not a rank file."""
        try:
            return cls(parse_tokens(content, settings.scheme), settings)
        except ValueError as error:
            raise SlmxError(f"{where}: not a tiktoken rank file ({error}); copy the folder again") from error

    def save(self, folder: Path, merges: list[tuple[str, str]]) -> None:
        """Writes both files. `merges` are the pairs in the order they were learned, as tokenizer.json spells them."""
        from slm.tokenizers.tokenizer_json import tokenizer_json

        lines = [base64.b64encode(token) + b" %d" % rank for rank, token in enumerate(self.tokens)]
        (folder / RANKS_FILE).write_bytes(b"\n".join(lines) + b"\n")
        content = json.dumps(tokenizer_json(self, merges), ensure_ascii=False)
        (folder / JSON_FILE).write_bytes(content.encode("utf-8"))


def _engine(tokens: list[bytes], settings: TokenizerSettings) -> ByteLevel | SentencePiece:
    scheme = SCHEMES[settings.scheme]
    if scheme.pattern is not None:
        return ByteLevel(tokens, scheme)
    from slm.tokenizers.sentencepiece import SentencePiece

    return SentencePiece(tokens)


def parse_tokens(content: bytes, scheme: str) -> list[bytes]:
    """Parses tiktoken's rank format: a token in base64, a space and its rank on each line.

    Args:
        content: The content of the file.
        scheme: The scheme of the tokenizer. With `sentencepiece` the single bytes come first, and each other token is
            the UTF-8 of whole characters. It may repeat a single byte.

    Returns:
        The tokens in the order of their ranks.

    Raises:
        ValueError: The ranks are not 0, 1, 2, ... in order, a token is repeated or empty, or many single bytes are
            missing.
    """
    tokens: list[bytes] = []
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
        tokens.append(decoded)
    pieces = SCHEMES[scheme].pattern is None
    if pieces:
        _check_pieces(tokens)
    _check_different(tokens, len(SINGLE_BYTES) if pieces else 0)
    missing = len(missing_bytes(tokens))
    if missing > MOST_MISSING_BYTES:
        raise ValueError(f"{len(tokens)} tokens, {missing} of the 256 single bytes not among them")
    return tokens


def _check_pieces(tokens: list[bytes]) -> None:
    """Checks the tokens of SentencePiece: first the single bytes in order, then whole characters."""
    if tokens[:256] != SINGLE_BYTES:
        raise ValueError("its first 256 tokens are not the single bytes in order")
    for number, token in enumerate(tokens[256:], 257):
        if not is_text(token):
            raise ValueError(f"line {number} has a token that is not UTF-8")


def is_text(token: bytes) -> bool:
    """Returns whether bytes are UTF-8."""
    return token.decode("utf-8", "ignore").encode("utf-8") == token


def _check_different(tokens: list[bytes], start: int) -> None:
    """Checks that no token from the index `start` on is repeated."""
    ranks = {token: rank for rank, token in enumerate(tokens[start:], start)}
    if len(ranks) + start == len(tokens):
        return
    seen: dict[bytes, int] = {}
    for rank, token in enumerate(tokens[start:], start):
        if token in seen:
            raise ValueError(f"line {rank + 1} repeats the token of rank {seen[token]}")
        seen[token] = rank


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

    from slm.tokenizers.tokenizer_json import to_bytes

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
    return Tokenizer(to_bytes(token) for token, _ in by_id), [(left, right) for left, right in model["merges"]]
