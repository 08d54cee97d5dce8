"""The text that models are evaluated on: stories, their ids, and the story of each id."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from slm.console.errors import SlmxError, UsageError
from slm.data.corpus import TokenStream, encode_stories
from slm.data.dataset import Dataset, is_dataset
from slm.data.sources import Source, find_sources, read_stories
from slm.storage.hashing import sha256_of_bytes
from slm.tokenizers.tokenizer import Tokenizer

IdArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class StoryText:
    """Stories to evaluate on.

    Attributes:
        name: Where they are from.
        stories: The stories.
    """

    name: str
    stories: tuple[str, ...]

    @classmethod
    def read(cls, sources: Sequence[str], option: str = "--text") -> StoryText:
        """Reads the stories of files or folders.

        Args:
            sources: Texts or tables, or one prepared data set.
            option: The option that named them. Of a data set, `--training` reads the training split, and any other
                the validation split.

        Raises:
            SlmxError: A source cannot be read, or there are no stories.
        """
        if len(sources) == 1 and is_dataset(sources[0]):
            stories = tuple(_stories_of(Path(sources[0]), "train" if option == "--training" else "valid"))
        else:
            stories = tuple(read_stories(_each_once(sources)))
        name = ", ".join(Path(source).name for source in sources)
        if not stories:
            raise SlmxError(f"{name}: no stories in it; give {option} a file of stories")
        return cls(name, stories)

    def without(self, other: StoryText, sources: Sequence[str]) -> StoryText:
        """Returns the stories that another text does not have.

        Args:
            other: The other text.
            sources: What `--training` named, for the error.

        Raises:
            SlmxError: No story is left.
        """
        there = set(other.stories)
        kept = tuple(story for story in self.stories if story not in there)
        if not kept:
            raise SlmxError(f"{', '.join(sources)}: --training has no other story than --text; name other texts")
        return StoryText(self.name, kept)

    @cached_property
    def sha256(self) -> str:
        """A hash of the stories."""
        return sha256_of_bytes("\0".join(self.stories).encode())

    @cached_property
    def bytes_of(self) -> npt.NDArray[np.float64]:
        """UTF-8 bytes of each story, float64 [stories]."""
        return np.array([len(story.encode()) for story in self.stories], np.float64)


@dataclass(frozen=True)
class EncodedText:
    """The ids of a text in one stream, as in training.

    Attributes:
        text: The text.
        stream: The ids of all stories.
        owners: The story to which each predicted id belongs, int64 [n - 1]. What begins a story ends the one before it.
    """

    text: StoryText
    stream: TokenStream
    owners: IdArray

    @classmethod
    def encode(cls, text: StoryText, tokenizer: Tokenizer) -> EncodedText:
        """Encodes the stories of a text."""
        stream = encode_stories(text.stories, tokenizer)
        ids = np.asarray(stream.ids[:]).astype(np.int64)
        starts = ids == tokenizer.begin
        owners = np.cumsum(starts) - 1
        owners[1:][starts[1:]] -= 1
        return cls(text, stream, owners[1:])

    @cached_property
    def ids(self) -> IdArray:
        """The ids, int64 [n]."""
        return np.asarray(self.stream.ids[:]).astype(np.int64)

    def by_story(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Adds up values of the first predicted ids by story: float64 [m] to float64 [stories], for m up to n - 1."""
        totals = np.bincount(self.owners[: len(values)], values, len(self.text.stories))
        return totals.astype(np.float64)

    def sizes(self, count: int) -> npt.NDArray[np.float64]:
        """Returns how many of the first `count` predicted ids belong to each story, float64 [stories]."""
        return self.by_story(np.ones(count))


def _each_once(names: Sequence[str]) -> list[Source]:
    """Finds the sources that names stand for.

    Raises:
        UsageError: Two of them are one file, by links or because a folder holds it.
    """
    found, seen = find_sources(names), dict[tuple[int, int], str]()
    for source in found:
        if source.path is None or source.copy is not None:
            continue
        state = source.path.stat()
        file = (state.st_dev, state.st_ino)
        if file in seen:
            raise UsageError(
                f"{source.name} is the file {seen[file]} again; copies would count as more stories: drop one"
            )
        seen[file] = source.name
    return found


def _stories_of(folder: Path, split: str) -> Iterator[str]:
    """Yields the stories of a split of a data set: "train" or "valid"."""
    dataset = Dataset.open(folder)
    ids = np.asarray((dataset.train if split == "train" else dataset.valid).ids[:])
    tokenizer = dataset.tokenizer
    for part in np.split(ids, np.flatnonzero(ids == tokenizer.begin)):
        kept = part[part < tokenizer.end_of_text]
        if len(kept):
            yield tokenizer.decode(kept.tolist())
