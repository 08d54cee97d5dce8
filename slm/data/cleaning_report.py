"""What `slmx prepare` tells about the stories that it read, dropped and cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from slm.console.counted import count_stories
from slm.console.errors import SlmxError
from slm.data.cleaning import Cleaning
from slm.data.sources import Source
from slm.data.stories import LONGEST_STORY
from slm.tokenizers.settings import END_OF_TEXT

SHOWN = {"endoftext": END_OF_TEXT, "blank": "blank lines"}  # what separates stories, for people
ANY_SEPARATOR = f"a blank line or {END_OF_TEXT}"
# Why stories are dropped, by their counts in `Cleaning`, for people.
CAUSES = {
    "empty": "without a letter or digit",
    "truncated": "that end in the middle of a sentence",
    "duplicates": "repeated",
    "in_validation": "that are in the validation data",
}
ENOUGH = 100  # different stories: one of them at least is held out, except for one text in 170
LARGE_SHARE = 0.2  # of the training stories: if more are dropped as truncated, the text is perhaps of another kind


def cleaning_line(split: str, cleaning: Cleaning, sources: Sequence[Source]) -> str:
    """Returns the line about the sources of a split: the stories, how many are kept, and what happened to the others.

    Args:
        split: "train" or "valid".
        cleaning: The counts.
        sources: The sources of the split.
    """
    separators = sorted({SHOWN[source.separator] for source in sources if source.separator})
    between = f" between {' and '.join(separators)}" if separators and cleaning.stories > 1 else ""
    kept = "parts kept" if cleaning.cut else "kept"
    told = [f"{split} sources: {count_stories(cleaning.stories)}{between}, {cleaning.kept:,} {kept}"]
    if cleaning.cut:
        told.append(f"cut where they are longer than {LONGEST_STORY:,} characters: {cleaning.cut:,} times")
    if causes := _causes(cleaning):
        told.append(f"dropped: {causes}")
    if cleaning.repaired:
        told.append(f"wrongly encoded characters repaired in {cleaning.repaired:,}")
    if cleaning.stories == 1 and separators:
        told.append(f"nothing separates stories there: put {ANY_SEPARATOR} between them if it holds more than one")
    return "; ".join(told)


def truncated_line(cleaning: Cleaning) -> str:
    """Returns a line about truncated stories if they are more than `LARGE_SHARE` of the stories, else an empty text."""
    if cleaning.truncated <= LARGE_SHARE * cleaning.read:
        return ""
    return (
        f"cleaning dropped {cleaning.truncated:,} of {count_stories(cleaning.read)} "
        f"({cleaning.truncated / cleaning.read:.0%}), which do not end where a sentence ends; "
        "slmx prepare --no-clean keeps them"
    )


def too_few(cleaning: Cleaning, sources: Sequence[Source], separator: str, has_valid: bool, share: int) -> SlmxError:
    """Returns the error about training sources of which too few stories are left.

    Args:
        cleaning: The counts.
        sources: The training sources.
        separator: The setting of the separator: "auto", "endoftext" or "blank".
        has_valid: Whether the validation split has sources of its own.
        share: One story in so many is held out for validation if it has none.
    """
    stories = cleaning.stories
    if stories > 1 and (dropped := truncated_line(cleaning)):
        return SlmxError(f"too few stories are left to train on: {dropped}")
    if stories > 1 and (causes := _causes(cleaning)):
        return SlmxError(f"too few stories are left to train on: of {stories:,}, these were dropped: {causes}")
    problem = f"{count_stories(stories)} {'is' if stories == 1 else 'are'} too few to train on"
    advice = "give more rows"
    if stories > 1:
        advice = f"give more stories ({ENOUGH} are enough)"
    elif any(source.separator for source in sources):
        advice = f"put {SHOWN.get(separator, ANY_SEPARATOR)} between stories"
    if has_valid:
        return SlmxError(f"{problem}; {advice}")
    return SlmxError(f"{problem} and to hold one in {share} out for validation; {advice}, or give some with --valid")


def _causes(cleaning: Cleaning) -> str:
    counts = asdict(cleaning)
    return ", ".join(f"{counts[cause]:,} {words}" for cause, words in CAUSES.items() if counts[cause])
