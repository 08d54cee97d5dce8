"""The metrics by which results are ranked and compared, and the noise that a difference has to exceed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.report.record import Result
from runtimes.system.timing import Samples

LEAST_NOISE = 0.02
ENOUGH = 5  # samples that tell two runners apart if none of one is among those of the other


@dataclass(frozen=True)
class Metric:
    """A figure of a result by which runners are ranked.

    Attributes:
        title: Its name in tables.
        unit: Its unit in tables.
        scale: The factor that turns a sample into `unit`.
        more_is_better: Whether a larger value is better.
        better: The word for an improvement.
        worse: The word for a deterioration.
        topic: The words for it in a sentence, as in "is ahead in memory".
        samples: Returns the samples of a result; None if it was not measured.
    """

    title: str
    unit: str
    scale: float
    more_is_better: bool
    better: str
    worse: str
    topic: str
    samples: Callable[[Result], Samples | None]

    def rank(self, result: Result) -> float:
        """Returns a number that is larger for a better result; minus infinity if it was not measured."""
        samples = self.samples(result)
        if samples is None:
            return -math.inf
        return samples.median if self.more_is_better else -samples.median

    def gain(self, first: Result, second: Result) -> float | None:
        """Returns how many times better `first` is than `second`; None if one of them was not measured."""
        one, other = self.samples(first), self.samples(second)
        if one is None or other is None:
            return None
        return one.median / other.median if self.more_is_better else other.median / one.median

    def lead(self, first: Result, second: Result) -> float | None:
        """Returns how many times better `first` is than `second`; None if chance can be the reason.

        It is better if the ratio of the medians is beyond the noise, or beyond 2 % where every sample of `first` is
        better than every sample of `second`. Of five samples each, chance orders them so once in 252 times.
        """
        gain, one, other = self.gain(first, second), self.samples(first), self.samples(second)
        if gain is None or one is None or other is None:
            return None
        low, high = (other, one) if self.more_is_better else (one, other)
        apart = min(len(low.values), len(high.values)) >= ENOUGH and max(low.values) < min(high.values)
        return gain if gain - 1 > (LEAST_NOISE if apart else noise(one, other)) else None


def _single(value: int | None) -> Samples | None:
    return Samples([float(value)]) if value else None


def first_token(result: Result) -> Samples | None:
    """Returns the seconds from the prompt to the first token, a sample for each round; None if not measured."""
    return Samples(result.first_token_seconds) if result.first_token_seconds else None


DECODE = Metric("decode", "tokens/s", 1, True, "faster", "slower", "speed", lambda result: result.decode)
FIRST_TOKEN = Metric("first token", "ms", 1000, False, "faster", "slower", "time to the first token", first_token)
MEMORY = Metric(
    "peak memory",
    "MiB",
    2**-20,
    False,
    "smaller",
    "larger",
    "memory",
    lambda result: _single(result.peak_bytes),
)
DISK = Metric("disk", "MB", 1e-6, False, "smaller", "larger", "size", lambda result: _single(result.disk_bytes))
METRICS = (DECODE, FIRST_TOKEN, MEMORY, DISK)


def noise(one: Samples, other: Samples) -> float:
    """Returns the distance from 1 that chance can cause in the ratio of two medians.

    It is twice the combined relative spread of both, and at least 2 %. The spread is half the interquartile range
    relative to the median.
    """
    return max(2 * math.hypot(one.spread, other.spread), LEAST_NOISE)
