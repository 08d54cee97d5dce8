"""What a word is, when two spellings are the same word, and which words can be banned."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runtimes.types import LogitsRules
from runtimes.words import MAX_WORD_LENGTH, MAX_WORDS, WORD, fold, kinds, visible
from slm.console.errors import UsageError


def words(text: str) -> list[str]:
    shown = visible(text)
    return [shown[slice(*match.span())] for match in WORD.finditer(kinds(shown))]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The cat, the dog!", ["The", "cat", "the", "dog"]),
        ("well-known _cat_ a/b", ["well", "known", "cat", "a", "b"]),
        ("didn't didn’t rock'n'roll", ["didn't", "didn’t", "rock'n'roll"]),
        ("'cat' the dogs' a''b '", ["cat", "the", "dogs", "a", "b"]),
        ("cat2 1st 42", ["cat2", "1st", "42"]),
        ("café Été кошка", ["café", "Été", "кошка"]),
        ("cafe\u0301 \u0301cat", ["cafe\u0301", "cat"]),
        ("ca\u00adt \u200bcat ca\ufe0ft", ["cat", "cat", "cat"]),
        ("❤\ufe0fcat \ufffdcat\ufffd", ["cat", "cat"]),
        ("", []),
    ],
)
def test_a_word_is_what_a_reader_sees_as_one(text: str, found: list[str]) -> None:
    assert words(text) == found


@pytest.mark.parametrize(
    "spellings",
    [
        ("cat", "Cat", "CAT", "ｃａｔ"),
        ("café", "cafe\u0301", "CAFÉ", "CAFE\u0301"),
        ("don't", "don’t", "DONʼT"),
        ("straße", "STRASSE", "STRAẞE"),
        ("Кошка", "кошка", "КОШКА"),
        ("Σίσυφος", "ΣΊΣΥΦΟΣ"),
        ("a\u0323\u0301", "a\u0301\u0323", "ạ\u0301", "á\u0323"),
    ],
)
def test_spellings_of_one_word_have_one_form(spellings: tuple[str, ...]) -> None:
    assert len(set(map(fold, spellings))) == 1


def test_other_letters_are_another_word() -> None:
    assert len(set(map(fold, ("cat", "cats", "çat", "cat's", "café", "cafe", "сat")))) == 7


@settings(max_examples=300, deadline=None)
@given(one=st.text(max_size=6), other=st.text(max_size=6))
@example(one="a\u0301", other="\u0323")
@example(one="α\u0345", other="\u0301")
@example(one="𝐀ﬁ½", other="İŉ")
def test_a_form_can_be_made_part_by_part(one: str, other: str) -> None:
    form = fold(one + other)
    assert fold(fold(one) + other) == fold(one + fold(other)) == form
    assert len(fold(one)) <= len(form)


ONE_WORD = "a banned word holds only letters, digits and inner apostrophes, not"


@pytest.mark.parametrize(
    ("banned", "said"),
    [
        ("", "a banned word must not be empty"),
        ("big cat", f"{ONE_WORD} 'big cat'; ban each word by itself"),
        (" cat", f"{ONE_WORD} ' cat'; ban each word by itself"),
        ("x-ray", f"{ONE_WORD} 'x-ray'; ban each word by itself"),
        ("dogs'", f'{ONE_WORD} "dogs\'"; ban each word by itself'),
        ("cat\n", f"{ONE_WORD} 'cat\\n'; ban each word by itself"),
        ("\u00ad", f"{ONE_WORD} '\\xad'; ban each word by itself"),
        ("caf\udce9", f"{ONE_WORD} 'caf\\udce9'; ban each word by itself"),
        ("½a", f"{ONE_WORD} '½a'; ban each word by itself"),
        ("42", "a banned word must have a letter, not '42'"),
        ("a" * (MAX_WORD_LENGTH + 1), "a banned word has at most 100 characters, not 101"),
        (["cat"] * (MAX_WORDS + 1), "at most 1,000 words can be banned, not 1,001"),
        (["cat", ""], "a banned word must not be empty"),
    ],
)
def test_what_is_no_word_is_refused(banned: str | list[str], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        LogitsRules(ban_words=banned)
    assert str(caught.value) == said


@pytest.mark.parametrize(
    "word", ["cat", "Été", "don’t", "B2B", "ca\u00adt", "cafe\u0301", "кошка", "a" * MAX_WORD_LENGTH]
)
def test_every_word_with_a_letter_can_be_banned(word: str) -> None:
    rules = LogitsRules(ban_words=[word] * MAX_WORDS)
    assert rules.active
    assert rules.ban_words == (word,) * MAX_WORDS
