"""A session of a model: a sequence of token ids and its KV cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from runtimes.beginnings import shared_length
from runtimes.engine.arrays import FloatArray, IdArray
from runtimes.system.machine import usable_cores
from slm.console.counted import counted
from slm.console.errors import SlmxError
from slm.presets import GPTConfig
from slm.tokenizers.tokenizer import check_id

if TYPE_CHECKING:  # this import loads onnxruntime, which a session of a PyTorch model does not need
    from runtimes.engine.cache import Cache

# The operators of a smaller model take less time than waking a second thread for each of them (docs/runtime.md).
ONE_THREAD_BYTES = 15_000_000
MOST_THREADS = 4
FLOAT_BYTES = 4


def default_threads(model_bytes: int, cores: int | None = None) -> int:
    """Returns the threads for a model of so many bytes: one for few bytes, or else all cores, at most four.

    Without `cores`, they are those that this process may use.
    """
    return 1 if model_bytes < ONE_THREAD_BYTES else min(MOST_THREADS, cores or usable_cores())


def float_threads(config: GPTConfig) -> int:
    """Returns the threads for a model whose weights are float32."""
    return default_threads(FLOAT_BYTES * config.parameters)


def check_step(token: int, length: int, config: GPTConfig) -> None:
    """Raises SlmxError if the context has no room after `length` positions, or the vocabulary does not have the id."""
    if length >= config.block_size:
        raise SlmxError(f"the context of {config.block_size:,} tokens is full; reset the session")
    check_id(token, config.vocab_size)


def as_row(ids: Sequence[int] | IdArray, length: int, config: GPTConfig) -> IdArray:
    """Returns ids to append after `length` positions, as an array int64 [n].

    Raises:
        SlmxError: There are no ids, they do not fit the context, or the vocabulary lacks one.
    """
    if not len(ids):
        raise SlmxError("no tokens to read: give at least one")
    end = length + len(ids)
    if end > config.block_size:
        raise SlmxError(f"{counted(end, 'token')} do not fit the context of {config.block_size:,}; shorten the prompt")
    for extreme in (ids.min(), ids.max()) if isinstance(ids, np.ndarray) else (min(ids), max(ids)):
        check_id(int(extreme), config.vocab_size)
    return np.array(ids, np.int64)


class Session:
    """One sequence in progress. Appending ids returns their logits, float32. `ids` are the ids in the cache.

    Not thread-safe, but forks of a session may run at the same time.
    """

    def __init__(self, cache: Cache, config: GPTConfig, threads: int) -> None:
        self.config = config
        self.threads = threads
        self.ids: list[int] = []
        self._cache = cache

    @classmethod
    def open(
        cls, model: Path | bytes | bytearray, config: GPTConfig, threads: int | None = None, name: str = ""
    ) -> Session:
        """Opens an ONNX or .ort model.

        Args:
            model: A file, or its content. A bytearray is emptied, so that the memory is free whoever still holds it.
            config: The shape of the model.
            threads: Threads of onnxruntime; default: by the size of the model.
            name: The name of the model in error messages; default: the file's path.

        Raises:
            SlmxError: onnxruntime cannot open the model, or the number of threads is not 1 to 256.
        """
        from runtimes.engine.cache import open_cache

        if threads is None:
            threads = default_threads(model.stat().st_size if isinstance(model, Path) else len(model))
        return cls(open_cache(model, config, threads, name), config, threads)

    @property
    def length(self) -> int:
        """Number of positions in the cache."""
        return len(self.ids)

    def prefill(self, ids: Sequence[int] | IdArray) -> FloatArray:
        """Appends ids in one run.

        Returns:
            The logits [vocab] after the last id.

        Raises:
            SlmxError: There are no ids, they do not fit the context, or the vocabulary lacks one.
        """
        last: FloatArray = self._append(ids, last_only=True)[-1]
        return last

    def score(self, ids: Sequence[int] | IdArray) -> FloatArray:
        """Appends ids in one run; returns the logits [n, vocab] after each id. Errors as in `prefill`."""
        return self._append(ids, last_only=False)

    def _append(self, ids: Sequence[int] | IdArray, last_only: bool) -> FloatArray:
        row = as_row(ids, len(self.ids), self.config)
        logits = self._cache.append(row, len(self.ids), last_only)
        self.ids += row.tolist()
        return logits

    def step(self, token: int) -> FloatArray:
        """Appends one id.

        Returns:
            The logits [vocab] after it, valid until the next step.

        Raises:
            SlmxError: The context is full, or the vocabulary lacks the id.
        """
        length = len(self.ids)
        check_step(token, length, self.config)
        logits = self._cache.step(token, length)
        self.ids.append(token)
        return logits

    def rewind(self, length: int) -> None:
        """Removes all but the first `length` positions; SlmxError if there are fewer."""
        if not 0 <= length <= len(self.ids):
            raise SlmxError(f"cannot rewind to {length}: {len(self.ids)} positions are cached")
        self._cache.rewind(length)
        del self.ids[length:]

    def read(self, ids: Sequence[int]) -> FloatArray:
        """Replaces the sequence by these ids. It runs only the ids after the beginning that both have in common.

        Returns:
            The logits [vocab] after the last id.

        Raises:
            SlmxError: As in `prefill`.
        """
        return self.prefill(ids[self.share(ids) :])

    def share(self, ids: Sequence[int]) -> int:
        """Removes every position after the beginning that the sequence has in common with these ids.

        Returns:
            The number of positions that remain. The last id is never among them, so `prefill` returns its logits.
        """
        shared = min(shared_length(self.ids, ids), max(0, len(ids) - 1))
        self.rewind(shared)
        return shared

    def reset(self) -> None:
        """Removes every position."""
        self.rewind(0)

    def fork(self, length: int | None = None) -> Session:
        """Returns a session with the first `length` positions of this one, by default all, in a separate cache."""
        length = self.length if length is None else length
        twin = Session(self._cache.copy(length), self.config, self.threads)
        twin.ids = self.ids[:length]
        return twin
