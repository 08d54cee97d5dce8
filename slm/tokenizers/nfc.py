"""Unicode's normal form C in linear time. Python's own takes quadratic time on long runs of marks out of order."""

from __future__ import annotations

from itertools import groupby
from unicodedata import combining, is_normalized, normalize


def to_nfc(text: str) -> str:
    """Returns the normal form C of a text."""
    if is_normalized("NFC", text):
        return text
    characters: list[str] = []
    decomposed = "".join([normalize("NFD", char) for char in text])
    for _, run in groupby(decomposed, lambda char: combining(char) > 0):
        characters += sorted(run, key=combining)
    return normalize("NFC", "".join(characters))
