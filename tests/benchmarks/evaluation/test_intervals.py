"""The intervals hold what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.evaluation.intervals import mean, ratio, share, student


@pytest.mark.parametrize(
    ("freedom", "expected"), [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262), (30, 2.042), (598, 1.964)]
)
def test_student_is_that_of_the_tables(freedom: int, expected: float) -> None:
    assert student(freedom) == pytest.approx(expected, rel=0.005)


def test_95_percent_of_the_intervals_contain_the_ratio_of_the_population() -> None:
    rng = np.random.default_rng(1)
    sizes = rng.integers(20, 400, 20_000).astype(float)
    parts = sizes * rng.normal(2.0, 0.4, 20_000) + rng.normal(0, 20, 20_000)
    truth = parts.sum() / sizes.sum()
    found = []
    for _ in range(2000):
        drawn = rng.integers(0, 20_000, 150)
        estimate = ratio(parts[drawn], sizes[drawn])
        found.append(estimate.low <= truth <= estimate.high)
    assert 0.93 <= np.mean(found) <= 0.97


@pytest.mark.parametrize("probability", [0.5, 0.9, 0.99])
def test_about_95_percent_of_the_intervals_contain_the_share(probability: float) -> None:
    rng = np.random.default_rng(2)
    hits = rng.binomial(300, probability, 3000)
    intervals = [share(int(hit), 300) for hit in hits]
    assert 0.92 <= np.mean([interval.low <= probability <= interval.high for interval in intervals]) <= 0.98


def test_a_difference_of_the_smallest_size_is_found_four_times_of_five() -> None:
    rng = np.random.default_rng(3)
    smallest = np.mean([mean(rng.normal(0, 1, 100)).smallest_difference for _ in range(200)])
    found = [not mean(rng.normal(smallest, 1, 100)).contains_zero for _ in range(2000)]
    assert 0.75 <= np.mean(found) <= 0.85


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(0, 50)), min_size=2, max_size=30))
def test_a_ratio_is_that_of_the_totals_and_inside_its_interval(rows: list[tuple[float, int]]) -> None:
    parts, sizes = (np.array(column, np.float64) for column in zip(*rows, strict=True))
    estimate = ratio(parts, sizes)
    kept = sizes > 0
    if not kept.any():
        assert math.isnan(estimate.value)
        assert estimate.to_json()["value"] is None
        return
    assert estimate.value == pytest.approx(parts[kept].sum() / sizes[kept].sum())
    assert estimate.clusters == kept.sum()
    if estimate.clusters > 1:
        assert estimate.low <= estimate.value <= estimate.high
        assert estimate.scaled(2.0).high == pytest.approx(2 * estimate.high)


def test_an_interval_of_equal_values_has_no_width() -> None:
    assert ratio(np.array([2.0, 4.0]), np.array([1.0, 2.0])).to_json() == {
        "value": 2.0,
        "low": 2.0,
        "high": 2.0,
        "error": 0.0,
        "clusters": 2,
    }


@pytest.mark.parametrize(("hits", "low", "high"), [(0, 0.0, 0.2775), (10, 0.7225, 1.0), (5, 0.2366, 0.7634)])
def test_wilson_is_that_of_the_literature(hits: int, low: float, high: float) -> None:
    estimate = share(hits, 10)
    assert [estimate.low, estimate.high] == pytest.approx([low, high], abs=1e-4)
