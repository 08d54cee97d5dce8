"""What a word is, and when two spellings are the same word.

A word is a run of letters and digits, with the marks on them (such as combining accents) and with single apostrophes
between them. Characters that a reader cannot see, such as a soft hyphen, do not count. Every other character ends a
word. Two spellings are the same word if they differ only in case, in the shape of the apostrophe, or in the Unicode
form of the same characters: composed, decomposed or compatible (such as fullwidth letters).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from slm.console.errors import UsageError

MAX_WORDS = 1000
MAX_WORD_LENGTH = 100
LETTER, MARK, APOSTROPHE, OTHER, INVISIBLE = "a", "m", "'", " ", ""
# A word in a text of kinds.
WORD = re.compile("a[am]*(?:'a[am]*)*")
_APOSTROPHES = dict.fromkeys(map(ord, ("\N{RIGHT SINGLE QUOTATION MARK}", "\N{MODIFIER LETTER APOSTROPHE}")), "'")


class _Kinds(dict[int, str]):
    """The kind of each character that was seen, by its code point."""

    def __missing__(self, code: int) -> str:
        category = unicodedata.category(chr(code))
        if code == ord("'") or code in _APOSTROPHES:
            kind = APOSTROPHE
        elif category == "Cf" or 0xFE00 <= code <= 0xFE0F or 0xE0100 <= code <= 0xE01EF:
            kind = INVISIBLE  # format characters and variation selectors
        else:
            kind = {"L": LETTER, "N": LETTER, "M": MARK}.get(category[0], OTHER)
        self[code] = kind
        return kind


_KINDS = _Kinds()


def visible(text: str) -> str:
    """Returns a text without the characters that a reader cannot see."""
    return text if text.isascii() else "".join(char for char in text if _KINDS[ord(char)] != INVISIBLE)


def kinds(text: str) -> str:
    """Returns the kind of each character of a visible text, as one character each."""
    return text.translate(_KINDS)


def fold(text: str) -> str:
    """Returns the form that all spellings of a visible text share.

    Folding part by part gives the same form: `fold(fold(a) + b) == fold(a + fold(b)) == fold(a + b)`. A form is never
    shorter than the form of a beginning of its text.
    """
    return unicodedata.normalize("NFKD", text.casefold()).casefold().translate(_APOSTROPHES)


def check_banned(words: Sequence[str]) -> None:
    """Raises UsageError unless each text is one word with a letter, and they are not too many or too long."""
    if len(words) > MAX_WORDS:
        raise UsageError(f"at most {MAX_WORDS:,} words can be banned, not {len(words):,}")
    for word in words:
        if not word:
            raise UsageError("a banned word must not be empty")
        if len(word) > MAX_WORD_LENGTH:
            raise UsageError(f"a banned word has at most {MAX_WORD_LENGTH} characters, not {len(word):,}")
        shown = visible(word)
        if not all(WORD.fullmatch(kinds(form)) for form in (shown, fold(shown))):
            raise UsageError(
                f"a banned word holds only letters, digits and inner apostrophes, not {word!r}; ban each word by itself"
            )
        if not any(map(str.isalpha, shown)):
            raise UsageError(f"a banned word must have a letter, not {word!r}")
