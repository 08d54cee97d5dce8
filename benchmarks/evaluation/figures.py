"""Figures of an evaluation as text, with their intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.report.table import UNKNOWN


def interval(estimate: Mapping[str, Any] | None, form: str = ".4f", factor: float = 1.0) -> str:
    """Returns a figure with the half width of its interval, such as `0.7446 ± 0.0120`."""
    if estimate is None or estimate.get("value") is None:
        return UNKNOWN
    value = factor * estimate["value"]
    if estimate.get("low") is None:
        return format(value, form)
    return f"{value:{form}} ± {factor * (estimate['high'] - estimate['low']) / 2:{form}}"


def form_of_difference(*percents: float) -> str:
    """Returns the form of a difference in percent, in which not all its figures are shown as zero unless they are.

    Args:
        percents: The difference and the ends or the half width of its interval.

    Returns:
        Two decimals, or one digit and an exponent if two decimals show 0.00 for all.
    """
    largest = max(map(abs, percents))
    return ".2f" if largest >= 0.005 or not largest else ".0e"


def number(value: float | None, form: str) -> str:
    """Returns a number in a form of Python; `-` if it is unknown."""
    return UNKNOWN if value is None else format(value, form)


def percent(estimate: Mapping[str, Any] | None) -> str:
    """Returns a share in percent with its interval, such as `89.6 % (88.1 to 90.9)`; `-` if it is unknown.

    The interval of a share is not symmetric. It is cut to 0 to 100 %.
    """
    if estimate is None or estimate.get("value") is None:
        return UNKNOWN
    value = f"{100 * estimate['value']:.1f} %"
    if estimate.get("low") is None:
        return value
    low, high = 100 * max(0.0, estimate["low"]), 100 * min(1.0, estimate["high"])
    return f"{value} ({low:.1f} to {high:.1f})"
