"""Figures of the continuation of a story: repetition, variety, spelling, and how it keeps to its opening."""

from __future__ import annotations

import math
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from slm.console.errors import SlmxError
from slm.data.stories import SENTENCE_BREAK

OPENING_SHARE = 0.3
COMMON_WORDS = 250
WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")
# A capitalised word after a lower-case letter or a comma does not begin a sentence, so it is a name or a title.
NAME = re.compile(r"(?<=[^\W\d_A-Z] |, )[A-Z][^\W\d_]+")
SENTENCE_END = re.compile(r"""[.!?\u2026]["'\u201d\u2019\xbb]?\s*$""")


@dataclass(frozen=True)
class Excerpt:
    """A story in two parts.

    Attributes:
        opening: The first sentences, at least `OPENING_SHARE` of the characters, without white space at the end.
        ending: The rest.
    """

    opening: str
    ending: str


@dataclass(frozen=True)
class Vocabulary:
    """The words of a text, in lower case.

    Attributes:
        known: All words. A word that is not here counts as misspelt.
        common: The `COMMON_WORDS` most frequent words. The other words tell what a story is about.
    """

    known: frozenset[str]
    common: frozenset[str]

    @classmethod
    def of(cls, stories: Iterable[str]) -> Vocabulary:
        """Collects the words of stories."""
        counts = Counter(word for story in stories for word in words_of(story))
        return cls(frozenset(counts), frozenset(word for word, _ in counts.most_common(COMMON_WORDS)))


def divide(story: str) -> Excerpt | None:
    """Divides a story after its opening; None if no sentence ends between the opening and the end of the story."""
    found = SENTENCE_BREAK.search(story.rstrip(), int(OPENING_SHARE * len(story)))
    if found is None:
        return None
    opening = story[: found.end()].rstrip()
    return Excerpt(opening, story[len(opening) :])


def choose_excerpts(stories: Iterable[str], count: int, words: int, fits: Callable[[str], bool]) -> list[Excerpt]:
    """Takes the first stories that can be compared at a fixed length.

    Args:
        stories: Stories that no model was trained on.
        count: The most stories to take.
        words: The number of words that the ending must have.
        fits: Returns whether a whole story fits the context of every model.

    Returns:
        The stories that fit, are long enough and end with a whole sentence.

    Raises:
        SlmxError: There is no such story.
    """
    found: list[Excerpt] = []
    for story in stories:
        excerpt = divide(story)
        if excerpt is None or cut(excerpt.ending, words) is None or not SENTENCE_END.search(story) or not fits(story):
            continue
        found.append(excerpt)
        if len(found) == count:
            break
    if not found:
        raise SlmxError(
            f"no story that fits the models' context has {words} words after its opening: "
            "give a smaller --words, or another --text"
        )
    return found


def cut(text: str, words: int) -> str | None:
    """Returns a text up to the end of its word number `words`; None if it has fewer words."""
    ends = [word.end() for word in WORD.finditer(text)]
    return text[: ends[words - 1]] if len(ends) >= words else None


def words_of(text: str) -> list[str]:
    """Returns the words of a text in lower case, without digits and punctuation."""
    return [word.lower().replace("\u2019", "'") for word in WORD.findall(text)]


def share(answers: list[bool]) -> float:
    """Returns the share that is True; NaN of an empty list."""
    return sum(answers) / len(answers) if answers else math.nan


def distinct(words: list[str], n: int) -> float:
    """Returns the share of sequences of n words that are different; NaN if there are fewer than n words."""
    sequences = [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]
    return len(set(sequences)) / len(sequences) if sequences else math.nan


def names_kept(opening: str, continuation: str) -> float:
    """Returns the share of the names in a continuation that the opening has too; NaN if it has no names.

    A name is a capitalised word that stands inside a sentence somewhere in the opening or the continuation. Each
    time that it occurs in the continuation counts.
    """
    names = {found.group() for text in (opening, continuation) for found in NAME.finditer(text)}
    introduced = re.findall(r"[^\W\d_]+", opening)
    return share([name in introduced for name in re.findall(r"[^\W\d_]+", continuation) if name in names])


def describe(opening: str, continuation: str, vocabulary: Vocabulary) -> dict[str, float]:
    """Measures a continuation. All figures depend on its length, so compare continuations of the same length.

    Args:
        opening: The beginning of the story.
        continuation: The text after it, at least one word.
        vocabulary: The words that count as spelt well, and those that are common.

    Returns:
        `repeated 4-grams`: the share of sequences of four words that occurred before in the continuation.
        `distinct-2`, `distinct-3`: the shares of different sequences of two and three words.
        `compressed`: the size after zlib at level 9, relative to the size before.
        `unknown words`: the share of words that are neither in the vocabulary nor in the opening.
        `names kept`: as `names_kept` returns it.
        `words kept`: the share of the words that are not common that the opening has too.
        `new words`: of the words in the second half that are not common, the share that is neither in the opening nor
            in the first half.
        The last three are NaN if there are no such words.
    """
    words, content, before = words_of(continuation), continuation.encode("utf-8"), set(words_of(opening))
    half = len(words) // 2
    earlier = before.union(words[:half])
    return {
        "repeated 4-grams": 1 - distinct(words, 4),
        "distinct-2": distinct(words, 2),
        "distinct-3": distinct(words, 3),
        "compressed": len(zlib.compress(content, 9)) / len(content),
        "unknown words": share([word not in vocabulary.known and word not in before for word in words]),
        "names kept": names_kept(opening, continuation),
        "words kept": share([word in before for word in words if word not in vocabulary.common]),
        "new words": share([word not in earlier for word in words[half:] if word not in vocabulary.common]),
    }
