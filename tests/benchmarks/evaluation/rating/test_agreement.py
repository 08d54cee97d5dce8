"""Both kappas against published examples, and at their ends."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.evaluation.rating.agreement import cohen, fleiss

ANSWERS = st.sampled_from("abs")


def test_cohen_on_a_table_of_fifty() -> None:
    """20 times both yes, 5 and 10 times one of them, 15 times both no: 0.7 agree, 0.5 by chance."""
    pairs = [("y", "y")] * 20 + [("y", "n")] * 5 + [("n", "y")] * 10 + [("n", "n")] * 15
    assert cohen([one for one, _ in pairs], [other for _, other in pairs]) == pytest.approx(0.4)


def test_fleiss_on_the_table_of_fourteen_raters() -> None:
    counts = [
        [0, 0, 0, 0, 14],
        [0, 2, 6, 4, 2],
        [0, 0, 3, 5, 6],
        [0, 3, 9, 2, 0],
        [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0],
        [3, 2, 6, 3, 0],
        [2, 5, 3, 2, 2],
        [6, 5, 2, 1, 0],
        [0, 2, 2, 3, 7],
    ]
    assert fleiss(counts) == pytest.approx(0.20993, abs=1e-5)


@given(st.lists(ANSWERS, min_size=2, max_size=30), st.integers(2, 6))
def test_those_who_always_agree_have_one_or_nothing_to_measure(answers: list[str], raters: int) -> None:
    counts = [[raters * (answer == each) for each in "abs"] for answer in answers]
    found = (cohen(answers, answers), fleiss(counts))
    if len(set(answers)) == 1:
        assert all(map(math.isnan, found))
    else:
        assert found == pytest.approx((1.0, 1.0))


@given(st.lists(st.tuples(ANSWERS, ANSWERS), min_size=1, max_size=30))
def test_cohen_does_not_depend_on_who_is_first(pairs: list[tuple[str, str]]) -> None:
    one, other = ([pair[side] for pair in pairs] for side in (0, 1))
    found, turned = cohen(one, other), cohen(other, one)
    assert found == pytest.approx(turned, nan_ok=True)
    assert math.isnan(found) or -1 - 1e-9 <= found <= 1 + 1e-9


def test_no_questions_have_no_agreement() -> None:
    assert math.isnan(cohen([], []))
    assert math.isnan(fleiss([]))
