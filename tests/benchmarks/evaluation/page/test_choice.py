"""The models that can be chosen: the frontier, the best within limits, and the speeds of a report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.evaluation.page.choice import (
    LOSS,
    MB,
    MEASURES,
    PAIRS,
    Measure,
    Point,
    best,
    by_size,
    by_speed,
    frontier,
    measures_of,
    points_of,
    speed_of,
)
from benchmarks.evaluation.page.html import limits_of, result_words
from tests.benchmarks.evaluation.samples import full_evaluation, loss
from tests.report_samples import MIB, report, result

POINTS = points_of(full_evaluation().results, None)
VALUES = st.integers(1, 6)
MODELS = st.builds(
    lambda size, speed, bits, right: Point(
        "a b", size * 10**5, 10.0 * speed, {"loss": bits / 10, "pairs": 10.0 * right}, {"loss": "", "pairs": ""}
    ),
    *[VALUES] * 4,
)
MANY = st.lists(MODELS, min_size=1, max_size=8)


def names(points: list[Point]) -> list[str]:
    return [point.name for point in points]


def test_the_models_have_their_sizes_and_figures() -> None:
    assert names(POINTS) == ["nano int8", "nano fp32", "nano q8", "nano int4"]
    assert (POINTS[0].size, POINTS[0].speed, POINTS[0].quality["loss"]) == (1_900_000, None, 0.7446)
    assert POINTS[0].quality["pairs"] == pytest.approx(89.6)
    assert measures_of(POINTS) == [LOSS, PAIRS]
    assert measures_of([*POINTS, Point("other fp32", 1, None, {"loss": 1.0}, {"loss": "1.0"})]) == [LOSS]


def test_the_frontier_of_known_models() -> None:
    assert names(frontier(POINTS, LOSS, by_size)) == ["nano int8", "nano fp32", "nano q8", "nano int4"]
    assert names(frontier(POINTS, PAIRS, by_size)) == ["nano int8", "nano q8", "nano int4"]
    speeds = dict(zip(names(POINTS), (4000.0, 2000.0, 4500.0, 4400.0), strict=True))
    fast = [replace(point, speed=speeds[point.name]) for point in POINTS]
    assert names(frontier(fast, LOSS, by_speed)) == ["nano fp32", "nano q8"]


@given(MANY, st.sampled_from(MEASURES), st.sampled_from((by_size, by_speed)))
def test_each_model_is_on_the_frontier_or_another_one_is_better(
    points: list[Point], measure: Measure, cost: Callable[[Point], float]
) -> None:
    def place(point: Point) -> tuple[float, float]:
        return (1 if measure.is_less else -1) * point.quality[measure.key], cost(point)

    edge = [place(point) for point in frontier(points, measure, cost)]
    for point in points:
        own = place(point)
        beaten = [one for one in edge if one != own and one[0] <= own[0] and one[1] <= own[1]]
        assert bool(beaten) != (own in edge)


@given(MANY, st.sampled_from(MEASURES), st.floats(0, 7e5), st.floats(0, 70))
def test_the_best_qualifies_and_none_that_qualifies_is_better(
    points: list[Point], measure: Measure, size: float, speed: float
) -> None:
    first = best(points, measure, size, speed)
    fit = [point for point in points if point.size <= size and (point.speed or 0) >= speed]
    if not fit:
        assert first is None
        return
    assert first in fit
    sign = 1 if measure.is_less else -1
    assert all(sign * first.quality[measure.key] <= sign * point.quality[measure.key] for point in fit)


def test_limits_are_told_in_words() -> None:
    assert result_words(POINTS, LOSS) == (
        "4 of 4 models qualify. The best figure is that of nano fp32: 0.7440 ± 0.0120 bits per byte, 7.40 MB."
    )
    assert result_words(POINTS, LOSS, 1.95e6) == (
        "2 of 4 models qualify. The best figure is that of nano int8: 0.7446 ± 0.0120 bits per byte, 1.90 MB."
    )
    assert "nano q8: 89.8 ± 1.4 % of the pairs" in result_words(POINTS, PAIRS)
    assert result_words(POINTS, LOSS, 1e6) == "0 of 4 models qualify."
    assert result_words(POINTS, LOSS, least_speed=1) == "0 of 4 models qualify."


@given(MANY)
def test_at_first_every_model_qualifies_and_the_fields_can_leave_each_out(points: list[Point]) -> None:
    size, speed = limits_of(points)
    assert best(points, LOSS, size.value * MB, speed.value) == best(points, LOSS, float("inf"), 0)
    assert max(point.size for point in points) <= size.value * MB
    assert size.low * MB <= min(point.size for point in points)
    assert speed.high >= max(point.speed or 0 for point in points)
    assert (size.value, speed.value) == (size.high, speed.low)


def test_without_speeds_only_the_size_is_limited() -> None:
    assert [limit.key for limit in limits_of(POINTS)] == ["size"]
    assert limits_of([]) == []


def test_a_speed_is_that_of_the_same_variant_and_size() -> None:
    bench = report([result("int8", speed=5000), result("int8", threads=2, speed=6000), result("fp32", speed=4000)])
    assert speed_of("my model int8", 2 * MIB + 1000, bench) == pytest.approx(6000)
    assert speed_of("nano fp32", int(7.4 * MIB), bench) == pytest.approx(4000)
    assert speed_of("nano int8", 3 * MIB, bench) is None
    assert speed_of("nano q8", 2 * MIB, bench) is None
    assert speed_of("nano int8", 2 * MIB, None) is None
    eager = report([result("torch eager", speed=400)])
    assert speed_of("best pytorch", int(7.4 * MIB), eager) == pytest.approx(400)


def test_what_has_no_size_or_no_quality_is_no_choice() -> None:
    results = {"nano int8": {"bytes": 5}, "nano fp32": {"loss": loss(0.7)}, "true stories": {"stories": {}}}
    assert points_of(results, None) == []
