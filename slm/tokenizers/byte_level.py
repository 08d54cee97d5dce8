"""Byte-level BPE: text is split by a pattern, and the bytes of each piece are joined by `tiktoken`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import tiktoken

from slm.tokenizers.settings import Scheme

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# tiktoken's regular expressions overflow their stack on several hundred thousand spaces in a row.
LONGEST_SPACE = 100_000
# SmolLM2's tokenizer lacks 21 bytes: 13 that are never in UTF-8, and rare control characters and planes of Unicode.
MOST_MISSING_BYTES = 32
SINGLE_BYTES = [bytes([byte]) for byte in range(256)]
_LONG_SPACE = re.compile(rf"(?<!\s)\s{{{LONGEST_SPACE + 1},}}")


class ByteLevel:
    """Encodes text with a list of tokens. Thread-safe.

    Args:
        tokens: Different tokens. They are joined in this order. A byte that is no token is left out of every text, as
            Hugging Face does.
        scheme: How text is split.
    """

    def __init__(self, tokens: Sequence[bytes], scheme: Scheme) -> None:
        assert scheme.pattern is not None
        self._nfc = scheme.nfc
        # tiktoken needs an id for each byte. Ids from this one on are removed.
        self._left_out = len(tokens)
        self._has_all = not (missing := missing_bytes(tokens))
        self._encoding = tiktoken.Encoding(
            name="slmx",
            pat_str=scheme.pattern,
            mergeable_ranks={token: rank for rank, token in enumerate((*tokens, *missing))},
            special_tokens={},
        )

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text. White space of more than 100,000 characters is encoded in parts."""
        ids: list[int] = []
        for piece in bounded_pieces(self._normalized(text)):
            ids += self._encoding.encode_ordinary(piece)
        return ids if self._has_all else [i for i in ids if i < self._left_out]

    def encode_to_numpy(self, text: str) -> npt.NDArray[np.uint32]:
        """Returns the same ids as `encode`, as uint32 [tokens]."""
        import numpy as np

        pieces = bounded_pieces(self._normalized(text))
        ids = np.concatenate([self._encoding.encode_to_numpy(piece, disallowed_special=()) for piece in pieces])
        return ids if self._has_all else ids[ids < self._left_out]

    def _normalized(self, text: str) -> str:
        if not self._nfc:
            return text
        from slm.tokenizers.nfc import to_nfc

        return to_nfc(text)


def missing_bytes(tokens: Sequence[bytes]) -> list[bytes]:
    """Returns the single bytes that are not among the tokens."""
    present = set(tokens)
    return [byte for byte in SINGLE_BYTES if byte not in present]


def bounded_pieces(text: str) -> Iterator[str]:
    """Yields a text in pieces. It is cut only inside white space that is longer than LONGEST_SPACE."""
    start = 0
    if len(text) > LONGEST_SPACE:
        for run in _LONG_SPACE.finditer(text):
            for end in range(run.start() + LONGEST_SPACE, run.end(), LONGEST_SPACE):
                yield text[start:end]
                start = end
    yield text[start:]
