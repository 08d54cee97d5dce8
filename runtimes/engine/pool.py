"""Several sequences in one cache that take their steps together; sequences come and go between two steps."""

from __future__ import annotations

from collections.abc import Sequence

from runtimes.engine.cache import FloatArray, IdArray, SharedCache
from runtimes.engine.session import Session, as_row, check_step, shared_length
from slm.errors import SlmxError


class Pool:
    """Rows 0 to n - 1 of a cache hold the sequences in progress; `ids` are their ids.

    In float a row's logits are those that it would have alone, up to rounding. Dynamic int8 takes one scale for the
    activations of all rows, so there rows change each other's logits slightly. Not thread-safe.

    Args:
        session: Gives the model; its own sequence is not used.
        slots: Sequences at most. A slot takes no memory for positions that were never filled.

    Raises:
        SlmxError: The graph of this model takes one sequence only.
    """

    def __init__(self, session: Session, slots: int) -> None:
        cache = session._cache
        if not isinstance(cache, SharedCache):
            raise SlmxError("this variant writes one story at a time; take fp32 or int8 for several")
        self._config = session.config
        self._cache = cache.empty(slots)
        self.slots = slots
        self.ids: list[list[int]] = []

    def best_prefix(self, ids: Sequence[int]) -> tuple[int, int]:
        """The row that shares most ids with the beginning of these, and how many; (0, 0) if there are no rows."""
        shared = [shared_length(row, ids) for row in self.ids]
        longest = max(shared, default=0)
        return (shared.index(longest) if shared else 0), longest

    def add(self, source: int = 0, length: int = 0) -> int:
        """Add a sequence after the last row.

        Args:
            source: The row whose positions the new one begins with.
            length: How many positions are copied from it.

        Returns:
            The new row.

        Raises:
            SlmxError: All slots are taken, or the source has fewer positions.
        """
        row = len(self.ids)
        if row == self.slots:
            raise SlmxError(f"all {self.slots} slots are taken: wait until a story ends, or open more slots")
        if length:
            if not (0 <= source < row and 0 < length <= len(self.ids[source])):
                raise SlmxError(f"row {source} has no {length} positions to copy")
            self._cache.fill(row, self._cache, source, length)
        self.ids.append(self.ids[source][:length] if length else [])
        return row

    def prefill(self, row: int, ids: Sequence[int] | IdArray) -> FloatArray:
        """Append ids to one row in one run; the logits [vocab] after the last. Errors as in `Session.prefill`."""
        sequence = self.ids[row]
        array = as_row(ids, len(sequence), self._config)
        logits = self._cache.append(array, len(sequence), last_only=True, row=row)
        sequence += array.tolist()
        last: FloatArray = logits[-1]
        return last

    def rewind(self, row: int, length: int) -> None:
        """Remove all but the first `length` positions of a row."""
        self._cache.rewind(length, row)
        del self.ids[row][length:]

    def step(self, tokens: Sequence[int]) -> FloatArray:
        """Append one id to each row.

        Args:
            tokens: An id for each row, in the order of the rows.

        Returns:
            The logits [rows, vocab], valid until the next step.

        Raises:
            SlmxError: The number of ids is not that of the rows, a row is full, or the vocabulary lacks an id.
        """
        if not tokens or len(tokens) != len(self.ids):
            raise SlmxError(f"{len(tokens)} tokens for a step of {len(self.ids)} rows: give one for each")
        lengths = [len(sequence) for sequence in self.ids]
        for extreme in (min(tokens), max(tokens)):
            check_step(extreme, max(lengths), self._config)
        logits = self._cache.step_rows(tokens, lengths)
        for sequence, token in zip(self.ids, tokens, strict=True):
            sequence.append(token)
        return logits

    def remove(self, row: int) -> None:
        """Remove a sequence; the last row takes its place."""
        last = len(self.ids) - 1
        if row != last:
            self.ids[row] = self.ids[last]
            self._cache.fill(row, self._cache, last, len(self.ids[last]))
        del self.ids[last]
        self._cache.rewind(0, last)
