"""The stories side by side: what differs is marked, nothing is lost, and a page stays small."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.evaluation.page.stories import MOST_BYTES, Part, compared, rows_of
from benchmarks.evaluation.run import TRUE
from tests.benchmarks.evaluation.samples import TEXTS, endings

WORDS = st.lists(st.sampled_from(["a", "dog", "ran", "home.", "\n", "  ", "\u00a0x"]), max_size=30).map(" ".join)


@given(st.text() | WORDS, st.text() | WORDS)
def test_the_parts_are_the_text_and_alternate(base: str, text: str) -> None:
    parts = compared(base, text)
    assert "".join(part.text for part in parts) == text
    assert all(one.differs != other.differs for one, other in itertools.pairwise(parts))


@given(WORDS, WORDS, WORDS)
def test_what_both_texts_begin_with_is_not_marked(start: str, rest: str, other: str) -> None:
    shared = f"{start} b"
    first, *_ = compared(f"{shared} {rest}", f"{shared} {other}")
    assert not first.differs
    assert first.text.split()[: len(shared.split())] == shared.split()


def test_a_word_that_was_replaced_is_marked_and_a_chance_word_after_it_too() -> None:
    base = "It saw a cat and they played all day in the park."
    assert compared(base, "It saw a bird and they played all day in the park.") == (
        Part("It saw a ", False),
        Part("bird ", True),
        Part("and they played all day in the park.", False),
    )
    assert compared(base, "It saw no cat and nobody played.") == (
        Part("It saw ", False),
        Part("no cat and nobody played.", True),
    )


def test_variants_are_compared_with_fp32_which_is_first() -> None:
    order = {name: [TEXTS[name], TEXTS[TRUE]] for name in (TRUE, "nano int8", "nano fp32")}
    written = endings({**order, "micro int8": [" Hello."] * 2, "repeater": [" No."] * 2})
    one, two = rows_of(written)
    assert [column.name for column in one.columns] == [TRUE, "nano fp32", "nano int8", "micro int8"]
    assert [column.note for column in one.columns] == ["", "", "differs from nano fp32 after 3 words", ""]
    assert [part.text for part in one.columns[2].parts if part.differs] == ["bird. ", "They were happy."]
    assert (two.columns[2].parts, two.columns[2].note) == ((), "the same words as nano fp32")


def test_the_first_three_are_open_and_without_models_there_are_none() -> None:
    assert [row.is_open for row in rows_of(endings({"nano int8": [" a"] * 5}))] == [True, True, True, False, False]
    assert rows_of(endings({TRUE: [" a"]})) == rows_of({}) == []


def test_a_page_has_room_for_a_part_of_very_many_stories_and_always_for_one() -> None:
    long = "word " * (MOST_BYTES // 20)
    assert 2 <= len(rows_of(endings({"nano int8": [long] * 9}))) < 9
    assert len(rows_of(endings({"nano int8": [long * 9] * 2}))) == 1
    assert len(rows_of(endings({"nano int8": ["\u4e16" * (MOST_BYTES // 6)] * 9}))) < 3
