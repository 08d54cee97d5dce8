"""Breaks the lines of a text between words while it is written to a terminal."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Callable

PIECES = re.compile(r"\n|[^\S\n]+|\S+")


def columns_of(text: str) -> int:
    """Returns how many columns of a terminal a text without control characters takes."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(unicodedata.combining(character) > 0 for character in text)


def terminal_columns() -> int:
    """Returns the width of the terminal at standard output, or what COLUMNS says."""
    return shutil.get_terminal_size().columns


def folded(line: str, indent: int = 0) -> str:
    """Returns a line for standard output: broken between words on a terminal, and whole in a file or a pipe.

    Args:
        line: The line.
        indent: Spaces before each part after the first.
    """
    if sys.stdout is None or not sys.stdout.isatty():
        return line
    width = max(terminal_columns(), indent + 20)
    parts = textwrap.wrap(line, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)
    return "\n".join(parts)


class WordWrap:
    """Takes a text in pieces and returns it with a line break in place of the blanks before a word that does not fit.

    The last word stays here until the piece that ends it, because its length is not known before. Without its line
    breaks and blanks, what comes out is what was put in. The width of the terminal can change between two pieces.
    """

    def __init__(self) -> None:
        self._column = 0
        self._blanks = ""
        self._word, self._length = "", 0

    def add(self, text: str, style: Callable[[str], str] = str) -> str:
        """Returns what can be written now.

        Args:
            text: The next piece of the text.
            style: Makes a part of it bold, for example. What it adds takes no columns.
        """
        out = ""
        for piece in PIECES.findall(text):
            if not piece.isspace():
                self._word += style(piece)
                self._length += columns_of(piece)
                continue
            out += self.flush()
            if piece == "\n":
                out += self._blanks + piece
                self._blanks, self._column = "", 0
            else:
                self._blanks += piece
        return out

    def flush(self) -> str:
        """Returns the word that was kept, because the text ends or a blank follows."""
        if not self._word:
            return ""
        width, before = terminal_columns(), columns_of(self._blanks)
        if self._column and self._column + before + self._length > width:
            out, self._column = f"\n{self._word}", self._length
        else:
            out = self._blanks + self._word
            self._column += before + self._length
        self._column = (self._column - 1) % width + 1 if self._column else 0
        self._blanks, self._word, self._length = "", "", 0
        return out

    def end_line(self) -> str:
        """Returns the word that was kept, because another text ends the line here. What is added next begins a line."""
        out = self.flush()
        self._blanks, self._column = "", 0
        return out
