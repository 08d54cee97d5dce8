"""The beginning that two sequences have in common."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from runtimes.beginnings import shared_length

IDS = st.lists(st.integers(0, 1), max_size=6)


@settings(max_examples=100, deadline=None)
@given(IDS, IDS)
def test_the_shared_length_is_that_of_the_common_beginning(one: list[int], other: list[int]) -> None:
    length = shared_length(one, other)
    assert length == shared_length(other, one) == shared_length(tuple(one), other)
    assert one[:length] == other[:length]
    assert one[length : length + 1] != other[length : length + 1] or one == other


@settings(max_examples=50, deadline=None)
@given(IDS, IDS)
def test_what_goes_on_has_the_whole_sequence_in_common(one: list[int], more: list[int]) -> None:
    assert shared_length(one, one + more) == len(one)
    assert shared_length([*one, 2], [*one, 3, *more]) == len(one)
