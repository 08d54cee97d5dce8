"""Streams of tokens: consecutive stories, in memory or in memory-mapped shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from slm.console.counted import counted
from slm.console.errors import SlmxError
from slm.presets import LARGEST_VOCABULARY
from slm.tokenizers.tokenizer import Tokenizer

ShardArray = npt.NDArray[np.uint16]


class Shards:
    """Memory-mapped arrays of ids that are used as one array. Only the requested slice is read from disk."""

    def __init__(self, arrays: Sequence[ShardArray]) -> None:
        self.arrays = list(arrays)
        self.ends = np.cumsum([len(array) for array in self.arrays], dtype=np.int64)

    def __len__(self) -> int:
        return int(self.ends[-1]) if self.arrays else 0

    def __getitem__(self, wanted: slice) -> ShardArray:
        start, stop, step = wanted.indices(len(self))
        if step != 1:
            raise ValueError("shards are read in contiguous slices")
        pieces: list[ShardArray] = []
        index = int(np.searchsorted(self.ends, start, side="right"))
        while start < stop:
            first = int(self.ends[index]) - len(self.arrays[index])
            piece = self.arrays[index][start - first : stop - first]
            pieces.append(piece)
            start += len(piece)
            index += 1
        return np.concatenate(pieces) if pieces else np.empty(0, np.uint16)


@dataclass(frozen=True)
class TokenStream:
    """The tokens of stories one after the other. The token that begins a text is before each story.

    If another token ends a text, it is after each story.

    Attributes:
        ids: The tokens, uint16 [n], or uint32 [n] if the vocabulary is larger than `LARGEST_VOCABULARY`.
        text_bytes: UTF-8 bytes of the stories.
        stories: Number of stories.
    """

    ids: ShardArray | npt.NDArray[np.uint32] | Shards
    text_bytes: int
    stories: int

    @property
    def bytes_per_token(self) -> float:
        """Mean UTF-8 bytes of text per token."""
        return self.text_bytes / len(self.ids)

    def windows(self, block_size: int, limit: int | None = None) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Returns consecutive whole windows, without overlap.

        Args:
            block_size: Tokens in a window.
            limit: The most windows to return, from the start; None for all.

        Returns:
            Inputs and targets, both int64 [windows, block_size]; a target is the token after its input.

        Raises:
            SlmxError: The stream has fewer than `block_size` + 1 tokens.
        """
        count = (len(self.ids) - 1) // block_size
        if count < 1:
            raise SlmxError(
                f"the text is {counted(len(self.ids), 'token')}, shorter than one context of {block_size:,}: "
                "give more text, or take a model with a smaller context"
            )
        count = count if limit is None else min(count, limit)
        piece = self.ids[: count * block_size + 1].astype(np.int64)
        return piece[:-1].reshape(count, block_size), piece[1:].reshape(count, block_size)


def encode_stories(stories: Sequence[str], tokenizer: Tokenizer) -> TokenStream:
    """Encodes stories into one stream in memory.

    Args:
        stories: Texts without lone surrogates.
        tokenizer: The tokenizer.

    Returns:
        The stream.
    """
    kind = np.uint16 if tokenizer.vocab_size <= LARGEST_VOCABULARY else np.uint32
    begin = np.array([tokenizer.begin], kind)
    end = np.array([tokenizer.end_of_text] if tokenizer.begin != tokenizer.end_of_text else [], kind)
    pieces = [begin[:0]]
    for story in stories:
        pieces += [begin, tokenizer.encode_to_numpy(story).astype(kind), end]
    ids = np.concatenate(pieces)
    return TokenStream(ids, sum(len(story.encode()) for story in stories), len(stories))
