"""A model session over token ids and its KV cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from runtimes.system.machine import usable_cores
from slm.errors import SlmxError
from slm.presets import GPTConfig

if TYPE_CHECKING:  # onnxruntime comes with it, which a session of a PyTorch model does without
    from runtimes.engine.cache import Cache, FloatArray, IdArray

# Below this many weights a step is shorter than waking a second thread pays for (docs/benchmarks.md).
ONE_THREAD_PARAMETERS = 6_000_000


def default_threads(config: GPTConfig, rows: int = 1) -> int:
    """Threads for a step of that many rows: one for little work, else the cores this process may use, at most four."""
    return 1 if rows * config.parameters < ONE_THREAD_PARAMETERS else min(4, usable_cores())


class Session:
    """One sequence in progress: ids go in, logits float32 come out, `ids` are cached.

    The cache may be rewound: what lies behind its length is not read.
    """

    def __init__(self, cache: Cache, config: GPTConfig, threads: int) -> None:
        self.config = config
        self.threads = threads
        self.ids: list[int] = []
        self._cache = cache

    @classmethod
    def open(cls, model: Path, config: GPTConfig, threads: int | None = None) -> Session:
        """A session of an ONNX file; SlmxError for one that onnxruntime cannot open, or absurd thread counts."""
        from runtimes.engine.cache import open_cache

        threads = default_threads(config) if threads is None else threads
        return cls(open_cache(model, config, threads), config, threads)

    @property
    def length(self) -> int:
        """Number of positions in the cache."""
        return len(self.ids)

    def prefill(self, ids: Sequence[int] | IdArray) -> FloatArray:
        """Append ids in one run; the logits [vocab] behind the last. SlmxError past the context window."""
        last: FloatArray = self._append(ids, last_only=True)[-1]
        return last

    def score(self, ids: Sequence[int] | IdArray) -> FloatArray:
        """Append ids in one run; the logits [n, vocab] behind each. SlmxError past the context window."""
        return self._append(ids, last_only=False)

    def _append(self, ids: Sequence[int] | IdArray, last_only: bool) -> FloatArray:
        length = len(self.ids)
        end = length + len(ids)
        if not length < end <= self.config.block_size:
            raise SlmxError(f"{end} tokens do not fit the context of {self.config.block_size}; shorten the prompt")
        row = np.array(ids, np.int64)
        logits = self._cache.append(row, length, last_only)
        self.ids += row.tolist()
        return logits

    def step(self, token: int) -> FloatArray:
        """Append one id; its logits [vocab], valid until the next step. SlmxError when the context is full."""
        length = len(self.ids)
        if length >= self.config.block_size:
            raise SlmxError(f"the context of {self.config.block_size} tokens is full")
        logits = self._cache.step(token, length)
        self.ids.append(token)
        return logits

    def rewind(self, length: int) -> None:
        """Forget all but the first `length` positions; SlmxError if there are fewer."""
        if not 0 <= length <= len(self.ids):
            raise SlmxError(f"cannot rewind to {length}: {len(self.ids)} positions are cached")
        self._cache.rewind(length)
        del self.ids[length:]

    def read(self, ids: Sequence[int]) -> FloatArray:
        """Make these ids the sequence, running only those behind what it begins with; logits [vocab] of the last.

        SlmxError for no ids, or more than the context holds.
        """
        shared = next((i for i, (ours, theirs) in enumerate(zip(self.ids, ids, strict=False)) if ours != theirs), None)
        same = min(len(self.ids), len(ids)) if shared is None else shared
        self.rewind(min(same, max(0, len(ids) - 1)))
        return self.prefill(ids[len(self.ids) :])

    def reset(self) -> None:
        """Forget every position."""
        self.rewind(0)

    def fork(self) -> Session:
        """A second sequence that begins as this one and goes its own way, in a cache of its own."""
        twin = Session(self._cache.copy(), self.config, self.threads)
        twin.ids = list(self.ids)
        return twin


class Batch:
    """Several sequences that take their steps together, each a copy of a session as it was; `lengths` counts ids.

    In float a row's logits are those it would have alone, to the last digits; dynamic int8 rounds activations by what
    shares the tensor, so there rows disturb each other a little. SlmxError for a graph whose cache grows by copies.
    """

    def __init__(self, sequences: Sequence[Session]) -> None:
        from runtimes.engine.cache import SharedCache

        caches = [sequence._cache for sequence in sequences if isinstance(sequence._cache, SharedCache)]
        if len(caches) < len(sequences):
            raise SlmxError("this variant writes one story at a time; take fp32 or int8 for several")
        self._block_size = sequences[0].config.block_size
        self._cache = SharedCache.stack(caches)
        self.lengths = [sequence.length for sequence in sequences]

    def step(self, tokens: Sequence[int]) -> FloatArray:
        """Append one id to each row; the logits [rows, vocab], valid until the next step. SlmxError if one is full."""
        if max(self.lengths) >= self._block_size:
            raise SlmxError(f"the context of {self._block_size} tokens is full")
        logits = self._cache.step_rows(tokens, self.lengths)
        self.lengths = [length + 1 for length in self.lengths]
        return logits

    def keep(self, rows: Sequence[int]) -> None:
        """Let the other rows leave."""
        self._cache = self._cache.select(rows)
        self.lengths = [self.lengths[row] for row in rows]
