"""The slope of a series, and what counts as growth."""

from __future__ import annotations

import numpy as np
import pytest

from tests.reliability.slope import slope_per_hour


def test_a_line_has_its_slope() -> None:
    seconds = [float(second) for second in range(100)]
    found = slope_per_hour(seconds, [3 * second / 3600 + 7 for second in seconds])
    assert (found.per_hour, found.low, found.high) == pytest.approx((3, 3, 3))


def test_the_interval_holds_the_true_slope_as_often_as_it_says() -> None:
    numbers = np.random.default_rng(0)
    seconds = [float(second) for second in range(200)]
    held = 0
    for _ in range(400):
        values = [5 * second / 3600 + noise for second, noise in zip(seconds, numbers.normal(0, 1, 200), strict=True)]
        found = slope_per_hour(seconds, values)
        held += found.low <= 5 <= found.high
    assert 0.85 <= held / 400 <= 0.98
