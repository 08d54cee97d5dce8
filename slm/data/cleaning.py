"""Cleans the stories of a corpus before a model learns from them, and counts what it did."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

# The version of the rules that make stories of a text: separation, cleaning, holding out. A change that gives other
# stories of some text raises it. Data sets before version 2 do not name it.
RULES = 2
# A story is whole when it ends with a sentence mark, in any script. Quotation marks and brackets may follow the mark.
SENTENCE_MARK = re.compile(r"[.!?…。！？।؟]")
SENTENCE_END = re.compile(
    r"""[.!?…。！？｡।॥؟۔։።៖၊။‼⁇⁈⁉~♪♥❤][\s\d"'”’»›」』（）()\[\]{}*_~]*$|[\U0001F300-\U0001FAFF\uFE0F]$"""
)
# It is also whole when it ends with one of these, after a sentence or on a line of its own.
FINISHED = re.compile(r"(?:^|[\n.!?…])\W*(?:the\s+end|fin|ende|fine)\W*$", re.IGNORECASE)
LETTER_OR_DIGIT = re.compile(r"\w")
TAIL = 80  # characters at the end of a story in which both are looked for


@dataclass
class Cleaning:
    """What happened to the stories of some sources.

    Attributes:
        read: Stories read, including the empty rows of tables, and each part of a story that is cut.
        repaired: Stories in which mojibake was repaired.
        empty: Stories dropped because they hold no letter and no digit, or their row of a table is empty.
        truncated: Stories dropped because they end in the middle of a sentence.
        duplicates: Stories dropped because the same story came before.
        in_validation: Stories dropped because they belong to the validation data.
        kept: Stories passed on.
        cut: Cuts that were made in stories that are too long.
        bytes_before: UTF-8 bytes of the stories read.
        bytes_after: UTF-8 bytes of the stories passed on.
    """

    read: int = 0
    repaired: int = 0
    empty: int = 0
    truncated: int = 0
    duplicates: int = 0
    in_validation: int = 0
    kept: int = 0
    cut: int = 0
    bytes_before: int = 0
    bytes_after: int = 0

    @property
    def stories(self) -> int:
        """The number of stories before those that are too long were cut."""
        return self.read - self.cut


def is_whole(story: str) -> bool:
    """Returns whether the last sentence of a story is complete.

    A text without any sentence mark, for example a title or a poem, counts as whole.
    """
    tail = story[-TAIL:]
    return bool(SENTENCE_END.search(tail) or FINISHED.search(tail)) or not SENTENCE_MARK.search(story)


def repair(story: str) -> str:
    """Repairs mojibake, which is text that was decoded with the wrong encoding. Nothing else changes."""
    if story.isascii():
        return story
    import ftfy

    return ftfy.fix_encoding(story)


def story_key(story: str) -> int:
    """Returns 8 bytes of the SHA-256 of a story, which identify it."""
    return int.from_bytes(hashlib.sha256(story.encode()).digest()[:8], "big")


@dataclass
class Cleaner:
    """Keeps the usable stories, each of them once.

    It remembers the key of every story, about 160 MB for two million stories.

    Attributes:
        thorough: Whether mojibake is repaired and truncated stories are dropped.
        counts: The counts so far.
        seen: The keys of all stories so far.
        held_out: The keys of stories that are dropped because they belong to the validation data.
    """

    thorough: bool = True
    counts: Cleaning = field(init=False, default_factory=Cleaning)
    seen: set[int] = field(init=False, default_factory=set)
    held_out: set[int] = field(default_factory=set)

    def __call__(self, stories: Iterable[str]) -> Iterator[str]:
        """Yields the clean stories, in order."""
        counts = self.counts
        for story in stories:
            counts.read += 1
            counts.bytes_before += len(story.encode())
            clean = repair(story).strip() if self.thorough else story.strip()
            if clean != story.strip():
                counts.repaired += 1
            if not LETTER_OR_DIGIT.search(clean):
                counts.empty += 1
                continue
            if self.thorough and not is_whole(clean):
                counts.truncated += 1
                continue
            key = story_key(clean)
            if key in self.seen:
                counts.duplicates += 1
                continue
            self.seen.add(key)
            if key in self.held_out:
                counts.in_validation += 1
                continue
            counts.kept += 1
            counts.bytes_after += len(clean.encode())
            yield clean
