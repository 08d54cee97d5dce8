"""Whom people compare a model with, and the suites that its readers need."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.evaluation.outside import opponents, with_endings
from benchmarks.evaluation.run import Evaluation


@pytest.mark.parametrize(
    ("names", "opponent", "expected"),
    [
        (["a int8"], None, [("a int8", "true stories")]),
        (["a fp32", "a int8"], None, [("a fp32", "true stories"), ("a int8", "true stories")]),
        (["a int8", "b int8"], "b int8", [("a int8", "b int8")]),
        (["a fp32", "a int8"], "a fp32", [("a int8", "a fp32")]),  # the opponent is one of the variants
        (["a int8"], "a int8", []),
    ],
)
def test_each_model_meets_the_one_of_against(names: list[str], opponent: str | None, expected: list[object]) -> None:
    assert opponents(Evaluation({"hashes": dict.fromkeys(names, "0"), "opponent": opponent})) == expected


@pytest.mark.parametrize(
    ("suites", "sheet", "scorer", "expected"),
    [
        ((), False, False, ()),
        (("loss",), False, False, ("loss",)),
        ((), True, False, ("stories",)),
        (("judge",), True, False, ("judge",)),
        (("judge",), True, True, ("judge", "stories")),
        (("stories", "loss"), True, True, ("stories", "loss")),
    ],
)
def test_a_scorer_brings_the_variety_and_a_page_the_endings(
    suites: tuple[str, ...], sheet: bool, scorer: bool, expected: tuple[str, ...]
) -> None:
    file = Path("x")
    assert with_endings(suites, file if sheet else None, file if scorer else None) == expected
