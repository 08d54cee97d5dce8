"""The units of prediction."""

from __future__ import annotations

import math

import pytest

from slm.metrics import bits_per_byte, shown_bits


def test_bits_per_byte_of_known_figures() -> None:
    # Each of ten tokens has eight equally likely values, which are three bits, and each is two bytes of text.
    assert bits_per_byte(10 * math.log(8), tokens=10, bytes_per_token=2.0) == pytest.approx(1.5)


def test_a_figure_and_its_copy_in_a_record_look_alike() -> None:
    exact = 1.947551  # with five decimals, as in a record, it is stored as less than 1.94755
    assert f"{exact:.4f}" != f"{round(exact, 5):.4f}"
    assert shown_bits(exact) == shown_bits(round(exact, 5)) == "1.9475"
