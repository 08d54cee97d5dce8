"""Splits a text, which comes in pieces, into stories of limited length."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from slm.data.cleaning import Cleaning
from slm.tokenizers.settings import END_OF_TEXT

# What separates the stories of a text. `auto` is `endoftext` if the text contains it, or else `blank`.
SEPARATORS = ("auto", "endoftext", "blank")
MARKER = re.compile(re.escape(END_OF_TEXT))
BLANK_LINE = re.compile(rf"{re.escape(END_OF_TEXT)}|\n[^\S\n]*\n")
# A longer story is cut, so that memory stays bounded. tiktoken fails on a million blanks in a row.
LONGEST_STORY = 2**18
# The time to learn a tokenizer grows with the square of the length of a word.
LONGEST_WORD = 4096
LONG_RUN = re.compile(rf"\w{{{LONGEST_WORD}}}|\s{{{LONGEST_WORD}}}|[^\w\s]{{{LONGEST_WORD}}}")
SENTENCE_BREAK = re.compile(r"""[.!?…।؟]["'”’»]?\s|[。！？]""")
SPACE = re.compile(r"\s")
SURROGATE = re.compile("[\ud800-\udfff]")


def split_stories(pieces: Iterable[str], separator: re.Pattern[str], counts: Cleaning) -> Iterator[str]:
    """Splits a text at separators. Parts longer than `LONGEST_STORY` characters are cut.

    Args:
        pieces: The text, cut anywhere.
        separator: What separates stories: `MARKER` or `BLANK_LINE`.
        counts: The number of cuts is added to its `cut`.

    Yields:
        The parts in order, not stripped; some may be empty.
    """
    rest = ""
    for piece in pieces:
        *whole, rest = separator.split(rest + piece)
        for story in whole:
            yield from _cut(story, LONGEST_STORY, counts)
        # The end of `rest` may be the beginning of a marker, which must not be cut.
        *early, rest = _cut(rest, LONGEST_STORY + len(END_OF_TEXT), counts)
        yield from early
    yield from _cut(rest, LONGEST_STORY, counts)


def _cut(text: str, limit: int, counts: Cleaning) -> Iterator[str]:
    start = 0
    while len(text) - start > limit:
        end = _cut_point(text, start)
        yield text[start:end]
        counts.cut += 1
        start = end
    yield text[start:]


def _cut_point(text: str, start: int) -> int:
    """Returns where to cut a story of more than `LONGEST_STORY` characters that begins at `start`.

    It is the last end of a sentence, or else the last white space, in the second half of `LONGEST_STORY`.
    """
    middle, limit = start + LONGEST_STORY // 2, start + LONGEST_STORY
    ends = [found.end() for found in SENTENCE_BREAK.finditer(text, middle, limit)]
    if ends:
        return ends[-1]
    last_space = SPACE.search(text[middle:limit][::-1])
    return limit if last_space is None else limit - last_space.start()


def normalise(text: str) -> str:
    r"""Returns a text from a table with the line ends of a text file, and U+FFFD for what UTF-8 cannot hold."""
    return SURROGATE.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))


def bound_words(story: str) -> Iterator[str]:
    """Yields the pieces of a story to learn a tokenizer from. Words, numbers or blanks over `LONGEST_WORD` are cut."""
    start = 0
    if len(story) > LONGEST_WORD:
        for run in LONG_RUN.finditer(story):
            yield story[start : run.end()]
            start = run.end()
    yield story[start:]
