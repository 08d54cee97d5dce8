"""The figures of a continuation count what they say."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.evaluation.continuations import (
    COMMON_WORDS,
    Vocabulary,
    choose_excerpts,
    cut,
    describe,
    distinct,
    divide,
    names_kept,
    words_of,
)
from slm.console.errors import SlmxError

WORDS = st.lists(st.sampled_from(["a", "dog", "Lily", "don't", "ran"]), min_size=1, max_size=30)
STORY = 'Lily had a cat. "Hi," said Tom. They ran home. The cat ate the big red cake.'


def everything_known(text: str) -> Vocabulary:
    return Vocabulary(frozenset(words_of(text)), frozenset())


@given(WORDS, st.integers(1, 30))
def test_a_text_is_cut_to_whole_words_or_not_at_all(words: list[str], count: int) -> None:
    text = ", ".join(words) + "!"
    found = cut(text, count)
    assert (found is None) == (count > len(words))
    if found is not None:
        assert text.startswith(found)
        assert words_of(found) == [word.lower() for word in words[:count]]


@given(WORDS)
def test_sequences_are_all_different_only_without_a_repetition(words: list[str]) -> None:
    assert distinct(["one", "two", "three"], 2) == 1
    assert distinct([*words, *words, *words], 2) < 1
    assert math.isnan(distinct(words, len(words) + 1))


def test_a_story_is_divided_after_a_sentence_and_loses_no_character() -> None:
    found = divide(STORY)
    assert found is not None
    assert found.opening == 'Lily had a cat. "Hi," said Tom.'
    assert found.opening + found.ending == STORY
    assert divide("One sentence and nothing else.") is None


def test_excerpts_are_long_enough_end_properly_and_fit() -> None:
    stories = [STORY, STORY[:-1], "Short. Very short. So.", STORY + " Again.", STORY]
    found = choose_excerpts(stories, count=2, words=8, fits=lambda story: "Again" not in story)
    assert [one.opening + one.ending for one in found] == [STORY, STORY]
    with pytest.raises(SlmxError, match=r"no story .* has 80 words .* --words"):
        choose_excerpts(stories, count=2, words=80, fits=lambda story: True)


def test_names_of_the_opening_are_kept_and_new_ones_are_not() -> None:
    opening = "There was a girl named Lily."
    assert names_kept(opening, " Lily met a boy, Tom. The boy ran. Lily ran.") == pytest.approx(2 / 3)
    assert names_kept(opening, ' She met nobody. "Where is it?" she said.') != names_kept(opening, " Lily ran.")
    assert math.isnan(names_kept(opening, " She met nobody."))


def test_repetition_and_variety_are_counted_in_words() -> None:
    again = describe("Go.", " the cat ran home the cat ran home", everything_known("the cat ran home"))
    assert again["repeated 4-grams"] == pytest.approx(1 / 5)
    assert again["distinct-2"] == pytest.approx(4 / 7)
    assert again["distinct-3"] == pytest.approx(4 / 6)
    fresh = describe("Go.", " the cat ran home and then it slept", everything_known("the cat ran home"))
    assert fresh["repeated 4-grams"] == 0
    assert fresh["compressed"] > again["compressed"]


def test_a_word_is_unknown_unless_the_vocabulary_or_the_opening_has_it() -> None:
    found = describe("Zorp sat.", " Zorp saw a ctaa", Vocabulary.of(["A dog saw."]))
    assert found["unknown words"] == pytest.approx(1 / 4)


def test_the_most_frequent_words_are_common(stories: list[str]) -> None:
    vocabulary = Vocabulary.of(stories)
    assert len(vocabulary.common) == min(COMMON_WORDS, len(vocabulary.known))
    letters = "abcdefghijklmnopqr"
    many = Vocabulary.of([" ".join(one + other for one in letters for other in letters), "rr"])
    assert len(many.common) == COMMON_WORDS < len(many.known)
    assert "rr" in many.common


def test_words_that_are_not_common_tell_whether_the_story_stays_with_its_opening() -> None:
    vocabulary = Vocabulary(frozenset(), frozenset(["the", "a", "ran"]))
    found = describe("The kite flew.", " the kite ran a ball the ball ran a drum", vocabulary)
    assert found["words kept"] == pytest.approx(1 / 4)  # kite, of kite, ball, ball, drum
    assert found["new words"] == pytest.approx(1 / 2)  # drum, of ball, drum
    nothing = describe("The kite flew.", " the a ran the a ran", vocabulary)
    assert math.isnan(nothing["words kept"])
    assert math.isnan(nothing["new words"])
