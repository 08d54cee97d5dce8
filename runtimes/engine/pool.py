"""Several sequences in one cache that take their steps together. They are added and removed between steps."""

from __future__ import annotations

from collections.abc import Sequence

from runtimes.beginnings import shared_length
from runtimes.engine.arrays import FloatArray, IdArray
from runtimes.engine.cache import SharedCache
from runtimes.engine.session import Session, as_row, check_step
from slm.console.errors import SlmxError


class Pool:
    """The sequences in progress, in rows 0 to n - 1 of a cache. `ids` are their ids. Not thread-safe.

    In float, a row has the same logits as alone, except for rounding. Dynamic int8 uses one scale for the activations
    of all rows, so the rows change each other's logits slightly.

    Args:
        session: A session of the model. Its own sequence is not used.
        slots: The largest number of sequences. A slot takes no memory for positions that were never filled.

    Raises:
        SlmxError: The graph of this model takes one sequence only.
    """

    def __init__(self, session: Session, slots: int) -> None:
        self._session = session
        self._config = session.config
        self._block_size, self._vocab_size = session.config.block_size, session.config.vocab_size
        self._cache = _shared(session).empty(slots)
        self.slots = slots
        self.ids: list[list[int]] = []

    def another(self, slots: int) -> Pool:
        """Returns an empty pool of the same model."""
        return Pool(self._session, slots)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row whose positions are all filled."""
        return self._cache.row_bytes

    def best_prefix(self, ids: Sequence[int]) -> tuple[int, int]:
        """Returns the row with the longest common beginning with `ids`, and its length; (0, 0) if there are no rows."""
        shared = [shared_length(row, ids) for row in self.ids]
        longest = max(shared, default=0)
        return (shared.index(longest) if shared else 0), longest

    def add(self, source: int = 0, length: int = 0, pool: Pool | None = None) -> int:
        """Adds a sequence after the last row.

        Args:
            source: The row to copy positions from.
            length: The number of first positions to copy.
            pool: The pool of the source; default: this one.

        Returns:
            The new row.

        Raises:
            SlmxError: All slots are taken, or the source has fewer positions.
        """
        row, theirs = len(self.ids), pool or self
        if row == self.slots:
            raise SlmxError(f"all {self.slots} slots are taken: wait until a story ends, or open more slots")
        if length:
            if not (0 <= source < len(theirs.ids) and 0 < length <= len(theirs.ids[source])):
                raise SlmxError(f"row {source} has no {length} positions to copy")
            self._cache.fill(row, theirs._cache, source, length)
        self.ids.append(theirs.ids[source][:length] if length else [])
        return row

    def prefill(self, row: int, ids: Sequence[int] | IdArray) -> FloatArray:
        """Appends ids to one row in one run; returns the logits [vocab] after the last. Raises as `Session.prefill`."""
        last: FloatArray = self._append(row, ids, last_only=True)[-1]
        return last

    def score(self, row: int, ids: Sequence[int] | IdArray) -> FloatArray:
        """Appends ids to one row in one run; returns the logits [n, vocab] after each id. Raises as `prefill`."""
        return self._append(row, ids, last_only=False)

    def _append(self, row: int, ids: Sequence[int] | IdArray, last_only: bool) -> FloatArray:
        sequence = self.ids[row]
        array = as_row(ids, len(sequence), self._config)
        logits = self._cache.append(array, len(sequence), last_only, row)
        sequence += array.tolist()
        return logits

    def rewind(self, row: int, length: int) -> None:
        """Removes all but the first `length` positions of a row."""
        self._cache.rewind(length, row)
        del self.ids[row][length:]

    def step(self, tokens: Sequence[int]) -> FloatArray:
        """Appends one id to each row.

        Args:
            tokens: An id for each row, in the order of the rows.

        Returns:
            The logits [rows, vocab], valid until the next step.

        Raises:
            SlmxError: The number of ids differs from the number of rows, a row is full, or the vocabulary lacks an id.
        """
        if not tokens or len(tokens) != len(self.ids):
            raise SlmxError(f"{len(tokens)} tokens for a step of {len(self.ids)} rows: give one for each")
        lengths = list(map(len, self.ids))
        longest, lowest, highest = max(lengths), min(tokens), max(tokens)
        if longest >= self._block_size or lowest < 0 or highest >= self._vocab_size:
            check_step(lowest, longest, self._config)
            check_step(highest, longest, self._config)
        logits = self._cache.step_rows(tokens, lengths)
        for sequence, token in zip(self.ids, tokens, strict=True):
            sequence.append(token)
        return logits

    def remove(self, row: int) -> None:
        """Removes a sequence. The last row takes its place."""
        last = len(self.ids) - 1
        if row != last:
            self.ids[row] = self.ids[last]
            self._cache.fill(row, self._cache, last, len(self.ids[last]))
        del self.ids[last]
        self._cache.rewind(0, last)


def _shared(session: Session) -> SharedCache:
    """Returns the cache of a session; SlmxError if its graph takes one sequence only."""
    if not isinstance(session._cache, SharedCache):
        raise SlmxError("this variant writes one story at a time; take fp32 or int8 for several")
    return session._cache
