"""The distance of sets of figures to the true figures, with its standard error over the stories."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RESAMPLES = 2000

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Distance:
    """How far figures are from the true ones, in spreads.

    Attributes:
        value: The mean over the figures of |mean difference| / spread.
        error: Its standard error, from stories drawn again with replacement.
        chance: About what the value would be if all true mean differences were 0. A mean of absolute values is above 0.
        excess: The value minus the smallest value of all sets.
        excess_error: The standard error of `excess`. The same stories are drawn for both sets.
    """

    value: float
    error: float
    chance: float
    excess: float
    excess_error: float


def distances(found: Mapping[str, Floats], true: Floats, spread: Floats) -> dict[str, Distance]:
    """Computes the distance of each set of figures to the true figures.

    Args:
        found: Figures float [stories, figures] by name; NaN where one is missing. The stories are the same in all sets.
        true: The true figures, float [stories, figures]. A difference with NaN on either side is left out.
        spread: What one unit of each figure's distance is, float [figures], above 0.

    Returns:
        The distances by name, the smallest first.
    """
    drawn = np.random.default_rng(0).multinomial(len(true), np.full(len(true), 1 / len(true)), RESAMPLES)
    counts = np.vstack([np.ones(len(true), dtype=np.int64), drawn])
    differences = {name: _means(figures - true, counts) / spread for name, figures in found.items()}
    values = {name: np.abs(means).mean(axis=1) for name, means in differences.items()}
    order = sorted(values, key=lambda name: float(values[name][0]))
    best = values[order[0]]
    return {
        name: Distance(
            float(values[name][0]),
            float(values[name][1:].std()),
            math.sqrt(2 / math.pi) * float(differences[name][1:].std(axis=0).mean()),
            float(values[name][0] - best[0]),
            float((values[name] - best)[1:].std()),
        )
        for name in order
    }


def _means(differences: Floats, counts: npt.NDArray[np.int64]) -> Floats:
    """Returns the mean difference of each figure, float [draws, figures].

    Args:
        differences: The differences, float [stories, figures].
        counts: How often each story was drawn, [draws, stories].
    """
    present = ~np.isnan(differences)
    sums = counts @ np.where(present, differences, 0.0)
    means: Floats = sums / np.maximum(counts @ present.astype(np.int64), 1)
    return means
