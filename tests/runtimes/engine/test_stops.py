"""Stop strings: the same cut wherever the stream is divided, and nothing held back that need not be."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runtimes.engine.stops import StopStrings
from slm.errors import SlmxError

TEXT = st.text(alphabet="ab\n.", max_size=30)
STOPS = st.lists(st.text(alphabet="ab\n.", min_size=1, max_size=4), min_size=1, max_size=3)


def expected(text: str, stops: list[str]) -> tuple[str, str | None]:
    """Character by character: what comes before the first stop string to be complete."""
    for end in range(1, len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            longest = max(found, key=len)
            return text[: end - len(longest)], longest
    return text, None


@settings(max_examples=400, deadline=None)
@given(text=TEXT, stops=STOPS, cuts=st.sets(st.integers(0, 30)))
@example(text="aab", stops=["ab"], cuts={1, 2})
@example(text="aabaab.", stops=["aab.", "b"], cuts=set(range(7)))
@example(text="abab.", stops=["abab", "bab."], cuts={4})
def test_the_cut_does_not_depend_on_the_pieces(text: str, stops: list[str], cuts: set[int]) -> None:
    borders = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
    pieces = [text[start:end] for start, end in itertools.pairwise(borders)]
    stream = StopStrings(stops)
    assert ("".join(stream(pieces)), stream.hit) == expected(text, stops)


def test_only_what_may_become_a_stop_string_is_held_back() -> None:
    stream = StopStrings(["The end."])
    seen = []
    for piece in stream(iter(["So. ", "The", " cat. T", "he end", ".", "never read"])):
        seen.append(piece)
    assert seen == ["So. ", "The cat. "]
    assert stream.hit == "The end."


def test_nothing_is_read_after_the_stop() -> None:
    def pieces() -> object:
        yield "one. "
        raise AssertionError

    stream = StopStrings([". "])
    assert list(stream(pieces())) == ["one"]  # type: ignore[arg-type]


def test_what_was_held_back_comes_at_the_end() -> None:
    assert "".join(StopStrings(["abc"])(["xa", "b"])) == "xab"


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(SlmxError, match="must not be empty"):
        StopStrings(["a", ""])
