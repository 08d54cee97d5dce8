"""The beginning that two sequences of ids or words have in common."""

from __future__ import annotations

from collections.abc import Sequence


def shared_length(one: Sequence[object], other: Sequence[object]) -> int:
    """Returns the length of the beginning that two sequences have in common."""
    shortest = min(len(one), len(other))
    if one[:shortest] == other[:shortest]:  # often a whole cache of ids, for which this is much faster than the loop
        return shortest
    return next((place for place in range(shortest) if one[place] != other[place]), shortest)
