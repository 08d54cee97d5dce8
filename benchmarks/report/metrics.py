"""What results are ranked and compared by, and when two of them differ by more than noise."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.report.record import Result
from runtimes.system.timing import Samples

LEAST_NOISE = 0.02


@dataclass(frozen=True)
class Criterion:
    """A figure of a result by which sides are ranked: its samples, and the words for it.

    `scale` turns a sample into `unit`. A side that leads "is 1.10x `ahead` than" another.
    """

    title: str
    unit: str
    scale: float
    more_is_better: bool
    better: str
    worse: str
    ahead: str
    samples: Callable[[Result], Samples | None]

    def gain(self, first: Result, second: Result) -> float | None:
        """How many times better `first` is than `second`, 1 for equal, None where one has no such figure."""
        one, other = self.samples(first), self.samples(second)
        if one is None or other is None:
            return None
        return one.median / other.median if self.more_is_better else other.median / one.median


def _one(value: int | None) -> Samples | None:
    return Samples([float(value)]) if value else None


def first_token(result: Result) -> Samples | None:
    """Seconds from the prompt to the first token, a sample for each round; None if not measured."""
    return Samples(result.first_token_seconds) if result.first_token_seconds else None


DECODE = Criterion(
    "decode",
    "tokens/s",
    1,
    True,
    "faster",
    "slower",
    "faster",
    lambda result: result.decode,
)
FIRST_TOKEN = Criterion(
    "first token",
    "ms",
    1000,
    False,
    "faster",
    "slower",
    "quicker to the first token",
    first_token,
)
MEMORY = Criterion(
    "peak memory",
    "MiB",
    2**-20,
    False,
    "smaller",
    "larger",
    "smaller in memory",
    lambda result: _one(result.peak_bytes),
)
DISK = Criterion(
    "disk",
    "MiB",
    2**-20,
    False,
    "smaller",
    "larger",
    "smaller on disk",
    lambda result: _one(result.disk_bytes),
)
CRITERIA = (DECODE, FIRST_TOKEN, MEMORY, DISK)


def noise(one: Samples, other: Samples) -> float:
    """How far from 1 the ratio of two medians may be by chance: twice the combined relative spread, at least 2 %."""
    return max(2 * math.hypot(one.spread, other.spread), LEAST_NOISE)
