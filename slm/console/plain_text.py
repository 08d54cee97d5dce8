"""Text that is safe to print: one line, without characters that act on a terminal."""

from __future__ import annotations

import re

MAX_TEXT = 1000
# Control characters, lone surrogates, and the line ends of Unicode.
_UNSAFE = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\ud800-\\udfff\\u2028\\u2029]")


def is_plain_text(text: str) -> bool:
    """Returns whether a text is one line that is safe to print: no control characters, line ends, lone surrogates."""
    return _UNSAFE.search(text) is None


def as_plain_text(text: str) -> str:
    """Replaces the characters that `is_plain_text` refuses by `?`, and cuts the text to `MAX_TEXT` characters."""
    return without_controls(text[:MAX_TEXT])


def without_controls(text: str) -> str:
    """Replaces the characters that `is_plain_text` refuses by `?`."""
    return _UNSAFE.sub("?", text)


def escaped(text: str) -> str:
    """Replaces the characters that `is_plain_text` refuses by their escapes, such as `\\n`."""
    return _UNSAFE.sub(lambda found: ascii(found[0])[1:-1], text)
