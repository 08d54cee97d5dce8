"""The distance to the true figures, and how sure it is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.studies.distance import distances

SPREAD = np.array([1.0, 2.0])


@given(st.floats(-5, 5), st.floats(-5, 5))
def test_a_constant_difference_is_counted_in_spreads_and_is_certain(first: float, second: float) -> None:
    true = np.random.default_rng(1).normal(size=(20, 2))
    (found,) = distances({"moved": true + np.array([first, second])}, true, SPREAD).values()
    assert found.value == pytest.approx((abs(first) + abs(second) / 2) / 2, abs=1e-9)
    assert found.error == pytest.approx(0, abs=1e-9)
    assert (found.excess, found.excess_error) == (0, 0)
    assert found.chance == pytest.approx(0, abs=1e-9)


def test_the_nearest_is_first_and_more_stories_are_more_certain() -> None:
    random = np.random.default_rng(0)

    def measured(stories: int) -> dict[str, float]:
        true = random.normal(size=(stories, 2))
        found = {"far": true + 3 + random.normal(size=true.shape), "near": true + random.normal(size=true.shape)}
        ordered = distances(found, true, SPREAD)
        assert list(ordered) == ["near", "far"]
        assert ordered["far"].excess == pytest.approx(ordered["far"].value - ordered["near"].value)
        assert ordered["far"].excess > 1.96 * ordered["far"].excess_error
        return {name: distance.error for name, distance in ordered.items()}

    few, many = measured(20), measured(2000)
    assert many["far"] < few["far"] / 5


def test_texts_of_the_same_distribution_are_as_far_as_chance_says() -> None:
    random = np.random.default_rng(0)
    pairs = [random.normal(size=(2, 50, 2)) * SPREAD for _ in range(100)]
    found = [distances({"same": first}, second, SPREAD)["same"] for first, second in pairs]
    expected = np.sqrt(2 / np.pi) * np.sqrt(2 / 50)
    assert np.mean([distance.value for distance in found]) == pytest.approx(expected, rel=0.15)
    assert np.mean([distance.chance for distance in found]) == pytest.approx(expected, rel=0.05)


def test_what_is_missing_is_left_out() -> None:
    true = np.zeros((4, 2))
    found = np.array([[1.0, np.nan], [1.0, np.nan], [np.nan, np.nan], [1.0, 4.0]])
    (distance,) = distances({"holes": found}, true, SPREAD).values()
    assert distance.value == pytest.approx((1 + 4 / 2) / 2)
