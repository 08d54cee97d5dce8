"""Lines break between words; nothing but blanks and line breaks changes."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm.console.word_wrap import WordWrap, columns_of, folded

TEXTS = st.text(st.sampled_from("abcé世\u0301 \t\n.,"), max_size=200)


def wrapped(text: str, width: int, cuts: list[int] | None = None) -> str:
    wrap = WordWrap()
    places = [0, *sorted(cuts or []), len(text)]
    pieces = [text[start:end] for start, end in pairwise(places)]
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("COLUMNS", str(width))
        return "".join(map(wrap.add, pieces)) + wrap.flush()


def test_a_word_that_does_not_fit_begins_the_next_line() -> None:
    assert wrapped("once there was a big cat who sat", 20) == "once there was a big\ncat who sat"
    assert wrapped("a 世界 b", 5) == "a\n世界\nb", "wide characters take two columns"


def test_a_word_that_no_line_holds_is_left_to_the_terminal() -> None:
    assert wrapped("ab " + "x" * 25 + " cd", 10) == "ab\n" + "x" * 25 + " cd"


def test_after_the_line_of_another_text_the_columns_begin_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "10")
    wrap = WordWrap()
    assert wrap.add("one two ") + wrap.end_line() == "one two"
    assert wrap.add("three four") + wrap.flush() == "three four"


def test_style_takes_no_columns_and_joins_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "8")
    wrap = WordWrap()
    out = wrap.add("one pla", lambda part: f"<{part}>") + wrap.add("ying") + wrap.flush()
    assert out == "<one>\n<pla>ying"


@given(TEXTS, st.integers(2, 30), st.lists(st.integers(0, 200), max_size=8))
def test_only_blanks_change_and_no_line_is_too_long(text: str, width: int, cuts: list[int]) -> None:
    out = wrapped(text, width, [min(cut, len(text)) for cut in cuts])
    assert out == wrapped(text, width), "the pieces do not matter"
    assert out.split() == text.split()
    longest = max(map(columns_of, text.split()), default=0)
    for line in out.split("\n"):
        assert columns_of(line.rstrip()) <= max(width, longest + width)
        if columns_of(line.rstrip()) > width:
            assert any(columns_of(word) > width for word in line.split())


@given(TEXTS)
def test_what_fits_is_as_it_was(text: str) -> None:
    assert wrapped(text, 10_000).rstrip() == text.rstrip()


def test_a_line_is_broken_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    line = "problem      " + "word " * 30 + "x" * 90
    assert folded(line, 13) == line
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    first, *rest = folded(line, 13).splitlines()
    assert len(first) <= 80
    assert all(part.startswith(" " * 13) and (len(part) <= 80 or part.split() == ["x" * 90]) for part in rest)
    assert " ".join(folded(line, 13).split()) == " ".join(line.split())
    monkeypatch.setenv("COLUMNS", "1")
    assert " ".join(folded(line, 13).split()) == " ".join(line.split())
