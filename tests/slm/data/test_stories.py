"""The split into stories does not depend on the pieces of the text, and no story is too long."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slm.data import stories as module
from slm.data.cleaning import Cleaning
from slm.data.stories import BLANK_LINE, LONGEST_WORD, MARKER, bound_words, normalise, split_stories
from slm.tokenizers.settings import END_OF_TEXT

FRAGMENTS = st.sampled_from(
    ["a", "Zoë. ", " ", "\n", "\n\n", "\n \t\n", "\t", "<", "<|", "endoftext", "|>", END_OF_TEXT, "。"]
)
TEXTS = st.lists(FRAGMENTS, max_size=40).map("".join)


def told_apart(pieces: list[str], separator: re.Pattern[str]) -> list[str]:
    stories = split_stories(pieces, separator, Cleaning())
    return [story.strip() for story in stories if story.strip()]


def cut_at(text: str, points: list[int]) -> list[str]:
    ends = sorted({min(point, len(text)) for point in points} | {0, len(text)})
    return [text[start:end] for start, end in pairwise(ends)]


@settings(max_examples=400, deadline=None)
@given(TEXTS, st.lists(st.integers(0, 200), max_size=20))
def test_a_text_in_any_pieces_holds_the_stories_between_its_markers(text: str, points: list[int]) -> None:
    expected = [story.strip() for story in text.split(END_OF_TEXT) if story.strip()]
    assert told_apart(cut_at(text, points), MARKER) == expected


@settings(max_examples=400, deadline=None)
@given(TEXTS, st.lists(st.integers(0, 200), max_size=20))
def test_a_text_in_any_pieces_holds_the_stories_between_its_blank_lines(text: str, points: list[int]) -> None:
    expected: list[list[str]] = [[]]
    for part in text.split(END_OF_TEXT):
        for line in part.split("\n"):
            if line.strip():
                expected[-1].append(line)
            else:
                expected.append([])
        expected.append([])
    assert told_apart(cut_at(text, points), BLANK_LINE) == ["\n".join(e).strip() for e in expected if e]


@settings(max_examples=400, deadline=None)
@given(TEXTS, st.lists(st.integers(0, 200), max_size=20), st.integers(2, 30))
def test_long_stories_are_cut_the_same_in_any_pieces_and_nothing_is_lost(
    text: str, points: list[int], longest: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "LONGEST_STORY", longest)
        whole, pieces = Cleaning(), Cleaning()
        parts = list(split_stories([text], MARKER, whole))
        assert list(split_stories(cut_at(text, points), MARKER, pieces)) == parts
    assert max(map(len, parts)) <= longest
    assert "".join(parts) == text.replace(END_OF_TEXT, "")
    assert whole.cut == pieces.cut == len(parts) - len(text.split(END_OF_TEXT))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ('He ran. "Stop!" she said to him', ['He ran. "Stop!" ', "she said to him"]),
        ("他们回家了。然后他们睡觉了。他们都很高兴很高兴", ["他们回家了。然后他们睡觉了。", "他们都很高兴很高兴"]),
        ("one two three four five six", ["one two three four ", "five six"]),
        ("a" * 45, ["a" * 20, "a" * 20, "a" * 5]),
        ("exactly twenty chars", ["exactly twenty chars"]),
    ],
)
def test_a_cut_falls_after_a_sentence_or_else_after_a_word(
    text: str, parts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LONGEST_STORY", 20)
    assert list(split_stories([text], MARKER, Cleaning())) == parts


def test_the_marker_ends_a_story_between_blank_lines_too() -> None:
    assert told_apart([f"one{END_OF_TEXT}two\n\nthree"], BLANK_LINE) == ["one", "two", "three"]


def test_a_text_of_a_table_has_the_line_ends_of_a_text_file() -> None:
    assert normalise("a\r\nb\rc\n\ud800d") == "a\nb\nc\n\ufffdd"


@pytest.mark.parametrize("letter", ["a", "é", "7", " ", "\n", "=", "字"])
def test_no_word_that_a_tokenizer_learns_from_is_absurdly_long(letter: str) -> None:
    story = f"He said {letter * (3 * LONGEST_WORD + 5)}! And so on."
    parts = list(bound_words(story))
    assert "".join(parts) == story
    assert len(parts) > 3
    words = [word for part in parts for word in re.findall(r"\w+|\s+|[^\w\s]+", part)]
    assert max(map(len, words)) <= LONGEST_WORD


@given(st.text(max_size=300))
def test_a_story_of_ordinary_words_is_learned_from_as_it_is(story: str) -> None:
    assert list(bound_words(story)) == [story]
    long_story = "once upon a time " * LONGEST_WORD
    assert list(bound_words(long_story)) == [long_story]
