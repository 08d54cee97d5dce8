"""The units of prediction."""

from __future__ import annotations

import math

import pytest

from slm.metrics import bits_per_byte


def test_bits_per_byte_of_known_figures() -> None:
    # Each of ten tokens has eight equally likely values, which are three bits, and each is two bytes of text.
    assert bits_per_byte(10 * math.log(8), tokens=10, bytes_per_token=2.0) == pytest.approx(1.5)
