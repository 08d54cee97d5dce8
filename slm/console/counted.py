"""Numbers of things, and durations, in messages and tables."""

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


def duration(seconds: float) -> str:
    """Returns a duration in the unit that a person would choose, such as "42 s", "7 min" or "3.1 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 1800 else f"{seconds / 3600:.1f} h"
