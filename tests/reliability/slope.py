"""The growth of a measured value, with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.evaluation.intervals import student

BLOCKS = 10


class Slope(NamedTuple):
    """A change of a value and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


def slope_of(places: Sequence[float], values: Sequence[float]) -> Slope:
    """Returns the slope of a line through a series, by least squares.

    Neighbouring readings are not independent. Therefore the readings are averaged in ten blocks first, and the
    interval is that of a line through the averages (ordinary least squares, Student's t distribution).

    Args:
        places: Where the values were read, such as hours or numbers of stories, ascending, at least ten of them.
        values: The values.
    """
    blocks = [part for part in np.array_split(np.arange(len(values)), BLOCKS) if len(part)]
    x = np.array([np.mean(np.asarray(places)[part]) for part in blocks])
    y = np.array([np.mean(np.asarray(values, float)[part]) for part in blocks])
    centred = x - x.mean()
    slope = float((centred * y).sum() / (centred**2).sum())
    left = y - y.mean() - slope * centred
    freedom = len(x) - 2
    half = student(freedom) * float(np.sqrt((left**2).sum() / freedom / (centred**2).sum()))
    return Slope(slope, slope - half, slope + half)
