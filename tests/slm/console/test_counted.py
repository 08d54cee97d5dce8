"""Numbers of things in messages."""

from __future__ import annotations

import pytest

from slm.console.counted import count_stories, counted


@pytest.mark.parametrize(
    ("count", "expected"), [(0, "0 stories"), (1, "1 story"), (2, "2 stories"), (1000, "1,000 stories")]
)
def test_one_story_is_no_stories(count: int, expected: str) -> None:
    assert count_stories(count) == expected


def test_most_nouns_get_an_s() -> None:
    assert [counted(count, "token") for count in (0, 1, 2)] == ["0 tokens", "1 token", "2 tokens"]
    assert counted(2, "process", "processes") == "2 processes"
