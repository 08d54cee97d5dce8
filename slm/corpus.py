"""Stories from files, and the token streams made of them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from slm.errors import SlmxError
from slm.tokenizer import END_OF_TEXT, Tokenizer

HELD_OUT_SHARE = 20


def read_stories(paths: Sequence[Path]) -> Iterator[str]:
    """Stories of text files (separated by `<|endoftext|>` lines) and .jsonl files (field `text`).

    Raises SlmxError for a file that is missing, empty, binary, not UTF-8, or a bad jsonl line.
    """
    for path in paths:
        stories = _read_jsonl(path) if path.suffix == ".jsonl" else _read_text(path)
        count = 0
        for story in stories:
            stripped = story.strip()
            if stripped:
                count += 1
                yield stripped
        if not count:
            raise SlmxError(f"{path}: holds no story; expected text with a {END_OF_TEXT} line between stories")


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if b"\0" in line:
                    raise SlmxError(f"{path}:{number}: a binary file, expected UTF-8 text or .jsonl")
                try:
                    yield line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError:
                    raise SlmxError(
                        f"{path}:{number}: not UTF-8; convert it, for example with iconv -t UTF-8"
                    ) from None
    except OSError as error:
        raise SlmxError(f"{path}: cannot read the corpus ({error.strerror})") from error


def _read_text(path: Path) -> Iterator[str]:
    story: list[str] = []
    for line in _lines(path):
        if line.strip() == END_OF_TEXT:
            yield "".join(story)
            story = []
        else:
            story.append(line)
    yield "".join(story)


def _read_jsonl(path: Path) -> Iterator[str]:
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        try:
            text = json.loads(line)["text"]
            text.encode()  # an escaped half of a surrogate pair is valid JSON, but no text
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            text = None
        if not isinstance(text, str):
            raise SlmxError(f'{path}:{number}: expected a JSON object with a "text" string')
        yield text


def is_held_out(story: str) -> bool:
    """Whether a story belongs to the validation side: one in twenty, decided by its own hash."""
    return int.from_bytes(hashlib.sha256(story.encode()).digest()[:4], "big") % HELD_OUT_SHARE == 0


@dataclass(frozen=True)
class TokenStream:
    """Stories in a row, each begun by `<|endoftext|>`: ids uint16 [n], and the UTF-8 bytes of their text."""

    ids: npt.NDArray[np.uint16]
    text_bytes: int
    stories: int

    @property
    def bytes_per_token(self) -> float:
        """Mean UTF-8 bytes of text for one id."""
        return self.text_bytes / len(self.ids)

    def windows(self, block_size: int, offset: int = 0) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """All whole windows side by side: inputs and targets (shifted by one), int64 [windows, block_size].

        Raises SlmxError when the stream is shorter than one window and its last target.
        """
        count = (len(self.ids) - 1 - offset) // block_size
        if count < 1:
            raise SlmxError(
                f"the text is {len(self.ids)} tokens, shorter than one context of {block_size}: "
                "give more text or a preset with a smaller block size"
            )
        piece = self.ids[offset : offset + count * block_size + 1].astype(np.int64)
        return piece[:-1].reshape(count, block_size), piece[1:].reshape(count, block_size)


def encode_stories(stories: Sequence[str], tokenizer: Tokenizer) -> TokenStream:
    """Encode stories into one stream; the vocabulary must fit uint16."""
    if tokenizer.vocab_size > 65536:
        raise SlmxError(f"a vocabulary of {tokenizer.vocab_size} does not fit 16-bit ids")
    encoded = tokenizer.encoding.encode_ordinary_batch(list(stories), num_threads=2)
    ids = np.fromiter(
        (i for story in encoded for i in (tokenizer.end_of_text, *story)),
        dtype=np.uint16,
        count=sum(len(story) + 1 for story in encoded),
    )
    return TokenStream(ids, sum(len(story.encode()) for story in stories), len(stories))


def bits_per_byte(nats: float, tokens: int, bytes_per_token: float) -> float:
    """Total negative log-likelihood in nats over `tokens` predictions, as bits per UTF-8 byte of text."""
    return nats / math.log(2) / (tokens * bytes_per_token)
