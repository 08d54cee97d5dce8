"""SentencePiece's BPE with byte fallback, as in Llama-2.

The symbols of a text are at first its characters. A character that is no token becomes the tokens of its bytes. Of all
neighbours whose joined text is a token, those with the lowest id are joined, the leftmost first, until none are left.
Spaces are plain spaces here. SentencePiece writes them as U+2581 and takes an U+2581 of the text for a space.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SPACE = "\u2581"
BYTES = 256
CACHED_WORDS = 2**14
LONGEST_CACHED = 64  # characters
_WORD = re.compile(r" +[^ ]*|[^ ]+")


class SentencePiece:
    """Encodes text with a list of tokens. Thread-safe.

    Args:
        tokens: The 256 bytes, then tokens of whole characters. They are joined in this order.
    """

    def __init__(self, tokens: Sequence[bytes]) -> None:
        self._pieces = {token.decode("utf-8"): number for number, token in enumerate(tokens[BYTES:], BYTES)}
        # A token with a space after another character would join two words.
        self._by_words = not any(" " in piece.lstrip(" ") for piece in self._pieces)
        self._cached = lru_cache(CACHED_WORDS)(self._join)

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text without lone surrogates."""
        text = text.replace(SPACE, " ")
        if not self._by_words:
            return self._join(text)
        ids: list[int] = []
        for word in _WORD.findall(text):
            ids += self._cached(word) if len(word) <= LONGEST_CACHED else self._join(word)
        return ids

    def encode_to_numpy(self, text: str) -> npt.NDArray[np.uint32]:
        """Returns the same ids as `encode`, as uint32 [tokens]."""
        import numpy as np

        return np.array(self.encode(text), np.uint32)

    def _join(self, word: str) -> list[int]:
        """Joins the characters of a word. It takes O(n log n) steps."""
        pieces, size = self._pieces, len(word)
        parts = list(word)  # the text of each symbol, at the place of its first character; "" if it was joined
        before, after = list(range(-1, size - 1)), list(range(1, size + 1))
        known = [char in pieces for char in word]

        def pair(left: int, right: int) -> int | None:
            return pieces.get(parts[left] + parts[right]) if known[left] and known[right] else None

        heap = [(rank, left) for left in range(size - 1) if (rank := pair(left, left + 1)) is not None]
        heapify(heap)
        while heap:
            rank, left = heappop(heap)
            right = after[left]
            if not parts[left] or right == size or pair(left, right) != rank:
                continue  # one of the two has been joined since
            parts[left] += parts[right]
            parts[right] = ""
            after[left] = right = after[right]
            if right < size:
                before[right] = left
                if (rank_after := pair(left, right)) is not None:
                    heappush(heap, (rank_after, left))
            if before[left] >= 0 and (rank_before := pair(before[left], left)) is not None:
                heappush(heap, (rank_before, before[left]))
        ids: list[int] = []
        for part in filter(None, parts):
            number = pieces.get(part)
            ids += part.encode("utf-8") if number is None else [number]
        return ids
