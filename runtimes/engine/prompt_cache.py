"""Caches of one row in which prompts are read. Those of recent prompts are kept, so that a prompt is read once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runtimes.engine.arrays import FloatArray
from runtimes.engine.pool import Pool

MOST_PROMPTS = 4
MOST_BYTES = 16 * 2**20  # of all caches together, if they are full; there is at least one


@dataclass(slots=True, eq=False)
class CachedPrompt:
    """A cache of one row.

    Attributes:
        pool: The cache.
        logits: float32 [vocab] after the last id of a prompt that was read to its end; None for other sequences.
    """

    pool: Pool
    logits: FloatArray | None = None

    @property
    def ids(self) -> list[int]:
        """The ids in the cache."""
        return self.pool.ids[0]

    def clear(self) -> None:
        """Removes every position."""
        self.pool.rewind(0, 0)
        self.logits = None


class PromptCache:
    """The caches of recent prompts.

    Args:
        running: The pool whose stories the prompts belong to.
        readings_agree: As in `Generator`. If not, only whole prompts are copied, not beginnings of prompts that go on
            differently.
    """

    def __init__(self, running: Pool, readings_agree: bool) -> None:
        self._running = running
        self._readings_agree = readings_agree
        self._most = max(1, min(MOST_PROMPTS, MOST_BYTES // running.row_bytes))
        self._prompts: list[CachedPrompt] = []  # the one that was used last is at the end

    def find(self, ids: list[int]) -> CachedPrompt | None:
        """Returns the cache of a prompt that was read to its end, or None."""
        for prompt in self._prompts:
            if prompt.logits is not None and prompt.ids == ids:
                self._prompts.remove(prompt)
                self._prompts.append(prompt)
                return prompt
        return None

    def take(self, ids: Sequence[int]) -> CachedPrompt:
        """Returns a cache in which the rest of a sequence can be read. The least recent prompt gives way.

        Returns:
            A cache with the longest beginning of the sequence that another cache or a running story has, but never with
            its last id.
        """
        source, row, shared = self._best_prefix(ids) if self._readings_agree else (self._running, 0, 0)
        if len(self._prompts) < self._most:
            prompt = CachedPrompt(self._running.another(1))
            prompt.pool.add()
        else:
            prompt = self._prompts.pop(0)
        prompt.logits = None
        if prompt.pool is source:
            source.rewind(0, shared)
        else:
            prompt.pool.remove(0)
            prompt.pool.add(row, shared, source)
        self._prompts.append(prompt)
        return prompt

    def _best_prefix(self, ids: Sequence[int]) -> tuple[Pool, int, int]:
        """Returns the pool and the row with the longest common beginning, and its length, without the last id."""
        pools = [self._running, *(prompt.pool for prompt in self._prompts)]
        found = [(pool, *pool.best_prefix(ids)) for pool in pools]
        source, row, shared = max(found, key=lambda place: place[2])
        return source, row, max(0, min(shared, len(ids) - 1))
