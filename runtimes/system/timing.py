"""Compares the speed of runners. They run in turn in every round, and every sample is kept."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

PAUSE = 0.05  # seconds between runners, so that threads that spin after a run do not slow down the next runner


@dataclass(frozen=True)
class Samples:
    """Raw samples of one runner, all in one unit."""

    values: list[float]

    @property
    def median(self) -> float:
        """The median."""
        return statistics.median(self.values)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The first and the third quartile. Both are the median if there is one sample."""
        if len(self.values) < 2:
            return self.median, self.median
        first, _, third = statistics.quantiles(self.values, n=4)
        return first, third

    @property
    def spread(self) -> float:
        """Half the interquartile range, relative to the median."""
        first, third = self.quartiles
        return (third - first) / 2 / self.median


def alternate(runners: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, Samples]:
    """Calls every runner once in each round. A first round is not counted.

    Args:
        runners: Functions that each run once and return their sample, by name.
        rounds: The number of counted rounds.

    Returns:
        The samples by name.
    """
    taken: dict[str, list[float]] = {name: [] for name in runners}
    for number in range(rounds + 1):
        for name, runner in runners.items():
            time.sleep(PAUSE)
            sample = runner()
            if number:
                taken[name].append(sample)
    return {name: Samples(values) for name, values in taken.items()}
