"""The median, the quartiles and the spread of samples."""

from __future__ import annotations

import pytest

from runtimes.system.timing import Samples


def test_quartiles_and_spread() -> None:
    samples = Samples([80, 90, 100, 101, 102])
    assert samples.median == 100
    assert samples.quartiles == (85, 101.5)
    assert samples.spread == pytest.approx((101.5 - 85) / 2 / 100)


def test_one_sample_has_no_spread() -> None:
    samples = Samples([80])
    assert samples.quartiles == (80, 80)
    assert samples.spread == 0
