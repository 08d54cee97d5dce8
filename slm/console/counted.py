"""Numbers of things in messages."""

from __future__ import annotations


def counted(count: int, one: str, several: str | None = None) -> str:
    """Returns a number with its noun, such as "1 story" or "2,000 stories".

    Args:
        count: How many there are.
        one: The noun for one.
        several: The noun for any other number; by default, `one` with an s.
    """
    return f"{count:,} {one if count == 1 else several or f'{one}s'}"


def count_stories(count: int) -> str:
    """Returns a number of stories, such as "1 story"."""
    return counted(count, "story", "stories")
