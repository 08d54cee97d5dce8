"""Copies are found where they are, and a model that copies shows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.evaluation import novelty
from benchmarks.evaluation.novelty import LONGEST, TrainingText, measure_novelty, tokens_of
from slm.console.errors import SlmxError

SENTENCE = st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=25).map(" ".join)


def longest(words: list[str], training: list[list[str]]) -> list[int]:
    """The longest copies, found by trying every place."""

    def common(one: list[str], other: list[str]) -> int:
        pairs = zip(one, other, strict=False)
        return next((count for count, (here, there) in enumerate(pairs) if here != there), min(len(one), len(other)))

    return [
        max((common(words[start:], story[place:]) for story in training for place in range(len(story))), default=0)
        for start in range(len(words))
    ]


@given(st.lists(SENTENCE, max_size=4), SENTENCE)
def test_copies_are_those_that_trying_every_place_finds(training: list[str], text: str) -> None:
    found = TrainingText(training).longest_copies(text)
    assert found.tolist() == longest(text.split(), [story.split() for story in training])


def test_words_and_marks_count_without_case() -> None:
    assert tokens_of('"Don\u2019t!" said Tom.') == ['"', "don't", "!", '"', "said", "tom", "."]


def test_a_copy_does_not_go_on_in_the_next_story() -> None:
    training = TrainingText(["the cat sat", "on the mat"])
    assert training.longest_copies("the cat sat on the mat").tolist() == [3, 2, 1, 3, 2, 1]
    assert training.words == 6


def test_a_model_that_copies_has_nothing_new(stories: list[str]) -> None:
    training = TrainingText(stories[:200])
    copier = measure_novelty(stories[:20], training)
    assert copier["new n-grams"]["16"]["value"] == 0
    assert copier["longest copy"]["words"] == max(len(tokens_of(story)) for story in stories[:20])
    other = measure_novelty(["Purple elephants never yodel quietly."], training)
    assert other["new n-grams"]["2"]["value"] > 0.5
    assert other["new n-grams"]["16"]["value"] is None
    assert other["mean longest copy"] < 4


def test_the_longest_copy_is_shown_with_its_words() -> None:
    found = measure_novelty(
        ["One red bird sat.", "We saw the big dog run home!"], TrainingText(["Then the big dog ran."])
    )
    assert found["longest copy"] == {"words": 3, "text": "the big dog"}


def test_longer_copies_count_as_the_longest() -> None:
    story = " ".join(f"w{number}" for number in range(LONGEST + 50))
    assert TrainingText([story]).longest_copies(story).max() == LONGEST


def test_a_text_that_is_too_long_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(novelty, "MOST_WORDS", 5)
    with pytest.raises(SlmxError, match="has more than 5 words; give a part of it"):
        TrainingText(["one two three", "four five six"])
