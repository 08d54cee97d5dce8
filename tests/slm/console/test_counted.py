"""Numbers of things, and durations, in messages and tables."""

from __future__ import annotations

import pytest

from slm.console.counted import count_stories, counted, duration


@pytest.mark.parametrize(
    ("count", "expected"), [(0, "0 stories"), (1, "1 story"), (2, "2 stories"), (1000, "1,000 stories")]
)
def test_one_story_is_no_stories(count: int, expected: str) -> None:
    assert count_stories(count) == expected


def test_most_nouns_get_an_s() -> None:
    assert [counted(count, "token") for count in (0, 1, 2)] == ["0 tokens", "1 token", "2 tokens"]
    assert counted(2, "process", "processes") == "2 processes"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(8.4, "8 s"), (42, "42 s"), (119, "2 min"), (1740, "29 min"), (2880, "0.8 h"), (11_160, "3.1 h")],
)
def test_a_duration_is_in_the_unit_of_people(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected
