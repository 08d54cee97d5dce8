"""The suite `novelty`: what a model copies from its training text.

A suffix array over the words of the training text finds, at each word of a story, the longest sequence that the
training text has too (Manber and Myers, 1993; the ranks are doubled as there). The share of n-grams that are new, for
every n, and the longest copy follow from it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.evaluation.intervals import ratio
from slm.console.errors import SlmxError

WordArray = npt.NDArray[np.int32]
PlaceArray = npt.NDArray[np.int64]

LARGEST_N = 16
LONGEST = 256  # words; a longer copy counts as this long
MOST_WORDS = 20_000_000  # of a training text; the arrays take 40 bytes a word while they are made
TOKEN = re.compile(r"\w+(?:['\u2019]\w+)*|[^\w\s]")
BREAK = 0  # between two stories; no word has this number
UNKNOWN = -1  # a word that the training text does not have


def tokens_of(text: str) -> list[str]:
    """Returns the words and marks of a text in lower case."""
    return [token.replace("\u2019", "'") for token in TOKEN.findall(text.lower())]


class TrainingText:
    """The words of a training text, in a form in which copies are found. It may be shared between threads.

    Args:
        stories: The stories.

    Attributes:
        words: The number of words and marks.

    Raises:
        SlmxError: The text has more than 20 million words and marks.
    """

    def __init__(self, stories: Iterable[str]) -> None:
        self._numbers: dict[str, int] = {}
        words: list[int] = []
        for story in stories:
            words += [self._numbers.setdefault(token, len(self._numbers) + 1) for token in tokens_of(story)]
            words.append(BREAK)
            if len(words) > MOST_WORDS:
                raise SlmxError(f"the training text has more than {MOST_WORDS:,} words; give a part of it")
        self._text: WordArray = np.array(words, np.int32)
        self.words = int((self._text != BREAK).sum())
        self._order = _suffix_array(self._text)

    def longest_copies(self, text: str) -> PlaceArray:
        """Returns, for each word of a text, how many words from it on the training text has too, int64 [n]."""
        query = np.array([self._numbers.get(token, UNKNOWN) for token in tokens_of(text)], np.int32)
        count = len(query)
        low, high = np.zeros(count, np.int64), np.full(count, len(self._order), np.int64)
        lengths = np.zeros(count, np.int64)
        places = np.arange(count)
        for depth in range(min(LONGEST, count)):
            places = places[places + depth < count]
            wanted = query[places + depth]
            first = self._search(wanted, depth, low[places], high[places], False)
            last = self._search(wanted, depth, low[places], high[places], True)
            found = first < last
            places = places[found]
            low[places], high[places] = first[found], last[found]
            if not len(places):
                break
            lengths[places] = depth + 1
        return lengths

    def _search(self, wanted: WordArray, depth: int, low: PlaceArray, high: PlaceArray, after: bool) -> PlaceArray:
        """Returns the first place of each interval of suffixes whose word at a depth is not before the wanted one."""
        low, high = low.copy(), high.copy()
        while (open_ := low < high).any():
            middle = (low + high) // 2
            at = self._order[np.minimum(middle, len(self._order) - 1)] + depth
            word = np.where(at < len(self._text), self._text[np.minimum(at, len(self._text) - 1)], -1)
            is_before = (word <= wanted if after else word < wanted) & open_
            low = np.where(is_before, middle + 1, low)
            high = np.where(~is_before & open_, middle, high)
        return low


def _suffix_array(text: WordArray) -> PlaceArray:
    """Returns the places of a text in the order of what follows them, for `LONGEST` words."""
    count = len(text)
    rank = np.unique(text, return_inverse=True)[1].astype(np.int64)
    order = np.argsort(rank, kind="stable")
    width = 1
    while width < LONGEST and count > 1:
        following = np.full(count, -1, np.int64)
        following[:-width] = rank[width:]
        keys = rank * (count + 1) + following + 1
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        rank = np.empty(count, np.int64)
        rank[order] = np.concatenate([[0], np.cumsum(ordered[1:] != ordered[:-1])])
        if rank[order[-1]] == count - 1:
            break
        width *= 2
    return order


def measure_novelty(texts: Sequence[str], training: TrainingText) -> dict[str, Any]:
    """Measures what stories have in common with a training text.

    Args:
        texts: The stories, each without its given beginning.
        training: The training text.

    Returns:
        For n from 1 to 16 the share of n-grams that the training text does not have, with its interval over stories;
        the longest copy in words and its text; and the mean of the longest copies of the stories.
    """
    copies = [training.longest_copies(text) for text in texts]
    found: dict[str, Any] = {"new n-grams": {}}
    for n in range(1, LARGEST_N + 1):
        sizes = np.array([max(0, len(lengths) - n + 1) for lengths in copies], np.float64)
        new = [float((lengths[: len(lengths) - n + 1] < n).sum()) if len(lengths) >= n else 0.0 for lengths in copies]
        found["new n-grams"][str(n)] = ratio(np.array(new), sizes).to_json()
    longest = np.array([lengths.max(initial=0) for lengths in copies])
    where = int(longest.argmax())
    start = int(copies[where].argmax()) if len(copies[where]) else 0
    copied = tokens_of(texts[where])[start : start + int(longest[where])]
    return found | {
        "longest copy": {"words": int(longest[where]), "text": " ".join(copied)},
        "mean longest copy": float(longest.mean()),
    }
