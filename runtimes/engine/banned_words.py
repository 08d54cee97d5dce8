"""Forbids the ids that would write a banned word.

An id is forbidden if a story that ended after it would hold a banned word as a whole word. A word that the prompt
already holds does not count. runtimes/words.py tells what a word is. An unfinished character at the end of the text
ends a word, because it is shown as U+FFFD if the story ends there.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple
from unicodedata import combining

import numpy as np

from runtimes.engine.arrays import IndexArray
from runtimes.words import APOSTROPHE, LETTER, OTHER, WORD, fold, kinds, visible

# A text ends with no word, with a word, or with a word and an apostrophe that belongs to it if a letter follows.
CLOSED, OPEN, PENDING = "", LETTER, LETTER + APOSTROPHE
KEPT_ENDINGS = 4096


class Ending(NamedTuple):
    """What the next forbidden ids depend on.

    Attributes:
        state: CLOSED, OPEN or PENDING.
        word: The form of the word at the end, with the apostrophe if PENDING; None if no banned word begins like it.
        part: The bytes of an unfinished character at the end.
    """

    state: str
    word: str | None
    part: bytes


START = Ending(CLOSED, None, b"")


class BannedWords:
    """Banned words and the ids of a vocabulary that can complete them. Thread-safe.

    Args:
        tokens: The bytes of every id, 0, 1, 2, ... Special tokens have none.
        words: At least one banned word. `check_banned` accepts them.
    """

    def __init__(self, tokens: Sequence[bytes], words: Sequence[str]) -> None:
        self.tokens = tokens
        self._words = {fold(visible(word)) for word in words}
        self._longest = max(map(len, self._words))
        self._beginnings = {word[:size] for word in self._words for size in range(1, len(word) + 1)}
        self._always: dict[str, IndexArray] = {}  # ids that hold a whole banned word, by the state before them
        self._joining: dict[str, dict[str, list[int]]] = {OPEN: {}, PENDING: {}}  # ids by the form that joins a word
        self._index()
        # Only these ids can complete a character. After an unfinished character, all others follow a U+FFFD.
        self._continuing = [i for i, token in enumerate(self.tokens) if b"\x80" <= token[:1] < b"\xc0"]
        self._after_broken = np.setdiff1d(self._always[CLOSED], self._continuing)
        self.forbidden = lru_cache(KEPT_ENDINGS)(self._forbidden)

    def _index(self) -> None:
        """Reads every token after each state. The state does not matter if the token begins with no part of a word."""
        ends = {word[start:] for word in self._words for start in range(len(word) + 1)}
        found: dict[str, list[int]] = {OTHER: [], CLOSED: [], OPEN: [], PENDING: []}
        for i, token in enumerate(self.tokens):
            text = visible(token.decode("utf-8", "replace"))
            for state in (OTHER,) if kinds(text[:1]) == OTHER else (CLOSED, OPEN, PENDING):
                for joins, piece in _words(state, text):
                    form = fold(piece)
                    # Unicode may put marks at the beginning of the piece before the last marks of the word.
                    if joins and form.lstrip(_marks(form)) in ends:
                        self._joining[state].setdefault(form, []).append(i)
                    elif not joins and form in self._words:
                        found[state].append(i)
        for state in (CLOSED, OPEN, PENDING):
            self._always[state] = np.unique(np.array(found[OTHER] + found[state], np.intp))

    def begin(self, prompt: str) -> BannedWordsRule:
        """Returns the rule of one story after a prompt, whose last word the story may continue."""
        # White space ends every word, so a long prompt is not read as a whole.
        last = prompt.rsplit(maxsplit=1)[-1] if prompt and not prompt[-1].isspace() else ""
        return BannedWordsRule(self, self.after(START, last.encode()))

    def after(self, ending: Ending, added: bytes) -> Ending:
        """Returns the ending of a text to which bytes were added."""
        content = ending.part + added
        text, used = codecs.utf_8_decode(content, "replace", False)
        text, part = visible(text), content[used:]
        shape = ending.state + kinds(text)
        start = end = 0
        for match in WORD.finditer(shape):
            start, end = match.span()
        state = OPEN + shape[end:]
        if not end or state not in (OPEN, PENDING):
            return Ending(CLOSED, None, part)
        before = len(ending.state)
        if start >= before:
            word: str | None = fold(text[start - before :])
        else:
            word = None if ending.word is None else fold(ending.word + text)
        if word is not None and (len(word) > self._longest or word.rstrip(_marks(word)) not in self._beginnings):
            word = None
        return Ending(state, word, part)

    def _forbidden(self, ending: Ending) -> tuple[IndexArray, IndexArray]:
        """Returns the forbidden ids after an ending, in two arrays. The first is shared by many endings."""
        state, word, part = ending
        if part:
            last = [i for i in self._continuing if self._completes(ending, self.tokens[i])]
        elif word is not None:
            last = [i for form, ids in self._joining[state].items() if fold(word + form) in self._words for i in ids]
        else:
            last = []
        return self._after_broken if part else self._always[state], np.array(last, np.intp)

    def _completes(self, ending: Ending, token: bytes) -> bool:
        """Returns whether a token that is added to an ending completes a banned word."""
        text = visible((ending.part + token).decode("utf-8", "replace"))
        for joins, piece in _words(ending.state, text):
            if not joins and fold(piece) in self._words:
                return True
            if joins and ending.word is not None and fold(ending.word + piece) in self._words:
                return True
        return False


class BannedWordsRule:
    """The rule for the banned words in one story. Not thread-safe."""

    def __init__(self, banned: BannedWords, ending: Ending) -> None:
        self._banned = banned
        self._ending = ending

    def forbidden(self) -> Iterable[IndexArray]:
        """Returns the ids that are forbidden now."""
        return self._banned.forbidden(self._ending)

    def chose(self, token: int) -> None:
        """Remembers an id that was written."""
        self._ending = self._banned.after(self._ending, self._banned.tokens[token])


def _words(state: str, text: str) -> Iterator[tuple[bool, str]]:
    """Yields each word of a visible text, and whether it joins the word before the text, by the state before it."""
    before = len(state)
    for match in WORD.finditer(state + kinds(text)):
        start, end = match.start() - before, match.end() - before
        if end > 0:
            yield start < 0, text[max(start, 0) : end]


def _marks(text: str) -> str:
    """Returns the characters of a text that Unicode may reorder."""
    return "".join(filter(combining, text))
