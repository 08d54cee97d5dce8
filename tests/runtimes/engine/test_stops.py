"""Stop strings: the result does not depend on the pieces of the stream, and no more text than needed is held back."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from hypothesis import example, given, settings
from hypothesis import strategies as st

from runtimes.engine.stops import StopStrings

TEXT = st.text(alphabet="ab\n.", max_size=30)
STOPS = st.lists(st.text(alphabet="ab\n.", min_size=1, max_size=4), min_size=1, max_size=3)


def expected(text: str, stops: list[str]) -> tuple[str, str | None]:
    """The text before the first complete stop string, found character by character."""
    for end in range(1, len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            longest = max(found, key=len)
            return text[: end - len(longest)], longest
    return text, None


def passed(stream: StopStrings, pieces: Iterable[str]) -> list[str]:
    """The text of each piece that passes before a hit, and at the end the text that was held back."""
    found = []
    for piece in pieces:
        found.append(stream.push(piece))
        if stream.hit is not None:
            return found
    return [*found, stream.rest()]


@settings(max_examples=400, deadline=None)
@given(text=TEXT, stops=STOPS, cuts=st.sets(st.integers(0, 30)))
@example(text="aab", stops=["ab"], cuts={1, 2})
@example(text="aabaab.", stops=["aab.", "b"], cuts=set(range(7)))
@example(text="abab.", stops=["abab", "bab."], cuts={4})
def test_the_cut_does_not_depend_on_the_pieces(text: str, stops: list[str], cuts: set[int]) -> None:
    borders = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
    pieces = [text[start:end] for start, end in itertools.pairwise(borders)]
    stream = StopStrings(stops)
    found = "".join(passed(stream, pieces))
    assert (found, stream.hit) == expected(text, stops)


def test_only_what_may_become_a_stop_string_is_held_back() -> None:
    stream = StopStrings(["The end."])
    assert passed(stream, ["So. ", "The", " cat. T", "he end", ".", "not read"]) == ["So. ", "", "The cat. ", "", ""]
    assert stream.hit == "The end."


def test_what_was_held_back_comes_at_the_end() -> None:
    assert passed(StopStrings(["abc"]), ["xa", "b"]) == ["x", "", "ab"]
