"""The sentence of an evaluation: it says what was measured, and how sure that is."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.evaluation.page.choice import points_of
from benchmarks.evaluation.page.headline import NOTHING, headline
from benchmarks.evaluation.run import TRUE
from tests.benchmarks.evaluation.samples import (
    difference,
    estimate,
    evaluation,
    full_evaluation,
    loss,
    novelty,
    pairs,
    stories,
)

LOSS = {"nano int8": {"bytes": 1, "loss": loss(0.7446)}}
PAIR = "nano int8 against nano fp32"
BITS = "nano int8 predicts the text with 0.745 ± 0.012 bits per byte"


def sentence(results: dict[str, Any], differences: dict[str, Any] | None = None) -> str:
    return headline(evaluation(results, differences)).text


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (None, "."),
        (
            difference(0.0008, 0.0002),
            ", 0.08 % more than nano fp32 (the difference is real: its 95 % interval is +0.06 % to +0.10 %).",
        ),
        (
            difference(-0.02, 0.01),
            ", 2.00 % less than nano fp32 (the difference is real: its 95 % interval is -3.00 % to -1.00 %).",
        ),
        (
            difference(0.0008, 0.002),
            ", 0.08 % more than nano fp32 (the difference cannot be told from 0; one of 0.00200 bits per byte would "
            "have been found with a chance of 80 %).",
        ),
        (
            difference(-8.6e-9, 6.2e-9),
            ", 9e-07 % less than nano fp32 (the difference is real: its 95 % interval is -1e-06 % to -2e-07 %).",
        ),
        (difference(0.0, 0.0), ", exactly as many as nano fp32."),
        (
            difference(0.01, None),
            ", 1.00 % more than nano fp32 (one story has no interval, so nobody can say whether the difference is "
            "real).",
        ),
    ],
)
def test_a_difference_is_told_with_what_is_known_of_it(found: dict[str, Any] | None, told: str) -> None:
    assert sentence(LOSS, None if found is None else {PAIR: found}) == BITS + told


def test_a_model_that_rounds_by_run_is_told_as_it_writes_and_in_windows() -> None:
    found = loss(0.7446)
    results = {"nano int8": {"loss": found | {"token by token": loss(0.7441)["windows"] | {"tokens": 3}}}}
    ways = difference(0.005, 0.001) | {"token by token": difference(0.0007, 0.0009)["windows"]}
    assert sentence(results, {PAIR: ways}) == (
        "nano int8 predicts the text with 0.744 ± 0.012 bits per byte, read token by token as it writes stories, "
        "0.07 % more than nano fp32 (the difference cannot be told from 0; one of 0.00090 bits per byte would have "
        "been found with a chance of 80 %); it needs 0.50 % more than nano fp32 (the difference is real: its 95 % "
        "interval is +0.40 % to +0.60 %) if it reads whole windows."
    )
    (point,) = points_of({"nano int8": {"bytes": 5, **results["nano int8"]}}, None)
    assert point.quality["loss"] == 0.7441


def test_the_model_that_is_compared_with_another_one_comes_first() -> None:
    results = {"nano fp32": LOSS["nano int8"], **LOSS}
    same = difference(0.0, 0.0)
    differences = {"nano fp32 against nano fp32": same, PAIR: difference(0.0008, 0.0002)}
    assert sentence(results, differences).startswith("nano int8 predicts")
    assert sentence(results, {"nano fp32 against nano fp32": same}).startswith("nano fp32 predicts")
    assert "exactly" not in sentence(results, {"nano fp32 against nano fp32": same})


def test_pairs_alone() -> None:
    told = sentence({"nano int8": {"pairs": pairs(0.9)}})
    assert told == "nano int8 gets 90.0 % (88.6 to 91.4) of the pairs of sentences right."


def test_every_suite() -> None:
    text = headline(full_evaluation()).text
    assert text.startswith(BITS)
    assert "; it gets 89.6 % (88.2 to 91.0) of the pairs of sentences right" in text
    assert (
        "; of its endings 90.0 % (89.0 to 91.0) end properly (true stories: 90.0 %), and 2.0 % (1.0 to 3.0) of their"
        in text
    )
    assert text.endswith("; its longest copy is 15 words of the training text (true stories: 13 words).")


def test_endings_alone() -> None:
    results = {name: {"stories": stories(0.5, None), "novelty": novelty(9)} for name in ("nano int8", TRUE)}
    start, rest = sentence(results).split("; ")
    assert start == "nano int8: of its endings 50.0 % (49.0 to 51.0) end properly (true stories: 50.0 %)"
    assert rest == "its longest copy is 9 words of the training text (true stories: 9 words)."


def test_a_figure_that_is_blind_to_its_control_is_not_told() -> None:
    results = {name: {"stories": stories(0.5, share)} for name, share in (("nano int8", 0.2), (TRUE, 0.1))}
    assert "repetitions" in sentence({**results, "repeater": {"stories": stories(0.5, 0.8)}})
    assert "repetitions" not in sentence({**results, "repeater": {"stories": stories(0.5, 0.15)}})


def test_nothing_measured() -> None:
    assert sentence({}) == sentence({"nano int8": {"bytes": 3}}) == NOTHING
    assert sentence({"nano int8": {"stories": {"ends properly": estimate(None)}}, TRUE: {"stories": {}}}) == NOTHING
