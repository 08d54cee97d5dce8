"""What a story corpus needs before it is learned from, and a count of all that was done to it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

# A story is whole when its last line ends a sentence, in any script, behind whatever closes a quotation or a bracket.
SENTENCE_MARK = re.compile(r"[.!?…。！？।؟]")
SENTENCE_END = re.compile(
    r"""[.!?…。！？｡।॥؟۔։።៖၊။‼⁇⁈⁉~♪♥❤][\s\d"'”’»›」』（）()\[\]{}*_~]*$|[\U0001F300-\U0001FAFF\uFE0F]$"""
)
FINISHED = re.compile(r"(the\s+end|fin|ende|fine)\W*$", re.IGNORECASE)
LETTER_OR_DIGIT = re.compile(r"\w")
TAIL = 80


@dataclass
class Cleaning:
    """Counts of stories, and the UTF-8 bytes before and after."""

    read: int = 0
    repaired: int = 0
    empty: int = 0
    truncated: int = 0
    duplicates: int = 0
    in_validation: int = 0
    kept: int = 0
    bytes_before: int = 0
    bytes_after: int = 0


def is_whole(story: str) -> bool:
    """Whether a story ends as one does; a text without any sentence mark (a title, a poem) counts as whole."""
    tail = story[-TAIL:]
    return bool(SENTENCE_END.search(tail) or FINISHED.search(tail)) or not SENTENCE_MARK.search(story)


def repair(story: str) -> str:
    """Undo text that was decoded with the wrong encoding (mojibake), and nothing else."""
    if story.isascii():
        return story
    import ftfy

    return ftfy.fix_encoding(story)


@dataclass
class Cleaner:
    """Passes on the stories worth keeping, each once and none of `held_out`.

    `thorough` also repairs mojibake and drops truncated stories.
    It remembers 8 bytes of every story's SHA-256, about 130 MB for two million.
    """

    thorough: bool = True
    counts: Cleaning = field(default_factory=Cleaning)
    seen: set[int] = field(default_factory=set)
    held_out: set[int] = field(default_factory=set)

    def __call__(self, stories: Iterable[str]) -> Iterator[str]:
        """The clean stories, in order."""
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
            encoded = clean.encode()
            key = int.from_bytes(hashlib.sha256(encoded).digest()[:8], "big")
            if key in self.seen:
                counts.duplicates += 1
                continue
            self.seen.add(key)
            if key in self.held_out:
                counts.in_validation += 1
                continue
            counts.kept += 1
            counts.bytes_after += len(encoded)
            yield clean
